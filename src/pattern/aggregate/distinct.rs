//! How many different values there are: exactly up to a bound, then by adaptive sampling.

use rustc_hash::FxHashMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The different values of a window, told apart by 64-bit identities; two values share one with a
/// chance of n²/2⁶⁵ (one in two million for 4,096 values).
///
/// Exact up to [`EXACT`](Self::EXACT). Beyond, only identities that begin with `level` zero bits
/// are kept, and each stands for 2^`level` (adaptive sampling: Wegman, analysed by Flajolet 1990;
/// over windows: Gibbons and Tirthapura 2001): the standard error is
/// [`STANDARD_ERROR`](Self::STANDARD_ERROR) of the estimate. Occurrences are counted, so values
/// and whole summaries can be taken back. 40 bytes and at most 17 for each slot of its hash table:
/// 140 KiB where it is full, nothing where it is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Distinct {
    /// Leading zero bits that an identity needs to be kept.
    level: u32,
    occurrences: FxHashMap<u64, u64>,
}

impl Distinct {
    /// Counts up to here are exact.
    pub const EXACT: usize = 4096;
    /// The standard error of a sampled count, relative: 1.2/√4096.
    pub const STANDARD_ERROR: f64 = 1.2 / 64.0;

    /// Adds a value by its identity ([`identity_of_bytes`], [`identity_of_number`]).
    pub fn add(&mut self, identity: u64) {
        if identity.leading_zeros() >= self.level {
            *self.occurrences.entry(identity).or_insert(0) += 1;
            self.raise_while_full();
        }
    }

    /// Takes back one occurrence of a value that was added.
    pub fn remove(&mut self, identity: u64) {
        self.take(identity, 1);
    }

    /// Adds all that `other` holds.
    pub fn merge(&mut self, other: &Distinct) {
        if other.level > self.level {
            self.raise_to(other.level);
        }
        for (&identity, count) in &other.occurrences {
            if identity.leading_zeros() >= self.level {
                *self.occurrences.entry(identity).or_insert(0) += count;
                self.raise_while_full();
            }
        }
    }

    /// Takes back what was merged.
    pub fn unmerge(&mut self, other: &Distinct) {
        for (&identity, &count) in &other.occurrences {
            self.take(identity, count);
        }
    }

    fn take(&mut self, identity: u64, count: u64) {
        if identity.leading_zeros() < self.level {
            return;
        }
        if let Some(found) = self.occurrences.get_mut(&identity) {
            *found = found.saturating_sub(count);
            if *found == 0 {
                self.occurrences.remove(&identity);
            }
        }
        if self.occurrences.is_empty() {
            self.level = 0;
        }
    }

    fn raise_while_full(&mut self) {
        while self.occurrences.len() > Self::EXACT {
            self.raise_to(self.level + 1);
        }
    }

    fn raise_to(&mut self, level: u32) {
        self.level = level;
        self.occurrences
            .retain(|identity, _| identity.leading_zeros() >= level);
    }

    /// The number of different values: exact while [`is_exact`](Self::is_exact), else an estimate.
    pub fn count(&self) -> u64 {
        (self.occurrences.len() as u64) << self.level
    }

    /// Empties it and keeps what it has allocated.
    pub fn clear(&mut self) {
        self.level = 0;
        self.occurrences.clear();
    }

    /// Whether nothing has been left out.
    pub fn is_exact(&self) -> bool {
        self.level == 0
    }

    /// Whether so much was taken back that a sample of `level`, which `finest` shows to be no
    /// longer needed, is too small for the stated error: the owner then merges anew what is left.
    pub fn is_too_coarse(&self, finest: u32) -> bool {
        self.level > finest && self.occurrences.len() < Self::EXACT / 4
    }

    /// Leading zero bits that an identity needs to be kept; 0 while exact.
    pub fn level(&self) -> u32 {
        self.level
    }

    /// Bytes on the heap, an upper bound.
    pub fn heap_bytes(&self) -> usize {
        // The table is at most 7/8 full and a power of two: 16 bytes a slot and one of control.
        (self.occurrences.capacity() * 8)
            .div_ceil(7)
            .next_power_of_two()
            * 17
    }
}

/// As a level and a list in the order of identities, so that equal states are equal bytes.
impl Serialize for Distinct {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list: Vec<(i64, u64)> = self
            .occurrences
            .iter()
            .map(|(identity, count)| (identity.cast_signed(), *count))
            .collect();
        list.sort_unstable();
        (self.level, list).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Distinct {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let (level, list) = <(u32, Vec<(i64, u64)>)>::deserialize(deserializer)?;
        let occurrences = list
            .into_iter()
            .map(|(identity, count)| (identity.cast_unsigned(), count))
            .collect();
        Ok(Distinct { level, occurrences })
    }
}

/// The identity of a number; 0 and −0 are one value.
pub fn identity_of_number(value: f64) -> u64 {
    mix((value + 0.0).to_bits() ^ 0x9e37_79b9_7f4a_7c15)
}

/// The identity of an integer that no double holds; `None`: it has that of the equal double.
pub fn identity_of_integer(value: i64) -> Option<u64> {
    // The largest is nearest to 2⁶³, and that cast back is the largest again.
    let is_held = value as f64 as i64 == value && value != i64::MAX;
    (!is_held).then(|| mix(value.cast_unsigned() ^ 0xd6e8_feb8_6659_fd93))
}

/// The identity of text or other bytes: words of eight bytes through [`mix`], the length last.
/// Part of the stored state: never to change.
pub fn identity_of_bytes(bytes: &[u8]) -> u64 {
    let mut hash = 0x2545_f491_4f6c_dd1d;
    for chunk in bytes.chunks(8) {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        hash = mix(hash ^ u64::from_le_bytes(word)).wrapping_add(0x9e37_79b9_7f4a_7c15);
    }
    mix(hash ^ bytes.len() as u64)
}

/// The finaliser of splitmix64 (Steele, Lea and Flood 2014): each bit in moves half of those out.
fn mix(mut word: u64) -> u64 {
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(range: std::ops::Range<u32>) -> Distinct {
        let mut distinct = Distinct::default();
        range.for_each(|value| distinct.add(identity_of_number(f64::from(value))));
        distinct
    }

    #[test]
    fn exact_up_to_the_bound_and_close_beyond() {
        assert_eq!(of(0..4096).count(), 4096);
        assert!(of(0..4096).is_exact());
        for size in [5_000, 20_000, 100_000, 400_000] {
            let found = of(0..size).count() as f64;
            let error = (found / f64::from(size) - 1.0).abs();
            assert!(error < 4.0 * Distinct::STANDARD_ERROR, "{size}: {found}");
        }
    }

    #[test]
    fn what_was_merged_can_be_taken_back() {
        let (first, second) = (of(0..30_000), of(20_000..24_000));
        let mut both = first.clone();
        both.merge(&second);
        assert_eq!(
            both.count(),
            first.count(),
            "the second is within the first"
        );
        both.unmerge(&first);
        assert!(
            both.is_too_coarse(second.level()),
            "{} at {}",
            both.count(),
            both.level()
        );
        let mut anew = Distinct::default();
        anew.merge(&second);
        assert_eq!(anew.count(), 4_000);
    }

    #[test]
    fn equal_values_have_one_identity() {
        assert_eq!(identity_of_number(0.0), identity_of_number(-0.0));
        for held in [0, -1, 1 << 53, i64::MIN, i64::MAX - 1023] {
            assert_eq!(identity_of_integer(held), None, "{held}");
        }
        let apart = [(1 << 53) + 1, i64::MIN + 1, i64::MAX - 1, i64::MAX];
        let identities: Vec<u64> = apart.into_iter().filter_map(identity_of_integer).collect();
        assert_eq!(identities.len(), 4);
        assert_eq!(
            identity_of_integer(i64::MAX),
            Some(17_253_041_267_310_859_852),
            "stored states have this identity"
        );
        assert_ne!(identity_of_bytes(b""), identity_of_bytes(b"\0"));
        assert_ne!(
            identity_of_bytes(b"12345678a"),
            identity_of_bytes(b"a12345678")
        );
        assert_eq!(
            identity_of_bytes(b"AAPL"),
            908_324_724_822_038_393,
            "stored states have this identity"
        );
    }

    #[test]
    fn its_size_is_as_stated() {
        assert!(size_of::<Distinct>() <= 40);
        assert!(of(0..100_000).heap_bytes() <= 140 * 1024);
        assert_eq!(of(0..0).heap_bytes(), 17);
    }
}
