//! Events of users' topics become signals exactly once, whatever they are encoded in and whenever
//! the intake is killed; what cannot be read is a dead letter, byte for byte.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use kafka_harness::{Kafka, spawn_bound};
use partita::codec::avro::{put_bytes, put_long};
use partita::codec::event::AvroSchema;
use partita::codec::signal;
use partita::config::TopicsSettings;
use partita::engine::Definitions;
use partita::log::kafka::ClientSettings;
use partita::log::partitioner::partition_of;
use partita::model::signal::Signal;
use partita::model::{Millis, Timestamp};
use partita::pattern::{Rule, syntax};
use partita::runtime::DefinitionRegistry;
use partita::runtime::intake::schemas::{KnownSchemas, SchemaSettings};
use partita::runtime::intake::{Intake, IntakeConfig};
use partita::topics::{Catalogue, Cluster};
use partita::workflow::Workflow;
use partita_broker::{Broker, Config};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Header, Headers, OwnedHeaders};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

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

const ORDER: &str = r#"{"type":"record","name":"Order","fields":[
    {"name":"n","type":"long"},{"name":"user","type":"string"},{"name":"amount","type":"double"},
    {"name":"at","type":{"type":"long","logicalType":"timestamp-millis"}}]}"#;
const ORDER_ID: u32 = 7;

const ORDERS: usize = 3_000;
const CLICKS: usize = 1_500;
const LATE: usize = 20;
const BASE: i64 = 1_769_860_800_000;
/// As topics.yaml has it.
const SIGNAL_PARTITIONS: i32 = 8;
const LIMIT: Duration = Duration::from_secs(120);

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
    let rules: Arc<[Arc<Rule>]> = syntax::parse(RULES, None).expect("valid rules").into();
    let _intake = intake(brokers, Arc::new(Fixed(rules)), Some(registry), Some(file));
    std::thread::sleep(2 * LIMIT);
}

struct Fixed(Arc<[Arc<Rule>]>);

impl Definitions for Fixed {
    fn workflow(&self, _: &str, _: Option<u32>) -> Option<Arc<Workflow>> {
        None
    }
}

impl DefinitionRegistry for Fixed {
    fn catch_up(&self) {}

    fn rules(&self) -> (u64, Arc<[Arc<Rule>]>) {
        (1, self.0.clone())
    }
}

fn intake(
    brokers: &str,
    rules: Arc<dyn DefinitionRegistry>,
    registry: Option<&str>,
    file: Option<&str>,
) -> Intake {
    let schemas = KnownSchemas::new(SchemaSettings {
        url: registry.map(str::to_owned),
        files: file.into_iter().map(Into::into).collect(),
        ..SchemaSettings::default()
    });
    let config = IntakeConfig {
        prefix: "p.".to_owned(),
        batch_records: 100,
        session_timeout: Millis(6_000),
        ..IntakeConfig::new(ClientSettings::plain(brokers), "one")
    };
    let schemas = Arc::new(schemas.expect("schemas")) as _;
    Intake::start(&config, &rules, &schemas).expect("the intake starts")
}

async fn exactly_once(brokers: &str) {
    world::create_topics(brokers, "p.", &[]).await;
    create(brokers, "p.signals", SIGNAL_PARTITIONS).await;
    create(brokers, "orders", 3).await;
    create(brokers, "clicks", 2).await;
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("order.avsc");
    std::fs::write(&file, ORDER).expect("a file");
    let registry = Registry::start().await;
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

/// A record, and what the intake is to make of it.
#[derive(Default)]
struct Sent {
    value: Vec<u8>,
    headers: Vec<(&'static str, &'static str)>,
    is_poison: bool,
    is_timeless: bool,
    has_user: bool,
    is_gone: bool,
}

impl Sent {
    /// The record's own time: that of the CloudEvent, where it says one.
    fn time(&self, n: usize) -> i64 {
        match self.headers.iter().any(|(name, _)| *name == "ce_time") {
            true => 5_000,
            false => BASE + 10 * n as i64,
        }
    }
}

fn order(n: usize) -> Sent {
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

fn click(n: usize) -> Sent {
    let at = BASE + n as i64;
    Sent {
        value: format!(r#"{{"n":{n},"user":"u{}","at":{at}}}"#, n % 40).into(),
        has_user: true,
        ..Sent::default()
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

fn key_of(n: usize) -> Vec<u8> {
    format!("k{n}").into_bytes()
}

pub async fn create(brokers: &str, topic: &str, partitions: i32) {
    use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
    let admin: AdminClient<rdkafka::client::DefaultClientContext> = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .create()
        .expect("an admin client");
    // The records say that they are old, and are to stay.
    let topic =
        NewTopic::new(topic, partitions, TopicReplication::Fixed(1)).set("retention.ms", "-1");
    let created = admin.create_topics([&topic], &AdminOptions::new()).await;
    created.expect("an answer").remove(0).expect("a topic");
}

pub fn producer(brokers: &str) -> ThreadedProducer<DefaultProducerContext> {
    ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("linger.ms", "1")
        .set("message.max.bytes", "2000000")
        .create()
        .expect("a producer")
}

/// Record `n` of a topic: its partition and its time follow from its number.
fn send(
    producer: &ThreadedProducer<DefaultProducerContext>,
    topic: &str,
    partitions: usize,
    n: usize,
    sent: &Sent,
) {
    let mut headers = OwnedHeaders::new();
    for (key, value) in &sent.headers {
        headers = headers.insert(Header {
            key,
            value: Some(*value),
        });
    }
    let key = key_of(n);
    let record = BaseRecord::to(topic)
        .partition((n % partitions) as i32)
        .timestamp(BASE + 10 * n as i64)
        .headers(headers)
        .key(&key)
        .payload(&sent.value);
    producer
        .send(record)
        .map_err(|(error, _)| error)
        .expect("sending");
}

fn start_child(brokers: &str, registry: &str, file: &Path) -> Child {
    let mut command = Command::new(std::env::current_exe().expect("a test knows its program"));
    command
        .args(["--exact", "intake::child", "--ignored", "--nocapture"])
        .env(CHILD, format!("{brokers} {registry} {}", file.display()))
        .stdin(Stdio::null())
        .stdout(Stdio::null());
    spawn_bound(command).expect("the child starts")
}

fn kill(child: &mut Child) {
    child.kill().expect("a child can be killed");
    child.wait().expect("a child can be waited for");
}

/// Waits until the group has committed offsets of all these partitions: what comes from then on is
/// not missed, whoever runs.
pub async fn until_anchored(brokers: &str, topics: &[(&str, i32)]) {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", "p.intake")
        .create()
        .expect("a consumer");
    let mut list = TopicPartitionList::new();
    for (topic, partitions) in topics {
        list.add_partition_range(topic, 0, partitions - 1);
    }
    world::until(|| {
        let committed = consumer.committed_offsets(list.clone(), Duration::from_secs(10));
        let is_there = |element: &rdkafka::topic_partition_list::TopicPartitionListElem<'_>| {
            matches!(element.offset(), Offset::Offset(_))
        };
        committed.is_ok_and(|committed| committed.elements().iter().all(is_there))
    })
    .await;
}

/// A record as it was read: partition, key, value, headers.
pub type Read = (i32, Vec<u8>, Vec<u8>, BTreeMap<String, String>);

/// All committed records of a topic up to where it ends now.
pub fn read_all(brokers: &str, topic: &str) -> Vec<Read> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", "reader")
        .set("isolation.level", "read_committed")
        .set("enable.partition.eof", "true")
        .set("enable.auto.commit", "false")
        .create()
        .expect("a consumer");
    let limit = Duration::from_secs(30);
    let metadata = consumer
        .fetch_metadata(Some(topic), limit)
        .expect("metadata");
    let partitions = metadata.topics()[0].partitions().len() as i32;
    let mut list = TopicPartitionList::new();
    list.add_partition_range(topic, 0, partitions - 1);
    list.set_all_offsets(Offset::Beginning).expect("offsets");
    consumer.assign(&list).expect("an assignment");
    let mut at_end = BTreeSet::new();
    let mut records = Vec::new();
    let began = Instant::now();
    while at_end.len() < partitions as usize {
        assert!(began.elapsed() < LIMIT, "{topic} has no end");
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(message)) => {
                let mut headers = BTreeMap::new();
                for header in message.headers().into_iter().flat_map(Headers::iter) {
                    let value = String::from_utf8_lossy(header.value.unwrap_or_default());
                    headers.insert(header.key.to_owned(), value.into_owned());
                }
                let owned = |bytes: Option<&[u8]>| bytes.unwrap_or_default().to_vec();
                records.push((
                    message.partition(),
                    owned(message.key()),
                    owned(message.payload()),
                    headers,
                ));
            }
            Some(Err(rdkafka::error::KafkaError::PartitionEOF(partition))) => {
                at_end.insert(partition);
            }
            _ => {}
        }
    }
    records
}

/// `rule topic n` of each signal, and those that are there twice. Each lies where its key says.
fn signals(brokers: &str) -> (BTreeSet<String>, Vec<String>) {
    let mut found = BTreeSet::new();
    let mut twice = Vec::new();
    for (partition, key, value, _) in read_all(brokers, "p.signals") {
        let Signal::Event {
            rule,
            version,
            key: correlation,
            topic,
            at,
            payload,
            ..
        } = signal::decode(&value).expect("a signal")
        else {
            continue;
        };
        let correlation = String::from_utf8(correlation).expect("text");
        assert_eq!(key, format!("{rule}@{version}/{correlation}").into_bytes());
        assert_eq!(partition, partition_of(&key, SIGNAL_PARTITIONS));
        let event: serde_json::Value = payload.parse().expect("JSON");
        let n = event["n"].as_u64().expect("a number");
        let user = serde_json::json!([event["user"]]).to_string();
        match rule.as_str() {
            "both" => assert_eq!((correlation, at), (user, Timestamp(BASE + n as i64))),
            "big" => assert_eq!(correlation, user),
            "gone" => assert_eq!(
                (correlation.as_str(), version, at),
                ("[]", 3, Timestamp(5_000))
            ),
            _ => assert_eq!(
                (correlation.as_str(), at),
                ("[]", Timestamp(BASE + 10 * n as i64))
            ),
        }
        let name = format!("{rule} {topic} {n}");
        if !found.insert(name.clone()) {
            twice.push(name);
        }
    }
    (found, twice)
}

async fn until_signals(brokers: &str, count: usize) {
    let deadline = Instant::now() + LIMIT;
    loop {
        let found = signals(brokers).0.len();
        if found >= count {
            return;
        }
        assert!(Instant::now() < deadline, "{found} of {count} signals");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
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

/// A schema registry that knows one schema, and is not there for the first questions.
struct Registry {
    url: String,
    asked: Arc<AtomicUsize>,
}

impl Registry {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let asked = Arc::new(AtomicUsize::new(0));
        let count = asked.clone();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let number = count.fetch_add(1, Ordering::SeqCst);
                let mut request = vec![0; 4_096];
                let read = stream.read(&mut request).await.unwrap_or(0);
                let request = String::from_utf8_lossy(&request[..read]).into_owned();
                let (status, body) = if number < 2 {
                    ("503 Service Unavailable", String::new())
                } else if request.starts_with(&format!("GET /schemas/ids/{ORDER_ID} ")) {
                    ("200 OK", serde_json::json!({"schema": ORDER}).to_string())
                } else {
                    ("404 Not Found", r#"{"error_code":40403}"#.to_owned())
                };
                let answer = format!(
                    "HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {}\r\n\r\n{body}",
                    body.len()
                );
                let _ = stream.write_all(answer.as_bytes()).await;
            }
        });
        Self { url, asked }
    }
}

struct Changing(Mutex<(u64, Arc<[Arc<Rule>]>)>);

impl Changing {
    fn set(&self, text: &str) {
        let rules = syntax::parse(text, None).expect("valid rules");
        let mut current = self.0.lock().unwrap();
        *current = (current.0 + 1, rules.into());
    }
}

impl Definitions for Changing {
    fn workflow(&self, _: &str, _: Option<u32>) -> Option<Arc<Workflow>> {
        None
    }
}

impl DefinitionRegistry for Changing {
    fn catch_up(&self) {}

    fn rules(&self) -> (u64, Arc<[Arc<Rule>]>) {
        self.0.lock().unwrap().clone()
    }
}

/// The topics of an installation as topics.yaml declares them.
async fn create_declared(brokers: &str) {
    let settings = TopicsSettings {
        prefix: "p.".to_owned(),
        ..TopicsSettings::default()
    };
    let catalogue = Catalogue::load(&settings).expect("topics.yaml");
    let mut client = ClientConfig::new();
    client.set("bootstrap.servers", brokers);
    let cluster = Cluster::new(&client, Duration::from_secs(30)).expect("a client");
    cluster.create(&catalogue, "p.").await.expect("topics");
}

/// A record as large as the broker takes it has room as a dead letter, where it gets more headers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_largest_record_of_all_finds_room_as_a_dead_letter() {
    let broker = Broker::start(Config::memory()).await.expect("a broker");
    let brokers = broker.bootstrap();
    create_declared(&brokers).await;
    create(&brokers, "a", 1).await;
    let rule = "kind: rule\nname: r\nmatch: {any: [{id: x, topic: a}]}";
    let rules = syntax::parse(rule, None).expect("a valid rule");
    let intake = intake(&brokers, Arc::new(Fixed(rules.into())), None, None);
    until_anchored(&brokers, &[("a", 1)]).await;
    let producer = producer(&brokers);
    let poison = Sent {
        value: vec![0xff; 1_048_400],
        ..Sent::default()
    };
    send(&producer, "a", 1, 0, &poison);
    send(&producer, "a", 1, 1, &click(1));
    producer.flush(LIMIT).expect("deliveries");
    until_signals(&brokers, 1).await;
    let dead = read_all(&brokers, "p.dead-letter");
    assert_eq!(dead.len(), 1);
    assert!(dead[0].2 == poison.value, "the value is another");
    drop(intake);
}

/// Rules come and go while the intake runs; a rule that comes back goes on where it was.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_intake_follows_its_rules() {
    let broker = Broker::start(Config::memory()).await.expect("a broker");
    let brokers = broker.bootstrap();
    create_declared(&brokers).await;
    create(&brokers, "a", 2).await;
    create(&brokers, "b", 1).await;
    let of = |topic: &str| {
        format!("kind: rule\nname: of_{topic}\nmatch: {{any: [{{id: x, topic: {topic}}}]}}")
    };
    let rules = Arc::new(Changing(Mutex::new((0, Arc::from([])))));
    let intake = intake(&brokers, rules.clone(), None, None);
    let producer = producer(&brokers);
    let send = |topic: &str, partitions: usize, n: usize| {
        send(&producer, topic, partitions, n, &click(n));
        producer.flush(LIMIT).expect("a delivery");
    };
    send("a", 2, 0);
    rules.set(&of("a"));
    until_anchored(&brokers, &[("a", 2)]).await;
    send("a", 2, 1);
    send("b", 1, 2);
    until_signals(&brokers, 1).await;

    rules.set(&format!("{}\n---\n{}", of("a"), of("b")));
    until_anchored(&brokers, &[("b", 1)]).await;
    send("a", 2, 3);
    send("b", 1, 4);
    until_signals(&brokers, 3).await;

    rules.set(&of("b"));
    send("b", 1, 5);
    until_signals(&brokers, 4).await;
    // Both rebalances of the smaller subscription lie between this record and the next look.
    tokio::time::sleep(Duration::from_secs(1)).await;
    send("a", 2, 6);
    rules.set(&format!("{}\n---\n{}", of("a"), of("b")));
    send("a", 2, 7);
    until_signals(&brokers, 6).await;
    let (found, twice) = signals(&brokers);
    let expected = [
        "of_a a 1", "of_a a 3", "of_a a 6", "of_a a 7", "of_b b 4", "of_b b 5",
    ];
    assert_eq!(found, expected.map(str::to_owned).into());
    assert!(twice.is_empty(), "{twice:?}");
    intake.stop();
    let deadline = tokio::time::Instant::now() + LIMIT;
    assert!(intake.until_finished(deadline).await);
}
