//! WriteTxnMarkers: how an administrator ends a transaction that its producer left open.
//!
//! Between brokers this API carries the coordinator's decision to the partitions. Here one record decides for all of
//! them, so a marker for one partition aborts the whole transaction and fences its producer off, just as its timeout
//! would have done later. Whether a transaction commits is its producer's to say, so a commit is refused.

use std::sync::Arc;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::write_txn_markers_request::WritableTxnMarker;
use kafka_protocol::messages::write_txn_markers_response::{
    WritableTxnMarkerPartitionResult, WritableTxnMarkerResult, WritableTxnMarkerTopicResult,
};
use kafka_protocol::messages::{WriteTxnMarkersRequest, WriteTxnMarkersResponse};

use crate::BrokerInner;
use crate::net::RequestContext;
use crate::state::{Event, State};
use crate::store::Writer;

pub(crate) async fn handle(
    broker: &Arc<BrokerInner>,
    _context: &RequestContext,
    _version: i16,
    request: WriteTxnMarkersRequest,
) -> WriteTxnMarkersResponse {
    let (mut results, durable) = broker.store.write(|writer| {
        let markers = request.markers.iter();
        markers
            .map(|marker| end(writer, marker))
            .collect::<Vec<_>>()
    });
    if durable.wait().await.is_err() {
        let all = results.iter_mut().flat_map(|result| &mut result.topics);
        for partition in all.flat_map(|topic| &mut topic.partitions) {
            partition.error_code = ResponseError::KafkaStorageError.code();
        }
    }
    WriteTxnMarkersResponse::default().with_markers(results)
}

/// Judges the partitions of a marker, all by the state before it, and aborts the transaction if it is open in one.
fn end(writer: &mut Writer<'_>, marker: &WritableTxnMarker) -> WritableTxnMarkerResult {
    let state = writer.state();
    let mut is_open = false;
    let topics = marker.topics.iter().map(|topic| {
        let rows = topic.partition_indexes.iter().map(|index| {
            let judged = judge(state, marker, &topic.name, *index);
            is_open |= judged == Ok(true);
            WritableTxnMarkerPartitionResult::default()
                .with_partition_index(*index)
                .with_error_code(judged.err().map_or(0, |error| error.code()))
        });
        WritableTxnMarkerTopicResult::default()
            .with_partitions(rows.collect())
            .with_name(topic.name.clone())
    });
    let topics = topics.collect();
    let owner = state.transaction_of(marker.producer_id.0);
    if is_open && let Some((name, transaction)) = owner {
        let (transactional_id, epoch) = (name.to_owned(), transaction.epoch.saturating_add(1));
        tracing::warn!(transactional_id, "aborted a transaction as it was asked to");
        writer.emit(Event::TransactionEnded {
            transactional_id,
            committed: false,
            epoch,
        });
    }
    WritableTxnMarkerResult::default()
        .with_producer_id(marker.producer_id)
        .with_topics(topics)
}

/// Whether the transaction that the marker means is open in this partition, or what stands against the marker.
fn judge(
    state: &State,
    marker: &WritableTxnMarker,
    topic: &str,
    index: i32,
) -> Result<bool, ResponseError> {
    let partition = state
        .partition(topic, index)
        .ok_or(ResponseError::UnknownTopicOrPartition)?;
    let Some(producer) = partition.producers.get(&marker.producer_id.0) else {
        return Ok(false);
    };
    if producer.epoch != marker.producer_epoch {
        return Err(ResponseError::InvalidProducerEpoch);
    }
    let is_open = producer.transaction_start.is_some();
    if is_open && marker.transaction_result {
        return Err(ResponseError::InvalidTxnState);
    }
    Ok(is_open)
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::write_txn_markers_request::WritableTxnMarkerTopic;
    use kafka_protocol::messages::{ProducerId, TopicName};
    use kafka_protocol::protocol::StrBytes;

    use super::*;
    use crate::state::transaction::Phase;
    use crate::testing::{Sample, batch, topic_created};
    use crate::{Broker, Config};

    const PRODUCER: i64 = 5;
    const EPOCH: i16 = 3;

    /// A broker with an open transaction that wrote to partition 0 and has joined, but not written to, partition 1.
    async fn broker() -> Broker {
        let broker = Broker::start(Config::memory()).await.expect("starts");
        let ((), durable) = broker.inner.store.write(|writer| {
            writer.emit(topic_created("t", 3));
            writer.emit(Event::TransactionalProducer {
                transactional_id: "transfer".to_owned(),
                producer_id: PRODUCER,
                epoch: EPOCH,
                timeout_ms: 600_000,
                renews: None,
            });
            let id = |index| writer.state().partition("t", index).expect("exists").id;
            let partitions = vec![id(0), id(1)];
            let first = id(0);
            writer.emit(Event::PartitionsJoined {
                transactional_id: "transfer".to_owned(),
                partitions,
            });
            let (header, bytes) = batch(Sample {
                producer_id: PRODUCER,
                epoch: EPOCH,
                sequence: 0,
                records: 2,
                transactional: true,
            });
            writer.append_batch(first, &header, false, &bytes);
        });
        durable.wait().await.expect("memory takes it");
        broker
    }

    /// The error codes for partitions 0, 1, 2 and 9 of `t`.
    async fn mark(broker: &Broker, producer_id: i64, epoch: i16, commit: bool) -> Vec<i16> {
        let topic = WritableTxnMarkerTopic::default()
            .with_name(TopicName(StrBytes::from_static_str("t")))
            .with_partition_indexes(vec![0, 1, 2, 9]);
        let marker = WritableTxnMarker::default()
            .with_producer_id(ProducerId(producer_id))
            .with_producer_epoch(epoch)
            .with_transaction_result(commit)
            .with_topics(vec![topic]);
        let request = WriteTxnMarkersRequest::default().with_markers(vec![marker]);
        let context = RequestContext {
            client_id: String::new(),
            client_host: String::new(),
        };
        let response = handle(&broker.inner, &context, 1, request).await;
        let rows = response.markers[0].topics[0].partitions.iter();
        rows.map(|row| row.error_code).collect()
    }

    fn phase(broker: &Broker) -> (Phase, i16) {
        broker.inner.store.read(|state| {
            let transaction = state.transaction("transfer").expect("it is there");
            (transaction.phase.clone(), transaction.epoch)
        })
    }

    #[tokio::test]
    async fn an_abort_ends_the_whole_transaction_and_fences_its_producer() {
        let broker = broker().await;
        assert_eq!(mark(&broker, PRODUCER, EPOCH, false).await, [0, 0, 0, 3]);
        let aborted = Phase::Ended { committed: false };
        assert_eq!(phase(&broker), (aborted, EPOCH + 1));
        broker.inner.store.read(|state| {
            let partition = state.partition("t", 0).expect("exists");
            assert_eq!((partition.last_stable(), partition.log_end), (3, 3));
            assert_eq!(partition.aborted.len(), 1);
        });
        // Asked again, the epoch is an old one by now.
        assert_eq!(mark(&broker, PRODUCER, EPOCH, false).await[0], 47);
    }

    #[tokio::test]
    async fn what_is_not_its_to_end_stays_open() {
        let broker = broker().await;
        assert_eq!(mark(&broker, PRODUCER, EPOCH, true).await, [48, 0, 0, 3]);
        assert_eq!(mark(&broker, PRODUCER, EPOCH - 1, false).await[0], 47);
        assert_eq!(mark(&broker, PRODUCER, EPOCH + 1, false).await[0], 47);
        assert_eq!(mark(&broker, 77, EPOCH, false).await, [0, 0, 0, 3]);
        assert!(matches!(phase(&broker), (Phase::Open { .. }, EPOCH)));
    }
}
