//! What a partition remembers of a run: one entry, rewritten by each transition.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Failure, Inbox, Json, Provenance, RunId, Timestamp};

/// Status of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RunStatus {
    /// Accepted, waiting for a place under `max_concurrent_runs`.
    Pending,
    Running,
    Paused,
    Completed,
    Failed,
    Cancelled,
}

impl RunStatus {
    pub const ALL: [RunStatus; 6] = [
        RunStatus::Pending,
        RunStatus::Running,
        RunStatus::Paused,
        RunStatus::Completed,
        RunStatus::Failed,
        RunStatus::Cancelled,
    ];

    pub fn name(self) -> &'static str {
        match self {
            RunStatus::Pending => "pending",
            RunStatus::Running => "running",
            RunStatus::Paused => "paused",
            RunStatus::Completed => "completed",
            RunStatus::Failed => "failed",
            RunStatus::Cancelled => "cancelled",
        }
    }

    /// Completed, failed or cancelled: nothing happens to it any more.
    pub fn is_ended(self) -> bool {
        matches!(
            self,
            RunStatus::Completed | RunStatus::Failed | RunStatus::Cancelled
        )
    }
}

/// Status of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepStatus {
    Pending,
    /// Its task is on the agent's topic.
    Scheduled,
    /// The agent was heard of (progress or heartbeat).
    Running,
    /// For a retry, a timer, a signal or a person.
    Waiting,
    Completed,
    Failed,
    Skipped,
    Cancelled,
    Compensating,
    Compensated,
}

impl StepStatus {
    pub const ALL: [StepStatus; 10] = [
        StepStatus::Pending,
        StepStatus::Scheduled,
        StepStatus::Running,
        StepStatus::Waiting,
        StepStatus::Completed,
        StepStatus::Failed,
        StepStatus::Skipped,
        StepStatus::Cancelled,
        StepStatus::Compensating,
        StepStatus::Compensated,
    ];

    pub fn name(self) -> &'static str {
        match self {
            StepStatus::Pending => "pending",
            StepStatus::Scheduled => "scheduled",
            StepStatus::Running => "running",
            StepStatus::Waiting => "waiting",
            StepStatus::Completed => "completed",
            StepStatus::Failed => "failed",
            StepStatus::Skipped => "skipped",
            StepStatus::Cancelled => "cancelled",
            StepStatus::Compensating => "compensating",
            StepStatus::Compensated => "compensated",
        }
    }

    /// Nothing happens to it any more (compensation aside).
    pub fn is_ended(self) -> bool {
        matches!(
            self,
            StepStatus::Completed
                | StepStatus::Failed
                | StepStatus::Skipped
                | StepStatus::Cancelled
                | StepStatus::Compensated
        )
    }

    /// An attempt is out with an agent.
    pub fn is_open(self) -> bool {
        matches!(self, StepStatus::Scheduled | StepStatus::Running)
    }
}

/// Everything that a partition remembers of one run. Its timers are in it, so that a transition
/// writes one changelog record and no more; the queue of timers in memory is derived from
/// [`RunState::next_due`].
#[derive(Clone, Debug, PartialEq)]
pub struct RunState {
    pub id: RunId,
    pub workflow: Arc<str>,
    /// The definition version it is pinned to.
    pub version: u32,
    pub status: RunStatus,
    /// What was asked for, to tell an identical start from a conflict.
    pub requested_version: Option<u32>,
    pub input: Json,
    pub tags: BTreeMap<String, String>,
    pub priority: i32,
    pub created_at: Timestamp,
    pub started_at: Option<Timestamp>,
    pub ended_at: Option<Timestamp>,
    /// When the run itself times out.
    pub deadline: Option<Timestamp>,
    pub output: Option<Json>,
    pub error: Option<Failure>,
    /// Raised by each transition; from 1.
    pub revision: u64,
    /// Raised by each rollback; from 0.
    pub epoch: u32,
    /// Number of the last lifecycle event; 0 before the first.
    pub sequence: u64,
    /// W3C `traceparent` of the start, carried into tasks.
    pub traceparent: Option<String>,
    /// In the order of the definition's steps.
    pub steps: Vec<StepState>,
    pub inbox: Inbox,
    /// What the steps wait for that await a pattern; each step at most once.
    pub watches: Vec<WatchedKey>,
    /// The match that started it, where one did.
    pub provenance: Option<Arc<Provenance>>,
    /// Over how many rules what it does came about: that of its start, and of the deepest command
    /// that changed it since.
    pub depth: u32,
}

/// What a step that awaits a pattern waits for.
#[derive(Clone, Debug, PartialEq)]
pub struct WatchedKey {
    /// The step's place.
    pub step: usize,
    /// As [`Watch::key`](super::Watch::key).
    pub key: Json,
}

/// One step of a run.
#[derive(Clone, Debug, PartialEq)]
pub struct StepState {
    pub status: StepStatus,
    /// Attempts dispatched so far; 0 before the first.
    pub attempt: u32,
    pub scheduled_at: Option<Timestamp>,
    pub started_at: Option<Timestamp>,
    pub ended_at: Option<Timestamp>,
    /// When the open attempt times out.
    pub deadline: Option<Timestamp>,
    /// When silence of the agent counts as a timeout.
    pub heartbeat_due: Option<Timestamp>,
    /// When a waiting retry is dispatched.
    pub retry_at: Option<Timestamp>,
    pub progress: Option<f64>,
    pub output: Option<Json>,
    pub error: Option<Failure>,
}

impl Default for StepState {
    fn default() -> Self {
        Self {
            status: StepStatus::Pending,
            attempt: 0,
            scheduled_at: None,
            started_at: None,
            ended_at: None,
            deadline: None,
            heartbeat_due: None,
            retry_at: None,
            progress: None,
            output: None,
            error: None,
        }
    }
}

impl StepState {
    /// It waits for a signal or a pattern (and not for its next attempt).
    pub fn is_awaiting(&self) -> bool {
        self.status == StepStatus::Waiting && self.retry_at.is_none()
    }
}

impl RunState {
    /// The earliest instant at which something falls due; `None` where nothing will (ended runs,
    /// paused and pending ones).
    pub fn next_due(&self) -> Option<Timestamp> {
        if self.status != RunStatus::Running {
            return None;
        }
        let of_steps = self
            .steps
            .iter()
            .flat_map(|step| [step.deadline, step.heartbeat_due, step.retry_at]);
        std::iter::once(self.deadline)
            .chain(of_steps)
            .flatten()
            .min()
    }

    /// What the step at this place waits for, where it awaits a pattern.
    pub fn watched(&self, step: usize) -> Option<&Json> {
        let watch = self.watches.iter().find(|watch| watch.step == step);
        watch.map(|watch| &watch.key)
    }

    /// Ended steps over all steps, from 0 to 1.
    pub fn progress(&self) -> f64 {
        if self.steps.is_empty() {
            return if self.status.is_ended() { 1.0 } else { 0.0 };
        }
        let ended = self
            .steps
            .iter()
            .filter(|step| step.status.is_ended())
            .count();
        ended as f64 / self.steps.len() as f64
    }
}
