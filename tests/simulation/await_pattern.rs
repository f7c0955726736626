//! Runs that wait for a pattern, through both stages: the workers of the workflows and of the patterns,
//! each over a log with real transaction semantics, die at every step of their transactions while runs
//! begin, are cancelled and time out, and events come. In the end every run has the first pattern that
//! was complete after its watch began, as the records of `signals` tell, and nothing is left behind.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use partita::codec::pattern_state::PatternKey;
use partita::codec::signal::{self, EventParts, WatermarkParts};
use partita::engine::Definitions;
use partita::log::memory::{Cluster, StoredRecord, TopicKey};
use partita::log::{LogError, Source, StageKind, Topics, partitioner};
use partita::model::signal::Signal;
use partita::model::{Json, Millis, RunId, RunState, RunStatus, TaskId, Timestamp};
use partita::pattern::Rule;
use partita::pattern::filter::{Filter, Verdict};
use partita::runtime::kinds;
use partita::runtime::patterns::Patterns;
use partita::runtime::shared::Shared;
use partita::runtime::tables::NoTables;
use partita::runtime::worker::{LoopConfig, Stepped, Worker, WorkerConfig};
use partita::runtime::{DefinitionRegistry, RuleSet};
use partita::store::memory::MemoryStores;
use partita::workflow::Workflow;
use partita::workflow::definition::Defaults;
use serde_json::{Value, json};

use crate::faulty::{Fault, FaultyLog, Plan, Point, Sabotage};
use crate::originals::Kept;
use crate::patterns::BOUNDS;
use crate::random::Random;

const PARTITIONS: i32 = 3;
const BEGINNING: Timestamp = Timestamp(1_795_219_200_000);
const SCHEDULES: u64 = 150;
/// Runs of one schedule; those of one key wait for the same events.
const RUNS: usize = 12;
const KEYS: usize = 3;
const EVENTS: usize = 40;

const WORKFLOW: &str = r#"
kind: workflow
name: waits
version: 1
steps:
  - id: seen
    correlate: {key: "${input.key}"}
    topic: events
    timeout: 40s
    match:
      sequence:
        within: 1h
        steps:
          - {id: first, where: "event.kind == 'a'"}
          - {id: second, where: "event.kind == 'b'"}
output: ["${steps.seen.output.matches.first[0].n}", "${steps.seen.output.matches.second[0].n}"]
"#;

struct Registry {
    workflow: Arc<Workflow>,
    rules: Arc<[Arc<Rule>]>,
}

impl Definitions for Registry {
    fn workflow(&self, name: &str, _: Option<u32>) -> Option<Arc<Workflow>> {
        (*self.workflow.name == *name).then(|| self.workflow.clone())
    }
}

impl DefinitionRegistry for Registry {
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

/// One installation. Each stage has a cluster of its own; what one writes for the other is carried over
/// once it is committed, in its order.
struct World {
    registry: Arc<Registry>,
    filter: Filter,
    runs: Cluster,
    patterns: Cluster,
    run_worker: Option<Worker>,
    pattern_worker: Option<Worker<Patterns>>,
    run_plan: Arc<Mutex<Plan>>,
    pattern_plan: Arc<Mutex<Plan>>,
    disk: Arc<MemoryStores>,
    shared: Arc<Shared>,
    /// Records carried over so far, by source and partition.
    carried: BTreeMap<(Source, i32), i64>,
    now: Timestamp,
    random: Random,
    crashes: usize,
}

impl World {
    fn new(seed: u64) -> Self {
        let definitions = kinds::parse(WORKFLOW, None, &Defaults::default());
        let definition = definitions.expect("a valid workflow").remove(0);
        let rules: Arc<[Arc<Rule>]> = definition.awaited.clone().into();
        let mut world = Self {
            filter: Filter::new(&rules),
            registry: Arc::new(Registry {
                workflow: definition.workflow().expect("a workflow").clone(),
                rules,
            }),
            runs: Cluster::new(PARTITIONS),
            patterns: Cluster::new(PARTITIONS),
            run_worker: None,
            pattern_worker: None,
            run_plan: Arc::default(),
            pattern_plan: Arc::default(),
            disk: Arc::default(),
            shared: Arc::new(Shared::new("one")),
            carried: BTreeMap::new(),
            now: BEGINNING,
            random: Random::new(seed),
            crashes: 0,
        };
        world.boot_runs();
        world.boot_patterns();
        world
    }

    fn boot_runs(&mut self) {
        if let Some(member) = self.run_plan.lock().unwrap().member {
            self.runs.expire_member(member);
        }
        self.run_plan = Arc::default();
        self.shared = Arc::new(Shared::new("one"));
        let log = FaultyLog::new(
            self.runs.clone(),
            "runs",
            self.run_plan.clone(),
            self.disk.clone(),
            Sabotage::None,
        );
        let config = WorkerConfig {
            number: 0,
            topics: Topics::new("sim."),
            batch_records: 1 + self.random.below(8),
            batch_bytes: 1 << 20,
            max_payload_bytes: 64 << 10,
            max_concurrent_runs: 1_000,
            park_for: Millis(2_000),
            retention: Millis(3_600_000),
            cache_bytes: 1 << 20,
        };
        self.run_worker = Some(Worker::new(
            config,
            Box::new(log),
            self.disk.clone(),
            self.registry.clone(),
            self.shared.clone(),
        ));
    }

    fn boot_patterns(&mut self) {
        if let Some(member) = self.pattern_plan.lock().unwrap().member {
            self.patterns.expire_member(member);
        }
        self.pattern_plan = Arc::default();
        let log = FaultyLog::of_stage(
            StageKind::Patterns,
            self.patterns.clone(),
            "patterns",
            self.pattern_plan.clone(),
            Arc::default(),
            Sabotage::None,
        );
        let config = LoopConfig {
            number: 0,
            batch_records: 1 + self.random.below(8),
            batch_bytes: 1 << 20,
        };
        let shared = Arc::new(Shared::new("other"));
        let (topics, registry) = (Topics::new("sim."), self.registry.clone());
        let (tables, originals) = (Arc::new(NoTables), Box::new(Kept::default()));
        let stage = Patterns::new(0, topics, registry, shared, tables, originals, BOUNDS);
        self.pattern_worker = Some(Worker::of(config, Box::new(log), stage));
    }

    /// Carries over what is committed on `source` of one cluster to the other.
    fn carry(&mut self, source: Source) {
        let (from, to) = match source {
            Source::Signals => (&self.runs, &self.patterns),
            _ => (&self.patterns, &self.runs),
        };
        let topic = TopicKey::Input(source);
        for partition in 0..PARTITIONS {
            let next = self.carried.entry((source, partition)).or_default();
            for record in from.read_committed(&topic, partition, *next) {
                *next = record.offset + 1;
                let (key, value) = (record.key.as_deref(), record.value.as_deref());
                to.produce(topic.clone(), partition, key, value, record.headers);
            }
        }
    }

    /// Each worker does a little; one that dies is started anew.
    fn step(&mut self) -> bool {
        let runs = self.run_worker.as_mut().expect("it was started");
        let one = runs.step(self.now, Duration::ZERO);
        if self.run_plan.lock().unwrap().crashed {
            self.crashes += 1;
            if self.random.percent(30) {
                self.disk.lose_all();
            }
            self.boot_runs();
        }
        self.carry(Source::Signals);
        let patterns = self.pattern_worker.as_mut().expect("it was started");
        let two = patterns.step(self.now, Duration::ZERO);
        if self.pattern_plan.lock().unwrap().crashed {
            self.crashes += 1;
            self.boot_patterns();
        }
        self.carry(Source::Commands);
        (one, two) == (Stepped::Idle, Stepped::Idle)
    }

    fn settle(&mut self) {
        let mut idle = 0;
        for _ in 0..10_000 {
            idle = if self.step() { idle + 1 } else { 0 };
            if idle == 3 {
                return;
            }
        }
        panic!("it never came to rest");
    }

    fn arm(&mut self) {
        let point = Point::ALL[self.random.below(Point::ALL.len())];
        let plan = match self.random.percent(50) {
            true => &self.run_plan,
            false => &self.pattern_plan,
        };
        plan.lock().unwrap().armed.push((point, Fault::Crash));
    }

    fn command(&self, run: &str, command: &Value) {
        let home = partitioner::partition_of(run.as_bytes(), PARTITIONS);
        let body = serde_json::to_vec(command).expect("JSON");
        let topic = TopicKey::Input(Source::Commands);
        let key = Some(run.as_bytes());
        self.runs.produce(topic, home, key, Some(&body), Vec::new());
    }

    fn signal(&self, partition: i32, key: &[u8], value: &[u8]) {
        let topic = TopicKey::Input(Source::Signals);
        self.patterns
            .produce(topic, partition, Some(key), Some(value), Vec::new());
    }

    /// What the intake makes of an event.
    fn event(&mut self, number: usize, kind: &str) {
        let key = format!("k{}", self.random.below(KEYS));
        let event = json!({"n": number, "kind": kind, "key": key});
        let payload = Json::from(event);
        let filter = self.filter.topic("events").expect("it is read");
        filter.select(&payload, Some(self.now).into(), &mut |verdict| {
            let Verdict::Wanted { rule, key, at, .. } = verdict else {
                panic!("{verdict:?}");
            };
            let parts = EventParts {
                rule: &rule.name,
                version: rule.version,
                key: key.as_bytes(),
                topic: "events",
                partition: 0,
                offset: number as i64,
                at,
                payload: &payload,
                begins: true,
            };
            let (mut name, mut value) = (Vec::new(), Vec::new());
            signal::put_event_key(&rule.name, rule.version, key.as_bytes(), &mut name);
            signal::encode_event(&parts, &mut value);
            let home = partitioner::partition_of(&name, PARTITIONS);
            self.signal(home, &name, &value);
        });
        let mut value = Vec::new();
        let watermark = WatermarkParts {
            topic: "events",
            partition: 0,
            partitions: 1,
            clock: "",
            at: self.now,
        };
        signal::encode_watermark(&watermark, &mut value);
        for partition in 0..PARTITIONS {
            self.signal(partition, b"events/0/", &value);
        }
    }

    fn run(&self, name: &str) -> RunState {
        let home = partitioner::partition_of(name.as_bytes(), PARTITIONS);
        let partition = self.shared.partition(home).expect("an owner");
        let run = partition.run(&RunId::parse(name).expect("an id"));
        run.expect("a store").expect("it was started")
    }

    fn records(cluster: &Cluster, topic: &TopicKey) -> Vec<StoredRecord> {
        let partitions = 0..PARTITIONS;
        let records = partitions.flat_map(|number| cluster.read_committed(topic, number, 0));
        records.collect()
    }

    /// The numbers of the events that each attempt is to get, from what lies on `signals`; nothing
    /// where it waits no more before they came.
    fn expected(&self) -> BTreeMap<String, Option<(u64, u64)>> {
        let mut found = BTreeMap::new();
        let mut waiting: BTreeMap<String, (Json, Option<u64>)> = BTreeMap::new();
        for record in Self::records(&self.patterns, &TopicKey::Input(Source::Signals)) {
            match signal::decode(&record.value.expect("a value")).expect("a signal") {
                Signal::Watermark { .. } => {}
                Signal::Watch(watch) => {
                    waiting.insert(watch.attempt.to_string(), (watch.key, None));
                }
                Signal::Unwatch(watch) => {
                    if waiting.remove(&watch.attempt.to_string()).is_some() {
                        found.insert(watch.attempt.to_string(), None);
                    }
                }
                Signal::Event { key, payload, .. } => {
                    let event: Value = payload.parse().expect("JSON");
                    let (n, kind) = (event["n"].as_u64().expect("a number"), &event["kind"]);
                    let mut complete = Vec::new();
                    for (attempt, (watched, first)) in &mut waiting {
                        if watched.as_str().as_bytes() != key {
                            continue;
                        }
                        match (kind.as_str(), &first) {
                            (Some("a"), None) => *first = Some(n),
                            (Some("b"), Some(first)) => complete.push((attempt.clone(), *first)),
                            _ => {}
                        }
                    }
                    for (attempt, first) in complete {
                        waiting.remove(&attempt);
                        found.insert(attempt, Some((first, n)));
                    }
                }
            }
        }
        assert!(waiting.is_empty(), "{waiting:?} wait for ever");
        found
    }

    /// Nothing of any watch is left in the state of the patterns.
    fn assert_forgotten(&self) {
        let mut entries = BTreeMap::new();
        for StoredRecord { key, value, .. } in Self::records(&self.patterns, &TopicKey::State) {
            let key = PatternKey::parse(&key.expect("a key")).expect("one of ours");
            match value {
                Some(_) => entries.insert(key, ()),
                None => entries.remove(&key),
            };
        }
        let is_left =
            |key: &&PatternKey| matches!(key, PatternKey::State { .. } | PatternKey::Watch { .. });
        let left: Vec<&PatternKey> = entries.keys().filter(is_left).collect();
        assert!(left.is_empty(), "{left:?} are left");
    }
}

/// Runs a schedule; how many runs got their pattern, how many did not, and how often a worker died.
fn schedule(seed: u64) -> [usize; 3] {
    let mut world = World::new(seed);
    world.settle();
    let (mut started, mut events) = (0, 0);
    while started < RUNS || events < EVENTS {
        world.now = world.now + Millis(world.random.below(2_000) as u64);
        if world.random.percent(40) {
            world.arm();
        }
        if started < RUNS && world.random.percent(30) {
            let name = format!("run-{started}");
            let key = format!("k{}", world.random.below(KEYS));
            let start = json!({"type": "start", "workflow": "waits", "input": {"key": key}});
            world.command(&name, &start);
            started += 1;
        } else if started > 0 && world.random.percent(8) {
            let name = format!("run-{}", world.random.below(started));
            let verb = ["pause", "resume", "cancel"][world.random.below(3)];
            world.command(&name, &json!({"type": verb}));
        } else if events < EVENTS {
            let kind = ["a", "b"][world.random.below(2)];
            world.event(events, kind);
            events += 1;
        }
        for _ in 0..world.random.below(12) {
            world.step();
        }
    }
    world.settle();
    for number in 0..RUNS {
        world.command(&format!("run-{number}"), &json!({"type": "resume"}));
    }
    world.settle();
    world.now = world.now + Millis(60_000);
    world.settle();
    check(&world)
}

fn check(world: &World) -> [usize; 3] {
    let mut outcomes = [0, 0, world.crashes];
    let expected = world.expected();
    for number in 0..RUNS {
        let name = format!("run-{number}");
        let run = world.run(&name);
        let attempt = TaskId {
            run: run.id.clone(),
            step: "seen".to_owned(),
            epoch: 0,
            attempt: 1,
        };
        // One that was cancelled before it began never waited.
        let found = expected.get(&attempt.to_string()).copied().flatten();
        let output = run.output.as_ref().map(|output| output.as_str().to_owned());
        match run.status {
            RunStatus::Completed => {
                let (first, second) = found.expect("its pattern");
                assert_eq!(output, Some(format!("[{first},{second}]")), "{name}");
                outcomes[0] += 1;
            }
            // What was found when it had ended already was ignored.
            RunStatus::Cancelled | RunStatus::Failed => outcomes[1] += 1,
            other => panic!("{name} is {other:?}"),
        }
        assert!(run.watches.is_empty(), "{name}");
    }
    world.assert_forgotten();
    let dead = World::records(&world.patterns, &TopicKey::DeadLetter);
    assert!(dead.is_empty(), "{dead:?}");
    outcomes
}

#[test]
fn runs_that_wait_for_a_pattern_get_the_first_after_they_began_to_wait() {
    let mut total = [0; 3];
    for seed in 0..SCHEDULES {
        println!("seed {seed}");
        let outcomes = schedule(seed);
        (0..3).for_each(|place| total[place] += outcomes[place]);
    }
    let [found, not, crashes] = total;
    println!("{found} runs got their pattern, {not} ended before; {crashes} crashes");
    assert!(found > 500 && not > 50 && crashes > 500, "{total:?}");
}
