//! OffsetDelete: forgets what a group committed for topics that none of its members reads.

use std::sync::Arc;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::offset_delete_response::{
    OffsetDeleteResponsePartition, OffsetDeleteResponseTopic,
};
use kafka_protocol::messages::{OffsetDeleteRequest, OffsetDeleteResponse};

use crate::BrokerInner;
use crate::group::GroupError;
use crate::net::RequestContext;
use crate::state::Event;

pub(crate) async fn handle(
    broker: &Arc<BrokerInner>,
    _context: &RequestContext,
    _version: i16,
    request: OffsetDeleteRequest,
) -> OffsetDeleteResponse {
    let group = request.group_id.to_string();
    let has_offsets = broker.store.read(|state| state.group(&group).is_some());
    if !has_offsets && broker.groups.describe(&group).is_none() {
        let code = GroupError::GroupIdNotFound.code();
        return OffsetDeleteResponse::default().with_error_code(code);
    }
    let mut forgotten = Vec::new();
    let topics: Vec<_> = request
        .topics
        .into_iter()
        .map(|topic| {
            let in_use = broker.groups.is_subscribed(&group, &topic.name);
            let partitions = topic.partitions.iter().map(|partition| {
                let answer = OffsetDeleteResponsePartition::default()
                    .with_partition_index(partition.partition_index);
                if in_use {
                    return answer.with_error_code(ResponseError::GroupSubscribedToTopic.code());
                }
                forgotten.push((topic.name.to_string(), partition.partition_index));
                answer
            });
            let partitions = partitions.collect();
            OffsetDeleteResponseTopic::default()
                .with_name(topic.name)
                .with_partitions(partitions)
        })
        .collect();
    let ((), durable) = broker.store.write(|writer| {
        if !forgotten.is_empty() {
            let partitions = forgotten;
            writer.emit(Event::OffsetsDeleted { group, partitions });
        }
    });
    match durable.wait().await {
        Ok(()) => OffsetDeleteResponse::default().with_topics(topics),
        Err(_) => OffsetDeleteResponse::default()
            .with_error_code(ResponseError::CoordinatorNotAvailable.code()),
    }
}
