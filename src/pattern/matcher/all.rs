//! Conditions in any order, and counts: the events of each condition are kept in the order of
//! time, as long as a late one may still join them. A match begins with one event and takes, of each
//! other condition, the first from there on (the union of the relaxed sequences over all orders);
//! one event may meet several conditions. A count matches with each run of so many events in a row
//! that an event completes; a late one may complete several.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::{Shaped, Step};
use crate::model::{Millis, Timestamp};
use crate::pattern::event::{Event, Taken};
use crate::pattern::rule::{Condition, OnOverflow, Skip};
use crate::pattern::window::make_room;

#[derive(Debug)]
pub(super) struct All {
    within: Millis,
    /// How late an event may come.
    lateness: Millis,
    conditions: Vec<Condition>,
    /// Events of the one condition that make a match.
    count: Option<usize>,
}

/// The events of one key by condition.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct State {
    kept: Vec<VecDeque<Taken>>,
}

type Rank = (Timestamp, u64);

fn rank(taken: &Taken) -> Rank {
    (taken.at, taken.order)
}

/// Events that nothing can begin with any more are of no use without one that something can.
fn forget_useless(state: &mut State, step: &Step<'_>) {
    let mut firsts = state.kept.iter().filter_map(VecDeque::front);
    if !firsts.any(|first| step.may_begin(first.at)) {
        state.kept.iter_mut().for_each(VecDeque::clear);
    }
}

impl All {
    /// Events may come `lateness` after their turn.
    pub(super) fn new(within: Millis, lateness: Millis, conditions: &[Condition]) -> Self {
        Self {
            within,
            lateness,
            conditions: conditions.to_vec(),
            count: None,
        }
    }

    /// A match is `count` events of one condition.
    pub(super) fn counting(
        within: Millis,
        lateness: Millis,
        condition: Condition,
        count: usize,
    ) -> Self {
        Self {
            count: Some(count),
            ..Self::new(within, lateness, &[condition])
        }
    }

    /// What a match that begins at `from` takes, as far as it is there, of each condition its
    /// first event; without the event of order `but`.
    fn taken_from(&self, state: &State, from: Rank, but: Option<u64>) -> Vec<(u16, Taken)> {
        let mut events = Vec::with_capacity(self.conditions.len());
        for (condition, kept) in self.conditions.iter().zip(&state.kept) {
            let place = kept.partition_point(|taken| rank(taken) < from);
            let mut rest = kept.range(place..);
            if let Some(taken) = rest.find(|taken| but != Some(taken.order)) {
                events.push((condition.name, taken.clone()));
            }
        }
        events.retain(|(_, taken)| taken.at < from.0 + self.within);
        events
    }

    /// `new` is the event that came.
    fn complete_count(&self, count: usize, state: &mut State, new: Rank, step: &mut Step<'_>) {
        let name = self.conditions[0].name;
        let kept = &mut state.kept[0];
        let place = kept.partition_point(|taken| rank(taken) < new);
        let mut first = (place + 1).saturating_sub(count);
        let mut after = place;
        while first <= after && first + count <= kept.len() {
            let is_short = kept[first + count - 1].at < kept[first].at + self.within;
            if !is_short || !step.may_begin(kept[first].at) {
                first += 1;
                continue;
            }
            let events: Vec<(u16, Taken)> = kept
                .range(first..first + count)
                .map(|taken| (name, taken.clone()))
                .collect();
            let at = events[count - 1].1.at;
            let gone = match step.rule.emit.after_match {
                Skip::PastLast => first + count,
                Skip::ToLast(_) => first + count - 1,
                Skip::None | Skip::ToNext | Skip::ToFirst(_) => 0,
            };
            kept.drain(..gone);
            step.emit(at, events);
            if gone > after {
                break;
            }
            after -= gone;
            first = (first + 1).saturating_sub(gone);
        }
        if self.lateness.0 == 0 {
            // The next event makes a run with the last of these only.
            kept.drain(..kept.len().saturating_sub(count - 1));
        }
    }

    /// Starts whose match a late event completes.
    fn late_starts(&self, state: &State, new: Rank) -> Vec<Rank> {
        let mut starts: Vec<Rank> = Vec::new();
        for kept in &state.kept {
            let to_new = kept.iter().map(rank).take_while(|start| *start <= new);
            starts.extend(to_new.filter(|start| new.0 < start.0 + self.within));
        }
        let is_whole = |start: Rank, but: Option<u64>| {
            self.taken_from(state, start, but).len() == self.conditions.len()
        };
        let was_whole = |start: Rank| start != new && is_whole(start, Some(new.1));
        starts.retain(|start| is_whole(*start, None) && !was_whole(*start));
        starts
    }

    /// Starts whose match the event that meets `new` completes, the last of all; `last` are the last
    /// ranks before it.
    fn starts(&self, state: &State, new: u64, last: &[Option<Rank>]) -> Vec<Rank> {
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
        starts
    }

    /// Matches that begin with `starts`.
    fn complete(&self, state: &mut State, mut starts: Vec<Rank>, step: &mut Step<'_>) {
        starts.retain(|start| step.may_begin(start.0));
        starts.sort_unstable();
        starts.dedup();
        let mut from = None;
        for start in starts {
            if from.is_some_and(|from| start < from) {
                continue;
            }
            let events = self.taken_from(state, start, None);
            let Some(end) = events.iter().map(|(_, taken)| rank(taken)).max() else {
                continue;
            };
            if events.len() < self.conditions.len() {
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
            make_room(kept);
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
        let came = (event.at, step.order);
        match self.count {
            Some(count) => self.complete_count(count, state, came, step),
            None if state.kept.iter().any(VecDeque::is_empty) => {}
            None => {
                let is_late = last.iter().flatten().any(|last| *last > came);
                let starts = if is_late {
                    self.late_starts(state, came)
                } else {
                    self.starts(state, new, &last)
                };
                self.complete(state, starts, step);
            }
        }
        forget_useless(state, step);
    }

    fn expire(&self, state: &mut State, step: &mut Step<'_>) {
        loop {
            let fronts = state.kept.iter().filter_map(VecDeque::front).map(rank);
            let Some(first) = fronts.min() else { break };
            let end = first.0 + self.within;
            if end + self.lateness > step.now {
                break;
            }
            if step.report_timed_out {
                let (events, whole) = match self.count {
                    Some(count) => {
                        let name = self.conditions[0].name;
                        let run = state.kept[0].iter().take_while(|taken| taken.at < end);
                        let run: Vec<_> = run.map(|taken| (name, taken.clone())).collect();
                        (run, count)
                    }
                    None => (self.taken_from(state, first, None), self.conditions.len()),
                };
                if events.len() < whole {
                    step.time_out(end, events);
                }
            }
            for kept in &mut state.kept {
                if kept.front().is_some_and(|front| rank(front) == first) {
                    kept.pop_front();
                }
            }
        }
        forget_useless(state, step);
    }

    fn deadline(&self, state: &State) -> Option<Timestamp> {
        let fronts = state.kept.iter().filter_map(VecDeque::front);
        fronts
            .map(|first| first.at + self.within + self.lateness)
            .min()
    }

    fn is_idle(&self, state: &State) -> bool {
        state.kept.iter().all(VecDeque::is_empty)
    }

    fn partials(&self, state: &State) -> usize {
        state.kept.iter().map(VecDeque::len).sum()
    }

    fn shed(&self, state: &mut State, most: usize, step: &mut Step<'_>) {
        while self.partials(state) > most {
            let kept = state.kept.iter_mut().filter(|kept| !kept.is_empty());
            let gone = match step.rule.limits.on_overflow {
                OnOverflow::DropOldest => kept
                    .min_by_key(|kept| kept.front().map(rank))
                    .and_then(VecDeque::pop_front),
                OnOverflow::DropNewest => kept
                    .max_by_key(|kept| kept.back().map(rank))
                    .and_then(VecDeque::pop_back),
            };
            if gone.is_none() {
                break;
            }
        }
        forget_useless(state, step);
    }
}
