//! Events of two topics, three partitions and two, run through two rules while the instances are
//! killed with -9: the runs that the rules start are those that the events ask for, each once.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use rdkafka::producer::{BaseRecord, Producer};
use serde_json::{Value, json};

use crate::chaos::kill_until;
use crate::support::driver::{Sender, producer};
use crate::support::installation::{Environment, Installation};
use crate::support::reader::{Follower, read_all};
use crate::support::topics::create;
use crate::support::wait_for;

/// Orders; every other one is paid.
const ORDERS: usize = 12_000;
/// Orders in a second.
const RATE: usize = 400;
const USERS: usize = 100;
/// Orders of a user that make a match of the second rule.
const TENS: usize = 10;
const LIMIT: Duration = Duration::from_secs(60);
const DELIVERED_WITHIN: Duration = Duration::from_secs(120);

const AT_ONCE: Environment = &[("PARTITA_RUNTIME__STATIC_MEMBERSHIP", "true")];

const DEFINITIONS: &str = r#"
kind: workflow
name: noted
version: 1
steps: [{id: note, agent: echo, inputs: {what: "${input}"}}]
---
kind: rule
name: paid
correlate: {by: [order]}
time: {field: at, out_of_order: 1s}
match:
  all:
    within: 1h
    conditions:
      - {id: ordered, topic: orders, where: "event.kind == 'order'"}
      - {id: settled, topic: payments, where: "event.kind == 'payment'"}
start: {workflow: noted, input: {order: "${key.order}"}}
---
kind: rule
name: tens
correlate: {by: [user]}
time: {field: at, out_of_order: 1s}
match: {count: {topic: orders, where: "event.kind == 'order'", within: 1h, at_least: 10}}
emit: {after_match: skip_past_last}
start: {workflow: noted, input: {user: "${key.user}"}}
"#;

#[test]
fn apache_kafka_and_rules_whose_instances_are_killed() {
    let _alone = crate::support::alone();
    let what = "that rules start each run once on Apache Kafka while instances are killed";
    if let Some(installation) = Installation::on_apache_kafka(what, AT_ONCE) {
        survive(installation);
    }
}

#[test]
fn the_embedded_broker_and_rules_whose_instances_are_killed() {
    let _alone = crate::support::alone();
    survive(Installation::on_embedded_broker(AT_ONCE));
}

fn survive(mut installation: Installation) {
    let bootstrap = installation.bootstrap.clone();
    installation.apply(DEFINITIONS);
    create(&bootstrap, &[("orders", 3), ("payments", 2)]);
    let follower = Follower::start(&bootstrap);
    let total = ORDERS / 2 + USERS * (ORDERS / USERS / TENS);
    let events = thread::spawn({
        let bootstrap = bootstrap.clone();
        move || send_events(&bootstrap)
    });
    let began = Instant::now();
    let kills = kill_until(&mut installation, || follower.ended(), total, began);
    events.join().expect("all events are sent");
    println!(
        "{}: {total} runs from {} events in {:.1} s, {kills} kills",
        installation.broker_name(),
        ORDERS + ORDERS / 2,
        began.elapsed().as_secs_f64()
    );
    assert!(kills >= 3, "only {kills} kills");
    check(&bootstrap);
    for instance in &mut installation.instances {
        instance.wait_until_ready();
    }
    wait_for(LIMIT, "no run beyond them", || follower.ended() == total);
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.expect("after 1970").as_millis() as u64
}

fn send(producer: &Sender, topic: &str, partition: Option<i32>, event: &Value) {
    let payload = event.to_string();
    let key = event["user"].to_string();
    let mut record = BaseRecord::to(topic).key(&key).payload(&payload);
    record.partition = partition;
    let sent = producer.send(record).map_err(|(error, _)| error);
    sent.expect("the producer's queue takes an event");
}

fn send_events(bootstrap: &str) {
    let producer = producer(bootstrap);
    let began = Instant::now();
    for order in 0..ORDERS {
        let user = order % USERS;
        let mut event = json!({"kind": "order", "order": order, "user": user, "at": now()});
        send(&producer, "orders", None, &event);
        // What is of no interest passes by as well.
        event["kind"] = "look".into();
        send(&producer, "orders", None, &event);
        if order % 2 == 0 {
            event["kind"] = "payment".into();
            send(&producer, "payments", None, &event);
        }
        let due = Duration::from_millis((order * 1000 / RATE) as u64);
        thread::sleep(due.saturating_sub(began.elapsed()));
    }
    // Time goes on everywhere: nothing is waited for any more.
    let end = json!({"kind": "end", "order": -1, "user": -1, "at": now() + 60_000});
    for (topic, partitions) in [("orders", 3), ("payments", 2)] {
        for partition in 0..partitions {
            send(&producer, topic, Some(partition), &end);
        }
    }
    let flushed = producer.flush(DELIVERED_WITHIN);
    flushed.expect("all events are delivered");
}

/// The starts on `commands` are the expected ones, each once.
fn check(bootstrap: &str) {
    let mut ids: BTreeMap<String, usize> = BTreeMap::new();
    let mut orders: BTreeMap<u64, usize> = BTreeMap::new();
    let mut users: BTreeMap<u64, usize> = BTreeMap::new();
    for record in read_all(bootstrap, "partita.commands") {
        let command = record.json();
        assert_eq!(command["type"], "start", "{command}");
        *ids.entry(record.key.clone()).or_default() += 1;
        let input = &command["input"];
        match (input["order"].as_u64(), input["user"].as_u64()) {
            (Some(order), None) => *orders.entry(order).or_default() += 1,
            (None, Some(user)) => *users.entry(user).or_default() += 1,
            other => panic!("{other:?} in {command}"),
        }
    }
    let repeated: Vec<_> = ids.iter().filter(|(_, count)| **count > 1).collect();
    assert!(repeated.is_empty(), "started twice: {repeated:?}");
    let expected: BTreeMap<u64, usize> = (0..ORDERS as u64).step_by(2).map(|id| (id, 1)).collect();
    assert!(orders == expected, "{} orders were paid", orders.len());
    let tens = ORDERS / USERS / TENS;
    let expected: BTreeMap<u64, usize> = (0..USERS as u64).map(|user| (user, tens)).collect();
    assert_eq!(users, expected);
    let dead = read_all(bootstrap, "partita.dead-letter");
    let shown = dead.first().map(|letter| (&letter.headers, &letter.value));
    assert!(dead.is_empty(), "{} dead letters: {shown:?}", dead.len());
}
