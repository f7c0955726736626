//! Random workflows and random inputs ([`random`]): duplicates, stale and future attempts, pauses,
//! resumes, cancels, silence. Whatever comes, the invariants of [`Auditor`] hold, a history folds
//! to the state it led to, batches do not matter, and every run ends.

mod auditor;
mod random;

use proptest::prelude::*;

use partita::engine::{Emitted, EngineConfig, Input};
use partita::model::{Command, Millis, Verb};

use self::auditor::{Auditor, Cause, nothing_lies_about};
use self::random::{Op, StepSpec, id_of, input_of, op, step_spec, workflow_of};
use crate::tables::compile;
use crate::world::{World, roomy};

const RUNS: usize = 3;
const RUN_TIMEOUT_MS: u64 = 60_000;

/// Plays the ops, each batch of up to `batch` inputs between two passings of time being one
/// transaction; then resumes everything and lets time pass until all is over.
fn play(
    specs: &[StepSpec],
    ops: &[Op],
    batch: usize,
    config: EngineConfig,
) -> (World, Vec<Emitted>) {
    let workflows = compile(&workflow_of(specs));
    let mut world = World::new(config, &workflows);
    let mut auditor = Auditor::default();
    let mut all = Vec::new();
    let mut waiting: Vec<Input> = Vec::new();
    let mut commit = |world: &mut World, inputs: Vec<Input>| {
        let causes: Vec<Cause> = inputs.iter().map(Cause::of).collect();
        let emitted = world.apply(inputs);
        auditor.read(&emitted, &causes);
        world
            .committed
            .runs
            .values()
            .for_each(|run| nothing_lies_about(run, &workflows[0], world.now));
        all.extend(emitted);
    };
    let pass = |world: &mut World, until, commit: &mut dyn FnMut(&mut World, Vec<Input>)| {
        for _ in 0..10_000 {
            let Some((due, input)) = world.next_due().filter(|(due, _)| *due <= until) else {
                world.now = world.now.max(until);
                return;
            };
            world.now = world.now.max(due);
            commit(world, vec![input]);
        }
        panic!("timers fire without end");
    };
    for op in ops {
        match input_of(op, &world, specs.len()) {
            Some(input) => waiting.push(input),
            None => commit(&mut world, std::mem::take(&mut waiting)),
        }
        if waiting.len() >= batch {
            commit(&mut world, std::mem::take(&mut waiting));
        }
        if let Op::Pass { millis } = op {
            let until = world.now + Millis(*millis);
            pass(&mut world, until, &mut commit);
        }
    }
    commit(&mut world, waiting);
    // Faults heal: nothing is paused any more, agents stay silent, timers do the rest.
    for run in 0..RUNS {
        let command = Command::Resume(Verb {
            run_id: id_of(run),
            reason: None,
            depth: 0,
        });
        commit(
            &mut world,
            vec![Input::Command {
                command,
                traceparent: None,
                caller_waits: true,
            }],
        );
    }
    let healed = world.now;
    let until = healed + Millis(RUN_TIMEOUT_MS * (RUNS as u64 + 1));
    pass(&mut world, until, &mut commit);
    auditor.close(&world.committed.runs);
    for run in world.committed.runs.values() {
        if let (Some(started), Some(ended)) = (run.started_at, run.ended_at) {
            let deadline = started + Millis(RUN_TIMEOUT_MS);
            assert!(ended <= deadline.max(healed), "I7: ended by its deadline");
        }
    }
    assert!(world.committed.parked.is_empty(), "no reply waits for ever");
    (world, all)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn invariants_hold_and_every_run_ends(
        specs in prop::collection::vec(step_spec(), 1..7),
        ops in prop::collection::vec(op(), 0..60),
        batch in 1_usize..6,
        places in 1_usize..4,
    ) {
        let config = EngineConfig { max_live_runs: places, ..roomy() };
        let (first, effects) = play(&specs, &ops, batch, config.clone());
        let (second, again) = play(&specs, &ops, batch, config);
        prop_assert_eq!(effects, again, "the same inputs give the same effects");
        prop_assert_eq!(first.committed.runs, second.committed.runs);
    }

    /// Where places are not scarce, how inputs are cut into transactions changes nothing.
    #[test]
    fn transactions_do_not_matter(
        specs in prop::collection::vec(step_spec(), 1..6),
        ops in prop::collection::vec(op(), 0..40),
    ) {
        // Attempts are chosen by what is committed, so only those that name none are compared.
        let ops: Vec<Op> = ops
            .into_iter()
            .map(|op| match op {
                Op::Reply { run, step, kind, .. } => Op::Reply { run, step, attempt: None, kind },
                other => other,
            })
            .collect();
        let (single, effects) = play(&specs, &ops, 1, roomy());
        let (batched, again) = play(&specs, &ops, 7, roomy());
        prop_assert_eq!(single.committed.runs, batched.committed.runs);
        let plain = |emitted: Vec<Emitted>| emitted.into_iter().map(|emitted| emitted.effect).collect::<Vec<_>>();
        prop_assert_eq!(plain(effects), plain(again));
    }
}
