//! [`Hopping`] windows of many keys, fired together as the watermark moves.

use std::hash::Hash;

use rustc_hash::FxHashMap;

use super::hopping::{Hopping, HoppingSpec};
use super::{Arrival, Fired};
use crate::pattern::aggregate::{Sample, Summary};

/// Emptied keys whose allocations are kept for the next ones.
const MAX_SPARE: usize = 1_024;

/// Hopping windows of up to `max_keys` keys. A key is held while it has panes: 136 bytes and its
/// panes, and twice the key's own size with 17 bytes for the index. Windows fire by ascending end;
/// within one end the order of keys is not defined.
#[derive(Clone, Debug)]
pub struct KeyedHopping<K> {
    spec: HoppingSpec,
    max_keys: usize,
    places: FxHashMap<K, u32>,
    keys: Vec<Keyed<K>>,
    spare: Vec<Hopping>,
    watermark: i64,
    /// The least of what is due of any key; `i64::MAX` without keys.
    next_due: i64,
}

#[derive(Clone, Debug)]
struct Keyed<K> {
    key: K,
    /// What [`Hopping::next_due`] says.
    due: i64,
    state: Hopping,
}

impl<K: Clone + Eq + Hash> KeyedHopping<K> {
    /// Without keys, before all time. `max_keys` is from 1 to 2³² − 1.
    pub fn new(spec: HoppingSpec, max_keys: u32) -> KeyedHopping<K> {
        KeyedHopping {
            spec,
            max_keys: max_keys.max(1) as usize,
            places: FxHashMap::default(),
            keys: Vec::new(),
            spare: Vec::new(),
            watermark: i64::MIN,
            next_due: i64::MAX,
        }
    }

    /// Takes in an event at `at` (epoch ms); windows that it fires again are handed to `emit`.
    /// [`Arrival::Overflow`] where it would be one key too many.
    pub fn insert(
        &mut self,
        key: &K,
        at: i64,
        sample: Sample,
        emit: &mut impl FnMut(&K, Fired, &Summary),
    ) -> Arrival {
        let place = match self.places.get(key) {
            Some(place) => *place as usize,
            None if self.keys.len() >= self.max_keys => return Arrival::Overflow,
            None => self.open(key),
        };
        let state = &mut self.keys[place].state;
        if state.add_to_newest(&self.spec, at, sample, self.watermark) {
            return Arrival::OnTime;
        }
        let mut emit = |fired: Fired, summary: &Summary| emit(key, fired, summary);
        let arrival = state.insert(&self.spec, at, sample, self.watermark, &mut emit);
        self.note_due(place);
        arrival
    }

    /// Notes when a key that has changed is due, or that it is empty.
    fn note_due(&mut self, place: usize) {
        let held = &mut self.keys[place];
        if let Some(due) = held.state.next_due(&self.spec) {
            held.due = due;
            self.next_due = self.next_due.min(due);
        } else {
            self.close(place);
        }
    }

    fn open(&mut self, key: &K) -> usize {
        let place = self.keys.len();
        let state = self.spare.pop().unwrap_or_else(|| Hopping::new(&self.spec));
        self.keys.push(Keyed {
            key: key.clone(),
            due: i64::MAX,
            state,
        });
        self.places.insert(key.clone(), place as u32);
        place
    }

    fn close(&mut self, place: usize) {
        let Keyed { key, state, .. } = self.keys.swap_remove(place);
        self.places.remove(&key);
        if let Some(Keyed { key: moved, .. }) = self.keys.get(place)
            && let Some(found) = self.places.get_mut(moved)
        {
            *found = place as u32;
        }
        if self.spare.len() < MAX_SPARE {
            self.spare.push(state);
        }
    }

    /// Moves the watermark on (backwards it never moves) and hands every window that ends at or
    /// before it to `emit`.
    #[inline]
    pub fn advance(&mut self, watermark: i64, emit: &mut impl FnMut(&K, Fired, &Summary)) {
        while self.next_due <= watermark && !self.keys.is_empty() {
            let due = self.next_due;
            self.watermark = self.watermark.max(due);
            self.fire_due(due, emit);
        }
        self.watermark = self.watermark.max(watermark);
    }

    fn fire_due(&mut self, due: i64, emit: &mut impl FnMut(&K, Fired, &Summary)) {
        let mut next = i64::MAX;
        let mut place = 0;
        while let Some(held) = self.keys.get_mut(place) {
            if held.due == due {
                let key = &held.key;
                let mut emit = |fired: Fired, summary: &Summary| emit(key, fired, summary);
                held.state.fire_next(&self.spec, &mut emit);
                let Some(due) = held.state.next_due(&self.spec) else {
                    self.close(place);
                    continue;
                };
                held.due = due;
            }
            next = next.min(held.due);
            place += 1;
        }
        self.next_due = next;
    }

    /// The watermark so far; `i64::MIN` before the first.
    pub fn watermark(&self) -> i64 {
        self.watermark
    }

    /// When the watermark next fires or frees something; `None` while there are no keys.
    pub fn next_due(&self) -> Option<i64> {
        (self.next_due < i64::MAX).then_some(self.next_due)
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
    pub fn state(&self, key: &K) -> Option<&Hopping> {
        self.places
            .get(key)
            .map(|place| &self.keys[*place as usize].state)
    }

    /// Puts a stored state in its place; before the watermark is moved.
    pub fn restore(&mut self, key: &K, state: Hopping) {
        let place = match self.places.get(key) {
            Some(place) => *place as usize,
            None => self.open(key),
        };
        self.keys[place].state = state;
        self.note_due(place);
    }
}
