//! Which rules of a partition there is something to do for: those that were given something since the
//! last look, those of which something is due, and those that wait for their tables or to go. The others
//! are not touched, however many they are: how far event time has come for them is kept once for all
//! rules that have the same account of it, and they take it over when it matters.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::partition::RuleId;
use super::running::Running;
use super::sources::Sources;
use crate::model::Timestamp;
use crate::pattern::Rule;

#[derive(Default)]
pub(super) struct Agenda {
    courses: Vec<Course>,
    /// Rules that something was done with or is to be done for, since they were settled last.
    touched: BTreeSet<RuleId>,
    /// Rules that are touched at each look, until they have what they wait for.
    restless: BTreeSet<RuleId>,
}

/// Event time as it goes for some rules.
struct Course {
    /// One of them.
    rule: Arc<Rule>,
    clocks: Vec<String>,
    /// The furthest that the sources had come to at any look.
    come_to: Option<Timestamp>,
    /// When the sources will have come so far that something is due, and of which rule.
    timers: BTreeSet<(Timestamp, RuleId)>,
}

/// The entries of a rule in its partition's agenda.
#[derive(Debug, Default)]
pub(super) struct Place {
    course: usize,
    armed: Option<Timestamp>,
    is_touched: bool,
    is_restless: bool,
}

impl Agenda {
    /// Whether anything may fall due as time goes on.
    pub(super) fn is_waiting(&self) -> bool {
        let mut courses = self.courses.iter();
        !self.restless.is_empty() || courses.any(|course| !course.timers.is_empty())
    }

    /// Takes up a rule that has no place yet, or had one in another agenda.
    pub(super) fn enter(&mut self, id: &RuleId, running: &mut Running) {
        let (rule, clocks) = (&running.rule, &running.clocks);
        let is_same = |course: &Course| {
            course.rule.topics == rule.topics
                && course.rule.time.idle_after == rule.time.idle_after
                && course.clocks == *clocks
        };
        // Rules that follow one another mostly read the same topics.
        let course = self.courses.iter().rposition(is_same).unwrap_or_else(|| {
            self.courses.push(Course {
                rule: rule.clone(),
                clocks: clocks.clone(),
                come_to: None,
                timers: BTreeSet::new(),
            });
            self.courses.len() - 1
        });
        running.place = Place {
            course,
            ..Place::default()
        };
        self.touch(id, running);
    }

    /// Notes that something is done with a rule; whether it is the first since it was settled.
    pub(super) fn touch(&mut self, id: &RuleId, running: &mut Running) -> bool {
        let is_first = !std::mem::replace(&mut running.place.is_touched, true);
        if is_first {
            self.touched.insert(id.clone());
        }
        is_first
    }

    /// How far the sources of a rule had come at the last look, or before.
    pub(super) fn come_to(&self, running: &Running) -> Option<Timestamp> {
        self.courses[running.place.course].come_to
    }

    /// Looks how far the sources have come: what is due by then is touched.
    pub(super) fn look(&mut self, sources: &Sources, now: Timestamp) {
        for course in &mut self.courses {
            let time = sources.time_of(&course.rule, &course.clocks, now);
            course.come_to = course.come_to.max(time);
            let is_due = |(due, _): &&(Timestamp, RuleId)| Some(*due) <= course.come_to;
            let due = course.timers.iter().take_while(is_due);
            self.touched.extend(due.map(|(_, id)| id.clone()));
        }
        self.touched.extend(self.restless.iter().cloned());
    }

    /// The rules there is something to do for, in order.
    pub(super) fn touched(&self) -> &BTreeSet<RuleId> {
        &self.touched
    }

    /// The rules that were touched, each to be settled or removed.
    pub(super) fn take_touched(&mut self) -> BTreeSet<RuleId> {
        std::mem::take(&mut self.touched)
    }

    /// Notes what a rule waits for now that all was done for it.
    pub(super) fn settle(&mut self, id: &RuleId, running: &mut Running) {
        let due = running.matcher.due_when_come_to();
        let is_restless = running.is_leaving || !running.held.is_empty();
        self.wait(id, &mut running.place, due, is_restless);
    }

    /// A rule goes.
    pub(super) fn remove(&mut self, id: &RuleId, mut running: Running) {
        self.wait(id, &mut running.place, None, false);
    }

    fn wait(&mut self, id: &RuleId, place: &mut Place, due: Option<Timestamp>, is_restless: bool) {
        place.is_touched = false;
        if place.armed != due {
            let timers = &mut self.courses[place.course].timers;
            if let Some(armed) = place.armed {
                timers.remove(&(armed, id.clone()));
            }
            if let Some(due) = due {
                timers.insert((due, id.clone()));
            }
            place.armed = due;
        }
        if place.is_restless != is_restless {
            match is_restless {
                true => self.restless.insert(id.clone()),
                false => self.restless.remove(id),
            };
            place.is_restless = is_restless;
        }
    }
}
