//! One owned partition: its cache, its store, and what the store has not seen yet.
//!
//! The worker that owns it changes it after commits and while restoring; the write-behind takes
//! what is new to the store; API threads read. Locks are held for moments, and never two at once.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use rustc_hash::FxHashMap;

use super::cache::Cache;
use crate::codec::keys::EntryKey;
use crate::codec::state::{self, EntryFacts};
use crate::codec::{CodecError, parked};
use crate::engine::{Parked, ParkedKey, StateView};
use crate::model::{Json, RunId, RunState};
use crate::store::{Store, StoreError};

/// Version byte of a large value's entry.
const VALUE_VERSION: u8 = 1;

/// One change of a partition's content, committed to the changelog.
#[derive(Clone, Debug)]
pub enum Change {
    Run {
        id: RunId,
        entry: Arc<[u8]>,
        facts: EntryFacts,
    },
    Value {
        run: RunId,
        slot: u32,
        value: Json,
    },
    Parked {
        key: ParkedKey,
        parked: Box<Parked>,
    },
    Gone(EntryKey),
}

impl Change {
    pub fn key(&self) -> EntryKey {
        match self {
            Change::Run { id, .. } => EntryKey::Run(id.clone()),
            Change::Value { run, slot, .. } => EntryKey::Value(run.clone(), *slot),
            Change::Parked { key, .. } => EntryKey::Parked(key.clone()),
            Change::Gone(key) => key.clone(),
        }
    }

    /// The entry's bytes; `None`: a tombstone.
    pub fn value(&self) -> Option<Arc<[u8]>> {
        match self {
            Change::Run { entry, .. } => Some(Arc::clone(entry)),
            Change::Value { value, .. } => Some(encode_value(value)),
            Change::Parked { parked, .. } => Some(parked::encode(parked).into()),
            Change::Gone(_) => None,
        }
    }

    /// Reads a record of the changelog.
    pub fn decode(key: &[u8], value: Option<&[u8]>) -> Result<Change, CodecError> {
        let unknown = CodecError::Malformed {
            what: "an unknown kind of key",
            at: 0,
        };
        let key = EntryKey::parse(key).ok_or(unknown)?;
        let Some(value) = value else {
            return Ok(Change::Gone(key));
        };
        Ok(match key {
            EntryKey::Run(id) => Change::Run {
                facts: state::facts(&id, value)?,
                id,
                entry: value.into(),
            },
            EntryKey::Value(run, slot) => Change::Value {
                run,
                slot,
                value: decode_value(value)?,
            },
            EntryKey::Parked(key) => Change::Parked {
                key,
                parked: Box::new(parked::decode(value)?),
            },
        })
    }
}

fn encode_value(value: &Json) -> Arc<[u8]> {
    let mut bytes = Vec::with_capacity(1 + value.len());
    bytes.push(VALUE_VERSION);
    bytes.extend_from_slice(value.as_str().as_bytes());
    bytes.into()
}

fn decode_value(bytes: &[u8]) -> Result<Json, CodecError> {
    match bytes {
        [] => Err(CodecError::TooShort { at: 0 }),
        [VALUE_VERSION, text @ ..] => {
            let malformed = CodecError::Malformed {
                what: "a text that is not JSON",
                at: 1,
            };
            let text = std::str::from_utf8(text).map_err(|_| malformed.clone())?;
            Json::from_text(text).map_err(|_| malformed)
        }
        [found, ..] => Err(CodecError::TooNew {
            found: *found,
            known: VALUE_VERSION,
        }),
    }
}

/// Entries that the store has not seen.
#[derive(Default)]
struct Unwritten {
    entries: FxHashMap<EntryKey, Unseen>,
    /// Next changelog offset once they are written.
    offset: i64,
}

struct Unseen {
    value: Option<Arc<[u8]>>,
    /// The store has no earlier value of the key.
    is_new: bool,
}

/// See the module.
pub struct Partition {
    pub number: i32,
    store: Arc<dyn Store>,
    cache: RwLock<Cache>,
    unwritten: Mutex<Unwritten>,
    /// One write to the store at a time.
    writing: Mutex<()>,
    restored: AtomicBool,
    /// Set when its store failed, or something panicked over it: the store is not written any more, and the
    /// partition is to be opened anew.
    abandoned: AtomicBool,
    lag: AtomicU64,
    changelog_offset: AtomicI64,
}

impl Partition {
    /// Reads what the store has: live runs into the cache, ended ones stay where they are.
    pub fn open(
        number: i32,
        store: Arc<dyn Store>,
        cache_bytes: usize,
    ) -> Result<Self, StoreError> {
        let offset = store.offset()?;
        let mut cache = Cache::default();
        let mut broken = None;
        store.scan(
            None,
            &mut |key, value| match Change::decode(key, Some(value)) {
                Ok(change) => {
                    load(&mut cache, change, cache_bytes);
                    true
                }
                Err(error) => {
                    broken = Some(error);
                    false
                }
            },
        )?;
        if let Some(error) = broken {
            return Err(StoreError::new("reading the store", error));
        }
        Ok(Self::with(number, store, cache, offset))
    }

    /// Empties the store and begins with nothing.
    pub fn rebuild(number: i32, store: Arc<dyn Store>) -> Result<Self, StoreError> {
        store.clear()?;
        Ok(Self::with(number, store, Cache::default(), 0))
    }

    fn with(number: i32, store: Arc<dyn Store>, cache: Cache, offset: i64) -> Self {
        Self {
            number,
            store,
            cache: RwLock::new(cache),
            unwritten: Mutex::new(Unwritten {
                entries: FxHashMap::default(),
                offset,
            }),
            writing: Mutex::new(()),
            restored: AtomicBool::new(false),
            abandoned: AtomicBool::new(false),
            lag: AtomicU64::new(0),
            changelog_offset: AtomicI64::new(offset),
        }
    }

    pub fn cache(&self) -> RwLockReadGuard<'_, Cache> {
        self.cache.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn cache_mut(&self) -> RwLockWriteGuard<'_, Cache> {
        self.cache.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn unwritten(&self) -> MutexGuard<'_, Unwritten> {
        self.unwritten
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    pub fn store(&self) -> &dyn Store {
        self.store.as_ref()
    }

    pub fn is_restored(&self) -> bool {
        self.restored.load(Ordering::Acquire)
    }

    pub fn set_restored(&self, restored: bool) {
        self.restored.store(restored, Ordering::Release);
    }

    pub fn lag(&self) -> u64 {
        self.lag.load(Ordering::Relaxed)
    }

    pub fn set_lag(&self, lag: u64) {
        self.lag.store(lag, Ordering::Relaxed);
    }

    /// Everything of the changelog below it is in the cache or in the store.
    pub fn changelog_offset(&self) -> i64 {
        self.changelog_offset.load(Ordering::Acquire)
    }

    /// Takes over changes that are committed. Only its owner calls this, in the order of the
    /// changelog.
    pub fn fold(&self, changes: Vec<Change>, next_offset: i64) {
        let mut entries = Vec::with_capacity(changes.len());
        {
            let mut cache = self.cache_mut();
            for change in changes {
                let is_new = is_new(&cache, &change);
                entries.push((
                    change.key(),
                    Unseen {
                        value: change.value(),
                        is_new,
                    },
                ));
                apply(&mut cache, change);
            }
        }
        let mut unwritten = self.unwritten();
        for (key, unseen) in entries {
            merge(&mut unwritten.entries, key, unseen);
        }
        unwritten.offset = unwritten.offset.max(next_offset);
        self.changelog_offset
            .fetch_max(next_offset, Ordering::AcqRel);
    }

    /// Writes what the store has not seen, with its offset, in one batch; how many entries it had.
    /// A store that fails costs the partition: the store is a cache, and what was to be written is in the
    /// changelog.
    pub fn write_behind(&self) -> Result<usize, StoreError> {
        let _one_at_a_time = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        if self.is_abandoned() {
            return Ok(0);
        }
        let (entries, offset) = {
            let mut unwritten = self.unwritten();
            (std::mem::take(&mut unwritten.entries), unwritten.offset)
        };
        // The store may be ahead of one that was given up: its successor writes it.
        if entries.is_empty() {
            let stored = self.store.offset();
            if offset <= stored.inspect_err(|_| self.note_abandoned())? {
                return Ok(0);
            }
        }
        let changes: Vec<_> = entries
            .iter()
            .map(|(key, unseen)| (key.to_bytes(), unseen.value.clone()))
            .collect();
        if let Err(error) = self.store.apply(&changes, offset) {
            self.note_abandoned();
            return Err(error);
        }
        let mut cache = self.cache_mut();
        for (key, unseen) in &entries {
            if let (EntryKey::Run(id), Some(entry)) = (key, &unseen.value) {
                cache.note_stored(id, entry);
            }
        }
        Ok(changes.len())
    }

    /// Its successor takes its place: from here on the store is not written, so that whoever opens it next
    /// finds it as it was, and whoever empties it finds it empty.
    pub fn abandon(&self) {
        let _after_the_last_write = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        self.note_abandoned();
    }

    fn note_abandoned(&self) {
        self.abandoned.store(true, Ordering::Release);
        self.set_restored(false);
    }

    pub fn is_abandoned(&self) -> bool {
        self.abandoned.load(Ordering::Acquire)
    }

    /// Looks at all runs once; one that has not moved since the last time is in the store alone from then on.
    /// Lets others to the cache in between.
    pub fn rest(&self) {
        let mut next = Some(0);
        while let Some(first) = next {
            next = self.cache_mut().rest(first);
        }
    }

    /// The run as committed, from the cache, else from the store.
    pub fn run(&self, id: &RunId) -> Result<Option<RunState>, StoreError> {
        let (cached, has_evicted) = {
            let cache = self.cache();
            (cache.entry(id), cache.has_evicted())
        };
        let entry = match cached {
            Some(Some(entry)) => entry,
            Some(None) => match self.stored(&EntryKey::Run(id.clone()))? {
                Some(entry) => entry.into(),
                None => return Err(StoreError::new("reading a run", "the store has lost it")),
            },
            None if has_evicted => match self.stored(&EntryKey::Run(id.clone()))? {
                Some(entry) => entry.into(),
                None => return Ok(None),
            },
            None => return Ok(None),
        };
        self.decode(id, &entry).map(Some)
    }

    pub fn decode(&self, id: &RunId, entry: &[u8]) -> Result<RunState, StoreError> {
        let large = |slot| self.value(id, slot);
        state::decode(id, entry, &large).map_err(|error| StoreError::new("reading a run", error))
    }

    fn stored(&self, key: &EntryKey) -> Result<Option<Vec<u8>>, StoreError> {
        self.store.get(&key.to_bytes())
    }

    /// A value that is too large for its run's entry.
    pub fn value(&self, run: &RunId, slot: u32) -> Option<Json> {
        if let Some(value) = self.cache().value(run, slot) {
            return Some(value);
        }
        // Evicted together with its run, or never loaded; until it is written it is not evicted.
        let bytes = self.stored(&EntryKey::Value(run.clone(), slot)).ok()??;
        decode_value(&bytes).ok()
    }
}

/// Whether the store cannot have an earlier value of the key.
fn is_new(cache: &Cache, change: &Change) -> bool {
    match change {
        Change::Run { id, .. } => !cache.has_evicted() && cache.status(id).is_none(),
        Change::Parked { key, .. } => !cache.has_parked(key),
        Change::Value { .. } | Change::Gone(_) => false,
    }
}

/// The later value wins; what was born and died since the last write is forgotten.
fn merge(entries: &mut FxHashMap<EntryKey, Unseen>, key: EntryKey, mut unseen: Unseen) {
    if let Some(before) = entries.get(&key) {
        unseen.is_new = before.is_new;
        if unseen.is_new && unseen.value.is_none() {
            entries.remove(&key);
            return;
        }
    }
    entries.insert(key, unseen);
}

fn apply(cache: &mut Cache, change: Change) {
    match change {
        Change::Run { id, entry, facts } => {
            cache.index_tags(&id, &entry, facts.status);
            cache.put_run(&id, Some(entry), facts, false);
        }
        Change::Value { run, slot, value } => cache.put_value(&run, slot, value),
        Change::Parked { key, parked } => cache.put_parked(key, Some(*parked)),
        Change::Gone(EntryKey::Run(id)) => cache.remove_run(&id),
        Change::Gone(EntryKey::Value(run, slot)) => cache.remove_value(&run, slot),
        Change::Gone(EntryKey::Parked(key)) => cache.put_parked(key, None),
    }
}

/// Takes an entry of the store into the cache, as far as it belongs there.
fn load(cache: &mut Cache, change: Change, cache_bytes: usize) {
    match change {
        Change::Run { facts, .. } if facts.status.is_ended() => cache.note_evicted(),
        Change::Run { id, entry, facts } => {
            let fits = cache.bytes() < cache_bytes;
            cache.index_tags(&id, &entry, facts.status);
            cache.put_run(&id, fits.then_some(entry), facts, true);
        }
        // Read when they are needed.
        Change::Value { .. } => {}
        other => apply(cache, other),
    }
}

/// Committed state as the engine reads it. The store's errors leave no way on but to stop the
/// partition, so they are kept for the worker to find.
pub struct View<'a> {
    partition: &'a Partition,
    failure: Mutex<Option<StoreError>>,
}

impl<'a> View<'a> {
    pub fn new(partition: &'a Partition) -> Self {
        Self {
            partition,
            failure: Mutex::new(None),
        }
    }

    /// The store's first error; what the engine made of the batch is void then.
    pub fn into_failure(self) -> Option<StoreError> {
        self.failure
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl StateView for View<'_> {
    fn run(&self, id: &RunId) -> Option<RunState> {
        match self.partition.run(id) {
            Ok(run) => run,
            Err(error) => {
                self.failure
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .get_or_insert(error);
                None
            }
        }
    }

    fn parked(&self, run: &RunId) -> Vec<(ParkedKey, Parked)> {
        self.partition.cache().parked(run)
    }

    fn live_runs(&self) -> usize {
        self.partition.cache().live()
    }

    fn pending(&self, limit: usize) -> Vec<RunId> {
        self.partition.cache().pending(limit)
    }

    fn tagged(
        &self,
        tags: &BTreeMap<String, String>,
        after: Option<&RunId>,
        limit: usize,
    ) -> Vec<RunId> {
        self.partition.cache().tagged(tags, after, limit)
    }
}
