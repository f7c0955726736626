//! The ways on from each node of an automaton, found once: what may be taken, passed over or waited
//! for next, and for each way the greedy repetitions that go before it.

use std::collections::BTreeSet;
use std::sync::Arc;

use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};

use super::nodes::Node;

/// A node at which something is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Way {
    pub node: u32,
    /// Place in the table of sets of nodes; where one of those takes an event, this way ends.
    pub yields: u32,
}

/// What is reached without an event.
#[derive(Clone, Debug)]
pub(super) struct Reach {
    pub ways: Arc<[Way]>,
    /// Whether the end is.
    pub completes: bool,
}

#[derive(Debug)]
pub(super) struct Ways {
    nodes: Vec<Node>,
    /// Sets of nodes; the first is empty.
    sets: Vec<Box<[u32]>>,
    initial: Reach,
    /// By node that takes: what follows.
    after: Vec<Option<Reach>>,
    /// By way past which one proceeds where the next event is of another kind.
    past: FxHashMap<Way, Reach>,
}

impl Ways {
    pub(super) fn new(nodes: Vec<Node>, initial: usize) -> Self {
        let empty = Reach {
            ways: Arc::from([]),
            completes: false,
        };
        let mut this = Self {
            sets: vec![Box::from([])],
            initial: empty,
            after: Vec::new(),
            past: FxHashMap::default(),
            nodes,
        };
        this.initial = this.reach(initial, 0);
        for place in 0..this.nodes.len() {
            let next = match &this.nodes[place] {
                Node::Take(take) => Some(take.next),
                _ => None,
            };
            let reach = next.map(|next| this.reach(next, 0));
            this.after.push(reach);
        }
        this
    }

    pub(super) fn initial(&self) -> &[Way] {
        &self.initial.ways
    }

    pub(super) fn node(&self, way: Way) -> &Node {
        &self.nodes[way.node as usize]
    }

    pub(super) fn yields_to(&self, way: Way) -> &[u32] {
        &self.sets[way.yields as usize]
    }

    pub(super) fn is_open(&self, node: usize) -> bool {
        matches!(&self.nodes[node], Node::Take(take) if take.is_open)
    }

    /// Whether the last step is greedy: what it took is reported when an event ends it.
    pub(super) fn has_greedy_end(&self) -> bool {
        let all = self.after.iter().flatten().chain(self.past.values());
        let mut ways = all.flat_map(|reach| reach.ways.iter());
        ways.any(|way| matches!(self.node(*way), Node::Final))
    }

    /// What follows when each of `nodes` took the event.
    pub(super) fn after(&self, nodes: &[usize]) -> Reach {
        let reached = |node: &usize| self.after[*node].as_ref();
        if let [node] = nodes
            && let Some(reach) = reached(node)
        {
            return reach.clone();
        }
        let reaches: Vec<&Reach> = nodes.iter().filter_map(reached).collect();
        let mut ways: Vec<Way> = Vec::new();
        for way in reaches.iter().flat_map(|reach| reach.ways.iter()) {
            if !ways.contains(way) {
                ways.push(*way);
            }
        }
        Reach {
            ways: ways.into(),
            completes: reaches.iter().any(|reach| reach.completes),
        }
    }

    /// What follows a way that waits for an event of another kind, once that came.
    pub(super) fn past(&self, way: Way) -> &Reach {
        &self.past[&way]
    }

    fn reach(&mut self, from: usize, yields: u32) -> Reach {
        let yields = self.sets[yields as usize].iter().copied().collect();
        let mut found: Vec<(usize, BTreeSet<u32>)> = Vec::new();
        self.walk(from, yields, &mut found);
        let is_end = |node: usize| matches!(self.nodes[node], Node::Final);
        let completes = found
            .iter()
            .any(|(node, set)| is_end(*node) && set.is_empty());
        found.retain(|(node, _)| match &self.nodes[*node] {
            Node::Final => !completes,
            Node::Split { .. } | Node::Dead => false,
            _ => true,
        });
        let ways: Vec<Way> = found
            .into_iter()
            .map(|(node, set)| Way {
                node: node as u32,
                yields: self.set(&set),
            })
            .collect();
        for way in &ways {
            if let Node::NotNext { next, .. } = *self.node(*way)
                && !self.past.contains_key(way)
            {
                let reach = self.reach(next, way.yields);
                self.past.insert(*way, reach);
            }
        }
        Reach {
            ways: ways.into(),
            completes,
        }
    }

    /// Each node that is reached, those that go before others first.
    fn walk(&self, node: usize, yields: BTreeSet<u32>, found: &mut Vec<(usize, BTreeSet<u32>)>) {
        let is_known =
            |(known, set): &(usize, BTreeSet<u32>)| *known == node && set.is_subset(&yields);
        if found.iter().any(is_known) {
            return;
        }
        found.push((node, yields.clone()));
        let Node::Split { ways, is_greedy } = &self.nodes[node] else {
            return;
        };
        let mut yields = yields;
        for (place, way) in ways.iter().enumerate() {
            self.walk(*way, yields.clone(), found);
            if place == 0
                && *is_greedy
                && let Node::Take(take) = &self.nodes[*way]
            {
                yields.extend([*way as u32, take.later as u32]);
            }
        }
    }

    fn set(&mut self, set: &BTreeSet<u32>) -> u32 {
        let known = self
            .sets
            .iter()
            .position(|known| set.iter().eq(known.iter()));
        let place = known.unwrap_or_else(|| {
            self.sets.push(set.iter().copied().collect());
            self.sets.len() - 1
        });
        place as u32
    }
}
