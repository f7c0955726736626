//! DescribeTransactions: who the producer is and what its open transaction holds.

use std::collections::BTreeMap;
use std::sync::Arc;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::describe_transactions_response::{TopicData, TransactionState};
use kafka_protocol::messages::{
    DescribeTransactionsRequest, DescribeTransactionsResponse, ProducerId, TopicName,
    TransactionalId,
};
use kafka_protocol::protocol::StrBytes;

use super::distinct;
use super::list_transactions::state_name;
use crate::BrokerInner;
use crate::net::RequestContext;
use crate::state::State;
use crate::state::transaction::Phase;

pub(crate) async fn handle(
    broker: &Arc<BrokerInner>,
    _context: &RequestContext,
    _version: i16,
    request: DescribeTransactionsRequest,
) -> DescribeTransactionsResponse {
    let ids = distinct(request.transactional_ids, TransactionalId::clone).into_iter();
    let states = broker
        .store
        .read(|state| ids.map(|id| describe(state, id)).collect());
    DescribeTransactionsResponse::default().with_transaction_states(states)
}

fn describe(state: &State, id: TransactionalId) -> TransactionState {
    let Some(transaction) = state.transaction(&id) else {
        return TransactionState::default()
            .with_error_code(ResponseError::TransactionalIdNotFound.code())
            .with_transactional_id(id);
    };
    let mut held: BTreeMap<&str, Vec<i32>> = BTreeMap::new();
    let mut start = -1;
    if let Phase::Open {
        since, partitions, ..
    } = &transaction.phase
    {
        start = *since;
        for partition in partitions
            .iter()
            .filter_map(|id| state.partition_by_id(*id))
        {
            held.entry(&partition.topic)
                .or_default()
                .push(partition.index);
        }
    }
    let topics = held.into_iter().map(|(name, partitions)| {
        TopicData::default()
            .with_topic(TopicName(StrBytes::from_string(name.to_owned())))
            .with_partitions(partitions)
    });
    TransactionState::default()
        .with_transactional_id(id)
        .with_transaction_state(StrBytes::from_static_str(state_name(&transaction.phase)))
        .with_transaction_timeout_ms(transaction.timeout_ms)
        .with_transaction_start_time_ms(start)
        .with_producer_id(ProducerId(transaction.producer_id))
        .with_producer_epoch(transaction.epoch)
        .with_topics(topics.collect())
}
