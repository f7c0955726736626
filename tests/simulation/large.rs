//! What is too much for one transaction is done in smaller ones.

use partita::model::Millis;

use crate::check;
use crate::faulty::Sabotage;
use crate::world::World;

#[test]
fn a_batch_whose_records_the_brokers_do_not_take_in_time_is_halved_until_they_do() {
    let mut world = World::new(1, Sabotage::None, 1);
    for _ in 0..10 {
        world.step(0);
    }
    world.instances[0].plan.lock().unwrap().most = Some(16);
    let live = 6;
    for number in 0..live {
        let run = format!("run-{number}");
        let body = serde_json::json!({
            "type": "start", "run_id": run, "workflow": "line", "input": 1,
        });
        world.command(&run, &body);
        world.started.push(run);
    }
    for _ in 0..1_000 {
        world.step(0);
        world.answer_all();
        world.now = world.now + Millis(100);
    }
    assert!(
        check::all_ended(&world).expect("readable entries"),
        "{}",
        check::unfinished(&world).expect("readable entries")
    );
    check::all(&world).expect("invariants");
}
