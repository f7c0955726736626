//! Sequences in general: an automaton with the transitions of Flink CEP's (take, ignore, proceed),
//! run on partial matches that share their events. A partial match is what was taken so far and all
//! that may come next (its ways), so that no two of them hold the same events.

use std::cmp::Ordering;
use std::collections::VecDeque;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::nodes::{Node, unfold};
use super::saved::Saved;
use super::ways::{Way, Ways};
use super::{Shaped, Step};
use crate::model::{Millis, Timestamp};
use crate::pattern::event::{Event, Scalar, Taken};
use crate::pattern::predicate::History;
use crate::pattern::rule::{Contiguity, OnOverflow, Rule, Sequence, Skip};

/// The compiled sequence.
#[derive(Debug)]
pub(super) struct Automaton {
    ways: Ways,
    within: Option<Millis>,
    has_gaps: bool,
    is_strict: bool,
    keep_slots: bool,
}

/// The partial matches of one key, in the order of their first events.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(into = "Saved", try_from = "Saved")]
pub(super) struct State {
    pub(super) partials: VecDeque<Partial>,
    /// Matches that wait for partial matches that began before them, in the order of their first
    /// events; only under a skip strategy.
    pub(super) complete: VecDeque<Found>,
}

#[derive(Clone, Debug)]
pub(super) struct Partial {
    pub(super) ways: Arc<[Way]>,
    pub(super) head: Arc<Link>,
    pub(super) start_at: Timestamp,
    pub(super) start_order: u64,
}

/// The last event of a partial match, and those before it, which others may share.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) name: u16,
    pub(super) taken: Arc<Taken>,
    pub(super) before: Option<Arc<Link>>,
    pub(super) depth: u32,
    /// Events that its step took so far, where that has no maximum of its own.
    pub(super) open: u32,
}

impl Link {
    fn events(&self) -> Vec<(u16, Taken)> {
        let mut events = Vec::with_capacity(self.depth as usize);
        let mut at = Some(self);
        while let Some(link) = at {
            events.push((link.name, (*link.taken).clone()));
            at = link.before.as_deref();
        }
        events.reverse();
        events
    }

    /// Events that the step took so far, where it has no maximum of its own.
    fn open_of(&self, name: u16) -> u32 {
        let mut at = Some(self);
        while let Some(link) = at {
            if link.name == name {
                return link.open;
            }
            at = link.before.as_deref();
        }
        0
    }

    fn ranks(&self) -> Vec<(u64, u16)> {
        let mut ranks = Vec::with_capacity(self.depth as usize);
        let mut at = Some(self);
        while let Some(link) = at {
            ranks.push((link.taken.order, link.name));
            at = link.before.as_deref();
        }
        ranks.reverse();
        ranks
    }
}

struct Before<'a>(Option<&'a Link>);

impl History for Before<'_> {
    fn taken(&self, name: u16) -> Vec<&Taken> {
        let mut events = Vec::new();
        let mut at = self.0;
        while let Some(link) = at {
            if link.name == name {
                events.push(&*link.taken);
            }
            at = link.before.as_deref();
        }
        events.reverse();
        events
    }
}

#[derive(Clone, Debug)]
pub(super) struct Found {
    pub(super) start_order: u64,
    pub(super) at: Timestamp,
    pub(super) head: Arc<Link>,
}

/// What an event does to a partial match.
#[derive(Default)]
struct Branches {
    /// Nodes that take it, by the names that they take it for.
    takes: Vec<(u16, usize)>,
    stays: Vec<Way>,
    completes: bool,
    /// Repetitions that would have become too long by it.
    too_long: u64,
}

impl Automaton {
    pub(super) fn new(rule: &Rule, sequence: &Sequence) -> Self {
        let (nodes, initial) = unfold(&sequence.steps);
        let has_gaps = nodes.iter().any(|node| match node {
            Node::Take(take) => take.gap.is_some(),
            Node::Pending { gap, .. } => gap.is_some(),
            _ => false,
        });
        let is_strict = nodes.iter().enumerate().any(|(place, node)| match node {
            Node::Take(take) => place != initial && take.contiguity == Contiguity::Strict,
            Node::NotNext { .. } => true,
            _ => false,
        });
        let ways = Ways::new(nodes, initial);
        Self {
            within: sequence.within,
            has_gaps,
            is_strict: is_strict || ways.has_greedy_end(),
            keep_slots: rule.predicates.iter().any(|predicate| predicate.looks_back),
            ways,
        }
    }

    /// Whether an event that meets no condition may end a partial match.
    pub(super) fn is_strict(&self) -> bool {
        self.is_strict
    }

    fn branches(&self, from: &[Way], last: Option<&Partial>, moment: &Moment<'_>) -> Branches {
        let mut branches = Branches::default();
        let before = Before(last.map(|partial| &*partial.head));
        let any = |places: &[u16]| places.iter().any(|place| moment.holds(*place, &before));
        // Ways that follow others without an event are appended on the way.
        let mut more: Vec<Way> = Vec::new();
        let mut takers: Vec<u32> = Vec::new();
        let mut at = 0;
        while let Some(way) = from.get(at).or_else(|| more.get(at - from.len())).copied() {
            at += 1;
            let yields = self.ways.yields_to(way);
            if !takers.is_empty() && yields.iter().any(|node| takers.contains(node)) {
                continue;
            }
            match self.ways.node(way) {
                Node::Take(take) => {
                    if let (Some(gap), Some(partial)) = (take.gap, last)
                        && moment.event.at >= partial.head.taken.at + gap
                    {
                        continue;
                    }
                    if any(&take.kills) || any(&take.guards) {
                        continue;
                    }
                    let fits = moment.holds(take.predicate, &before);
                    if fits && !any(&take.take_guards) {
                        let is_full = |it| moment.is_full(it, take.name);
                        if take.is_open && last.is_some_and(is_full) {
                            // It takes no more, and what follows it goes on.
                            branches.too_long += 1;
                            continue;
                        }
                        takers.push(way.node);
                        branches.takes.push((take.name, way.node as usize));
                    }
                    let passes_over = match take.contiguity {
                        Contiguity::Strict => false,
                        Contiguity::Relaxed => !fits,
                        Contiguity::Any => true,
                    };
                    if passes_over && last.is_some() {
                        let node = take.later as u32;
                        branches.stays.push(Way { node, ..way });
                    }
                }
                Node::NotNext { predicate, .. } => {
                    if last.is_some() && !moment.holds(*predicate, &before) {
                        let reach = self.ways.past(way);
                        branches.completes |= reach.completes;
                        more.extend_from_slice(&reach.ways);
                    }
                }
                Node::Pending { kills, .. } => {
                    let end = last.and_then(|partial| self.end(partial, way));
                    if any(kills) {
                        continue;
                    }
                    // The event that had to come first may have come when all was over.
                    if end.is_some_and(|end| end <= moment.event.at) {
                        branches.completes = true;
                    } else {
                        branches.stays.push(way);
                    }
                }
                // A greedy end: the repetition did not take the event.
                Node::Final => branches.completes = last.is_some(),
                Node::Split { .. } | Node::Dead => {}
            }
        }
        branches
    }

    /// When a way of a partial match runs out.
    fn end(&self, partial: &Partial, way: Way) -> Option<Timestamp> {
        let within = self.within.map(|within| partial.start_at + within);
        let gap = match self.ways.node(way) {
            Node::Take(take) => take.gap,
            Node::Pending { gap, .. } => *gap,
            _ => None,
        };
        let gap = gap.map(|gap| partial.head.taken.at + gap);
        match (within, gap) {
            (Some(within), Some(gap)) => Some(within.min(gap)),
            (one, other) => one.or(other),
        }
    }

    fn report(&self, mut found: Vec<Found>, state: &mut State, step: &mut Step<'_>) {
        let skip = step.rule.emit.after_match;
        if found.len() > 1 {
            found.sort_by_cached_key(|found| Ranked(found.head.ranks()));
        }
        if skip == Skip::None {
            for found in found {
                step.emit(found.at, found.head.events());
            }
            return;
        }
        state.complete.extend(found);
        let complete = state.complete.make_contiguous();
        complete.sort_by_key(|found| found.start_order);
        while let Some(next) = state.complete.front() {
            let earliest = state.partials.front();
            if earliest.is_some_and(|partial| partial.start_order < next.start_order) {
                break;
            }
            let Some(next) = state.complete.pop_front() else {
                break;
            };
            let events = next.head.events();
            let orders = |name: u16| {
                let of_name = move |event: &&(u16, Taken)| event.0 == name;
                events.iter().filter(of_name).map(|(_, taken)| taken.order)
            };
            // Partial matches that began before this are given up.
            let keep_from = match skip {
                Skip::None => None,
                Skip::PastLast => Some(next.head.taken.order + 1),
                Skip::ToNext => Some(next.start_order + 1),
                Skip::ToFirst(name) => orders(name).next(),
                Skip::ToLast(name) => orders(name).next_back(),
            };
            if let Some(keep_from) = keep_from {
                let keeps = |start_order: u64| start_order >= keep_from;
                state.partials.retain(|partial| keeps(partial.start_order));
                state.complete.retain(|found| keeps(found.start_order));
            }
            step.emit(next.at, events);
        }
    }

    fn bound(&self, state: &mut State, step: &mut Step<'_>) {
        let most = step.rule.limits.max_partials_per_key;
        let over = state.partials.len().saturating_sub(most);
        let waiting = state.complete.len().saturating_sub(most);
        if over + waiting == 0 {
            return;
        }
        step.overflow("max_partials_per_key", (over + waiting) as u64);
        self.give_up(over, waiting, state, step);
    }

    /// Gives up so many partial matches, and so many of the matches that wait for them.
    fn give_up(&self, partials: usize, complete: usize, state: &mut State, step: &mut Step<'_>) {
        match step.rule.limits.on_overflow {
            OnOverflow::DropOldest => {
                drop(state.partials.drain(..partials));
                drop(state.complete.drain(..complete));
            }
            OnOverflow::DropNewest => {
                state.partials.truncate(state.partials.len() - partials);
                state.complete.truncate(state.complete.len() - complete);
            }
        }
        // What was given up may have been what a match waited for.
        self.report(Vec::new(), state, step);
    }
}

/// The events of a match by order and name. Of two matches that differ in an event, the one that
/// took it comes first; of two that took it, the one that took it for the earlier step.
#[derive(PartialEq, Eq)]
struct Ranked(Vec<(u64, u16)>);

impl PartialOrd for Ranked {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Ranked {
    fn cmp(&self, other: &Self) -> Ordering {
        let (one, two) = (&self.0, &other.0);
        match one.iter().zip(two).position(|(one, two)| one != two) {
            Some(place) => one[place].cmp(&two[place]),
            None => two.len().cmp(&one.len()),
        }
    }
}

/// An event with the answers of the conditions that look at it alone.
struct Moment<'a> {
    rule: &'a Rule,
    event: &'a Event<'a>,
    key: &'a [Scalar],
    met: u64,
}

impl Moment<'_> {
    /// Whether a step without a maximum of its own takes no more.
    fn is_full(&self, partial: &Partial, name: u16) -> bool {
        let most = self.rule.limits.max_kleene;
        partial.head.depth >= most && partial.head.open_of(name) >= most
    }

    fn holds(&self, place: u16, before: &Before<'_>) -> bool {
        let predicate = &self.rule.predicates[usize::from(place)];
        if !predicate.looks_back {
            return self.met >> place & 1 == 1;
        }
        predicate.topic == self.event.topic
            && predicate
                .holds(self.rule, self.event, self.key, before)
                .unwrap_or(false)
    }
}

/// What an event makes of the partial matches.
struct Turn<'a> {
    automaton: &'a Automaton,
    event: &'a Event<'a>,
    order: u64,
    shared: Option<Arc<Taken>>,
    next: VecDeque<Partial>,
    found: Vec<Found>,
    /// Repetitions that would have become too long.
    too_long: u64,
}

impl Turn<'_> {
    fn go(&mut self, mut branches: Branches, partial: Option<&Partial>) {
        self.too_long += branches.too_long;
        if let Some(partial) = partial
            && branches.completes
        {
            self.found.push(Found {
                start_order: partial.start_order,
                at: self.event.at,
                head: partial.head.clone(),
            });
        }
        branches.takes.sort_by_key(|(name, _)| *name);
        for takes in branches.takes.chunk_by(|one, two| one.0 == two.0) {
            self.take(takes, partial);
        }
        if let Some(partial) = partial
            && !branches.stays.is_empty()
        {
            let ways = if branches.stays[..] == partial.ways[..] {
                partial.ways.clone()
            } else {
                branches.stays.into()
            };
            self.next.push_back(Partial {
                ways,
                ..partial.clone()
            });
        }
    }

    /// The event is taken for one name, by each of these nodes.
    fn take(&mut self, takes: &[(u16, usize)], partial: Option<&Partial>) {
        let before = partial.map(|partial| &partial.head);
        let ways = &self.automaton.ways;
        let nodes: Vec<usize> = takes.iter().map(|(_, node)| *node).collect();
        let is_open = nodes.iter().all(|node| ways.is_open(*node));
        let open = match is_open {
            true => 1 + before.map_or(0, |head| head.open_of(takes[0].0)),
            false => 0,
        };
        let (event, order) = (self.event, self.order);
        let keep_slots = self.automaton.keep_slots;
        let taken = self
            .shared
            .get_or_insert_with(|| Arc::new(Taken::new(event, order, keep_slots)));
        let head = Arc::new(Link {
            name: takes[0].0,
            taken: taken.clone(),
            before: before.cloned(),
            depth: before.map_or(0, |head| head.depth) + 1,
            open,
        });
        let (start_at, start_order) = partial.map_or((event.at, order), |partial| {
            (partial.start_at, partial.start_order)
        });
        let reach = ways.after(&nodes);
        if reach.completes {
            self.found.push(Found {
                start_order,
                at: event.at,
                head: head.clone(),
            });
        }
        if !reach.ways.is_empty() {
            self.next.push_back(Partial {
                ways: reach.ways,
                head,
                start_at,
                start_order,
            });
        }
    }
}

impl Shaped for Automaton {
    type State = State;

    fn event(&self, state: &mut State, event: &Event<'_>, met: u64, step: &mut Step<'_>) {
        let moment = Moment {
            rule: step.rule,
            event,
            key: step.key,
            met,
        };
        let mut turn = Turn {
            automaton: self,
            event,
            order: step.order,
            shared: None,
            next: VecDeque::with_capacity(state.partials.len() + 1),
            found: Vec::new(),
            too_long: 0,
        };
        for partial in &state.partials {
            let branches = self.branches(&partial.ways, Some(partial), &moment);
            turn.go(branches, Some(partial));
        }
        if step.may_begin(event.at) {
            let branches = self.branches(self.ways.initial(), None, &moment);
            turn.go(branches, None);
        }
        let (found, too_long) = (turn.found, turn.too_long);
        state.partials = turn.next;
        if too_long > 0 {
            step.overflow("max_kleene", too_long);
        }
        self.report(found, state, step);
        self.bound(state, step);
    }

    fn expire(&self, state: &mut State, step: &mut Step<'_>) {
        let now = step.now;
        let mut over: Vec<(Timestamp, Arc<Link>)> = Vec::new();
        let mut found = Vec::new();
        let mut kept = VecDeque::new();
        let is_out = |end: Option<Timestamp>| end.is_some_and(|end| end <= now);
        while let Some(mut partial) = state.partials.pop_front() {
            // Without gaps all ways run out at once, and those that began first before others.
            if !self.has_gaps
                && !partial
                    .ways
                    .iter()
                    .any(|way| is_out(self.end(&partial, *way)))
            {
                state.partials.push_front(partial);
                break;
            }
            let mut stays = Vec::new();
            let mut end = None;
            let mut completes = false;
            for way in partial.ways.iter() {
                let way_end = self.end(&partial, *way);
                if !is_out(way_end) {
                    stays.push(*way);
                    continue;
                }
                end = end.max(way_end);
                let node = self.ways.node(*way);
                completes |= matches!(node, Node::Pending { .. } | Node::Final);
            }
            let Some(end) = end else {
                kept.push_back(partial);
                continue;
            };
            if completes {
                found.push(Found {
                    start_order: partial.start_order,
                    at: end,
                    head: partial.head.clone(),
                });
            }
            if !stays.is_empty() {
                partial.ways = stays.into();
                kept.push_back(partial);
            } else if !completes && step.report_timed_out {
                over.push((end, partial.head));
            }
        }
        kept.append(&mut state.partials);
        state.partials = kept;
        over.sort_by_cached_key(|(_, head)| Ranked(head.ranks()));
        for (end, head) in over {
            step.time_out(end, head.events());
        }
        self.report(found, state, step);
    }

    fn deadline(&self, state: &State) -> Option<Timestamp> {
        let end = |partial: &Partial| {
            let ends = partial.ways.iter().map(|way| self.end(partial, *way));
            ends.flatten().min()
        };
        if self.has_gaps {
            return state.partials.iter().filter_map(end).min();
        }
        state.partials.front().and_then(end)
    }

    fn is_idle(&self, state: &State) -> bool {
        state.partials.is_empty()
    }

    fn partials(&self, state: &State) -> usize {
        state.partials.len() + state.complete.len()
    }

    fn shed(&self, state: &mut State, most: usize, step: &mut Step<'_>) {
        let over = self.partials(state).saturating_sub(most);
        // Matches that wait for partial matches come out without them.
        let partials = over.min(state.partials.len());
        self.give_up(partials, 0, state, step);
        let over = self.partials(state).saturating_sub(most);
        if over > 0 {
            self.give_up(0, over.min(state.complete.len()), state, step);
        }
    }
}
