//! Events of users' topics become signals exactly once, whatever they are encoded in and whenever
//! the intake is killed; what cannot be read is a dead letter, byte for byte.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use kafka_harness::{Kafka, spawn_bound};
use partita::codec::avro::{put_bytes, put_long};
use partita::codec::event::AvroSchema;
use partita::codec::signal;
use partita::model::signal::Signal;
use partita_broker::{Broker, Config};
use rdkafka::producer::Producer;

use super::support::{
    BASE, LIMIT, ORDER, ORDER_ID, Registry, Rules, SIGNAL_PARTITIONS, Sent, click, create, intake,
    key_of, producer, read_all, send, signals, until_anchored, until_signals,
};
use crate::world;

const RULES: &str = r#"
kind: rule
name: big
correlate: {by: [user]}
match: {any: [{id: a, topic: orders, where: "event.amount > 50.0"}]}
---
kind: rule
name: gone
version: 3
match: {any: [{id: a, topic: orders, where: "event.ce.type == 'order.gone'"}]}
---
kind: rule
name: both
correlate: {by: [user]}
time: {field: at}
match: {all: {within: 1m, conditions: [{id: a, topic: orders}, {id: b, topic: clicks}]}}
---
kind: rule
name: late
match: {any: [{id: a, topic: late}]}
"#;

const ORDERS: usize = 3_000;
const CLICKS: usize = 1_500;
const LATE: usize = 20;

/// What the child needs to know, separated by spaces.
const CHILD: &str = "PARTITA_TEST_INTAKE";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_become_signals_exactly_once_on_the_embedded_broker() {
    let broker = Broker::start(Config::memory()).await.expect("a broker");
    exactly_once(&broker.bootstrap()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_become_signals_exactly_once_on_apache_kafka() {
    let Some(kafka) = Kafka::start_or_skip("the intake against Apache Kafka") else {
        return;
    };
    exactly_once(&kafka.bootstrap()).await;
}

/// Not a test: the process that the others kill.
#[test]
#[ignore = "the other tests run it as a process of its own"]
fn child() {
    let Ok(told) = std::env::var(CHILD) else {
        return;
    };
    let [brokers, registry, file] = told.split(' ').collect::<Vec<_>>()[..] else {
        panic!("{CHILD} is `{told}`");
    };
    if let Ok(filter) = std::env::var("RUST_LOG") {
        // What a child has to say, for whoever looks into a failure.
        tracing_subscriber::fmt()
            .with_env_filter(filter)
            .with_writer(std::io::stderr)
            .init();
    }
    let _intake = intake(brokers, Rules::of(RULES), Some(registry), Some(file));
    std::thread::sleep(2 * LIMIT);
}

async fn exactly_once(brokers: &str) {
    world::create_topics(brokers, "p.", &[]).await;
    create(brokers, "p.signals", SIGNAL_PARTITIONS).await;
    create(brokers, "orders", 3).await;
    create(brokers, "clicks", 2).await;
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("order.avsc");
    std::fs::write(&file, ORDER).expect("a file");
    let registry = Registry::start(2).await;
    let begin = || start_child(brokers, &registry.url, &file);

    // What is there before a rule is new to it and none of its business.
    let producer = producer(brokers);
    for n in 0..30 {
        send(&producer, "orders", 3, 1_000_000 + n, &order(1));
    }
    producer.flush(LIMIT).expect("deliveries");
    let mut child = begin();
    until_anchored(brokers, &[("orders", 3), ("clicks", 2)]).await;

    let mut expected = Expected::default();
    for n in 0..ORDERS {
        let sent = order(n);
        send(&producer, "orders", 3, n, &sent);
        expected.order(n, &sent);
        if n * CLICKS / ORDERS < (n + 1) * CLICKS / ORDERS {
            let n = n * CLICKS / ORDERS;
            send(&producer, "clicks", 2, n, &click(n));
            expected.wanted("both", n, "clicks");
        }
        if n == ORDERS / 6 {
            create(brokers, "late", 2).await;
            for n in 0..LATE {
                send(&producer, "late", 2, n, &click(n));
                expected.wanted("late", n, "late");
            }
            // Whoever has looked for the topic in vain knows that it is younger than the rule: so it
            // comes while the first child runs, and is anchored before that is killed.
            until_anchored(brokers, &[("late", 2)]).await;
        }
        if n % 100 == 99 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        if n == ORDERS / 3 || n == 2 * ORDERS / 3 {
            // Killed in the midst of it: not before it has written, and not after it has done.
            until_signals(brokers, 1 + expected.signals.len() / 4).await;
            kill(&mut child);
            child = begin();
        }
    }
    producer.flush(LIMIT).expect("deliveries");
    until_signals(brokers, expected.signals.len()).await;
    let watermarks = until_watermarks(brokers).await;
    kill(&mut child);

    let (found, twice) = signals(brokers);
    assert_eq!(twice, Vec::<String>::new(), "signals that are there twice");
    let missing: Vec<_> = expected.signals.difference(&found).take(5).collect();
    let strange: Vec<_> = found.difference(&expected.signals).take(5).collect();
    assert!(
        missing.is_empty() && strange.is_empty(),
        "missing {missing:?}, strange {strange:?}"
    );
    assert_eq!(dead_letters(brokers), expected.dead);
    for partition in 0..SIGNAL_PARTITIONS {
        assert_eq!(
            watermarks[&partition],
            last_times(),
            "partition {partition}"
        );
    }
    assert!(
        registry.asked.load(Ordering::SeqCst) > 2,
        "the registry was asked"
    );
}

/// The last time of each source partition under each of its clocks, as the intake tells it.
fn last_times() -> BTreeMap<String, i64> {
    let mut times = BTreeMap::new();
    for (topic, count, partitions) in [
        ("orders", ORDERS, 3),
        ("clicks", CLICKS, 2),
        ("late", LATE, 2),
    ] {
        for n in 0..count {
            let key = |clock: &str| format!("{topic}/{}/{partitions}/{clock}", n % partitions);
            let sent = if topic == "orders" {
                order(n)
            } else {
                click(n)
            };
            if sent.is_poison {
                continue;
            }
            // `gone`, `big` and `late` go by the record's time, `both` by the field.
            if topic != "clicks" {
                let latest = times.entry(key("")).or_insert(0);
                *latest = sent.time(n).max(*latest);
            }
            if topic != "late" && !sent.is_timeless {
                times.insert(key("at"), BASE + n as i64);
            }
        }
    }
    times
}

pub(super) fn order(n: usize) -> Sent {
    let (user, amount, at) = (n % 40, n % 100, BASE + n as i64);
    let json = format!(r#"{{"n":{n},"user":"u{user}","amount":{amount}.0,"at":{at}}}"#);
    let avro = || {
        let mut datum = Vec::new();
        put_long(&mut datum, n as i64);
        put_bytes(&mut datum, format!("u{user}").as_bytes());
        datum.extend((amount as f64).to_le_bytes());
        put_long(&mut datum, at);
        datum
    };
    let sent = Sent {
        has_user: true,
        ..Sent::default()
    };
    let poison = |value: &[u8]| Sent {
        value: value.to_vec(),
        is_poison: true,
        ..Sent::default()
    };
    match (n % 50, n % 6) {
        (46, _) => poison(b"\0\0\0\0\x63nobody knows schema 99"),
        (47, _) => poison(&[0xff, 0xfe, n as u8]),
        (48, _) => poison(format!("[{n}").as_bytes()),
        (49, _) => Sent {
            value: format!(r#"{{"n":{n},"user":"u{user}","amount":{amount}.0}}"#).into(),
            is_timeless: true,
            ..sent
        },
        (_, 0) => Sent {
            value: json.into(),
            ..sent
        },
        (_, 1) => Sent {
            value: json.into(),
            headers: vec![
                ("ce_specversion", "1.0"),
                ("ce_type", "order.gone"),
                ("ce_time", "1970-01-01T00:00:05Z"),
            ],
            is_gone: true,
            ..sent
        },
        (_, 2) => Sent {
            value: format!(
                r#"{{"specversion":"1.0","type":"order.made","id":"{n}","source":"/t","data":{json}}}"#
            )
            .into(),
            headers: vec![("content-type", "application/cloudevents+json")],
            ..sent
        },
        (_, 3) => Sent {
            value: [&[0], &ORDER_ID.to_be_bytes()[..], &avro()].concat(),
            ..sent
        },
        (_, 4) => {
            let schema = AvroSchema::parse(ORDER).expect("a schema");
            Sent {
                value: [&[0xc3, 0x01], &schema.fingerprint()[..], &avro()].concat(),
                ..sent
            }
        }
        _ => Sent {
            value: format!(r#"{{"n":{n},"amount":{amount}.0,"at":{at}}}"#).into(),
            ..Sent::default()
        },
    }
}

#[derive(Default)]
struct Expected {
    /// `rule topic n`.
    signals: BTreeSet<String>,
    /// Key, value, class and rule, sorted.
    dead: Vec<Dead>,
}

type Dead = (Vec<u8>, Vec<u8>, String, String);

impl Expected {
    fn wanted(&mut self, rule: &str, n: usize, topic: &str) {
        self.signals.insert(format!("{rule} {topic} {n}"));
    }

    fn order(&mut self, n: usize, sent: &Sent) {
        let mut dead = |class: &str, rule: &str| {
            let key = key_of(n);
            let value = sent.value.clone();
            self.dead
                .push((key, value, class.to_owned(), rule.to_owned()));
            self.dead.sort();
        };
        if sent.is_poison {
            dead("malformed", "");
            return;
        }
        if sent.is_timeless {
            dead("no_event_time", "both@1");
        }
        if sent.has_user && !sent.is_timeless {
            self.wanted("both", n, "orders");
        }
        if sent.has_user && n % 100 > 50 {
            self.wanted("big", n, "orders");
        }
        if sent.is_gone {
            self.wanted("gone", n, "orders");
        }
    }
}

fn start_child(brokers: &str, registry: &str, file: &Path) -> Child {
    let mut command = Command::new(std::env::current_exe().expect("a test knows its program"));
    command
        .args([
            "--exact",
            "intake::exactly_once::child",
            "--ignored",
            "--nocapture",
        ])
        .env(CHILD, format!("{brokers} {registry} {}", file.display()))
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    spawn_bound(command).expect("the child starts")
}

fn kill(child: &mut Child) {
    child.kill().expect("a child can be killed");
    child.wait().expect("a child can be waited for");
}

/// By partition of `signals`: the last watermark of each `topic/partition/partitions/clock`.
fn watermarks(brokers: &str) -> BTreeMap<i32, BTreeMap<String, i64>> {
    let mut last: BTreeMap<i32, BTreeMap<String, i64>> = BTreeMap::new();
    for (home, _, value, _) in read_all(brokers, "p.signals") {
        if let Signal::Watermark {
            topic,
            partition,
            partitions,
            clock,
            at,
        } = signal::decode(&value).expect("a signal")
        {
            let name = format!("{topic}/{partition}/{partitions}/{clock}");
            last.entry(home).or_default().insert(name, at.0);
        }
    }
    last
}

/// Waits until the last time of each source has been told everywhere.
async fn until_watermarks(brokers: &str) -> BTreeMap<i32, BTreeMap<String, i64>> {
    let deadline = Instant::now() + LIMIT;
    loop {
        let found = watermarks(brokers);
        let is_whole = (0..SIGNAL_PARTITIONS).all(|home| found.get(&home) == Some(&last_times()));
        if is_whole || Instant::now() > deadline {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn dead_letters(brokers: &str) -> Vec<Dead> {
    let records = read_all(brokers, "p.dead-letter");
    let mut dead: Vec<Dead> = records
        .into_iter()
        .map(|(_, key, value, headers)| {
            let header = |name: &str| headers.get(name).cloned().unwrap_or_default();
            assert_eq!(header("partita-error-stage"), "intake");
            assert_eq!(header("partita-error-topic"), "orders");
            let class = header("partita-error-class");
            (key, value, class, header("partita-error-rule"))
        })
        .collect();
    dead.sort();
    dead
}
