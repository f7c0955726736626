//! Stores that live as long as the process.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{Store, StoreChange, StoreError, Stores};

/// Entries that a scan takes out at one time.
const SCANNED_AT_ONCE: usize = 256;

/// One partition's entries in memory.
#[derive(Debug, Default)]
pub struct MemoryStore(Mutex<Content>);

#[derive(Debug, Default)]
struct Content {
    entries: BTreeMap<Vec<u8>, Arc<[u8]>>,
    offset: i64,
}

impl MemoryStore {
    fn lock(&self) -> MutexGuard<'_, Content> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next entries after a key. Whoever looks at them may ask the store meanwhile.
    fn some_after(&self, after: Option<&[u8]>) -> Vec<(Vec<u8>, Arc<[u8]>)> {
        let start = after.map_or(Bound::Unbounded, Bound::Excluded);
        let content = self.lock();
        let entries = content.entries.range::<[u8], _>((start, Bound::Unbounded));
        let some = entries.take(SCANNED_AT_ONCE);
        some.map(|(key, value)| (key.clone(), Arc::clone(value)))
            .collect()
    }
}

impl Store for MemoryStore {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.lock().entries.get(key).map(|value| value.to_vec()))
    }

    fn offset(&self) -> Result<i64, StoreError> {
        Ok(self.lock().offset)
    }

    fn apply(&self, changes: &[StoreChange], next_offset: i64) -> Result<(), StoreError> {
        let mut content = self.lock();
        for (key, value) in changes {
            match value {
                Some(value) => content.entries.insert(key.clone(), Arc::clone(value)),
                None => content.entries.remove(key),
            };
        }
        content.offset = next_offset;
        Ok(())
    }

    fn scan(
        &self,
        after: Option<&[u8]>,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StoreError> {
        let mut after = after.map(<[u8]>::to_vec);
        loop {
            let some = self.some_after(after.as_deref());
            let Some((last, _)) = some.last() else {
                return Ok(());
            };
            after = Some(last.clone());
            if !some.iter().all(|(key, value)| visit(key, value)) {
                return Ok(());
            }
        }
    }

    fn clear(&self) -> Result<(), StoreError> {
        *self.lock() = Content::default();
        Ok(())
    }
}

/// Stores in memory, kept when a partition goes and comes back.
#[derive(Debug, Default)]
pub struct MemoryStores(Mutex<HashMap<(String, i32), Arc<MemoryStore>>>);

impl MemoryStores {
    /// Loses everything, as a deleted data folder does.
    pub fn lose_all(&self) {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
    }
}

impl Stores for MemoryStores {
    fn open(&self, cluster: &str, partition: i32) -> Result<Arc<dyn Store>, StoreError> {
        let mut stores = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let store = stores.entry((cluster.to_owned(), partition)).or_default();
        Ok(Arc::clone(store) as Arc<dyn Store>)
    }
}
