//! ListOffsets: the first, the last, or the first from some instant on.

use std::sync::Arc;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::list_offsets_request::ListOffsetsPartition;
use kafka_protocol::messages::list_offsets_response::{
    ListOffsetsPartitionResponse, ListOffsetsTopicResponse,
};
use kafka_protocol::messages::{ListOffsetsRequest, ListOffsetsResponse, TopicName};

use super::check_leader_epoch;
use crate::BrokerInner;
use crate::batch::BatchHeader;
use crate::net::RequestContext;
use crate::reader::{Piece, gather};
use crate::records;
use crate::state::Partition;

/// Meanings of negative timestamps.
const LATEST: i64 = -1;
const EARLIEST: i64 = -2;
const MAX_TIMESTAMP: i64 = -3;
const EARLIEST_LOCAL: i64 = -4;
const LATEST_TIERED: i64 = -5;

/// Timestamp and offset; both -1 where there is none.
type Found = (i64, i64);

pub(crate) async fn handle(
    broker: &Arc<BrokerInner>,
    _context: &RequestContext,
    version: i16,
    request: ListOffsetsRequest,
) -> ListOffsetsResponse {
    let committed_only = request.isolation_level == 1;
    let mut topics = Vec::with_capacity(request.topics.len());
    for topic in request.topics {
        let mut rows = Vec::with_capacity(topic.partitions.len());
        for wanted in &topic.partitions {
            let row = ListOffsetsPartitionResponse::default()
                .with_partition_index(wanted.partition_index);
            rows.push(
                match find(broker, &topic.name, wanted, committed_only).await {
                    Ok((timestamp, offset)) => row
                        .with_timestamp(timestamp)
                        .with_offset(offset)
                        .with_leader_epoch(if offset < 0 || version < 4 { -1 } else { 0 }),
                    Err(error) => row
                        .with_error_code(error.code())
                        .with_timestamp(-1)
                        .with_offset(-1)
                        .with_leader_epoch(-1),
                },
            );
        }
        topics.push(
            ListOffsetsTopicResponse::default()
                .with_name(topic.name)
                .with_partitions(rows),
        );
    }
    ListOffsetsResponse::default().with_topics(topics)
}

async fn find(
    broker: &Arc<BrokerInner>,
    topic: &TopicName,
    wanted: &ListOffsetsPartition,
    committed_only: bool,
) -> Result<Found, ResponseError> {
    let look = |found: Result<Found, Candidate>| found;
    let found = broker.store.read_with_log(|state, log| {
        let partition = state
            .partition(topic, wanted.partition_index)
            .ok_or(ResponseError::UnknownTopicOrPartition)?;
        check_leader_epoch(wanted.current_leader_epoch)?;
        let end = partition.view.end(committed_only);
        let found = match wanted.timestamp {
            LATEST => Ok((-1, end)),
            EARLIEST | EARLIEST_LOCAL => Ok((-1, partition.log_start)),
            LATEST_TIERED => Ok((-1, -1)),
            MAX_TIMESTAMP => candidate(partition, log, greatest_timestamp(partition, end), end),
            timestamp if timestamp >= 0 => candidate(partition, log, timestamp, end),
            _ => return Err(ResponseError::UnsupportedVersion),
        };
        Ok(look(found))
    })?;
    let candidate = match found {
        Ok(found) => return Ok(found),
        Err(candidate) => candidate,
    };
    let limit = broker.config.max_decompressed_bytes;
    let read = tokio::task::spawn_blocking(move || candidate.search(limit)).await;
    read.map_err(|_| ResponseError::UnknownServerError)?.map_err(|error| {
        tracing::error!(topic = %topic.0, partition = wanted.partition_index, %error, "looking for a timestamp failed");
        ResponseError::KafkaStorageError
    })
}

/// A stretch of the log in which the record must be.
struct Candidate {
    pieces: Vec<Piece>,
    timestamp: i64,
    from: i64,
    /// What to answer when no record inside fits after all.
    fallback: Found,
}

/// The first entry whose records reach up to `timestamp`, to be searched.
fn candidate(
    partition: &Partition,
    log: &crate::wal::LogHead,
    timestamp: i64,
    end: i64,
) -> Result<Found, Candidate> {
    let reaches = |entry: &&crate::state::index::Entry| entry.max_timestamp >= timestamp;
    let Some(entry) = partition
        .entries
        .iter()
        .find(reaches)
        .filter(|entry| entry.base_offset < end)
    else {
        return Ok((-1, -1));
    };
    let from = entry.base_offset.max(partition.log_start);
    let fallback = (entry.max_timestamp, from);
    match Piece::of(entry, log) {
        Some(piece) => Err(Candidate {
            pieces: vec![piece],
            timestamp,
            from,
            fallback,
        }),
        None => Ok(fallback),
    }
}

fn greatest_timestamp(partition: &Partition, end: i64) -> i64 {
    let visible = partition
        .entries
        .iter()
        .take_while(|entry| entry.base_offset < end);
    visible
        .map(|entry| entry.max_timestamp)
        .max()
        .unwrap_or(i64::MAX)
}

impl Candidate {
    /// Looks at the records themselves. Blocks.
    fn search(self, limit: usize) -> anyhow::Result<Found> {
        let bytes = gather(self.pieces, self.from)?;
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let header = BatchHeader::parse(rest)?;
            let (batch, after) = rest
                .split_at_checked(header.bytes as usize)
                .unwrap_or((rest, &[]));
            rest = after;
            if header.max_timestamp < self.timestamp {
                continue;
            }
            if header.uses_append_time() || header.is_control() {
                return Ok((header.max_timestamp, header.base_offset.max(self.from)));
            }
            let body = records::decompress(&header, batch, limit)?;
            let mut found = None;
            records::for_each(&header, &body, |record| {
                let timestamp = header.base_timestamp + record.timestamp_delta;
                let offset = header.base_offset + i64::from(record.offset_delta);
                if found.is_none() && timestamp >= self.timestamp && offset >= self.from {
                    found = Some((timestamp, offset));
                }
            })?;
            if let Some(found) = found {
                return Ok(found);
            }
        }
        Ok(self.fallback)
    }
}
