//! Conditions in any order, and counts: the events of each condition are kept in the order of
//! time. A match begins with one event and takes, of each other condition, the first from there on
//! (the union of the relaxed sequences over all orders); one event may meet several conditions.

use std::collections::VecDeque;

use super::{Shaped, Step};
use crate::model::{Millis, Timestamp};
use crate::pattern::event::{Event, Taken};
use crate::pattern::rule::{Condition, OnOverflow, Skip};

#[derive(Debug)]
pub(super) struct All {
    within: Millis,
    conditions: Vec<Condition>,
    /// Events of the one condition that make a match.
    count: Option<usize>,
}

/// The events of one key by condition.
#[derive(Debug, Default)]
pub(super) struct State {
    kept: Vec<VecDeque<Taken>>,
}

type Rank = (Timestamp, u64);

fn rank(taken: &Taken) -> Rank {
    (taken.at, taken.order)
}

impl All {
    pub(super) fn new(within: Millis, conditions: &[Condition]) -> Self {
        Self {
            within,
            conditions: conditions.to_vec(),
            count: None,
        }
    }

    pub(super) fn counting(within: Millis, condition: Condition, count: usize) -> Self {
        Self {
            within,
            conditions: vec![condition],
            count: Some(count),
        }
    }

    /// What a match that begins at `from` took so far, of each condition its first event.
    fn taken_from(&self, state: &State, from: Rank) -> Vec<(u16, Taken)> {
        let mut events = Vec::with_capacity(self.conditions.len());
        for (condition, kept) in self.conditions.iter().zip(&state.kept) {
            let place = kept.partition_point(|taken| rank(taken) < from);
            if let Some(taken) = kept.get(place) {
                events.push((condition.name, taken.clone()));
            }
        }
        events
    }

    fn complete_count(&self, count: usize, state: &mut State, step: &mut Step<'_>) {
        let name = self.conditions[0].name;
        let kept = &mut state.kept[0];
        if kept.len() < count {
            return;
        }
        let events: Vec<(u16, Taken)> = kept
            .iter()
            .take(count)
            .map(|taken| (name, taken.clone()))
            .collect();
        match step.rule.emit.after_match {
            Skip::PastLast => drop(kept.drain(..count)),
            Skip::ToLast(_) => drop(kept.drain(..(count - 1).max(1))),
            Skip::None | Skip::ToNext | Skip::ToFirst(_) => drop(kept.pop_front()),
        }
        let at = events[count - 1].1.at;
        step.emit(at, events);
    }

    /// Matches that the event which meets `new` completes; `last` are the last ranks before it.
    fn complete(&self, state: &mut State, new: u64, last: &[Option<Rank>], step: &mut Step<'_>) {
        if state.kept.iter().any(VecDeque::is_empty) {
            return;
        }
        let is_new = |place: usize| new >> place & 1 == 1;
        // Starts up to here have an event of every other condition from there on…
        let others = state.kept.iter().enumerate();
        let upper = others
            .filter(|(place, _)| !is_new(*place))
            .filter_map(|(_, kept)| kept.back().map(rank))
            .min();
        // …and those up to here were complete before.
        let lower = last
            .iter()
            .enumerate()
            .filter(|(place, _)| is_new(*place))
            .map(|(_, last)| *last)
            .min()
            .flatten();
        let mut starts: Vec<Rank> = Vec::new();
        for kept in &state.kept {
            let from = lower.map_or(0, |lower| {
                kept.partition_point(|taken| rank(taken) <= lower)
            });
            let within = kept.iter().skip(from).map(rank);
            starts.extend(within.take_while(|start| upper.is_none_or(|upper| *start <= upper)));
        }
        starts.sort_unstable();
        starts.dedup();
        let most = step.rule.limits.max_results_per_event;
        if starts.len() > most {
            step.overflow("max_results_per_event", (starts.len() - most) as u64);
            starts.truncate(most);
        }
        let mut from = None;
        for start in starts {
            if from.is_some_and(|from| start < from) {
                continue;
            }
            let events = self.taken_from(state, start);
            let Some(end) = events.iter().map(|(_, taken)| rank(taken)).max() else {
                continue;
            };
            if events.len() < self.conditions.len() || end.0 >= start.0 + self.within {
                continue;
            }
            let of = |name: u16| {
                let of_name = events.iter().find(|event| event.0 == name);
                of_name.map(|(_, taken)| rank(taken))
            };
            match step.rule.emit.after_match {
                Skip::None | Skip::ToNext => {}
                Skip::PastLast => from = Some((end.0, end.1 + 1)),
                Skip::ToFirst(name) | Skip::ToLast(name) => from = of(name),
            }
            step.emit(end.0, events);
        }
        if let Some(from) = from {
            for kept in &mut state.kept {
                while kept.front().is_some_and(|first| rank(first) < from) {
                    kept.pop_front();
                }
            }
        }
    }
}

impl Shaped for All {
    type State = State;

    fn event(&self, state: &mut State, event: &Event<'_>, met: u64, step: &mut Step<'_>) {
        state.kept.resize_with(self.conditions.len(), VecDeque::new);
        let mut last: Vec<Option<Rank>> = Vec::with_capacity(self.conditions.len());
        let mut new = 0u64;
        let mut dropped = 0;
        for (place, condition) in self.conditions.iter().enumerate() {
            let kept = &mut state.kept[place];
            last.push(kept.back().map(rank));
            if met >> condition.predicate & 1 == 0 {
                continue;
            }
            new |= 1 << place;
            let taken = Taken::new(event, step.order, false);
            let at = match kept.back() {
                Some(back) if rank(back) > rank(&taken) => {
                    kept.partition_point(|other| rank(other) < rank(&taken))
                }
                _ => kept.len(),
            };
            kept.insert(at, taken);
            if kept.len() > step.rule.limits.max_partials_per_key {
                dropped += 1;
                match step.rule.limits.on_overflow {
                    OnOverflow::DropOldest => kept.pop_front(),
                    OnOverflow::DropNewest => kept.pop_back(),
                };
            }
        }
        if dropped > 0 {
            step.overflow("max_partials_per_key", dropped);
        }
        if new == 0 {
            return;
        }
        match self.count {
            Some(count) => self.complete_count(count, state, step),
            None => self.complete(state, new, &last, step),
        }
    }

    fn expire(&self, state: &mut State, step: &mut Step<'_>) {
        for place in 0..state.kept.len() {
            while let Some(first) = state.kept[place].front() {
                let end = first.at + self.within;
                if end > step.now {
                    break;
                }
                if step.report_timed_out {
                    let first = rank(first);
                    let events = match self.count {
                        Some(_) => state.kept[place]
                            .iter()
                            .map(|taken| (self.conditions[place].name, taken.clone()))
                            .collect(),
                        None => self.taken_from(state, first),
                    };
                    let is_whole = self.count.is_none() && events.len() == self.conditions.len();
                    if !is_whole {
                        step.time_out(end, events);
                    }
                }
                state.kept[place].pop_front();
            }
        }
    }

    fn deadline(&self, state: &State) -> Option<Timestamp> {
        let fronts = state.kept.iter().filter_map(VecDeque::front);
        fronts.map(|first| first.at + self.within).min()
    }

    fn is_idle(&self, state: &State) -> bool {
        state.kept.iter().all(VecDeque::is_empty)
    }
}
