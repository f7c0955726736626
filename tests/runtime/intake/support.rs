//! What the tests of the intake share: rules that are applied by hand, topics, records and what became
//! of them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use partita::codec::signal;
use partita::config::TopicsSettings;
use partita::engine::Definitions;
use partita::log::LogError;
use partita::log::kafka::ClientSettings;
use partita::log::partitioner::partition_of;
use partita::model::signal::Signal;
use partita::model::{Millis, Timestamp};
use partita::pattern::syntax;
use partita::runtime::intake::schemas::{KnownSchemas, SchemaSettings};
use partita::runtime::intake::{Intake, IntakeConfig};
use partita::runtime::{DefinitionRegistry, Draining, RuleSet};
use partita::topics::{Catalogue, Cluster};
use partita::workflow::Workflow;
use partita_broker::{Broker, Config};
use rdkafka::admin::AdminClient;
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Header, Headers, OwnedHeaders};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, ThreadedProducer};
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::world;

/// Avro that the schema registry knows under [`ORDER_ID`].
pub(crate) const ORDER: &str = r#"{"type":"record","name":"Order","fields":[
    {"name":"n","type":"long"},{"name":"user","type":"string"},{"name":"amount","type":"double"},
    {"name":"at","type":{"type":"long","logicalType":"timestamp-millis"}}]}"#;
pub(crate) const ORDER_ID: u32 = 7;

/// Time of the first record; each has ten milliseconds more than the one before.
pub(crate) const BASE: i64 = 1_769_860_800_000;
/// As topics.yaml has it.
pub(crate) const SIGNAL_PARTITIONS: i32 = 8;
pub(crate) const LIMIT: Duration = Duration::from_secs(120);

/// A rule that wants every event of a topic.
pub(crate) fn all_of(topic: &str) -> String {
    format!("kind: rule\nname: of_{topic}\nmatch: {{any: [{{id: x, topic: {topic}}}]}}")
}

/// Rules that a test applies by hand.
pub(crate) struct Rules {
    current: Mutex<RuleSet>,
    applied_at: Option<Timestamp>,
}

impl Rules {
    pub fn of(text: &str) -> Arc<Self> {
        Self::applied_at(text, None)
    }

    pub fn applied_at(text: &str, applied_at: Option<Timestamp>) -> Arc<Self> {
        let rules = Self {
            current: Mutex::new(RuleSet::empty()),
            applied_at,
        };
        rules.set(text);
        Arc::new(rules)
    }

    pub fn set(&self, text: &str) {
        let rules = match text {
            "" => Vec::new(),
            text => syntax::parse(text, None).expect("valid rules"),
        };
        let mut current = self.current.lock().unwrap();
        *current = RuleSet::new(current.generation + 1, rules.into());
    }

    /// As [`Rules::set`]; those that were in force drain until then.
    pub fn replace(&self, text: &str, until: Timestamp) {
        let before = self.rules();
        self.set(text);
        let before = before.in_force.iter().cloned();
        let draining: Vec<_> = before.map(|rule| Draining { rule, until }).collect();
        self.current.lock().unwrap().draining = draining.into();
    }
}

impl Definitions for Rules {
    fn workflow(&self, _: &str, _: Option<u32>) -> Option<Arc<Workflow>> {
        None
    }
}

impl DefinitionRegistry for Rules {
    fn catch_up(&self) -> Result<(), LogError> {
        Ok(())
    }

    fn rules(&self) -> RuleSet {
        self.current.lock().unwrap().clone()
    }

    fn rule_applied_at(&self, _: &str, _: u32) -> Option<Timestamp> {
        self.applied_at
    }
}

pub(crate) fn intake(
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

pub(crate) async fn stop(intake: Intake) {
    intake.stop();
    let deadline = tokio::time::Instant::now() + LIMIT;
    assert!(intake.until_finished(deadline).await, "it does not stop");
}

/// A broker with the topics of an installation and these beside them, each with so many partitions; and where
/// it listens.
pub(crate) async fn broker_with(topics: &[(&str, i32)]) -> (Broker, String) {
    let broker = Broker::start(Config::memory()).await.expect("a broker");
    let brokers = broker.bootstrap();
    create_declared(&brokers).await;
    for (topic, partitions) in topics {
        create(&brokers, topic, *partitions).await;
    }
    (broker, brokers)
}

/// A record, and what the intake is to make of it.
#[derive(Default)]
pub(crate) struct Sent {
    pub value: Vec<u8>,
    pub headers: Vec<(&'static str, &'static str)>,
    pub is_poison: bool,
    pub is_timeless: bool,
    pub has_user: bool,
    pub is_gone: bool,
}

impl Sent {
    /// The record's own time: that of the CloudEvent, where it says one.
    pub fn time(&self, n: usize) -> i64 {
        match self.headers.iter().any(|(name, _)| *name == "ce_time") {
            true => 5_000,
            false => BASE + 10 * n as i64,
        }
    }
}

pub(crate) fn click(n: usize) -> Sent {
    let at = BASE + n as i64;
    Sent {
        value: format!(r#"{{"n":{n},"user":"u{}","at":{at}}}"#, n % 40).into(),
        has_user: true,
        ..Sent::default()
    }
}

pub(crate) fn key_of(n: usize) -> Vec<u8> {
    format!("k{n}").into_bytes()
}

pub(crate) async fn create(brokers: &str, topic: &str, partitions: i32) {
    create_with(brokers, topic, partitions, &[]).await;
}

pub(crate) async fn create_with(
    brokers: &str,
    topic: &str,
    partitions: i32,
    settings: &[(&str, &str)],
) {
    use rdkafka::admin::{AdminOptions, NewTopic, TopicReplication};
    // The records say that they are old, and are to stay.
    let mut topic =
        NewTopic::new(topic, partitions, TopicReplication::Fixed(1)).set("retention.ms", "-1");
    for (key, value) in settings {
        topic = topic.set(key, value);
    }
    let created = admin(brokers)
        .create_topics([&topic], &AdminOptions::new())
        .await;
    created.expect("an answer").remove(0).expect("a topic");
}

pub(crate) fn admin(brokers: &str) -> AdminClient<DefaultClientContext> {
    let mut client = ClientConfig::new();
    client.set("bootstrap.servers", brokers);
    client.create().expect("an admin client")
}

pub(crate) fn producer(brokers: &str) -> ThreadedProducer<DefaultProducerContext> {
    ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("linger.ms", "1")
        .set("message.max.bytes", "2000000")
        .create()
        .expect("a producer")
}

/// Record `n` of a topic: its partition and its time follow from its number.
pub(crate) fn send(
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

/// Waits until the group has committed offsets of all these partitions: what comes from then on is
/// not missed, whoever runs.
pub(crate) async fn until_anchored(brokers: &str, topics: &[(&str, i32)]) {
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
        let committed = consumer.committed_offsets(list.clone(), Duration::from_secs(60));
        let is_there = |element: &rdkafka::topic_partition_list::TopicPartitionListElem<'_>| {
            matches!(element.offset(), Offset::Offset(_))
        };
        committed.is_ok_and(|committed| committed.elements().iter().all(is_there))
    })
    .await;
}

/// A record as it was read: partition, key, value, headers.
pub(crate) type Read = (i32, Vec<u8>, Vec<u8>, BTreeMap<String, String>);

/// All committed records of a topic up to where it ends now.
pub(crate) fn read_all(brokers: &str, topic: &str) -> Vec<Read> {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", "reader")
        .set("isolation.level", "read_committed")
        .set("enable.partition.eof", "true")
        .set("enable.auto.commit", "false")
        .create()
        .expect("a consumer");
    let limit = Duration::from_secs(120);
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
pub(crate) fn signals(brokers: &str) -> (BTreeSet<String>, Vec<String>) {
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

pub(crate) async fn until_signals(brokers: &str, count: usize) {
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

/// The topics of an installation as topics.yaml declares them.
pub(crate) async fn create_declared(brokers: &str) {
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

/// A schema registry that knows one schema, and does not answer the first questions.
pub(crate) struct Registry {
    pub url: String,
    pub asked: Arc<AtomicUsize>,
    /// So many questions in all find nobody.
    away: Arc<AtomicUsize>,
}

impl Registry {
    pub async fn start(away: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let registry = Self {
            url,
            asked: Arc::default(),
            away: Arc::new(AtomicUsize::new(away)),
        };
        let (asked, away) = (registry.asked.clone(), registry.away.clone());
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let number = asked.fetch_add(1, Ordering::SeqCst);
                let mut request = vec![0; 4_096];
                let read = stream.read(&mut request).await.unwrap_or(0);
                let request = String::from_utf8_lossy(&request[..read]).into_owned();
                let (status, body) = if number < away.load(Ordering::SeqCst) {
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
        registry
    }

    pub fn come_back(&self) {
        self.away.store(0, Ordering::SeqCst);
    }
}
