//! Event time: how far it has come, and the events that wait for those before them.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::Held;
use crate::model::{Millis, Timestamp};
use crate::pattern::event::Event;
use crate::pattern::rule::{Rule, Shape, Time};

#[derive(Debug)]
pub(super) struct Order {
    out_of_order: Millis,
    allowed_lateness: Millis,
    /// No event earlier than this is waited for.
    watermark: Option<Timestamp>,
    latest: Option<Timestamp>,
    held: BinaryHeap<Reverse<Held>>,
    arrivals: u64,
}

impl Order {
    /// A sequence cannot be changed once it went by, so its events wait as long as lateness is
    /// allowed; other shapes take a late event as soon as it comes.
    pub(super) fn new(rule: &Rule) -> Self {
        let Time {
            out_of_order,
            allowed_lateness,
            ..
        } = rule.time;
        let (out_of_order, allowed_lateness) = match rule.shape {
            Shape::Sequence(_) => (Millis(out_of_order.0 + allowed_lateness.0), Millis(0)),
            _ => (out_of_order, allowed_lateness),
        };
        Self {
            out_of_order,
            allowed_lateness,
            watermark: None,
            latest: None,
            held: BinaryHeap::new(),
            arrivals: 0,
        }
    }

    pub(super) fn watermark(&self) -> Option<Timestamp> {
        self.watermark
    }

    /// The latest event seen.
    pub(super) fn latest(&self) -> Option<Timestamp> {
        self.latest
    }

    /// Whether an event comes too late to be taken.
    pub(super) fn is_late(&self, at: Timestamp) -> bool {
        self.watermark
            .is_some_and(|watermark| at < watermark - self.allowed_lateness)
    }

    /// Takes note of an event's time; whether the event can be applied at once, since it waits for
    /// nobody.
    pub(super) fn passes(&mut self, at: Timestamp) -> bool {
        if self.latest.is_none_or(|latest| at > latest) {
            self.latest = Some(at);
        }
        let bound = self.latest.unwrap_or(at) - self.out_of_order;
        self.advance(bound);
        self.watermark.is_some_and(|watermark| at <= watermark) && self.held.is_empty()
    }

    pub(super) fn advance(&mut self, time: Timestamp) {
        if self.watermark.is_none_or(|watermark| time > watermark) {
            self.watermark = Some(time);
        }
    }

    pub(super) fn hold(&mut self, event: &Event<'_>) {
        self.held.push(Reverse(Held {
            topic: event.topic,
            at: event.at,
            position: event.position,
            slots: event.slots.into(),
            payload: event.payload.clone(),
            arrival: self.arrivals,
        }));
        self.arrivals += 1;
    }

    /// The earliest event that waits for nobody any more.
    pub(super) fn next_ready(&mut self) -> Option<Held> {
        let Reverse(held) = self.held.peek()?;
        if self.watermark.is_some_and(|watermark| held.at <= watermark) {
            return self.held.pop().map(|Reverse(held)| held);
        }
        None
    }
}

impl Held {
    fn rank(&self) -> (Timestamp, u64) {
        (self.at, self.arrival)
    }
}

impl PartialEq for Held {
    fn eq(&self, other: &Self) -> bool {
        self.rank() == other.rank()
    }
}

impl Eq for Held {}

impl PartialOrd for Held {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Held {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.rank().cmp(&other.rank())
    }
}
