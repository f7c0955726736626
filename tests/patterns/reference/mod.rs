//! A naive matcher, written from what the words of a rule mean: it holds all events of a key in a
//! list, tries every way to take them, and then applies what selects among the matches. It shares
//! the conditions of one event ([`Predicate`](partita::pattern::predicate::Predicate)) with the
//! matchers, and nothing else.
//!
//! `arrival` says when each event is applied and how far time has come; `moves` which step may
//! follow which; `sequence` tries them on the events; `selection` applies the skip strategies;
//! `sets` does `any`, `all` and `count`; `windows` windows, whose `aggregates` are evaluated from
//! their events; `measured` conditions with a `change` or an `anomaly`, which `series` judges by the
//! list of values before; `idle` forgets keys; `calm` does `debounce` and `cooldown`.
//!
//! It knows no bounds of the state (`limits` but for `idle_key_ttl`) and not the method `spot`, whose
//! fit of a tail is no definition.

mod aggregates;
mod arrival;
mod calm;
mod idle;
mod measured;
mod moves;
mod selection;
mod sequence;
mod series;
mod sets;
mod windows;

use std::sync::Arc;

use partita::model::{Json, Timestamp};
use partita::pattern::{Event, Limits, Rule, Scalar, Shape};

/// An event as it arrives.
#[derive(Clone, Debug)]
pub struct Input {
    pub topic: u16,
    pub at: Timestamp,
    pub position: u64,
    pub slots: Vec<Scalar>,
    pub payload: Json,
}

impl Input {
    pub fn event(&self) -> Event<'_> {
        Event {
            topic: self.topic,
            at: self.at,
            position: self.position,
            slots: &self.slots,
            payload: &self.payload,
        }
    }
}

/// A match, or a partial match that ran out.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Output {
    /// Of the call with which it came out, from 0; the last is that which moves time to the end.
    pub call: usize,
    /// The key, as text.
    pub key: String,
    pub at: i64,
    /// Name and position.
    pub events: Vec<(u16, u64)>,
}

/// What must come out, each list by key and, within one, in order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Expected {
    pub matches: Vec<Output>,
    pub timed_out: Vec<Output>,
    pub late: Vec<u64>,
    pub unkeyed: Vec<u64>,
}

/// The case has too many partial matches to try them all.
#[derive(Debug)]
pub struct TooMany;

pub fn key_text(key: &[Scalar]) -> String {
    let parts = key.iter().map(|value| value.to_json().to_string());
    parts.collect::<Vec<_>>().join(",")
}

/// Whether the reference can say what comes of a rule.
pub fn knows(rule: &Rule) -> bool {
    let limits = Limits {
        idle_key_ttl: rule.limits.idle_key_ttl,
        ..Limits::default()
    };
    rule.limits == limits && !series::written(rule).iter().any(series::is_left_out)
}

/// What comes of `inputs`, after which time moves to `end`.
pub fn run(rule: &Arc<Rule>, inputs: &[Input], end: i64) -> Result<Expected, TooMany> {
    let arrivals = arrival::arrange(rule, inputs, end);
    let mut expected = Expected {
        late: arrivals.late.clone(),
        unkeyed: arrivals.unkeyed.clone(),
        ..Expected::default()
    };
    for (key, applied) in &arrivals.by_key {
        let (mut matches, mut timed_out) = (Vec::new(), Vec::new());
        for (mut applied, end) in idle::lives(rule, key, applied, arrivals.end()) {
            measured::mark(rule, key, &mut applied);
            let (found, ran_out) = match &rule.shape {
                Shape::Sequence(shape) => sequence::run(rule, shape, key, &applied, end)?,
                Shape::Window(shape) => {
                    let (found, late) = windows::run(rule, shape, key, &applied, end);
                    expected.late.extend(late);
                    (found, Vec::new())
                }
                _ => sets::run(rule, &applied, end),
            };
            matches.extend(found);
            timed_out.extend(ran_out);
        }
        let text = key_text(key);
        let output = |call: usize, at: i64, events: Vec<(u16, u64)>| Output {
            call,
            key: text.clone(),
            at,
            events,
        };
        for found in calm::thin_out(rule, matches, &arrivals) {
            let call = arrivals.call_at(found.out);
            expected.matches.push(output(call, found.at, found.events));
        }
        for partial in timed_out {
            let call = arrivals.call_at(partial.out);
            let partial = output(call, partial.at, partial.events);
            expected.timed_out.push(partial);
        }
    }
    // An event comes too late when it arrives, and not later.
    expected.late.sort_unstable();
    Ok(expected)
}

/// A match or a timeout of one key, with when it comes out.
#[derive(Clone, Debug)]
struct Found {
    out: Out,
    at: i64,
    events: Vec<(u16, u64)>,
}

/// When something comes out.
#[derive(Clone, Copy, Debug)]
enum Out {
    /// With the event that is applied in this call, when time stood there.
    Event { call: usize, now: i64 },
    /// When time comes there.
    Time(i64),
}

impl Out {
    fn now(self) -> i64 {
        match self {
            Out::Event { now, .. } => now,
            Out::Time(now) => now,
        }
    }
}
