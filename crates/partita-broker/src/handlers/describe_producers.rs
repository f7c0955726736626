//! DescribeProducers: who wrote to a partition, how far each got, and the transaction that each has open there.

use std::sync::Arc;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::describe_producers_response::{
    PartitionResponse, ProducerState, TopicResponse,
};
use kafka_protocol::messages::{DescribeProducersRequest, DescribeProducersResponse, ProducerId};

use super::distinct;
use crate::BrokerInner;
use crate::net::RequestContext;
use crate::state::{Partition, State};

pub(crate) async fn handle(
    broker: &Arc<BrokerInner>,
    _context: &RequestContext,
    _version: i16,
    request: DescribeProducersRequest,
) -> DescribeProducersResponse {
    let topics = distinct(request.topics, |topic| topic.name.clone()).into_iter();
    let topics = broker.store.read(|state| {
        topics
            .map(|topic| {
                let indexes = distinct(topic.partition_indexes, |index| *index);
                let partitions = indexes
                    .into_iter()
                    .map(|index| describe(state, &topic.name, index))
                    .collect();
                TopicResponse::default()
                    .with_name(topic.name)
                    .with_partitions(partitions)
            })
            .collect()
    });
    DescribeProducersResponse::default().with_topics(topics)
}

fn describe(state: &State, topic: &str, index: i32) -> PartitionResponse {
    let response = PartitionResponse::default().with_partition_index(index);
    match state.partition(topic, index) {
        Some(partition) => response.with_active_producers(producers_of(partition)),
        None => response.with_error_code(ResponseError::UnknownTopicOrPartition.code()),
    }
}

fn producers_of(partition: &Partition) -> Vec<ProducerState> {
    let mut producers: Vec<_> = partition.producers.iter().collect();
    producers.sort_by_key(|(id, _)| **id);
    let states = producers.into_iter().map(|(id, producer)| {
        let last_sequence = producer
            .batches
            .back()
            .map_or(-1, |batch| batch.last_sequence);
        ProducerState::default()
            .with_producer_id(ProducerId(*id))
            .with_producer_epoch(i32::from(producer.epoch))
            .with_last_sequence(last_sequence)
            .with_last_timestamp(producer.seen_at)
            .with_coordinator_epoch(-1)
            .with_current_txn_start_offset(producer.transaction_start.unwrap_or(-1))
    });
    states.collect()
}
