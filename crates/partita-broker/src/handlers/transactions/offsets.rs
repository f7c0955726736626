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
use crate::group::{CommitClaim, GroupError};
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
        let limits = &broker.config.groups;
        if group.is_empty() || group.len() > limits.max_name_bytes {
            return Err(GroupError::InvalidGroupId.code());
        }
        let state = writer.state();
        let transaction = authentic(
            state,
            id,
            request.producer_id.0,
            request.producer_epoch,
            version >= 2,
        )
        .map_err(|error| error.code())?;
        if !transaction.holds_group(group) {
            if transaction.group_count() >= limits.max_groups {
                return Err(GroupError::TooManyGroups.code());
            }
            writer.emit(Event::GroupJoined {
                transactional_id: id.to_owned(),
                group: group.to_owned(),
            });
        }
        Ok(())
    });
    let outcome = match durable.wait().await {
        Ok(()) => outcome,
        Err(_) => Err(ResponseError::CoordinatorNotAvailable.code()),
    };
    AddOffsetsToTxnResponse::default().with_error_code(outcome.err().unwrap_or(0))
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
            Ok(()) => outcome,
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

/// Keeps the offsets until the transaction ends; what stands against each partition's, or the code against all.
fn keep_pending(
    broker: &BrokerInner,
    writer: &mut Writer<'_>,
    request: &TxnOffsetCommitRequest,
) -> Result<Vec<Option<ResponseError>>, i16> {
    let (id, group) = (request.transactional_id.as_str(), request.group_id.as_str());
    let state = writer.state();
    // This API never learned the newer of the two errors.
    let transaction = authentic(
        state,
        id,
        request.producer_id.0,
        request.producer_epoch,
        false,
    )
    .map_err(|error| error.code())?;
    if !transaction.holds_group(group) {
        return Err(ResponseError::InvalidTxnState.code());
    }
    let max_groups = broker.config.groups.max_groups;
    if state.group(group).is_none() && state.groups().count() >= max_groups {
        return Err(GroupError::TooManyGroups.code());
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

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::offset_delete_request::{
        OffsetDeleteRequestPartition, OffsetDeleteRequestTopic,
    };
    use kafka_protocol::messages::txn_offset_commit_request::{
        TxnOffsetCommitRequestPartition, TxnOffsetCommitRequestTopic,
    };
    use kafka_protocol::messages::{
        DeleteGroupsRequest, GroupId, OffsetDeleteRequest, ProducerId, TopicName, TransactionalId,
    };
    use kafka_protocol::protocol::StrBytes;

    use super::*;
    use crate::handlers::{delete_groups, offset_delete};
    use crate::testing::topic_created;
    use crate::{Broker, Config};

    struct Client {
        broker: Broker,
        context: RequestContext,
    }

    impl Client {
        /// A broker for at most two groups, with a producer that has an epoch of 0.
        async fn start() -> Client {
            let mut config = Config::memory();
            config.groups.max_groups = 2;
            let broker = Broker::start(config).await.expect("starts");
            let ((), durable) = broker.inner.store.write(|writer| {
                writer.emit(topic_created("t", 1));
                for (producer_id, name) in ["first", "second"].into_iter().enumerate() {
                    writer.emit(Event::TransactionalProducer {
                        transactional_id: name.to_owned(),
                        producer_id: producer_id as i64,
                        epoch: 0,
                        timeout_ms: 600_000,
                        renews: None,
                    });
                }
            });
            durable.wait().await.expect("memory takes it");
            let context = RequestContext {
                client_id: String::new(),
                client_host: String::new(),
            };
            Client { broker, context }
        }

        async fn add(&self, name: &'static str, group: &str) -> i16 {
            let request = AddOffsetsToTxnRequest::default()
                .with_transactional_id(TransactionalId(StrBytes::from_static_str(name)))
                .with_producer_id(ProducerId(i64::from(name == "second")))
                .with_group_id(GroupId(StrBytes::from_string(group.to_owned())));
            let response = handle_add(&self.broker.inner, &self.context, 4, request).await;
            response.error_code
        }

        async fn commit(&self, name: &'static str, group: &str) -> i16 {
            let topic = TxnOffsetCommitRequestTopic::default()
                .with_name(TopicName(StrBytes::from_static_str("t")))
                .with_partitions(vec![TxnOffsetCommitRequestPartition::default()]);
            let request = TxnOffsetCommitRequest::default()
                .with_transactional_id(TransactionalId(StrBytes::from_static_str(name)))
                .with_producer_id(ProducerId(i64::from(name == "second")))
                .with_group_id(GroupId(StrBytes::from_string(group.to_owned())))
                .with_generation_id(-1)
                .with_topics(vec![topic]);
            let response = handle_commit(&self.broker.inner, &self.context, 3, request).await;
            response.topics[0].partitions[0].error_code
        }
    }

    /// What the group has committed for the partition, in the end.
    async fn committed_after(client: &Client, forget: impl AsyncFnOnce() -> i16) -> Option<i64> {
        assert_eq!(client.add("first", "a").await, 0);
        assert_eq!(client.commit("first", "a").await, 0);
        assert_eq!(forget().await, 0);
        let ((), durable) = client.broker.inner.store.write(|writer| {
            writer.emit(Event::TransactionEnded {
                transactional_id: "first".to_owned(),
                committed: true,
                epoch: 0,
            });
        });
        durable.wait().await.expect("memory takes it");
        client.broker.inner.store.read(|state| {
            let offsets = state.group("a")?;
            offsets.get("t", 0).map(|committed| committed.offset)
        })
    }

    #[tokio::test]
    async fn what_is_deleted_takes_along_what_was_about_to_be_committed() {
        let client = Client::start().await;
        assert_eq!(committed_after(&client, async || 0).await, Some(0));

        let client = Client::start().await;
        let deleted = committed_after(&client, async || {
            let group = GroupId(StrBytes::from_static_str("a"));
            let request = DeleteGroupsRequest::default().with_groups_names(vec![group]);
            let answer =
                delete_groups::handle(&client.broker.inner, &client.context, 2, request).await;
            answer.results[0].error_code
        });
        assert_eq!(deleted.await, None);

        let client = Client::start().await;
        let deleted = committed_after(&client, async || {
            let partition = OffsetDeleteRequestPartition::default();
            let topic = OffsetDeleteRequestTopic::default()
                .with_name(TopicName(StrBytes::from_static_str("t")))
                .with_partitions(vec![partition; 100]);
            let request = OffsetDeleteRequest::default()
                .with_group_id(GroupId(StrBytes::from_static_str("a")))
                .with_topics(vec![topic]);
            let answer =
                offset_delete::handle(&client.broker.inner, &client.context, 0, request).await;
            assert_eq!(answer.topics[0].partitions.len(), 100);
            answer.error_code
        });
        assert_eq!(deleted.await, None);
    }

    #[tokio::test]
    async fn what_no_group_has_is_not_written_into_the_log() {
        let client = Client::start().await;
        assert_eq!(client.add("first", "a").await, 0);
        assert_eq!(client.commit("first", "a").await, 0);
        let store = &client.broker.inner.store;
        let before = store.read_with_log(|_, log| log.appended_bytes());
        let topic = OffsetDeleteRequestTopic::default()
            .with_name(TopicName(StrBytes::from_string("x".repeat(10_000))))
            .with_partitions(vec![OffsetDeleteRequestPartition::default(); 1000]);
        let request = OffsetDeleteRequest::default()
            .with_group_id(GroupId(StrBytes::from_static_str("a")))
            .with_topics(vec![topic]);
        let answer = offset_delete::handle(&client.broker.inner, &client.context, 0, request).await;
        assert_eq!(answer.topics[0].partitions.len(), 1000);
        assert_eq!(store.read_with_log(|_, log| log.appended_bytes()), before);
    }

    #[tokio::test]
    async fn transactions_make_no_more_groups_than_there_may_be() {
        let client = Client::start().await;
        assert_eq!(client.add("first", &"g".repeat(5_000)).await, 24);
        for group in ["a", "b"] {
            assert_eq!(client.add("first", group).await, 0);
            assert_eq!(client.add("second", group).await, 0);
        }
        assert_eq!(client.add("first", "c").await, 15, "a third in one");
        assert_eq!(client.commit("first", "a").await, 0);
        // Two names in each of two transactions, and four in all.
        let other = Client::start().await;
        assert_eq!(other.add("first", "a").await, 0);
        assert_eq!(other.add("first", "b").await, 0);
        assert_eq!(other.add("second", "c").await, 0);
        for (name, group, code) in [("first", "a", 0), ("first", "b", 0), ("second", "c", 15)] {
            assert_eq!(other.commit(name, group).await, code, "{group}");
        }
    }
}
