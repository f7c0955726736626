//! DeleteTopics, by name or by id.

use std::sync::Arc;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::delete_topics_request::DeleteTopicState;
use kafka_protocol::messages::delete_topics_response::DeletableTopicResult;
use kafka_protocol::messages::{DeleteTopicsRequest, DeleteTopicsResponse, TopicName};
use kafka_protocol::protocol::StrBytes;

use crate::BrokerInner;
use crate::net::RequestContext;
use crate::state::Event;
use crate::store::Writer;

pub(crate) async fn handle(
    broker: &Arc<BrokerInner>,
    _context: &RequestContext,
    version: i16,
    request: DeleteTopicsRequest,
) -> DeleteTopicsResponse {
    let wanted = if version < 6 {
        request
            .topic_names
            .into_iter()
            .map(|name| DeleteTopicState::default().with_name(Some(name)))
            .collect()
    } else {
        request.topics
    };
    let (mut responses, durable) = broker.store.write(|writer| {
        wanted
            .iter()
            .map(|topic| delete(writer, topic))
            .collect::<Vec<_>>()
    });
    if durable.wait().await.is_err() {
        responses
            .iter_mut()
            .for_each(|row| row.error_code = ResponseError::KafkaStorageError.code());
    }
    DeleteTopicsResponse::default().with_responses(responses)
}

fn delete(writer: &mut Writer<'_>, wanted: &DeleteTopicState) -> DeletableTopicResult {
    let state = writer.state();
    let (found, error) = match &wanted.name {
        Some(name) => (state.topic(name), ResponseError::UnknownTopicOrPartition),
        None => (
            state.topic_by_id(wanted.topic_id),
            ResponseError::UnknownTopicId,
        ),
    };
    let Some(topic) = found else {
        return DeletableTopicResult::default()
            .with_name(wanted.name.clone())
            .with_topic_id(wanted.topic_id)
            .with_error_code(error.code());
    };
    let (name, id) = (topic.name.to_string(), topic.id);
    writer.emit(Event::TopicDeleted { name: name.clone() });
    DeletableTopicResult::default()
        .with_name(Some(TopicName(StrBytes::from_string(name))))
        .with_topic_id(id)
}
