//! Over how many rules the events of a key came about, for shapes whose matches show no events: two rules
//! that start each other through windows come to an end as any others do.

use serde::{Deserialize, Serialize};

use crate::model::Timestamp;
use crate::model::cloud_event::depth;
use crate::pattern::event::Event;

/// Of other depths than these few there are none but in records that somebody else wrote.
const MOST: usize = 32;

/// By time, the deepest events: no later one is as deep.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(super) struct Depths(Vec<(Timestamp, u32)>);

impl Depths {
    /// Takes note of an event that came about over some rules; most did not.
    pub(super) fn note(depths: &mut Option<Box<Depths>>, event: &Event<'_>) {
        let depth = depth(event.payload);
        if depth > 0 {
            depths.get_or_insert_default().insert(event.at, depth);
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn insert(&mut self, at: Timestamp, depth: u32) {
        let place = self.0.partition_point(|(other, _)| *other < at);
        if self.0[place..].iter().any(|(_, other)| *other >= depth) {
            return;
        }
        let hides = |(other, shallower): &(Timestamp, u32)| *other <= at && *shallower <= depth;
        self.0.retain(|known| !hides(known));
        let place = self.0.partition_point(|(other, _)| *other < at);
        self.0.insert(place, (at, depth));
        if self.0.len() > MOST {
            self.0.remove(0);
        }
    }

    /// The depth of the deepest event from `from` up to and without `end`, or of one behind them.
    pub(super) fn within(&self, from: Timestamp, end: Timestamp) -> u32 {
        let inside = |(at, _): &&(Timestamp, u32)| (from..end).contains(at);
        let deepest = self.0.iter().filter(inside).map(|(_, depth)| *depth).max();
        // One behind them may have hidden what was as deep.
        let behind = || self.0.iter().find(|(at, _)| *at >= end);
        deepest
            .or_else(|| behind().map(|(_, depth)| *depth))
            .unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_deepest_of_a_window_is_known() {
        let mut depths = Depths::default();
        let events = [(10, 3), (20, 1), (5, 2), (30, 1), (40, 2), (35, 2)];
        for (at, depth) in events {
            depths.insert(Timestamp(at), depth);
        }
        let within = |from, end| depths.within(Timestamp(from), Timestamp(end));
        assert_eq!(within(0, 100), 3);
        assert_eq!(within(10, 11), 3);
        assert_eq!(within(11, 100), 2);
        assert_eq!(within(36, 41), 2);
        assert_eq!(within(41, 100), 0);
        // Never less than it is: the event at 20 is hidden by one that came later and is deeper.
        assert_eq!(within(20, 31), 2);
        assert_eq!(depths.0.len(), 2);
    }

    #[test]
    fn they_are_bounded() {
        let mut depths = Depths::default();
        for place in 0..1_000 {
            depths.insert(Timestamp(place), 1_000 - place as u32);
        }
        assert_eq!(depths.0.len(), MOST);
    }
}
