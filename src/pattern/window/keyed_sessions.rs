//! [`Sessions`] of many keys, fired in the order of their ends.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::hash::Hash;

use rustc_hash::FxHashMap;

use super::session::{SessionSpec, Sessions};
use super::{Arrival, Fired};
use crate::pattern::aggregate::{Sample, Summary};

/// Sessions of up to `max_keys` keys. A key is held while it has open sessions: 40 bytes and its
/// sessions, twice the key's own size, and a timer or two of 8 bytes beside it. Sessions fire by
/// ascending end; those that end together, in the order of their keys.
#[derive(Clone, Debug)]
pub struct KeyedSessions<K> {
    spec: SessionSpec,
    max_keys: usize,
    keys: FxHashMap<K, Keyed>,
    /// At least one timer for each key, at or before it is due; others are stale and do nothing.
    timers: BinaryHeap<Reverse<(i64, K)>>,
    watermark: i64,
}

#[derive(Clone, Debug)]
struct Keyed {
    sessions: Sessions,
    /// The earliest timer set.
    timer: i64,
}

impl<K: Clone + Hash + Ord> KeyedSessions<K> {
    /// Without keys, before all time.
    pub fn new(spec: SessionSpec, max_keys: usize) -> KeyedSessions<K> {
        KeyedSessions {
            spec,
            max_keys,
            keys: FxHashMap::default(),
            timers: BinaryHeap::new(),
            watermark: i64::MIN,
        }
    }

    /// Takes in an event at `at` (epoch ms); a session that it fires again is handed to `emit`.
    /// [`Arrival::Overflow`] where it would be one key too many.
    pub fn insert(
        &mut self,
        key: &K,
        at: i64,
        sample: Sample,
        emit: &mut impl FnMut(&K, Fired, &Summary),
    ) -> Arrival {
        if !self.keys.contains_key(key) {
            if self.keys.len() >= self.max_keys {
                return Arrival::Overflow;
            }
            self.restore(key, Sessions::default());
        }
        let Some(held) = self.keys.get_mut(key) else {
            return Arrival::Overflow;
        };
        let mut emit = |fired: Fired, summary: &Summary| emit(key, fired, summary);
        let (spec, watermark) = (&self.spec, self.watermark);
        let arrival = held.sessions.insert(spec, at, sample, watermark, &mut emit);
        match held.sessions.next_due(spec) {
            None => drop(self.keys.remove(key)),
            // An end that moved on is found when the timer of the old one comes.
            Some(due) if due < held.timer => {
                held.timer = due;
                self.timers.push(Reverse((due, key.clone())));
            }
            Some(_) => {}
        }
        arrival
    }

    /// Moves the watermark on (backwards it never moves) and hands every session that ends at or
    /// before it to `emit`.
    #[inline]
    pub fn advance(&mut self, watermark: i64, emit: &mut impl FnMut(&K, Fired, &Summary)) {
        while self
            .timers
            .peek()
            .is_some_and(|Reverse((at, _))| *at <= watermark)
        {
            let Some(Reverse((at, key))) = self.timers.pop() else {
                return;
            };
            self.watermark = self.watermark.max(at);
            self.ring(at, key, emit);
        }
        self.watermark = self.watermark.max(watermark);
    }

    fn ring(&mut self, at: i64, key: K, emit: &mut impl FnMut(&K, Fired, &Summary)) {
        let Some(held) = self.keys.get_mut(&key).filter(|held| held.timer == at) else {
            return;
        };
        if held.sessions.next_due(&self.spec) == Some(at) {
            let mut emit = |fired: Fired, summary: &Summary| emit(&key, fired, summary);
            held.sessions.fire_next(&self.spec, &mut emit);
        }
        match held.sessions.next_due(&self.spec) {
            None => drop(self.keys.remove(&key)),
            Some(due) => {
                held.timer = due;
                self.timers.push(Reverse((due, key)));
            }
        }
    }

    /// The watermark so far; `i64::MIN` before the first.
    pub fn watermark(&self) -> i64 {
        self.watermark
    }

    /// At or before the next time that the watermark fires or frees something; `None` while there
    /// are no keys.
    pub fn next_due(&self) -> Option<i64> {
        self.timers.peek().map(|Reverse((at, _))| *at)
    }

    /// How many keys are held.
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether no key is held.
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The state of a key, to store; `None` where it holds nothing, and a stored one is obsolete.
    pub fn state(&self, key: &K) -> Option<&Sessions> {
        self.keys.get(key).map(|held| &held.sessions)
    }

    /// Puts a stored state in its place; before the watermark is moved.
    pub fn restore(&mut self, key: &K, sessions: Sessions) {
        let due = sessions.next_due(&self.spec);
        let timer = due.unwrap_or(i64::MAX);
        if due.is_some() {
            self.timers.push(Reverse((timer, key.clone())));
        }
        self.keys.insert(key.clone(), Keyed { sessions, timer });
    }
}
