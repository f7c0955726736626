//! Transactions: a producer is initialised ([`init_producer_id`]), partitions and groups join ([`add_partitions`],
//! [`offsets`]), and one record ends it all ([`end`]); an
//! administrator may have it aborted ([`write_markers`]).
//!
//! The one check that all of them share is here: who asks must be the current producer of its transactional id.

pub(crate) mod add_partitions;
pub(crate) mod end;
pub(crate) mod init_producer_id;
pub(crate) mod offsets;
pub(crate) mod write_markers;

use kafka_protocol::ResponseError;

use crate::state::State;
use crate::state::transaction::Transaction;

/// The transaction of `transactional_id`, if the asking producer is its current one.
///
/// `knows_fenced`: whether the version of the request knows the newer of the two errors for a producer that was
/// replaced.
pub(crate) fn authentic<'s>(
    state: &'s State,
    transactional_id: &str,
    producer_id: i64,
    epoch: i16,
    knows_fenced: bool,
) -> Result<&'s Transaction, ResponseError> {
    let transaction = state
        .transaction(transactional_id)
        .ok_or(ResponseError::InvalidProducerIdMapping)?;
    if transaction.producer_id != producer_id {
        return Err(ResponseError::InvalidProducerIdMapping);
    }
    if transaction.epoch != epoch {
        return Err(if knows_fenced {
            ResponseError::ProducerFenced
        } else {
            ResponseError::InvalidProducerEpoch
        });
    }
    Ok(transaction)
}
