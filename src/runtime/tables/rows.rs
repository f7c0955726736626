//! The rows of one table, and how much all tables of an instance may hold together.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustc_hash::FxBuildHasher;

use crate::model::Json;

/// What a row costs beside the bytes of its key and value, about: the places in the map and the
/// heads of the two texts.
const ROW_BYTES: usize = 96;

/// Bytes that all tables of an instance may hold together.
#[derive(Debug)]
pub(super) struct Budget {
    pub(super) most: usize,
    used: AtomicUsize,
}

impl Budget {
    pub(super) fn new(most: usize) -> Self {
        Self {
            most,
            used: AtomicUsize::new(0),
        }
    }

    /// Takes `more` where there is room for it.
    fn take(&self, more: usize) -> bool {
        let fits = |used: usize| used.checked_add(more).filter(|used| *used <= self.most);
        let order = Ordering::Relaxed;
        self.used.fetch_update(order, order, fits).is_ok()
    }

    fn give_back(&self, bytes: usize) {
        self.used.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// The tables hold as much as they may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Full;

/// See the module. Whoever drops it clears it first: the budget is not its own.
#[derive(Debug, Default)]
pub(super) struct Rows {
    values: HashMap<Box<str>, Json, FxBuildHasher>,
    bytes: usize,
}

impl Rows {
    pub(super) fn get(&self, key: &str) -> Option<&Json> {
        self.values.get(key)
    }

    pub(super) fn len(&self) -> usize {
        self.values.len()
    }

    /// About what the rows take in memory.
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// The latest value of a key; `None`: it is gone.
    ///
    /// # Errors
    /// There is no room for it; nothing was changed.
    pub(super) fn put(
        &mut self,
        key: &str,
        value: Option<Json>,
        budget: &Budget,
    ) -> Result<(), Full> {
        let size = |value: &Json| key.len() + value.len() + ROW_BYTES;
        let before = self.values.get(key).map_or(0, size);
        let after = value.as_ref().map_or(0, size);
        if after > before && !budget.take(after - before) {
            return Err(Full);
        }
        if before > after {
            budget.give_back(before - after);
        }
        self.bytes = self.bytes + after - before;
        match value {
            Some(value) => match self.values.get_mut(key) {
                Some(known) => *known = value,
                None => drop(self.values.insert(key.into(), value)),
            },
            None => drop(self.values.remove(key)),
        }
        Ok(())
    }

    /// Without any rows, and their memory given back.
    pub(super) fn clear(&mut self, budget: &Budget) {
        budget.give_back(self.bytes);
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(text: &str) -> Option<Json> {
        Some(Json::from_text(text).expect("JSON"))
    }

    #[test]
    fn the_latest_value_counts_until_a_tombstone() {
        let (mut rows, budget) = (Rows::default(), Budget::new(1_000));
        rows.put("a", json("1"), &budget).expect("room");
        rows.put("b", json("[2,3]"), &budget).expect("room");
        rows.put("a", json("{\"v\":4}"), &budget).expect("room");
        assert_eq!(rows.get("a"), json("{\"v\":4}").as_ref());
        assert_eq!(rows.len(), 2);
        assert_eq!(rows.bytes(), 2 * ROW_BYTES + (1 + 7) + (1 + 5));
        rows.put("a", None, &budget).expect("room");
        rows.put("never there", None, &budget).expect("room");
        assert_eq!((rows.get("a"), rows.len()), (None, 1));
        rows.clear(&budget);
        assert_eq!((rows.len(), rows.bytes()), (0, 0));
        assert_eq!(budget.used.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn what_finds_no_room_changes_nothing() {
        let budget = Budget::new(ROW_BYTES + 10);
        let (mut one, mut two) = (Rows::default(), Rows::default());
        one.put("a", json("123456789"), &budget)
            .expect("just enough");
        assert_eq!(two.put("b", json("1"), &budget), Err(Full), "one for all");
        assert_eq!(one.put("a", json("1234567890"), &budget), Err(Full));
        assert_eq!(one.get("a"), json("123456789").as_ref());
        one.put("a", json("1"), &budget).expect("less than before");
        one.put("a", json("123456789"), &budget).expect("as before");
        one.clear(&budget);
        two.put("b", json("1"), &budget).expect("room again");
    }
}
