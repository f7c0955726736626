//! What a worker of any stage does about an error of its session.

use std::time::Duration;

use super::meters;
use crate::log::{ErrorClass, LogError};
use crate::model::Millis;

/// Where a partition cannot be taken up, so long passes until the next try, which may take as long again:
/// time for those that work.
pub(super) const TRY_AGAIN_AFTER: Millis = Millis(1_000);

/// Longest wait between two tries, and the rest of one whose place was taken.
pub(super) const MAX_BACKOFF: Duration = Duration::from_secs(5);

/// A session that can be mended.
pub(super) trait Recover {
    fn is_connected(&self) -> bool;

    /// Gives up the open transaction and reads its input again.
    fn go_back(&mut self) -> Result<(), LogError>;

    /// Nobody knows how the last transaction ended: committed positions will tell.
    fn lose_session(&mut self);

    /// Another has taken the place of this one: gives up what it owns, and tries nothing more.
    fn retire(&mut self);
}

/// Mends a session after an error: an abortable one gives up the transaction, a fatal one the session.
pub(super) fn recover(session: &mut impl Recover, class: ErrorClass) {
    match class {
        ErrorClass::Retriable if !session.is_connected() => {}
        ErrorClass::Retriable | ErrorClass::Abortable => {
            meters::aborted("abortable");
            if let Err(error) = session.go_back() {
                tracing::warn!(%error, "cannot go back; making a new session");
                session.lose_session();
            }
        }
        ErrorClass::Fatal => {
            meters::aborted("fatal");
            session.lose_session();
        }
        ErrorClass::Replaced => session.retire(),
    }
}

/// How much a transaction may take in: half of it after each that failed, since it may have been too much to
/// be written in time, and the double again after some that did not.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pace {
    halvings: u32,
    successes: u32,
}

/// Transactions in a row that must not fail before twice as much is tried.
const SUCCESSES: u32 = 16;

/// A million becomes one.
const MAX_HALVINGS: u32 = 20;

impl Pace {
    /// Of what a transaction may take in at most; at least 1.
    pub(super) fn of(self, most: usize) -> usize {
        (most >> self.halvings).max(1)
    }

    pub(super) fn note_failure(&mut self) {
        self.halvings = (self.halvings + 1).min(MAX_HALVINGS);
        self.successes = 0;
    }

    pub(super) fn note_success(&mut self) {
        self.successes += 1;
        if self.successes >= SUCCESSES {
            self.successes = 0;
            self.halvings = self.halvings.saturating_sub(1);
        }
    }
}

/// How long to wait after so many failures in a row.
pub(super) fn backoff(failures: u32) -> Duration {
    Duration::from_millis(10 << failures.min(9)).min(MAX_BACKOFF)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_after_each_failure_and_the_double_after_a_row_of_successes() {
        let mut pace = Pace::default();
        assert_eq!(pace.of(20_000), 20_000);
        pace.note_failure();
        pace.note_failure();
        assert_eq!(pace.of(20_000), 5_000);
        (1..SUCCESSES).for_each(|_| pace.note_success());
        assert_eq!(pace.of(20_000), 5_000);
        pace.note_success();
        assert_eq!(pace.of(20_000), 10_000);
        (0..100).for_each(|_| pace.note_failure());
        assert_eq!(pace.of(usize::MAX), usize::MAX >> MAX_HALVINGS);
        assert_eq!(pace.of(3), 1);
        (0..MAX_HALVINGS * SUCCESSES).for_each(|_| pace.note_success());
        assert_eq!(pace.of(3), 3);
    }
}
