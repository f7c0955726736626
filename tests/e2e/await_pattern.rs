//! Runs wait for a pattern of two events while the instances are killed with -9 between the first and
//! the second, and while the second come: every run ends once, with the events of its own.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::producer::{BaseRecord, Producer};
use serde_json::{Value, json};

use crate::support::driver::{Sender, producer, run_id, start_by_records};
use crate::support::installation::{Environment, Installation};
use crate::support::reader::{Follower, read_all};
use crate::support::topics::create;
use crate::support::wait_for;

const RUNS: usize = 200;
const RATE: usize = 500;
const LIMIT: Duration = Duration::from_secs(180);

const AT_ONCE: Environment = &[("PARTITA_RUNTIME__STATIC_MEMBERSHIP", "true")];

const WORKFLOW: &str = r#"
kind: workflow
name: waiting
version: 1
steps:
  - id: paid
    kind: await_pattern
    correlate: {order: "${input.value}"}
    time: {idle_after: 10m}
    match:
      sequence:
        within: 1h
        steps:
          - {id: reserved, topic: stock}
          - {id: settled, topic: payments, where: "event.amount == matches.reserved[0].amount"}
output: {reserved: "${steps.paid.output.matches.reserved}", settled: "${steps.paid.output.matches.settled}"}
"#;

#[test]
fn apache_kafka_and_runs_that_wait_for_a_pattern() {
    let _alone = crate::support::alone();
    let what = "that patterns within runs outlive killed instances, on Apache Kafka";
    if let Some(installation) = Installation::on_apache_kafka(what, AT_ONCE) {
        survive(installation);
    }
}

#[test]
fn the_embedded_broker_and_runs_that_wait_for_a_pattern() {
    let _alone = crate::support::alone();
    survive(Installation::on_embedded_broker(AT_ONCE));
}

fn survive(mut installation: Installation) {
    let bootstrap = installation.bootstrap.clone();
    installation.apply(WORKFLOW);
    create(&bootstrap, &[("stock", 1), ("payments", 1)]);
    let follower = Follower::start(&bootstrap);
    start_by_records(&bootstrap, "waiting", 0..RUNS, RATE);
    let api = installation.instances[0].api.clone();
    for number in 0..RUNS {
        wait_for(LIMIT, "the run waits for its pattern", || {
            let run = api.get(&format!("/v1/runs/{}", run_id(number)));
            let run = run.map_or(Value::Null, |answer| answer.body);
            let waiting = &run["waiting_for"][0];
            waiting["kind"] == "pattern" && waiting["key"] == json!([number])
        });
    }
    let producer = producer(&bootstrap);
    for number in 0..RUNS {
        send(&producer, "stock", number);
        if number == RUNS / 2 {
            kill(&mut installation, 0);
        }
    }
    producer.flush(LIMIT).expect("all events are delivered");
    kill(&mut installation, 1);
    kill(&mut installation, 0);
    assert_eq!(follower.ended(), 0, "no run has its second event");
    for number in 0..RUNS {
        send(&producer, "payments", number);
        // What is not of this run, or not enough, changes nothing.
        send_event(
            &producer,
            "payments",
            &json!({"order": number, "amount": -1}),
        );
        if number == RUNS / 2 {
            kill(&mut installation, 1);
        }
    }
    producer.flush(LIMIT).expect("all events are delivered");
    // Time goes on at the other topic as well: until then events of it might come in between.
    send_event(&producer, "stock", &json!({"order": -1, "amount": 0}));
    producer.flush(LIMIT).expect("it is delivered");
    wait_for(LIMIT, "every run ends", || follower.ended() == RUNS);
    check(&bootstrap);
}

fn kill(installation: &mut Installation, number: usize) {
    let instance = &mut installation.instances[number];
    instance.kill9();
    instance.start();
    instance.wait_until_ready();
}

fn send(producer: &Sender, topic: &str, number: usize) {
    let event = json!({"order": number, "amount": number * 10, "of": topic});
    send_event(producer, topic, &event);
}

fn send_event(producer: &Sender, topic: &str, event: &Value) {
    let (key, payload) = (event["order"].to_string(), event.to_string());
    let record = BaseRecord::to(topic).key(&key).payload(&payload);
    let sent = producer.send(record).map_err(|(error, _)| error);
    sent.expect("the producer's queue takes an event");
}

/// One match for each run, and one end with the events that are its own.
fn check(bootstrap: &str) {
    let mut matches: BTreeMap<String, usize> = BTreeMap::new();
    for record in read_all(bootstrap, "partita.commands") {
        if record.json()["type"] == "match" {
            *matches.entry(record.key).or_default() += 1;
        }
    }
    let once: BTreeMap<String, usize> = (0..RUNS).map(|number| (run_id(number), 1)).collect();
    assert_eq!(matches, once);
    let mut outputs: BTreeMap<String, Value> = BTreeMap::new();
    for record in read_all(bootstrap, "partita.events") {
        let event = record.json();
        if event["type"] == "partita.run.completed" {
            let output = event["data"]["output"].clone();
            assert!(outputs.insert(record.key, output).is_none(), "{event}");
        }
    }
    assert_eq!(outputs.len(), RUNS);
    for number in 0..RUNS {
        let of = |topic: &str| json!([{"order": number, "amount": number * 10, "of": topic}]);
        let expected = json!({"reserved": of("stock"), "settled": of("payments")});
        assert_eq!(outputs[&run_id(number)], expected);
    }
    let dead = read_all(bootstrap, "partita.dead-letter");
    let shown = dead.first().map(|letter| (&letter.headers, &letter.value));
    assert!(dead.is_empty(), "{} dead letters: {shown:?}", dead.len());
}
