//! Random workflows and random inputs: duplicates, stale and future attempts, pauses, resumes,
//! cancels, silence. Whatever comes, the invariants of [`Auditor`] hold, a history folds to the
//! state it led to, batches do not matter, and every run ends.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Value, json};

use partita::engine::{Effect, Emitted, EngineConfig, Input, Outcome};
use partita::model::{
    Command, Event, EventKind, Failure, Json, Millis, Reply, ReplyStatus, RunId, RunState,
    RunStatus, Start, StepStatus, Timestamp, Verb,
};
use partita::workflow::Workflow;
use partita::workflow::transition::{is_legal_run_transition, is_legal_step_transition};

use crate::tables::compile;
use crate::world::{World, roomy};

const RUNS: usize = 3;
const RUN_TIMEOUT_MS: u64 = 60_000;

/// One step of a random workflow; dependencies are bits over the steps before it.
#[derive(Clone, Debug)]
struct StepSpec {
    dependencies: u8,
    is_switch: bool,
    when: Option<bool>,
    bad_inputs: bool,
    timeout: Option<u64>,
    heartbeat: Option<u64>,
    attempts: u32,
    on_error: Option<&'static str>,
}

#[derive(Clone, Debug)]
enum Op {
    Start {
        run: usize,
        input: u8,
    },
    Reply {
        run: usize,
        step: usize,
        attempt: Option<i32>,
        kind: ReplyKind,
    },
    Verb {
        run: usize,
        verb: u8,
    },
    Pass {
        millis: u64,
    },
}

#[derive(Clone, Copy, Debug)]
enum ReplyKind {
    Completed,
    TooLarge,
    Failed {
        class: &'static str,
        retryable: Option<bool>,
    },
    Progress,
    Heartbeat,
}

fn step_spec() -> impl Strategy<Value = StepSpec> {
    let timer = || prop_oneof![3 => Just(None), 1 => (0_u64..8_000).prop_map(|ms| Some(ms + 1))];
    let on_error = prop_oneof![
        4 => Just(None),
        1 => Just(Some("skip")),
        1 => Just(Some("fail")),
        1 => Just(Some("retry")),
    ];
    let when = prop_oneof![4 => Just(None), 1 => any::<bool>().prop_map(Some)];
    (
        any::<u8>(),
        0..6_u8,
        when,
        0..12_u8,
        timer(),
        timer(),
        1_u32..4,
        on_error,
    )
        .prop_map(
            |(dependencies, switch, when, bad, timeout, heartbeat, attempts, on_error)| StepSpec {
                dependencies,
                is_switch: switch == 0,
                when,
                bad_inputs: bad == 0,
                timeout,
                heartbeat,
                attempts,
                on_error,
            },
        )
}

fn reply_kind() -> impl Strategy<Value = ReplyKind> {
    let failed = (
        prop_oneof![
            Just("flaky"),
            Just("timeout"),
            Just("expression_error"),
            Just("payload_too_large")
        ],
        prop_oneof![3 => Just(None), 1 => any::<bool>().prop_map(Some)],
    );
    prop_oneof![
        6 => Just(ReplyKind::Completed),
        1 => Just(ReplyKind::TooLarge),
        3 => failed.prop_map(|(class, retryable)| ReplyKind::Failed { class, retryable }),
        1 => Just(ReplyKind::Progress),
        1 => Just(ReplyKind::Heartbeat),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    // Relative to the step's attempt: 0 the open one, below stale, above of the future.
    let attempt = prop_oneof![3 => Just(None), 4 => Just(Some(0)), 2 => (-2..3_i32).prop_map(Some)];
    prop_oneof![
        2 => (0..RUNS, 0..2_u8).prop_map(|(run, input)| Op::Start { run, input }),
        12 => (0..RUNS, 0..8_usize, attempt, reply_kind())
            .prop_map(|(run, step, attempt, kind)| Op::Reply { run, step, attempt, kind }),
        2 => (0..RUNS, 0..9_u8).prop_map(|(run, verb)| Op::Verb { run, verb }),
        4 => (0_u64..6_000).prop_map(|millis| Op::Pass { millis }),
    ]
}

fn workflow_of(specs: &[StepSpec]) -> Value {
    let mut steps: Vec<Value> = Vec::new();
    for (place, spec) in specs.iter().enumerate() {
        let depends_on: Vec<String> = (0..place)
            .filter(|before| spec.dependencies & (1 << before) != 0)
            .map(|before| format!("s{before}"))
            .collect();
        let mut step = json!({"id": format!("s{place}"), "depends_on": depends_on});
        if let Some(when) = spec.when {
            step["when"] = format!("${{input.flag == {when}}}").into();
        }
        if let Some(action) = spec.on_error {
            step["on_error"] = json!({"default": action});
        }
        // A switch needs a step after it to choose.
        if spec.is_switch && place + 1 < specs.len() {
            let next = format!("s{}", place + 1);
            step["switch"] =
                json!({"cases": [{"name": "on", "when": "${input.flag}", "then": [next]}]});
        } else {
            step["agent"] = "worker".into();
            step["retry"] = json!({"max_attempts": spec.attempts, "backoff": {"initial": "500ms"}});
            if spec.bad_inputs {
                step["inputs"] = json!({"x": "${input.missing}"});
            }
            if let Some(timeout) = spec.timeout {
                step["timeout"] = format!("{timeout}ms").into();
            }
            if let Some(heartbeat) = spec.heartbeat {
                step["heartbeat_timeout"] = format!("{heartbeat}ms").into();
            }
        }
        steps.push(step);
    }
    json!({"kind": "workflow", "name": "w", "timeout": format!("{RUN_TIMEOUT_MS}ms"), "steps": steps})
}

fn id_of(run: usize) -> RunId {
    RunId::parse(&format!("run-{run}")).expect("a proper id")
}

/// The input of an op as the world stands; `None` for the passing of time.
fn input_of(op: &Op, world: &World, steps: usize) -> Option<Input> {
    let command = |command| Input::Command {
        command,
        traceparent: None,
        caller_waits: false,
    };
    Some(match op {
        Op::Start { run, input } => command(Command::Start(Start {
            run_id: id_of(*run),
            workflow: "w".into(),
            version: None,
            input: Some(json!({"flag": *input == 0}).into()),
            tags: BTreeMap::new(),
            priority: i32::try_from(*run).expect("few runs"),
        })),
        Op::Verb { run, verb } => {
            let verb_record = Verb {
                run_id: id_of(*run),
                reason: None,
            };
            command(match verb {
                0..=3 => Command::Pause(verb_record),
                4..=7 => Command::Resume(verb_record),
                _ => Command::Cancel(verb_record),
            })
        }
        Op::Reply {
            run,
            step,
            attempt,
            kind,
        } => {
            let step = step % steps;
            let current = world
                .committed
                .runs
                .get(&id_of(*run))
                .map_or(1, |run| run.steps[step].attempt);
            let attempt = attempt
                .map(|offset| u32::try_from(i64::from(current) + i64::from(offset)).unwrap_or(0));
            let status = match kind {
                ReplyKind::Completed => ReplyStatus::Completed {
                    output: json!({"at": step}).into(),
                },
                ReplyKind::TooLarge => ReplyStatus::Completed {
                    output: Json::from(json!("x".repeat(2_000))),
                },
                ReplyKind::Failed { class, retryable } => ReplyStatus::Failed {
                    error: Failure {
                        retryable: *retryable,
                        ..Failure::new(class, "by chance")
                    },
                },
                ReplyKind::Progress => ReplyStatus::Progress {
                    progress: Some(0.5),
                    note: None,
                },
                ReplyKind::Heartbeat => ReplyStatus::Heartbeat,
            };
            Input::Reply(Reply {
                run_id: id_of(*run),
                step_id: format!("s{step}"),
                task_id: None,
                attempt,
                epoch: None,
                status,
            })
        }
        Op::Pass { .. } => return None,
    })
}

/// What an input is about.
struct Cause {
    run: RunId,
    /// Of a reply that names its attempt.
    attempt: Option<(String, u32)>,
}

impl Cause {
    fn of(input: &Input) -> Self {
        let run = match input {
            Input::Command { command, .. } => command.run_id(),
            Input::Reply(reply) => &reply.run_id,
            Input::Tick(run) => run,
            Input::Unpark(key) => &key.run,
        };
        let attempt = match input {
            Input::Reply(reply) => reply
                .attempt
                .map(|attempt| (reply.step_id.clone(), attempt)),
            _ => None,
        };
        Self {
            run: run.clone(),
            attempt,
        }
    }

    /// A reply has results for the attempt that it names and for no other.
    fn check(&self, event: &Event) {
        let (Some((step, attempt)), Some((of_step, of_attempt))) = (&self.attempt, &event.step)
        else {
            return;
        };
        let is_result = matches!(
            event.kind,
            EventKind::StepCompleted | EventKind::StepRetrying | EventKind::StepProgress
        );
        if is_result && step.as_str() == of_step.as_ref() {
            assert_eq!(attempt, of_attempt, "I4: a result of another attempt");
        }
    }
}

/// What is known of one attempt of one step from the effects alone. Attempt 0: before the first.
#[derive(Default, Debug)]
struct AttemptLog {
    dispatched: u32,
    /// Completed, failed, retrying, skipped: how the attempt ended.
    results: u32,
    timed_out: u32,
    cancelled: u32,
    cancel_tasks: u32,
}

/// A run as its history tells it.
struct Told {
    status: RunStatus,
    steps: BTreeMap<String, StepStatus>,
    sequence: u64,
    ends: u32,
}

/// Reads every effect and checks what must hold of them.
#[derive(Default)]
struct Auditor {
    runs: BTreeMap<RunId, Told>,
    attempts: BTreeMap<(RunId, String, u32), AttemptLog>,
    started: BTreeMap<RunId, u32>,
}

impl Auditor {
    fn read(&mut self, emitted: &[Emitted], causes: &[Cause]) {
        for Emitted { input, effect } in emitted {
            match effect {
                Effect::Event(event) => {
                    self.event(event);
                    if let Some(input) = input {
                        causes[*input].check(event);
                    }
                }
                Effect::Dispatch { task, .. } => {
                    let told = &self.runs[&task.run_id];
                    assert_eq!(
                        told.status,
                        RunStatus::Running,
                        "dispatched in a run that is not running"
                    );
                    let log = self.attempts.entry((
                        task.run_id.clone(),
                        task.step_id.clone(),
                        task.attempt,
                    ));
                    log.or_default().dispatched += 1;
                }
                Effect::CancelTask(cancel) => {
                    let key = (
                        cancel.run_id.clone(),
                        cancel.step_id.clone(),
                        cancel.attempt,
                    );
                    self.attempts.entry(key).or_default().cancel_tasks += 1;
                }
                Effect::Answer(Outcome::Started) => {
                    let run = causes[input.expect("an answer has its input")].run.clone();
                    *self.started.entry(run).or_default() += 1;
                }
                _ => {}
            }
        }
    }

    fn event(&mut self, event: &Event) {
        let told = self.runs.entry(event.run.clone()).or_insert_with(|| Told {
            status: RunStatus::Pending,
            steps: BTreeMap::new(),
            sequence: 0,
            ends: 0,
        });
        told.sequence += 1;
        assert_eq!(event.sequence, told.sequence, "I2: numbered densely");
        assert_eq!(told.ends, 0, "nothing comes after the end of a run");
        told.ends += u32::from(event.kind.is_terminal());
        let Some((step, attempt)) = &event.step else {
            let to = RunStatus::ALL
                .into_iter()
                .find(|status| status.name() == event.status);
            let to = to.expect("a run's event has a run's status");
            assert!(
                is_legal_run_transition(told.status, to),
                "I6: {:?} to {to:?}",
                told.status
            );
            told.status = to;
            return;
        };
        let to = StepStatus::ALL
            .into_iter()
            .find(|status| status.name() == event.status);
        let to = to.expect("a step's event has a step's status");
        let from = told
            .steps
            .insert(step.to_string(), to)
            .unwrap_or(StepStatus::Pending);
        assert!(
            from == to || is_legal_step_transition(from, to),
            "I6: {step} {from:?} to {to:?}"
        );
        let log = self
            .attempts
            .entry((event.run.clone(), step.to_string(), *attempt))
            .or_default();
        match event.kind {
            EventKind::StepCompleted
            | EventKind::StepFailed
            | EventKind::StepRetrying
            | EventKind::StepSkipped => log.results += 1,
            EventKind::StepTimedOut => log.timed_out += 1,
            EventKind::StepCancelled => log.cancelled += 1,
            _ => {}
        }
        assert!(log.results <= 1, "I4: two results of {step}/{attempt}");
    }

    /// What must hold when everything has ended.
    fn close(&self, committed: &BTreeMap<RunId, RunState>) {
        for (id, starts) in &self.started {
            assert_eq!(*starts, 1, "I1: {id} was acknowledged as new once");
            assert!(
                committed.contains_key(id),
                "I1: an acknowledged start is a run"
            );
        }
        assert_eq!(
            self.started.len(),
            committed.len(),
            "I1: a run has an acknowledged start"
        );
        for run in committed.values() {
            self.close_run(run);
        }
        for (key, log) in self
            .attempts
            .iter()
            .filter(|((_, _, attempt), _)| *attempt > 0)
        {
            assert_eq!(log.dispatched, 1, "{key:?} was dispatched once: {log:?}");
            let given_up = log.timed_out > 0 || (log.cancelled > 0 && log.results == 0);
            assert_eq!(log.cancel_tasks, u32::from(given_up), "{key:?} {log:?}");
            assert!(
                log.results + log.cancelled >= 1,
                "{key:?} has no end: {log:?}"
            );
        }
    }

    fn close_run(&self, run: &RunState) {
        let told = &self.runs[&run.id];
        assert!(run.status.is_ended(), "I7: {} has ended", run.id);
        assert_eq!(told.ends, 1, "one end");
        assert_eq!(told.status, run.status, "the history folds to the state");
        assert_eq!(told.sequence, run.sequence);
        for (place, step) in run.steps.iter().enumerate() {
            assert_eq!(
                told.steps[&format!("s{place}")],
                step.status,
                "the history folds to the state"
            );
            assert!(
                step.deadline.is_none() && step.heartbeat_due.is_none() && step.retry_at.is_none()
            );
            assert!(step.status.is_ended() && step.ended_at.is_some());
        }
        assert!(run.deadline.is_none() && run.ended_at.is_some());
        assert_eq!(run.output.is_some(), run.status == RunStatus::Completed);
        assert_eq!(run.error.is_some(), run.status != RunStatus::Completed);
    }
}

/// In a run that is running, every step that could be taken up was, and the run goes on.
fn nothing_lies_about(run: &RunState, workflow: &Workflow, now: Timestamp) {
    if run.status != RunStatus::Running || run.deadline.is_some_and(|deadline| deadline <= now) {
        return;
    }
    for (step, state) in workflow.steps.iter().zip(&run.steps) {
        let waits = step
            .depends_on
            .iter()
            .any(|&on| !run.steps[on].status.is_ended());
        assert!(
            state.status != StepStatus::Pending || waits,
            "{} of {} lies about",
            step.id,
            run.id
        );
    }
    assert!(
        run.steps.iter().any(|step| !step.status.is_ended()),
        "{} has no end",
        run.id
    );
}

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
