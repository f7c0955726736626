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

/// How long to wait after so many failures in a row.
pub(super) fn backoff(failures: u32) -> Duration {
    Duration::from_millis(10 << failures.min(9)).min(MAX_BACKOFF)
}
