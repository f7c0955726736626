//! A partition without a log: committed state in maps, a clock that is set, and timers that are
//! found by looking at every run. Each batch is committed as a whole, as a transaction would be.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use partita::engine::{
    Batch, Definitions, Emitted, Engine, EngineConfig, Finished, Input, Origin, Parked, ParkedKey,
    StateView,
};
use partita::model::{Millis, RunId, RunState, RunStatus, Timestamp};
use partita::workflow::Workflow;

/// 2026-01-01T00:00:00Z: the time at which every world begins.
pub const BEGINNING: Timestamp = Timestamp(1_767_225_600_000);

/// Definitions that are applied, by name and version; they can be taken away.
#[derive(Default)]
pub struct Shelf {
    workflows: std::sync::Mutex<HashMap<String, BTreeMap<u32, Arc<Workflow>>>>,
}

impl Shelf {
    pub fn put(&self, workflow: Arc<Workflow>) {
        let mut workflows = self
            .workflows
            .lock()
            .expect("no test panics while holding it");
        let versions = workflows.entry(workflow.name.to_string()).or_default();
        versions.insert(workflow.version, workflow);
    }

    /// Takes all versions away and gives them back.
    pub fn take(&self, name: &str) -> Vec<Arc<Workflow>> {
        let mut workflows = self
            .workflows
            .lock()
            .expect("no test panics while holding it");
        workflows
            .remove(name)
            .unwrap_or_default()
            .into_values()
            .collect()
    }
}

impl Definitions for Shelf {
    fn workflow(&self, name: &str, version: Option<u32>) -> Option<Arc<Workflow>> {
        let workflows = self
            .workflows
            .lock()
            .expect("no test panics while holding it");
        let versions = workflows.get(name)?;
        match version {
            Some(version) => versions.get(&version).cloned(),
            None => versions.values().next_back().cloned(),
        }
    }
}

/// What is committed.
#[derive(Clone, Default)]
pub struct Committed {
    pub runs: BTreeMap<RunId, RunState>,
    pub parked: BTreeMap<ParkedKey, Parked>,
}

impl StateView for Committed {
    fn run(&self, id: &RunId) -> Option<RunState> {
        self.runs.get(id).cloned()
    }

    fn parked(&self, run: &RunId) -> Vec<(ParkedKey, Parked)> {
        let of_run = self.parked.iter().filter(|(key, _)| key.run == *run);
        of_run
            .map(|(key, parked)| (key.clone(), parked.clone()))
            .collect()
    }

    fn live_runs(&self) -> usize {
        let live = |run: &&RunState| matches!(run.status, RunStatus::Running | RunStatus::Paused);
        self.runs.values().filter(live).count()
    }

    fn pending(&self, limit: usize) -> Vec<RunId> {
        let pending = |run: &&RunState| run.status == RunStatus::Pending;
        let mut runs: Vec<&RunState> = self.runs.values().filter(pending).collect();
        runs.sort_by_key(|run| (Reverse(run.priority), run.created_at, run.id.clone()));
        runs.into_iter()
            .take(limit)
            .map(|run| run.id.clone())
            .collect()
    }

    fn tagged(
        &self,
        tags: &BTreeMap<String, String>,
        after: Option<&RunId>,
        limit: usize,
    ) -> Vec<RunId> {
        let has_all = |run: &&RunState| {
            tags.iter()
                .all(|(key, value)| run.tags.get(key) == Some(value))
        };
        let live = self.runs.values().filter(|run| !run.status.is_ended());
        let meant = live.filter(has_all).map(|run| run.id.clone());
        meant
            .filter(|id| after.is_none_or(|after| id > after))
            .take(limit)
            .collect()
    }
}

pub struct World {
    engine: Engine,
    pub shelf: Arc<Shelf>,
    pub committed: Committed,
    pub now: Timestamp,
    /// Ticks that were held back because a definition is away: not before then.
    held: HashMap<RunId, Timestamp>,
    next_offset: i64,
}

/// Bounds that no ordinary test meets.
pub fn roomy() -> EngineConfig {
    EngineConfig {
        max_payload_bytes: 1_000,
        max_live_runs: 1_000,
        park_for: Millis(5_000),
        max_parked_per_run: 10,
        max_signals_per_run: 10,
        max_selected: 10,
    }
}

impl World {
    pub fn new(config: EngineConfig, workflows: &[Arc<Workflow>]) -> Self {
        let shelf = Arc::new(Shelf::default());
        workflows
            .iter()
            .for_each(|workflow| shelf.put(workflow.clone()));
        Self {
            engine: Engine::new(config, shelf.clone()),
            shelf,
            committed: Committed::default(),
            now: BEGINNING,
            held: HashMap::new(),
            next_offset: 0,
        }
    }

    /// One transaction: applies the inputs now, commits, and gives what was emitted.
    pub fn apply(&mut self, inputs: Vec<Input>) -> Vec<Emitted> {
        let finished = self.dry_run(inputs);
        for run in &finished.changes.runs {
            let committed = self
                .committed
                .runs
                .get(&run.id)
                .map_or(0, |run| run.revision);
            assert!(
                run.revision > committed,
                "a changed run has a higher revision"
            );
        }
        for effect in &finished.effects {
            if let partita::engine::Effect::Held { run, until } = &effect.effect {
                self.held.insert(run.clone(), *until);
            }
        }
        for run in finished.changes.runs {
            self.held.remove(&run.id);
            self.committed.runs.insert(run.id.clone(), run);
        }
        for (key, parked) in finished.changes.parked {
            match parked {
                Some(parked) => self.committed.parked.insert(key, parked),
                None => self.committed.parked.remove(&key),
            };
        }
        finished.effects
    }

    /// The same without the commit.
    pub fn dry_run(&mut self, inputs: Vec<Input>) -> Finished {
        let mut batch: Batch<'_> = self.engine.batch(&self.committed);
        for input in inputs {
            let offset = self.next_offset;
            self.next_offset += 1;
            let origin = || Origin {
                topic: "replies".into(),
                offset,
                ..Origin::default()
            };
            batch.apply(input, origin, self.now);
        }
        batch.finish(self.now)
    }

    /// The earliest instant at which something falls due, and what.
    pub fn next_due(&self) -> Option<(Timestamp, Input)> {
        let of_runs = self.committed.runs.values().filter_map(|run| {
            let due = run.next_due()?;
            let due = self.held.get(&run.id).map_or(due, |&held| due.max(held));
            Some((due, Input::Tick(run.id.clone())))
        });
        let parked = self.committed.parked.iter();
        let of_parked = parked.map(|(key, parked)| (parked.due, Input::Unpark(key.clone())));
        of_runs.chain(of_parked).min_by_key(|(due, _)| *due)
    }

    /// Lets time pass until `until`, each timer acting when it is due; gives what each emitted.
    pub fn pass_until(&mut self, until: Timestamp) -> Vec<(Timestamp, Vec<Emitted>)> {
        let mut emitted = Vec::new();
        // A bound, so that a timer that never goes away is a failure and not a hang.
        for _ in 0..10_000 {
            let Some((due, input)) = self.next_due().filter(|(due, _)| *due <= until) else {
                self.now = self.now.max(until);
                return emitted;
            };
            self.now = self.now.max(due);
            let effects = self.apply(vec![input]);
            emitted.push((self.now, effects));
        }
        panic!("timers fire without end at {}", self.now);
    }
}
