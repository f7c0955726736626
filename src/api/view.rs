//! A run and its steps as the outside sees them: every field always there, null where unknown.
//! Pure: made from what a partition remembers and the definition that the run pins.

use std::collections::BTreeMap;

use serde::Serialize;

use crate::model::{
    Contributor, Failure, Json, RunId, RunState, RunStatus, SignalId, SignalName, StepState,
    StepStatus, TaskId, Timestamp, WaitingSignal,
};
use crate::workflow::Workflow;
use crate::workflow::program::{Step, StepKind};

/// The run as `GET /v1/runs/{id}` answers it.
#[derive(Debug, Serialize)]
pub struct RunView<'a> {
    pub id: &'a RunId,
    pub workflow: &'a str,
    pub version: u32,
    pub status: RunStatus,
    /// Ended steps among all steps, cut to two digits; 1 once the run is completed.
    pub progress: f64,
    pub input: &'a Json,
    pub output: Option<&'a Json>,
    pub error: Option<RunErrorView<'a>>,
    pub tags: &'a BTreeMap<String, String>,
    pub priority: i32,
    pub created_at: Timestamp,
    pub started_at: Option<Timestamp>,
    pub ended_at: Option<Timestamp>,
    pub revision: u64,
    pub epoch: u32,
    pub waiting_for: Vec<Waiting<'a>>,
    /// What no step has taken yet, oldest first.
    pub signals: Vec<SignalView<'a>>,
    pub provenance: ProvenanceView<'a>,
    pub steps: Vec<StepView<'a>>,
}

/// Why a run failed.
#[derive(Debug, Serialize)]
pub struct RunErrorView<'a> {
    pub class: &'a str,
    pub message: &'a str,
    /// The step that failed it; null where none did (a run over its timeout).
    pub step: Option<&'a str>,
    pub details: Option<&'a Json>,
}

/// Why an attempt or a step failed.
#[derive(Debug, Serialize)]
pub struct StepErrorView<'a> {
    pub class: &'a str,
    pub message: &'a str,
    pub retryable: Option<bool>,
    pub details: Option<&'a Json>,
}

/// What made the run start: a request, or the match of a rule, which the members after the first
/// tell of.
#[derive(Debug, Serialize)]
pub struct ProvenanceView<'a> {
    /// W3C `traceparent` of the start.
    pub traceparent: Option<&'a str>,
    /// `<name>@<version>`; null where no rule started the run.
    pub rule: Option<&'a str>,
    pub key: Option<&'a Json>,
    /// Event time of the match.
    pub at: Option<Timestamp>,
    pub depth: Option<u32>,
    /// The records of the match, each with its place.
    pub events: &'a [Contributor],
    /// Records of the match that are not among them.
    pub more: u64,
}

/// One thing that the run waits for.
#[derive(Debug, Serialize)]
pub struct Waiting<'a> {
    /// `queue` (a place under `max_concurrent_runs`), `resume` (a person), `task` (an agent's
    /// answer), `signal`, `pattern` or `retry` (the end of a backoff).
    pub kind: &'static str,
    pub step: Option<&'a str>,
    /// The name of the signal that is awaited.
    pub signal: Option<&'a str>,
    /// What the events of the pattern must have that is awaited: a list.
    pub key: Option<&'a Json>,
    pub agent: Option<&'a str>,
    pub task_id: Option<String>,
    pub since: Option<Timestamp>,
    /// When the waiting ends by itself: the next attempt, or the timeout of the open one.
    pub until: Option<Timestamp>,
}

/// A signal that waits for its step.
#[derive(Debug, Serialize)]
pub struct SignalView<'a> {
    pub name: &'a SignalName,
    pub id: Option<&'a SignalId>,
    pub received_at: Timestamp,
}

/// One step; `id`, `kind` and `agent` are null where the definition is not there any more.
#[derive(Debug, Serialize)]
pub struct StepView<'a> {
    pub id: Option<&'a str>,
    pub kind: Option<&'static str>,
    pub agent: Option<&'a str>,
    pub status: StepStatus,
    pub attempt: u32,
    /// Of the last attempt that was handed out.
    pub task_id: Option<String>,
    pub scheduled_at: Option<Timestamp>,
    pub started_at: Option<Timestamp>,
    pub ended_at: Option<Timestamp>,
    /// When a retry that waits is handed out.
    pub retry_at: Option<Timestamp>,
    /// As the agent last said, 0 to 1.
    pub progress: Option<f64>,
    pub output: Option<&'a Json>,
    pub error: Option<StepErrorView<'a>>,
}

/// Makes the view. `workflow` is the version that the run pins, where it is still known.
pub fn run_view<'a>(run: &'a RunState, workflow: Option<&'a Workflow>) -> RunView<'a> {
    let step_of = |index: usize| workflow.and_then(|workflow| workflow.steps.get(index));
    let steps: Vec<StepView<'a>> = run
        .steps
        .iter()
        .enumerate()
        .map(|(index, state)| step_view(run, state, step_of(index)))
        .collect();
    RunView {
        id: &run.id,
        workflow: &run.workflow,
        version: run.version,
        status: run.status,
        progress: progress(run),
        input: &run.input,
        output: run.output.as_ref(),
        error: run.error.as_ref().map(|error| RunErrorView {
            class: &error.class,
            message: &error.message,
            step: error.step.as_deref(),
            details: error.details.as_ref(),
        }),
        tags: &run.tags,
        priority: run.priority,
        created_at: run.created_at,
        started_at: run.started_at,
        ended_at: run.ended_at,
        revision: run.revision,
        epoch: run.epoch,
        waiting_for: waiting_for(run, &steps, workflow),
        signals: run.inbox.waiting.iter().map(signal_view).collect(),
        provenance: provenance_view(run),
        steps,
    }
}

fn provenance_view(run: &RunState) -> ProvenanceView<'_> {
    let of_match = run.provenance.as_deref();
    ProvenanceView {
        traceparent: run.traceparent.as_deref(),
        rule: of_match.map(|of| of.rule.as_str()),
        key: of_match.map(|of| &of.key),
        at: of_match.map(|of| of.at),
        depth: of_match.map(|of| of.depth),
        events: of_match.map_or(&[], |of| &of.events),
        more: of_match.map_or(0, |of| of.more),
    }
}

fn progress(run: &RunState) -> f64 {
    if run.status == RunStatus::Completed {
        return 1.0;
    }
    let ended = run
        .steps
        .iter()
        .filter(|step| step.status.is_ended())
        .count();
    match run.steps.len() {
        0 => 0.0,
        // Whole hundredths, cut and not rounded: 1 is kept for what is done.
        all => f64::from(u32::try_from(ended * 100 / all).unwrap_or(100)) / 100.0,
    }
}

fn step_view<'a>(run: &RunState, state: &'a StepState, step: Option<&'a Step>) -> StepView<'a> {
    let (kind, agent) = match step.map(|step| &step.kind) {
        Some(StepKind::Agent { agent, .. }) => (Some("agent"), Some(agent.as_ref())),
        Some(StepKind::Switch { .. }) => (Some("switch"), None),
        Some(StepKind::Await { .. }) => (Some("await"), None),
        Some(StepKind::AwaitPattern { .. }) => (Some("await_pattern"), None),
        None => (None, None),
    };
    let id = step.map(|step| step.id.as_ref());
    let task_id = match (id, agent) {
        (Some(id), Some(_)) if state.attempt > 0 => {
            let mut text = String::new();
            TaskId::write(&mut text, &run.id, id, run.epoch, state.attempt);
            Some(text)
        }
        _ => None,
    };
    StepView {
        id,
        kind,
        agent,
        status: state.status,
        attempt: state.attempt,
        task_id,
        scheduled_at: state.scheduled_at,
        started_at: state.started_at,
        ended_at: state.ended_at,
        retry_at: state.retry_at,
        progress: state.progress,
        output: state.output.as_ref(),
        error: state.error.as_ref().map(step_error),
    }
}

fn signal_view(signal: &WaitingSignal) -> SignalView<'_> {
    SignalView {
        name: &signal.name,
        id: signal.id.as_ref(),
        received_at: signal.received_at,
    }
}

fn step_error(error: &Failure) -> StepErrorView<'_> {
    StepErrorView {
        class: &error.class,
        message: &error.message,
        retryable: error.retryable,
        details: error.details.as_ref(),
    }
}

fn waiting_for<'a>(
    run: &'a RunState,
    steps: &[StepView<'a>],
    workflow: Option<&'a Workflow>,
) -> Vec<Waiting<'a>> {
    let of_run = |kind, since| Waiting {
        kind,
        step: None,
        signal: None,
        key: None,
        agent: None,
        task_id: None,
        since,
        until: None,
    };
    let mut waiting = Vec::new();
    match run.status {
        RunStatus::Pending => return vec![of_run("queue", Some(run.created_at))],
        RunStatus::Paused => waiting.push(of_run("resume", None)),
        RunStatus::Running => {}
        RunStatus::Completed | RunStatus::Failed | RunStatus::Cancelled => return waiting,
    }
    let awaited = |place: usize| match workflow.and_then(|workflow| workflow.steps.get(place)) {
        Some(Step {
            kind: StepKind::Await { signal, .. },
            ..
        }) => Some(signal.as_str()),
        _ => None,
    };
    for (place, (view, state)) in steps.iter().zip(&run.steps).enumerate() {
        let (kind, since, until) = match state.status {
            status if status.is_open() => (
                "task",
                state.scheduled_at,
                [state.deadline, state.heartbeat_due]
                    .into_iter()
                    .flatten()
                    .min(),
            ),
            _ if run.watched(place).is_some() => ("pattern", state.scheduled_at, state.deadline),
            _ if state.is_awaiting() => ("signal", state.scheduled_at, state.deadline),
            StepStatus::Waiting => ("retry", state.scheduled_at, state.retry_at),
            _ => continue,
        };
        let task_id = if kind == "task" {
            view.task_id.clone()
        } else {
            None
        };
        waiting.push(Waiting {
            kind,
            step: view.id,
            signal: awaited(place).filter(|_| kind == "signal"),
            key: run.watched(place),
            agent: view.agent,
            task_id,
            since,
            until,
        });
    }
    waiting
}
