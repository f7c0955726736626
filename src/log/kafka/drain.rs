//! Taking what is ready from a consumer.
//!
//! A change of ownership ends a batch: what was taken before it may be void by now. Reports (lines of
//! librdkafka's log, statistics, errors) must not: an outage leaves hundreds in the queue, a change may
//! stand behind them, and one a call would keep it from us for as long as calls are rare, which they
//! are while transactions fail for want of it.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::message::BorrowedMessage;
use rdkafka::statistics::Partition;

use super::errors;
use crate::log::{LogError, PollLimits};

/// What a consumer's context noted while it was polled. Looked at for each record, so without a lock;
/// callbacks run within the poll.
#[derive(Default)]
pub(super) struct Signs {
    reports: AtomicU64,
    has_changes: AtomicBool,
}

impl Signs {
    /// A poll has taken a line of the log or statistics from the queue.
    pub(super) fn note_report(&self) {
        self.reports.fetch_add(1, Ordering::Relaxed);
    }

    /// Partitions came or went; or, with `false`, that was dealt with.
    pub(super) fn note_changes(&self, has_changes: bool) {
        self.has_changes.store(has_changes, Ordering::Relaxed);
    }
}

/// A context that takes such notes.
pub(super) trait Notes: ConsumerContext {
    fn signs(&self) -> &Signs;
}

/// Hands what is ready to `take`, which says how many bytes it took; waits at most `limits.wait` for
/// the first.
pub(super) fn drain<C: Notes>(
    consumer: &BaseConsumer<C>,
    limits: PollLimits,
    mut take: impl FnMut(&BorrowedMessage<'_>) -> Option<usize>,
) -> Result<(), LogError> {
    let mut wait = limits.wait;
    let (mut taken, mut bytes) = (0, 0);
    let signs = consumer.context().signs();
    let has_changes = || signs.has_changes.load(Ordering::Relaxed);
    let reports = || signs.reports.load(Ordering::Relaxed);
    while taken < limits.records && bytes < limits.bytes {
        let before = reports();
        let polled = consumer.poll(wait);
        wait = Duration::ZERO;
        let Some(result) = polled else {
            // rdkafka returns none, too, where what it took from the queue was a report.
            if has_changes() || reports() == before {
                return Ok(());
            }
            continue;
        };
        match result {
            Ok(message) => {
                if let Some(size) = take(&message) {
                    bytes += size;
                    taken += 1;
                }
            }
            Err(KafkaError::MessageConsumptionFatal(code)) => {
                return Err(errors::of_membership(code));
            }
            Err(error) => tracing::debug!(%error, "consuming"),
        }
        if has_changes() {
            return Ok(());
        }
    }
    Ok(())
}

/// Up to where records of a partition may wait, as of these statistics; `None` where brokers have not told
/// yet. The last stable offset; but where everything below it was fetched and the consumer's queue is empty,
/// what lies between the last record and there are markers of transactions, and nothing waits.
pub(super) fn end_of(known: &Partition) -> Option<i64> {
    let end = known.ls_offset;
    let has_all = known.next_offset >= end && known.fetchq_cnt == 0;
    (end >= 0).then_some(if has_all { 0 } else { end })
}
