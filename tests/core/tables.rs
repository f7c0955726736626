//! Runs `tests/workflows/*.yaml`: each file has workflows and scripts; the effects of a script are
//! written as text and compared with the `.golden` file beside it. After a change that is meant:
//! `UPDATE_GOLDEN=1 cargo test --test core tables`, and read the difference.
//!
//! An entry of a script is one input (or `batch: [...]`, several in one transaction):
//!
//! | entry | input |
//! |---|---|
//! | `start: WORKFLOW` | `id` (default `r`), `version`, `input`, `tags`, `priority`, `traceparent`, `provenance` |
//! | `reply: STEP` | completed, with `output` |
//! | `fail: STEP` | failed, with `class`, `message`, `retryable`, `details`; no class: no error object |
//! | `progress: STEP` | with `value`, `note` |
//! | `heartbeat: STEP` | |
//! | `pause:`, `resume:`, `cancel: RUN` | with `reason` |
//! | `signal: RUN` | with `name`, `data`, `signal_id` |
//! | `found: STEP` | the pattern that it waits for, with `output`, and `attempt`, else the first |
//! | `select: TAGS` | `order: VERB` (or `signal`) for every run that has these tags, with `after` |
//! | `tick: true` | nothing but the passing of time |
//! | `forget: WORKFLOW`, `remember: WORKFLOW` | takes its versions away, gives them back |
//!
//! Replies take `id` (of the run), `task_id`, `attempt`, `epoch`. Every entry may say `at`
//! (`10s`, `1500ms`), the time since the beginning: timers fire when they are due until then. With
//! `late: true` they do not: the input comes before them, a `tick` fires them all at once.
//! `asked: true`: a caller waits for the answer.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::Deserialize;
use serde_json::Value;

use partita::engine::{Effect, Emitted, EngineConfig, Input};
use partita::model::{
    Command, Event, Failure, Json, Matched, Millis, Order, Reply, ReplyStatus, RunId, RunState,
    Selected, Signal, SignalId, SignalName, Start, Task, TaskId, Timestamp, Verb, Watch,
};
use partita::workflow::Workflow;
use partita::workflow::definition;

use crate::world::{BEGINNING, World, roomy};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    workflows: Vec<Value>,
    scripts: Vec<Script>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Script {
    name: String,
    #[serde(default)]
    limits: Limits,
    script: Vec<Entry>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Limits {
    max_payload_bytes: Option<usize>,
    max_live_runs: Option<usize>,
    max_parked_per_run: Option<usize>,
    max_signals_per_run: Option<usize>,
    max_selected: Option<usize>,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    at: Option<String>,
    #[serde(default)]
    late: bool,
    #[serde(default)]
    asked: bool,
    #[serde(default)]
    batch: Vec<Entry>,
    start: Option<String>,
    version: Option<u32>,
    #[serde(default, deserialize_with = "present")]
    input: Option<Value>,
    #[serde(default)]
    tags: BTreeMap<String, String>,
    #[serde(default)]
    priority: i32,
    provenance: Option<Value>,
    traceparent: Option<String>,
    reply: Option<String>,
    #[serde(default, deserialize_with = "present")]
    output: Option<Value>,
    fail: Option<String>,
    class: Option<String>,
    #[serde(default)]
    message: String,
    retryable: Option<bool>,
    #[serde(default, deserialize_with = "present")]
    details: Option<Value>,
    progress: Option<String>,
    value: Option<f64>,
    note: Option<String>,
    heartbeat: Option<String>,
    pause: Option<String>,
    resume: Option<String>,
    cancel: Option<String>,
    signal: Option<String>,
    name: Option<String>,
    #[serde(default, deserialize_with = "present")]
    data: Option<Value>,
    signal_id: Option<String>,
    found: Option<String>,
    select: Option<BTreeMap<String, String>>,
    /// The workflow of the runs that are selected.
    of: Option<String>,
    order: Option<String>,
    after: Option<String>,
    reason: Option<String>,
    /// Over how many rules the command came about.
    #[serde(default)]
    depth: u32,
    #[serde(default)]
    tick: bool,
    forget: Option<String>,
    remember: Option<String>,
    id: Option<String>,
    task_id: Option<String>,
    attempt: Option<u32>,
    epoch: Option<u32>,
}

/// Tells `null` from absence.
fn present<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

#[test]
fn scripts_give_their_golden_effects() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/workflows");
    let mut files: Vec<PathBuf> = std::fs::read_dir(&folder)
        .expect("tests/workflows is there")
        .map(|entry| entry.expect("it can be listed").path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "yaml")
        })
        .collect();
    files.sort();
    assert!(
        files.len() >= 5,
        "the tables are missing from {}",
        folder.display()
    );
    let mut differing = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(&file).expect("a table is text");
        let got = run_table(&file, &text);
        let golden = file.with_extension("golden");
        let expected = std::fs::read_to_string(&golden).unwrap_or_default();
        if got == expected {
            continue;
        }
        if std::env::var_os("UPDATE_GOLDEN").is_some() {
            std::fs::write(&golden, &got).expect("the golden file can be written");
        } else {
            differing.push(first_difference(&golden, &expected, &got));
        }
    }
    assert!(differing.is_empty(), "{}", differing.join("\n"));
}

fn first_difference(golden: &Path, expected: &str, got: &str) -> String {
    let mut script = "";
    let mut expected_lines = expected.lines();
    for (number, line) in got.lines().enumerate() {
        script = line.strip_prefix("## ").unwrap_or(script);
        let wanted = expected_lines.next();
        if wanted != Some(line) {
            return format!(
                "{}:{}: in `{script}`\n  golden: {}\n  got:    {line}",
                golden.display(),
                number + 1,
                wanted.unwrap_or("(nothing)")
            );
        }
    }
    format!("{}: more is expected than came", golden.display())
}

fn run_table(file: &Path, text: &str) -> String {
    let table: Table =
        serde_saphyr::from_str(text).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let workflows: Vec<Arc<Workflow>> = table.workflows.iter().flat_map(compile).collect();
    let mut out = String::new();
    for script in &table.scripts {
        let _ = writeln!(out, "## {}", script.name);
        run_script(script, &workflows, &mut out);
        out.push('\n');
    }
    out
}

/// JSON is YAML, so one workflow of the table is a document of its own.
pub fn compile(document: &Value) -> Vec<Arc<Workflow>> {
    let text = document.to_string();
    definition::parse(&text, None, &definition::Defaults::default())
        .unwrap_or_else(|violations| panic!("{violations}\nin {text}"))
        .into_iter()
        .map(|definition| definition.workflow)
        .collect()
}

fn run_script(script: &Script, workflows: &[Arc<Workflow>], out: &mut String) {
    let roomy = roomy();
    let config = EngineConfig {
        max_payload_bytes: script
            .limits
            .max_payload_bytes
            .unwrap_or(roomy.max_payload_bytes),
        max_live_runs: script.limits.max_live_runs.unwrap_or(roomy.max_live_runs),
        max_parked_per_run: script
            .limits
            .max_parked_per_run
            .unwrap_or(roomy.max_parked_per_run),
        max_signals_per_run: script
            .limits
            .max_signals_per_run
            .unwrap_or(roomy.max_signals_per_run),
        max_selected: script.limits.max_selected.unwrap_or(roomy.max_selected),
        ..roomy
    };
    let mut world = World::new(config, workflows);
    let mut away: Vec<Arc<Workflow>> = Vec::new();
    for entry in &script.script {
        if let Some(at) = &entry.at {
            let at = BEGINNING + Millis(span(at));
            assert!(
                at >= world.now,
                "{}: time runs backwards at {at}",
                script.name
            );
            if entry.late {
                world.now = at;
            }
            // An input that comes late comes before the timers that are overdue by then.
            let until = if entry.late && !entry.tick {
                BEGINNING
            } else {
                at
            };
            for (time, emitted) in world.pass_until(until) {
                let _ = writeln!(out, "{} timer", since_beginning(time));
                write_emitted(out, &emitted);
            }
        }
        if let Some(name) = &entry.forget {
            away = world.shelf.take(name);
        } else if entry.remember.is_some() {
            away.drain(..)
                .for_each(|workflow| world.shelf.put(workflow));
        } else if !entry.tick {
            let entries = if entry.batch.is_empty() {
                std::slice::from_ref(entry)
            } else {
                &entry.batch
            };
            let words: Vec<String> = entries.iter().map(words_of).collect();
            let _ = writeln!(out, "{} {}", since_beginning(world.now), words.join(" + "));
            let inputs = entries.iter().map(input_of).collect();
            let emitted = world.apply(inputs);
            write_emitted(out, &emitted);
        }
    }
    for run in world.committed.runs.values() {
        write_run(out, run);
    }
    for key in world.committed.parked.keys() {
        let _ = writeln!(out, "= parked for {}", key.run);
    }
}

fn run_id(text: &str) -> RunId {
    RunId::parse(text).expect("a table names proper runs")
}

fn input_of(entry: &Entry) -> Input {
    let verb = |run: &str| Verb {
        run_id: run_id(run),
        reason: entry.reason.clone(),
        depth: entry.depth,
    };
    let command = if let Some(workflow) = &entry.start {
        Command::Start(Start {
            run_id: run_id(entry.id.as_deref().unwrap_or("r")),
            workflow: workflow.clone(),
            version: entry.version,
            input: entry.input.as_ref().map(Json::from),
            tags: entry.tags.clone(),
            priority: entry.priority,
            provenance: entry.provenance.as_ref().map(|provenance| {
                serde_json::from_value(provenance.clone())
                    .expect("a table names a proper provenance")
            }),
        })
    } else if let Some(run) = &entry.pause {
        Command::Pause(verb(run))
    } else if let Some(run) = &entry.resume {
        Command::Resume(verb(run))
    } else if let Some(run) = &entry.cancel {
        Command::Cancel(verb(run))
    } else if let Some(run) = &entry.signal {
        let (name, data, id) = signal_of(entry);
        Command::Signal(Signal {
            run_id: run_id(run),
            name,
            data,
            id,
            depth: entry.depth,
        })
    } else if let Some(step) = &entry.found {
        Command::Match(Matched {
            attempt: TaskId {
                run: run_id(entry.id.as_deref().unwrap_or("r")),
                step: step.clone(),
                epoch: entry.epoch.unwrap_or(0),
                attempt: entry.attempt.unwrap_or(1),
            },
            output: entry.output.as_ref().map(Json::from),
        })
    } else if let Some(tags) = &entry.select {
        let reason = entry.reason.clone();
        let order = match entry.order.as_deref() {
            Some("pause") => Order::Pause { reason },
            Some("resume") => Order::Resume { reason },
            Some("cancel") => Order::Cancel { reason },
            _ => {
                let (name, data, id) = signal_of(entry);
                Order::Signal { name, data, id }
            }
        };
        return Input::Selected(Selected {
            tags: tags.clone(),
            workflow: entry.of.clone(),
            order,
            after: entry.after.as_deref().map(run_id),
            depth: entry.depth,
        });
    } else {
        return Input::Reply(reply_of(entry));
    };
    Input::Command {
        command,
        traceparent: entry.traceparent.clone(),
        caller_waits: entry.asked,
    }
}

fn signal_of(entry: &Entry) -> (SignalName, Option<Json>, Option<SignalId>) {
    let name = entry.name.as_deref().unwrap_or("any");
    let id = entry.signal_id.as_deref();
    (
        SignalName::parse(name).expect("a table names proper signals"),
        entry.data.as_ref().map(Json::from),
        id.map(|id| SignalId::parse(id).expect("a proper id")),
    )
}

fn reply_of(entry: &Entry) -> Reply {
    let (step, status) = if let Some(step) = &entry.reply {
        let output = entry.output.as_ref().map(Json::from).unwrap_or_default();
        (step, ReplyStatus::Completed { output })
    } else if let Some(step) = &entry.fail {
        let error = Failure {
            retryable: entry.retryable,
            details: entry.details.as_ref().map(Json::from),
            ..Failure::new(
                entry.class.as_deref().unwrap_or("error"),
                entry.message.clone(),
            )
        };
        (step, ReplyStatus::Failed { error })
    } else if let Some(step) = &entry.progress {
        (
            step,
            ReplyStatus::Progress {
                progress: entry.value,
                note: entry.note.clone(),
            },
        )
    } else if let Some(step) = &entry.heartbeat {
        (step, ReplyStatus::Heartbeat)
    } else {
        panic!("an entry of a table does nothing");
    };
    Reply {
        run_id: run_id(entry.id.as_deref().unwrap_or("r")),
        step_id: step.clone(),
        task_id: entry.task_id.clone(),
        attempt: entry.attempt,
        epoch: entry.epoch,
        status,
    }
}

fn words_of(entry: &Entry) -> String {
    let tags = entry.select.as_ref().map(|tags| {
        let order = entry.order.as_deref().unwrap_or_default();
        format!("{order} of {tags:?}")
    });
    let named = [
        ("start", &entry.start),
        ("pause", &entry.pause),
        ("resume", &entry.resume),
        ("cancel", &entry.cancel),
        ("signal", &entry.signal),
        ("reply", &entry.reply),
        ("fail", &entry.fail),
        ("progress", &entry.progress),
        ("heartbeat", &entry.heartbeat),
        ("found", &entry.found),
        ("select", &tags),
    ];
    let mut words = named
        .into_iter()
        .find_map(|(verb, name)| name.as_ref().map(|name| format!("{verb} {name}")))
        .expect("every entry is something");
    for (name, value) in [
        ("id", &entry.id),
        ("class", &entry.class),
        ("task_id", &entry.task_id),
        ("name", &entry.name),
        ("signal_id", &entry.signal_id),
        ("after", &entry.after),
    ] {
        if let Some(value) = value {
            let _ = write!(words, " {name}={value}");
        }
    }
    for (name, value) in [
        ("version", entry.version),
        ("attempt", entry.attempt),
        ("epoch", entry.epoch),
    ] {
        if let Some(value) = value {
            let _ = write!(words, " {name}={value}");
        }
    }
    words
}

/// `10s`, `1500ms`, `2m` in milliseconds.
fn span(text: &str) -> u64 {
    let (digits, unit) =
        text.split_at(text.find(|c: char| c.is_alphabetic()).unwrap_or(text.len()));
    let factor = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        other => panic!("`{other}` is no unit of a table"),
    };
    digits.parse::<u64>().expect("a number and a unit") * factor
}

fn since_beginning(time: Timestamp) -> String {
    let millis = time.0 - BEGINNING.0;
    match millis % 1_000 {
        0 => format!("{}s", millis / 1_000),
        _ => format!("{}.{:03}s", millis / 1_000, millis % 1_000),
    }
}

fn write_emitted(out: &mut String, emitted: &[Emitted]) {
    for Emitted { effect, .. } in emitted {
        let line = match effect {
            Effect::Event(event) => event_line(event),
            Effect::Dispatch { task, traceparent } => task_line(task, traceparent.as_deref()),
            Effect::CancelTask(cancel) => {
                assert_eq!(cancel.kind, "cancel");
                format!(
                    "cancel {} of {}: {}",
                    cancel.task_id, cancel.agent, cancel.reason
                )
            }
            Effect::DeadLetter {
                failure,
                run,
                origin,
            } => {
                let kept = if origin.is_some() {
                    " (the parked record)"
                } else {
                    ""
                };
                format!(
                    "dead letter of {}: {}{kept}",
                    run.as_deref().unwrap_or("-"),
                    failure_words(failure)
                )
            }
            Effect::Watch(watch) => watch_line("watch", watch),
            Effect::Unwatch(watch) => watch_line("unwatch", watch),
            Effect::Continue(rest) => format!(
                "goes on: {}",
                serde_json::to_string(rest).expect("an order is JSON")
            ),
            Effect::Ignored(reason) => format!("ignored: {}", reason.reason()),
            Effect::IgnoredSignal(reason) => format!("ignored signal: {}", reason.reason()),
            Effect::Held { run, until } => format!("held {run} until {}", since_beginning(*until)),
            Effect::Answer(outcome) => format!("answer {outcome:?}"),
        };
        let _ = writeln!(out, "    {line}");
    }
}

fn watch_line(what: &str, watch: &Watch) -> String {
    let Watch {
        rule,
        version,
        key,
        attempt,
    } = watch;
    format!("{what} {rule}@{version} {key:?} for {attempt}")
}

fn event_line(event: &Event) -> String {
    let kind = event.kind.name().trim_start_matches("partita.");
    let mut line = format!("{}#{} {kind}", event.run, event.sequence);
    if let Some((step, attempt)) = &event.step {
        let _ = write!(line, " {step}/{attempt}");
    }
    let _ = write!(line, " [{}]", event.status);
    if let Some(output) = &event.output {
        let _ = write!(line, " output={output:?}");
    }
    if let Some(error) = &event.error {
        let _ = write!(line, " error={}", failure_words(error));
    }
    if let Some(extra) = &event.extra {
        let _ = write!(line, " {extra:?}");
    }
    if event.depth > 0 {
        let _ = write!(line, " depth={}", event.depth);
    }
    line
}

fn task_line(task: &Task, traceparent: Option<&str>) -> String {
    let mut line = format!("task {} for {}", task.task_id, task.agent);
    let named = format!(
        "{}.{}.{}.{}",
        task.run_id, task.step_id, task.epoch, task.attempt
    );
    assert_eq!(task.task_id, named, "a task id says what it is of");
    for (name, value) in [("task", &task.task), ("inputs", &task.inputs)] {
        if value.as_str() != "{}" {
            let _ = write!(line, " {name}={value:?}");
        }
    }
    if let Some(deadline) = task.deadline {
        let _ = write!(line, " deadline={}", since_beginning(deadline));
    }
    if let Some(traceparent) = traceparent {
        let _ = write!(line, " traceparent={traceparent}");
    }
    line
}

fn failure_words(failure: &Failure) -> String {
    let mut words = format!("{}({})", failure.class, failure.message);
    if let Some(step) = &failure.step {
        let _ = write!(words, "@{step}");
    }
    if let Some(details) = &failure.details {
        let _ = write!(words, " details={details:?}");
    }
    words
}

fn write_run(out: &mut String, run: &RunState) {
    let _ = write!(
        out,
        "= {} {}@{} {} progress={:.2} revision={}",
        run.id,
        run.workflow,
        run.version,
        run.status.name(),
        run.progress(),
        run.revision
    );
    if let Some(output) = &run.output {
        let _ = write!(out, " output={output:?}");
    }
    if let Some(error) = &run.error {
        let _ = write!(out, " error={}", failure_words(error));
    }
    if let Some(due) = run.next_due() {
        let _ = write!(out, " due={}", since_beginning(due));
    }
    let steps: Vec<String> = run
        .steps
        .iter()
        .map(|step| step.status.name().to_owned())
        .collect();
    let _ = write!(out, " steps={}", steps.join(","));
    let signals: Vec<String> = run
        .inbox
        .waiting
        .iter()
        .map(|signal| format!("{}({:?})", signal.name, signal.data))
        .collect();
    if !signals.is_empty() {
        let _ = write!(out, " signals={}", signals.join(","));
    }
    for watch in &run.watches {
        let _ = write!(
            out,
            " watches={}:{:?}",
            run.steps[watch.step].attempt, watch.key
        );
    }
    out.push('\n');
}
