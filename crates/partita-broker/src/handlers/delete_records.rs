//! DeleteRecords: everything below an offset goes.

use std::sync::Arc;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::delete_records_response::{
    DeleteRecordsPartitionResult, DeleteRecordsTopicResult,
};
use kafka_protocol::messages::{DeleteRecordsRequest, DeleteRecordsResponse};

use crate::BrokerInner;
use crate::net::RequestContext;
use crate::state::Event;
use crate::store::Writer;

/// Stands for the high watermark.
const ALL: i64 = -1;

pub(crate) async fn handle(
    broker: &Arc<BrokerInner>,
    _context: &RequestContext,
    _version: i16,
    request: DeleteRecordsRequest,
) -> DeleteRecordsResponse {
    let (outcomes, durable) = broker.store.write(|writer| {
        let all = request
            .topics
            .iter()
            .flat_map(|topic| topic.partitions.iter().map(move |wanted| (topic, wanted)));
        all.map(|(topic, wanted)| {
            delete(writer, &topic.name, wanted.partition_index, wanted.offset)
        })
        .collect::<Vec<_>>()
    });
    let durable = durable.wait().await;
    let mut outcomes = outcomes.into_iter();
    let topics = request.topics.into_iter().map(|topic| {
        let rows = topic.partitions.iter().map(|wanted| {
            let outcome = outcomes
                .next()
                .unwrap_or(Err(ResponseError::UnknownServerError));
            let outcome = if durable.is_ok() {
                outcome
            } else {
                Err(ResponseError::KafkaStorageError)
            };
            DeleteRecordsPartitionResult::default()
                .with_partition_index(wanted.partition_index)
                .with_low_watermark(outcome.unwrap_or(-1))
                .with_error_code(outcome.err().map_or(0, |error| error.code()))
        });
        DeleteRecordsTopicResult::default()
            .with_partitions(rows.collect())
            .with_name(topic.name)
    });
    DeleteRecordsResponse::default().with_topics(topics.collect())
}

/// Returns where the partition begins from now on.
fn delete(
    writer: &mut Writer<'_>,
    topic: &str,
    index: i32,
    offset: i64,
) -> Result<i64, ResponseError> {
    let state = writer.state();
    let topic = state
        .topic(topic)
        .ok_or(ResponseError::UnknownTopicOrPartition)?;
    let partition = state
        .partition_of(topic, index)
        .ok_or(ResponseError::UnknownTopicOrPartition)?;
    if !topic.settings.delete {
        return Err(ResponseError::PolicyViolation);
    }
    let end = partition.view.high_watermark();
    let offset = if offset == ALL { end } else { offset };
    if !(0..=end).contains(&offset) {
        return Err(ResponseError::OffsetOutOfRange);
    }
    let (id, start) = (partition.id, partition.log_start);
    if offset > start {
        writer.emit(Event::LogStartMoved {
            partition: id,
            offset,
        });
    }
    Ok(offset.max(start))
}
