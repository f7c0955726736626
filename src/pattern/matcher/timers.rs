//! The timers of keys: a radix heap (Ahuja et al. 1990). Time only goes on, so what is armed lies in
//! buckets by the highest bit in which it differs from the last time that was taken: to arm is to append,
//! and an entry moves down by buckets a few times in all, together with those of its time. Windows of many
//! keys that close at one instant cost no order among them.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::keys::Due;
use crate::model::Timestamp;

/// Entries for which an empty bucket keeps room.
const KEPT: usize = 4_096;

/// As many as memory looks for at once.
const FEW: usize = 16;

/// So many keys at one time are a crowd; the states of fewer are where they were used last.
const CROWD: usize = 256;

/// When, and the place of the key.
pub(super) type Armed = (Due, u32);

/// See the module. What is due at once comes out deadlines first, in the order in which they were armed.
#[derive(Debug, Default)]
pub(super) struct Timers {
    /// Time is compared with the sign bit turned, so that it is in order without a sign.
    last: u64,
    /// The first holds the last time itself, each further one a bit more; as many as were needed.
    buckets: Vec<Bucket>,
    /// A bit for each bucket but the first that holds something.
    filled: u64,
    /// Deadlines of the last time that were taken already.
    taken: usize,
    /// Those that [`crowd`](Self::crowd) has told of.
    told: usize,
    /// Events that wait for the last time, and all that was armed for times before it.
    aside: BinaryHeap<Reverse<Armed>>,
}

#[derive(Debug)]
struct Bucket {
    first: u64,
    armed: Vec<Armed>,
}

impl Default for Bucket {
    fn default() -> Self {
        Self {
            first: u64::MAX,
            armed: Vec::new(),
        }
    }
}

fn rank(at: Timestamp) -> u64 {
    (at.0 as u64) ^ (1 << 63)
}

impl Timers {
    /// What is armed, also for a time at which nobody waits any more.
    pub(super) fn len(&self) -> usize {
        let later: usize = self.buckets.iter().map(|bucket| bucket.armed.len()).sum();
        later - self.taken + self.aside.len()
    }

    /// Forgets all, but not how far time has come.
    pub(super) fn clear(&mut self) {
        for bucket in &mut self.buckets {
            *bucket = Bucket::default();
        }
        self.filled = 0;
        self.taken = 0;
        self.told = 0;
        self.aside.clear();
    }

    pub(super) fn push(&mut self, due: Due, place: u32) {
        let at = rank(due.0);
        if at < self.last || (at == self.last && due.1 > 0) {
            self.aside.push(Reverse((due, place)));
            return;
        }
        let bucket = 64 - (at ^ self.last).leading_zeros() as usize;
        if bucket >= self.buckets.len() {
            self.buckets.resize_with(bucket + 1, Bucket::default);
        }
        if let Some(above) = bucket.checked_sub(1) {
            self.filled |= 1 << above;
        }
        let bucket = &mut self.buckets[bucket];
        bucket.first = bucket.first.min(at);
        bucket.armed.push((due, place));
    }

    /// The time of the earliest.
    #[inline]
    pub(super) fn first(&self) -> Option<Timestamp> {
        let aside = self.aside.peek().map(|Reverse((due, _))| rank(due.0));
        let at = if self.of_last().is_some() {
            Some(self.last)
        } else if self.filled == 0 {
            None
        } else {
            Some(self.buckets[self.filled.trailing_zeros() as usize + 1].first)
        };
        let at = match (aside, at) {
            (Some(aside), Some(at)) => aside.min(at),
            (one, other) => one.or(other)?,
        };
        Some(Timestamp((at ^ (1 << 63)) as i64))
    }

    /// Takes the earliest if it is due by `now`.
    pub(super) fn pop(&mut self, now: Timestamp) -> Option<Armed> {
        let first = self.first()?;
        if first > now {
            return None;
        }
        if rank(first) > self.last {
            self.move_to_first();
        }
        if rank(first) == self.last
            && let Some(armed) = self.of_last()
        {
            self.taken += 1;
            return Some(armed);
        }
        self.aside.pop().map(|Reverse(armed)| armed)
    }

    /// The next deadline of the last time.
    #[inline]
    fn of_last(&self) -> Option<Armed> {
        self.buckets.first()?.armed.get(self.taken).copied()
    }

    /// Where very many are due at one time, those to be taken next: a few at a time, and each once.
    #[inline]
    pub(super) fn crowd(&mut self) -> Option<&[Armed]> {
        if self.taken < self.told {
            return None;
        }
        let armed = &self.buckets.first()?.armed;
        if armed.len() < CROWD {
            return None;
        }
        self.told = armed.len().min(self.taken + FEW);
        armed.get(self.taken..self.told)
    }

    /// The earliest time becomes the last: what lies in its bucket moves down, in its order.
    fn move_to_first(&mut self) {
        if let Some(last) = self.buckets.first_mut() {
            last.armed.clear();
            last.armed.shrink_to(KEPT);
        }
        self.taken = 0;
        self.told = 0;
        let lowest = self.filled.trailing_zeros();
        self.filled &= !(1 << lowest);
        let bucket = std::mem::take(&mut self.buckets[lowest as usize + 1]);
        self.last = bucket.first;
        let mut armed = bucket.armed;
        for (due, place) in armed.drain(..) {
            self.push(due, place);
        }
        // Its room is used again, as far as it is not that of a million keys.
        armed.shrink_to(KEPT);
        self.buckets[lowest as usize + 1].armed = armed;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of what a heap would give, in its order; of one time by arrival, and deadlines as they were armed.
    #[test]
    fn they_come_out_by_time() {
        let mut state = 7_u64;
        let mut random = |below: u64| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state % below
        };
        let mut timers = Timers::default();
        let mut heap = BinaryHeap::new();
        let mut now = -500;
        let mut came = 0;
        for number in 0..100_000_u32 {
            let at = match random(10) {
                0 => now - random(50) as i64,
                1 => {
                    let bits = random(40);
                    now + random(1 << bits) as i64
                }
                2 => now,
                _ => (now + random(100) as i64).div_euclid(10) * 10,
            };
            let arrival = if random(4) == 0 { random(100) + 1 } else { 0 };
            timers.push((Timestamp(at), arrival), number);
            heap.push(Reverse(((Timestamp(at), arrival), number)));
            now += random(3) as i64;
            while random(8) > 0 {
                let first = heap.peek().map(|Reverse(((at, _), _))| *at);
                assert_eq!(timers.first(), first);
                let expected = match first {
                    Some(first) if first <= Timestamp(now) => heap.pop(),
                    _ => None,
                };
                let found = timers.pop(Timestamp(now));
                assert_eq!(found, expected.map(|Reverse(armed)| armed));
                came += usize::from(found.is_some());
                if found.is_none() {
                    break;
                }
            }
        }
        assert!(came > 50_000, "{came}");
    }
}
