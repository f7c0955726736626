//! What goes out on `events`: the public history of a run, one event a thing that happened.
//! The wire form (CloudEvents 1.0, structured JSON) is made by `codec`.

use std::sync::Arc;

use super::{Failure, Json, Provenance, RunId, Timestamp};

/// One lifecycle event before it is written as a CloudEvent.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    pub run: RunId,
    /// Dense from 1 within the run.
    pub sequence: u64,
    pub time: Timestamp,
    pub workflow: Arc<str>,
    pub version: u32,
    pub kind: EventKind,
    /// The run's or the step's status after the event, as the field's word.
    pub status: &'static str,
    /// The step it is about, where it is about one, and its attempt.
    pub step: Option<(Arc<str>, u32)>,
    pub output: Option<Json>,
    pub error: Option<Failure>,
    /// Verb reasons, progress notes, `progress`, retry times, signals: extra members of `data`, a
    /// JSON object.
    pub extra: Option<Json>,
    /// Of the run, where a rule started it.
    pub provenance: Option<Arc<Provenance>>,
    /// Over how many rules it came about.
    pub depth: u32,
}

/// The closed list of types.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventKind {
    RunStarted,
    RunCompleted,
    RunFailed,
    RunCancelled,
    RunPaused,
    RunResumed,
    /// A signal was taken in, for a step or to wait for one.
    RunSignalled,
    StepScheduled,
    /// It waits for something that is no agent: a signal.
    StepWaiting,
    StepStarted,
    StepProgress,
    StepCompleted,
    StepFailed,
    StepRetrying,
    StepSkipped,
    StepCancelled,
    StepTimedOut,
}

impl EventKind {
    pub const ALL: [EventKind; 17] = [
        EventKind::RunStarted,
        EventKind::RunCompleted,
        EventKind::RunFailed,
        EventKind::RunCancelled,
        EventKind::RunPaused,
        EventKind::RunResumed,
        EventKind::RunSignalled,
        EventKind::StepScheduled,
        EventKind::StepWaiting,
        EventKind::StepStarted,
        EventKind::StepProgress,
        EventKind::StepCompleted,
        EventKind::StepFailed,
        EventKind::StepRetrying,
        EventKind::StepSkipped,
        EventKind::StepCancelled,
        EventKind::StepTimedOut,
    ];

    /// The CloudEvents `type`.
    pub fn name(self) -> &'static str {
        match self {
            EventKind::RunStarted => "partita.run.started",
            EventKind::RunCompleted => "partita.run.completed",
            EventKind::RunFailed => "partita.run.failed",
            EventKind::RunCancelled => "partita.run.cancelled",
            EventKind::RunPaused => "partita.run.paused",
            EventKind::RunResumed => "partita.run.resumed",
            EventKind::RunSignalled => "partita.run.signalled",
            EventKind::StepScheduled => "partita.step.scheduled",
            EventKind::StepWaiting => "partita.step.waiting",
            EventKind::StepStarted => "partita.step.started",
            EventKind::StepProgress => "partita.step.progress",
            EventKind::StepCompleted => "partita.step.completed",
            EventKind::StepFailed => "partita.step.failed",
            EventKind::StepRetrying => "partita.step.retrying",
            EventKind::StepSkipped => "partita.step.skipped",
            EventKind::StepCancelled => "partita.step.cancelled",
            EventKind::StepTimedOut => "partita.step.timed_out",
        }
    }

    /// Whether it ends a run.
    pub fn is_terminal(self) -> bool {
        matches!(
            self,
            EventKind::RunCompleted | EventKind::RunFailed | EventKind::RunCancelled
        )
    }
}
