//! OffsetCommit: how far a group has read, committed by a member or, where there are none, by anyone.

use std::sync::Arc;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::offset_commit_request::OffsetCommitRequestTopic;
use kafka_protocol::messages::offset_commit_response::{
    OffsetCommitResponsePartition, OffsetCommitResponseTopic,
};
use kafka_protocol::messages::{OffsetCommitRequest, OffsetCommitResponse};

use crate::BrokerInner;
use crate::config::Config;
use crate::group::{CommitClaim, GroupError};
use crate::net::RequestContext;
use crate::state::event::OffsetEntry;
use crate::state::offsets::Committed;
use crate::state::{Event, State};

pub(crate) async fn handle(
    broker: &Arc<BrokerInner>,
    _context: &RequestContext,
    _version: i16,
    request: OffsetCommitRequest,
) -> OffsetCommitResponse {
    let group = request.group_id.to_string();
    if group.is_empty() || group.len() > broker.config.groups.max_name_bytes {
        return all_refused(request, GroupError::InvalidGroupId.code());
    }
    let claim = CommitClaim {
        generation: request.generation_id_or_member_epoch,
        member_id: &request.member_id,
        instance_id: request.group_instance_id.as_deref(),
        is_transactional: false,
    };
    let max_groups = broker.config.groups.max_groups;
    let commit = || {
        broker.store.write(|writer| {
            let state = writer.state();
            if state.group(&group).is_none() && state.groups().count() >= max_groups {
                return Err(GroupError::TooManyGroups);
            }
            let (topics, offsets) = sort_out(&broker.config, state, &request.topics);
            if !offsets.is_empty() {
                let group = group.clone();
                writer.emit(Event::OffsetsCommitted { group, offsets });
            }
            Ok(topics)
        })
    };
    match broker.groups.commit(&group, claim, commit) {
        Ok((Ok(topics), durable)) => match durable.wait().await {
            Ok(()) => OffsetCommitResponse::default().with_topics(topics),
            Err(_) => all_refused(request, ResponseError::CoordinatorNotAvailable.code()),
        },
        Ok((Err(error), _)) | Err(error) => all_refused(request, error.code()),
    }
}

/// The answer for each partition, and the offsets that can be kept.
fn sort_out(
    config: &Config,
    state: &State,
    topics: &[OffsetCommitRequestTopic],
) -> (Vec<OffsetCommitResponseTopic>, Vec<OffsetEntry>) {
    let mut offsets = Vec::new();
    let answers = topics.iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|wanted| {
            let index = wanted.partition_index;
            let metadata = wanted.committed_metadata.as_deref().unwrap_or_default();
            let error = check(config, state, &topic.name, index, metadata);
            if error.is_none() {
                offsets.push(OffsetEntry {
                    topic: topic.name.to_string(),
                    partition: index,
                    committed: Committed {
                        offset: wanted.committed_offset,
                        leader_epoch: wanted.committed_leader_epoch,
                        metadata: metadata.to_owned(),
                    },
                });
            }
            OffsetCommitResponsePartition::default()
                .with_partition_index(index)
                .with_error_code(error.map_or(0, |error| error.code()))
        });
        OffsetCommitResponseTopic::default()
            .with_name(topic.name.clone())
            .with_partitions(partitions.collect())
    });
    (answers.collect(), offsets)
}

/// What stands against keeping an offset of this partition.
fn check(
    config: &Config,
    state: &State,
    topic: &str,
    partition: i32,
    metadata: &str,
) -> Option<ResponseError> {
    if state.partition(topic, partition).is_none() {
        Some(ResponseError::UnknownTopicOrPartition)
    } else if metadata.len() > config.offset_metadata_max_bytes {
        Some(ResponseError::OffsetMetadataTooLarge)
    } else {
        None
    }
}

fn all_refused(request: OffsetCommitRequest, code: i16) -> OffsetCommitResponse {
    let topics = request.topics.into_iter().map(|topic| {
        let partitions = topic.partitions.iter().map(|partition| {
            OffsetCommitResponsePartition::default()
                .with_partition_index(partition.partition_index)
                .with_error_code(code)
        });
        let partitions = partitions.collect();
        OffsetCommitResponseTopic::default()
            .with_name(topic.name)
            .with_partitions(partitions)
    });
    OffsetCommitResponse::default().with_topics(topics.collect())
}
