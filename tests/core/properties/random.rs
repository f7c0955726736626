//! Random workflows and random inputs to them.

use std::collections::BTreeMap;

use proptest::prelude::*;
use serde_json::{Value, json};

use partita::engine::Input;
use partita::model::{
    Command, Failure, Json, Reply, ReplyStatus, RunId, Signal, SignalId, SignalName, Start, Verb,
};

use super::{RUN_TIMEOUT_MS, RUNS};
use crate::world::World;

/// One step of a random workflow; dependencies are bits over the steps before it.
#[derive(Clone, Debug)]
pub struct StepSpec {
    dependencies: u8,
    is_switch: bool,
    awaits: bool,
    when: Option<bool>,
    bad_inputs: bool,
    timeout: Option<u64>,
    heartbeat: Option<u64>,
    attempts: u32,
    on_error: Option<&'static str>,
}

#[derive(Clone, Debug)]
pub enum Op {
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
    Signal {
        run: usize,
        /// Steps wait for one of two.
        name: u8,
        id: Option<u8>,
    },
    Pass {
        millis: u64,
    },
}

#[derive(Clone, Copy, Debug)]
pub enum ReplyKind {
    Completed,
    TooLarge,
    Failed {
        class: &'static str,
        retryable: Option<bool>,
    },
    Progress,
    Heartbeat,
}

pub fn step_spec() -> impl Strategy<Value = StepSpec> {
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
                awaits: switch == 1,
                when,
                bad_inputs: bad == 0,
                timeout,
                heartbeat,
                attempts,
                on_error,
            },
        )
}

pub fn reply_kind() -> impl Strategy<Value = ReplyKind> {
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

pub fn op() -> impl Strategy<Value = Op> {
    // Relative to the step's attempt: 0 the open one, below stale, above of the future.
    let attempt = prop_oneof![3 => Just(None), 4 => Just(Some(0)), 2 => (-2..3_i32).prop_map(Some)];
    prop_oneof![
        2 => (0..RUNS, 0..2_u8).prop_map(|(run, input)| Op::Start { run, input }),
        12 => (0..RUNS, 0..8_usize, attempt, reply_kind())
            .prop_map(|(run, step, attempt, kind)| Op::Reply { run, step, attempt, kind }),
        2 => (0..RUNS, 0..9_u8).prop_map(|(run, verb)| Op::Verb { run, verb }),
        4 => (0..RUNS, 0..2_u8, prop::option::of(0..3_u8))
            .prop_map(|(run, name, id)| Op::Signal { run, name, id }),
        4 => (0_u64..6_000).prop_map(|millis| Op::Pass { millis }),
    ]
}

pub fn workflow_of(specs: &[StepSpec]) -> Value {
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
        } else if spec.awaits {
            step["await"] = format!("n{}", place % 2).into();
            step["retry"] = json!({"max_attempts": spec.attempts, "backoff": {"initial": "500ms"}});
            if let Some(timeout) = spec.timeout {
                step["timeout"] = format!("{timeout}ms").into();
            }
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

pub fn id_of(run: usize) -> RunId {
    RunId::parse(&format!("run-{run}")).expect("a proper id")
}

/// The input of an op as the world stands; `None` for the passing of time.
pub fn input_of(op: &Op, world: &World, steps: usize) -> Option<Input> {
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
            provenance: None,
        })),
        Op::Verb { run, verb } => {
            let verb_record = Verb {
                run_id: id_of(*run),
                reason: None,
                depth: 0,
            };
            command(match verb {
                0..=3 => Command::Pause(verb_record),
                4..=7 => Command::Resume(verb_record),
                _ => Command::Cancel(verb_record),
            })
        }
        Op::Signal { run, name, id } => command(Command::Signal(Signal {
            run_id: id_of(*run),
            name: SignalName::parse(&format!("n{name}")).expect("a proper name"),
            data: Some(json!({"id": id}).into()),
            id: id.map(|id| SignalId::parse(&id.to_string()).expect("a proper id")),
            depth: 0,
        })),
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
