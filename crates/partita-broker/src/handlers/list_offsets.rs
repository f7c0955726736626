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
use crate::state::index::Entry;

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
    let place = broker.searches.clone().acquire_owned().await;
    let search = move || {
        // Given back when the search is over, even if its client is gone before.
        let _place = place;
        candidate.search(limit)
    };
    let read = tokio::task::spawn_blocking(search).await;
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
}

/// The first entries whose records reach up to `timestamp`, to be searched: of the first of all the record may have
/// been deleted, so there are two.
fn candidate(
    partition: &Partition,
    log: &crate::wal::LogHead,
    timestamp: i64,
    end: i64,
) -> Result<Found, Candidate> {
    let from = partition.log_start;
    let pieces: Vec<Piece> = partition
        .entries
        .iter()
        .take_while(|entry| entry.base_offset.max(from) < end)
        .filter(|entry| {
            entry
                .newest_record()
                .is_some_and(|newest| newest >= timestamp)
        })
        .take(2)
        .map_while(|entry| Piece::of(entry, log))
        .collect();
    if pieces.is_empty() {
        return Ok((-1, -1));
    }
    Err(Candidate {
        pieces,
        timestamp,
        from,
    })
}

fn greatest_timestamp(partition: &Partition, end: i64) -> i64 {
    let visible = partition
        .entries
        .iter()
        .take_while(|entry| entry.base_offset < end);
    visible
        .filter_map(Entry::newest_record)
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
                let timestamp = header.base_timestamp.wrapping_add(record.timestamp_delta);
                let offset = header.base_offset + i64::from(record.offset_delta);
                if found.is_none() && timestamp >= self.timestamp && offset >= self.from {
                    found = Some((timestamp, offset));
                }
            })?;
            if let Some(found) = found {
                return Ok(found);
            }
        }
        Ok((-1, -1))
    }
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::list_offsets_request::ListOffsetsTopic;
    use kafka_protocol::protocol::StrBytes;

    use super::*;
    use crate::batch::{HEADER_BYTES, seal};
    use crate::state::Event;
    use crate::testing::{Sample, batch, topic_created};
    use crate::{Broker, Config};

    /// A broker with these batches in partition 0 of `t`, which begins at `start`.
    async fn broker(batches: &[Vec<u8>], start: i64) -> Broker {
        let broker = Broker::start(Config::memory()).await.expect("starts");
        let ((), durable) = broker.inner.store.write(|writer| {
            writer.emit(topic_created("t", 1));
            for bytes in batches {
                let header = BatchHeader::check(bytes).expect("it is in order");
                writer.append_batch(0, &header, false, bytes);
            }
            writer.emit(Event::LogStartMoved {
                partition: 0,
                offset: start,
            });
        });
        durable.wait().await.expect("memory takes it");
        broker
    }

    /// Three records at `base`, `base` + 1 and `base` + 2, the first of them `more` later.
    fn three(base: i64, more: u8, max: i64) -> Vec<u8> {
        let (_, mut bytes) = batch(Sample::plain(3));
        bytes[27..35].copy_from_slice(&base.to_be_bytes());
        bytes[35..43].copy_from_slice(&max.to_be_bytes());
        bytes[HEADER_BYTES + 2] = more << 1;
        seal(&mut bytes);
        bytes
    }

    async fn ask(broker: &Broker, timestamp: i64) -> (i16, i64, i64) {
        let partition = ListOffsetsPartition::default().with_timestamp(timestamp);
        let topic = ListOffsetsTopic::default()
            .with_name(TopicName(StrBytes::from_static_str("t")))
            .with_partitions(vec![partition]);
        let request = ListOffsetsRequest::default().with_topics(vec![topic]);
        let context = RequestContext {
            client_id: String::new(),
            client_host: String::new(),
        };
        let response = handle(&broker.inner, &context, 7, request).await;
        let row = &response.topics[0].partitions[0];
        (row.error_code, row.timestamp, row.offset)
    }

    #[tokio::test]
    async fn timestamps_beyond_all_bounds_are_only_numbers() {
        let broker = broker(&[three(i64::MAX, 0, i64::MAX)], 0).await;
        let (error, _, offset) = ask(&broker, 5).await;
        assert_eq!((error, offset), (0, 0));
    }

    #[tokio::test]
    async fn no_more_searches_run_at_once_than_may() {
        let broker = broker(&[three(1000, 0, 1002)], 0).await;
        let all = broker.inner.searches.acquire_many(4).await;
        let searching = ask(&broker, 1001);
        tokio::pin!(searching);
        let waited = tokio::time::timeout(std::time::Duration::from_millis(10), &mut searching);
        assert!(waited.await.is_err(), "it has no place");
        drop(all);
        assert_eq!(searching.await, (0, 1001, 1));
    }

    #[tokio::test]
    async fn records_that_were_deleted_do_not_answer_for_those_that_remain() {
        let broker = broker(&[three(1000, 60, 1060), three(2000, 0, 2002)], 1).await;
        assert_eq!(ask(&broker, 1001).await, (0, 1001, 1));
        assert_eq!(ask(&broker, 1050).await, (0, 2000, 3));
        assert_eq!(ask(&broker, 2001).await, (0, 2001, 4));
        assert_eq!(ask(&broker, 3000).await, (0, -1, -1));
    }

    #[tokio::test]
    async fn records_without_timestamps_are_not_found_by_one() {
        let none = || three(-1, 0, -1);
        let broker = broker(&[none(), none(), none(), three(1000, 0, 1002)], 0).await;
        assert_eq!(ask(&broker, 1001).await, (0, 1001, 10));
        assert_eq!(ask(&broker, MAX_TIMESTAMP).await, (0, 1002, 11));
        assert_eq!(ask(&broker, 3000).await, (0, -1, -1));
    }
}
