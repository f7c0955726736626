//! What goes out on `tasks.<agent>`: one record per attempt, and cancellations.

use serde::{Deserialize, Serialize};

use super::{Json, RunId, Timestamp};

/// One attempt of one step, for an agent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Task {
    pub task_id: String,
    pub run_id: RunId,
    pub workflow: String,
    pub version: u32,
    pub step_id: String,
    pub agent: String,
    pub attempt: u32,
    pub epoch: u32,
    /// What to do; always there, `{}` where the definition has none.
    pub task: Json,
    /// What to do it with; always there, `{}` where the definition has none.
    pub inputs: Json,
    /// When this attempt times out; null without a timeout.
    pub deadline: Option<Timestamp>,
}

/// Tells an agent that an open attempt was given up: `{"type":"cancel","task_id",…}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct CancelTask {
    /// Always `cancel`.
    #[serde(rename = "type")]
    pub kind: String,
    pub task_id: String,
    pub run_id: RunId,
    pub step_id: String,
    pub agent: String,
    pub attempt: u32,
    pub epoch: u32,
    /// Why: `timeout`, `cancelled`, `run_failed`, …
    pub reason: String,
}
