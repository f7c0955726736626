//! When a request is the oldest of its connection that has no answer yet.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::Poll;

/// How many requests of a connection have had their answer.
#[derive(Debug, Clone, Default)]
pub(crate) struct Answered(Arc<AtomicU64>);

impl Answered {
    pub(super) fn one_more(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    /// The turn of the request that has `ahead` others without an answer before it.
    pub(super) fn turn(&self, ahead: usize) -> Turn {
        Turn {
            answered: self.clone(),
            number: self.0.load(Ordering::Relaxed) + ahead as u64,
        }
    }
}

/// A request's place in the row of its connection.
#[derive(Debug, Clone, Default)]
pub(crate) struct Turn {
    answered: Answered,
    number: u64,
}

impl Turn {
    pub(crate) fn has_come(&self) -> bool {
        self.answered.0.load(Ordering::Relaxed) >= self.number
    }

    /// Resolves when it has come. Nobody needs to be woken: the connection, whose task this runs in, polls all its
    /// requests again after it has answered one.
    pub(crate) async fn come(&self) {
        let look = |_: &mut std::task::Context<'_>| {
            if self.has_come() {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        };
        std::future::poll_fn(look).await;
    }
}
