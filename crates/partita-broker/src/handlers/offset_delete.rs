//! OffsetDelete: forgets what a group committed for topics that none of its members reads, and, as Apache Kafka does,
//! what open transactions would commit for them.

use std::collections::BTreeSet;
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
    // Only those not in use.
    let mut wanted = Vec::new();
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
                wanted.push((topic.name.clone(), partition.partition_index));
                answer
            });
            let partitions = partitions.collect();
            OffsetDeleteResponseTopic::default()
                .with_name(topic.name)
                .with_partitions(partitions)
        })
        .collect();
    let ((), durable) = broker.store.write(|writer| {
        let Some(offsets) = writer.state().group(&group) else {
            return;
        };
        // What is not there need not be forgotten, and would only make the log longer than the request.
        let there = wanted.into_iter().filter(|(topic, partition)| {
            offsets.get(topic, *partition).is_some() || offsets.is_pending(topic, *partition)
        });
        let there: BTreeSet<_> = there.collect();
        if !there.is_empty() {
            let partitions = there.into_iter();
            let partitions = partitions.map(|(topic, partition)| (topic.to_string(), partition));
            writer.emit(Event::OffsetsDeleted {
                group,
                partitions: partitions.collect(),
            });
        }
    });
    match durable.wait().await {
        Ok(()) => OffsetDeleteResponse::default().with_topics(topics),
        Err(_) => OffsetDeleteResponse::default()
            .with_error_code(ResponseError::CoordinatorNotAvailable.code()),
    }
}
