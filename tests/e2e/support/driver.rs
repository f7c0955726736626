//! Starts runs: most of them by records on `commands`, as any Kafka client may, some over HTTP.

use std::ops::Range;
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
use serde_json::json;

use super::api::Api;

/// How long an instance or its stand-in may refuse a start before the test gives up.
const START_LIMIT: Duration = Duration::from_secs(120);

pub type Sender = ThreadedProducer<DefaultProducerContext>;

/// An idempotent producer that keeps trying while the broker is away.
pub fn producer(bootstrap: &str) -> Sender {
    ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("enable.idempotence", "true")
        .set("linger.ms", "0")
        .set("message.timeout.ms", "300000")
        .set("reconnect.backoff.max.ms", "1000")
        .set("partitioner", "murmur2_random")
        .create()
        .expect("a producer")
}

/// The id of the run with this number.
pub fn run_id(number: usize) -> String {
    format!("run-{number:05}")
}

/// Starts runs `numbers` of `workflow` by records on `commands`, `rate` in a second.
pub fn start_by_records(bootstrap: &str, workflow: &str, numbers: Range<usize>, rate: usize) {
    let producer = producer(bootstrap);
    let began = Instant::now();
    for (started, number) in numbers.enumerate() {
        let id = run_id(number);
        let command = json!({
            "type": "start", "run_id": id, "workflow": workflow, "input": {"value": number}
        });
        producer
            .send(
                BaseRecord::to("partita.commands")
                    .key(&id)
                    .payload(&command.to_string()),
            )
            .map_err(|(error, _)| error)
            .expect("the producer's queue takes a start");
        let due = Duration::from_millis((started * 1000 / rate) as u64);
        thread::sleep(due.saturating_sub(began.elapsed()));
    }
    producer
        .flush(START_LIMIT)
        .expect("all starts are delivered");
}

/// Starts runs `numbers` over HTTP, by turns at each of `apis`, each again and again until it is
/// acknowledged: by then the same start may have been carried out more than once.
pub fn start_over_http(apis: &[Api], workflow: &str, numbers: Range<usize>) {
    for number in numbers {
        let body = json!({"id": run_id(number), "workflow": workflow, "input": {"value": number}});
        let began = Instant::now();
        for api in apis.iter().cycle().skip(number) {
            match api.post("/v1/runs", &body) {
                Some(answer) if matches!(answer.status, 200 | 201) => break,
                Some(answer) if matches!(answer.status, 429 | 502 | 503 | 504) => {}
                Some(answer) => panic!("start of {}: {answer:?}", run_id(number)),
                None => {}
            }
            assert!(
                began.elapsed() < START_LIMIT,
                "nobody takes the start of {}",
                run_id(number)
            );
            thread::sleep(Duration::from_millis(100));
        }
    }
}
