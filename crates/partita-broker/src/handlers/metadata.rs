//! Metadata: this broker, and the topics asked for (all, by name, or by id).

use std::sync::Arc;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::metadata_response::{
    MetadataResponseBroker, MetadataResponsePartition, MetadataResponseTopic,
};
use kafka_protocol::messages::{BrokerId, MetadataRequest, MetadataResponse, TopicName};
use kafka_protocol::protocol::StrBytes;

use super::{create_topics, distinct};
use crate::net::RequestContext;
use crate::state::{State, Topic};
use crate::{BrokerInner, NODE_ID};

pub(crate) async fn handle(
    broker: &Arc<BrokerInner>,
    _context: &RequestContext,
    version: i16,
    mut request: MetadataRequest,
) -> MetadataResponse {
    request.topics = request
        .topics
        .map(|list| distinct(list, |topic| (topic.name.clone(), topic.topic_id)));
    // In version 0 an empty list means all topics; from version 1 on null does, and an empty list means none.
    let wanted = request
        .topics
        .as_deref()
        .filter(|list| version > 0 || !list.is_empty());
    if broker.config.auto_create_topics && (version < 4 || request.allow_auto_topic_creation) {
        create_missing(broker, wanted.unwrap_or_default()).await;
    }
    let topics = broker.store.read(|state| match wanted {
        None => state.topics().map(describe).collect(),
        Some(list) => list.iter().map(|topic| find(state, topic)).collect(),
    });
    let broker_row = MetadataResponseBroker::default()
        .with_node_id(BrokerId(NODE_ID))
        .with_host(StrBytes::from_string(broker.advertised_host.clone()))
        .with_port(i32::from(broker.advertised_port));
    MetadataResponse::default()
        .with_brokers(vec![broker_row])
        .with_cluster_id(Some(StrBytes::from_string(
            broker.store.cluster_id().to_owned(),
        )))
        .with_controller_id(BrokerId(NODE_ID))
        .with_topics(topics)
}

/// Creates what is asked for by name and is not there, as far as the rules for topics allow it.
async fn create_missing(broker: &Arc<BrokerInner>, wanted: &[MetadataRequestTopic]) {
    let missing = broker.store.read(|state| {
        let absent = |topic: &&MetadataRequestTopic| {
            topic
                .name
                .as_ref()
                .is_some_and(|name| state.topic(name).is_none())
        };
        wanted.iter().filter(absent).cloned().collect::<Vec<_>>()
    });
    if missing.is_empty() {
        return;
    }
    let ((), durable) = broker.store.write(|writer| {
        for name in missing.into_iter().filter_map(|topic| topic.name) {
            let topic = CreatableTopic::default()
                .with_name(name)
                .with_num_partitions(-1)
                .with_replication_factor(-1);
            if let Ok(plan) = create_topics::plan(writer, &broker.config, &topic) {
                writer.emit(plan.into_event());
            }
        }
    });
    if let Err(error) = durable.wait().await {
        tracing::error!(%error, "a topic that was created automatically is not durable yet");
    }
}

fn find(state: &State, wanted: &MetadataRequestTopic) -> MetadataResponseTopic {
    let (found, error) = match &wanted.name {
        Some(name) if crate::state::topic::check_name(name).is_err() => {
            (None, ResponseError::InvalidTopicException)
        }
        Some(name) => (state.topic(name), ResponseError::UnknownTopicOrPartition),
        None => (
            state.topic_by_id(wanted.topic_id),
            ResponseError::UnknownTopicId,
        ),
    };
    match found {
        Some(topic) => describe(topic),
        None => MetadataResponseTopic::default()
            .with_error_code(error.code())
            .with_name(wanted.name.clone())
            .with_topic_id(wanted.topic_id),
    }
}

fn describe(topic: &Topic) -> MetadataResponseTopic {
    let partitions = (0..topic.partitions.len() as i32)
        .map(|index| {
            MetadataResponsePartition::default()
                .with_partition_index(index)
                .with_leader_id(BrokerId(NODE_ID))
                .with_leader_epoch(0)
                .with_replica_nodes(vec![BrokerId(NODE_ID)])
                .with_isr_nodes(vec![BrokerId(NODE_ID)])
        })
        .collect();
    MetadataResponseTopic::default()
        .with_name(Some(TopicName(StrBytes::from_string(
            topic.name.to_string(),
        ))))
        .with_topic_id(topic.id)
        .with_is_internal(false)
        .with_partitions(partitions)
}
