//! The steps of a sequence unfolded into the nodes of an automaton: one for each event that a step
//! may take, so that a repetition with a bound is as many nodes.

use crate::model::Millis;
use crate::pattern::rule::{Contiguity, Part, Step as RuleStep, Times};

/// A state of a partial match: what it waits for.
#[derive(Clone, Debug)]
pub(super) enum Node {
    Take(Take),
    /// Proceeds to each without an event.
    Split(Vec<usize>),
    /// Proceeds unless the next event meets the condition.
    NotNext {
        predicate: u16,
        next: usize,
    },
    /// Waits for the end of `within`, which completes the match.
    Pending {
        kills: Vec<u16>,
    },
    Final,
}

#[derive(Clone, Debug)]
pub(super) struct Take {
    pub name: u16,
    pub predicate: u16,
    pub next: usize,
    pub contiguity: Contiguity,
    /// Conditions under which an event is neither taken nor passed over.
    pub guards: Vec<u16>,
    /// Conditions under which an event is not taken.
    pub take_guards: Vec<u16>,
    /// Conditions that end the partial match.
    pub kills: Vec<u16>,
    pub gap: Option<Millis>,
}

/// The nodes of `steps`, and the place of the one where a partial match begins.
pub(super) fn unfold(steps: &[RuleStep]) -> (Vec<Node>, usize) {
    let mut compiler = Compiler { nodes: Vec::new() };
    let end = compiler.add(Node::Final);
    let initial = compiler.steps(steps, None, end, &[]);
    (compiler.nodes, initial)
}

struct Compiler {
    nodes: Vec<Node>,
}

impl Compiler {
    fn add(&mut self, node: Node) -> usize {
        self.nodes.push(node);
        self.nodes.len() - 1
    }

    /// The entry of `steps`, the first of them with contiguity `first` where given, which lead to
    /// `end`; `kills` hold until the first of them takes an event.
    fn steps(
        &mut self,
        steps: &[RuleStep],
        first: Option<Contiguity>,
        end: usize,
        kills: &[u16],
    ) -> usize {
        let Some((step, rest)) = steps.split_first() else {
            if kills.is_empty() {
                return end;
            }
            return self.add(Node::Pending {
                kills: kills.to_vec(),
            });
        };
        if let Part::Absent(predicate) = step.part {
            if step.next == Contiguity::Strict {
                let next = self.steps(rest, None, end, kills);
                return self.add(Node::NotNext { predicate, next });
            }
            let mut kills = kills.to_vec();
            kills.push(predicate);
            return self.steps(rest, None, end, &kills);
        }
        let after = self.steps(rest, None, end, &[]);
        let contiguity = first.unwrap_or(step.next);
        let entry = self.repeated(step, contiguity, after, kills);
        if !step.optional {
            return entry;
        }
        let skipped = if kills.is_empty() && first.is_none() {
            after
        } else {
            self.steps(rest, first, end, kills)
        };
        self.add(Node::Split(vec![entry, skipped]))
    }

    /// One step as often as it may occur.
    fn repeated(
        &mut self,
        step: &RuleStep,
        contiguity: Contiguity,
        after: usize,
        kills: &[u16],
    ) -> usize {
        let Times { min, max } = step.times;
        if step.greedy
            && let Part::Event(predicate) = step.part
        {
            self.guard(after, predicate);
        }
        let mut sink = match max {
            Some(max) => {
                let mut sink = after;
                for _ in min..max {
                    let again = self.once(step, step.inner, sink, &[], false);
                    sink = self.add(Node::Split(vec![again, after]));
                }
                sink
            }
            None => {
                let around = self.add(Node::Split(Vec::new()));
                let again = self.once(step, step.inner, around, &[], false);
                self.nodes[around] = Node::Split(vec![again, after]);
                around
            }
        };
        for _ in 1..min {
            sink = self.once(step, step.inner, sink, &[], false);
        }
        self.once(step, contiguity, sink, kills, true)
    }

    fn once(
        &mut self,
        step: &RuleStep,
        contiguity: Contiguity,
        next: usize,
        kills: &[u16],
        is_first: bool,
    ) -> usize {
        match &step.part {
            Part::Event(predicate) => {
                let until: Vec<u16> = step.until.into_iter().collect();
                let (guards, take_guards) = if is_first {
                    (Vec::new(), until)
                } else {
                    (until, Vec::new())
                };
                self.add(Node::Take(Take {
                    name: step.name,
                    predicate: *predicate,
                    next,
                    contiguity,
                    guards,
                    take_guards,
                    kills: kills.to_vec(),
                    gap: step.within_gap,
                }))
            }
            Part::Group(steps) => self.steps(steps, Some(contiguity), next, kills),
            Part::Absent(_) => next,
        }
    }

    /// What a greedy step takes goes to nobody after it.
    fn guard(&mut self, from: usize, predicate: u16) {
        let mut reached = vec![from];
        let mut at = 0;
        while at < reached.len() {
            match &mut self.nodes[reached[at]] {
                Node::Take(take) => take.guards.push(predicate),
                Node::Split(parts) => {
                    for part in parts.clone() {
                        if !reached.contains(&part) {
                            reached.push(part);
                        }
                    }
                }
                _ => {}
            }
            at += 1;
        }
    }
}
