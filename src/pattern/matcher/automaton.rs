//! Sequences in general: an automaton with the transitions of Flink CEP's (take, ignore, proceed),
//! run on partial matches that share their events.

use std::collections::VecDeque;
use std::sync::Arc;

use super::nodes::{Node, Take, unfold};
use super::{Shaped, Step};
use crate::model::{Millis, Timestamp};
use crate::pattern::event::{Event, Scalar, Taken};
use crate::pattern::predicate::History;
use crate::pattern::rule::{Contiguity, OnOverflow, Rule, Sequence, Skip};

/// The compiled sequence.
#[derive(Debug)]
pub(super) struct Automaton {
    nodes: Vec<Node>,
    initial: usize,
    within: Option<Millis>,
    has_gaps: bool,
    is_strict: bool,
    keep_slots: bool,
}

/// The partial matches of one key, in the order of their first events.
#[derive(Debug, Default)]
pub(super) struct State {
    partials: VecDeque<Partial>,
}

#[derive(Clone, Debug)]
struct Partial {
    node: usize,
    head: Arc<Link>,
    start_at: Timestamp,
    start_order: u64,
}

/// The last event of a partial match, and those before it, which others may share.
#[derive(Debug)]
struct Link {
    name: u16,
    taken: Arc<Taken>,
    before: Option<Arc<Link>>,
    depth: u32,
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

struct Found {
    start_order: u64,
    at: Timestamp,
    head: Arc<Link>,
}

/// What an event does to a partial match.
#[derive(Default)]
struct Branches {
    takes: Vec<(u16, usize)>,
    stays: Vec<usize>,
    completes: bool,
    dies: bool,
}

impl Automaton {
    pub(super) fn new(rule: &Rule, sequence: &Sequence) -> Self {
        let (nodes, initial) = unfold(&sequence.steps);
        let is_strict = nodes.iter().enumerate().any(|(place, node)| match node {
            Node::Take(take) => place != initial && take.contiguity == Contiguity::Strict,
            Node::NotNext { .. } => true,
            _ => false,
        });
        let has_gaps = nodes
            .iter()
            .any(|node| matches!(node, Node::Take(take) if take.gap.is_some()));
        Self {
            nodes,
            initial,
            within: sequence.within,
            has_gaps,
            is_strict,
            keep_slots: rule.predicates.iter().any(|predicate| predicate.looks_back),
        }
    }

    /// Whether an event that meets no condition may end a partial match.
    pub(super) fn is_strict(&self) -> bool {
        self.is_strict
    }

    /// What is reached from `node` without an event.
    fn closure(&self, node: usize) -> Vec<usize> {
        let mut reached = vec![node];
        let mut at = 0;
        while at < reached.len() {
            if let Node::Split(parts) = &self.nodes[reached[at]] {
                for part in parts {
                    if !reached.contains(part) {
                        reached.push(*part);
                    }
                }
            }
            at += 1;
        }
        reached
    }

    fn is_final(&self, node: usize) -> bool {
        let reached = self.closure(node);
        reached
            .iter()
            .any(|node| matches!(self.nodes[*node], Node::Final))
    }

    fn is_pending(&self, node: usize) -> bool {
        let reached = self.closure(node);
        reached
            .iter()
            .any(|node| matches!(self.nodes[*node], Node::Pending { .. }))
    }

    /// Whether a partial match there can still become more.
    fn is_live(&self, node: usize) -> bool {
        let reached = self.closure(node);
        reached
            .iter()
            .any(|node| !matches!(self.nodes[*node], Node::Final | Node::Split(_)))
    }

    fn branches(&self, from: usize, last: Option<&Partial>, moment: &Moment<'_>) -> Branches {
        let mut branches = Branches::default();
        let before = Before(last.map(|partial| &*partial.head));
        let mut reached = vec![from];
        let mut at = 0;
        while at < reached.len() {
            let place = reached[at];
            at += 1;
            let proceed = |next: usize, reached: &mut Vec<usize>| {
                if !reached.contains(&next) {
                    reached.push(next);
                }
            };
            match &self.nodes[place] {
                Node::Final => {}
                Node::Split(parts) => {
                    for part in parts {
                        // The end was reported when its last event was taken.
                        if !matches!(self.nodes[*part], Node::Final) {
                            proceed(*part, &mut reached);
                        }
                    }
                }
                Node::NotNext { predicate, next } => {
                    if last.is_some() && !moment.holds(*predicate, &before) {
                        proceed(*next, &mut reached);
                        let passed = self.closure(*next);
                        let is_end = |node: &usize| matches!(self.nodes[*node], Node::Final);
                        branches.completes |= passed.iter().any(is_end);
                    }
                }
                Node::Pending { kills } => {
                    if kills.iter().any(|kill| moment.holds(*kill, &before)) {
                        branches.dies = true;
                    } else {
                        branches.stays.push(place);
                    }
                }
                Node::Take(take) => self.offer(place, take, last, &before, moment, &mut branches),
            }
        }
        branches
    }

    fn offer(
        &self,
        place: usize,
        take: &Take,
        last: Option<&Partial>,
        before: &Before<'_>,
        moment: &Moment<'_>,
        branches: &mut Branches,
    ) {
        if let (Some(gap), Some(partial)) = (take.gap, last)
            && moment.event.at >= partial.head.taken.at + gap
        {
            return;
        }
        let any = |places: &[u16]| places.iter().any(|place| moment.holds(*place, before));
        if any(&take.kills) {
            branches.dies = true;
            return;
        }
        if any(&take.guards) {
            return;
        }
        let fits = moment.holds(take.predicate, before);
        if fits && !any(&take.take_guards) {
            branches.takes.push((take.name, take.next));
        }
        let passes_over = match take.contiguity {
            Contiguity::Strict => false,
            Contiguity::Relaxed => !fits,
            Contiguity::Any => true,
        };
        if passes_over && last.is_some() {
            branches.stays.push(place);
        }
    }

    fn end(&self, partial: &Partial) -> Option<Timestamp> {
        let within = self.within.map(|within| partial.start_at + within);
        let gap = self.longest_gap(partial.node);
        let gap = gap.map(|gap| partial.head.taken.at + gap);
        match (within, gap) {
            (Some(within), Some(gap)) => Some(within.min(gap)),
            (one, other) => one.or(other),
        }
    }

    /// The longest gap that may follow at `node`, where each way has one.
    fn longest_gap(&self, node: usize) -> Option<Millis> {
        if !self.has_gaps {
            return None;
        }
        let mut longest = None;
        for node in self.closure(node) {
            match &self.nodes[node] {
                Node::Take(take) => longest = longest.max(Some(take.gap?)),
                Node::Split(_) | Node::Final => {}
                Node::NotNext { .. } | Node::Pending { .. } => return None,
            }
        }
        longest
    }

    fn report(&self, mut found: Vec<Found>, state: &mut State, step: &mut Step<'_>) {
        let skip = step.rule.emit.after_match;
        if skip != Skip::None {
            found.sort_by_key(|found| found.start_order);
        }
        let most = step.rule.limits.max_results_per_event;
        if found.len() > most {
            step.overflow("max_results_per_event", (found.len() - most) as u64);
            found.truncate(most);
        }
        let mut found = VecDeque::from(found);
        while let Some(next) = found.pop_front() {
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
                state
                    .partials
                    .retain(|partial| partial.start_order >= keep_from);
                found.retain(|found| found.start_order >= keep_from);
            }
            step.emit(next.at, events);
        }
    }

    fn bound(&self, state: &mut State, step: &mut Step<'_>) {
        let most = step.rule.limits.max_partials_per_key;
        let over = state.partials.len().saturating_sub(most);
        if over > 0 {
            match step.rule.limits.on_overflow {
                OnOverflow::DropOldest => drop(state.partials.drain(..over)),
                OnOverflow::DropNewest => state.partials.truncate(most),
            }
            step.overflow("max_partials_per_key", over as u64);
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

impl Shaped for Automaton {
    type State = State;

    fn event(&self, state: &mut State, event: &Event<'_>, met: u64, step: &mut Step<'_>) {
        let moment = Moment {
            rule: step.rule,
            event,
            key: step.key,
            met,
        };
        let mut shared: Option<Arc<Taken>> = None;
        let mut found = Vec::new();
        let mut too_long = 0;
        let mut next: VecDeque<Partial> = VecDeque::with_capacity(state.partials.len() + 1);
        let mut go = |branches: Branches, partial: Option<&Partial>| {
            if branches.dies {
                return;
            }
            if let Some(partial) = partial
                && branches.completes
            {
                found.push(Found {
                    start_order: partial.start_order,
                    at: event.at,
                    head: partial.head.clone(),
                });
            }
            for (name, node) in branches.takes {
                let depth = partial.map_or(0, |partial| partial.head.depth) + 1;
                if depth > step.rule.limits.max_kleene {
                    too_long += 1;
                    continue;
                }
                let taken = shared.get_or_insert_with(|| {
                    Arc::new(Taken::new(event, step.order, self.keep_slots))
                });
                let head = Arc::new(Link {
                    name,
                    taken: taken.clone(),
                    before: partial.map(|partial| partial.head.clone()),
                    depth,
                });
                let (start_at, start_order) = partial.map_or((event.at, step.order), |partial| {
                    (partial.start_at, partial.start_order)
                });
                if self.is_final(node) {
                    found.push(Found {
                        start_order,
                        at: event.at,
                        head: head.clone(),
                    });
                }
                if self.is_live(node) {
                    next.push_back(Partial {
                        node,
                        head,
                        start_at,
                        start_order,
                    });
                }
            }
            // What took the event comes first, so that of two matches with one start the longer
            // wins.
            if let Some(partial) = partial {
                for node in branches.stays {
                    next.push_back(Partial {
                        node,
                        ..partial.clone()
                    });
                }
            }
        };
        for partial in &state.partials {
            go(
                self.branches(partial.node, Some(partial), &moment),
                Some(partial),
            );
        }
        go(self.branches(self.initial, None, &moment), None);
        state.partials = next;
        if too_long > 0 {
            step.overflow("max_kleene", too_long);
        }
        self.report(found, state, step);
        self.bound(state, step);
    }

    fn expire(&self, state: &mut State, step: &mut Step<'_>) {
        let mut found = Vec::new();
        let (now, mut kept) = (step.now, VecDeque::new());
        let mut over = Vec::new();
        if self.has_gaps {
            for partial in std::mem::take(&mut state.partials) {
                match self.end(&partial) {
                    Some(end) if end <= now => over.push((end, partial)),
                    _ => kept.push_back(partial),
                }
            }
            state.partials = kept;
        } else {
            while let Some(first) = state.partials.front() {
                match self.end(first) {
                    Some(end) if end <= now => {
                        over.extend(state.partials.pop_front().map(|first| (end, first)));
                    }
                    _ => break,
                }
            }
        }
        for (end, partial) in over {
            if self.is_pending(partial.node) {
                found.push(Found {
                    start_order: partial.start_order,
                    at: end,
                    head: partial.head,
                });
            } else if step.report_timed_out {
                step.time_out(end, partial.head.events());
            }
        }
        self.report(found, state, step);
    }

    fn deadline(&self, state: &State) -> Option<Timestamp> {
        if self.has_gaps {
            let ends = state
                .partials
                .iter()
                .filter_map(|partial| self.end(partial));
            return ends.min();
        }
        state.partials.front().and_then(|first| self.end(first))
    }

    fn is_idle(&self, state: &State) -> bool {
        state.partials.is_empty()
    }
}
