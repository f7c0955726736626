//! The minimum or maximum of a sliding window, in amortised constant time: only entries that can
//! still become the extreme are kept (the monotonic queue of the sliding-window-minimum problem).

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use crate::pattern::exact;

/// Which end of the values is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Extreme {
    /// The smallest.
    Min,
    /// The largest.
    Max,
}

impl Extreme {
    /// Whether `a` makes `b` needless, being at least as extreme.
    fn covers(self, a: f64, b: f64) -> bool {
        match self {
            Extreme::Min => a <= b,
            Extreme::Max => a >= b,
        }
    }
}

/// The entries that are, or may yet be, the extreme of a window over time. 40 bytes and 16 for
/// each entry; at worst (values that only get less extreme) every value of the window is one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Monotonic {
    extreme: Extreme,
    /// Ascending by time; each is strictly more extreme than all that follow.
    entries: VecDeque<Entry>,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Entry {
    at: i64,
    #[serde(with = "exact")]
    value: f64,
}

impl Monotonic {
    /// An empty window.
    pub fn new(extreme: Extreme) -> Monotonic {
        Monotonic {
            extreme,
            entries: VecDeque::new(),
        }
    }

    /// Adds a value at `at` (epoch ms). Amortised constant where times ascend; a late one costs
    /// what there is to move.
    pub fn push(&mut self, at: i64, value: f64) {
        let covers = |a, b| self.extreme.covers(a, b);
        let mut place = self.entries.len();
        while place > 0 && self.entries[place - 1].at > at {
            place -= 1;
        }
        if self
            .entries
            .get(place)
            .is_some_and(|next| covers(next.value, value))
        {
            return;
        }
        let mut kept = place;
        while kept > 0 && covers(value, self.entries[kept - 1].value) {
            kept -= 1;
        }
        let entry = Entry { at, value };
        if place == self.entries.len() {
            self.entries.truncate(kept);
            self.entries.push_back(entry);
        } else {
            self.entries.drain(kept..place);
            self.entries.insert(kept, entry);
        }
    }

    /// Forgets what came before `from` (epoch ms).
    pub fn expire_before(&mut self, from: i64) {
        while self.entries.front().is_some_and(|entry| entry.at < from) {
            self.entries.pop_front();
        }
    }

    /// Forgets the oldest entry, which is the extreme, in favour of the next.
    pub fn drop_oldest(&mut self) {
        self.entries.pop_front();
    }

    /// The extreme of what is left; `None` of nothing.
    pub fn best(&self) -> Option<f64> {
        self.entries.front().map(|entry| entry.value)
    }

    /// How many entries are kept.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there is nothing to have an extreme of.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_size_is_as_stated() {
        assert_eq!((size_of::<Monotonic>(), size_of::<Entry>()), (40, 16));
    }

    #[test]
    fn a_late_value_takes_its_place_in_time() {
        let mut max = Monotonic::new(Extreme::Max);
        max.push(10, 5.0);
        max.push(30, 3.0);
        max.push(20, 4.0);
        max.push(15, 2.0);
        assert_eq!((max.best(), max.len()), (Some(5.0), 3));
        max.expire_before(11);
        assert_eq!(max.best(), Some(4.0));
        max.expire_before(21);
        assert_eq!(max.best(), Some(3.0));
        max.push(5, 9.0);
        assert_eq!(max.best(), Some(9.0));
        max.expire_before(31);
        assert!(max.is_empty());
    }
}
