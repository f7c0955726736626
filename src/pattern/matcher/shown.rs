//! What `matches` shows of a window: when it was, its aggregates, and what was measured of them.

use std::collections::BTreeMap;

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

use crate::model::Timestamp;
use crate::model::cloud_event::DEPTH;
use crate::pattern::event::Scalar;
use crate::pattern::gauge::Reading;
use crate::pattern::rule::Aggregate;
use crate::pattern::window::Window;

/// What `matches` shows of a window.
pub(super) struct Shown<'a> {
    pub(super) aggregates: &'a [Aggregate],
    pub(super) window: Window,
    pub(super) values: &'a [Scalar],
    pub(super) reading: Option<Reading>,
    pub(super) depth: u32,
}

impl Serialize for Shown<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut members = serializer.serialize_map(None)?;
        if self.depth > 0 {
            // Where an event says it.
            members.serialize_entry("ce", &BTreeMap::from([(DEPTH, self.depth)]))?;
        }
        members.serialize_entry("start", &Timestamp(self.window.start))?;
        members.serialize_entry("end", &Timestamp(self.window.end))?;
        for (aggregate, value) in self.aggregates.iter().zip(self.values) {
            members.serialize_entry(&*aggregate.name, &value.to_json())?;
        }
        if let Some(reading) = &self.reading {
            members.serialize_entry("measured", &reading.to_json())?;
        }
        members.end()
    }
}
