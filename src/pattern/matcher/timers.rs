//! Timers of keys, earliest first. Most are set in the order in which they fall due (a time ahead that is
//! the same for all events), so a queue takes them; a heap takes the others.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

use super::keys::Due;
use crate::model::Timestamp;

/// When, and the place of the key's entry.
type Timer = (Due, usize);

/// 24 bytes a timer.
#[derive(Debug, Default)]
pub(super) struct Timers {
    /// Ascending.
    in_order: VecDeque<Timer>,
    others: BinaryHeap<Reverse<Timer>>,
}

impl Timers {
    pub(super) fn push(&mut self, due: Due, place: usize) {
        let timer = (due, place);
        if self.in_order.back().is_none_or(|last| *last <= timer) {
            self.in_order.push_back(timer);
        } else {
            self.others.push(Reverse(timer));
        }
    }

    /// Takes the earliest, if it is due by `now`; of those due at once, that of the first place.
    pub(super) fn pop_by(&mut self, now: Timestamp) -> Option<Timer> {
        let timer = *self.earliest()?;
        if timer.0.0 > now {
            return None;
        }
        if self.in_order.front() == Some(&timer) {
            self.in_order.pop_front();
        } else {
            self.others.pop();
        }
        Some(timer)
    }

    /// The time of the earliest.
    pub(super) fn next(&self) -> Option<Timestamp> {
        self.earliest().map(|((at, _), _)| *at)
    }

    fn earliest(&self) -> Option<&Timer> {
        let other = self.others.peek().map(|Reverse(timer)| timer);
        match (self.in_order.front(), other) {
            (Some(one), Some(two)) => Some(one.min(two)),
            (one, two) => one.or(two),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_come_in_order_however_they_were_set() {
        let mut timers = Timers::default();
        let set = [
            (5, 0, 1),
            (9, 0, 2),
            (3, 2, 7),
            (9, 0, 1),
            (3, 0, 4),
            (9, 0, 2),
        ];
        for (at, arrival, place) in set {
            timers.push((Timestamp(at), arrival), place);
        }
        assert_eq!(timers.next(), Some(Timestamp(3)));
        assert_eq!(timers.pop_by(Timestamp(2)), None);
        let mut found = Vec::new();
        while let Some(((at, arrival), place)) = timers.pop_by(Timestamp(8)) {
            found.push((at.0, arrival, place));
        }
        assert_eq!(found, [(3, 0, 4), (3, 2, 7), (5, 0, 1)]);
        timers.push((Timestamp(7), 0), 3);
        let rest = std::iter::from_fn(|| timers.pop_by(Timestamp(9)));
        let rest: Vec<_> = rest.map(|((at, _), place)| (at.0, place)).collect();
        assert_eq!(rest, [(7, 3), (9, 1), (9, 2), (9, 2)]);
        assert_eq!(timers.next(), None);
    }
}
