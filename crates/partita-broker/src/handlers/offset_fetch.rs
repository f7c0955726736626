//! OffsetFetch: what groups have committed; one group up to version 7, several from version 8 on.

use std::collections::BTreeMap;
use std::sync::Arc;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::offset_fetch_request::OffsetFetchRequestTopic;
use kafka_protocol::messages::offset_fetch_response::{
    OffsetFetchResponseGroup, OffsetFetchResponsePartition, OffsetFetchResponsePartitions,
    OffsetFetchResponseTopic, OffsetFetchResponseTopics,
};
use kafka_protocol::messages::{OffsetFetchRequest, OffsetFetchResponse, TopicName};
use kafka_protocol::protocol::StrBytes;

use super::distinct;
use crate::BrokerInner;
use crate::net::RequestContext;
use crate::state::offsets::GroupOffsets;

/// What is wanted of one group: these partitions, or all there are.
type Wanted = Option<Vec<(String, Vec<i32>)>>;

/// The answer of a group by topic. What a request names twice is answered once.
type Topics = BTreeMap<String, Partitions>;
type Partitions = BTreeMap<i32, Found>;

/// One partition's answer.
struct Found {
    offset: i64,
    leader_epoch: i32,
    metadata: String,
    error: i16,
}

pub(crate) async fn handle(
    broker: &Arc<BrokerInner>,
    _context: &RequestContext,
    version: i16,
    mut request: OffsetFetchRequest,
) -> OffsetFetchResponse {
    request.groups = distinct(request.groups, |group| group.group_id.clone());
    let require_stable = request.require_stable;
    if version < 8 {
        let wanted = request.topics.as_ref().map(|topics| {
            let topics = topics.iter();
            topics
                .map(|topic| (topic.name.to_string(), topic.partition_indexes.clone()))
                .collect()
        });
        let group = request.group_id.to_string();
        return match look_up(broker, vec![(group, wanted)], require_stable).await {
            Ok(mut groups) => {
                let topics = groups.pop().unwrap_or_default();
                OffsetFetchResponse::default()
                    .with_topics(topics.into_iter().map(topic_of_one).collect())
            }
            // This version has no error for the whole answer.
            Err(code) if version < 2 => {
                let topics = request.topics.unwrap_or_default().into_iter();
                OffsetFetchResponse::default()
                    .with_topics(topics.map(|topic| refused(topic, code)).collect())
            }
            Err(code) => OffsetFetchResponse::default().with_error_code(code),
        };
    }
    let ids: Vec<_> = request
        .groups
        .iter()
        .map(|group| group.group_id.clone())
        .collect();
    let wanted = request.groups.into_iter().map(|group| {
        let topics = group.topics.map(|topics| {
            let topics = topics.into_iter();
            topics
                .map(|topic| (topic.name.to_string(), topic.partition_indexes))
                .collect()
        });
        (group.group_id.to_string(), topics)
    });
    let found = look_up(broker, wanted.collect(), require_stable).await;
    let groups = ids.into_iter().enumerate().map(|(position, id)| {
        let answer = OffsetFetchResponseGroup::default().with_group_id(id);
        match &found {
            Ok(groups) => answer.with_topics(groups[position].iter().map(topic_of_many).collect()),
            Err(code) => answer.with_error_code(*code),
        }
    });
    OffsetFetchResponse::default().with_groups(groups.collect())
}

/// What each group has, in the order in which they were asked for. Offsets that are not durable are not told: a
/// consumer that went on from one would skip records if the broker came back without it.
async fn look_up(
    broker: &Arc<BrokerInner>,
    groups: Vec<(String, Wanted)>,
    require_stable: bool,
) -> Result<Vec<Topics>, i16> {
    let nothing = GroupOffsets::default();
    let (found, durable) = broker.store.write(|writer| {
        let state = writer.state();
        let look = |(group, wanted): &(String, Wanted)| {
            let offsets = state.group(group).unwrap_or(&nothing);
            find(offsets, wanted, require_stable)
        };
        groups.iter().map(look).collect()
    });
    match durable.wait().await {
        Ok(()) => Ok(found),
        Err(_) => Err(ResponseError::CoordinatorNotAvailable.code()),
    }
}

fn find(offsets: &GroupOffsets, wanted: &Wanted, require_stable: bool) -> Topics {
    let mut found = Topics::new();
    match wanted {
        Some(topics) => {
            for (topic, partitions) in topics {
                let rows = found.entry(topic.clone()).or_default();
                for partition in partitions {
                    let look = || find_one(offsets, topic, *partition, require_stable);
                    rows.entry(*partition).or_insert_with(look);
                }
            }
        }
        None => {
            for (topic, partitions) in &offsets.committed {
                let look = |partition: &i32| {
                    (
                        *partition,
                        find_one(offsets, topic, *partition, require_stable),
                    )
                };
                found.insert(topic.clone(), partitions.keys().map(look).collect());
            }
        }
    }
    found
}

fn find_one(offsets: &GroupOffsets, topic: &str, partition: i32, require_stable: bool) -> Found {
    let nothing = Found {
        offset: -1,
        leader_epoch: -1,
        metadata: String::new(),
        error: 0,
    };
    if require_stable && offsets.is_pending(topic, partition) {
        let error = ResponseError::UnstableOffsetCommit.code();
        return Found { error, ..nothing };
    }
    match offsets.get(topic, partition) {
        None => nothing,
        Some(committed) => Found {
            offset: committed.offset,
            leader_epoch: committed.leader_epoch,
            metadata: committed.metadata.clone(),
            ..nothing
        },
    }
}

fn topic_of_one((name, partitions): (String, Partitions)) -> OffsetFetchResponseTopic {
    let partitions = partitions.into_iter().map(|(partition, found)| {
        OffsetFetchResponsePartition::default()
            .with_partition_index(partition)
            .with_committed_offset(found.offset)
            .with_committed_leader_epoch(found.leader_epoch)
            .with_metadata(Some(StrBytes::from_string(found.metadata)))
            .with_error_code(found.error)
    });
    OffsetFetchResponseTopic::default()
        .with_name(TopicName(StrBytes::from_string(name)))
        .with_partitions(partitions.collect())
}

fn refused(topic: OffsetFetchRequestTopic, code: i16) -> OffsetFetchResponseTopic {
    let partitions = topic.partition_indexes.into_iter().map(|partition| {
        OffsetFetchResponsePartition::default()
            .with_partition_index(partition)
            .with_committed_offset(-1)
            .with_error_code(code)
    });
    OffsetFetchResponseTopic::default()
        .with_partitions(partitions.collect())
        .with_name(topic.name)
}

fn topic_of_many((name, partitions): (&String, &Partitions)) -> OffsetFetchResponseTopics {
    let partitions = partitions.iter().map(|(partition, found)| {
        OffsetFetchResponsePartitions::default()
            .with_partition_index(*partition)
            .with_committed_offset(found.offset)
            .with_committed_leader_epoch(found.leader_epoch)
            .with_metadata(Some(StrBytes::from_string(found.metadata.clone())))
            .with_error_code(found.error)
    });
    OffsetFetchResponseTopics::default()
        .with_name(TopicName(StrBytes::from_string(name.clone())))
        .with_partitions(partitions.collect())
}
