//! What a schedule happens in: a cluster, instances, an agent that remembers every task.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use partita::engine::Definitions;
use partita::log::memory::{Cluster, TopicKey};
use partita::log::{LogError, Source, Topics, partitioner};
use partita::model::{Millis, Timestamp};
use partita::runtime::DefinitionRegistry;
use partita::runtime::shared::Shared;
use partita::runtime::worker::{Stepped, Worker, WorkerConfig};
use partita::store::Stores;
use partita::store::memory::MemoryStores;
use partita::workflow::{Workflow, definition};

use crate::faulty::{FaultyLog, Plan, Sabotage};
use crate::random::Random;

pub const PARTITIONS: i32 = 3;
pub const AGENT: &str = "worker";
pub const RETENTION: Millis = Millis(3_600_000);

/// Workflows that a schedule starts. None has a step timeout: a reply that is lost shows as a run
/// that never ends.
const DEFINITIONS: &str = r#"
kind: workflow
name: line
version: 1
retry: {max_attempts: 4, backoff: {initial: 1s, multiplier: 2, max: 4s}}
steps:
  - {id: a, agent: worker}
  - {id: b, agent: worker, depends_on: [a], inputs: {before: "${steps.a.output}"}}
  - {id: c, agent: worker, depends_on: [b]}
output: {last: "${steps.c.output}"}
---
kind: workflow
name: fan
version: 1
retry: {max_attempts: 2, backoff: {initial: 500ms, multiplier: 1, max: 500ms}}
steps:
  - {id: a, agent: worker}
  - {id: b, agent: worker, depends_on: [a], on_error: {default: skip}}
  - {id: c, agent: worker, depends_on: [a], on_error: {default: skip}}
  - {id: d, agent: worker, depends_on: [b, c], when: "${steps.b.status == 'completed'}"}
---
kind: workflow
name: timed
version: 1
timeout: 40s
steps:
  - {id: a, agent: worker, timeout: 3s}
  - {id: b, agent: worker, depends_on: [a], heartbeat_timeout: 5s}
---
kind: workflow
name: signalled
version: 1
steps:
  - {id: a, agent: worker}
  - {id: first, await: go, depends_on: [a]}
  - {id: second, await: go, depends_on: [first]}
  - {id: z, agent: worker, depends_on: [second]}
output: ["${steps.first.output.number}", "${steps.second.output.number}"]
"#;

pub const WORKFLOWS: [&str; 4] = ["line", "fan", "timed", "signalled"];

pub struct Registry(HashMap<String, Arc<Workflow>>);

impl Registry {
    fn new() -> Self {
        let defaults = definition::Defaults::default();
        let definitions =
            definition::parse(DEFINITIONS, None, &defaults).expect("valid definitions");
        let by_name =
            |definition: definition::Definition| (definition.name.to_string(), definition.workflow);
        Self(definitions.into_iter().map(by_name).collect())
    }
}

impl Definitions for Registry {
    fn workflow(&self, name: &str, _: Option<u32>) -> Option<Arc<Workflow>> {
        self.0.get(name).cloned()
    }
}

impl DefinitionRegistry for Registry {
    fn catch_up(&self) -> Result<(), LogError> {
        Ok(())
    }
}

/// A process: one worker, and the disk that outlives it.
pub struct Instance {
    pub number: usize,
    pub worker: Option<Worker>,
    pub shared: Arc<Shared>,
    pub plan: Arc<Mutex<Plan>>,
    pub disk: Arc<MemoryStores>,
    /// It waits so long after a failure.
    pub resume_at: Timestamp,
}

/// A task as an agent saw it.
#[derive(Clone, Debug)]
pub struct SeenTask {
    pub id: String,
    pub run: String,
    pub step: String,
    pub attempt: u64,
    pub epoch: u64,
    pub partition: i32,
    /// Offset of the last record that brought it.
    offset: i64,
    pub answered: bool,
}

pub struct World {
    pub cluster: Cluster,
    pub instances: Vec<Instance>,
    pub now: Timestamp,
    pub random: Random,
    pub sabotage: Sabotage,
    registry: Arc<Registry>,
    tasks: BTreeMap<String, SeenTask>,
    task_offset: i64,
    /// Runs that were started by a record that is there for good.
    pub started: Vec<String>,
    /// Signals sent so far; each carries its number.
    signals: u64,
}

impl World {
    pub fn new(seed: u64, sabotage: Sabotage, instances: usize) -> Self {
        let mut world = Self {
            cluster: Cluster::new(PARTITIONS),
            instances: Vec::new(),
            now: Timestamp(1_795_219_200_000),
            random: Random::new(seed),
            sabotage,
            registry: Arc::new(Registry::new()),
            tasks: BTreeMap::new(),
            task_offset: 0,
            started: Vec::new(),
            signals: 0,
        };
        for number in 0..instances {
            let instance = Instance {
                number,
                worker: None,
                shared: Arc::new(Shared::new("none")),
                plan: Arc::default(),
                disk: Arc::default(),
                resume_at: Timestamp::ZERO,
            };
            world.instances.push(instance);
            world.boot(number);
        }
        world
    }

    /// Starts the instance's process anew.
    pub fn boot(&mut self, number: usize) {
        let stores = Arc::clone(&self.instances[number].disk);
        self.boot_on(number, stores);
    }

    /// The same on other stores.
    pub fn boot_on(&mut self, number: usize, stores: Arc<dyn Stores>) {
        let shared = Shared::new(format!("instance-{number}-{}", self.now.0));
        self.boot_with(number, Arc::new(shared), stores);
    }

    /// The same as a second worker in the process of `other`.
    pub fn boot_beside(&mut self, number: usize, other: usize) {
        let disk = Arc::clone(&self.instances[other].disk);
        self.instances[number].disk = Arc::clone(&disk);
        let shared = Arc::clone(&self.instances[other].shared);
        self.boot_with(number, shared, disk);
    }

    fn boot_with(&mut self, number: usize, shared: Arc<Shared>, stores: Arc<dyn Stores>) {
        let plan: Arc<Mutex<Plan>> = Arc::default();
        let log = FaultyLog::new(
            self.cluster.clone(),
            &format!("worker-{number}"),
            Arc::clone(&plan),
            Arc::clone(&self.instances[number].disk),
            self.sabotage,
        );
        let config = WorkerConfig {
            number,
            topics: Topics::new("sim."),
            batch_records: 1 + self.random.below(12),
            batch_bytes: 1 << 20,
            max_payload_bytes: 64 << 10,
            max_concurrent_runs: 6,
            park_for: Millis(2_000),
            retention: RETENTION,
            // So small that entries are evicted and read from the store again.
            cache_bytes: if self.random.percent(30) {
                600
            } else {
                1 << 20
            },
        };
        let instance = &mut self.instances[number];
        let worker = Worker::new(
            config,
            Box::new(log),
            stores,
            Arc::clone(&self.registry) as _,
            Arc::clone(&shared),
        );
        instance.worker = Some(worker);
        instance.shared = shared;
        instance.plan = plan;
        instance.resume_at = Timestamp::ZERO;
    }

    /// The process is gone; the group has not noticed, its transaction stays open.
    pub fn kill(&mut self, number: usize) {
        self.instances[number].worker = None;
    }

    /// The group takes the instance's member for dead. It may be alive, and will notice.
    pub fn expire_member(&mut self, number: usize) {
        let member = self.instances[number].plan.lock().unwrap().member;
        if let Some(member) = member {
            self.cluster.expire_member(member);
        }
    }

    /// The same where the process is dead indeed.
    pub fn expire_dead(&mut self, number: usize) {
        if self.instances[number].worker.is_none() {
            self.expire_member(number);
        }
    }

    /// One step of one instance. A crash that struck in it kills it.
    pub fn step(&mut self, number: usize) {
        let now = self.now;
        let instance = &mut self.instances[number];
        let Some(worker) = instance
            .worker
            .as_mut()
            .filter(|_| instance.resume_at <= now)
        else {
            return;
        };
        if let Stepped::Failed { retry_after } = worker.step(now, Duration::ZERO) {
            instance.resume_at = now + Millis(retry_after.as_millis() as u64);
        }
        if instance.plan.lock().unwrap().crashed {
            instance.worker = None;
        }
    }

    /// Writes one of the instance's partitions to its disk.
    pub fn write_behind(&mut self, number: usize) {
        let partitions = self.instances[number].shared.partitions();
        if self.instances[number].worker.is_some()
            && let Some(partition) = self.random.pick(&partitions)
        {
            partition
                .write_behind()
                .expect("a store in memory does not fail");
        }
    }

    /// Writes all of the instance's partitions to its disk.
    pub fn write_all(&self, number: usize) {
        for partition in self.instances[number].shared.partitions() {
            partition
                .write_behind()
                .expect("a store in memory does not fail");
        }
    }

    pub fn home(&self, run: &str) -> i32 {
        partitioner::partition_of(run.as_bytes(), PARTITIONS)
    }

    /// The run's partition, or now and then another.
    fn some_partition(&mut self, run: &str) -> i32 {
        if self.random.percent(10) {
            self.random.below(PARTITIONS as usize) as i32
        } else {
            self.home(run)
        }
    }

    pub fn command(&mut self, run: &str, body: &serde_json::Value) {
        let partition = self.some_partition(run);
        let key = (!self.random.percent(10)).then_some(run.as_bytes());
        let body = body.to_string();
        let topic = TopicKey::Input(Source::Commands);
        self.cluster
            .produce(topic, partition, key, Some(body.as_bytes()), Vec::new());
    }

    /// Sends the run a signal, with an id and perhaps again, or without one and once.
    pub fn signal(&mut self, run: &str) {
        let mut body = self.new_signal();
        body["run_id"] = run.into();
        let times = if body["id"].is_null() {
            1
        } else {
            1 + self.random.below(2)
        };
        (0..times).for_each(|_| self.command(run, &body));
    }

    /// Sends an order that names tags: a copy to each partition.
    pub fn select(&mut self, order: &serde_json::Value) {
        let body = order.to_string();
        for partition in 0..PARTITIONS {
            let topic = TopicKey::Input(Source::Commands);
            self.cluster
                .produce(topic, partition, None, Some(body.as_bytes()), Vec::new());
        }
    }

    /// Some order for all runs of some tag.
    pub fn select_some(&mut self) {
        let mut body = match self.random.below(4) {
            0 => serde_json::json!({"type": "pause"}),
            1 => serde_json::json!({"type": "resume"}),
            _ => self.new_signal(),
        };
        body["tags"] = serde_json::json!({"third": self.random.below(3).to_string()});
        self.select(&body);
    }

    fn new_signal(&mut self) -> serde_json::Value {
        self.signals += 1;
        let number = self.signals;
        // Now and then too large for the run's entry.
        let length = if self.random.percent(15) { 6_000 } else { 5 };
        let mut body = serde_json::json!({
            "type": "signal", "name": "go", "data": {"number": number, "text": "s".repeat(length)},
        });
        if self.random.percent(70) {
            body["id"] = format!("s-{number}").into();
        }
        body
    }

    /// The agent learns of tasks; it may read what is not committed (and may never be).
    pub fn learn_tasks(&mut self, uncommitted: bool) {
        let topic = TopicKey::Tasks(AGENT.to_owned());
        let records = match uncommitted {
            true => self.cluster.read_uncommitted(&topic, 0, 0),
            false => self.cluster.read_committed(&topic, 0, self.task_offset),
        };
        for record in records {
            if !uncommitted {
                self.task_offset = record.offset + 1;
            }
            let body: serde_json::Value =
                serde_json::from_slice(&record.value.unwrap_or_default()).expect("a task in JSON");
            if body["type"] == "cancel" {
                continue;
            }
            let header = record
                .headers
                .iter()
                .find(|(name, _)| name == "partita-reply-partition");
            let partition = String::from_utf8(header.expect("the header").1.clone()).unwrap();
            let text = |name: &str| body[name].as_str().expect("a text").to_owned();
            let task = SeenTask {
                id: text("task_id"),
                run: text("run_id"),
                step: text("step_id"),
                attempt: body["attempt"].as_u64().expect("a number"),
                epoch: body["epoch"].as_u64().expect("a number"),
                partition: partition.parse().expect("a number"),
                offset: record.offset,
                answered: false,
            };
            // Brought again after an abort, it is answered again.
            let known = self
                .tasks
                .entry(task.id.clone())
                .or_insert_with(|| task.clone());
            if known.offset < task.offset {
                *known = task;
            }
        }
    }

    /// Answers some task in some way, or answers one again.
    pub fn answer_some(&mut self) {
        let again = self.random.percent(20);
        let candidates: Vec<SeenTask> = self
            .tasks
            .values()
            .filter(|task| task.answered == again)
            .cloned()
            .collect();
        let Some(task) = self.random.pick(&candidates).cloned() else {
            return;
        };
        let (status, body) = match self.random.below(10) {
            0 | 1 => (
                "failed",
                serde_json::json!({"error": {"class": "flaky", "message": "no"}}),
            ),
            2 => ("progress", serde_json::json!({"progress": 0.5})),
            3 => ("heartbeat", serde_json::json!({})),
            _ => ("completed", serde_json::json!({"output": self.output()})),
        };
        self.reply(&task, status, body);
    }

    fn output(&mut self) -> String {
        // Now and then too large for the run's entry.
        let length = if self.random.percent(8) { 6_000 } else { 5 };
        "x".repeat(length)
    }

    fn reply(&mut self, task: &SeenTask, status: &str, mut body: serde_json::Value) {
        body["run_id"] = task.run.as_str().into();
        body["step_id"] = task.step.as_str().into();
        body["status"] = status.into();
        body["attempt"] = task.attempt.into();
        body["epoch"] = task.epoch.into();
        if self.random.percent(70) {
            body["task_id"] = task.id.as_str().into();
        }
        let partition = if self.random.percent(10) {
            self.some_partition(&task.run)
        } else {
            task.partition
        };
        let topic = TopicKey::Input(Source::Replies);
        let body = body.to_string();
        self.cluster.produce(
            topic,
            partition,
            Some(task.run.as_bytes()),
            Some(body.as_bytes()),
            Vec::new(),
        );
        if matches!(status, "completed" | "failed")
            && let Some(task) = self.tasks.get_mut(&task.id)
        {
            task.answered = true;
        }
    }

    /// Answers every task that was not answered; how many.
    pub fn answer_all(&mut self) -> usize {
        self.learn_tasks(false);
        let open: Vec<SeenTask> = self
            .tasks
            .values()
            .filter(|task| !task.answered)
            .cloned()
            .collect();
        for task in &open {
            self.reply(task, "completed", serde_json::json!({"output": "healed"}));
        }
        open.len()
    }

    pub fn poison(&mut self) {
        let source = if self.random.percent(50) {
            Source::Commands
        } else {
            Source::Replies
        };
        let partition = self.random.below(PARTITIONS as usize) as i32;
        let bodies: [Option<&[u8]>; 4] = [
            None,
            Some(b"not json"),
            Some(b"{}"),
            Some(br#"{"type":"start","workflow":"line"}"#),
        ];
        let body = bodies[self.random.below(bodies.len())];
        self.cluster
            .produce(TopicKey::Input(source), partition, None, body, Vec::new());
    }
}
