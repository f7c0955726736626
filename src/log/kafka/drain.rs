//! Taking what is ready from a consumer.
//!
//! A change of ownership ends a batch: what was taken before it may be void by now. Reports (lines of
//! librdkafka's log, statistics, errors) must not: an outage leaves hundreds in the queue, a change may
//! stand behind them, and one a call would keep it from us for as long as calls are rare, which they
//! are while transactions fail for want of it.

use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::KafkaError;
use rdkafka::message::BorrowedMessage;

use super::errors;
use crate::log::{LogError, PollLimits};

/// What a consumer's context noted while it was polled.
pub(super) trait Notes: ConsumerContext {
    /// Grows with each line of the log and each statistics that a poll has taken from the queue.
    fn reports(&self) -> u64;

    /// Whether partitions came or went.
    fn has_changes(&self) -> bool;
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
    while taken < limits.records && bytes < limits.bytes {
        let reports = consumer.context().reports();
        let polled = consumer.poll(wait);
        wait = Duration::ZERO;
        let Some(result) = polled else {
            // rdkafka returns none, too, where what it took from the queue was a report.
            if consumer.context().has_changes() || consumer.context().reports() == reports {
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
                return Err(errors::fatal("consuming", code));
            }
            Err(error) => tracing::debug!(%error, "consuming"),
        }
        if consumer.context().has_changes() {
            return Ok(());
        }
    }
    Ok(())
}
