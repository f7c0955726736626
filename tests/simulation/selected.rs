//! Orders that name tags reach every run that has them and no other, in portions, also after a
//! restart from the store or from nothing but the changelog.

use partita::model::{RunId, RunState, RunStatus};
use serde_json::{Value, json};

use crate::check;
use crate::faulty::Sabotage;
use crate::world::World;

/// More than one portion in each partition, for a batch has at most twelve inputs here.
const RUNS: usize = 90;

fn steps(world: &mut World) {
    for _ in 0..400 {
        world.step(0);
    }
    world.write_all(0);
}

fn run(world: &World, number: usize) -> RunState {
    let name = format!("run-{number}");
    let partition = world.instances[0].shared.partition(world.home(&name));
    let id = RunId::parse(&name).expect("a run id");
    let run = partition.expect("an owner").run(&id).expect("a store");
    run.expect("it was started")
}

fn restart(world: &mut World, is_store_lost: bool) {
    world.kill(0);
    world.expire_dead(0);
    if is_store_lost {
        world.instances[0].disk.lose_all();
    }
    world.boot(0);
    steps(world);
}

/// Sends the order and says which runs it changed, by their revisions.
fn reached(world: &mut World, order: &Value) -> Vec<usize> {
    let revisions: Vec<u64> = (0..RUNS)
        .map(|number| run(world, number).revision)
        .collect();
    world.select(order);
    steps(world);
    let is_changed = |number: &usize| run(world, *number).revision > revisions[*number];
    (0..RUNS).filter(is_changed).collect()
}

#[test]
fn orders_by_tag_reach_every_run_that_has_the_tags() {
    for seed in 0..6 {
        let mut world = World::new(seed, Sabotage::None, 1);
        steps(&mut world);
        for number in 0..RUNS {
            let name = format!("run-{number}");
            let body = json!({
                "type": "start", "run_id": name, "workflow": "signalled",
                "tags": {"third": (number % 3).to_string(), "parity": (number % 2).to_string()},
            });
            world.command(&name, &body);
            world.started.push(name);
        }
        steps(&mut world);
        let meant = |third: usize, parity: Option<usize>| -> Vec<usize> {
            let of_parity = |number: &usize| parity.is_none_or(|parity| number % 2 == parity);
            (0..RUNS)
                .filter(|number| number % 3 == third)
                .filter(of_parity)
                .collect()
        };
        let pause = json!({"type": "pause", "tags": {"third": "1"}});
        assert_eq!(reached(&mut world, &pause), meant(1, None));
        assert_eq!(reached(&mut world, &pause), [0; 0], "they are paused");
        restart(&mut world, false);
        let signal = json!({
            "type": "signal", "tags": {"third": "1", "parity": "0"}, "name": "go", "id": "s-1",
            "data": {"number": 1, "text": "s".repeat(6_000)},
        });
        assert_eq!(reached(&mut world, &signal), meant(1, Some(0)));
        restart(&mut world, true);
        assert_eq!(reached(&mut world, &signal), [0; 0], "its id is known");
        let cancel = json!({"type": "cancel", "tags": {"third": "2"}});
        let cancelled = reached(&mut world, &cancel);
        // Places are free now, so that others begin.
        assert!(
            meant(2, None)
                .iter()
                .all(|number| cancelled.contains(number))
        );
        for number in 0..RUNS {
            let run = run(&world, number);
            let is_signalled = number % 3 == 1 && number % 2 == 0;
            assert_eq!(run.inbox.waiting.len(), usize::from(is_signalled));
            match number % 3 {
                1 => assert_eq!(run.status, RunStatus::Paused),
                2 => assert_eq!(run.status, RunStatus::Cancelled),
                _ => assert!(matches!(
                    run.status,
                    RunStatus::Running | RunStatus::Pending
                )),
            }
        }
        restart(&mut world, true);
        assert_eq!(reached(&mut world, &cancel), [0; 0], "they have ended");
        check::stores(&world).expect("the store is the fold of the changelog");
    }
}
