//! What happens without being asked.
//!
//! [`transactions`] (a task) aborts those that take too long, and [`offsets`] (another) forgets what groups committed that
//! nobody is in any more. A thread of its own goes round every
//! [`Config::maintenance_interval`](crate::Config): [`retention`] moves the start of partitions, [`compaction`] rewrites
//! compacted ones, [`reclaim`] moves what is still wanted out of old segments, and a checkpoint then lets the segments
//! go that nobody refers to. Only that thread moves batches and deletes files.

pub(crate) mod compaction;
pub(crate) mod offsets;
pub(crate) mod reclaim;
pub(crate) mod retention;
mod rewrite;
pub(crate) mod transactions;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::BrokerInner;
use crate::store::now_ms;

/// The thread; stopping waits for the round that is under way.
pub(crate) struct Maintenance {
    stopping: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Maintenance {
    pub(crate) fn start(broker: Arc<BrokerInner>) -> Maintenance {
        let stopping = Arc::new(AtomicBool::new(false));
        let stop = stopping.clone();
        let thread = std::thread::spawn(move || {
            let first_check = broker.config.retention_check_interval.min(FIRST_CHECK);
            let mut rounds = Rounds {
                count: 0,
                check_age_at: Instant::now() + first_check,
                checkpointed: 0,
                reclaims_from: 0,
            };
            while !stop.load(Ordering::Acquire) {
                std::thread::park_timeout(broker.config.maintenance_interval);
                if !stop.load(Ordering::Acquire) {
                    go_round(&broker, &mut rounds);
                }
            }
        });
        Maintenance {
            stopping,
            thread: Some(thread),
        }
    }

    /// Blocks until the thread is done.
    pub(crate) fn stop(&mut self) {
        self.stopping.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            thread.thread().unpark();
            let _ = thread.join();
        }
    }
}

impl Drop for Maintenance {
    fn drop(&mut self) {
        self.stop();
    }
}

/// What the thread remembers from round to round.
struct Rounds {
    count: u64,
    /// When to look at the age of records again.
    check_age_at: Instant,
    /// How many bytes had been appended when the last checkpoint was made.
    checkpointed: u64,
    /// Segments are not rewritten before this round.
    reclaims_from: u64,
}

/// The age of records is looked at so soon after the start, even if the interval is longer.
const FIRST_CHECK: Duration = Duration::from_secs(30);

/// As good as never, and yet a point in time.
const LONGEST_INTERVAL: Duration = Duration::from_secs(100 * 365 * 24 * 60 * 60);

/// Where rewriting failed, the disk may be full, and to fill it each time would keep producers from it.
const ROUNDS_AFTER_FAILURE: u64 = 300;

/// Looking through the whole index for segments to free is done in one round of so many.
const ROUNDS_TO_RECLAIM: u64 = 5;

fn go_round(broker: &BrokerInner, rounds: &mut Rounds) {
    let (store, config) = (&broker.store, &broker.config);
    if store.is_offline() {
        return;
    }
    let now = now_ms();
    rounds.count += 1;
    let by_age = Instant::now() >= rounds.check_age_at;
    if by_age {
        rounds.check_age_at =
            Instant::now() + config.retention_check_interval.min(LONGEST_INTERVAL);
    }
    retention::enforce(store, config, now, by_age);
    let mut layout_changed = tried(compaction::compact_all(store, config, now));
    if rounds.count.is_multiple_of(ROUNDS_TO_RECLAIM) {
        if rounds.count >= rounds.reclaims_from {
            let reclaimed = reclaim::reclaim(store, config);
            if reclaimed.is_err() {
                rounds.reclaims_from = rounds.count + ROUNDS_AFTER_FAILURE;
            }
            layout_changed |= tried(reclaimed);
        }
        layout_changed |= reclaim::has_unused(store);
    }
    let appended = store.read_with_log(|_, log| log.appended_bytes());
    if layout_changed || appended - rounds.checkpointed >= config.checkpoint_bytes {
        match store.checkpoint() {
            Ok(deleted) => {
                rounds.checkpointed = appended;
                tracing::debug!(deleted, "checkpoint written");
            }
            Err(error) => {
                tracing::error!(%error, "the checkpoint failed; it is tried again in the next round")
            }
        }
    }
}

/// Whether a step did anything; a failure is told and left to the next round.
fn tried(did: std::io::Result<bool>) -> bool {
    did.unwrap_or_else(|error| {
        tracing::error!(%error, "rewriting segments failed; it is tried again in a later round");
        false
    })
}
