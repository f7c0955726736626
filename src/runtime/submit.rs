//! From a caller to the topics: commands and replies that come over the handle are records like
//! any other, with a number by which the worker that applies them finds the caller again.

use std::sync::Arc;

use rdkafka::client::ClientContext;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, Message, OwnedHeaders};
use rdkafka::producer::{BaseRecord, DeliveryResult, ProducerContext, ThreadedProducer};

use super::handle::SubmitError;
use super::shared::Shared;
use crate::codec::header;
use crate::log::kafka::ClientSettings;

/// `max.message.bytes` of `commands` and `replies`, as `topics.yaml` has them.
pub const LARGEST_RECORD: usize = 2 << 20;

/// Produces for callers. Idempotent, not transactional.
pub(super) struct Submitter {
    producer: ThreadedProducer<FailCallers>,
    shared: Arc<Shared>,
}

/// Tells the caller where its record did not get through.
struct FailCallers(Arc<Shared>);

impl ClientContext for FailCallers {
    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "the submitting producer reports");
    }
}

impl ProducerContext for FailCallers {
    /// The number of the request.
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, request: usize) {
        let Err((error, record)) = result else {
            return;
        };
        let failure = match error.rdkafka_error_code() {
            // The topic takes less than we do.
            Some(RDKafkaErrorCode::MessageSizeTooLarge) => SubmitError::TooLarge {
                topic: record.topic().to_owned(),
                bytes: record.payload_len(),
                limit: None,
            },
            _ => SubmitError::Broker(error.to_string()),
        };
        self.0.fail_request(request as u64, failure);
    }
}

impl Submitter {
    pub fn new(settings: &ClientSettings, shared: Arc<Shared>) -> Result<Self, KafkaError> {
        let mut client = settings.client_config();
        client.set("linger.ms", "0");
        client.set("enable.idempotence", "true");
        client.set("message.timeout.ms", "20000");
        client.set("message.max.bytes", LARGEST_RECORD.to_string());
        let producer = client.create_with_context(FailCallers(Arc::clone(&shared)))?;
        Ok(Self { producer, shared })
    }

    /// Puts the record on its way.
    pub fn produce(
        &self,
        topic: &str,
        partition: i32,
        key: &str,
        value: &[u8],
        request: u64,
        traceparent: Option<&str>,
    ) -> Result<(), SubmitError> {
        let number = format!("{}/{request}", self.shared.instance);
        let mut headers = OwnedHeaders::new_with_capacity(3)
            .insert(Header {
                key: header::CONTENT_TYPE,
                value: Some("application/json"),
            })
            .insert(Header {
                key: header::REQUEST,
                value: Some(&number),
            });
        if let Some(traceparent) = traceparent {
            headers = headers.insert(Header {
                key: header::TRACEPARENT,
                value: Some(traceparent),
            });
        }
        let opaque = usize::try_from(request).unwrap_or(usize::MAX);
        let record = BaseRecord::with_opaque_to(topic, opaque)
            .partition(partition)
            .key(key)
            .payload(value)
            .headers(headers);
        self.producer
            .send(record)
            .map_err(|(error, _)| match error {
                KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull) => {
                    SubmitError::Overloaded {
                        what: "records on their way to the broker",
                    }
                }
                KafkaError::MessageProduction(RDKafkaErrorCode::MessageSizeTooLarge) => {
                    SubmitError::TooLarge {
                        topic: topic.to_owned(),
                        bytes: value.len(),
                        limit: Some(LARGEST_RECORD),
                    }
                }
                other => SubmitError::Broker(other.to_string()),
            })
    }
}
