//! What readers of a partition may see by now, and who waits for more.
//!
//! State runs ahead of the disk: a batch is in the index before it is written. Readers go by this view, which the
//! store advances only when the log is as durable as the configuration promises, and all at once for one commit.

use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

/// The ends that readers see. All offsets are of the next record.
#[derive(Debug, Default)]
pub(crate) struct View {
    high_watermark: AtomicI64,
    last_stable: AtomicI64,
    waiters: Mutex<Vec<Waiting>>,
}

#[derive(Debug)]
struct Waiting {
    committed_only: bool,
    waiter: Arc<Notify>,
}

impl View {
    /// Readers of everything read below this.
    pub(crate) fn high_watermark(&self) -> i64 {
        self.high_watermark.load(Ordering::Acquire)
    }

    /// Readers of committed data read below this.
    pub(crate) fn last_stable(&self) -> i64 {
        self.last_stable.load(Ordering::Acquire)
    }

    /// The end for a reader of the given isolation.
    pub(crate) fn end(&self, committed_only: bool) -> i64 {
        if committed_only {
            self.last_stable()
        } else {
            self.high_watermark()
        }
    }

    /// Shows more, and wakes those for whom there is more.
    pub(crate) fn advance(&self, high_watermark: i64, last_stable: i64) {
        let high_moved =
            self.high_watermark.swap(high_watermark, Ordering::AcqRel) != high_watermark;
        let stable_moved = self.last_stable.swap(last_stable, Ordering::AcqRel) != last_stable;
        if high_moved || stable_moved {
            self.wake(|waiting| {
                if waiting.committed_only {
                    stable_moved
                } else {
                    high_moved
                }
            });
        }
    }

    /// The partition was deleted: whoever waits shall look again.
    pub(crate) fn close(&self) {
        self.wake(|_| true);
    }

    fn wake(&self, concerned: impl Fn(&Waiting) -> bool) {
        let waiters = self.waiters.lock().unwrap_or_else(PoisonError::into_inner);
        waiters
            .iter()
            .filter(|waiting| concerned(waiting))
            .for_each(|waiting| waiting.waiter.notify_one());
    }

    /// Wakes `waiter` at each advance, until [`View::leave`].
    pub(crate) fn join(&self, waiter: &Arc<Notify>, committed_only: bool) {
        let waiting = Waiting {
            committed_only,
            waiter: waiter.clone(),
        };
        self.waiters
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(waiting);
    }

    pub(crate) fn leave(&self, waiter: &Arc<Notify>) {
        let mut waiters = self.waiters.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(position) = waiters
            .iter()
            .position(|waiting| Arc::ptr_eq(&waiting.waiter, waiter))
        {
            waiters.swap_remove(position);
        }
    }
}
