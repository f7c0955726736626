//! What a single input, or many small ones, make large: no record of ours may be more than a topic takes, or its
//! partition would never move on. The topics are as brokers make them by default, with room for a mebibyte.

use std::time::Duration;

use kafka_harness::Kafka;
use partita::model::{Command, RunId, RunState, RunStatus, StepStatus, Verb};
use partita::runtime::{self, Handle};
use partita_broker::{Broker, Config};
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use serde_json::{Value, json};

use crate::world::{self, Registry};

const LIMIT: Duration = Duration::from_secs(180);
const PREFIX: &str = "large.";
/// Of short outputs, each of which lies in the entry of its run where there is room.
const STEPS: usize = 400;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_runs_go_on_on_the_embedded_broker() {
    let broker = Broker::start(Config::memory()).await.expect("a broker");
    large_runs_go_on(&broker.bootstrap()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_runs_go_on_on_apache_kafka() {
    let Some(kafka) = Kafka::start_or_skip("large runs on Apache Kafka") else {
        return;
    };
    large_runs_go_on(&kafka.bootstrap()).await;
}

fn workflows() -> String {
    let side_by_side = |name: &str, steps: usize| {
        let steps: Vec<Value> = (0..steps)
            .map(|step| {
                json!({"id": format!("s{step}"), "agent": "hand", "retry": {"max_attempts": 1},
                               "on_error": {"default": "skip"}})
            })
            .collect();
        json!({"kind": "workflow", "name": name, "version": 1, "steps": steps})
    };
    let task: Value = (0..6)
        .map(|member| (format!("m{member}"), json!("${input.text}")))
        .collect::<serde_json::Map<_, _>>()
        .into();
    let repeated = json!({"kind": "workflow", "name": "repeated", "version": 1,
                          "steps": [{"id": "s0", "agent": "hand", "task": task}]});
    [
        side_by_side("many", STEPS),
        side_by_side("failing", 6),
        repeated,
    ]
    .map(|workflow| workflow.to_string())
    .join("\n---\n")
}

async fn large_runs_go_on(brokers: &str) {
    world::create_topics(brokers, PREFIX, &["hand"]).await;
    let registry = Registry::with(&workflows());
    let config = world::config(brokers, PREFIX, "one", None);
    let handle = runtime::start(config, registry).expect("an instance");
    world::until_ready(&[&handle]).await;

    let many = begin(&handle, "first", "many", "{}").await;
    reply(
        brokers,
        &many,
        STEPS,
        |_| json!({"status": "completed", "output": "x".repeat(4_000)}),
    );
    let failing = begin(&handle, "second", "failing", "{}").await;
    reply(brokers, &failing, 6, |step| {
        let details = json!({"page": "x".repeat(200 << 10), "step": step});
        json!({"status": "failed", "error": {"class": "error", "message": "no", "details": details}})
    });
    let repeated = json!({"text": "x".repeat(200 << 10)}).to_string();
    let repeated = begin(&handle, "third", "repeated", &repeated).await;
    let cancelled = begin(&handle, "fourth", "many", "{}").await;
    let verb = Command::Cancel(Verb {
        run_id: cancelled.clone(),
        reason: Some("y".repeat(600 << 10)),
        depth: 0,
    });
    handle.submit(verb, None).await.expect("an answer");

    let many = ended(&handle, &many).await;
    assert_eq!(many.status, RunStatus::Completed);
    for step in &many.steps {
        assert_eq!(step.output.as_ref().map(|output| output.len()), Some(4_002));
    }
    let failing = ended(&handle, &failing).await;
    for step in &failing.steps {
        assert_eq!(step.status, StepStatus::Skipped);
        let error = step.error.as_ref().expect("an error");
        assert_eq!(error.details, None);
        assert!(
            error.message.contains("`details` left out: 2048"),
            "{error:?}"
        );
    }
    let repeated = ended(&handle, &repeated).await;
    let error = repeated.error.expect("an error");
    assert_eq!(error.class, "payload_too_large");
    assert!(error.message.contains("`task`"), "{error:?}");
    let cancelled = ended(&handle, &cancelled).await;
    assert_eq!(cancelled.status, RunStatus::Cancelled);
    let reason = cancelled.error.expect("an error").message;
    assert!(reason.ends_with("… (cut, 614400 bytes in all)"));
    assert!(handle.shutdown(Duration::from_secs(60)).await);
}

async fn begin(handle: &Handle, id: &str, workflow: &str, input: &str) -> RunId {
    let start = world::start(id, workflow, input);
    handle.submit(start, None).await.expect("an answer");
    RunId::parse(id).expect("an id")
}

/// The answers of the agent to so many steps of the run.
fn reply(brokers: &str, run: &RunId, steps: usize, answer: impl Fn(usize) -> Value) {
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("partitioner", "murmur2_random")
        .create()
        .expect("a producer");
    let topic = format!("{PREFIX}replies");
    for step in 0..steps {
        let mut body = answer(step);
        body["run_id"] = run.as_str().into();
        body["step_id"] = format!("s{step}").into();
        let body = body.to_string();
        let record = BaseRecord::to(&topic).key(run.as_str()).payload(&body);
        producer.send(record).expect("it fits");
    }
    producer.flush(LIMIT).expect("it is delivered");
}

async fn ended(handle: &Handle, id: &RunId) -> RunState {
    let run = handle.wait_for_end(id, LIMIT).await;
    let run = run.expect("the run").expect("known");
    assert!(run.status.is_ended(), "{id} stands still");
    run
}
