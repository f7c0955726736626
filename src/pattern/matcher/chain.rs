//! Sequences of single events whose conditions look at one event alone, relaxed or any-contiguous:
//! the events of each step are kept once, partial matches not at all. What a partial match would
//! have taken follows from the order of the events.

use std::collections::VecDeque;
use std::ops::ControlFlow;

use serde::{Deserialize, Serialize};

use super::{Shaped, Step};
use crate::model::{Millis, Timestamp};
use crate::pattern::event::{Event, Taken};
use crate::pattern::rule::{Contiguity, OnOverflow, Part, Rule, Sequence, Skip, Times};
use crate::pattern::window::make_room;

#[derive(Debug)]
pub(super) struct Chain {
    within: Millis,
    /// Name and predicate of each step; the last is never kept.
    steps: Vec<(u16, u16)>,
    /// Ends every partial match; a match is one that lasts `within`.
    absent: Option<u16>,
    is_any: bool,
    /// Predicates of all, for a quick look.
    wanted: u64,
}

/// The events of one key by step, each in the order of the stream.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct State {
    kept: Vec<VecDeque<Taken>>,
}

impl Chain {
    /// `None`: the sequence needs the automaton.
    pub(super) fn new(rule: &Rule, sequence: &Sequence) -> Option<Self> {
        let within = sequence.within?;
        let (mut steps, mut absent) = (Vec::new(), None);
        let looks_back = |place: u16| rule.predicates[usize::from(place)].looks_back;
        for (place, step) in sequence.steps.iter().enumerate() {
            let is_plain = step.times == Times::ONCE && !step.optional && step.within_gap.is_none();
            match step.part {
                Part::Event(predicate) if is_plain && !looks_back(predicate) => {
                    steps.push((step.name, predicate));
                }
                Part::Absent(predicate)
                    if place == 1
                        && sequence.steps.len() == 2
                        && step.next == Contiguity::Relaxed
                        && step.within_gap.is_none()
                        && !looks_back(predicate) =>
                {
                    absent = Some(predicate);
                }
                _ => return None,
            }
        }
        let follow = |contiguity| {
            let mut rest = sequence.steps.iter().skip(1);
            rest.all(|step| step.next == contiguity)
        };
        let (is_relaxed, is_any) = (follow(Contiguity::Relaxed), follow(Contiguity::Any));
        let fits = match rule.emit.after_match {
            Skip::None => is_relaxed || is_any,
            Skip::ToNext => is_relaxed,
            Skip::PastLast => is_relaxed && absent.is_none(),
            Skip::ToFirst(_) | Skip::ToLast(_) => false,
        };
        if !fits || steps.len() + usize::from(absent.is_some()) < 2 {
            return None;
        }
        let places = steps.iter().map(|(_, predicate)| *predicate).chain(absent);
        let wanted = places.fold(0, |wanted, place| wanted | 1 << place);
        Some(Self {
            within,
            steps,
            absent,
            is_any: is_any && !is_relaxed,
            wanted,
        })
    }

    /// Steps whose events are kept.
    fn depth(&self) -> usize {
        self.steps.len() - usize::from(self.absent.is_none())
    }

    /// The places of the events that a relaxed partial match took by now.
    fn path(&self, state: &State, start: usize) -> Vec<usize> {
        let mut path = vec![start];
        let mut order = state.kept[0][start].order;
        for kept in state.kept.iter().skip(1) {
            let next = kept.partition_point(|taken| taken.order <= order);
            let Some(taken) = kept.get(next) else { break };
            order = taken.order;
            path.push(next);
        }
        path
    }

    fn events(&self, state: &State, path: &[usize]) -> Vec<(u16, Taken)> {
        let mut events = Vec::with_capacity(path.len() + 1);
        for (step, place) in path.iter().enumerate() {
            events.push((self.steps[step].0, state.kept[step][*place].clone()));
        }
        events
    }

    /// The last step's event came; whether nothing may begin with it any more. Every start that it ends is
    /// gone, also where its match is over the bound: a later event would make a match that a relaxed
    /// sequence does not have.
    fn complete(&self, state: &mut State, last: &Taken, step: &mut Step<'_>) -> bool {
        let name = self.steps[self.steps.len() - 1].0;
        let past_last = step.rule.emit.after_match == Skip::PastLast;
        let mut ended = 0;
        while ended < state.kept[0].len() {
            let path = self.path(state, ended);
            if path.len() < state.kept.len() {
                break;
            }
            let mut events = self.events(state, &path);
            events.push((name, last.clone()));
            step.emit(last.at, events);
            ended += 1;
            if past_last {
                break;
            }
        }
        if ended > 0 {
            let gone = if past_last {
                state.kept[0].len()
            } else {
                ended
            };
            state.kept[0].drain(..gone);
            prune(state);
        }
        past_last && ended > 0
    }

    /// Calls `visit` with every way on from `path` through the kept events, one of each step and of each
    /// only those before its place in `ends`: the longer before the shorter, as partial matches are
    /// reported. Where `visit` breaks, the walk is over.
    fn walk(
        &self,
        state: &State,
        ends: &[usize],
        path: &mut Vec<usize>,
        visit: &mut dyn FnMut(&[usize]) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let step = path.len();
        if step < state.kept.len() {
            for place in first_after(state, path)..ends[step] {
                path.push(place);
                let flow = self.walk(state, ends, path, visit);
                path.pop();
                flow?;
            }
        }
        visit(path)
    }

    fn complete_any(&self, state: &State, last: &Taken, step: &mut Step<'_>) {
        let name = self.steps[self.steps.len() - 1].0;
        let mut found: u64 = 0;
        let mut emit = |path: &[usize]| {
            if path.len() < state.kept.len() {
                return ControlFlow::Continue(());
            }
            if step.room == 0 {
                return ControlFlow::Break(());
            }
            found += 1;
            let mut events = self.events(state, path);
            events.push((name, last.clone()));
            step.emit(last.at, events);
            ControlFlow::Continue(())
        };
        let flow = self.walk(state, &ends_of_whole(state), &mut Vec::new(), &mut emit);
        if flow.is_break() {
            let all = counts(state, false)
                .into_iter()
                .fold(0, u64::saturating_add);
            step.cut(all - found);
        }
    }

    /// The partial matches of the first start ran out; there is one for each way that it went.
    fn time_out_any(&self, state: &State, end: Timestamp, step: &mut Step<'_>) {
        let mut found: u64 = 0;
        let mut report = |path: &[usize]| {
            if step.room_timed_out == 0 {
                return ControlFlow::Break(());
            }
            found += 1;
            let events = self.events(state, path);
            step.time_out(end, events);
            ControlFlow::Continue(())
        };
        let ends: Vec<usize> = state.kept.iter().map(VecDeque::len).collect();
        let flow = self.walk(state, &ends, &mut vec![0], &mut report);
        if flow.is_break() {
            let all = counts(state, true)[0];
            step.cut(all - found);
        }
    }
}

/// The place of the first event that the step behind `path` may take.
fn first_after(state: &State, path: &[usize]) -> usize {
    let step = path.len();
    let Some(place) = path.last() else { return 0 };
    let order = state.kept[step - 1][*place].order;
    state.kept[step].partition_point(|taken| taken.order <= order)
}

/// For each step the end of its events that all later steps can follow: every way through the events
/// before these ends goes on to the last step.
fn ends_of_whole(state: &State) -> Vec<usize> {
    let mut ends = vec![0; state.kept.len()];
    let mut before = u64::MAX;
    for (step, kept) in state.kept.iter().enumerate().rev() {
        ends[step] = kept.partition_point(|taken| taken.order < before);
        let last = ends[step].checked_sub(1);
        before = last.map_or(0, |last| kept[last].order);
    }
    ends
}

/// For each start, how many ways there are to go through the kept events: to the last step, or as far
/// as any, where `with_partial`. They are counted without a walk along each of them.
fn counts(state: &State, with_partial: bool) -> Vec<u64> {
    let mut counts: Vec<u64> = Vec::new();
    for (step, kept) in state.kept.iter().enumerate().rev() {
        let next = state.kept.get(step + 1);
        let here = u64::from(with_partial || next.is_none());
        // Of the events of the next step, those from a place on.
        let mut from = vec![0; counts.len() + 1];
        for (place, count) in counts.iter().enumerate().rev() {
            from[place] = count.saturating_add(from[place + 1]);
        }
        let count = |taken: &Taken| {
            let first = next.map_or(0, |next| {
                next.partition_point(|other| other.order <= taken.order)
            });
            from[first].saturating_add(here)
        };
        counts = kept.iter().map(count).collect();
    }
    counts
}

/// Forgets what no start is left for.
fn prune(state: &mut State) {
    let mut order = state.kept[0].front().map_or(u64::MAX, |first| first.order);
    for kept in state.kept.iter_mut().skip(1) {
        while kept.front().is_some_and(|first| first.order <= order) {
            kept.pop_front();
        }
        order = kept.front().map_or(u64::MAX, |first| first.order);
    }
}

impl Shaped for Chain {
    type State = State;

    fn event(&self, state: &mut State, event: &Event<'_>, met: u64, step: &mut Step<'_>) {
        if met & self.wanted == 0 {
            return;
        }
        state.kept.resize_with(self.depth(), VecDeque::new);
        let meets = |predicate: u16| met >> predicate & 1 == 1;
        if self.absent.is_some_and(meets) {
            state.kept[0].clear();
        }
        let mut taken: Option<Taken> = None;
        for (place, (_, predicate)) in self.steps.iter().enumerate().rev() {
            let has_before = match place {
                0 => step.may_begin(event.at),
                _ => !state.kept[place - 1].is_empty(),
            };
            if !has_before || !meets(*predicate) {
                continue;
            }
            let taken = taken.get_or_insert_with(|| Taken::new(event, step.order, false));
            if place < self.depth() {
                make_room(&mut state.kept[place]);
                state.kept[place].push_back(taken.clone());
            } else if self.is_any {
                self.complete_any(state, taken, step);
            } else if self.complete(state, taken, step) {
                return;
            }
        }
        let most = step.rule.limits.max_partials_per_key;
        let mut dropped = 0;
        for kept in &mut state.kept {
            if kept.len() > most {
                dropped += 1;
                match step.rule.limits.on_overflow {
                    OnOverflow::DropOldest => kept.pop_front(),
                    OnOverflow::DropNewest => kept.pop_back(),
                };
            }
        }
        if dropped > 0 {
            prune(state);
            step.overflow("max_partials_per_key", dropped);
        }
    }

    fn expire(&self, state: &mut State, step: &mut Step<'_>) {
        while let Some(first) = state.kept.first().and_then(VecDeque::front) {
            let end = first.at + self.within;
            if end > step.now {
                break;
            }
            if self.absent.is_some() {
                let events = self.events(state, &[0]);
                step.emit(end, events);
            } else if step.report_timed_out && self.is_any {
                self.time_out_any(state, end, step);
            } else if step.report_timed_out {
                let events = self.events(state, &self.path(state, 0));
                step.time_out(end, events);
            }
            state.kept[0].pop_front();
            prune(state);
        }
    }

    fn deadline(&self, state: &State) -> Option<Timestamp> {
        let first = state.kept.first()?.front()?;
        Some(first.at + self.within)
    }

    fn is_idle(&self, state: &State) -> bool {
        state.kept.first().is_none_or(VecDeque::is_empty)
    }

    fn partials(&self, state: &State) -> usize {
        state.kept.iter().map(VecDeque::len).sum()
    }

    fn shed(&self, state: &mut State, most: usize, step: &mut Step<'_>) {
        while self.partials(state) > most {
            match step.rule.limits.on_overflow {
                // Those of later steps come after one of the first.
                OnOverflow::DropOldest => state.kept[0].pop_front(),
                OnOverflow::DropNewest => {
                    let order = |kept: &&mut VecDeque<Taken>| kept.back().map(|last| last.order);
                    let newest = state.kept.iter_mut().max_by_key(order);
                    newest.and_then(VecDeque::pop_back)
                }
            };
            prune(state);
        }
    }
}
