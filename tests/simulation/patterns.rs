//! The table suite of patterns through the real worker of the patterns' stage: what the filter of the
//! intake lets through goes onto `signals` record by record, the worker dies between any two of them
//! and at every step of its transactions, and what lies on `commands` in the end are the starts of
//! the matches that the pure engine finds, each once.

mod canary;
mod joined;
mod letters;
mod quiet;
mod reapplied;
mod replaced;

use std::collections::BTreeMap;
use std::slice::from_ref;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use partita::codec::event::{self, AvroSchema, NoSchema, RawEvent, Schemas, WriterSchema};
use partita::codec::pattern_state::{self, Piece};
use partita::codec::signal::{self, EventParts, WatermarkParts};
use partita::engine::Definitions;
use partita::log::memory::{Cluster, TopicKey};
use partita::log::{ErrorClass, LogError, Source, StageKind, Topics, partitioner};
use partita::model::{Json, Millis, Timestamp};
use partita::pattern::filter::{Filter, Verdict};
use partita::pattern::{Matcher, Recorded, Rule, Shape, syntax};
use partita::runtime::patterns::{Bounds, Patterns};
use partita::runtime::replay::replay;
use partita::runtime::shared::Shared;
use partita::runtime::tables::{NoValue, Table, Tables};
use partita::runtime::worker::{LoopConfig, Stepped, Worker};
use partita::runtime::{DefinitionRegistry, Draining, RuleSet};
use partita::workflow::Workflow;
use serde_json::{Value, json};

use crate::faulty::{Fault, FaultyLog, Plan, Point, Sabotage};
use crate::originals::{Kept, as_written};
use crate::random::Random;
use crate::tables;

/// What the tables' cases keep well within.
pub const BOUNDS: Bounds = Bounds {
    max_depth: 8,
    max_payload_bytes: 64 << 10,
    // Whatever is due at once becomes as many transactions.
    at_once: 1,
};

const PARTITIONS: i32 = 3;

/// Tries to catch up with the definitions that are in vain.
const IN_VAIN: i32 = 4;

/// A registry whose rule is applied elsewhere once all partitions are restored: it learns of it only when
/// it is told to catch up, and then not at once.
struct OneRule {
    rule: Arc<Rule>,
    /// The next version, or another definition of the same, once it is applied.
    next: Arc<OnceLock<Arc<Rule>>>,
    /// How often it was told.
    told: AtomicI32,
}

impl OneRule {
    /// So often, where it knows the rule.
    const OFTEN: i32 = PARTITIONS + IN_VAIN + 1;
}

impl Definitions for OneRule {
    fn workflow(&self, _: &str, _: Option<u32>) -> Option<Arc<Workflow>> {
        None
    }
}

impl DefinitionRegistry for OneRule {
    fn catch_up(&self) -> Result<(), LogError> {
        let told = self.told.fetch_add(1, Ordering::AcqRel);
        match (PARTITIONS..PARTITIONS + IN_VAIN).contains(&told) {
            false => Ok(()),
            true => Err(LogError {
                class: ErrorClass::Retriable,
                doing: "reading the definitions",
                reason: "they are away".to_owned(),
            }),
        }
    }

    fn rules(&self) -> RuleSet {
        if self.told.load(Ordering::Acquire) < Self::OFTEN {
            return RuleSet::empty();
        }
        match self.next.get() {
            None => RuleSet::new(1, Arc::from([self.rule.clone()])),
            Some(next) if next.id() == self.rule.id() => RuleSet::new(2, Arc::from([next.clone()])),
            Some(next) => RuleSet {
                generation: 2,
                in_force: Arc::from([next.clone()]),
                draining: Arc::from([Draining::new(&self.rule, Timestamp(0))]),
            },
        }
    }

    fn rule(&self, name: &str, version: u32) -> Option<Arc<Rule>> {
        let is_it = |rule: &&Arc<Rule>| *rule.name == *name && rule.version == version;
        let rules = self.next.get().into_iter().chain([&self.rule]);
        rules.into_iter().find(is_it).cloned()
    }
}

/// The tables hold no Avro.
struct NoSchemas;

impl Schemas for NoSchemas {
    fn by_id(&self, id: u32) -> Result<WriterSchema, NoSchema> {
        Err(NoSchema::Refused(format!("schema {id}")))
    }

    fn by_fingerprint(&self, _: [u8; 8]) -> Result<Arc<AvroSchema>, NoSchema> {
        Err(NoSchema::Refused("a fingerprint".to_owned()))
    }
}

/// The topics that rules join, read to their ends or not.
#[derive(Clone, Default)]
struct Joined {
    is_read: Arc<AtomicBool>,
    rows: Arc<Mutex<BTreeMap<(String, String), Json>>>,
}

struct JoinedTopic(String, Joined);

impl Tables for Joined {
    fn open(&self, topic: &str) -> Arc<dyn Table> {
        Arc::new(JoinedTopic(topic.to_owned(), self.clone()))
    }
}

impl Table for JoinedTopic {
    fn get(&self, key: &str) -> Result<Option<Json>, NoValue> {
        if !self.1.is_read.load(Ordering::Acquire) {
            return Err(NoValue::Reading);
        }
        let place = (self.0.clone(), key.to_owned());
        Ok(self.1.rows.lock().unwrap().get(&place).cloned())
    }
}

/// One installation: a cluster, and one worker that may die.
struct World {
    rule: Arc<Rule>,
    next: Arc<OnceLock<Arc<Rule>>>,
    joined: Joined,
    originals: Kept,
    cluster: Cluster,
    filter: Filter,
    plan: Arc<Mutex<Plan>>,
    shared: Arc<Shared>,
    worker: Option<Worker<Patterns>>,
    /// Whether the process reads the definitions before it works; its later lives do.
    has_read_rules: bool,
    now: Timestamp,
    latest: Option<Timestamp>,
}

impl World {
    fn new(rule: &Arc<Rule>) -> Self {
        let mut world = Self {
            rule: rule.clone(),
            next: Arc::default(),
            joined: Joined::default(),
            originals: Kept::default(),
            cluster: Cluster::new(PARTITIONS),
            filter: Filter::new(std::slice::from_ref(rule)),
            plan: Arc::default(),
            shared: Arc::new(Shared::new("one")),
            worker: None,
            has_read_rules: false,
            now: Timestamp(0),
            latest: None,
        };
        world.boot();
        world
    }

    fn boot(&mut self) {
        if let Some(member) = self.plan.lock().unwrap().member {
            self.cluster.expire_member(member);
        }
        self.plan = Arc::default();
        let log = FaultyLog::of_stage(
            StageKind::Patterns,
            self.cluster.clone(),
            "patterns",
            self.plan.clone(),
            Arc::default(),
            Sabotage::None,
        );
        let config = LoopConfig {
            number: 0,
            batch_records: 100,
            batch_bytes: 1 << 20,
        };
        let registry = Arc::new(OneRule {
            rule: self.rule.clone(),
            next: self.next.clone(),
            told: AtomicI32::new(if self.has_read_rules {
                OneRule::OFTEN
            } else {
                0
            }),
        });
        self.shared = Arc::new(Shared::new("one"));
        let shared = self.shared.clone();
        let tables = Arc::new(self.joined.clone());
        let (topics, originals) = (Topics::new("sim."), Box::new(self.originals.clone()));
        let stage = Patterns::new(0, topics, registry, shared, tables, originals, BOUNDS);
        self.worker = Some(Worker::of(config, Box::new(log), stage));
    }

    /// Lets the worker do all that there is; one that dies is started anew.
    fn settle(&mut self) {
        let mut idle = 0;
        for _ in 0..10_000 {
            let worker = self.worker.as_mut().expect("it was started");
            let stepped = worker.step(self.now, Duration::ZERO);
            if self.plan.lock().unwrap().crashed {
                self.boot();
            }
            idle = if stepped == Stepped::Idle {
                idle + 1
            } else {
                0
            };
            if idle == 3 {
                return;
            }
        }
        panic!("it never came to rest");
    }

    fn produce(&self, partition: i32, key: Option<&[u8]>, value: &[u8]) {
        let topic = TopicKey::Input(Source::Signals);
        self.cluster
            .produce(topic, partition, key, Some(value), Vec::new());
    }

    /// What the intake makes of an event: the signals, and how far time has come.
    fn event(&mut self, topic: &str, written: Timestamp, value: &Json, line: i64) {
        let Some(of_topic) = self.filter.topic(topic) else {
            return;
        };
        self.originals.add(as_written(topic, line, value.as_str()));
        let (payload, at) = decode(written, value).expect("an event");
        let payload = &payload;
        let headers = headers_of(value);
        let recorded = Recorded {
            at,
            written: Some(written),
            headers: &headers,
        };
        of_topic.select(payload, recorded, &mut |verdict| {
            let Verdict::Wanted {
                rule,
                key,
                at,
                begins,
            } = verdict
            else {
                return;
            };
            let mut name = Vec::new();
            signal::put_event_key(&rule.name, rule.version, key.as_bytes(), &mut name);
            let mut value = Vec::new();
            let event = EventParts {
                rule: &rule.name,
                version: rule.version,
                key: key.as_bytes(),
                topic,
                partition: 0,
                offset: line,
                at,
                payload,
                begins,
            };
            signal::encode_event(&event, &mut value);
            let home = partitioner::partition_of(&name, PARTITIONS);
            self.produce(home, Some(&name), &value);
        });
        let place = self.rule.topics.iter().position(|name| **name == *topic);
        let place = place.expect("it is read") as u16;
        let slots = self.rule.slots(place, payload);
        if let Ok(at) = self.rule.event_time(&slots, recorded) {
            self.time(self.latest.map_or(at, |latest| latest.max(at)));
        }
    }

    /// Every source has come to `at`.
    fn time(&mut self, at: Timestamp) {
        self.latest = Some(at);
        self.has_read_rules = true;
        for (topic, clock) in self.rule.topics.iter().zip(self.rule.clocks()) {
            let mut value = Vec::new();
            let watermark = WatermarkParts {
                topic,
                partition: 0,
                partitions: 1,
                clock: &clock,
                at,
            };
            signal::encode_watermark(&watermark, &mut value);
            for partition in 0..PARTITIONS {
                self.produce(partition, None, &value);
            }
        }
    }

    /// Inputs of the runs that were started, by run id.
    fn started(&self) -> Vec<(String, String)> {
        let topic = TopicKey::Input(Source::Commands);
        let records =
            (0..PARTITIONS).flat_map(|partition| self.cluster.read_committed(&topic, partition, 0));
        records
            .map(|record| {
                let command: Value =
                    serde_json::from_slice(&record.value.expect("a command")).expect("JSON");
                assert_eq!(command["type"], "start");
                let run = command["run_id"].as_str().expect("a run id").to_owned();
                (run, command["input"].to_string())
            })
            .collect()
    }
}

/// What the intake makes of a record.
fn decode(recorded: Timestamp, value: &Json) -> Option<(Json, Option<Timestamp>)> {
    let raw = RawEvent {
        value: Some(value.as_str().as_bytes()),
        headers: &headers_of(value),
        timestamp: Some(recorded),
    };
    let decoded = event::decode(&raw, &NoSchemas, 1 << 20).ok()?;
    decoded.map(|event| (event.payload, event.at))
}

/// The headers that a case has for the record of an event.
fn headers_of(event: &Json) -> Vec<(String, Vec<u8>)> {
    tables::headers_of(&event.parse().expect("JSON"))
}

/// What `events` tells of each match.
fn matches_told(cluster: &Cluster) -> Vec<Value> {
    let records = (0..PARTITIONS)
        .flat_map(|partition| cluster.read_committed(&TopicKey::Events, partition, 0));
    let events = records.filter_map(|record| {
        let event: Value = serde_json::from_slice(&record.value.expect("an event")).expect("JSON");
        (event["type"] == "partita.rule.matched").then(|| event["data"].clone())
    });
    events.collect()
}

/// The runs that matches start, as they are told on `events`.
fn told(cluster: &Cluster) -> Vec<String> {
    let matches = matches_told(cluster).into_iter();
    matches
        .filter_map(|data| data["run"].as_str().map(str::to_owned))
        .collect()
}

/// An event of the tables: its topic, its record's time and its content.
fn read_event(rule: &Rule, event: &Value, place: usize) -> (String, Timestamp, Json) {
    let at = event.get("t").and_then(Value::as_i64);
    let at = at.unwrap_or(place as i64 + 1);
    let topic = event.get("topic").and_then(Value::as_str);
    let topic = topic.map_or_else(|| rule.topics[0].to_string(), str::to_owned);
    (topic, Timestamp(at), Json::from(event))
}

/// The rule of a case with a start that shows its matches, and what the pure engine starts by it.
/// `None`: a case that is refused, that looks at more than matches, or whose events only the tables'
/// own reader understands.
fn expected(case: &Value) -> Option<(Arc<Rule>, Vec<String>, i64)> {
    let mut definition = tables::rule_of(case);
    for action in [
        "signal", "cancel", "pause", "resume", "enrich", "canary", "mode", "enabled",
    ] {
        if definition.get(action).is_some() {
            return None;
        }
    }
    // Those bounds are of one partition.
    for limit in ["max_keys", "max_partials", "max_buffered_events"] {
        if definition["limits"].get(limit).is_some() {
            return None;
        }
    }
    definition["start"] = json!({"workflow": "w", "input": {"matches": "${matches}"}});
    let mut rules = syntax::parse(&definition.to_string(), None).ok()?;
    if rules.len() != 1 {
        return None;
    }
    let rule = rules.remove(0);
    let events = case["events"].as_array()?;
    let is_plain = |event: &Value| event.is_object() && event.get("payload").is_none();
    if !events.iter().all(is_plain) {
        return None;
    }
    let lines: Vec<String> = events
        .iter()
        .enumerate()
        .map(|(place, event)| {
            let (topic, at, payload) = read_event(&rule, event, place);
            let headers = tables::header_list(event);
            json!({"topic": topic, "ts": at.0, "payload": payload.as_str(), "headers": headers})
                .to_string()
        })
        .collect();
    let advance = case.get("advance_to").and_then(Value::as_i64);
    // Where a case does not say, far beyond the end of every window.
    let end = advance.unwrap_or(1 << 40);
    let found = replay(
        from_ref(&rule),
        &lines.join("\n"),
        Some(Timestamp(end)),
        1 << 20,
    )
    .ok()?
    .document();
    let inputs = found["matches"].as_array()?.iter().map(|found| {
        let start = &found["start"];
        start.get("input").map(Value::to_string)
    });
    Some((rule.clone(), inputs.collect::<Option<_>>()?, end))
}

/// Runs a case; where the worker dies is up to `random`, `None`: nowhere.
fn run(
    rule: &Arc<Rule>,
    case: &Value,
    end: i64,
    mut random: Option<Random>,
) -> Vec<(String, String)> {
    let mut world = World::new(rule);
    for (place, event) in events_of(case).enumerate() {
        let (topic, recorded, payload) = read_event(rule, event, place);
        world.event(&topic, recorded, &payload, place as i64);
        step(&mut world, &mut random);
    }
    finish(&mut world, end);
    world.started()
}

fn events_of(case: &Value) -> impl Iterator<Item = &Value> {
    case["events"].as_array().expect("a list").iter()
}

/// Lets the worker work; with `random` it dies at one of its steps, and once more after them.
fn step(world: &mut World, random: &mut Option<Random>) {
    if let Some(random) = random {
        let point = Point::ALL[random.below(Point::ALL.len())];
        world.plan.lock().unwrap().armed.push((point, Fault::Crash));
    }
    world.settle();
    if random.is_some() {
        world.boot();
    }
}

/// How far the sources must come for event time to come to `end`.
fn sources_at(rule: &Rule, end: i64) -> Timestamp {
    let patience = match rule.shape {
        Shape::Sequence(_) => rule.time.out_of_order.0 + rule.time.allowed_lateness.0,
        _ => rule.time.out_of_order.0,
    };
    Timestamp(end) + Millis(patience)
}

fn finish(world: &mut World, end: i64) {
    world.time(sources_at(&world.rule, end));
    world.settle();
    let mut runs: Vec<String> = world.started().into_iter().map(|run| run.0).collect();
    let mut told = told(&world.cluster);
    runs.sort();
    told.sort();
    assert_eq!(told, runs, "each match is told once, with what it starts");
}

#[test]
fn the_tables_hold_through_the_worker_with_a_crash_between_any_two_events() {
    let (mut cases, mut starts, mut failures) = (0, 0, Vec::new());
    for (file, case) in tables::cases() {
        let Some((rule, mut expected, end)) = expected(&case) else {
            continue;
        };
        cases += 1;
        starts += expected.len();
        expected.sort();
        let seed = cases as u64;
        for random in [None, Some(Random::new(seed))] {
            let is_faulty = random.is_some();
            let found = run(&rule, &case, end, random);
            let ids: BTreeMap<&str, ()> = found.iter().map(|(run, _)| (run.as_str(), ())).collect();
            let mut inputs: Vec<String> = found.iter().map(|(_, input)| input.clone()).collect();
            inputs.sort();
            if inputs != expected || ids.len() != found.len() {
                let name = case["name"].as_str().unwrap_or("?");
                failures.push(format!(
                    "{}: {name} (faults: {is_faulty}):\nexpected {expected:?}\nfound    {inputs:?}",
                    file.display()
                ));
            }
        }
    }
    println!("{cases} cases, {starts} starts");
    assert!(
        cases > 150 && starts > 150,
        "{cases} cases, {starts} starts"
    );
    assert!(
        failures.is_empty(),
        "{} fail:\n{}",
        failures.len(),
        failures[..failures.len().min(12)].join("\n")
    );
}

/// What a newer program knows of a key is neither passed over nor written over by this one.
#[test]
fn state_of_a_newer_program_stops_the_partition_and_stays() {
    let text = "kind: rule\nname: r\nmatch: {all: {within: 1h, conditions: \
        [{id: a, topic: t, where: \"event.k == 'a'\"}, {id: b, topic: t, where: \"event.k == 'b'\"}]}}\n\
        start: {workflow: w}";
    let rule = &syntax::parse(text, None).expect("a valid rule")[0];
    let inner = Piece {
        parts: 1,
        state: &[Matcher::STATE_VERSION + 1],
    };
    for newer in [
        vec![pattern_state::VERSION + 1, 7],
        pattern_state::encode_piece(inner),
    ] {
        let mut world = World::new(rule);
        let event = |k: &str| Json::from(&json!({"k": k}));
        world.event("t", Timestamp(1), &event("a"), 0);
        world.settle();
        let saved = |world: &World| {
            let entries = (0..PARTITIONS).flat_map(|partition| {
                let records = world.cluster.read_committed(&TopicKey::State, partition, 0);
                records.into_iter().map(move |record| (partition, record))
            });
            let is_of_key = |key: &[u8]| key.starts_with(b"key/");
            let mut of_key =
                entries.filter(|(_, record)| record.key.as_deref().is_some_and(is_of_key));
            of_key.next_back().expect("the state of the key")
        };
        let (partition, record) = saved(&world);
        let key = record.key.as_deref();
        let value = Some(newer.as_slice());
        world
            .cluster
            .produce(TopicKey::State, partition, key, value, Vec::new());
        world.boot();
        world.event("t", Timestamp(2), &event("b"), 1);
        for _ in 0..200 {
            world.now = world.now + Millis(100);
            let worker = world.worker.as_mut().expect("it was started");
            worker.step(world.now, Duration::ZERO);
        }
        let troubles = world.shared.troubles();
        assert!(!troubles.is_empty(), "nobody complains");
        assert_eq!(world.started(), []);
        assert_eq!(saved(&world).1.value.as_deref(), value);
    }
}
