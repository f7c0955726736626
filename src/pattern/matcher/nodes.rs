//! The steps of a sequence unfolded into the nodes of an automaton: one for each event that a step
//! may take, so that a repetition with a bound is as many nodes.

use crate::model::Millis;
use crate::pattern::rule::{Contiguity, Part, Step as RuleStep, Times};

/// A state of a partial match: what it waits for.
#[derive(Clone, Debug)]
pub(super) enum Node {
    Take(Take),
    /// Proceeds to each without an event. Where it is greedy, an event that the first can take goes
    /// to none of the others.
    Split {
        ways: Vec<usize>,
        is_greedy: bool,
    },
    /// Proceeds unless the next event meets the condition.
    NotNext {
        predicate: u16,
        next: usize,
    },
    /// Waits for the end of its time, which completes the match.
    Pending {
        kills: Vec<u16>,
        gap: Option<Millis>,
    },
    Final,
    /// Leads nowhere.
    Dead,
}

#[derive(Clone, Debug)]
pub(super) struct Take {
    pub name: u16,
    pub predicate: u16,
    pub next: usize,
    pub contiguity: Contiguity,
    /// The node that waits on after an event that was passed over: itself, save where the first
    /// event counts for more.
    pub later: usize,
    /// Conditions under which an event is neither taken nor passed over.
    pub guards: Vec<u16>,
    /// Conditions under which an event is not taken.
    pub take_guards: Vec<u16>,
    /// Conditions that end this way of the partial match.
    pub kills: Vec<u16>,
    pub gap: Option<Millis>,
    /// Whether it belongs to a repetition without a maximum.
    pub is_open: bool,
}

/// The nodes of `steps`, and the place of the one where a partial match begins.
pub(super) fn unfold(steps: &[RuleStep]) -> (Vec<Node>, usize) {
    let mut compiler = Compiler { nodes: Vec::new() };
    let end = compiler.add(Node::Final);
    let around = Around {
        end,
        first: None,
        follows: Kills::default(),
        is_open: false,
    };
    let initial = compiler.steps(steps, &around, &Kills::default());
    (compiler.nodes, initial)
}

/// What ends a partial match while it waits.
#[derive(Clone, Debug, Default)]
struct Kills {
    always: Vec<u16>,
    /// Only right after the event before.
    at_once: Vec<u16>,
    /// The time that the last of them covers.
    gap: Option<Millis>,
}

impl Kills {
    fn is_empty(&self) -> bool {
        self.always.is_empty() && self.at_once.is_empty()
    }
}

/// Where a list of steps stands.
#[derive(Clone)]
struct Around {
    /// What follows the last of them.
    end: usize,
    /// Contiguity of the first that takes an event, where it is that of the group.
    first: Option<Contiguity>,
    /// The absent steps right behind them.
    follows: Kills,
    /// Within a repetition without a maximum.
    is_open: bool,
}

struct Compiler {
    nodes: Vec<Node>,
}

impl Compiler {
    fn add(&mut self, node: Node) -> usize {
        self.nodes.push(node);
        self.nodes.len() - 1
    }

    /// The entry of `steps`; `kills` hold until the first of them takes an event.
    fn steps(&mut self, steps: &[RuleStep], around: &Around, kills: &Kills) -> usize {
        let Some((step, rest)) = steps.split_first() else {
            if around.first.is_some() {
                // A group of which nothing was taken; that it may be left out is seen to outside.
                return self.add(Node::Dead);
            }
            if kills.always.is_empty() {
                return around.end;
            }
            return self.add(Node::Pending {
                kills: kills.always.clone(),
                gap: kills.gap,
            });
        };
        if let Part::Absent(predicate) = step.part {
            if step.next == Contiguity::Strict {
                let next = self.steps(rest, around, kills);
                return self.add(Node::NotNext { predicate, next });
            }
            let mut kills = kills.clone();
            kills.always.push(predicate);
            kills.gap = step.within_gap;
            return self.steps(rest, around, &kills);
        }
        let inside = Around {
            first: None,
            ..around.clone()
        };
        let after = self.steps(rest, &inside, &Kills::default());
        let contiguity = around.first.unwrap_or(step.next);
        let follows = follows(rest, &around.follows);
        let entry = self.repeated(step, contiguity, after, kills, &follows, around.is_open);
        let is_skipped = step.optional || is_empty_group(step);
        if !is_skipped {
            return entry;
        }
        let skipped = if kills.is_empty() && around.first.is_none() {
            after
        } else {
            self.steps(rest, around, kills)
        };
        self.add(Node::Split {
            ways: vec![entry, skipped],
            is_greedy: is_greedy(step),
        })
    }

    /// One step as often as it may occur.
    fn repeated(
        &mut self,
        step: &RuleStep,
        contiguity: Contiguity,
        after: usize,
        kills: &Kills,
        follows: &Kills,
        is_open: bool,
    ) -> usize {
        let Times { min, max } = step.times;
        // Rounds of a group that take nothing need not be made.
        let min = if is_empty_group(step) { 1 } else { min };
        let is_greedy = is_greedy(step);
        let around = |end: usize, contiguity: Contiguity| Around {
            end,
            first: Some(contiguity),
            follows: follows.clone(),
            is_open: is_open || max.is_none(),
        };
        let mut sink = match max {
            Some(max) => {
                let mut sink = after;
                for _ in min..max {
                    let again = self.once(step, &around(sink, step.inner), follows, false);
                    sink = self.add(Node::Split {
                        ways: vec![again, after],
                        is_greedy,
                    });
                }
                sink
            }
            None => {
                let split = self.add(Node::Dead);
                let again = self.once(step, &around(split, step.inner), follows, false);
                self.nodes[split] = Node::Split {
                    ways: vec![again, after],
                    is_greedy,
                };
                split
            }
        };
        for _ in 1..min {
            sink = self.once(step, &around(sink, step.inner), follows, false);
        }
        self.once(step, &around(sink, contiguity), kills, true)
    }

    fn once(&mut self, step: &RuleStep, around: &Around, kills: &Kills, is_first: bool) -> usize {
        match &step.part {
            Part::Event(predicate) => {
                let until: Vec<u16> = step.until.into_iter().collect();
                let (guards, take_guards) = if is_first {
                    (Vec::new(), until)
                } else {
                    (until, Vec::new())
                };
                let place = self.nodes.len();
                let mut take = Take {
                    name: step.name,
                    predicate: *predicate,
                    next: around.end,
                    contiguity: around.first.unwrap_or(step.next),
                    later: place,
                    guards,
                    take_guards,
                    kills: kills.always.clone(),
                    gap: step.within_gap,
                    is_open: around.is_open,
                };
                self.add(Node::Take(take.clone()));
                take.kills.extend(&kills.at_once);
                if kills.at_once.is_empty() || take.contiguity == Contiguity::Strict {
                    self.nodes[place] = Node::Take(take);
                    return place;
                }
                self.add(Node::Take(take))
            }
            Part::Group(steps) => self.steps(steps, around, kills),
            Part::Absent(_) => around.end,
        }
    }
}

fn is_greedy(step: &RuleStep) -> bool {
    step.greedy && matches!(step.part, Part::Event(_))
}

/// Whether a round of the group may take nothing.
fn is_empty_group(step: &RuleStep) -> bool {
    let may_be_left_out = |step: &RuleStep| {
        step.optional || matches!(step.part, Part::Absent(_)) || is_empty_group(step)
    };
    matches!(&step.part, Part::Group(steps) if steps.iter().all(may_be_left_out))
}

/// The absent steps that `rest` begins with, which hold between the rounds of the step before as
/// well; behind the last step of a group, those that follow the group.
fn follows(rest: &[RuleStep], around: &Kills) -> Kills {
    if rest.is_empty() {
        return around.clone();
    }
    let mut kills = Kills::default();
    for step in rest {
        match step.part {
            Part::Absent(predicate) if step.next == Contiguity::Strict => {
                kills.at_once.push(predicate);
            }
            Part::Absent(predicate) => kills.always.push(predicate),
            _ => break,
        }
    }
    kills
}
