//! A plain Kafka agent, on a thread of its own: answers each task with its inputs.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::Headers;
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
use rdkafka::{ClientConfig, Message};

pub struct Agent {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Agent {
    /// Answers tasks of `prefix`'s `agent`, each `copies` times.
    pub fn start(brokers: &str, prefix: &str, agent: &str, copies: usize) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", brokers);
        let consumer: BaseConsumer = config
            .clone()
            .set("group.id", format!("{prefix}agent.{agent}"))
            .set("isolation.level", "read_committed")
            .set("auto.offset.reset", "earliest")
            .set("fetch.queue.backoff.ms", "1")
            .create()
            .expect("a consumer");
        let producer: ThreadedProducer<DefaultProducerContext> =
            config.set("linger.ms", "0").create().expect("a producer");
        consumer
            .subscribe(&[&format!("{prefix}tasks.{agent}")])
            .expect("subscribing");
        let stopping = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            while !stopping.load(Ordering::Acquire) {
                let Some(Ok(message)) = consumer.poll(Duration::from_millis(50)) else {
                    continue;
                };
                let task: serde_json::Value =
                    serde_json::from_slice(message.payload().unwrap_or_default()).expect("a task");
                if task["type"] == "cancel" {
                    continue;
                }
                let header = |name: &str| {
                    let headers = message.headers().expect("headers");
                    let found = headers
                        .iter()
                        .find(|header| header.key == name)
                        .expect("the header");
                    String::from_utf8(found.value.unwrap_or_default().to_vec()).expect("text")
                };
                let reply = serde_json::json!({
                    "task_id": task["task_id"], "run_id": task["run_id"], "step_id": task["step_id"],
                    "attempt": task["attempt"], "epoch": task["epoch"],
                    "status": "completed", "output": {"inputs": task["inputs"]},
                });
                let reply = reply.to_string();
                let topic = header("partita-reply-topic");
                let partition = header("partita-reply-partition")
                    .parse()
                    .expect("a partition");
                for _ in 0..copies {
                    let record = BaseRecord::to(&topic)
                        .partition(partition)
                        .key(task["run_id"].as_str().expect("a run id"))
                        .payload(&reply);
                    producer
                        .send(record)
                        .map_err(|(error, _)| error)
                        .expect("sending");
                }
            }
            let _ = producer.flush(Duration::from_secs(60));
        });
        Self {
            stop,
            thread: Some(thread),
        }
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
