//! The store: a cache of a partition's changelog on disk, so that a restart reads a tail and not
//! the whole topic. It may lag behind Kafka and never leads it; whatever is wrong with it, it is
//! put aside and rebuilt.
//!
//! [`Stores`] opens one [`Store`] for each partition; [`memory`] and [`sled`] implement both.

#[cfg(test)]
mod conformance;
pub mod memory;
pub mod sled;

use std::sync::Arc;

#[derive(Debug, thiserror::Error)]
#[error("{doing}: {reason}")]
pub struct StoreError {
    pub doing: &'static str,
    pub reason: String,
}

impl StoreError {
    pub fn new(doing: &'static str, reason: impl ToString) -> Self {
        Self {
            doing,
            reason: reason.to_string(),
        }
    }
}

/// A change of one entry; `None` removes it.
pub type StoreChange = (Vec<u8>, Option<Arc<[u8]>>);

/// One partition's entries, and the changelog offset that they stand for.
pub trait Store: Send + Sync {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError>;

    /// Next offset of the changelog; everything below it is contained. 0 for a new store.
    fn offset(&self) -> Result<i64, StoreError>;

    /// Applies the changes and the offset together or not at all.
    fn apply(&self, changes: &[StoreChange], next_offset: i64) -> Result<(), StoreError>;

    /// Visits entries in the order of their keys, from the first after `after`, until `visit`
    /// returns false.
    fn scan(
        &self,
        after: Option<&[u8]>,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StoreError>;

    /// Removes everything.
    fn clear(&self) -> Result<(), StoreError>;
}

/// Opens the stores of an instance.
pub trait Stores: Send + Sync {
    /// The partition's store, empty where there is none. `cluster` tells clusters apart.
    fn open(&self, cluster: &str, partition: i32) -> Result<Arc<dyn Store>, StoreError>;
}
