//! What comes in on `commands` (key = run id): anyone may start, steer or signal a run.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Json, Provenance, RunId, SignalId, SignalName, TaskId};

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
    Match(Matched),
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
    /// The match that started it. Starts that differ in it alone are the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provenance: Option<Provenance>,
}

impl Start {
    /// The tags as JSON, to be measured; `None` where there are none.
    pub fn tags_json(&self) -> Option<Json> {
        let tags = Some(&self.tags).filter(|tags| !tags.is_empty())?;
        Some(Json::from_serialize(tags).expect("texts by text are JSON"))
    }
}

fn is_zero<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Pause, resume or cancel.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Verb {
    pub run_id: RunId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Over how many rules it came about; 0 where none gave it.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub depth: u32,
}

/// A named signal for a run.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Signal {
    pub run_id: RunId,
    pub name: SignalName,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub data: Option<Json>,
    /// A signal with the id of an earlier one is that one, sent again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<SignalId>,
    /// Over how many rules it came about; 0 where none gave it.
    #[serde(skip_serializing_if = "is_zero")]
    pub depth: u32,
}

/// The pattern that a step waits for was found: comes from the stage of the patterns.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Matched {
    /// Who waits.
    #[serde(rename = "task_id")]
    pub attempt: TaskId,
    /// The step's output: an object of `matches`, `key` and `at`. Absent: it is larger than a record
    /// can be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output: Option<Json>,
}

/// An order for every run with all of these tags that has not ended, among those of the partition
/// that the record lies in: whoever sends one sends a copy to every partition of `commands`.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Selected {
    /// Never empty.
    pub tags: BTreeMap<String, String>,
    /// Only runs of this workflow, in whatever version.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workflow: Option<String>,
    #[serde(flatten)]
    pub order: Order,
    /// Only runs whose ids come after this one: the rest of an order that is carried out in
    /// portions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after: Option<RunId>,
    /// Over how many rules it came about; 0 where none gave it.
    #[serde(skip_serializing_if = "is_zero")]
    pub depth: u32,
}

/// A command less the run that it is for.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Order {
    Pause {
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
    Resume {
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
    Cancel {
        #[serde(skip_serializing_if = "Option::is_none")]
        reason: Option<String>,
    },
    Signal {
        name: SignalName,
        #[serde(skip_serializing_if = "Option::is_none")]
        data: Option<Json>,
        #[serde(skip_serializing_if = "Option::is_none")]
        id: Option<SignalId>,
    },
}

impl Order {
    /// The command for one run, which came about over `depth` rules.
    pub fn to(self, run_id: RunId, depth: u32) -> Command {
        let verb = |run_id, reason| Verb {
            run_id,
            reason,
            depth,
        };
        match self {
            Order::Pause { reason } => Command::Pause(verb(run_id, reason)),
            Order::Resume { reason } => Command::Resume(verb(run_id, reason)),
            Order::Cancel { reason } => Command::Cancel(verb(run_id, reason)),
            Order::Signal { name, data, id } => Command::Signal(Signal {
                run_id,
                name,
                data,
                id,
                depth,
            }),
        }
    }
}

impl Command {
    pub fn run_id(&self) -> &RunId {
        match self {
            Command::Start(start) => &start.run_id,
            Command::Pause(verb) | Command::Resume(verb) | Command::Cancel(verb) => &verb.run_id,
            Command::Signal(signal) => &signal.run_id,
            Command::Match(matched) => &matched.attempt.run,
        }
    }
}
