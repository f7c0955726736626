//! What records in answers may take in memory, all connections together.
//!
//! Each connection has bounds of its own, but there are many, and a client that asks and does not read makes the
//! broker keep what it asked for. So a fetch sets memory aside before it reads, and gives it back when its answer is
//! written or its connection gone. Where memory is short it waits, or answers with less.
//!
//! Nobody waits for ever: only the oldest request of a connection sets memory aside (see [`Turn`](super::Turn)), so
//! whoever has some waits for nothing but the disk and the client, and that the client reads has a limit in time.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// An answer takes at most one part in so many of what is free, so that a few large ones leave something to others.
const SHARE: usize = 4;

pub(crate) struct AnswerMemory {
    free: Arc<Semaphore>,
    limit: u32,
}

/// Memory set aside for one answer, until this is dropped.
#[derive(Debug)]
pub(crate) struct Held(OwnedSemaphorePermit);

impl Held {
    /// In bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.0.num_permits()
    }

    /// Gives back what is more than `bytes`.
    pub(crate) fn shrink_to(&mut self, bytes: usize) {
        drop(self.0.split(self.bytes().saturating_sub(bytes)));
    }
}

impl AnswerMemory {
    /// At most 4 GiB, whatever is asked.
    pub(crate) fn new(bytes: usize) -> AnswerMemory {
        let limit = u32::try_from(bytes.max(1)).unwrap_or(u32::MAX);
        AnswerMemory {
            free: Arc::new(Semaphore::new(limit as usize)),
            limit,
        }
    }

    /// Sets up to `wanted` bytes aside, at least `least`, if so much is free and nobody waits.
    pub(crate) fn try_hold(&self, least: usize, wanted: usize) -> Option<Held> {
        let share = self.free.available_permits() / SHARE;
        let bytes = self.within_limit(wanted.min(share.max(least)));
        let permit = self.free.clone().try_acquire_many_owned(bytes).ok()?;
        Some(Held(permit))
    }

    /// Waits, behind those who came before, until so much is free. What is more than there is at all gets all there is.
    pub(crate) async fn hold(&self, bytes: usize) -> Held {
        let bytes = self.within_limit(bytes);
        let permit = self.free.clone().acquire_many_owned(bytes).await;
        Held(permit.expect("the semaphore is never closed"))
    }

    fn within_limit(&self, bytes: usize) -> u32 {
        u32::try_from(bytes).unwrap_or(u32::MAX).min(self.limit)
    }
}
