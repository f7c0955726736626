//! A partition whose next record cannot be decoded for now, since whoever knows its schema is away: it
//! alone waits, and time waits with it.

use std::time::{Duration, Instant};

/// Between two tries, at first.
const FIRST_WAIT: Duration = Duration::from_millis(200);

/// Between two tries, at most.
const LONGEST_WAIT: Duration = Duration::from_secs(10);

/// See the module.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Hold {
    /// `None`: it is read.
    until: Option<Instant>,
    /// Tries in vain, in a row.
    tries: u32,
}

impl Hold {
    /// Another try was in vain; how long to wait.
    pub(super) fn begin(&mut self) -> Duration {
        let wait = (FIRST_WAIT * (1 << self.tries.min(10))).min(LONGEST_WAIT);
        self.tries = self.tries.saturating_add(1);
        self.until = Some(Instant::now() + wait);
        wait
    }

    pub(super) fn is_on(&self) -> bool {
        self.until.is_some()
    }

    /// Whether the record is waited for, or fetched for another try.
    pub(super) fn is_waiting(&self) -> bool {
        self.tries > 0
    }

    /// Ends where it has lasted long enough; whether it did.
    pub(super) fn end_if_due(&mut self) -> bool {
        let is_due = self.until.is_some_and(|until| until <= Instant::now());
        if is_due {
            self.until = None;
        }
        is_due
    }

    /// A record was decoded.
    pub(super) fn forget(&mut self) {
        self.tries = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_try_in_vain_is_followed_by_a_longer_wait_up_to_a_bound() {
        let mut hold = Hold::default();
        let waits: Vec<Duration> = (0..40).map(|_| hold.begin()).collect();
        assert!(waits.is_sorted() && waits[0] == FIRST_WAIT);
        assert_eq!(waits[39], LONGEST_WAIT);
        assert!(hold.is_on() && hold.is_waiting() && !hold.end_if_due());
        hold.forget();
        assert!(!hold.is_waiting());
        assert_eq!(hold.begin(), FIRST_WAIT);
    }
}
