//! Matchers: a rule and its state, fed events in the order of arrival.
//!
//! [`Matcher`] orders events by event time (`order`), evaluates the conditions of their topic once,
//! finds the state of their key (`keys`) and hands both to the machine of the rule's shape:
//! `chain` for relaxed and any-contiguous sequences whose conditions look at one event alone, `all`
//! for conditions in any order and counts, `automaton` for every other sequence, unfolded into
//! `nodes`. `suppress` thins out what comes of it. All state is plain data; each key has one timer,
//! for the earliest time at which something of it runs out, so that nothing is scanned for age (save
//! under `within_gap`, where partial matches run out in another order than they began).

mod all;
mod automaton;
mod chain;
mod keys;
mod nodes;
mod order;
mod suppress;

use std::sync::Arc;

use super::event::{Event, Scalar, Taken};
use super::output::{Key, Match, Outputs, Overflow, TimedOut};
use super::predicate::Nothing;
use super::rule::{Rule, Shape};
use crate::model::{Json, Timestamp};
use keys::Keys;
use order::Order;
use suppress::Suppress;

/// A rule at work on one stream.
#[derive(Debug)]
pub struct Matcher {
    rule: Arc<Rule>,
    /// By topic: the conditions that look at one event alone, and whether events that meet none
    /// matter all the same.
    by_topic: Vec<Topic>,
    order: Order,
    /// Dense number of the next event that is applied.
    next: u64,
    now: Timestamp,
    machine: Machine,
    suppress: Suppress,
    key: Vec<Scalar>,
    report_timed_out: bool,
}

#[derive(Debug)]
struct Topic {
    predicates: Vec<u16>,
    every_event: bool,
}

#[derive(Debug)]
enum Machine {
    Any,
    All(all::All, Keys<all::State>),
    Chain(chain::Chain, Keys<chain::State>),
    Automaton(Box<automaton::Automaton>, Keys<automaton::State>),
}

/// What a machine gets beside the state of a key.
struct Step<'a> {
    rule: &'a Rule,
    key: &'a Key,
    now: Timestamp,
    /// Dense number of the event.
    order: u64,
    report_timed_out: bool,
    suppress: &'a mut Suppress,
    out: &'a mut Outputs,
}

impl Step<'_> {
    fn emit(&mut self, at: Timestamp, events: Vec<(u16, Taken)>) {
        let key = self.key.clone();
        let found = Match { key, at, events };
        self.suppress.pass(&self.rule.emit, found, self.out);
    }

    fn time_out(&mut self, at: Timestamp, events: Vec<(u16, Taken)>) {
        let key = self.key.clone();
        self.out.timed_out.push(TimedOut { key, at, events });
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
    /// `met` has a bit for each condition that the event meets by itself.
    fn event(&self, state: &mut Self::State, event: &Event<'_>, met: u64, step: &mut Step<'_>);
    /// Everything up to `step.now` ran out.
    fn expire(&self, state: &mut Self::State, step: &mut Step<'_>);
    /// The earliest time at which something runs out.
    fn deadline(&self, state: &Self::State) -> Option<Timestamp>;
    fn is_idle(&self, state: &Self::State) -> bool;
}

impl Matcher {
    /// With empty state. Partial matches that run out are reported where `report_timed_out`.
    pub fn new(rule: Arc<Rule>, report_timed_out: bool) -> Self {
        let machine = match &rule.shape {
            Shape::Any { .. } => Machine::Any,
            Shape::All { within, conditions } => {
                Machine::All(all::All::new(*within, conditions), Keys::default())
            }
            Shape::Count {
                within,
                at_least,
                condition,
            } => Machine::All(
                all::All::counting(*within, *condition, *at_least as usize),
                Keys::default(),
            ),
            Shape::Sequence(sequence) => match chain::Chain::new(&rule, sequence) {
                Some(chain) => Machine::Chain(chain, Keys::default()),
                None => Machine::Automaton(
                    Box::new(automaton::Automaton::new(&rule, sequence)),
                    Keys::default(),
                ),
            },
        };
        let by_topic = (0..rule.topics.len())
            .map(|topic| {
                let of_topic =
                    |place: &u16| usize::from(rule.predicates[usize::from(*place)].topic) == topic;
                let all = 0..rule.predicates.len() as u16;
                let predicates: Vec<u16> = all.filter(of_topic).collect();
                let looks_back = |place: &u16| rule.predicates[usize::from(*place)].looks_back;
                let is_strict =
                    matches!(&machine, Machine::Automaton(automaton, _) if automaton.is_strict());
                Topic {
                    every_event: is_strict || predicates.iter().any(looks_back),
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
            next: 0,
            now: Timestamp(i64::MIN),
            machine,
            suppress: Suppress::default(),
            key: Vec::new(),
            report_timed_out,
            rule,
        }
    }

    pub fn rule(&self) -> &Arc<Rule> {
        &self.rule
    }

    /// Partial matches and held events end where event time passes their `within`; this is how far
    /// event time has come, `None` before the first event.
    pub fn now(&self) -> Option<Timestamp> {
        (self.now.0 != i64::MIN).then_some(self.now)
    }

    /// Keys that hold state.
    pub fn keys(&self) -> usize {
        match &self.machine {
            Machine::Any => 0,
            Machine::All(_, keys) => keys.len(),
            Machine::Chain(_, keys) => keys.len(),
            Machine::Automaton(_, keys) => keys.len(),
        }
    }

    /// Takes an event as it arrives; event time moves on by it, less `out_of_order`.
    pub fn push(&mut self, event: &Event<'_>, out: &mut Outputs) {
        if self.order.is_late(event.at) {
            out.late.push(event.position);
            return;
        }
        if self.order.passes(event.at) {
            self.apply(event, out);
            return;
        }
        self.order.hold(event);
        self.release(out);
    }

    /// Event time has come to `time`: nothing earlier arrives any more, save what
    /// `allowed_lateness` takes. Deadlines up to `time` fall due.
    pub fn advance(&mut self, time: Timestamp, out: &mut Outputs) {
        self.order.advance(time);
        self.release(out);
        self.move_to(time, out);
        self.suppress.advance(time, out);
    }

    /// The latest time at which anything that is held now runs out; a caller that has no more
    /// events advances to it to see every deadline.
    pub fn end_of_windows(&self) -> Option<Timestamp> {
        let held = self.order.latest();
        let span = match &self.rule.shape {
            Shape::Any { .. } => Some(crate::model::Millis(0)),
            Shape::All { within, .. } | Shape::Count { within, .. } => Some(*within),
            Shape::Sequence(sequence) => sequence.within,
        };
        let debounce = self.rule.emit.debounce.unwrap_or_default();
        held.map(|held| held + span.unwrap_or_default() + debounce)
    }

    fn release(&mut self, out: &mut Outputs) {
        while let Some(held) = self.order.next_ready() {
            let event = Event {
                topic: held.topic,
                at: held.at,
                position: held.position,
                slots: &held.slots,
                payload: &held.payload,
            };
            self.apply(&event, out);
        }
        if let Some(watermark) = self.order.watermark() {
            self.move_to(watermark, out);
        }
    }

    fn move_to(&mut self, time: Timestamp, out: &mut Outputs) {
        if time <= self.now {
            return;
        }
        self.now = time;
        let mut context = Context {
            rule: &self.rule,
            now: time,
            order: self.next,
            report_timed_out: self.report_timed_out,
            suppress: &mut self.suppress,
        };
        match &mut self.machine {
            Machine::Any => {}
            Machine::All(all, keys) => fire(all, keys, &mut context, out),
            Machine::Chain(chain, keys) => fire(chain, keys, &mut context, out),
            Machine::Automaton(automaton, keys) => {
                fire(&**automaton, keys, &mut context, out);
            }
        }
        if self.rule.emit.debounce.is_some() {
            self.suppress.advance(time, out);
        }
    }

    fn apply(&mut self, event: &Event<'_>, out: &mut Outputs) {
        self.move_to(event.at, out);
        let Some(topic) = self.by_topic.get(usize::from(event.topic)) else {
            return;
        };
        let order = self.next;
        self.next += 1;
        if !self.rule.correlate.is_empty() {
            self.key.clear();
            let slots = self.rule.correlate.iter();
            self.key
                .extend(slots.map(|(_, slot)| event.slots[usize::from(*slot)].clone()));
            if !self.key.iter().all(Scalar::is_key) {
                out.unkeyed.push(event.position);
                return;
            }
        }
        let mut met = 0u64;
        for place in &topic.predicates {
            let predicate = &self.rule.predicates[usize::from(*place)];
            match predicate.holds(&self.rule, event, &self.key, &Nothing) {
                Some(holds) => met |= u64::from(holds) << place,
                None => out.condition_errors += 1,
            }
        }
        if met == 0 && !topic.every_event {
            return;
        }
        let mut context = Context {
            rule: &self.rule,
            now: self.now,
            order,
            report_timed_out: self.report_timed_out,
            suppress: &mut self.suppress,
        };
        match &mut self.machine {
            Machine::Any => any(event, met, &self.key, &mut context, out),
            Machine::All(all, keys) => feed(all, keys, event, met, &self.key, &mut context, out),
            Machine::Chain(chain, keys) => {
                feed(chain, keys, event, met, &self.key, &mut context, out);
            }
            Machine::Automaton(automaton, keys) => {
                let automaton = &**automaton;
                feed(automaton, keys, event, met, &self.key, &mut context, out);
            }
        }
    }
}

/// What is the same for all keys.
struct Context<'a> {
    rule: &'a Rule,
    now: Timestamp,
    order: u64,
    report_timed_out: bool,
    suppress: &'a mut Suppress,
}

impl<'a> Context<'a> {
    fn step<'b>(&'b mut self, key: &'b Key, out: &'b mut Outputs) -> Step<'b> {
        Step {
            rule: self.rule,
            key,
            now: self.now,
            order: self.order,
            report_timed_out: self.report_timed_out,
            suppress: self.suppress,
            out,
        }
    }
}

fn any(event: &Event<'_>, met: u64, key: &[Scalar], context: &mut Context<'_>, out: &mut Outputs) {
    let Shape::Any { conditions } = &context.rule.shape else {
        return;
    };
    let key: Key = key.into();
    let order = context.order;
    for condition in conditions {
        if met >> condition.predicate & 1 == 1 {
            let events = vec![(condition.name, Taken::new(event, order, false))];
            context.step(&key, out).emit(event.at, events);
        }
    }
}

fn feed<M: Shaped>(
    machine: &M,
    keys: &mut Keys<M::State>,
    event: &Event<'_>,
    met: u64,
    key: &[Scalar],
    context: &mut Context<'_>,
    out: &mut Outputs,
) {
    let place = match keys.find(key) {
        Some(place) => place,
        None if keys.len() >= context.rule.limits.max_keys => {
            out.overflows.push(Overflow {
                key: None,
                at: context.now,
                limit: "max_keys",
                dropped: 1,
            });
            return;
        }
        None => keys.insert(key),
    };
    let entry = keys.entry(place);
    let key = entry.key.clone();
    machine.event(&mut entry.state, event, met, &mut context.step(&key, out));
    settle(machine, keys, place);
}

/// Fires every timer up to now, in the order of time.
fn fire<M: Shaped>(
    machine: &M,
    keys: &mut Keys<M::State>,
    context: &mut Context<'_>,
    out: &mut Outputs,
) {
    let until = context.now;
    while let Some((due, place)) = keys.due(until) {
        context.now = due;
        let entry = keys.entry(place);
        let key = entry.key.clone();
        machine.expire(&mut entry.state, &mut context.step(&key, out));
        settle(machine, keys, place);
    }
    context.now = until;
}

/// Arms the timer of a key, or forgets a key that holds nothing.
fn settle<M: Shaped>(machine: &M, keys: &mut Keys<M::State>, place: usize) {
    let state = &keys.entry(place).state;
    if machine.is_idle(state) {
        keys.remove(place);
    } else if let Some(deadline) = machine.deadline(state) {
        keys.arm(place, deadline);
    }
}

/// An event that waits for its turn.
#[derive(Debug)]
struct Held {
    topic: u16,
    at: Timestamp,
    position: u64,
    slots: Box<[Scalar]>,
    payload: Json,
    arrival: u64,
}
