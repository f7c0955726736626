//! A million events of four topics, with three partitions, two, four and one, run through five rules
//! while the instances are killed with -9: the runs that the rules start are those that the naive
//! matcher of `tests/patterns` finds in the same events, each once.

use std::collections::BTreeMap;
use std::thread;
use std::time::{Duration, Instant};

use partita::model::{Json, Timestamp};
use partita::pattern::syntax;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseRecord, Producer};
use serde_json::{Value, json};

use crate::chaos::kill_until;
use crate::reference::{self, Input};
use crate::support::driver::{Sender, producer};
use crate::support::installation::{Environment, Installation};
use crate::support::reader::{Follower, read_all};
use crate::support::topics::create;
use crate::support::wait_for;

const EVENTS: u64 = 1_000_000;
/// In a second: slow enough that many kills meet them.
const RATE: u64 = 20_000;
/// One event in so many may be part of a match.
const OF_INTEREST: u64 = 32;
const USERS: u64 = 3_000;
/// Event time of the first event; each is a millisecond after the one before, so that none are of
/// one time: those would be taken in the order of their arrival, which is anyone's guess.
const FIRST_AT: i64 = 1_795_219_200_000;
/// Behind every deadline.
const END_AT: i64 = FIRST_AT + 24 * 3_600_000;
const TOPICS: [(&str, i32); 4] = [
    ("orders", 3),
    ("payments", 2),
    ("logins", 4),
    ("shipments", 1),
];

const LIMIT: Duration = Duration::from_secs(120);
const DELIVERED_WITHIN: Duration = Duration::from_secs(300);

const AT_ONCE: Environment = &[("PARTITA_RUNTIME__STATIC_MEMBERSHIP", "true")];

const WORKFLOW: &str = r#"
kind: workflow
name: noted
version: 1
steps: [{id: note, agent: echo, inputs: {what: "${input}"}}]
"#;

/// Name, what a match holds, and the pattern. Nothing is late whatever is read first: time is as far
/// as the slowest partition, and none counts as idle.
const RULES: [(&str, &[&str], &str); 5] = [
    (
        "refunded",
        &["goods", "money"],
        "any: [{id: goods, topic: shipments, where: \"event.kind == 'refund'\"},
               {id: money, topic: payments, where: \"event.kind == 'refund'\"}]",
    ),
    (
        "paid",
        &["ordered", "settled"],
        "all:
      within: 20s
      conditions:
        - {id: ordered, topic: orders, where: \"event.kind == 'order'\"}
        - {id: settled, topic: payments, where: \"event.kind == 'payment'\"}",
    ),
    (
        "probed",
        &["fails", "bought"],
        "sequence:
      within: 120s
      steps:
        - {id: fails, topic: logins, where: \"event.kind == 'fail'\", times: 2}
        - {id: bought, topic: orders, where: \"event.kind == 'order' && event.amount > 20\"}",
    ),
    (
        "busy",
        &["orders"],
        "count: {id: orders, topic: orders, where: \"event.kind == 'order'\", within: 100s, at_least: 3}",
    ),
    (
        "unpaid",
        &["sent"],
        "absent:
      within: 60s
      after: {id: sent, topic: shipments, where: \"event.kind == 'sent'\"}
      expect: {id: came, topic: payments, where: \"event.kind == 'payment'\"}",
    ),
];

/// A run that is to be started: its input.
type Started = BTreeMap<String, usize>;

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
    let expected = expected();
    let total: usize = expected.values().sum();
    for (name, ..) in RULES {
        let found = expected.keys().filter(|input| rule_of(input) == name);
        let found = found.count();
        println!("{name}: {found} matches");
        assert!(found > 100, "only {found} matches of {name}");
    }
    let bootstrap = installation.bootstrap.clone();
    create(&bootstrap, &TOPICS);
    installation.apply(&format!("{WORKFLOW}{}", RULES.map(document).concat()));
    open_all_sources(&bootstrap);
    let follower = Follower::start(&bootstrap);
    let events = thread::spawn({
        let bootstrap = bootstrap.clone();
        move || send_events(&bootstrap)
    });
    let began = Instant::now();
    let kills = kill_until(&mut installation, || follower.ended(), total, began);
    events.join().expect("all events are sent");
    println!(
        "{}: {total} runs from {EVENTS} events in {:.1} s, {kills} kills",
        installation.broker_name(),
        began.elapsed().as_secs_f64()
    );
    assert!(kills >= 3, "only {kills} kills");
    check(&bootstrap, &expected);
    for instance in &mut installation.instances {
        instance.wait_until_ready();
    }
    wait_for(LIMIT, "no run beyond them", || follower.ended() == total);
}

/// A rule as it is applied.
fn document((name, parts, shape): (&str, &[&str], &str)) -> String {
    let inputs = parts.iter();
    let inputs = inputs.map(|id| format!(", {id}: \"${{matches.{id}.map(e, e.id)}}\""));
    let inputs: String = inputs.collect();
    format!(
        "---
kind: rule
name: {name}
correlate: {{by: [user]}}
time: {{field: at, idle_after: 1h}}
match:
  {shape}
start: {{workflow: noted, input: {{rule: {name}{inputs}}}}}
"
    )
}

fn rule_of(input: &str) -> String {
    let input: Value = serde_json::from_str(input).expect("JSON");
    input["rule"].as_str().unwrap_or_default().to_owned()
}

/// An event.
#[derive(Clone, Copy)]
struct Event {
    id: u64,
    topic: usize,
    partition: i32,
    kind: &'static str,
    user: u64,
    amount: u64,
}

impl Event {
    /// The event of this number: always the same.
    fn numbered(id: u64) -> Self {
        let mut random = SplitMix(id);
        let (topic, kind) = if random.below(OF_INTEREST) > 0 {
            (random.below(4) as usize, "view")
        } else {
            match random.below(100) {
                0..30 => (0, "order"),
                30..60 => (1, "payment"),
                60..63 => (1, "refund"),
                63..93 => (2, "fail"),
                93..98 => (3, "sent"),
                _ => (3, "refund"),
            }
        };
        Self {
            id,
            topic,
            partition: random.below(TOPICS[topic].1 as u64) as i32,
            kind,
            user: random.below(USERS),
            amount: random.below(100),
        }
    }

    fn at(&self) -> i64 {
        FIRST_AT + self.id as i64
    }

    fn payload(&self) -> String {
        format!(
            r#"{{"id":{},"kind":"{}","user":{},"amount":{},"at":{},"agent":"Mozilla/5.0 (X11; Linux x86_64)"}}"#,
            self.id,
            self.kind,
            self.user,
            self.amount,
            self.at()
        )
    }
}

/// SplitMix64, by Steele, Lea and Flood.
struct SplitMix(u64);

impl SplitMix {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % bound
    }
}

/// The inputs of the runs that are to be started. No key has to do with another, and what no
/// condition wants changes nothing for patterns that pass over it: so the reference sees the events of
/// one user at a time, without the views.
fn expected() -> Started {
    let mut of_users: BTreeMap<u64, Vec<Event>> = BTreeMap::new();
    let events = (0..EVENTS).map(Event::numbered);
    for event in events.filter(|event| event.kind != "view") {
        of_users.entry(event.user).or_default().push(event);
    }
    let mut expected = Started::new();
    for definition in RULES {
        let rules = syntax::parse(&document(definition), None).expect("a valid rule");
        let rule = &rules[0];
        for events in of_users.values() {
            let input = |event: &Event| {
                let mut topics = rule.topics.iter();
                let topic = topics.position(|topic| **topic == *TOPICS[event.topic].0)?;
                let payload = Json::from_text(&event.payload()).expect("JSON");
                Some(Input {
                    topic: topic as u16,
                    at: Timestamp(event.at()),
                    position: event.id,
                    slots: rule.slots(topic as u16, &payload),
                    payload,
                })
            };
            let inputs: Vec<Input> = events.iter().filter_map(input).collect();
            assert!(
                reference::knows(rule),
                "{} is beyond the reference",
                rule.name
            );
            let found = reference::run(rule, &inputs, END_AT).expect("few partial matches");
            assert_eq!((found.late.len(), found.unkeyed.len()), (0, 0));
            for found in found.matches {
                let mut input = json!({"rule": definition.0});
                for part in definition.1 {
                    input[*part] = json!([]);
                }
                for (step, id) in found.events {
                    let part = input[&*rule.names[usize::from(step)]].as_array_mut();
                    part.expect("a part of the match").push(id.into());
                }
                *expected.entry(input.to_string()).or_default() += 1;
            }
        }
    }
    expected
}

fn send(producer: &Sender, topic: usize, partition: i32, key: &str, payload: &str) {
    let mut record = BaseRecord::to(TOPICS[topic].0)
        .key(key)
        .payload(payload)
        .partition(partition);
    while let Err((error, refused)) = producer.send(record) {
        let is_full = KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull);
        assert_eq!(error, is_full, "the producer takes an event");
        record = refused;
        thread::sleep(Duration::from_millis(10));
    }
}

fn send_to_all(producer: &Sender, at: i64) {
    let event = json!({"kind": "view", "user": -1, "at": at}).to_string();
    for (topic, (_, partitions)) in TOPICS.iter().enumerate() {
        for partition in 0..*partitions {
            send(producer, topic, partition, "all", &event);
        }
    }
    let flushed = producer.flush(DELIVERED_WITHIN);
    flushed.expect("all events are delivered");
}

/// Sends an event to each partition and waits until the patterns have heard of every one of them: from
/// then on, time waits for the slowest.
fn open_all_sources(bootstrap: &str) {
    let producer = producer(bootstrap);
    let sources: i32 = TOPICS.iter().map(|(_, partitions)| partitions).sum();
    let began = Instant::now();
    send_to_all(&producer, FIRST_AT - 1);
    loop {
        let mut heard: BTreeMap<String, usize> = BTreeMap::new();
        for signal in read_all(bootstrap, "partita.signals") {
            *heard.entry(signal.key).or_default() += 1;
        }
        if heard.len() == sources as usize {
            return;
        }
        assert!(began.elapsed() < LIMIT, "only {heard:?} were heard");
    }
}

fn send_events(bootstrap: &str) {
    let producer = producer(bootstrap);
    let began = Instant::now();
    for event in (0..EVENTS).map(Event::numbered) {
        let key = event.user.to_string();
        let payload = event.payload();
        send(&producer, event.topic, event.partition, &key, &payload);
        if event.id % 100 == 0 {
            let due = Duration::from_millis(event.id * 1_000 / RATE);
            thread::sleep(due.saturating_sub(began.elapsed()));
        }
    }
    // Time goes on everywhere: nothing is waited for any more.
    send_to_all(&producer, END_AT);
    println!(
        "all events are sent after {:.1} s",
        began.elapsed().as_secs_f64()
    );
}

/// The starts on `commands` and the runs that began are the expected ones, each once.
fn check(bootstrap: &str, expected: &Started) {
    let mut ids: BTreeMap<String, usize> = BTreeMap::new();
    let mut started = Started::new();
    for record in read_all(bootstrap, "partita.commands") {
        let command = record.json();
        assert_eq!(command["type"], "start", "{command}");
        *ids.entry(record.key.clone()).or_default() += 1;
        *started.entry(command["input"].to_string()).or_default() += 1;
    }
    let repeated: Vec<_> = ids.iter().filter(|(_, count)| **count > 1).collect();
    assert!(repeated.is_empty(), "started twice: {repeated:?}");
    let lacks = |one: &Started, other: &Started| {
        let mut missing = Vec::new();
        for (input, count) in one {
            if other.get(input) != Some(count) {
                missing.push(format!("{count} × {input}"));
            }
        }
        missing
    };
    let (missing, extra) = (lacks(expected, &started), lacks(&started, expected));
    assert!(
        missing.is_empty() && extra.is_empty(),
        "{} are missing, such as {:?}; {} are too many, such as {:?}",
        missing.len(),
        missing.first(),
        extra.len(),
        extra.first()
    );
    let mut began: BTreeMap<String, usize> = BTreeMap::new();
    for record in read_all(bootstrap, "partita.events") {
        if record.json()["type"] == "partita.run.started" {
            *began.entry(record.key).or_default() += 1;
        }
    }
    assert!(began == ids, "{} of {} runs began", began.len(), ids.len());
    let dead = read_all(bootstrap, "partita.dead-letter");
    let shown = dead.first().map(|letter| (&letter.headers, &letter.value));
    assert!(dead.is_empty(), "{} dead letters: {shown:?}", dead.len());
}
