//! What is long over is removed: runs that ended get a tombstone in the changelog once `retention` has
//! passed, with everything that belongs to them, and disappear from cache and store. Nothing else
//! does. The clock is turned by hand, so an hour takes no time.

use partita::codec::keys::EntryKey;
use partita::log::memory::TopicKey;
use partita::model::{Millis, RunId, RunStatus};

use crate::check;
use crate::faulty::Sabotage;
use crate::world::{PARTITIONS, RETENTION, World};

/// Starts a run of three steps; a large input has an entry of its own.
fn start(world: &mut World, run: &str, input_bytes: usize) {
    start_of(world, "line", run, input_bytes);
}

fn start_of(world: &mut World, workflow: &str, run: &str, input_bytes: usize) {
    let body = serde_json::json!({
        "type": "start", "run_id": run, "workflow": workflow, "input": "i".repeat(input_bytes),
    });
    world.command(run, &body);
    world.started.push(run.to_owned());
}

fn step(world: &mut World) {
    for _ in 0..4 {
        world.step(0);
    }
    world.write_all(0);
}

/// Answers all tasks until every run has ended.
fn end_all(world: &mut World) {
    for _ in 0..100 {
        step(world);
        world.answer_all();
        world.now = world.now + Millis(100);
        if check::all_ended(world).expect("readable entries") {
            return step(world);
        }
    }
    panic!("{}", check::unfinished(world).expect("readable entries"));
}

/// Lets a minute pass, and as many passes of the sweep as fall into it.
fn let_minutes_pass(world: &mut World, minutes: u64) {
    for _ in 0..minutes * 2 {
        world.now = world.now + Millis(30_000);
        step(world);
    }
}

/// The run's records in the changelog that are its last word: whether each is a tombstone, by key.
fn last_words(world: &World, run: &str) -> Vec<(EntryKey, bool)> {
    let mut words: Vec<(EntryKey, bool)> = Vec::new();
    for partition in 0..PARTITIONS {
        for record in world.cluster.read_committed(&TopicKey::State, partition, 0) {
            let key = EntryKey::parse(&record.key.unwrap_or_default()).expect("a key of ours");
            let id = match &key {
                EntryKey::Run(id) | EntryKey::Value(id, _) => id,
                EntryKey::Parked(_) => continue,
            };
            if id.as_str() == run {
                words.retain(|(known, _)| *known != key);
                words.push((key, record.value.is_none()));
            }
        }
    }
    words
}

fn status(world: &World, run: &str) -> Option<RunStatus> {
    let partition = world.instances[0].shared.partition(world.home(run));
    let id = RunId::parse(run).expect("a run id");
    let run = partition.expect("an owner").run(&id).expect("a store");
    run.map(|run| run.status)
}

#[test]
fn ended_runs_go_when_retention_is_over() {
    let mut world = World::new(1, Sabotage::None, 1);
    step(&mut world);
    let old = ["old-1", "old-2", "old-large"];
    start(&mut world, "old-1", 1);
    start(&mut world, "old-2", 1);
    start(&mut world, "old-large", 6_000);
    end_all(&mut world);

    let retention = RETENTION.0 / 60_000;
    let_minutes_pass(&mut world, retention / 2);
    start(&mut world, "young", 1);
    end_all(&mut world);
    start(&mut world, "live", 6_000);
    step(&mut world);

    let_minutes_pass(&mut world, retention / 2 - 2);
    for run in old {
        assert_eq!(status(&world, run), Some(RunStatus::Completed), "{run}");
        assert!(last_words(&world, run).iter().all(|(_, gone)| !gone));
    }

    let_minutes_pass(&mut world, 4);
    for run in old {
        assert_eq!(status(&world, run), None, "{run}");
        let words = last_words(&world, run);
        assert!(!words.is_empty(), "{run}");
        assert!(words.iter().all(|(_, gone)| *gone), "{run}: {words:?}");
    }
    assert!(
        last_words(&world, "old-large").len() > 1,
        "its input had an entry of its own"
    );
    assert_eq!(status(&world, "young"), Some(RunStatus::Completed));
    assert_eq!(status(&world, "live"), Some(RunStatus::Running));
    for kept in ["young", "live"] {
        assert!(last_words(&world, kept).iter().all(|(_, gone)| !gone));
    }
    check::stores(&world).expect("the store is the fold of the changelog");

    // The same after a restart from nothing but the changelog; and the id is free again.
    world.kill(0);
    world.expire_dead(0);
    world.instances[0].disk.lose_all();
    world.boot(0);
    for _ in 0..20 {
        step(&mut world);
    }
    assert_eq!(status(&world, "old-1"), None);
    assert_eq!(status(&world, "young"), Some(RunStatus::Completed));
    start(&mut world, "old-1", 1);
    for _ in 0..4 {
        step(&mut world);
    }
    assert_eq!(status(&world, "old-1"), Some(RunStatus::Running));
}

#[test]
fn what_signals_left_goes_with_their_run() {
    let mut world = World::new(1, Sabotage::None, 1);
    step(&mut world);
    start_of(&mut world, "signalled", "old", 1);
    (0..4).for_each(|_| step(&mut world));
    // Large ones, of which two are taken and one waits to the end.
    for number in 0..3 {
        let data = serde_json::json!({"number": number, "text": "s".repeat(6_000)});
        let body =
            serde_json::json!({"type": "signal", "run_id": "old", "name": "go", "data": data});
        world.command("old", &body);
    }
    (0..4).for_each(|_| step(&mut world));
    end_all(&mut world);
    check::stores(&world).expect("the store is the fold of the changelog");
    let of_values = |world: &World| {
        let words = last_words(world, "old");
        let values = words.into_iter();
        values
            .filter(|(key, _)| matches!(key, EntryKey::Value(..)))
            .collect::<Vec<_>>()
    };
    // Three signals, and the outputs of two steps.
    assert_eq!(of_values(&world).len(), 5);
    let_minutes_pass(&mut world, RETENTION.0 / 60_000 + 4);
    assert_eq!(status(&world, "old"), None);
    assert!(of_values(&world).iter().all(|(_, gone)| *gone));
    assert!(last_words(&world, "old").iter().all(|(_, gone)| *gone));
}
