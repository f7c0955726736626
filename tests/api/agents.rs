//! Agents over HTTP, and the Rust library over Kafka.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use partita::agent::{Agent, Settings};
use partita::agents::PumpSettings;
use partita::model::{Failure, Json};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Headers, Message};
use rdkafka::producer::{FutureProducer, FutureRecord};
use reqwest::StatusCode;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::fake::PARTITIONS;
use crate::support::{Broker, Instance, PREFIX, SOON, TWO_STEPS, task_record, until};

const POLL: &str = "/v1/agents/tester/tasks:poll";

async fn with_run(id: &str) -> (Broker, Instance) {
    with_run_and(id, |_| {}).await
}

async fn with_run_and(id: &str, set: impl FnOnce(&mut PumpSettings)) -> (Broker, Instance) {
    let broker = Broker::start().await;
    let all = (0..PARTITIONS).collect();
    let one = Instance::with(&broker, "one", all, |_, pumps| set(pumps)).await;
    one.apply("two_steps", TWO_STEPS).await;
    one.post(
        "/v1/runs",
        &format!(r#"{{"workflow":"two_steps","id":"{id}"}}"#),
    )
    .await;
    (broker, one)
}

async fn polled(one: &Instance, body: &str) -> Vec<Value> {
    let (status, body) = one.post(POLL, body).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    body["tasks"].as_array().expect("tasks").clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_task_is_polled_answered_and_not_handed_out_again() {
    let (broker, one) = with_run_and("r", |pumps| pumps.lease = SOON).await;
    let record = task_record("r", "first", 1);
    let produce = broker.produce("tasks.tester", "r.first.0.1", Some(&record));
    let (tasks, ()) = tokio::join!(
        polled(&one, r#"{"max":10,"wait":"60s","worker":"w1"}"#),
        produce
    );
    assert_eq!(tasks.len(), 1);
    let task = &tasks[0];
    assert_eq!(
        (task["task_id"].as_str(), task["task"]["do"].as_str()),
        (Some("r.first.0.1"), Some("one"))
    );
    assert_eq!(
        (&task["inputs"], &task["deadline"]),
        (&json!({}), &Value::Null)
    );
    assert!(polled(&one, r#"{"wait":0.1}"#).await.is_empty());
    let (status, _) = one
        .post(
            "/v1/tasks/r.first.0.1:progress",
            r#"{"progress":0.5,"note":"half"}"#,
        )
        .await;
    assert_eq!(status, StatusCode::OK);
    let (status, _) = one
        .post("/v1/tasks/r.first.0.1:complete", r#"{"output":{"x":1}}"#)
        .await;
    assert_eq!(status, StatusCode::OK);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answered_task_does_not_come_back_when_its_lease_ends() {
    let (broker, one) = with_run("r").await;
    let record = task_record("r", "first", 1);
    let produce = broker.produce("tasks.tester", "r.first.0.1", Some(&record));
    let (tasks, ()) = tokio::join!(polled(&one, r#"{"wait":"60s"}"#), produce);
    assert_eq!(tasks.len(), 1);
    let (status, _) = one.post("/v1/tasks/r.first.0.1:complete", "{}").await;
    assert_eq!(status, StatusCode::OK);
    assert!(polled(&one, r#"{"wait":"3s"}"#).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lease_that_ends_hands_the_task_out_again_unless_it_was_answered_elsewhere() {
    let (broker, one) = with_run("r").await;
    broker
        .produce(
            "tasks.tester",
            "r.first.0.1",
            Some(&task_record("r", "first", 1)),
        )
        .await;
    let first = polled(&one, r#"{"wait":"60s"}"#).await;
    let again = polled(&one, r#"{"wait":"60s"}"#).await;
    assert_eq!(first[0]["task_id"], again[0]["task_id"]);
    // Answered over Kafka: the pump does not hear of it, and asks before the next time.
    let reply = partita::model::Reply {
        run_id: partita::model::RunId::parse("r").unwrap(),
        step_id: "first".into(),
        task_id: None,
        attempt: None,
        epoch: None,
        status: partita::model::ReplyStatus::Completed {
            output: Json::null(),
        },
    };
    partita::api::door::Runs::answer(one.fake.as_ref(), reply, None)
        .await
        .unwrap();
    assert!(polled(&one, r#"{"wait":"4s"}"#).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_task_is_not_handed_out() {
    let (broker, one) = with_run("r").await;
    let key = "r.first.0.1";
    broker
        .produce("tasks.tester", key, Some(&task_record("r", "first", 1)))
        .await;
    let cancel = format!(
        r#"{{"type":"cancel","task_id":"{key}","run_id":"r","step_id":"first","agent":"tester","attempt":1,"epoch":0,"reason":"timeout"}}"#
    );
    broker
        .produce("tasks.tester", "unreadable", Some("{"))
        .await;
    let mut handed_out = polled(&one, r#"{"wait":"60s"}"#).await;
    assert_eq!(handed_out.pop().unwrap()["task_id"], key);
    broker.produce("tasks.tester", key, Some(&cancel)).await;
    assert!(polled(&one, r#"{"wait":"3s"}"#).await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_answered_is_committed() {
    let (broker, one) = with_run("r").await;
    broker
        .produce(
            "tasks.tester",
            "r.first.0.1",
            Some(&task_record("r", "first", 1)),
        )
        .await;
    assert_eq!(polled(&one, r#"{"wait":"60s"}"#).await.len(), 1);
    one.post("/v1/tasks/r.first.0.1:complete", "{}").await;
    one.pumps.close().await;
    let mut config = broker.client();
    config.set("group.id", format!("{PREFIX}agent.tester"));
    let consumer: BaseConsumer = config.create().unwrap();
    let mut partitions = rdkafka::TopicPartitionList::new();
    partitions.add_partition_range(&format!("{PREFIX}tasks.tester"), 0, 1);
    let committed = consumer.committed_offsets(partitions, SOON).unwrap();
    let total: i64 = committed
        .elements()
        .iter()
        .filter_map(|element| element.offset().to_raw())
        .filter(|offset| *offset > 0)
        .sum();
    assert_eq!(total, 1, "{committed:?}");
}

async fn send_task(broker: &Broker, task_id: &str, value: &str) {
    let producer: FutureProducer = broker.client().create().unwrap();
    let topic = format!("{PREFIX}tasks.tester");
    let headers = rdkafka::message::OwnedHeaders::new()
        .insert(rdkafka::message::Header {
            key: "partita-reply-topic",
            value: Some(&format!("{PREFIX}replies")),
        })
        .insert(rdkafka::message::Header {
            key: "partita-reply-partition",
            value: Some("2"),
        })
        .insert(rdkafka::message::Header {
            key: "traceparent",
            value: Some("00-trace"),
        });
    producer
        .send(
            FutureRecord::to(&topic)
                .key(task_id)
                .payload(value)
                .headers(headers),
            SOON,
        )
        .await
        .unwrap();
}

/// Reads `count` replies from partition 2, where the tasks' headers send them.
async fn replies(broker: &Broker, count: usize) -> Vec<Value> {
    let mut config = broker.client();
    config
        .set("group.id", "reader")
        .set("auto.offset.reset", "earliest");
    tokio::task::spawn_blocking(move || {
        let consumer: BaseConsumer = config.create().unwrap();
        let mut partitions = rdkafka::TopicPartitionList::new();
        partitions
            .add_partition_offset(&format!("{PREFIX}replies"), 2, rdkafka::Offset::Beginning)
            .unwrap();
        consumer.assign(&partitions).unwrap();
        let deadline = std::time::Instant::now() + SOON;
        let mut found = Vec::new();
        while found.len() < count && std::time::Instant::now() < deadline {
            let Some(Ok(message)) = consumer.poll(Duration::from_millis(100)) else {
                continue;
            };
            let trace = message
                .headers()
                .unwrap()
                .iter()
                .find(|header| header.key == "traceparent")
                .unwrap();
            assert_eq!(trace.value, Some(b"00-trace".as_slice()));
            assert_eq!(message.key(), Some(b"r".as_slice()));
            found.push(serde_json::from_slice(message.payload().unwrap()).unwrap());
        }
        assert_eq!(found.len(), count, "{found:?}");
        found
    })
    .await
    .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_library_answers_tasks_over_kafka() {
    let broker = Broker::start().await;
    broker.topic("tasks.tester", 2).await;
    broker.topic("replies", 4).await;
    let mut settings = Settings::new("");
    settings.client = broker.client();
    settings.prefix = PREFIX.to_owned();
    let cancelled = Arc::new(AtomicU32::new(0));
    let seen = Arc::clone(&cancelled);
    let agent = Agent::new(settings, "tester")
        .handler(move |task, context| {
            let seen = Arc::clone(&seen);
            async move {
                match task.step_id.as_str() {
                    "good" => {
                        context.progress(Some(0.5), Some("half")).await;
                        Ok(Json::from(json!({"from": task.run_id.as_str()})))
                    }
                    "bad" => Err(Failure::new("validation_error", "not like this")),
                    "panics" => panic!("as the test wants it"),
                    _ => {
                        context.cancelled().cancelled().await;
                        seen.fetch_add(1, Ordering::Relaxed);
                        Ok(Json::null())
                    }
                }
            }
        })
        .concurrency(4);
    let stop = CancellationToken::new();
    let running = tokio::spawn(agent.run_until(stop.clone()));
    for step in ["good", "bad", "panics", "waits"] {
        send_task(
            &broker,
            &format!("r.{step}.0.1"),
            &task_record("r", step, 1),
        )
        .await;
    }
    let found = replies(&broker, 4).await;
    let of = |step: &str, status: &str| {
        let all: Vec<&Value> = found
            .iter()
            .filter(|reply| reply["step_id"] == step && reply["status"] == status)
            .collect();
        assert_eq!(all.len(), 1, "{step} {status}: {found:?}");
        all[0].clone()
    };
    assert_eq!(of("good", "progress")["progress"], 0.5);
    let good = of("good", "completed");
    assert_eq!(
        (&good["output"], &good["task_id"], &good["attempt"]),
        (&json!({"from":"r"}), &json!("r.good.0.1"), &json!(1))
    );
    assert_eq!(of("bad", "failed")["error"]["class"], "validation_error");
    assert_eq!(of("panics", "failed")["error"]["class"], "error");
    let cancel = r#"{"type":"cancel","task_id":"r.waits.0.1","run_id":"r","step_id":"waits","agent":"tester","attempt":1,"epoch":0,"reason":"cancelled"}"#;
    send_task(&broker, "r.waits.0.1", cancel).await;
    until("the handler sees the cancellation", async || {
        cancelled.load(Ordering::Relaxed) == 1
    })
    .await;
    stop.cancel();
    tokio::time::timeout(SOON, running)
        .await
        .expect("it stops")
        .unwrap()
        .expect("and all went well");
}

#[tokio::test(flavor = "multi_thread")]
async fn echo_answers_with_its_inputs_and_fails_as_told() {
    let broker = Broker::start().await;
    broker.topic("tasks.echo", 1).await;
    broker.topic("replies", 4).await;
    let mut settings = Settings::new("");
    settings.client = broker.client();
    settings.prefix = PREFIX.to_owned();
    let stop = CancellationToken::new();
    let built_in = partita::agents::builtin::BuiltIn {
        echo: true,
        http: None,
    };
    let running = tokio::spawn(partita::agents::builtin::run(
        built_in,
        settings,
        stop.clone(),
    ));
    let told = |step: &str, attempt: u32, task: Value| {
        let mut record: Value = serde_json::from_str(&task_record("r", step, attempt)).unwrap();
        record["task"] = task;
        record["inputs"] = json!({"a": 1});
        record.to_string()
    };
    let producer: FutureProducer = broker.client().create().unwrap();
    let topic = format!("{PREFIX}tasks.echo");
    let tasks = [
        told("plain", 1, json!({})),
        told("slow", 1, json!({"sleep": "20ms"})),
        told(
            "twice",
            1,
            json!({"fail": {"class": "timeout", "attempts": 1}}),
        ),
        told(
            "twice",
            2,
            json!({"fail": {"class": "timeout", "attempts": 1}}),
        ),
        told("wrong", 1, json!({"sleep": "soon"})),
    ];
    for task in &tasks {
        let headers = rdkafka::message::OwnedHeaders::new()
            .insert(rdkafka::message::Header {
                key: "partita-reply-partition",
                value: Some("2"),
            })
            .insert(rdkafka::message::Header {
                key: "traceparent",
                value: Some("00-trace"),
            });
        producer
            .send(
                FutureRecord::to(&topic)
                    .key("k")
                    .payload(task)
                    .headers(headers),
                SOON,
            )
            .await
            .unwrap();
    }
    let found = replies(&broker, 5).await;
    let told: std::collections::BTreeSet<String> = found
        .iter()
        .map(|reply| {
            format!(
                "{} {} {}{}",
                reply["step_id"], reply["attempt"], reply["output"], reply["error"]["class"]
            )
        })
        .collect();
    let expected = [
        r#""plain" 1 {"a":1}null"#,
        r#""slow" 1 {"a":1}null"#,
        r#""twice" 1 null"timeout""#,
        r#""twice" 2 {"a":1}null"#,
        r#""wrong" 1 null"validation_error""#,
    ];
    assert_eq!(
        told.iter().map(String::as_str).collect::<Vec<_>>(),
        expected
    );
    stop.cancel();
    tokio::time::timeout(SOON, running)
        .await
        .expect("it stops")
        .unwrap();
}
