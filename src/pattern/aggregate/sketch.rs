//! Percentiles with a stated relative error: a histogram whose buckets grow with the values, like
//! DDSketch (Masson, Rim and Lee 2019) with the linear mapping of HdrHistogram, where a bucket is
//! the exponent and the first six bits of the mantissa: no logarithm, and merging and taking back
//! are exact, being additions of counts.

use serde::{Deserialize, Serialize};

use super::words::Words;

/// Bits of a mantissa that a bucket does not look at.
const SHIFT: u32 = 46;
/// The bucket that 2⁻⁶⁴, the smallest size told from zero, falls into, less one.
const SMALLEST: i32 = ((1023 - 64) << 6) - 1;
/// A word is a bucket, offset to be positive, above its count.
const COUNT_BITS: u32 = 48;
const COUNT_MASK: u64 = (1 << COUNT_BITS) - 1;
const OFFSET: i32 = 1 << 15;

/// A mergeable, retractable histogram of values. 24 bytes and 8 for each bucket in use beyond two: 64
/// buckets for each doubling of the values, so 640 cover three decimal orders of magnitude; at
/// most 50,709 for all that [`MAX_MAGNITUDE`](super::MAX_MAGNITUDE) allows.
///
/// Sizes under 2⁻⁶⁴ (5·10⁻²⁰) count as zero. A bucket counts to 2⁴⁸ − 1.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sketch {
    /// Ascending; one word for each bucket that counts anything.
    words: Words,
}

impl Sketch {
    /// The bound on the relative error of a percentile: 1/129, rounded up.
    pub const RELATIVE_ERROR: f64 = 0.007_752;

    /// Adds a value; the caller has checked it with [`is_value`](super::is_value).
    #[inline]
    pub fn add(&mut self, value: f64) {
        let bucket = bucket_of(value);
        match self.find(bucket) {
            Ok(place) => self.words.as_mut_slice()[place] += 1,
            Err(place) => self.words.insert(place, bucket | 1),
        }
    }

    /// Takes back a value that was added.
    pub fn remove(&mut self, value: f64) {
        match self.find(bucket_of(value)) {
            Ok(place) => {
                let word = &mut self.words.as_mut_slice()[place];
                *word -= 1;
                if count(*word) == 0 {
                    self.words.retain(|word| count(word) > 0);
                }
            }
            Err(_) => debug_assert!(false, "{value} is taken back and was never added"),
        }
    }

    fn find(&self, bucket: u64) -> Result<usize, usize> {
        self.words
            .as_slice()
            .binary_search_by_key(&(bucket >> COUNT_BITS), |word| word >> COUNT_BITS)
    }

    /// Adds all that `other` holds; linear in the buckets of both, at worst.
    pub fn merge(&mut self, other: &Sketch) {
        let mut missing = 0;
        let mut from = 0;
        let words = self.words.as_mut_slice();
        for &word in other.words.as_slice() {
            match find_from(words, from, word) {
                Ok(place) => {
                    words[place] += count(word);
                    from = place + 1;
                }
                Err(place) => {
                    missing += 1;
                    from = place;
                }
            }
        }
        match (missing, other.words.as_slice()) {
            (0, _) => {}
            (_, &[word]) => self.words.insert(from, word),
            _ => self.insert_missing(other, missing),
        }
    }

    /// Merges the buckets of `other` that `self` lacks, from the back and in place.
    fn insert_missing(&mut self, other: &Sketch, missing: usize) {
        let words = self.words.as_vec();
        let mut read = words.len();
        words.resize(read + missing, 0);
        let mut write = words.len();
        for &word in other.words.as_slice().iter().rev() {
            while read > 0 && bucket(words[read - 1]) > bucket(word) {
                read -= 1;
                write -= 1;
                words[write] = words[read];
            }
            if read == 0 || bucket(words[read - 1]) < bucket(word) {
                write -= 1;
                words[write] = word;
            }
            if read == write {
                break;
            }
        }
    }

    /// Takes back what was merged.
    pub fn unmerge(&mut self, other: &Sketch) {
        let mut emptied = false;
        let mut from = 0;
        let words = self.words.as_mut_slice();
        for &word in other.words.as_slice() {
            match find_from(words, from, word) {
                Ok(place) => {
                    debug_assert!(count(words[place]) >= count(word));
                    words[place] -= count(word).min(count(words[place]));
                    emptied |= count(words[place]) == 0;
                    from = place + 1;
                }
                Err(place) => {
                    debug_assert!(false, "a bucket is taken back that was never merged");
                    from = place;
                }
            }
        }
        if emptied {
            self.words.retain(|word| count(word) > 0);
        }
    }

    /// The value of nearest rank: of n values in order, number ⌈`percent`/100·n⌉, at least the
    /// first; off by at most [`RELATIVE_ERROR`](Self::RELATIVE_ERROR) of itself. `None` without
    /// values. `percent` is from 0 (the minimum) to 100 (the maximum).
    pub fn percentile(&self, percent: f64) -> Option<f64> {
        self.percentile_of(self.count(), percent)
    }

    /// The same for a caller who has counted the `total` of the values.
    pub(super) fn percentile_of(&self, total: u64, percent: f64) -> Option<f64> {
        if total == 0 {
            return None;
        }
        let words = self.words.as_slice();
        let wanted = percent / 100.0 * total as f64;
        let whole = wanted as u64;
        let rank = (whole + u64::from((whole as f64) < wanted)).clamp(1, total);
        // Counted from the nearer end, for the percentiles that people ask for are near one.
        let word = if rank > total / 2 {
            let mut above = total - rank;
            words.iter().rev().find(|&&word| {
                let here = above < count(word);
                above = above.wrapping_sub(count(word));
                here
            })
        } else {
            let mut below = rank - 1;
            words.iter().find(|&&word| {
                let here = below < count(word);
                below = below.wrapping_sub(count(word));
                here
            })
        };
        word.map(|&word| value_of(word))
    }

    /// How many values there are.
    pub fn count(&self) -> u64 {
        self.words.as_slice().iter().map(|&word| count(word)).sum()
    }

    /// Empties it and keeps what it has allocated.
    pub fn clear(&mut self) {
        self.words.clear();
    }

    /// Reads a bit of it, for a caller who will soon need it.
    #[inline]
    pub(super) fn far(&self) -> u64 {
        let words = self.words.as_slice();
        words.first().unwrap_or(&0) ^ words.last().unwrap_or(&0)
    }

    /// Buckets in use, 8 bytes each.
    pub fn buckets(&self) -> usize {
        self.words.as_slice().len()
    }
}

fn count(word: u64) -> u64 {
    word & COUNT_MASK
}

fn bucket(word: u64) -> u64 {
    word >> COUNT_BITS
}

/// Where the bucket of `word` is in `words`, known to be at `from` or after: a gallop, then a
/// binary search, so that buckets close together are found in a step or two.
fn find_from(words: &[u64], from: usize, word: u64) -> Result<usize, usize> {
    let wanted = bucket(word);
    let (mut low, mut step) = (from, 1);
    while low + step <= words.len() && bucket(words[low + step - 1]) < wanted {
        low += step;
        step *= 2;
    }
    let high = (low + step).min(words.len());
    words[low..high]
        .binary_search_by_key(&wanted, |word| bucket(*word))
        .map(|place| low + place)
        .map_err(|place| low + place)
}

/// The bucket of a value, as a word that counts nothing.
#[inline]
fn bucket_of(value: f64) -> u64 {
    let top = (value.abs().to_bits() >> SHIFT) as i32;
    let size = (top - SMALLEST).max(0);
    let signed = if value < 0.0 { -size } else { size };
    ((signed + OFFSET) as u64) << COUNT_BITS
}

/// The value that is nearest, relatively, to all of a bucket: the harmonic mean of its ends.
fn value_of(word: u64) -> f64 {
    let signed = bucket(word) as i32 - OFFSET;
    if signed == 0 {
        return 0.0;
    }
    let top = (signed.abs() + SMALLEST) as u64;
    let (low, high) = (
        f64::from_bits(top << SHIFT),
        f64::from_bits((top + 1) << SHIFT),
    );
    let middle = low * (2.0 * high / (low + high));
    if signed < 0 { -middle } else { middle }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pattern::aggregate::MAX_MAGNITUDE;

    #[test]
    fn every_value_is_within_the_stated_error_of_its_bucket() {
        let mut value = 2_f64.powi(-64);
        let mut worst: f64 = 0.0;
        while value <= MAX_MAGNITUDE {
            for signed in [value, -value] {
                let found = value_of(bucket_of(signed));
                worst = worst.max(((found - signed) / signed).abs());
            }
            value *= 1.000_713;
        }
        assert!(worst <= Sketch::RELATIVE_ERROR, "{worst}");
        assert!(
            worst > 0.99 * Sketch::RELATIVE_ERROR,
            "the bound is tight: {worst}"
        );
        assert_eq!(value_of(bucket_of(0.0)), 0.0);
        assert_eq!(value_of(bucket_of(-0.0)), 0.0);
        assert_eq!(value_of(bucket_of(1e-20)), 0.0);
    }

    #[test]
    fn buckets_are_in_the_order_of_their_values() {
        let values = [
            -MAX_MAGNITUDE,
            -2.0,
            -1.0,
            -1e-9,
            0.0,
            1e-9,
            1.0,
            1.02,
            MAX_MAGNITUDE,
        ];
        assert!(values.is_sorted_by(|a, b| bucket_of(*a) < bucket_of(*b)));
        let all = bucket(bucket_of(MAX_MAGNITUDE)) - bucket(bucket_of(-MAX_MAGNITUDE)) + 1;
        assert_eq!(all, 50_709, "the most buckets that there can be");
    }

    #[test]
    fn percentiles_are_of_nearest_rank() {
        let mut sketch = Sketch::default();
        assert_eq!(sketch.percentile(50.0), None);
        (1..=10).for_each(|value| sketch.add(f64::from(value)));
        for (percent, rank) in [
            (0.0, 1.0),
            (10.0, 1.0),
            (11.0, 2.0),
            (50.0, 5.0),
            (95.0, 10.0),
        ] {
            let found = sketch.percentile(percent).expect("it has values");
            assert!(
                (found / rank - 1.0).abs() <= Sketch::RELATIVE_ERROR,
                "{percent}: {found}"
            );
        }
        assert_eq!(size_of::<Sketch>(), 24);
    }
}
