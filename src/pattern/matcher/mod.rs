//! Matchers: a rule and its state, fed events in the order of arrival.
//!
//! [`Matcher`] evaluates the conditions of an event's topic once, finds the state of its key
//! (`keyed`, `keys`), lets it wait there for those before it by event time (`order`) and hands it to
//! the machine of the rule's shape: `any`, `all` for conditions in any order and counts, `chain` for
//! relaxed and any-contiguous sequences whose conditions look at one event alone, `automaton` for
//! every other sequence, unfolded into `nodes`. `measured` stands before a machine whose conditions
//! compare an event with those before it, `windows` aggregates (`shown` is what a match has of one,
//! `depths` over how many rules its events came about). `suppress` thins out what comes of it. All
//! state is plain data, and each key is an island that can be saved and put back by itself; it has one
//! timer (`timers`), for the earliest time at which something of it is due, so that nothing is scanned
//! for age (save under `within_gap`, where partial matches run out in another order than they began). A
//! key without events for `idle_key_ttl` is dropped by the same timer.

mod all;
mod any;
mod automaton;
mod chain;
mod depths;
mod few;
mod keyed;
mod keys;
mod measured;
mod nodes;
mod order;
mod saved;
mod shown;
mod suppress;
mod timers;
mod ways;
mod windows;

use std::sync::Arc;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::event::{Event, Scalar, Taken};
use super::output::{Key, Match, Outputs, Overflow, TimedOut};
use super::predicate::Nothing;
use super::rule::{Rule, Shape};
use crate::model::{Millis, Timestamp};
use depths::Depths;
pub use keyed::RestoreError;
use keyed::{Context, Keyed, Running};
use keys::Aside;
use measured::Measured;
use order::Order;
pub use order::Progress;

/// A rule at work on one stream.
#[derive(Debug)]
pub struct Matcher {
    rule: Arc<Rule>,
    /// By topic: the conditions that look at one event alone, and whether events that meet none
    /// matter all the same.
    by_topic: Vec<Topic>,
    order: Order,
    /// Events that had to wait so far.
    arrivals: u64,
    machine: Box<dyn Running>,
    /// Room for a key of several values.
    several: Vec<Scalar>,
    report_timed_out: bool,
}

#[derive(Debug)]
struct Topic {
    predicates: Vec<u16>,
    every_event: bool,
}

/// What a machine gets beside the state of a key.
struct Step<'a> {
    rule: &'a Rule,
    key: &'a Key,
    now: Timestamp,
    /// Dense number of the event among those of the key.
    order: u64,
    /// Event time up to which an event of the key may begin something.
    begins_until: Timestamp,
    report_timed_out: bool,
    depths: Option<&'a Depths>,
    aside: &'a mut Option<Box<Aside>>,
    /// Matches that may still come out, and partial matches that may still be told to have run out.
    room: usize,
    room_timed_out: usize,
    /// Those of either that did not come out any more.
    cut: u64,
    out: &'a mut Outputs,
}

impl Step<'_> {
    /// Whether an event at `at` may begin something, and not only go on with what began before.
    fn may_begin(&self, at: Timestamp) -> bool {
        at <= self.begins_until
    }

    fn emit(&mut self, at: Timestamp, events: Vec<(u16, Taken)>) {
        let Some(room) = self.room.checked_sub(1) else {
            self.cut(1);
            return;
        };
        self.room = room;
        let key = self.key.clone();
        let found = Match { key, at, events };
        let emit = &self.rule.emit;
        if emit.debounce.is_none() && emit.cooldown.is_none() {
            self.out.matches.push(found);
            return;
        }
        let suppress = &mut self.aside.get_or_insert_default().suppress;
        suppress.release(emit, self.key, self.now, self.out);
        suppress.pass(emit, found, self.out);
        // Its own wait may be over as well, where it was found long after its time.
        suppress.release(emit, self.key, self.now, self.out);
    }

    fn time_out(&mut self, at: Timestamp, events: Vec<(u16, Taken)>) {
        let Some(room) = self.room_timed_out.checked_sub(1) else {
            self.cut(1);
            return;
        };
        self.room_timed_out = room;
        let key = self.key.clone();
        self.out.timed_out.push(TimedOut { key, at, events });
    }

    /// Takes note of what does not come out for want of room.
    fn cut(&mut self, count: u64) {
        self.cut = self.cut.saturating_add(count);
    }

    /// Says what did not come out for want of room.
    fn end(mut self) {
        if self.cut > 0 {
            self.overflow("max_results_per_event", self.cut);
        }
    }

    fn overflow(&mut self, limit: &'static str, dropped: u64) {
        self.out.overflows.push(Overflow {
            key: Some(self.key.clone()),
            at: self.now,
            limit,
            dropped,
        });
    }
}

/// The state of one key and what moves it on.
trait Shaped {
    type State: Default + std::fmt::Debug;
    /// Whether its matches hold something else than the events that made them.
    const HIDES_EVENTS: bool = false;
    /// `met` has a bit for each condition that the event meets by itself.
    fn event(&self, state: &mut Self::State, event: &Event<'_>, met: u64, step: &mut Step<'_>);
    /// Everything up to `step.now` ran out.
    fn expire(&self, state: &mut Self::State, step: &mut Step<'_>);
    /// The earliest time at which something runs out.
    fn deadline(&self, state: &Self::State) -> Option<Timestamp>;
    fn is_idle(&self, state: &Self::State) -> bool;
    /// Makes it what it is by default.
    fn clear(&self, state: &mut Self::State) {
        *state = Self::State::default();
    }
    /// Reads a bit of the state here and there, as far as it lies in place: where many keys are due at once,
    /// memory brings what is needed of some of them together, and each by itself would be waited for.
    fn near(&self, _: &Self::State) -> u64 {
        0
    }
    /// The same of what lies elsewhere and [`Shaped::expire`] will need.
    fn far(&self, _: &Self::State) -> u64 {
        0
    }
    /// Partial matches; where the shape keeps events, or windows, in their place, those kept.
    fn partials(&self, state: &Self::State) -> usize;
    /// Gives up partial matches, or what is kept in their place, until at most `most` are left: the
    /// oldest or the newest first, as the rule's limits say.
    fn shed(&self, state: &mut Self::State, most: usize, step: &mut Step<'_>);
}

/// A machine of a rule whose conditions may compare an event with those before it.
fn keyed<M>(rule: &Rule, machine: M) -> Box<dyn Running>
where
    M: Shaped + std::fmt::Debug + Send + 'static,
    M::State: Serialize + DeserializeOwned + Send,
{
    match rule.measures.is_empty() {
        true => Box::new(Keyed::new(machine)),
        false => Box::new(Keyed::new(Measured::new(rule, machine))),
    }
}

impl Matcher {
    /// Version of the saved state of a key, its first byte.
    pub const STATE_VERSION: u8 = keyed::SAVED;

    /// With empty state. Partial matches that run out are reported where `report_timed_out`.
    pub fn new(rule: Arc<Rule>, report_timed_out: bool) -> Self {
        let mut needs_every_event = false;
        let machine: Box<dyn Running> = match &rule.shape {
            Shape::Any { conditions } => keyed(&rule, any::Any::new(conditions)),
            Shape::All { within, conditions } => {
                let lateness = rule.time.allowed_lateness;
                keyed(&rule, all::All::new(*within, lateness, conditions))
            }
            Shape::Count {
                within,
                at_least,
                condition,
            } => {
                let lateness = rule.time.allowed_lateness;
                let count = *at_least as usize;
                keyed(
                    &rule,
                    all::All::counting(*within, lateness, *condition, count),
                )
            }
            Shape::Window(window) => {
                let lateness = rule.time.allowed_lateness.0;
                let lateness = i64::try_from(lateness).unwrap_or(i64::MAX);
                let most = rule.limits.max_partials_per_key;
                Box::new(Keyed::new(windows::Windows::new(window, lateness, most)))
            }
            Shape::Sequence(sequence) if !rule.measures.is_empty() => {
                let automaton = automaton::Automaton::new(&rule, sequence);
                needs_every_event = automaton.is_strict();
                Box::new(Keyed::new(Measured::new(&rule, automaton)))
            }
            Shape::Sequence(sequence) => match chain::Chain::new(&rule, sequence) {
                Some(chain) => Box::new(Keyed::new(chain)),
                None => {
                    let automaton = automaton::Automaton::new(&rule, sequence);
                    needs_every_event = automaton.is_strict();
                    Box::new(Keyed::new(automaton))
                }
            },
        };
        let mut machine = machine;
        if let Some(ttl) = rule.limits.idle_key_ttl {
            machine.forget_after(ttl);
        }
        let by_topic = (0..rule.topics.len())
            .map(|topic| {
                let of_topic =
                    |place: &u16| usize::from(rule.predicates[usize::from(*place)].topic) == topic;
                let all = 0..rule.predicates.len() as u16;
                let predicates: Vec<u16> = all.filter(of_topic).collect();
                let looks_back = |place: &u16| rule.predicates[usize::from(*place)].looks_back;
                Topic {
                    every_event: needs_every_event || predicates.iter().any(looks_back),
                    predicates: predicates
                        .into_iter()
                        .filter(|place| !looks_back(place))
                        .collect(),
                }
            })
            .collect();
        Self {
            order: Order::new(&rule),
            by_topic,
            arrivals: 0,
            machine,
            several: Vec::new(),
            report_timed_out,
            rule,
        }
    }

    pub fn rule(&self) -> &Arc<Rule> {
        &self.rule
    }

    /// What of a topic (a place in [`Rule::topics`]) matters here: the places of the conditions
    /// that look at the event alone, and whether events that meet none of them matter as well.
    pub fn interest(&self, topic: u16) -> (&[u16], bool) {
        self.by_topic
            .get(usize::from(topic))
            .map_or((&[], false), |topic| (&topic.predicates, topic.every_event))
    }

    /// How far event time has come: partial matches and held events end where it passes their
    /// `within`.
    pub fn progress(&self) -> Progress {
        self.order.progress
    }

    /// Goes on from where another matcher of the rule was; its keys come by [`Matcher::restore`].
    pub fn resume(&mut self, progress: Progress) {
        self.order.progress = progress;
    }

    /// Keys that hold state.
    pub fn keys(&self) -> usize {
        self.machine.len()
    }

    /// Partial matches of all keys; of shapes that keep events in their place, and of windows: those
    /// kept.
    pub fn partials(&self) -> usize {
        self.machine.partials()
    }

    /// Events of all keys that wait for the watermark.
    pub fn buffered(&self) -> usize {
        self.machine.held()
    }

    /// Event time at which something of some key is due, or before that; `None`: nothing waits.
    pub fn next_due(&self) -> Option<Timestamp> {
        self.machine.next_due()
    }

    /// How far [`Matcher::observe`] must say that every source has come for something to be due, or
    /// before that; `None`: nothing waits.
    pub fn due_when_come_to(&self) -> Option<Timestamp> {
        self.next_due().map(|due| self.order.latest_at(due))
    }

    /// The watermark of a matcher whose sources have all come to `latest`, unless it was further on.
    pub fn watermark_at(&self, latest: Timestamp) -> Timestamp {
        self.order.watermark_at(latest)
    }

    /// From now on [`Matcher::take_changed`] tells which keys changed.
    pub fn note_changes(&mut self) {
        self.machine.note_changes();
    }

    /// Calls `visit` for each key that changed since last asked, with its state for
    /// [`Matcher::restore`]; `None`: nothing of the key is left. A key may be named twice where
    /// nothing is left of it.
    pub fn take_changed(&mut self, visit: &mut dyn FnMut(&Key, Option<Vec<u8>>)) {
        self.machine.take_changed(visit);
    }

    /// Puts the state of one key back, in place of what is there of it.
    ///
    /// # Errors
    /// Where another version wrote it, or nobody did.
    pub fn restore(&mut self, key: &[Scalar], saved: &[u8]) -> Result<(), RestoreError> {
        let patience = self.patience();
        let last = self.machine.restore(key, saved, patience)?;
        self.arrivals = self.arrivals.max(last);
        Ok(())
    }

    /// Forgets all that is known of a key.
    pub fn forget(&mut self, key: &[Scalar]) {
        self.machine.forget(key);
    }

    /// Takes an event as it arrives; event time moves on by it, less `out_of_order`.
    pub fn push(&mut self, event: &Event<'_>, out: &mut Outputs) {
        if self.order.is_late(event.at) {
            out.late.push(event.position);
            return;
        }
        let watermark = self.order.note(event.at);
        self.take_in(event, true, out);
        self.move_to(watermark, out);
    }

    /// Takes an event of one source among several: it says nothing about how far time has come,
    /// which [`Matcher::observe`] does.
    pub fn offer(&mut self, event: &Event<'_>, out: &mut Outputs) {
        self.take(event, true, out);
    }

    /// Counts the conditions without an answer of an event that meets none: it is not for this matcher
    /// otherwise.
    pub fn pass_over(&mut self, event: &Event<'_>, out: &mut Outputs) {
        let mut several = std::mem::take(&mut self.several);
        self.met(event, key_of(&self.rule, event, &mut several), out);
        self.several = several;
    }

    /// As [`Matcher::offer`] for a rule that another takes the place of: the event goes on with what
    /// its key began before, and begins nothing. What an event may begin is told by event time, for
    /// each key: up to the latest that it was offered and that met a condition.
    pub fn carry_on(&mut self, event: &Event<'_>, out: &mut Outputs) {
        let mut several = std::mem::take(&mut self.several);
        let key = key_of(&self.rule, event, &mut several);
        let waits = is_key(key) && self.machine.waits_at(key);
        self.several = several;
        if waits {
            self.take(event, false, out);
        }
    }

    /// Whether some key has partial matches, open windows, events that wait for their turn or matches
    /// that are held back; what detectors have learned is none of these.
    pub fn is_waiting(&self) -> bool {
        self.machine.is_waiting()
    }

    /// Every source has come to `latest`: event time moves on to it, less `out_of_order`.
    pub fn observe(&mut self, latest: Timestamp, out: &mut Outputs) {
        let watermark = self.order.note(latest);
        self.move_to(watermark, out);
    }

    /// As [`Matcher::observe`], with at most `room` of what falls due, which is taken off it; whether that
    /// was all. If not, the next event is yet to be offered when another call has said so.
    pub fn observe_some(&mut self, latest: Timestamp, room: &mut usize, out: &mut Outputs) -> bool {
        let watermark = self.order.note(latest);
        self.move_some(watermark, room, out)
    }

    /// Event time has come to `time`: nothing earlier arrives any more, save what
    /// `allowed_lateness` takes. Deadlines up to `time` fall due.
    pub fn advance(&mut self, time: Timestamp, out: &mut Outputs) {
        self.order.advance(time);
        self.move_to(time, out);
    }

    /// The latest time at which anything that is held now runs out; a caller that has no more
    /// events advances to it to see every deadline.
    pub fn end_of_windows(&self) -> Option<Timestamp> {
        let span = match &self.rule.shape {
            Shape::All { within, .. } | Shape::Count { within, .. } => {
                Some(Millis(within.0 + self.rule.time.allowed_lateness.0))
            }
            Shape::Window(window) => Some(window.span.reach()),
            Shape::Any { .. } => None,
            Shape::Sequence(sequence) => {
                Some(sequence.within.unwrap_or_else(|| sequence.longest_gap()))
            }
        };
        let debounce = self.rule.emit.debounce.unwrap_or_default();
        let held = self.order.progress.latest;
        held.map(|held| held + span.unwrap_or_default() + debounce)
    }

    /// How long after its time a match may still come out.
    fn patience(&self) -> Millis {
        let debounce = self.rule.emit.debounce.unwrap_or_default();
        Millis(self.order.patience().0.saturating_add(debounce.0))
    }

    fn move_to(&mut self, time: Timestamp, out: &mut Outputs) {
        let mut room = usize::MAX;
        self.move_some(time, &mut room, out);
    }

    fn move_some(&mut self, time: Timestamp, room: &mut usize, out: &mut Outputs) -> bool {
        if self.order.progress.now.is_some_and(|now| time <= now) {
            return true;
        }
        // As it is with most events.
        if self.machine.next_due().is_none_or(|due| due > time) {
            self.order.progress.now = Some(time);
            return true;
        }
        let context = Context {
            rule: &self.rule,
            now: time,
            patience: self.patience(),
            begins: true,
            report_timed_out: self.report_timed_out,
        };
        let is_all = self.machine.fire(context, room, out);
        if is_all {
            self.order.progress.now = Some(time);
        }
        is_all
    }

    /// Takes an event that says nothing about how far time has come, unless it is late.
    fn take(&mut self, event: &Event<'_>, begins: bool, out: &mut Outputs) {
        match self.order.is_late(event.at) {
            true => out.late.push(event.position),
            false => self.take_in(event, begins, out),
        }
    }

    /// Applies an event, or keeps it until the watermark has come to it.
    fn take_in(&mut self, event: &Event<'_>, begins: bool, out: &mut Outputs) {
        let watermark = self.order.progress.watermark;
        let is_early = watermark.is_none_or(|watermark| event.at > watermark);
        if !is_early {
            self.move_to(event.at, out);
        }
        let mut several = std::mem::take(&mut self.several);
        match key_of(&self.rule, event, &mut several) {
            key if is_key(key) => self.take_keyed(event, key, (is_early, begins), out),
            _ => out.unkeyed.push(event.position),
        }
        self.several = several;
    }

    fn take_keyed(
        &mut self,
        event: &Event<'_>,
        key: &[Scalar],
        (is_early, begins): (bool, bool),
        out: &mut Outputs,
    ) {
        let met = self.met(event, key, out);
        if met == 0 && !self.interest(event.topic).1 {
            return;
        }
        let context = Context {
            rule: &self.rule,
            now: self.order.progress.now.unwrap_or(event.at),
            patience: self.patience(),
            begins,
            report_timed_out: self.report_timed_out,
        };
        if is_early {
            self.arrivals += 1;
            let arrival = self.arrivals;
            self.machine.hold(arrival, event, met, key, context, out);
            self.bound_buffer(out);
        } else {
            self.machine.apply(event, met, key, context, out);
        }
    }

    /// A bit for each condition that the event meets by itself.
    fn met(&self, event: &Event<'_>, key: &[Scalar], out: &mut Outputs) -> u64 {
        let mut met = 0u64;
        for place in self.interest(event.topic).0 {
            let predicate = &self.rule.predicates[usize::from(*place)];
            match predicate.holds(&self.rule, event, key, &Nothing) {
                Some(holds) => met |= u64::from(holds) << place,
                None => out.condition_errors += 1,
            }
        }
        met
    }

    /// Where too many events wait for the watermark, it comes to the earliest of them: none of those is
    /// lost, and what arrives later with an earlier time is late.
    fn bound_buffer(&mut self, out: &mut Outputs) {
        let before = self.machine.held();
        if before <= self.rule.limits.max_buffered_events {
            return;
        }
        while self.machine.held() > self.rule.limits.max_buffered_events
            && let Some(due) = self.machine.next_due()
        {
            self.order.advance(due);
            self.move_to(due, out);
        }
        out.overflows.push(Overflow {
            key: None,
            at: self.order.progress.now.unwrap_or_default(),
            limit: "max_buffered_events",
            dropped: (before - self.machine.held()) as u64,
        });
    }
}

/// The values that the rule correlates by: where they lie, or put together in `several`.
#[inline]
fn key_of<'a>(rule: &Rule, event: &Event<'a>, several: &'a mut Vec<Scalar>) -> &'a [Scalar] {
    let value = |slot: &u16| &event.slots[usize::from(*slot)];
    match &rule.correlate[..] {
        [(_, slot)] => std::slice::from_ref(value(slot)),
        slots => {
            several.clear();
            several.extend(slots.iter().map(|(_, slot)| value(slot).clone()));
            several
        }
    }
}

#[inline]
fn is_key(values: &[Scalar]) -> bool {
    values.iter().all(Scalar::is_key)
}
