//! Replies on their way to Kafka: written as JSON, sent to the partition that the task names, and
//! only then is the task done with.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rdkafka::client::ClientContext;
use rdkafka::config::ClientConfig;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, DeliveryResult, Producer, ProducerContext, ThreadedProducer};
use serde::Serialize;

use super::feed::{Delivery, Done};
use crate::model::{Failure, Json, class};
use crate::runtime::LARGEST_RECORD;

/// A reply of so many bytes finds room wherever there is any.
const SMALL: usize = 4_096;

/// What an agent says of a task; the record's `status` and what goes with it.
#[derive(Debug, Serialize)]
#[serde(tag = "status", rename_all = "snake_case")]
pub enum Said<'a> {
    Completed {
        output: &'a Json,
    },
    Failed {
        error: &'a Failure,
    },
    Progress {
        #[serde(skip_serializing_if = "Option::is_none")]
        progress: Option<f64>,
        #[serde(skip_serializing_if = "Option::is_none")]
        note: Option<&'a str>,
    },
    Heartbeat,
}

#[derive(Serialize)]
struct Record<'a> {
    task_id: &'a str,
    run_id: &'a str,
    step_id: &'a str,
    attempt: u32,
    epoch: u32,
    #[serde(flatten)]
    said: Said<'a>,
}

/// Sends replies. One per agent.
pub struct Replies {
    producer: ThreadedProducer<Delivered>,
    prefix: String,
}

/// Marks the task of a delivered reply as done with.
struct Delivered {
    done: std::sync::OnceLock<Done>,
    failed: Arc<AtomicBool>,
    /// Replies that their topic has no room for, and their bytes.
    refused: Mutex<Vec<(Arc<Delivery>, usize)>>,
}

/// The task that a reply ends; `None`: progress, which ends nothing.
type Ends = Option<Arc<Delivery>>;

/// What became of a record that was handed to the producer.
enum Put {
    Queued,
    /// It has so many bytes, and never finds room.
    TooLarge(usize),
    Lost,
}

impl ClientContext for Delivered {}

impl ProducerContext for Delivered {
    type DeliveryOpaque = Box<Ends>;

    fn delivery(&self, result: &DeliveryResult<'_>, ends: Self::DeliveryOpaque) {
        match (result, *ends) {
            (Ok(_), Some(delivery)) => {
                if let Some(done) = self.done.get() {
                    done.done(delivery.partition, delivery.offset);
                }
            }
            (Ok(_), None) => {}
            (Err((error, message)), ends) => {
                let (bytes, has_ended) = (message.payload_len(), ends.is_some());
                match ends.filter(|_| is_too_large(error) && bytes > SMALL) {
                    Some(delivery) => self.lock_refused().push((delivery, bytes)),
                    // The task stays open, so it is read again after a restart.
                    None => {
                        tracing::error!(%error, "a reply was not delivered");
                        self.failed.fetch_or(has_ended, Ordering::Relaxed);
                    }
                }
            }
        }
    }
}

impl Delivered {
    fn lock_refused(&self) -> MutexGuard<'_, Vec<(Arc<Delivery>, usize)>> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_too_large(error: &KafkaError) -> bool {
    let too_large = RDKafkaErrorCode::MessageSizeTooLarge;
    matches!(error, KafkaError::MessageProduction(code) if *code == too_large)
}

/// Stands in for an answer that has so many bytes.
fn too_large(bytes: usize) -> Failure {
    let message = format!(
        "the reply has {bytes} bytes, and its topic has no room for it (`max.message.bytes`, at most \
         {LARGEST_RECORD})"
    );
    Failure::new(class::PAYLOAD_TOO_LARGE, message)
}

impl Replies {
    pub fn new(client: &ClientConfig, prefix: &str) -> Result<Self, KafkaError> {
        let mut config = client.clone();
        config
            .set("enable.idempotence", "true")
            .set("linger.ms", "0")
            .set("message.max.bytes", LARGEST_RECORD.to_string())
            .set("message.timeout.ms", "120000");
        let context = Delivered {
            done: std::sync::OnceLock::new(),
            failed: Arc::new(AtomicBool::new(false)),
            refused: Mutex::default(),
        };
        Ok(Self {
            producer: config.create_with_context(context)?,
            prefix: prefix.to_owned(),
        })
    }

    /// Tells where finished tasks are marked. Once, before the first reply.
    pub fn marks(&self, done: Done) {
        // A second call would be a fault of this room alone, and the first one stands.
        let _ = self.producer.context().done.set(done);
    }

    /// Whether the reply to a task was lost for good, so that the task needs another delivery.
    pub fn failed(&self) -> bool {
        self.producer.context().failed.load(Ordering::Relaxed)
    }

    /// Sends what the agent says; waits only where the producer's queue is full. An answer that finds no room
    /// fails its attempt: sent again it would find none either.
    pub async fn send(&self, delivery: &Arc<Delivery>, said: Said<'_>) {
        self.answer_refused().await;
        let ends = matches!(said, Said::Completed { .. } | Said::Failed { .. });
        match self.put(delivery, said, ends).await {
            Put::Queued => {}
            Put::TooLarge(bytes) if ends => self.fail(delivery, bytes).await,
            Put::TooLarge(bytes) => {
                let task_id = &delivery.task.task_id;
                tracing::warn!(task_id, bytes, "progress finds no room and is not told");
            }
            Put::Lost => self.lose(ends),
        }
    }

    /// Fails the attempts whose answers the broker has refused for their size since this was asked last.
    pub async fn answer_refused(&self) {
        let refused = std::mem::take(&mut *self.producer.context().lock_refused());
        for (delivery, bytes) in refused {
            self.fail(&delivery, bytes).await;
        }
    }

    async fn fail(&self, delivery: &Arc<Delivery>, bytes: usize) {
        let task_id = &delivery.task.task_id;
        tracing::warn!(task_id, bytes, "an answer finds no room: the attempt fails");
        let error = &too_large(bytes);
        match self.put(delivery, Said::Failed { error }, true).await {
            Put::Queued => {}
            Put::TooLarge(_) | Put::Lost => self.lose(true),
        }
    }

    fn lose(&self, ends: bool) {
        let failed = &self.producer.context().failed;
        failed.fetch_or(ends, Ordering::Relaxed);
    }

    /// Hands a record to the producer.
    async fn put(&self, delivery: &Arc<Delivery>, said: Said<'_>, ends: bool) -> Put {
        let task = &delivery.task;
        let record = Record {
            task_id: &task.task_id,
            run_id: task.run_id.as_str(),
            step_id: &task.step_id,
            attempt: task.attempt,
            epoch: task.epoch,
            said,
        };
        let value = serde_json::to_vec(&record).expect("a reply serialises");
        let topic = delivery
            .reply_topic
            .clone()
            .unwrap_or_else(|| format!("{}replies", self.prefix));
        let mut headers = OwnedHeaders::new().insert(Header {
            key: "content-type",
            value: Some("application/json"),
        });
        if let Some(traceparent) = &delivery.traceparent {
            headers = headers.insert(Header {
                key: "traceparent",
                value: Some(traceparent),
            });
        }
        let opaque: Box<Ends> = Box::new(ends.then(|| Arc::clone(delivery)));
        let mut record = BaseRecord::with_opaque_to(&topic, opaque)
            .key(task.run_id.as_str())
            .payload(&value)
            .headers(headers);
        if let Some(partition) = delivery.reply_partition {
            record = record.partition(partition);
        }
        loop {
            match self.producer.send(record) {
                Ok(()) => return Put::Queued,
                Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                    record = back;
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
                Err((error, _)) if is_too_large(&error) => return Put::TooLarge(value.len()),
                Err((error, _)) => {
                    tracing::error!(%error, task_id = task.task_id, "a reply could not be sent");
                    return Put::Lost;
                }
            }
        }
    }

    /// Blocks until all replies are delivered, at most `within`.
    pub fn flush(&self, within: Duration) -> Result<(), KafkaError> {
        self.producer.flush(within)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_is_one_flat_object() {
        let output = Json::from_text(r#"{"a": 1}"#).unwrap();
        let record = Record {
            task_id: "r.s.0.1",
            run_id: "r",
            step_id: "s",
            attempt: 1,
            epoch: 0,
            said: Said::Completed { output: &output },
        };
        assert_eq!(
            serde_json::to_string(&record).unwrap(),
            r#"{"task_id":"r.s.0.1","run_id":"r","step_id":"s","attempt":1,"epoch":0,"status":"completed","output":{"a": 1}}"#
        );
    }
}
