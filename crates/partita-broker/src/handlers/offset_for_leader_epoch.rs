//! OffsetForLeaderEpoch: there has been one leader epoch, 0, and it ends where the log ends.

use std::sync::Arc;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::offset_for_leader_epoch_response::{
    EpochEndOffset, OffsetForLeaderTopicResult,
};
use kafka_protocol::messages::{OffsetForLeaderEpochRequest, OffsetForLeaderEpochResponse};

use super::check_leader_epoch;
use crate::BrokerInner;
use crate::net::RequestContext;

pub(crate) async fn handle(
    broker: &Arc<BrokerInner>,
    _context: &RequestContext,
    _version: i16,
    request: OffsetForLeaderEpochRequest,
) -> OffsetForLeaderEpochResponse {
    let topics = broker.store.read(|state| {
        let each = |topic: &kafka_protocol::messages::offset_for_leader_epoch_request::OffsetForLeaderTopic| {
            let rows = topic.partitions.iter().map(|wanted| {
                let row = EpochEndOffset::default().with_partition(wanted.partition);
                let partition =
                    state.partition(&topic.topic, wanted.partition).ok_or(ResponseError::UnknownTopicOrPartition);
                match partition.and_then(|found| check_leader_epoch(wanted.current_leader_epoch).map(|()| found)) {
                    Ok(found) if wanted.leader_epoch == 0 => {
                        row.with_leader_epoch(0).with_end_offset(found.view.high_watermark())
                    }
                    Ok(_) => row.with_leader_epoch(-1).with_end_offset(-1),
                    Err(error) => row.with_error_code(error.code()).with_leader_epoch(-1).with_end_offset(-1),
                }
            });
            OffsetForLeaderTopicResult::default().with_topic(topic.topic.clone()).with_partitions(rows.collect())
        };
        request.topics.iter().map(each).collect()
    });
    OffsetForLeaderEpochResponse::default().with_topics(topics)
}
