//! What must not stop anybody: records that cannot be read or are too large, among good ones. Each is a
//! dead letter with its reason, byte for byte; the good ones before and behind it are carried out.

use std::process::Stdio;
use std::time::Duration;

use kafka_harness::EmbeddedBroker;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::agent::Worker;
use crate::support::api::Api;
use crate::support::chain;
use crate::support::driver::{Sender, producer};
use crate::support::installation::{Installation, command};
use crate::support::reader::{Record, read_all};
use crate::support::topics::create;
use crate::support::wait_for;

const LIMIT: Duration = Duration::from_secs(120);
/// Over `max_payload_bytes`, under what a broker takes.
const TOO_LARGE: usize = 300 * 1024;

/// A step that nobody does.
const WAITING: &str = r#"
kind: workflow
name: waiting
version: 1
retry: {max_attempts: 1}
steps:
  - {id: wait, agent: nobody}
"#;

/// A bad record, and what its dead letter says.
struct Bad {
    topic: &'static str,
    key: Option<&'static str>,
    value: Option<Vec<u8>>,
    content_type: Option<&'static str>,
    class: &'static str,
    message: &'static str,
}

fn bad_records() -> Vec<Bad> {
    let (commands, replies) = ("partita.commands", "partita.replies");
    let malformed = |topic, key, value: &[u8], message| Bad {
        topic,
        key,
        value: Some(value.to_vec()),
        content_type: None,
        class: "malformed",
        message,
    };
    let large = json!({
        "type": "start", "run_id": "large", "workflow": "chain",
        "input": {"value": "x".repeat(TOO_LARGE)},
    });
    let nameless = br#"{"type":"start","workflow":"chain","input":{"value":1}}"#;
    let no_run = "neither a `run_id` nor a key";
    // The marker of Avro's single-object encoding, and the fingerprint of some other schema.
    let foreign = [0xC3, 0x01, 1, 2, 3, 4, 5, 6, 7, 8, 9];
    vec![
        malformed(commands, None, nameless, no_run),
        malformed(
            replies,
            None,
            br#"{"step_id":"one","status":"completed"}"#,
            no_run,
        ),
        malformed(
            commands,
            Some("run-0"),
            b"{\"type\":",
            "not a command in JSON",
        ),
        malformed(replies, Some("run-0"), b"done!", "not a reply in JSON"),
        malformed(commands, Some("run-0"), &foreign, "not ours"),
        malformed(
            replies,
            Some("run-0"),
            &[0, 0, 0, 0, 7, 1],
            "none is configured",
        ),
        Bad {
            content_type: Some("application/avro"),
            ..malformed(commands, Some("run-0"), &[0xFF; 9], "Avro")
        },
        Bad {
            value: None,
            ..malformed(commands, Some("run-0"), b"", "without a value")
        },
        // Its key is of another partition than its run: it is forwarded first, and stays as it was.
        Bad {
            class: "unknown_workflow",
            ..malformed(
                commands,
                Some("elsewhere"),
                br#"{"type":"start","run_id":"k1","workflow":"nowhere"}"#,
                "no workflow `nowhere`",
            )
        },
        Bad {
            class: "payload_too_large",
            ..malformed(
                commands,
                Some("large"),
                large.to_string().as_bytes(),
                "max_payload_bytes",
            )
        },
    ]
}

#[test]
fn bad_records_are_dead_letters_and_hold_nothing_up() {
    let _alone = crate::support::alone();
    let installation = Installation::on_embedded_broker(&[]);
    installation.apply(&format!("{}---{WAITING}", chain::WORKFLOW));
    let bootstrap = &installation.bootstrap;
    let api = &installation.instances[0].api;
    let worker = Worker::start(bootstrap);
    let producer = producer(bootstrap);
    let bad = bad_records();
    for (number, record) in bad.iter().enumerate() {
        start(&producer, &format!("before-{number}"), number % 2 == 0);
        send(&producer, record);
        start(&producer, &format!("behind-{number}"), number % 2 == 1);
    }
    for number in 0..bad.len() {
        for run in ["before", "behind"].map(|side| format!("{side}-{number}")) {
            wait_for(LIMIT, &run, || shown(api, &run)["status"] == "completed");
        }
    }
    worker.stop();

    let dead = read_all(bootstrap, "partita.dead-letter");
    assert_eq!(dead.len(), bad.len(), "one dead letter for each");
    for record in &bad {
        let message = record.message;
        let is_it = |dead: &&Record| {
            let header = |name: &str| dead.headers.get(&format!("partita-error-{name}"));
            dead.raw_key.as_deref() == record.key.map(str::as_bytes)
                && dead.raw_value == record.value
                && dead.headers.get("content-type").map(String::as_str) == record.content_type
                && header("topic").is_some_and(|topic| topic == record.topic)
                && header("class").is_some_and(|class| class == record.class)
                && header("message").is_some_and(|text| text.contains(message))
                && header("stage").is_some_and(|stage| stage == "workflows")
                && header("partition").is_some_and(|text| text.parse::<i32>().is_ok())
                && header("offset").is_some_and(|text| text.parse::<i64>().is_ok())
        };
        let told: Vec<_> = dead.iter().map(|dead| &dead.headers).collect();
        assert_eq!(dead.iter().filter(is_it).count(), 1, "{message}: {told:#?}");
    }
    assert_eq!(
        api.settled("/v1/runs/large").status,
        404,
        "a start that is refused starts nothing"
    );
}

#[test]
fn an_output_that_is_too_large_fails_its_step() {
    let _alone = crate::support::alone();
    let installation = Installation::on_embedded_broker(&[]);
    installation.apply(WAITING);
    let api = &installation.instances[0].api;
    let start = json!({"workflow": "waiting", "id": "w"});
    let started = api.post_settled("/v1/runs", &start);
    assert!(matches!(started.status, 200 | 201), "{started:?}");
    let reply = json!({
        "run_id": "w", "step_id": "wait", "status": "completed",
        "output": "x".repeat(TOO_LARGE),
    });
    let producer = producer(&installation.bootstrap);
    let reply = reply.to_string();
    let record = BaseRecord::to("partita.replies").key("w").payload(&reply);
    producer
        .send(record)
        .map_err(|(error, _)| error)
        .expect("sending");
    wait_for(LIMIT, "the run fails", || {
        shown(api, "w")["status"] == "failed"
    });
    let failed = api.settled("/v1/runs/w").body;
    assert_eq!(failed["error"]["class"], "payload_too_large");
}

#[test]
fn topics_that_lack_partitions_are_refused() {
    let broker = EmbeddedBroker::start();
    let bootstrap = broker.bootstrap();
    create(
        &bootstrap,
        &[("partita.commands", 4), ("partita.replies", 2)],
    );
    let folder = TempDir::new().expect("a temporary folder");
    for verb in [
        &["serve", "--http", "127.0.0.1:0", "--data", "data"][..],
        &["topics", "check"],
        &["doctor"],
    ] {
        let output = command(folder.path())
            .args(["--kafka", &bootstrap])
            .args(verb)
            .stdin(Stdio::null())
            .output()
            .expect("partita starts");
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        assert_eq!(output.status.code(), Some(1), "{verb:?}: {said}");
        for word in ["same count", "partita.commands 4", "partita.replies 2"] {
            assert!(
                said.contains(word),
                "{verb:?} does not say `{word}`: {said}"
            );
        }
    }
}

/// Starts a run of the chain; without a key the body alone names the run.
fn start(producer: &Sender, run: &str, with_key: bool) {
    let body = json!({
        "type": "start", "run_id": run, "workflow": chain::NAME, "input": {"value": 1},
    });
    let body = body.to_string();
    let mut record = BaseRecord::<str, str>::to("partita.commands").payload(&body);
    if with_key {
        record = record.key(run);
    }
    producer
        .send(record)
        .map_err(|(error, _)| error)
        .expect("sending");
}

fn send(producer: &Sender, bad: &Bad) {
    let mut record = BaseRecord::<str, [u8]>::to(bad.topic);
    record.key = bad.key;
    record.payload = bad.value.as_deref();
    if let Some(content_type) = bad.content_type {
        record = record.headers(OwnedHeaders::new().insert(Header {
            key: "content-type",
            value: Some(content_type),
        }));
    }
    producer
        .send(record)
        .map_err(|(error, _)| error)
        .expect("sending");
    producer.flush(LIMIT).expect("a delivery");
}

fn shown(api: &Api, run: &str) -> Value {
    let answer = api.get(&format!("/v1/runs/{run}"));
    answer.map_or(Value::Null, |answer| answer.body)
}
