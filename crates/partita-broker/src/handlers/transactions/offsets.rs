//! AddOffsetsToTxn and TxnOffsetCommit: offsets of a group that count when the transaction commits.

use std::sync::Arc;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::txn_offset_commit_response::{
    TxnOffsetCommitResponsePartition, TxnOffsetCommitResponseTopic,
};
use kafka_protocol::messages::{
    AddOffsetsToTxnRequest, AddOffsetsToTxnResponse, TxnOffsetCommitRequest,
    TxnOffsetCommitResponse,
};

use super::authentic;
use crate::BrokerInner;
use crate::group::CommitClaim;
use crate::net::RequestContext;
use crate::state::Event;
use crate::state::event::OffsetEntry;
use crate::state::offsets::Committed;
use crate::store::Writer;

/// AddOffsetsToTxn: the group joins the transaction.
pub(crate) async fn handle_add(
    broker: &Arc<BrokerInner>,
    _context: &RequestContext,
    version: i16,
    request: AddOffsetsToTxnRequest,
) -> AddOffsetsToTxnResponse {
    let (outcome, durable) = broker.store.write(|writer| {
        let (id, group) = (request.transactional_id.as_str(), request.group_id.as_str());
        if group.is_empty() {
            return Err(ResponseError::InvalidGroupId);
        }
        let state = writer.state();
        let transaction = authentic(
            state,
            id,
            request.producer_id.0,
            request.producer_epoch,
            version >= 2,
        )?;
        if !transaction.holds_group(group) {
            writer.emit(Event::GroupJoined {
                transactional_id: id.to_owned(),
                group: group.to_owned(),
            });
        }
        Ok(())
    });
    let outcome = match durable.wait().await {
        Ok(()) => outcome,
        Err(_) => Err(ResponseError::CoordinatorNotAvailable),
    };
    AddOffsetsToTxnResponse::default()
        .with_error_code(outcome.err().map_or(0, |error| error.code()))
}

/// TxnOffsetCommit: the offsets themselves. The group must be in the transaction, and the member in the group.
pub(crate) async fn handle_commit(
    broker: &Arc<BrokerInner>,
    _context: &RequestContext,
    _version: i16,
    request: TxnOffsetCommitRequest,
) -> TxnOffsetCommitResponse {
    let claim = CommitClaim {
        generation: request.generation_id,
        member_id: &request.member_id,
        instance_id: request.group_instance_id.as_deref(),
        is_transactional: true,
    };
    let commit = || {
        broker
            .store
            .write(|writer| keep_pending(broker, writer, &request))
    };
    let outcome = match broker.groups.commit(&request.group_id, claim, commit) {
        Ok((outcome, durable)) => match durable.wait().await {
            Ok(()) => outcome.map_err(|error| error.code()),
            Err(_) => Err(ResponseError::CoordinatorNotAvailable.code()),
        },
        Err(error) => Err(error.code()),
    };
    let mut outcomes = outcome.as_ref().map_or(&[][..], Vec::as_slice).iter();
    let all = outcome.as_ref().err().copied();
    let topics = request.topics.into_iter().map(|topic| {
        let rows = topic.partitions.iter().map(|partition| {
            let error = outcomes.next().copied().flatten();
            let code = all.unwrap_or_else(|| error.map_or(0, |error| error.code()));
            TxnOffsetCommitResponsePartition::default()
                .with_partition_index(partition.partition_index)
                .with_error_code(code)
        });
        TxnOffsetCommitResponseTopic::default()
            .with_partitions(rows.collect())
            .with_name(topic.name)
    });
    TxnOffsetCommitResponse::default().with_topics(topics.collect())
}

/// Keeps the offsets until the transaction ends; what stands against each partition's, or against all.
fn keep_pending(
    broker: &BrokerInner,
    writer: &mut Writer<'_>,
    request: &TxnOffsetCommitRequest,
) -> Result<Vec<Option<ResponseError>>, ResponseError> {
    let (id, group) = (request.transactional_id.as_str(), request.group_id.as_str());
    let state = writer.state();
    // This API never learned the newer of the two errors.
    let transaction = authentic(
        state,
        id,
        request.producer_id.0,
        request.producer_epoch,
        false,
    )?;
    if !transaction.holds_group(group) {
        return Err(ResponseError::InvalidTxnState);
    }
    let mut accepted = Vec::new();
    let mut outcomes = Vec::new();
    for topic in &request.topics {
        for partition in &topic.partitions {
            let metadata = partition
                .committed_metadata
                .as_ref()
                .map_or("", |metadata| metadata.as_str());
            let outcome = if state
                .partition(&topic.name, partition.partition_index)
                .is_none()
            {
                Some(ResponseError::UnknownTopicOrPartition)
            } else if metadata.len() > broker.config.offset_metadata_max_bytes {
                Some(ResponseError::OffsetMetadataTooLarge)
            } else {
                accepted.push(OffsetEntry {
                    topic: topic.name.to_string(),
                    partition: partition.partition_index,
                    committed: Committed {
                        offset: partition.committed_offset,
                        leader_epoch: partition.committed_leader_epoch,
                        metadata: metadata.to_owned(),
                    },
                });
                None
            };
            outcomes.push(outcome);
        }
    }
    if !accepted.is_empty() {
        let (transactional_id, group) = (id.to_owned(), group.to_owned());
        writer.emit(Event::OffsetsPending {
            transactional_id,
            group,
            offsets: accepted,
        });
    }
    Ok(outcomes)
}
