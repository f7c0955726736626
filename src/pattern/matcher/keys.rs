//! State by correlation key, and one timer for each.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::hash::{Hash, Hasher};

use rustc_hash::{FxHashMap, FxHasher};

use crate::model::Timestamp;
use crate::pattern::event::Scalar;
use crate::pattern::output::Key;

#[derive(Debug)]
pub(super) struct Keys<S> {
    /// Hash of the key to the first entry with that hash.
    places: FxHashMap<u64, usize>,
    entries: Vec<Entry<S>>,
    free: Vec<usize>,
    /// Due time and place; those that an entry does not know any more are passed over.
    timers: BinaryHeap<Reverse<(Timestamp, usize)>>,
}

#[derive(Debug)]
pub(super) struct Entry<S> {
    pub(super) key: Key,
    pub(super) state: S,
    hash: u64,
    /// The next entry with the same hash.
    next: Option<usize>,
    armed: Option<Timestamp>,
}

impl<S> Default for Keys<S> {
    fn default() -> Self {
        Self {
            places: FxHashMap::default(),
            entries: Vec::new(),
            free: Vec::new(),
            timers: BinaryHeap::new(),
        }
    }
}

impl<S: Default> Keys<S> {
    pub(super) fn len(&self) -> usize {
        self.entries.len() - self.free.len()
    }

    pub(super) fn find(&self, key: &[Scalar]) -> Option<usize> {
        let mut at = self.places.get(&hash(key)).copied();
        while let Some(place) = at {
            let entry = &self.entries[place];
            if *entry.key == *key {
                return Some(place);
            }
            at = entry.next;
        }
        None
    }

    pub(super) fn insert(&mut self, key: &[Scalar]) -> usize {
        let hash = hash(key);
        let place = self.free.pop().unwrap_or(self.entries.len());
        let entry = Entry {
            key: key.into(),
            state: S::default(),
            hash,
            next: self.places.insert(hash, place),
            armed: None,
        };
        if place == self.entries.len() {
            self.entries.push(entry);
        } else {
            self.entries[place] = entry;
        }
        place
    }

    pub(super) fn entry(&mut self, place: usize) -> &mut Entry<S> {
        &mut self.entries[place]
    }

    pub(super) fn remove(&mut self, place: usize) {
        let (hash, next) = (self.entries[place].hash, self.entries[place].next);
        if self.places.get(&hash) == Some(&place) {
            match next {
                Some(next) => self.places.insert(hash, next),
                None => self.places.remove(&hash),
            };
        } else {
            let mut at = self.places.get(&hash).copied();
            while let Some(before) = at {
                at = self.entries[before].next;
                if at == Some(place) {
                    self.entries[before].next = next;
                    break;
                }
            }
        }
        let entry = &mut self.entries[place];
        entry.state = S::default();
        entry.armed = None;
        self.free.push(place);
    }

    /// Makes sure that a timer falls due at `deadline` or before.
    pub(super) fn arm(&mut self, place: usize, deadline: Timestamp) {
        let entry = &mut self.entries[place];
        if entry.armed.is_none_or(|armed| deadline < armed) {
            entry.armed = Some(deadline);
            self.timers.push(Reverse((deadline, place)));
        }
    }

    /// Takes the earliest timer that is due by `now`.
    pub(super) fn due(&mut self, now: Timestamp) -> Option<(Timestamp, usize)> {
        while let Some(Reverse((due, place))) = self.timers.peek().copied() {
            if due > now {
                return None;
            }
            self.timers.pop();
            let entry = &mut self.entries[place];
            if entry.armed == Some(due) {
                entry.armed = None;
                return Some((due, place));
            }
        }
        None
    }
}

fn hash(key: &[Scalar]) -> u64 {
    let mut hasher = FxHasher::default();
    for value in key {
        value.hash(&mut hasher);
    }
    hasher.finish()
}
