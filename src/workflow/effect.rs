//! What a transition wants done: a closed list, carried out by the runtime in the transaction that
//! commits the change of state (records), or after it (answers). `engine` re-exports it whole.

use crate::model::{
    CancelTask, Event, Failure, Origin, RunId, RunStatus, Selected, Task, Timestamp, Watch, class,
};

/// One thing to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// A record on `tasks.<agent>`, with the run's trace where it has one.
    Dispatch {
        task: Task,
        traceparent: Option<String>,
    },
    /// A cancellation on `tasks.<agent>`.
    CancelTask(CancelTask),
    /// A record on `signals`: a step waits for a pattern.
    Watch(Watch),
    /// A record on `signals`: it waits no more.
    Unwatch(Watch),
    /// A record on `events`.
    Event(Event),
    /// The input's record (or the parked one's, where `origin` is given) goes to `dead-letter`.
    DeadLetter {
        failure: Failure,
        run: Option<String>,
        origin: Option<Origin>,
    },
    /// A record on `commands` of this very partition: the rest of an order for many runs.
    Continue(Selected),
    /// A reply that changes nothing, to be counted.
    Ignored(IgnoredReply),
    /// A signal that changes nothing, to be counted.
    IgnoredSignal(IgnoredSignal),
    /// Something of this run is due, but the definition version that it is pinned to is not to be
    /// found; nothing was changed. Tick the run again at `until`: by then the version may be back.
    Held { run: RunId, until: Timestamp },
    /// The answer to whoever waits for this input; exactly one for each command and reply.
    Answer(Outcome),
}

/// An effect and the input that caused it.
#[derive(Clone, Debug, PartialEq)]
pub struct Emitted {
    /// What `apply` returned for that input; `None`: a pending run was admitted at the end of the
    /// batch.
    pub input: Option<usize>,
    pub effect: Effect,
}

/// Effects of one batch in the order in which they came about.
#[derive(Debug, Default)]
pub struct Outbox {
    /// The input that is being applied.
    pub input: Option<usize>,
    pub emitted: Vec<Emitted>,
}

impl Outbox {
    pub fn push(&mut self, effect: Effect) {
        self.emitted.push(Emitted {
            input: self.input,
            effect,
        });
    }
}

/// Why a reply changes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum IgnoredReply {
    /// Of an attempt before the step's last.
    StaleAttempt,
    StaleEpoch,
    /// Of an attempt or epoch that never was.
    Future,
    UnknownStep,
    /// The step has never been dispatched.
    NotScheduled,
    WrongTaskId,
    /// The run has ended.
    RunEnded,
    /// The step has ended or is waiting: this attempt was answered, or given up, before.
    Duplicate,
}

impl IgnoredReply {
    pub const ALL: [IgnoredReply; 8] = [
        IgnoredReply::StaleAttempt,
        IgnoredReply::StaleEpoch,
        IgnoredReply::Future,
        IgnoredReply::UnknownStep,
        IgnoredReply::NotScheduled,
        IgnoredReply::WrongTaskId,
        IgnoredReply::RunEnded,
        IgnoredReply::Duplicate,
    ];

    /// The `reason` label of `partita_replies_ignored_total`.
    pub fn reason(self) -> &'static str {
        match self {
            IgnoredReply::StaleAttempt => "stale_attempt",
            IgnoredReply::StaleEpoch => "stale_epoch",
            IgnoredReply::Future => "future",
            IgnoredReply::UnknownStep => "unknown_step",
            IgnoredReply::NotScheduled => "not_scheduled",
            IgnoredReply::WrongTaskId => "wrong_task_id",
            IgnoredReply::RunEnded => "run_ended",
            IgnoredReply::Duplicate => "duplicate",
        }
    }
}

/// Why a signal, or a pattern that was found for a step, changes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum IgnoredSignal {
    /// One with its id was taken in before.
    Duplicate,
    RunEnded,
    /// The pattern was found for an attempt that does not wait any more.
    NotAwaited,
}

impl IgnoredSignal {
    /// The `reason` label of `partita_signals_ignored_total`.
    pub fn reason(self) -> &'static str {
        match self {
            IgnoredSignal::Duplicate => "duplicate",
            IgnoredSignal::RunEnded => "run_ended",
            IgnoredSignal::NotAwaited => "not_awaited",
        }
    }
}

/// How a command or reply ended, for whoever asked over HTTP.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// A new run.
    Started,
    /// The same start again; the run stands as it did.
    AlreadyStarted,
    /// The verb or reply changed the run.
    Applied,
    /// The verb already holds; nothing changed.
    AlreadyHolds,
    Refused(Refusal),
}

#[derive(Clone, Debug, PartialEq)]
pub enum Refusal {
    /// The id is taken by a different start.
    Conflict {
        status: RunStatus,
    },
    /// There is no such workflow or version, or the version that the run is pinned to is gone.
    UnknownWorkflow {
        workflow: String,
        version: Option<u32>,
    },
    /// The start's input or tags, or the signal's data.
    PayloadTooLarge {
        what: &'static str,
        bytes: usize,
        limit: usize,
    },
    /// The input does not match the workflow's schema.
    InputInvalid {
        message: String,
    },
    UnknownRun,
    /// The run's status forbids the verb.
    Status {
        status: RunStatus,
    },
    /// The task is not open any more (or never was).
    TaskNotOpen(IgnoredReply),
    /// So many signals wait for their steps already.
    TooManySignals {
        limit: usize,
    },
}

impl Refusal {
    /// The failure that a dead letter carries for it.
    pub fn failure(&self) -> Failure {
        match self {
            Refusal::Conflict { status } => Failure::new(
                "conflict",
                format!(
                    "the run id is taken by a different start; that run is {}",
                    status.name()
                ),
            ),
            Refusal::UnknownWorkflow { workflow, version } => {
                let version = version
                    .map(|version| format!("@{version}"))
                    .unwrap_or_default();
                Failure::new(
                    "unknown_workflow",
                    format!("no workflow `{workflow}{version}` is applied"),
                )
            }
            Refusal::PayloadTooLarge { what, bytes, limit } => Failure::new(
                class::PAYLOAD_TOO_LARGE,
                format!(
                    "the {what} has {bytes} bytes; at most {limit} are allowed (max_payload_bytes)"
                ),
            ),
            Refusal::InputInvalid { message } => Failure::new(
                class::VALIDATION_ERROR,
                format!("the input does not match the workflow's input_schema: {message}"),
            ),
            Refusal::UnknownRun => Failure::new("unknown_run", "there is no run with this id"),
            Refusal::Status { status } => Failure::new(
                "status",
                format!("the run is {}, which forbids this", status.name()),
            ),
            Refusal::TaskNotOpen(reason) => Failure::new(
                "task_not_open",
                format!("the task is not open ({})", reason.reason()),
            ),
            Refusal::TooManySignals { limit } => Failure::new(
                "too_many_signals",
                format!("{limit} signals wait for a step of this run already"),
            ),
        }
    }

    /// Whether the record that is refused is a dead letter where nobody waits for the answer.
    /// A verb that came too late and a reply that lost a race are not: nothing is wrong with them.
    pub fn is_dead_letter(&self) -> bool {
        !matches!(self, Refusal::Status { .. } | Refusal::TaskNotOpen(_))
    }
}
