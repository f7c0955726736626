//! Steps that await a pattern, over a broker: what was found so far outlives the instance, runs that wait
//! for the same events get them each, and one for which nothing comes ends by its timeout.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kafka_harness::Kafka;
use partita::codec::pattern_state::PatternKey;
use partita::config::TopicsSettings;
use partita::engine::Definitions;
use partita::log::LogError;
use partita::log::kafka::ClientSettings;
use partita::model::{Millis, RunId, RunState, RunStatus};
use partita::pattern::Rule;
use partita::runtime::intake::schemas::{KnownSchemas, SchemaSettings};
use partita::runtime::intake::{Intake, IntakeConfig};
use partita::runtime::kinds::{self, Definition};
use partita::runtime::{self, DefinitionRegistry, Handle, Readiness, RuleSet};
use partita::topics::{Catalogue, Cluster};
use partita::workflow::Workflow;
use partita::workflow::definition::Defaults;
use partita_broker::{Broker, Config};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};
use serde_json::{Value, json};

use crate::intake::support::{create, until_anchored};
use crate::world;

const PREFIX: &str = "p.";
/// Of `commands`, as topics.yaml has it.
const PARTITIONS: usize = 8;
const LIMIT: Duration = Duration::from_secs(180);

const WORKFLOWS: &str = r#"
kind: workflow
name: fulfilment
version: 2
steps:
  - id: paid
    kind: await_pattern
    correlate: {order: "${input.order}"}
    time: {idle_after: 10m}
    match:
      sequence:
        within: 1h
        steps:
          - {id: reserved, topic: stock, where: "event.kind == 'reserved'"}
          - {id: settled, topic: payments, where: "event.amount >= matches.reserved[0].amount"}
output: {key: "${steps.paid.output.key}", by: "${steps.paid.output.matches.settled[0].by}"}
---
kind: workflow
name: hasty
steps:
  - id: paid
    correlate: {order: "${input.order}"}
    topic: payments
    match: {any: [{id: settled}]}
    timeout: 1s
"#;

/// All that is applied.
struct Applied {
    definitions: Vec<Definition>,
    rules: Arc<[Arc<Rule>]>,
}

impl Applied {
    fn new() -> Arc<Self> {
        let definitions = kinds::parse(WORKFLOWS, None, &Defaults::default());
        let definitions = definitions.expect("valid workflows");
        let awaited = definitions.iter().flat_map(|found| found.awaited.clone());
        Arc::new(Self {
            rules: awaited.collect(),
            definitions,
        })
    }
}

impl Definitions for Applied {
    fn workflow(&self, name: &str, _: Option<u32>) -> Option<Arc<Workflow>> {
        let mut definitions = self.definitions.iter();
        let found = definitions.find(|definition| *definition.name == *name)?;
        found.workflow().cloned()
    }
}

impl DefinitionRegistry for Applied {
    fn catch_up(&self) -> Result<(), LogError> {
        Ok(())
    }

    fn rules(&self) -> RuleSet {
        RuleSet::new(1, self.rules.clone())
    }

    fn rule(&self, name: &str, _: u32) -> Option<Arc<Rule>> {
        let mut rules = self.rules.iter();
        rules.find(|rule| *rule.name == *name).cloned()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn runs_wait_for_patterns_on_the_embedded_broker() {
    let broker = Broker::start(Config::memory()).await.expect("a broker");
    runs_wait_for_patterns(&broker.bootstrap()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn runs_wait_for_patterns_on_apache_kafka() {
    let Some(kafka) = Kafka::start_or_skip("steps that await a pattern on Apache Kafka") else {
        return;
    };
    runs_wait_for_patterns(&kafka.bootstrap()).await;
}

/// An instance: the workflows', the patterns' and the intake's stages.
struct Instance {
    handle: Handle,
    intake: Intake,
}

impl Instance {
    async fn start(brokers: &str, name: &str) -> Self {
        let definitions: Arc<dyn DefinitionRegistry> = Applied::new();
        let config = world::config(brokers, PREFIX, name, None);
        let handle = runtime::start(config, definitions.clone()).expect("an instance");
        let config = IntakeConfig {
            prefix: PREFIX.to_owned(),
            session_timeout: Millis(6_000),
            ..IntakeConfig::new(ClientSettings::plain(brokers), name)
        };
        let schemas = KnownSchemas::new(SchemaSettings::default()).expect("no schemas");
        let schemas = Arc::new(schemas) as _;
        let intake = Intake::start(&config, &definitions, &schemas).expect("the intake starts");
        let owns_all = || handle.owned().len() == PARTITIONS;
        world::until(|| handle.readiness() == Readiness::Ready && owns_all()).await;
        Self { handle, intake }
    }

    async fn stop(self) {
        self.intake.stop();
        assert!(self.handle.shutdown(LIMIT).await);
        let deadline = tokio::time::Instant::now() + LIMIT;
        assert!(self.intake.until_finished(deadline).await);
    }

    async fn begin(&self, run: &str, workflow: &str) {
        let command = world::start(run, workflow, r#"{"order":"o-1"}"#);
        self.handle.submit(command, None).await.expect("an answer");
    }

    fn run(&self, id: &str) -> RunState {
        let run = self.handle.run(&RunId::parse(id).expect("an id"));
        run.expect("restored").expect("it was started")
    }

    async fn ended(&self, id: &str) -> RunState {
        let id = RunId::parse(id).expect("an id");
        let run = self.handle.wait_for_end(&id, LIMIT).await;
        run.expect("restored").expect("it was started")
    }
}

fn send(brokers: &str, topic: &str, event: &Value) {
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .create()
        .expect("a producer");
    let body = event.to_string();
    let record: BaseRecord<'_, (), _> = BaseRecord::to(topic).partition(0).payload(&body);
    producer.send(record).expect("it fits");
    producer.flush(LIMIT).expect("it is delivered");
}

/// Waits until the patterns' state is what `holds` of: the keys of its entries.
fn until_saved(brokers: &str, holds: impl Fn(&BTreeSet<PatternKey>) -> bool) {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("group.id", "nobody")
        .set("isolation.level", "read_committed")
        .create()
        .expect("a consumer");
    let topic = format!("{PREFIX}pattern-state");
    let known = consumer.fetch_metadata(Some(&topic), LIMIT);
    let partitions = known.expect("an answer").topics()[0].partitions().len();
    let mut list = TopicPartitionList::new();
    for partition in 0..partitions as i32 {
        let added = list.add_partition_offset(&topic, partition, Offset::Beginning);
        added.expect("a partition");
    }
    consumer.assign(&list).expect("they can be read");
    let mut entries = BTreeSet::new();
    let deadline = Instant::now() + LIMIT;
    while !holds(&entries) {
        assert!(
            Instant::now() < deadline,
            "it never comes to that: {entries:?}"
        );
        let Some(record) = consumer.poll(Duration::from_millis(100)) else {
            continue;
        };
        let record = record.expect("a record");
        let key = PatternKey::parse(record.key().expect("a key")).expect("one of ours");
        match record.payload() {
            Some(_) => drop(entries.insert(key)),
            None => drop(entries.remove(&key)),
        }
    }
}

fn keys_with_state(entries: &BTreeSet<PatternKey>) -> usize {
    let is_state = |key: &&PatternKey| matches!(key, PatternKey::State { .. });
    entries.iter().filter(is_state).count()
}

fn watches(entries: &BTreeSet<PatternKey>) -> usize {
    let is_watch = |key: &&PatternKey| matches!(key, PatternKey::Watch { .. });
    entries.iter().filter(is_watch).count()
}

async fn runs_wait_for_patterns(brokers: &str) {
    let settings = TopicsSettings {
        prefix: PREFIX.to_owned(),
        ..TopicsSettings::default()
    };
    let catalogue = Catalogue::load(&settings).expect("topics.yaml");
    let mut client = ClientConfig::new();
    client.set("bootstrap.servers", brokers);
    let cluster = Cluster::new(&client, Duration::from_secs(30)).expect("a client");
    cluster.create(&catalogue, PREFIX).await.expect("topics");
    create(brokers, "stock", 1).await;
    create(brokers, "payments", 1).await;

    let first = Instance::start(brokers, "one").await;
    until_anchored(brokers, &[("stock", 1), ("payments", 1)]).await;
    first.begin("early", "fulfilment").await;
    first.begin("other", "fulfilment").await;
    for id in ["early", "other"] {
        let watched = || first.run(id).watched(0).is_some();
        world::until(watched).await;
    }
    let reserved = json!({"kind": "reserved", "order": "o-1", "amount": 5});
    let elsewhere = json!({"kind": "reserved", "order": "o-2", "amount": 5});
    send(brokers, "stock", &reserved);
    // Both hold what came so far.
    until_saved(brokers, |entries| {
        keys_with_state(entries) == 2 && watches(entries) == 2
    });
    first.stop().await;

    let second = Instance::start(brokers, "two").await;
    second.begin("late", "fulfilment").await;
    second.begin("hasty", "hasty").await;
    let hasty = second.ended("hasty").await;
    assert_eq!(hasty.status, RunStatus::Failed, "{hasty:?}");
    assert_eq!(hasty.error.expect("an error").class, "timeout");
    world::until(|| second.run("late").watched(0).is_some()).await;
    until_saved(brokers, |entries| watches(entries) == 3);
    // Too little, and then enough.
    for (amount, by) in [(4, "cash"), (5, "card")] {
        send(
            brokers,
            "payments",
            &json!({"order": "o-1", "amount": amount, "by": by}),
        );
    }
    // Time goes on at the other topic as well: until then an event of it might come in between.
    send(brokers, "stock", &elsewhere);
    for id in ["early", "other"] {
        let run = second.ended(id).await;
        assert_eq!(run.status, RunStatus::Completed, "{run:?}");
        let output: Value = run.output.expect("an output").parse().expect("JSON");
        assert_eq!(output, json!({"key": {"order": "o-1"}, "by": "card"}));
    }
    // What was reserved before it began to wait is nothing to it.
    let late = second.run("late");
    assert_eq!(late.status, RunStatus::Running, "{late:?}");
    until_saved(brokers, |entries| watches(entries) == 1);
    send(brokers, "stock", &reserved);
    until_saved(brokers, |entries| keys_with_state(entries) == 1);
    send(
        brokers,
        "payments",
        &json!({"order": "o-1", "amount": 9, "by": "cheque"}),
    );
    send(brokers, "stock", &elsewhere);
    let late = second.ended("late").await;
    assert_eq!(late.status, RunStatus::Completed, "{late:?}");
    until_saved(brokers, |entries| {
        watches(entries) + keys_with_state(entries) == 0
    });
    second.stop().await;
}
