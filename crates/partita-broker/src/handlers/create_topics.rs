//! CreateTopics, and the check and creation that automatic creation shares with it.

use std::collections::BTreeMap;
use std::sync::Arc;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::create_topics_response::CreatableTopicResult;
use kafka_protocol::messages::{CreateTopicsRequest, CreateTopicsResponse};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use super::named_twice;
use crate::config::Config;
use crate::net::RequestContext;
use crate::state::{Event, settings, topic};
use crate::store::Writer;
use crate::{BrokerInner, NODE_ID};

/// An error code and what to tell a human.
pub(crate) type Refusal = (ResponseError, String);

pub(crate) async fn handle(
    broker: &Arc<BrokerInner>,
    _context: &RequestContext,
    _version: i16,
    request: CreateTopicsRequest,
) -> CreateTopicsResponse {
    let twice = named_twice(request.topics.iter().map(|wanted| &wanted.name));
    let (mut results, durable) = broker.store.write(|writer| {
        request
            .topics
            .iter()
            .map(|wanted| {
                let result = CreatableTopicResult::default().with_name(wanted.name.clone());
                let outcome = if twice.contains(&wanted.name) {
                    Err((
                        ResponseError::InvalidRequest,
                        "the request names this topic twice".to_owned(),
                    ))
                } else {
                    plan(writer, &broker.config, wanted)
                };
                match outcome {
                    Ok(plan) => {
                        let result = result
                            .with_topic_id(if request.validate_only {
                                Uuid::nil()
                            } else {
                                plan.id
                            })
                            .with_num_partitions(plan.partitions)
                            .with_replication_factor(1)
                            .with_configs(Some(Vec::new()));
                        if !request.validate_only {
                            writer.emit(plan.into_event());
                        }
                        result
                    }
                    Err((error, message)) => result
                        .with_error_code(error.code())
                        .with_error_message(Some(StrBytes::from_string(message)))
                        .with_num_partitions(-1)
                        .with_replication_factor(-1),
                }
            })
            .collect::<Vec<_>>()
    });
    if let Err(error) = durable.wait().await {
        for result in results.iter_mut().filter(|result| result.error_code == 0) {
            result.error_code = ResponseError::KafkaStorageError.code();
            result.error_message = Some(StrBytes::from_string(error.to_string()));
        }
    }
    CreateTopicsResponse::default().with_topics(results)
}

/// A topic that may be created as it stands.
pub(crate) struct Plan {
    name: String,
    pub(crate) id: Uuid,
    partitions: i32,
    configs: BTreeMap<String, String>,
}

impl Plan {
    pub(crate) fn into_event(self) -> Event {
        Event::TopicCreated {
            name: self.name,
            id: self.id,
            partitions: self.partitions,
            configs: self.configs,
        }
    }
}

/// Checks a wanted topic against the rules and against what is there already.
pub(crate) fn plan(
    writer: &Writer<'_>,
    config: &Config,
    wanted: &CreatableTopic,
) -> Result<Plan, Refusal> {
    let name = wanted.name.as_str();
    topic::check_name(name)
        .map_err(|error| (ResponseError::InvalidTopicException, error.to_string()))?;
    if writer.state().topic(name).is_some() {
        return Err((
            ResponseError::TopicAlreadyExists,
            format!("topic '{name}' already exists"),
        ));
    }
    let partitions = if !wanted.assignments.is_empty() {
        check_assignments(wanted)?
    } else if wanted.num_partitions == -1 {
        config.default_partitions
    } else {
        wanted.num_partitions
    };
    if partitions < 1 {
        return Err((
            ResponseError::InvalidPartitions,
            format!("a topic has at least 1 partition, not {partitions}"),
        ));
    }
    let total = writer
        .state()
        .partition_count()
        .saturating_add(partitions as usize);
    if total > config.max_partitions {
        let message = format!(
            "{total} partitions would be more than this broker's limit of {}",
            config.max_partitions
        );
        return Err((ResponseError::InvalidPartitions, message));
    }
    if wanted.assignments.is_empty() && !matches!(wanted.replication_factor, -1 | 1) {
        let message = format!(
            "this broker is a single node: the replication factor is 1, not {}",
            wanted.replication_factor
        );
        return Err((ResponseError::InvalidReplicationFactor, message));
    }
    let mut configs = BTreeMap::new();
    for entry in &wanted.configs {
        let Some(value) = &entry.value else {
            let message = format!("the setting '{}' has no value", entry.name);
            return Err((ResponseError::InvalidConfig, message));
        };
        settings::check(&entry.name, value)
            .map_err(|error| (ResponseError::InvalidConfig, error.to_string()))?;
        configs.insert(entry.name.to_string(), value.to_string());
    }
    Ok(Plan {
        name: name.to_owned(),
        id: Uuid::new_v4(),
        partitions,
        configs,
    })
}

/// A manual assignment must name each partition from 0 on, once, and this node alone.
fn check_assignments(wanted: &CreatableTopic) -> Result<i32, Refusal> {
    let mut indexes: Vec<i32> = wanted
        .assignments
        .iter()
        .map(|assignment| assignment.partition_index)
        .collect();
    indexes.sort_unstable();
    let dense = indexes
        .iter()
        .enumerate()
        .all(|(position, index)| position as i32 == *index);
    let here = wanted
        .assignments
        .iter()
        .all(|assignment| matches!(assignment.broker_ids.as_slice(), [id] if id.0 == NODE_ID));
    if !dense || !here || wanted.num_partitions != -1 || wanted.replication_factor != -1 {
        let message = format!(
            "an assignment names partitions 0, 1, … once each, on broker {NODE_ID} alone, with counts of -1"
        );
        return Err((ResponseError::InvalidReplicaAssignment, message));
    }
    Ok(indexes.len() as i32)
}
