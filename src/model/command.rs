//! What comes in on `commands` (key = run id): anyone may start, steer or signal a run.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Json, RunId};

/// One record of `commands`. Read by `codec`: serde buffers a tagged value before it knows the
/// type, and a [`Json`] does not survive that.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Command {
    Start(Start),
    Pause(Verb),
    Resume(Verb),
    Cancel(Verb),
    Signal(Signal),
}

/// Starts a run. Starting the same id with the same content again is one run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Start {
    pub run_id: RunId,
    pub workflow: String,
    /// Absent: the highest version applied when the start is carried out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<Json>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<String, String>,
    /// Higher starts earlier where runs queue; 0 by default.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub priority: i32,
}

fn is_zero(value: &i32) -> bool {
    *value == 0
}

/// Pause, resume or cancel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Verb {
    pub run_id: RunId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// A named signal for a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Signal {
    pub run_id: RunId,
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<Json>,
}

impl Command {
    pub fn run_id(&self) -> &RunId {
        match self {
            Command::Start(start) => &start.run_id,
            Command::Pause(verb) | Command::Resume(verb) | Command::Cancel(verb) => &verb.run_id,
            Command::Signal(signal) => &signal.run_id,
        }
    }
}
