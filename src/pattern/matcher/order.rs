//! Event time: how far it has come, and what comes too late.

use serde::{Deserialize, Serialize};

use crate::model::{Millis, Timestamp};
use crate::pattern::rule::{Rule, Shape, Time};

#[derive(Debug)]
pub(super) struct Order {
    out_of_order: Millis,
    allowed_lateness: Millis,
    pub(super) progress: Progress,
}

/// How far event time has come for a rule: what a matcher goes on from, beside its keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// No event earlier than this is waited for.
    pub watermark: Option<Timestamp>,
    /// The latest event seen.
    pub latest: Option<Timestamp>,
    /// Deadlines up to here have fired.
    pub now: Option<Timestamp>,
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
            // A window knows by itself what is too late for it.
            Shape::Window(ref window) => {
                let reach = window.span.reach().0;
                (
                    out_of_order,
                    Millis(allowed_lateness.0.saturating_add(reach)),
                )
            }
            _ => (out_of_order, allowed_lateness),
        };
        Self {
            out_of_order,
            allowed_lateness,
            progress: Progress::default(),
        }
    }

    /// Whether an event comes too late to be taken.
    pub(super) fn is_late(&self, at: Timestamp) -> bool {
        let watermark = self.progress.watermark;
        watermark.is_some_and(|watermark| at < watermark - self.allowed_lateness)
    }

    /// How long after its time an event may still come.
    pub(super) fn patience(&self) -> Millis {
        self.allowed_lateness
    }

    /// How far time has come where no source is behind `latest`.
    pub(super) fn watermark_at(&self, latest: Timestamp) -> Timestamp {
        latest - self.out_of_order
    }

    /// How far each source must have come before time has come to `time`.
    pub(super) fn latest_at(&self, time: Timestamp) -> Timestamp {
        time + self.out_of_order
    }

    /// Takes note of an event's time; how far that moves the watermark.
    pub(super) fn note(&mut self, at: Timestamp) -> Timestamp {
        let latest = self.progress.latest.map_or(at, |latest| latest.max(at));
        self.progress.latest = Some(latest);
        self.advance(self.watermark_at(latest))
    }

    /// Moves the watermark to `time`, or leaves it where it is further on; where it is then.
    pub(super) fn advance(&mut self, time: Timestamp) -> Timestamp {
        let watermark = self
            .progress
            .watermark
            .map_or(time, |known| known.max(time));
        self.progress.watermark = Some(watermark);
        watermark
    }
}
