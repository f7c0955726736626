//! ListTransactions: all transactional ids and where each stands.

use std::collections::HashSet;
use std::sync::Arc;

use kafka_protocol::messages::list_transactions_response::TransactionState;
use kafka_protocol::messages::{
    ListTransactionsRequest, ListTransactionsResponse, ProducerId, TransactionalId,
};
use kafka_protocol::protocol::StrBytes;

use crate::BrokerInner;
use crate::net::RequestContext;
use crate::state::transaction::{Phase, Transaction};

/// All states that the protocol knows, those between the decision and its completion included: a transaction ends at
/// once here, so nothing is ever found in them.
const STATES: [&str; 8] = [
    "Empty",
    "Ongoing",
    "PrepareCommit",
    "PrepareAbort",
    "CompleteCommit",
    "CompleteAbort",
    "Dead",
    "PrepareEpochFence",
];

/// The protocol's name for where a transaction stands.
pub(super) fn state_name(phase: &Phase) -> &'static str {
    match phase {
        Phase::Empty { .. } => "Empty",
        Phase::Open { .. } => "Ongoing",
        Phase::Ended { committed: true } => "CompleteCommit",
        Phase::Ended { committed: false } => "CompleteAbort",
    }
}

pub(crate) async fn handle(
    broker: &Arc<BrokerInner>,
    _context: &RequestContext,
    version: i16,
    request: ListTransactionsRequest,
) -> ListTransactionsResponse {
    let unknown_filters = request.state_filters.iter();
    let unknown_filters = unknown_filters
        .filter(|wanted| !STATES.contains(&wanted.as_str()))
        .cloned();
    let states: HashSet<&str> = request.state_filters.iter().map(|s| s.as_str()).collect();
    let producers: HashSet<i64> = request.producer_id_filters.iter().map(|id| id.0).collect();
    let (found, _nothing_written) = broker.store.write(|writer| {
        let passes = |transaction: &Transaction| {
            let wanted_state = states.is_empty() || states.contains(state_name(&transaction.phase));
            let wanted_producer =
                producers.is_empty() || producers.contains(&transaction.producer_id);
            wanted_state
                && wanted_producer
                && (version < 1 || runs_for(transaction, request.duration_filter, writer.now))
        };
        let all = writer.state().transactions();
        all.filter(|(_, transaction)| passes(transaction))
            .map(|(id, transaction)| {
                TransactionState::default()
                    .with_transactional_id(TransactionalId(StrBytes::from_string(id.to_owned())))
                    .with_producer_id(ProducerId(transaction.producer_id))
                    .with_transaction_state(StrBytes::from_static_str(state_name(
                        &transaction.phase,
                    )))
            })
            .collect()
    });
    ListTransactionsResponse::default()
        .with_unknown_state_filters(unknown_filters.collect())
        .with_transaction_states(found)
}

/// Whether the transaction is open for longer than `duration_ms`; a negative one asks for nothing.
fn runs_for(transaction: &Transaction, duration_ms: i64, now: i64) -> bool {
    match transaction.phase {
        _ if duration_ms < 0 => true,
        Phase::Open { since, .. } => now - since > duration_ms,
        _ => false,
    }
}
