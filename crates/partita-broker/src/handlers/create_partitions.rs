//! CreatePartitions: topics grow; the records that are there stay where they are.

use std::sync::Arc;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use kafka_protocol::messages::create_partitions_response::CreatePartitionsTopicResult;
use kafka_protocol::messages::{CreatePartitionsRequest, CreatePartitionsResponse};
use kafka_protocol::protocol::StrBytes;

use super::create_topics::Refusal;
use super::named_twice;
use crate::config::Config;
use crate::net::RequestContext;
use crate::state::{Event, State};
use crate::{BrokerInner, NODE_ID};

pub(crate) async fn handle(
    broker: &Arc<BrokerInner>,
    _context: &RequestContext,
    _version: i16,
    request: CreatePartitionsRequest,
) -> CreatePartitionsResponse {
    let twice = named_twice(request.topics.iter().map(|wanted| &wanted.name));
    let (mut results, durable) = broker.store.write(|writer| {
        let topics = request.topics.iter().map(|wanted| {
            let result = CreatePartitionsTopicResult::default().with_name(wanted.name.clone());
            let checked = if twice.contains(&wanted.name) {
                let message = "the request names this topic twice".to_owned();
                Err((ResponseError::InvalidRequest, message))
            } else {
                check(writer.state(), &broker.config, wanted)
            };
            match checked {
                Ok(()) => {
                    if !request.validate_only {
                        let (name, total) = (wanted.name.to_string(), wanted.count);
                        writer.emit(Event::PartitionsAdded { name, total });
                    }
                    result
                }
                Err((error, message)) => result
                    .with_error_code(error.code())
                    .with_error_message(Some(StrBytes::from_string(message))),
            }
        });
        topics.collect::<Vec<_>>()
    });
    if let Err(error) = durable.wait().await {
        for result in results.iter_mut().filter(|result| result.error_code == 0) {
            result.error_code = ResponseError::KafkaStorageError.code();
            result.error_message = Some(StrBytes::from_string(error.to_string()));
        }
    }
    CreatePartitionsResponse::default().with_results(results)
}

fn check(state: &State, config: &Config, wanted: &CreatePartitionsTopic) -> Result<(), Refusal> {
    let name = wanted.name.as_str();
    let Some(topic) = state.topic(name) else {
        let message = format!("there is no topic '{name}'");
        return Err((ResponseError::UnknownTopicOrPartition, message));
    };
    let present = topic.partitions.len() as i32;
    let added = wanted.count.saturating_sub(present);
    if added < 1 {
        let message = format!(
            "topic '{name}' has {present} partitions; it can only have more, not {}",
            wanted.count
        );
        return Err((ResponseError::InvalidPartitions, message));
    }
    let total = state.partition_count().saturating_add(added as usize);
    if total > config.max_partitions {
        let message = format!(
            "{total} partitions would be more than this broker's limit of {}",
            config.max_partitions
        );
        return Err((ResponseError::InvalidPartitions, message));
    }
    let Some(assignments) = &wanted.assignments else {
        return Ok(());
    };
    let mut places = assignments
        .iter()
        .map(|assignment| assignment.broker_ids.as_slice());
    let all_here = places.all(|ids| matches!(ids, [id] if id.0 == NODE_ID));
    if assignments.len() != added as usize || !all_here {
        let message = format!(
            "an assignment names broker {NODE_ID} alone for each of the {added} new partitions"
        );
        return Err((ResponseError::InvalidReplicaAssignment, message));
    }
    Ok(())
}
