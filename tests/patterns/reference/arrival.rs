//! When each event is applied, and how far time has come after each call.

use partita::pattern::predicate::Nothing;
use partita::pattern::{Rule, Scalar, Shape};

use super::{Input, Out};

/// An event at its turn.
#[derive(Clone, Copy)]
pub(super) struct Applied<'a> {
    pub(super) input: &'a Input,
    /// The call in which its turn comes.
    pub(super) call: usize,
    /// How far time had come then.
    pub(super) now: i64,
    /// A bit for each condition that it would meet but for what is measured.
    pub(super) missed: u64,
}

impl Applied<'_> {
    /// Whether it meets a condition that looks at nothing before it but what is measured.
    pub(super) fn meets(&self, rule: &Rule, key: &[Scalar], place: u16) -> bool {
        let predicate = &rule.predicates[usize::from(place)];
        let event = self.input.event();
        predicate.topic == event.topic
            && self.missed >> place & 1 == 0
            && predicate.holds(rule, &event, key, &Nothing) == Some(true)
    }

    pub(super) fn out(&self) -> Out {
        Out::Event {
            call: self.call,
            now: self.now,
        }
    }
}

pub(super) struct Arrivals<'a> {
    /// In the order in which they are applied.
    pub(super) by_key: Vec<(Vec<Scalar>, Vec<Applied<'a>>)>,
    pub(super) late: Vec<u64>,
    pub(super) unkeyed: Vec<u64>,
    /// Time after each call.
    times: Vec<i64>,
}

impl Arrivals<'_> {
    pub(super) fn end(&self) -> i64 {
        *self.times.last().expect("there is a call")
    }

    pub(super) fn call_at(&self, out: Out) -> usize {
        match out {
            Out::Event { call, .. } => call,
            Out::Time(time) => {
                let call = self.times.iter().position(|reached| *reached >= time);
                call.expect("nothing comes out after the end")
            }
        }
    }
}

/// An event waits until none before it can come any more: `out_of_order` behind the latest. One
/// that comes after that is late; shapes without an order take it at once, for
/// `allowed_lateness`, while a sequence waits that much longer. A window is open for its length
/// before that.
pub(super) fn arrange<'a>(rule: &Rule, inputs: &'a [Input], end: i64) -> Arrivals<'a> {
    let (out_of_order, lateness) = (rule.time.out_of_order.0, rule.time.allowed_lateness.0);
    let (wait, lateness) = match rule.shape {
        Shape::Sequence(_) => (out_of_order + lateness, 0),
        Shape::Window(ref window) => (out_of_order, lateness + window.span.reach().0),
        _ => (out_of_order, lateness),
    };
    let (wait, lateness) = (wait as i64, lateness as i64);
    let mut waiting: Vec<(usize, &Input)> = Vec::new();
    let mut applied: Vec<Applied<'_>> = Vec::new();
    let (mut late, mut times) = (Vec::new(), Vec::new());
    let mut watermark = i64::MIN;
    for call in 0..=inputs.len() {
        match inputs.get(call) {
            Some(input) if watermark != i64::MIN && input.at.0 < watermark - lateness => {
                late.push(input.position);
            }
            Some(input) => {
                waiting.push((call, input));
                watermark = watermark.max(input.at.0 - wait);
            }
            None => watermark = watermark.max(end),
        }
        let mut ready: Vec<(usize, &Input)> = Vec::new();
        waiting.retain(|held| {
            let is_ready = held.1.at.0 <= watermark;
            if is_ready {
                ready.push(*held);
            }
            !is_ready
        });
        ready.sort_by_key(|(arrival, input)| (input.at, *arrival));
        for (_, input) in ready {
            let before = applied.last().map_or(i64::MIN, |last| last.now);
            let reached = times.last().copied().unwrap_or(i64::MIN);
            applied.push(Applied {
                input,
                call,
                now: input.at.0.max(before).max(reached),
                missed: 0,
            });
        }
        times.push(watermark);
    }
    let mut unkeyed = Vec::new();
    let mut by_key: Vec<(Vec<Scalar>, Vec<Applied<'_>>)> = Vec::new();
    for applied in applied {
        let slots = rule.correlate.iter().map(|(_, slot)| usize::from(*slot));
        let key: Vec<Scalar> = slots
            .map(|slot| applied.input.slots[slot].clone())
            .collect();
        if !key.iter().all(Scalar::is_key) {
            unkeyed.push(applied.input.position);
            continue;
        }
        match by_key.iter_mut().find(|(known, _)| *known == key) {
            Some((_, events)) => events.push(applied),
            None => by_key.push((key, vec![applied])),
        }
    }
    Arrivals {
        by_key,
        late,
        unkeyed,
        times,
    }
}
