//! What a step costs the core: one reply in; completed and scheduled events, one task and one
//! changed run out. Prints and asserts no figure, so it runs on request:
//! `cargo test --test core speed -- --ignored --nocapture`.

use std::time::Duration;

use serde_json::json;

use partita::engine::{Effect, Input};
use partita::model::{Command, Json, Reply, ReplyStatus, RunId, Start};

use crate::tables::compile;
use crate::world::{World, roomy};

const RUNS: usize = 20_000;
const STEPS: usize = 5;
const BATCH: usize = 500;

/// Of this thread: other work on the machine does not count.
fn processor_time() -> Duration {
    let mut time = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the clock is one that Linux has, and `time` is ours to write to.
    let failed = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    assert_eq!(failed, 0, "the clock of the thread can be read");
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

#[test]
#[ignore = "measures and asserts no figure"]
fn a_step_costs_little() {
    let steps: Vec<_> = (0..STEPS)
        .map(|step| {
            let before = step.checked_sub(1).map(|before| format!("s{before}"));
            let inputs = match &before {
                Some(before) => json!({"of": format!("${{steps.{before}.output.x}}")}),
                None => json!({"of": "${input.x}"}),
            };
            json!({"id": format!("s{step}"), "agent": "worker", "timeout": "30s",
                   "depends_on": before.into_iter().collect::<Vec<_>>(), "inputs": inputs})
        })
        .collect();
    let workflow = json!({"kind": "workflow", "name": "w", "timeout": "5m", "steps": steps});
    let config = partita::engine::EngineConfig {
        max_live_runs: RUNS,
        ..roomy()
    };
    let mut world = World::new(config, &compile(&workflow));
    let ids: Vec<RunId> = (0..RUNS)
        .map(|run| RunId::parse(&format!("run-{run}")).unwrap())
        .collect();
    let starts: Vec<Input> = ids
        .iter()
        .map(|id| Input::Command {
            command: Command::Start(Start {
                run_id: id.clone(),
                workflow: "w".into(),
                version: None,
                input: Some(json!({"x": 1, "text": "some words of input"}).into()),
                tags: [("team".to_owned(), "red".to_owned())].into(),
                priority: 0,
                provenance: None,
            }),
            traceparent: Some("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".into()),
            caller_waits: false,
        })
        .collect();
    let output = Json::from_text(r#"{"x":1,"text":"some words of output"}"#).unwrap();
    world.apply(starts);
    let mut spent = Duration::ZERO;
    let mut completed = 0;
    for step in 0..STEPS {
        for some in ids.chunks(BATCH) {
            let replies = some
                .iter()
                .map(|id| {
                    Input::Reply(Reply {
                        run_id: id.clone(),
                        step_id: format!("s{step}"),
                        task_id: Some(format!("{id}.s{step}.0.1")),
                        attempt: Some(1),
                        epoch: Some(0),
                        status: ReplyStatus::Completed {
                            output: output.clone(),
                        },
                    })
                })
                .collect();
            let began = processor_time();
            let finished = world.dry_run(replies);
            spent += processor_time() - began;
            completed += finished
                .effects
                .iter()
                .filter(|emitted| matches!(emitted.effect, Effect::Answer(_)))
                .count();
            for run in finished.changes.runs {
                world.committed.runs.insert(run.id.clone(), run);
            }
        }
    }
    assert_eq!(completed, RUNS * STEPS);
    assert!(
        world
            .committed
            .runs
            .values()
            .all(|run| run.status.is_ended())
    );
    println!(
        "{completed} steps in {spent:?}: {:?} a step, the copy of the run's state included",
        spent / (RUNS * STEPS) as u32
    );
}
