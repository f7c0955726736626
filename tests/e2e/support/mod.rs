//! What the end-to-end tests share, in the order in which a test meets it:
//!
//! - [`installation`]: a broker and the instances on it, as processes that can be killed;
//! - [`api`]: their HTTP API;
//! - [`chain`]: the workflow they run, and the check of what it left behind;
//! - [`driver`]: starts runs, as any Kafka client may;
//! - [`agent`]: answers tasks, and answers some of them twice;
//! - [`reader`]: reads topics `read_committed`;
//! - [`topics`]: makes topics as users do;
//! - [`judge`]: what a set of histories must look like.

pub mod agent;
pub mod api;
pub mod chain;
pub mod driver;
pub mod installation;
pub mod judge;
pub mod reader;
pub mod topics;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Tests that load the machine hold this while they run, so that they do not starve each other.
pub fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    // A test that panicked while it held the lock has left nothing behind it.
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits until it holds; panics with `what` where it does not within `limit`.
#[track_caller]
pub fn wait_for(limit: Duration, what: &str, holds: impl Fn() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < limit, "not within {limit:?}: {what}");
        thread::sleep(Duration::from_millis(50));
    }
}
