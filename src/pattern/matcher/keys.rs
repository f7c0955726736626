//! State by correlation key, and one timer for each. A key is an island: all that a matcher knows of
//! it lies in its entry, so it can be saved and put back without the others.

use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};
use std::hint::black_box;
use std::sync::Arc;

use rustc_hash::{FxHashMap, FxHasher};
use serde::{Deserialize, Serialize};

use super::depths::Depths;
use super::suppress::Suppress;
use super::timers::Timers;
use crate::model::{Json, Millis, Timestamp};
use crate::pattern::event::{Event, Scalar};
use crate::pattern::output::Key;

/// When something of a key is to be done: at a time, deadlines (0) before events that wait (the
/// number of their arrival, from 1).
pub(super) type Due = (Timestamp, u64);

/// For an entry whose timer is not armed: after all that may be due.
const NOT_ARMED: Due = (Timestamp(i64::MAX), u64::MAX);

/// For a key without an event.
const NEVER: Timestamp = Timestamp(i64::MIN);

/// For a key with which any event may begin something.
pub(super) const ALWAYS: Timestamp = Timestamp(i64::MAX);

/// Timers that are armed before it is looked how many of them are stale.
const MANY_ARMED: usize = 1_024;

/// In place of an entry where none follows.
const NONE: u32 = u32::MAX;

/// Whole numbers below it are told apart by their doubles, and from all that are not below it.
const EXACT: f64 = 9_007_199_254_740_992.0;

#[derive(Debug)]
pub(super) struct Keys<S> {
    /// By name the first entry that has it; in few bytes, so that it stays in the cache where the entries do
    /// not.
    places: FxHashMap<u32, u32>,
    entries: Vec<Entry<S>>,
    free: Vec<u32>,
    /// Those that an entry does not know any more are passed over.
    timers: Timers,
    /// Armed since the timers were last looked through.
    armed: usize,
    /// Keys that changed, where somebody asks.
    changed: Option<Vec<Key>>,
}

/// There are many, and memory is what they wait for: what is not there is a value that cannot be, since an
/// option would take a word more.
#[derive(Debug)]
pub(super) struct Entry<S> {
    pub(super) key: Key,
    pub(super) island: Island<S>,
    name: Name,
    /// The next entry whose name is as short.
    next: u32,
    armed: Due,
    touched: Timestamp,
    /// Event time up to which an event may begin something.
    pub(super) begins_until: Timestamp,
    /// Where its events came about over rules; only of shapes whose matches do not hold them.
    pub(super) depths: Option<Box<Depths>>,
    /// Its part of the partial matches of all keys.
    pub(super) partials: u32,
    is_changed: bool,
}

/// What a key is found by. A number is its own name, so that no other place in memory is to be looked at
/// to know that an entry is the one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Name {
    /// The key is a number, of these bits.
    Number(u64),
    /// Any other key.
    Hash(u64),
}

impl Name {
    #[inline]
    fn of(key: &[Scalar]) -> Name {
        match key {
            [Scalar::Int(value)] if (*value as f64).abs() < EXACT => {
                Name::Number((*value as f64).to_bits())
            }
            // Zero has one sign.
            [Scalar::Float(value)] if value.abs() < EXACT => Name::Number((value + 0.0).to_bits()),
            _ => {
                let mut hasher = FxHasher::default();
                for value in key {
                    value.hash(&mut hasher);
                }
                Name::Hash(hasher.finish())
            }
        }
    }

    /// The place in the map: few keys share one.
    #[inline]
    fn short(self) -> u32 {
        let hash = match self {
            Name::Hash(hash) => hash,
            Name::Number(bits) => {
                let mut hasher = FxHasher::default();
                hasher.write_u64(bits);
                hasher.finish()
            }
        };
        (hash ^ (hash >> 32)) as u32
    }
}

impl<S> Entry<S> {
    #[inline]
    fn is(&self, name: Name, key: &[Scalar]) -> bool {
        self.name == name && (matches!(name, Name::Number(_)) || *self.key == *key)
    }

    /// An event at `at` comes, which may begin something, or else may only go on with what began
    /// before.
    pub(super) fn note_beginning(&mut self, at: Timestamp, begins: bool) {
        if begins {
            if self.begins_until != ALWAYS {
                self.begins_until = self.begins_until.max(at);
            }
        } else if self.begins_until == ALWAYS {
            let held = self.island.aside.as_ref();
            let held = held.and_then(|aside| aside.held.keys().next_back());
            let latest = self.touched().max(held.map(|(at, _)| *at));
            // What an earlier program saved does not tell.
            self.begins_until = latest.unwrap_or(at - Millis(1));
        }
    }

    /// Reads a bit of all that lies in place.
    #[inline]
    fn look(&self) -> u64 {
        let ends = self.armed.1 ^ self.island.applied ^ u64::from(self.partials);
        ends ^ (self.touched.0 ^ self.begins_until.0) as u64
    }

    /// Whether more is kept of it than what detectors have learned.
    pub(super) fn waits(&self) -> bool {
        self.partials > 0 || self.island.aside.is_some()
    }

    /// Events that wait for their turn.
    pub(super) fn held(&self) -> usize {
        let aside = self.island.aside.as_ref();
        aside.map_or(0, |aside| aside.held.len())
    }

    /// An event at `at` was applied.
    pub(super) fn touch(&mut self, at: Timestamp) {
        self.touched = self.touched.max(at);
    }

    /// The time of its latest event; `None`: it has had none since it was dropped.
    pub(super) fn touched(&self) -> Option<Timestamp> {
        (self.touched != NEVER).then_some(self.touched)
    }

    pub(super) fn set_touched(&mut self, at: Option<Timestamp>) {
        self.touched = at.unwrap_or(NEVER);
    }
}

/// All that is known of one key.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Island<S> {
    /// Events that were applied: the number of the next.
    pub(super) applied: u64,
    pub(super) state: S,
    /// What few keys have.
    pub(super) aside: Option<Box<Aside>>,
}

/// What few keys have: events that wait for those before them, and matches held back.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Aside {
    /// By event time and arrival.
    pub(super) held: BTreeMap<Due, Held>,
    pub(super) suppress: Suppress,
}

impl Aside {
    pub(super) fn is_idle(&self) -> bool {
        self.held.is_empty() && self.suppress.is_idle()
    }
}

/// An event that waits for its turn.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Held {
    topic: u16,
    position: u64,
    slots: Box<[Scalar]>,
    payload: Json,
    /// A bit for each condition that it meets by itself.
    pub(super) met: u64,
}

impl Held {
    pub(super) fn new(event: &Event<'_>, met: u64) -> Self {
        Self {
            topic: event.topic,
            position: event.position,
            slots: event.slots.into(),
            payload: event.payload.clone(),
            met,
        }
    }

    pub(super) fn event(&self, at: Timestamp) -> Event<'_> {
        Event {
            topic: self.topic,
            at,
            position: self.position,
            slots: &self.slots,
            payload: &self.payload,
        }
    }
}

impl<S> Default for Keys<S> {
    fn default() -> Self {
        Self {
            places: FxHashMap::default(),
            entries: Vec::new(),
            free: Vec::new(),
            timers: Timers::default(),
            armed: 0,
            changed: None,
        }
    }
}

impl<S: Default> Keys<S> {
    pub(super) fn len(&self) -> usize {
        self.entries.len() - self.free.len()
    }

    pub(super) fn find(&self, key: &[Scalar]) -> Option<usize> {
        let name = Name::of(key);
        let mut at = self.places.get(&name.short()).copied().unwrap_or(NONE);
        while let Some(entry) = self.entries.get(at as usize) {
            if entry.is(name, key) {
                return Some(at as usize);
            }
            at = entry.next;
        }
        None
    }

    pub(super) fn insert(&mut self, key: &[Scalar]) -> usize {
        let name = Name::of(key);
        let place = self.free.pop().unwrap_or(self.entries.len() as u32);
        let next = self.places.insert(name.short(), place).unwrap_or(NONE);
        match self.entries.get_mut(place as usize) {
            // The rest is as it was left by the one before.
            Some(entry) => {
                match Arc::get_mut(&mut entry.key) {
                    Some(ours) if ours.len() == key.len() => ours.clone_from_slice(key),
                    _ => entry.key = key.into(),
                }
                entry.name = name;
                entry.next = next;
            }
            None => self.entries.push(Entry {
                key: key.into(),
                island: Island::default(),
                name,
                next,
                armed: NOT_ARMED,
                touched: NEVER,
                begins_until: ALWAYS,
                depths: None,
                partials: 0,
                is_changed: false,
            }),
        }
        place as usize
    }

    pub(super) fn entry(&mut self, place: usize) -> &mut Entry<S> {
        &mut self.entries[place]
    }

    pub(super) fn entry_at(&self, place: usize) -> &Entry<S> {
        &self.entries[place]
    }

    /// Its state has been cleared.
    pub(super) fn remove(&mut self, place: usize) {
        let entry = &mut self.entries[place];
        entry.island.applied = 0;
        entry.island.aside = None;
        entry.armed = NOT_ARMED;
        entry.touched = NEVER;
        entry.begins_until = ALWAYS;
        entry.depths = None;
        entry.partials = 0;
        entry.is_changed = false;
        let (short, next, place) = (entry.name.short(), entry.next, place as u32);
        self.free.push(place);
        if self.places.get(&short) == Some(&place) {
            match next {
                NONE => self.places.remove(&short),
                next => self.places.insert(short, next),
            };
            return;
        }
        let mut at = self.places.get(&short).copied().unwrap_or(NONE);
        while let Some(before) = self.entries.get_mut(at as usize) {
            at = before.next;
            if at == place {
                before.next = next;
                break;
            }
        }
    }

    /// Makes sure that a timer falls due at `due` or before.
    pub(super) fn arm(&mut self, place: usize, due: Due) {
        let entry = &mut self.entries[place];
        if due < entry.armed {
            entry.armed = due;
            self.timers.push(due, place as u32);
            self.armed += 1;
            if self.armed > MANY_ARMED.max(self.entries.len()) {
                self.drop_stale();
            }
        }
    }

    /// A key that went leaves its timer behind, for as long as its window would have taken. They may come to
    /// be many more than there are keys.
    #[cold]
    fn drop_stale(&mut self) {
        self.armed = 0;
        if self.timers.len() <= 2 * self.entries.len() {
            return;
        }
        self.timers.clear();
        for (place, entry) in self.entries.iter().enumerate() {
            if entry.armed != NOT_ARMED {
                self.timers.push(entry.armed, place as u32);
            }
        }
    }

    /// Takes the earliest timer that is due by `now`.
    pub(super) fn due(&mut self, now: Timestamp) -> Option<(Due, usize)> {
        while let Some((due, place)) = self.timers.pop(now) {
            let entry = &mut self.entries[place as usize];
            if entry.armed == due {
                entry.armed = NOT_ARMED;
                return Some((due, place as usize));
            }
        }
        None
    }

    /// Of many keys whose time has come at once, looks at those that are next: at what lies in their entries,
    /// and then at what lies elsewhere, for which it has to be known where.
    #[inline]
    pub(super) fn look_ahead(&mut self, near: impl Fn(&S) -> u64, far: impl Fn(&S) -> u64) {
        let Some(few) = self.timers.crowd() else {
            return;
        };
        let mut seen = 0;
        for (_, place) in few {
            let entry = &self.entries[*place as usize];
            seen ^= entry.look() ^ near(&entry.island.state);
        }
        for (_, place) in few {
            seen ^= far(&self.entries[*place as usize].island.state);
        }
        black_box(seen);
    }

    /// Whether some entry waits.
    pub(super) fn is_waiting(&self) -> bool {
        self.entries.iter().any(Entry::waits)
    }

    /// The time of the earliest timer. It may be one that nothing waits for any more.
    pub(super) fn next_due(&self) -> Option<Timestamp> {
        self.timers.first()
    }

    /// From now on changes are noted down for [`Keys::take_changed`].
    pub(super) fn note_changes(&mut self) {
        self.changed.get_or_insert_default();
    }

    /// The entry at `place` changes, or is about to go.
    pub(super) fn touch(&mut self, place: usize) {
        if let Some(changed) = &mut self.changed
            && !self.entries[place].is_changed
        {
            self.entries[place].is_changed = true;
            changed.push(self.entries[place].key.clone());
        }
    }

    /// Calls `visit` for each key that changed since last asked, with what is there of it now.
    pub(super) fn take_changed(&mut self, visit: &mut dyn FnMut(&Key, Option<&Entry<S>>)) {
        let Some(changed) = self.changed.as_mut().map(std::mem::take) else {
            return;
        };
        for key in &changed {
            match self.find(key) {
                Some(place) => {
                    let entry = &mut self.entries[place];
                    // A key that went and came again is listed twice.
                    if std::mem::take(&mut entry.is_changed) {
                        visit(key, Some(&*entry));
                    }
                }
                None => visit(key, None),
            }
        }
    }
}
