//! The invariants, on what the topics hold.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use partita::codec::keys::EntryKey;
use partita::codec::state;
use partita::log::Source;
use partita::log::memory::TopicKey;
use partita::model::{Json, RunState};
use partita::runtime::partition::Change;
use partita::store::Stores;

use crate::world::{AGENT, PARTITIONS, World};

type Entries = BTreeMap<Vec<u8>, Vec<u8>>;

/// The partition's committed changelog below `end`, folded.
fn folded(world: &World, partition: i32, end: i64) -> Entries {
    let mut entries = Entries::new();
    for record in world.cluster.read_committed(&TopicKey::State, partition, 0) {
        if record.offset >= end {
            break;
        }
        let key = record.key.unwrap_or_default();
        match record.value {
            Some(value) => entries.insert(key, value),
            None => entries.remove(&key),
        };
    }
    entries
}

/// All runs, as the changelog has them.
fn runs(world: &World) -> Result<HashMap<String, RunState>, String> {
    let mut runs = HashMap::new();
    for partition in 0..PARTITIONS {
        let entries = folded(world, partition, i64::MAX);
        for (key, value) in &entries {
            let Some(EntryKey::Run(id)) = EntryKey::parse(key) else {
                continue;
            };
            let large = |slot| {
                let key = EntryKey::Value(id.clone(), slot).to_bytes();
                let change = Change::decode(&key, Some(entries.get(&key)?)).ok()?;
                match change {
                    Change::Value { value, .. } => Some::<Json>(value),
                    _ => None,
                }
            };
            let run =
                state::decode(&id, value, &large).map_err(|error| format!("I5: {id}: {error}"))?;
            if world.home(id.as_str()) != partition {
                return Err(format!(
                    "{id} lives in partition {partition}, which is not its own"
                ));
            }
            runs.insert(id.as_str().to_owned(), run);
        }
    }
    Ok(runs)
}

pub fn all_ended(world: &World) -> Result<bool, String> {
    let runs = runs(world)?;
    Ok(world
        .started
        .iter()
        .all(|id| runs.get(id).is_some_and(|run| run.status.is_ended())))
}

pub fn unfinished(world: &World) -> Result<String, String> {
    let runs = runs(world)?;
    let mut text = String::new();
    for id in &world.started {
        match runs.get(id) {
            None => text += &format!("{id} is not there (I1); "),
            Some(run) if !run.status.is_ended() => {
                let steps: Vec<_> = run
                    .steps
                    .iter()
                    .map(|step| (step.status.name(), step.attempt))
                    .collect();
                text += &format!("{id} is {} with {steps:?}; ", run.status.name());
            }
            Some(_) => {}
        }
    }
    Ok(text)
}

/// An event of the history.
struct Event {
    sequence: u64,
    kind: String,
    step: Option<(String, u64)>,
    /// Of the signal that the run took in, or of that which the step took.
    signal: Option<u64>,
}

fn events(world: &World) -> Result<HashMap<String, Vec<Event>>, String> {
    let mut events: HashMap<String, Vec<Event>> = HashMap::new();
    for partition in 0..PARTITIONS {
        for record in world
            .cluster
            .read_committed(&TopicKey::Events, partition, 0)
        {
            let body: serde_json::Value = serde_json::from_slice(&record.value.unwrap_or_default())
                .map_err(|error| format!("an event is not JSON: {error}"))?;
            let sequence = body["sequence"].as_str().and_then(|text| text.parse().ok());
            let step = body["data"]["step_id"].as_str().map(|step| {
                (
                    step.to_owned(),
                    body["data"]["attempt"].as_u64().unwrap_or(0),
                )
            });
            let event = Event {
                sequence: sequence.ok_or("an event without a sequence")?,
                kind: body["type"].as_str().unwrap_or_default().to_owned(),
                step,
                signal: ["data", "output"]
                    .iter()
                    .find_map(|member| body["data"][member]["number"].as_u64()),
            };
            events
                .entry(body["subject"].as_str().unwrap_or_default().to_owned())
                .or_default()
                .push(event);
        }
    }
    Ok(events)
}

/// Whoever owns partitions is ready again once all is well.
fn untroubled(world: &World) -> Result<(), String> {
    for instance in &world.instances {
        let (troubles, owned) = (instance.shared.troubles(), instance.shared.partitions());
        if !owned.is_empty() && !troubles.is_empty() {
            let number = instance.number;
            return Err(format!("instance {number} stays not ready: {troubles:?}"));
        }
    }
    Ok(())
}

/// Checks everything; how many events there are.
pub fn all(world: &World) -> Result<usize, String> {
    let runs = runs(world)?;
    let events = events(world)?;
    for id in &world.started {
        let run = runs
            .get(id)
            .ok_or_else(|| format!("I1: {id} was started and is not there"))?;
        let history = events.get(id).map_or(&[][..], Vec::as_slice);
        history_of(run, history)?;
    }
    if let Some(stranger) = runs.keys().find(|id| !world.started.contains(id)) {
        return Err(format!("I1: {stranger} was never started"));
    }
    tasks(world, &events)?;
    positions(world)?;
    stores(world)?;
    caches(world, &runs)?;
    untroubled(world)?;
    Ok(events.values().map(Vec::len).sum())
}

fn history_of(run: &RunState, history: &[Event]) -> Result<(), String> {
    let id = &run.id;
    let sequences: Vec<u64> = history.iter().map(|event| event.sequence).collect();
    let dense: Vec<u64> = (1..=history.len() as u64).collect();
    if sequences != dense {
        return Err(format!("I2: the events of {id} are numbered {sequences:?}"));
    }
    if run.sequence != history.len() as u64 {
        return Err(format!(
            "I3: {id} has {} events, its state knows of {}",
            history.len(),
            run.sequence
        ));
    }
    let count = |kind: &str| history.iter().filter(|event| event.kind == kind).count();
    let began = count("partita.run.started");
    if began > 1 || (began == 0 && run.status.name() != "cancelled") {
        return Err(format!("I1: {id} began {began} times"));
    }
    let is_end = |event: &&Event| {
        [
            "partita.run.completed",
            "partita.run.failed",
            "partita.run.cancelled",
        ]
        .contains(&event.kind.as_str())
    };
    if history.iter().filter(is_end).count() != 1
        || !history.last().is_some_and(|last| is_end(&last))
    {
        return Err(format!("I6: {id} does not end once and last"));
    }
    let mut results: BTreeMap<(&str, u64), Vec<&str>> = BTreeMap::new();
    for event in history {
        let Some((step, attempt)) = &event.step else {
            continue;
        };
        let is_result = ["completed", "retrying", "failed"]
            .iter()
            .any(|kind| event.kind.ends_with(kind));
        if is_result && event.kind.starts_with("partita.step.") {
            results
                .entry((step, *attempt))
                .or_default()
                .push(&event.kind);
        }
    }
    match results.iter().find(|(_, kinds)| kinds.len() > 1) {
        None => Ok(()),
        Some((attempt, kinds)) => Err(format!("I4: {attempt:?} of {id} has the results {kinds:?}")),
    }
}

/// Steps took signals that their run took in, each once, in the order in which they came; and no
/// run took one in twice. How many steps did.
pub fn signals_taken(world: &World) -> Result<usize, String> {
    let mut taken = 0;
    for (run, history) in &events(world)? {
        let numbers = |kind: &str| -> Vec<u64> {
            let of_kind = history.iter().filter(|event| event.kind == kind);
            of_kind.filter_map(|event| event.signal).collect()
        };
        let received = numbers("partita.run.signalled");
        let by_steps = numbers("partita.step.completed");
        let distinct: BTreeSet<u64> = received.iter().copied().collect();
        if distinct.len() < received.len() {
            return Err(format!("I4: {run} took in {received:?}"));
        }
        if !received.starts_with(&by_steps) {
            return Err(format!(
                "I4: of {received:?} steps of {run} took {by_steps:?}"
            ));
        }
        taken += by_steps.len();
    }
    Ok(taken)
}

/// Each attempt that was scheduled has one task, and no other task is there.
fn tasks(world: &World, events: &HashMap<String, Vec<Event>>) -> Result<(), String> {
    let mut dispatched = BTreeSet::new();
    for record in world
        .cluster
        .read_committed(&TopicKey::Tasks(AGENT.to_owned()), 0, 0)
    {
        let body: serde_json::Value = serde_json::from_slice(&record.value.unwrap_or_default())
            .map_err(|error| error.to_string())?;
        if body["type"] != "cancel" {
            let id = body["task_id"].as_str().unwrap_or_default().to_owned();
            if !dispatched.insert(id.clone()) {
                return Err(format!("I3: task {id} was dispatched twice"));
            }
        }
    }
    let mut scheduled = BTreeSet::new();
    for (run, history) in events {
        for event in history
            .iter()
            .filter(|event| event.kind == "partita.step.scheduled")
        {
            if let Some((step, attempt)) = &event.step {
                scheduled.insert(format!("{run}.{step}.0.{attempt}"));
            }
        }
    }
    match scheduled.symmetric_difference(&dispatched).next() {
        None => Ok(()),
        Some(task) => Err(format!(
            "I3: {task} has a task and no event, or an event and no task"
        )),
    }
}

/// Everything that came in was dealt with.
fn positions(world: &World) -> Result<(), String> {
    for partition in 0..PARTITIONS {
        let committed = world.cluster.committed(partition);
        for source in Source::BOTH {
            let records = world.cluster.read_committed(
                &TopicKey::Input(source),
                partition,
                committed[source.index()],
            );
            if !records.is_empty() {
                return Err(format!(
                    "I3: {} records of {source:?} {partition} are left",
                    records.len()
                ));
            }
        }
    }
    Ok(())
}

/// Each disk is the fold of the changelog up to its offset, and never ahead of Kafka.
pub fn stores(world: &World) -> Result<(), String> {
    for instance in &world.instances {
        for partition in 0..PARTITIONS {
            let store = instance
                .disk
                .open("memory", partition)
                .map_err(|error| error.to_string())?;
            let offset = store.offset().map_err(|error| error.to_string())?;
            let stable = world.cluster.last_stable(&TopicKey::State, partition);
            if offset > stable {
                return Err(format!("I5: a store stands at {offset}, Kafka at {stable}"));
            }
            let mut entries = Entries::new();
            store
                .scan(None, &mut |key, value| {
                    entries.insert(key.to_vec(), value.to_vec());
                    true
                })
                .map_err(|error| error.to_string())?;
            if entries != folded(world, partition, offset) {
                let number = instance.number;
                return Err(format!(
                    "I5: store {partition} of instance {number} is not its changelog"
                ));
            }
        }
    }
    Ok(())
}

/// What a live instance would tell is what the changelog says.
fn caches(world: &World, runs: &HashMap<String, RunState>) -> Result<(), String> {
    for instance in world
        .instances
        .iter()
        .filter(|instance| instance.worker.is_some())
    {
        for partition in instance.shared.partitions() {
            for run in runs
                .values()
                .filter(|run| world.home(run.id.as_str()) == partition.number)
            {
                let told = partition
                    .run(&run.id)
                    .map_err(|error| format!("I5: {}: {error}", run.id))?;
                if told.as_ref() != Some(run) {
                    return Err(format!(
                        "I5: instance {} has another {}",
                        instance.number, run.id
                    ));
                }
            }
        }
    }
    Ok(())
}
