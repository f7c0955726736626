//! Rules in force join compacted topics: the latest value of a key, whatever it is encoded in, over
//! updates and restarts; matches wait for a table that is not read yet, and other rules do not. On the
//! embedded broker, and all of it on one node of Apache Kafka.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kafka_harness::Kafka;
use partita::codec::avro::put_long;
use partita::codec::event::AvroSchema;
use partita::codec::signal::{self, EventParts, WatermarkParts};
use partita::engine::Definitions;
use partita::log::LogError;
use partita::log::partitioner::partition_of;
use partita::model::{Millis, Timestamp};
use partita::pattern::{Rule, syntax};
use partita::runtime::{self, DefinitionRegistry, Handle, RuleSet, RuntimeConfig};
use partita::workflow::Workflow;
use partita_broker::{Broker, Config};
use rdkafka::admin::{AdminOptions, NewPartitions};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
use serde_json::{Value, json};

use crate::intake::support::{admin, create, producer, read_all};
use crate::world::{self, PARTITIONS, Registry};

const RULES: &str = r#"
kind: rule
name: priced
correlate: {by: [sku]}
match: {any: [{id: it, topic: orders}]}
enrich: [{topic: PRICES, as: price, key: sku}]
start: {workflow: noted, input: {sku: "${key.sku}", n: "${matches.it[0].n}", price: "${price}"}}
---
kind: rule
name: plain
correlate: {by: [sku]}
match: {any: [{id: it, topic: orders}]}
start: {workflow: noted, input: {plain: "${key.sku}"}}
"#;

const NOTED: &str = "{kind: workflow, name: noted, steps: [{id: s, agent: nobody}]}";
const PRICE: &str = r#"{"type":"record","name":"Price","fields":[{"name":"v","type":"long"}]}"#;
const BASE: i64 = 1_769_860_800_000;
const LIMIT: Duration = Duration::from_secs(180);

struct Rules {
    workflows: Arc<Registry>,
    rules: Arc<[Arc<Rule>]>,
}

impl Definitions for Rules {
    fn workflow(&self, name: &str, version: Option<u32>) -> Option<Arc<Workflow>> {
        self.workflows.workflow(name, version)
    }
}

impl DefinitionRegistry for Rules {
    fn catch_up(&self) -> Result<(), LogError> {
        Ok(())
    }

    fn rules(&self) -> RuleSet {
        RuleSet::new(1, self.rules.clone())
    }
}

/// The topics of an installation on a broker, events that come one after the other, and the instance
/// that matches them.
struct World {
    brokers: String,
    prefix: &'static str,
    folder: tempfile::TempDir,
    producer: ThreadedProducer<DefaultProducerContext>,
    events: i64,
}

impl World {
    async fn new(brokers: &str, prefix: &'static str) -> Self {
        world::create_topics(brokers, prefix, &["nobody"]).await;
        for topic in ["signals", "pattern-state"] {
            create(brokers, &format!("{prefix}{topic}"), PARTITIONS).await;
        }
        Self {
            producer: producer(brokers),
            folder: tempfile::tempdir().expect("a folder"),
            brokers: brokers.to_owned(),
            prefix,
            events: 0,
        }
    }

    fn topic(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    async fn create_prices(&self) {
        create(&self.brokers, &self.topic("prices"), 3).await;
    }

    /// Gives the table a fourth partition, and a producer that knows it.
    async fn add_a_partition(&mut self) {
        let topic = self.topic("prices");
        let four = NewPartitions::new(&topic, 4);
        let added = admin(&self.brokers)
            .create_partitions([&four], &AdminOptions::new())
            .await;
        added.expect("an answer").remove(0).expect("a partition");
        self.producer = producer(&self.brokers);
        let client = self.producer.client();
        world::until(|| {
            let metadata = client.fetch_metadata(Some(&topic), LIMIT);
            metadata.expect("metadata").topics()[0].partitions().len() == 4
        })
        .await;
    }

    /// Orders of `sku` until one is joined with `price`; all that follow are.
    async fn until_priced(&mut self, sku: &str, price: i64) {
        let deadline = Instant::now() + LIMIT;
        loop {
            let before = values(&self.started().0, sku).len();
            self.order(sku);
            self.until(|priced, _| values(priced, sku).len() > before)
                .await;
            let seen = values(&self.started().0, sku);
            if let Some(first_new) = seen.iter().position(|value| *value == price) {
                let after = &seen[first_new..];
                assert!(after.iter().all(|value| *value == price), "{seen:?}");
                return;
            }
            assert!(Instant::now() < deadline, "{price} is never seen: {seen:?}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    fn start(&self, set: impl FnOnce(&mut RuntimeConfig)) -> Handle {
        let schema = self.folder.path().join("price.avsc");
        std::fs::write(&schema, PRICE).expect("a file");
        let mut config = world::config(&self.brokers, self.prefix, "one", None);
        config.schemas.files = vec![schema];
        set(&mut config);
        let rules = RULES.replace("PRICES", &self.topic("prices"));
        let rules = syntax::parse(&rules, None).expect("valid rules");
        let registry = Rules {
            workflows: Registry::with(NOTED),
            rules: rules.into(),
        };
        runtime::start(config, Arc::new(registry)).expect("an instance")
    }

    fn row(&self, key: &str, value: Option<&[u8]>, headers: &[(&str, &str)]) {
        self.row_in(i32::from(key.as_bytes()[0] % 3), key, value, headers);
    }

    fn row_in(&self, partition: i32, key: &str, value: Option<&[u8]>, headers: &[(&str, &str)]) {
        let mut of_record = OwnedHeaders::new();
        for (key, value) in headers {
            of_record = of_record.insert(Header {
                key,
                value: Some(*value),
            });
        }
        let topic = self.topic("prices");
        let mut record = BaseRecord::to(&topic)
            .partition(partition)
            .headers(of_record)
            .key(key);
        if let Some(value) = value {
            record = record.payload(value);
        }
        self.send(record);
    }

    fn send(&self, record: BaseRecord<'_, str, [u8]>) {
        let sent = self.producer.send(record);
        sent.map_err(|(error, _)| error).expect("sending");
        self.producer.flush(LIMIT).expect("a delivery");
    }

    /// An order of `sku`, as the intake hands it to both rules.
    fn order(&mut self, sku: &str) {
        self.events += 1;
        let (payload, at) = (
            json!({"sku": sku, "n": self.events}).into(),
            Timestamp(BASE + self.events),
        );
        let key = json!([sku]).to_string();
        let signals = self.topic("signals");
        for rule in ["priced", "plain"] {
            let mut value = Vec::new();
            signal::encode_event(
                &EventParts {
                    rule,
                    version: 1,
                    key: key.as_bytes(),
                    topic: "orders",
                    partition: 0,
                    offset: self.events,
                    at,
                    payload: &payload,
                    begins: true,
                },
                &mut value,
            );
            let mut name = Vec::new();
            signal::put_event_key(rule, 1, key.as_bytes(), &mut name);
            let name = String::from_utf8(name).expect("text");
            let record = BaseRecord::to(&signals)
                .partition(partition_of(name.as_bytes(), PARTITIONS))
                .key(name.as_str())
                .payload(value.as_slice());
            self.send(record);
        }
        let mut value = Vec::new();
        signal::encode_watermark(
            &WatermarkParts {
                topic: "orders",
                partition: 0,
                partitions: 1,
                clock: "",
                at,
            },
            &mut value,
        );
        for partition in 0..PARTITIONS {
            let record = BaseRecord::to(&signals)
                .partition(partition)
                .payload(value.as_slice());
            self.send(record);
        }
    }

    /// The prices that runs were started with, of `priced` by sku in the order of the events; of
    /// `plain` how many there were.
    fn started(&self) -> (BTreeMap<String, Vec<Value>>, usize) {
        let (mut priced, mut plain) = (BTreeMap::<String, BTreeMap<u64, Value>>::new(), 0);
        for (_, _, value, _) in read_all(&self.brokers, &self.topic("commands")) {
            let command: Value = serde_json::from_slice(&value).expect("JSON");
            let input = &command["input"];
            match input["sku"].as_str() {
                Some(sku) => {
                    let number = input["n"].as_u64().expect("a number");
                    let of_sku = priced.entry(sku.to_owned()).or_default();
                    let before = of_sku.insert(number, input["price"].clone());
                    assert_eq!(before, None, "event {number} started two runs");
                }
                None => plain += 1,
            }
        }
        let in_order =
            |(sku, prices): (String, BTreeMap<u64, Value>)| (sku, prices.into_values().collect());
        (priced.into_iter().map(in_order).collect(), plain)
    }

    async fn until(&self, holds: impl Fn(&BTreeMap<String, Vec<Value>>, usize) -> bool) {
        let deadline = Instant::now() + LIMIT;
        loop {
            let (priced, plain) = self.started();
            if holds(&priced, plain) {
                return;
            }
            assert!(Instant::now() < deadline, "{priced:?}, {plain} plain");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    fn dead_letters(&self) -> Vec<(String, String)> {
        let dead = read_all(&self.brokers, &self.topic("dead-letter")).into_iter();
        dead.map(|(_, _, _, headers)| {
            let header = |name: &str| headers.get(name).cloned().unwrap_or_default();
            (
                header("partita-error-class"),
                header("partita-error-message"),
            )
        })
        .collect()
    }
}

fn single_object(v: i64) -> Vec<u8> {
    let schema = AvroSchema::parse(PRICE).expect("a schema");
    let mut value = vec![0xc3, 0x01];
    value.extend(schema.fingerprint());
    put_long(&mut value, v);
    value
}

fn values(priced: &BTreeMap<String, Vec<Value>>, sku: &str) -> Vec<Value> {
    let of_sku = priced.get(sku).into_iter().flatten();
    of_sku.map(|price| price["v"].clone()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_match_is_joined_with_the_latest_value_over_updates_and_restarts() {
    let broker = Broker::start(Config::memory()).await.expect("a broker");
    the_latest_value(&broker.bootstrap()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_match_waits_for_its_table_over_a_restart() {
    let broker = Broker::start(Config::memory()).await.expect("a broker");
    waiting(&broker.bootstrap()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_that_never_comes_has_no_values() {
    let broker = Broker::start(Config::memory()).await.expect("a broker");
    no_topic(&broker.bootstrap()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_beyond_its_bound_makes_dead_letters_that_say_so() {
    let broker = Broker::start(Config::memory()).await.expect("a broker");
    too_large(&broker.bootstrap()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn rules_join_on_apache_kafka() {
    let Some(kafka) = Kafka::start_or_skip("joins of rules on Apache Kafka") else {
        return;
    };
    let of = || kafka.bootstrap();
    let (one, two, three, four) = (of(), of(), of(), of());
    // Beside one another: each of them mostly waits.
    let cases = [
        tokio::spawn(async move { the_latest_value(&one).await }),
        tokio::spawn(async move { waiting(&two).await }),
        tokio::spawn(async move { no_topic(&three).await }),
        tokio::spawn(async move { too_large(&four).await }),
    ];
    for case in cases {
        case.await.expect("it holds");
    }
}

async fn the_latest_value(brokers: &str) {
    let mut world = World::new(brokers, "j1.").await;
    world.create_prices().await;
    world.row("json", Some(br#"{"v":0}"#), &[]);
    world.row("json", Some(br#"{"v":1}"#), &[]);
    let headers = [("ce_specversion", "1.0"), ("ce_type", "price.set")];
    world.row("event", Some(br#"{"v":2}"#), &headers);
    world.row("avro", Some(&single_object(3)), &[]);
    world.row("gone", Some(br#"{"v":4}"#), &[]);
    world.row("gone", None, &[]);
    world.row("torn", Some(br#"{"v":5}"#), &[]);
    world.row("torn", Some(br#"{"v":"#), &[]);
    let handle = world.start(|_| {});
    let all = ["json", "event", "avro", "gone", "torn", "never"];
    for sku in all {
        world.order(sku);
    }
    world
        .until(|priced, plain| priced.len() == all.len() && plain == all.len())
        .await;
    let (priced, _) = world.started();
    for (sku, expected) in [("json", 1), ("event", 2), ("avro", 3), ("torn", 5)] {
        assert_eq!(values(&priced, sku), [json!(expected)], "{sku}");
    }
    assert_eq!(priced["event"][0]["ce"]["type"], "price.set");
    assert_eq!(
        (&priced["gone"], &priced["never"]),
        (&vec![json!(null)], &vec![json!(null)])
    );

    // An update is seen once it has been read, and from then on.
    world.row("json", Some(br#"{"v":10}"#), &[]);
    world.until_priced("json", 10).await;

    // A partition that is added later is read as well, from its first record on.
    world.add_a_partition().await;
    world.row_in(3, "fourth", Some(br#"{"v":40}"#), &[]);
    world.until_priced("fourth", 40).await;
    assert!(handle.shutdown(LIMIT).await);

    // After a restart nothing matches before the table is read: the first one sees it all.
    world.row("avro", Some(&single_object(30)), &[]);
    world.row("json", None, &[]);
    world.order("avro");
    world.order("json");
    let before = values(&world.started().0, "json").len();
    let handle = world.start(|_| {});
    world
        .until(|priced, _| {
            values(priced, "avro").len() == 2 && values(priced, "json").len() > before
        })
        .await;
    let (priced, _) = world.started();
    assert_eq!(values(&priced, "avro"), [json!(3), json!(30)]);
    assert_eq!(priced["json"].last(), Some(&json!(null)));
    assert_eq!(world.dead_letters(), []);
    assert!(handle.shutdown(LIMIT).await);
}

/// The topic is not there, and somebody makes it after a restart: the match has waited, in its turn,
/// and the rule that joins nothing has not.
async fn waiting(brokers: &str) {
    let mut world = World::new(brokers, "j2.").await;
    let patient = |config: &mut RuntimeConfig| config.table_wait = Millis(3_600_000);
    let handle = world.start(patient);
    world.order("a");
    world.order("b");
    world.until(|_, plain| plain == 2).await;
    assert_eq!(world.started().0, BTreeMap::new());
    assert!(handle.shutdown(LIMIT).await);

    let handle = world.start(patient);
    world.order("a");
    world.until(|_, plain| plain == 3).await;
    assert_eq!(world.started().0, BTreeMap::new());
    world.create_prices().await;
    world.row("never asked for", Some(br#"{"v":7}"#), &[]);
    world
        .until(|priced, _| priced.values().map(Vec::len).sum::<usize>() == 3)
        .await;
    assert!(handle.shutdown(LIMIT).await);

    // All that waited is gone from the changelog: nothing starts again.
    world.row("a", Some(br#"{"v":8}"#), &[]);
    let handle = world.start(patient);
    world.order("a");
    world.until(|priced, _| priced["a"].len() == 3).await;
    let (priced, plain) = world.started();
    assert_eq!(priced["a"].last(), Some(&json!({"v": 8})));
    assert_eq!((priced["b"].len(), plain), (1, 4));
    assert_eq!(world.dead_letters(), []);
    assert!(handle.shutdown(LIMIT).await);
}

async fn no_topic(brokers: &str) {
    let mut world = World::new(brokers, "j3.").await;
    let handle = world.start(|config| config.table_wait = Millis(1_000));
    world.order("a");
    world.until(|priced, _| priced.len() == 1).await;
    assert_eq!(world.started().0["a"], [json!(null)]);
    assert!(handle.shutdown(LIMIT).await);
}

async fn too_large(brokers: &str) {
    let mut world = World::new(brokers, "j4.").await;
    world.create_prices().await;
    for sku in ["a", "b", "c"] {
        world.row(sku, Some(br#"{"v":1}"#), &[]);
    }
    let handle = world.start(|config| config.table_bytes = 250);
    world.order("a");
    world.until(|_, plain| plain == 1).await;
    let deadline = Instant::now() + LIMIT;
    while world.dead_letters().is_empty() {
        assert!(Instant::now() < deadline, "no dead letter");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let dead = world.dead_letters();
    assert_eq!((dead.len(), dead[0].0.as_str()), (1, "join_unavailable"));
    assert!(dead[0].1.contains("events.table_bytes"), "{}", dead[0].1);
    assert_eq!(world.started().0, BTreeMap::new());
    assert!(handle.shutdown(LIMIT).await);
}
