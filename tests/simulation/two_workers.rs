//! Two workers of one instance, which share its stores and its table of partitions. The group may
//! give a partition from one to the other before the first knows that it has lost it.

use partita::log::Source;
use partita::log::memory::TopicKey;
use partita::model::{Millis, RunId};

use crate::faulty::{Fault, Point, Sabotage};
use crate::world::{PARTITIONS, World};

#[test]
fn a_worker_that_learns_late_of_its_end_does_not_take_its_successor_down() {
    let mut world = World::new(1, Sabotage::None, 2);
    world.boot_beside(1, 0);
    for _ in 0..20 {
        world.step(0);
        world.step(1);
    }
    assert_eq!(restored(&world), PARTITIONS, "before anything happens");

    // The group takes the second for dead and gives all to the first.
    world.expire_member(1);
    for _ in 0..20 {
        world.step(0);
    }
    let mut late = world.instances[1].worker.take().expect("it runs");
    late.leave();

    for _ in 0..20 {
        world.step(0);
    }
    assert_eq!(restored(&world), PARTITIONS, "the first owns all of them");
}

/// Until a transaction has ended whose owner died within it, nobody can say where its partitions go on.
/// Whoever takes them over goes on with its own.
#[test]
fn a_transaction_that_stays_open_holds_up_no_partition_but_its_own() {
    let mut world = World::new(1, Sabotage::None, 2);
    for _ in 0..20 {
        world.step(0);
        world.step(1);
    }
    let owned_by = |world: &World, number: usize| {
        let partitions = world.instances[number].shared.partitions();
        partitions.first().expect("its share").number
    };
    let (ours, theirs) = (owned_by(&world, 0), owned_by(&world, 1));
    let mut plan = world.instances[1].plan.lock().unwrap();
    plan.armed.push((Point::BeforeCommit, Fault::Crash));
    drop(plan);
    start_in(&world, theirs);
    for _ in 0..5 {
        world.step(1);
    }
    assert!(world.instances[1].worker.is_none(), "it died");
    world.expire_dead(1);
    for _ in 0..20 {
        world.step(0);
    }
    let run = start_in(&world, ours);
    for _ in 0..20 {
        world.now = world.now + Millis(100);
        world.step(0);
    }
    let shared = &world.instances[0].shared;
    let partition = shared.partition(ours).expect("it is ours");
    let found = partition
        .run(&run)
        .expect("a store in memory does not fail");
    assert!(found.is_some(), "it was started");
    let undecided = shared.partition(theirs);
    assert!(!undecided.is_some_and(|partition| partition.is_restored()));

    // Its process is back, which ends what it left open.
    world.boot(1);
    world.step(1);
    world.expire_member(1);
    for _ in 0..20 {
        world.now = world.now + Millis(500);
        world.step(0);
    }
    assert_eq!(restored(&world), PARTITIONS);
}

/// Sends the start of a run that lives in the partition.
fn start_in(world: &World, partition: i32) -> RunId {
    let names = (0..100).map(|number| format!("run-{number}"));
    let run = names.into_iter().find(|run| world.home(run) == partition);
    let run = run.expect("one of them");
    let start = serde_json::json!({"type": "start", "run_id": run, "workflow": "line"});
    let (topic, body) = (TopicKey::Input(Source::Commands), start.to_string());
    let key = Some(run.as_bytes());
    world
        .cluster
        .produce(topic, partition, key, Some(body.as_bytes()), Vec::new());
    RunId::parse(&run).expect("a run id")
}

fn restored(world: &World) -> i32 {
    let shared = &world.instances[0].shared;
    let restored = (0..PARTITIONS).filter(|number| {
        let partition = shared.partition(*number);
        partition.is_some_and(|partition| partition.is_restored())
    });
    i32::try_from(restored.count()).expect("a few")
}
