//! Two workers of one instance, which share its stores and its table of partitions. The group may
//! give a partition from one to the other before the first knows that it has lost it.

use crate::faulty::Sabotage;
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

fn restored(world: &World) -> i32 {
    let shared = &world.instances[0].shared;
    let restored = (0..PARTITIONS).filter(|number| {
        let partition = shared.partition(*number);
        partition.is_some_and(|partition| partition.is_restored())
    });
    i32::try_from(restored.count()).expect("a few")
}
