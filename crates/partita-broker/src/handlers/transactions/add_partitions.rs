//! AddPartitionsToTxn: these partitions will be written in the transaction, which begins with the first of them.
//! From version 4 on a request may hold several transactions, and may only ask whether partitions are in.

use std::sync::Arc;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::add_partitions_to_txn_request::{
    AddPartitionsToTxnTopic, AddPartitionsToTxnTransaction,
};
use kafka_protocol::messages::add_partitions_to_txn_response::{
    AddPartitionsToTxnPartitionResult, AddPartitionsToTxnResult, AddPartitionsToTxnTopicResult,
};
use kafka_protocol::messages::{AddPartitionsToTxnRequest, AddPartitionsToTxnResponse};

use super::authentic;
use crate::BrokerInner;
use crate::net::RequestContext;
use crate::state::Event;
use crate::store::Writer;

pub(crate) async fn handle(
    broker: &Arc<BrokerInner>,
    _context: &RequestContext,
    version: i16,
    request: AddPartitionsToTxnRequest,
) -> AddPartitionsToTxnResponse {
    let transactions = if version < 4 {
        let single = AddPartitionsToTxnTransaction::default()
            .with_transactional_id(request.v3_and_below_transactional_id)
            .with_producer_id(request.v3_and_below_producer_id)
            .with_producer_epoch(request.v3_and_below_producer_epoch)
            .with_topics(request.v3_and_below_topics);
        vec![single]
    } else {
        request.transactions
    };
    let (mut results, durable) = broker.store.write(|writer| {
        let each = |transaction: &AddPartitionsToTxnTransaction| {
            let topics = join(writer, transaction, version >= 2);
            AddPartitionsToTxnResult::default()
                .with_transactional_id(transaction.transactional_id.clone())
                .with_topic_results(topics)
        };
        transactions.iter().map(each).collect::<Vec<_>>()
    });
    let failed = durable.wait().await.is_err();
    let unavailable = ResponseError::CoordinatorNotAvailable.code();
    if version < 4 {
        let mut topics = results
            .pop()
            .map(|result| result.topic_results)
            .unwrap_or_default();
        if failed {
            // These versions have no error for the whole answer.
            topics
                .iter_mut()
                .flat_map(|topic| &mut topic.results_by_partition)
                .for_each(|row| row.partition_error_code = unavailable);
        }
        return AddPartitionsToTxnResponse::default().with_results_by_topic_v3_and_below(topics);
    }
    if failed {
        return AddPartitionsToTxnResponse::default().with_error_code(unavailable);
    }
    AddPartitionsToTxnResponse::default().with_results_by_transaction(results)
}

fn join(
    writer: &mut Writer<'_>,
    asked: &AddPartitionsToTxnTransaction,
    knows_fenced: bool,
) -> Vec<AddPartitionsToTxnTopicResult> {
    let id = asked.transactional_id.as_str();
    let state = writer.state();
    let transaction = match authentic(
        state,
        id,
        asked.producer_id.0,
        asked.producer_epoch,
        knows_fenced,
    ) {
        Ok(transaction) => transaction,
        Err(error) => return answer(&asked.topics, |_, _| Some(error)),
    };
    let is_known = |topic: &str, index: i32| state.partition(topic, index).is_some();
    if asked.verify_only {
        return answer(&asked.topics, |topic, index| {
            let held = state
                .partition(topic, index)
                .is_some_and(|partition| transaction.holds(partition.id));
            (!held).then_some(ResponseError::TransactionAbortable)
        });
    }
    let all: Vec<(&str, i32)> = asked
        .topics
        .iter()
        .flat_map(|topic| {
            topic
                .partitions
                .iter()
                .map(|index| (topic.name.as_str(), *index))
        })
        .collect();
    if !all.iter().all(|(topic, index)| is_known(topic, *index)) {
        // All or none: those that could have joined say that they were not tried.
        return answer(&asked.topics, |topic, index| {
            let known = is_known(topic, index);
            Some(if known {
                ResponseError::OperationNotAttempted
            } else {
                ResponseError::UnknownTopicOrPartition
            })
        });
    }
    let found = all
        .iter()
        .filter_map(|(topic, index)| state.partition(topic, *index))
        .map(|partition| partition.id);
    let partitions: Vec<_> = found
        .filter(|partition| !transaction.holds(*partition))
        .collect();
    if !partitions.is_empty() {
        writer.emit(Event::PartitionsJoined {
            transactional_id: id.to_owned(),
            partitions,
        });
    }
    answer(&asked.topics, |_, _| None)
}

fn answer(
    topics: &[AddPartitionsToTxnTopic],
    error: impl Fn(&str, i32) -> Option<ResponseError>,
) -> Vec<AddPartitionsToTxnTopicResult> {
    let topic_result = |topic: &AddPartitionsToTxnTopic| {
        let rows = topic.partitions.iter().map(|index| {
            AddPartitionsToTxnPartitionResult::default()
                .with_partition_index(*index)
                .with_partition_error_code(
                    error(topic.name.as_str(), *index).map_or(0, |error| error.code()),
                )
        });
        AddPartitionsToTxnTopicResult::default()
            .with_name(topic.name.clone())
            .with_results_by_partition(rows.collect())
    };
    topics.iter().map(topic_result).collect()
}
