//! Which matches come out, and in which order: the skip strategies.

use std::cmp::Ordering;

use partita::pattern::{Rule, Skip};

use super::arrival::Applied;
use super::sequence::Path;
use super::{Found, Out};

/// Something happens to a key: its event of this number comes, or, before that event, time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Moment {
    number: usize,
    /// Time comes first.
    time: Time,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Time {
    Before(i64),
    Event,
}

impl Moment {
    pub(super) fn event(number: usize) -> Self {
        let time = Time::Event;
        Self { number, time }
    }

    pub(super) fn time(before: usize, at: i64) -> Self {
        Self {
            number: before,
            time: Time::Before(at),
        }
    }

    fn out(self, applied: &[Applied<'_>]) -> Out {
        match self.time {
            Time::Before(at) => Out::Time(at),
            Time::Event => applied[self.number].out(),
        }
    }
}

/// A path of events, and what becomes of it.
#[derive(Debug)]
pub(super) struct Life {
    pub(super) path: Path,
    pub(super) begins: Moment,
    /// From when on it waits for nothing more; `None`: not until the end.
    pub(super) ends: Option<Moment>,
    pub(super) matches: Vec<(Moment, i64)>,
    pub(super) times_out: Option<(Moment, i64)>,
}

impl Life {
    fn start(&self) -> usize {
        self.path[0].0
    }

    fn is_open_after(&self, moment: Moment) -> bool {
        self.begins <= moment && self.ends.is_none_or(|ends| moment < ends)
    }

    fn show(&self, applied: &[Applied<'_>], moment: Moment, at: i64) -> Found {
        let events = self.path.iter().map(|(number, name)| {
            let position = applied[*number].input.position;
            (*name, position)
        });
        Found {
            out: moment.out(applied),
            at,
            events: events.collect(),
        }
    }
}

/// Of two that differ in an event, the one that took it comes first; of two that took it, the one
/// that took it for the earlier step.
fn order(one: &Path, two: &Path) -> Ordering {
    let place = one.iter().zip(two).position(|(one, two)| one != two);
    match place {
        Some(place) => one[place].cmp(&two[place]),
        None => two.len().cmp(&one.len()),
    }
}

pub(super) fn select(
    rule: &Rule,
    applied: &[Applied<'_>],
    mut lives: Vec<Life>,
) -> (Vec<Found>, Vec<Found>) {
    lives.sort_by(|one, two| order(&one.path, &two.path));
    let mut moments: Vec<Moment> = (0..applied.len()).map(Moment::event).collect();
    for life in &lives {
        moments.extend(life.ends);
        moments.extend(life.matches.iter().map(|(moment, _)| *moment));
    }
    moments.sort_unstable();
    moments.dedup();
    let skip = rule.emit.after_match;
    let mut gone = vec![false; applied.len()];
    let mut waiting: Vec<(&Life, i64)> = Vec::new();
    let (mut matches, mut timed_out) = (Vec::new(), Vec::new());
    for moment in moments {
        for life in lives.iter().filter(|life| !gone[life.start()]) {
            if let Some((at, end)) = life.times_out
                && at == moment
            {
                timed_out.push(life.show(applied, moment, end));
            }
            let now = life.matches.iter().find(|(at, _)| *at == moment);
            waiting.extend(now.map(|(_, at)| (life, *at)));
        }
        if skip == Skip::None {
            matches.extend(
                waiting
                    .drain(..)
                    .map(|(life, at)| life.show(applied, moment, at)),
            );
            continue;
        }
        waiting.sort_by_key(|(life, _)| life.start());
        while let Some((found, at)) = waiting.first().copied() {
            // One that began earlier may still match, and would then come first.
            let earlier = |life: &&Life| {
                life.start() < found.start() && !gone[life.start()] && life.is_open_after(moment)
            };
            if lives.iter().any(|life| earlier(&life)) {
                break;
            }
            waiting.remove(0);
            matches.push(found.show(applied, moment, at));
            let of = |name: u16| {
                let of_name = found.path.iter().filter(move |(_, known)| *known == name);
                of_name.map(|(number, _)| *number)
            };
            let (last, _) = found.path[found.path.len() - 1];
            let keep_from = match skip {
                Skip::None => None,
                Skip::PastLast => Some(last + 1),
                Skip::ToNext => Some(found.start() + 1),
                Skip::ToFirst(name) => of(name).next(),
                Skip::ToLast(name) => of(name).next_back(),
            };
            let keep_from = keep_from.unwrap_or(0);
            gone[..keep_from].fill(true);
            waiting.retain(|(life, _)| life.start() >= keep_from);
        }
    }
    (matches, timed_out)
}
