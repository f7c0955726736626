//! What comes in. Records are JSON objects, or Avro where they say so.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Deserialize;
use serde::de::Error as _;

use super::avro_input;
use crate::model::{
    Command, Failure, Json, Matched, Order, Provenance, Reply, ReplyStatus, RunId, Selected,
    SignalId, SignalName, Start, TaskId, class,
};

/// Why a record cannot be read: the class and message of its dead letter.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Unreadable {
    pub class: &'static str,
    pub message: String,
}

/// The class of a record that is not what its topic holds.
pub const MALFORMED: &str = "malformed";

pub(super) fn unreadable(message: impl Into<String>) -> Unreadable {
    Unreadable {
        class: MALFORMED,
        message: message.into(),
    }
}

/// What is read of a list would be its elements in an order that nobody has promised.
fn object(value: &[u8]) -> Result<&[u8], serde_json::Error> {
    match value.trim_ascii_start() {
        [b'[', ..] => Err(serde_json::Error::custom(
            "a list, where an object is expected",
        )),
        _ => Ok(value),
    }
}

/// All that a command may hold. The closed types of `model` cannot be read directly: serde
/// buffers tagged values, and a JSON text does not survive that.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct WireCommand<'a> {
    #[serde(rename = "type", borrow)]
    pub kind: Cow<'a, str>,
    #[serde(alias = "workflow_id", borrow, default)]
    pub run_id: Option<Cow<'a, str>>,
    #[serde(default)]
    pub workflow: Option<String>,
    #[serde(default)]
    pub version: Option<u32>,
    #[serde(default)]
    pub input: Option<Json>,
    #[serde(default)]
    pub tags: Option<BTreeMap<String, String>>,
    #[serde(default)]
    pub priority: Option<i32>,
    #[serde(default)]
    pub reason: Option<String>,
    #[serde(default)]
    pub name: Option<String>,
    #[serde(default)]
    pub data: Option<Json>,
    #[serde(default)]
    pub id: Option<String>,
    #[serde(default)]
    pub after: Option<RunId>,
    #[serde(default)]
    pub task_id: Option<String>,
    #[serde(default)]
    pub output: Option<Json>,
    #[serde(default)]
    pub provenance: Option<Provenance>,
    #[serde(default)]
    pub depth: Option<u32>,
}

impl WireCommand<'_> {
    /// The first field that is there though the type has no such field.
    fn stranger(&self, allowed: &[&str]) -> Option<&'static str> {
        let present = [
            ("workflow", self.workflow.is_some()),
            ("version", self.version.is_some()),
            ("input", self.input.is_some()),
            ("tags", self.tags.is_some()),
            ("priority", self.priority.is_some()),
            ("reason", self.reason.is_some()),
            ("name", self.name.is_some()),
            ("data", self.data.is_some()),
            ("id", self.id.is_some()),
            ("after", self.after.is_some()),
            ("task_id", self.task_id.is_some()),
            ("output", self.output.is_some()),
            ("provenance", self.provenance.is_some()),
            ("depth", self.depth.is_some()),
        ];
        let stranger =
            |(name, is_there): &(&'static str, bool)| *is_there && !allowed.contains(name);
        present
            .iter()
            .find(|field| stranger(field))
            .map(|(name, _)| *name)
    }

    fn check(&self, allowed: &[&str]) -> Result<(), Unreadable> {
        match self.stranger(allowed) {
            None => Ok(()),
            Some(name) => Err(unreadable(format!(
                "a command of type `{}` has no field `{name}`; it may have `run_id` and: {}",
                self.kind,
                allowed.join(", ")
            ))),
        }
    }
}

/// A record of `commands`.
#[derive(Clone, Debug, PartialEq)]
pub enum Commanded {
    /// For one run: the body's `run_id`, else the key.
    One(Command),
    /// For the runs of the record's partition that have its `tags`.
    Selected(Selected),
}

/// Reads a record of `commands`.
pub fn command(
    key: Option<&[u8]>,
    value: Option<&[u8]>,
    content_type: Option<&[u8]>,
) -> Result<Commanded, Unreadable> {
    let value = value.ok_or_else(|| unreadable("a command without a value"))?;
    let wire: WireCommand<'_> = match avro_input::is_avro(value, content_type) {
        true => avro_input::command(value, content_type)?,
        false => object(value)
            .and_then(serde_json::from_slice)
            .map_err(|error| unreadable(format!("not a command in JSON: {error}")))?,
    };
    if wire.kind == "start" {
        return start(wire, key).map(|start| Commanded::One(Command::Start(start)));
    }
    if wire.kind == "match" {
        return matched(wire).map(|matched| Commanded::One(Command::Match(matched)));
    }
    let run_id = wire.run_id.as_deref().map(str::to_owned);
    let after = wire.after.clone();
    let workflow = wire.workflow.clone();
    let depth = wire.depth.unwrap_or(0);
    let (order, tags) = order(wire)?;
    match (tags, run_id) {
        (None, _) if after.is_some() => Err(unreadable(
            "`after` goes with `tags`, and the command has none",
        )),
        (None, _) if workflow.is_some() => Err(unreadable(
            "`workflow` goes with `tags` where it is no start, and the command has none",
        )),
        (None, run) => {
            let run = self::run_id(run.as_deref(), key)?;
            Ok(Commanded::One(order.to(run, depth)))
        }
        (Some(tags), _) if tags.is_empty() => Err(unreadable(
            "`tags` names no tag; name those of the runs that are meant, or a `run_id`",
        )),
        (Some(_), Some(_)) => Err(unreadable(
            "the command has both a `run_id` and `tags`; name one run, or the tags of several",
        )),
        (Some(tags), None) => Ok(Commanded::Selected(Selected {
            tags,
            workflow,
            order,
            after,
            depth,
        })),
    }
}

fn start(wire: WireCommand<'_>, key: Option<&[u8]>) -> Result<Start, Unreadable> {
    let run_id = run_id(wire.run_id.as_deref(), key)?;
    wire.check(&[
        "workflow",
        "version",
        "input",
        "tags",
        "priority",
        "provenance",
    ])?;
    let provenance = wire.provenance.map(Provenance::capped);
    if provenance.as_ref().is_some_and(|from| !from.is_plain()) {
        return Err(unreadable(
            "`provenance.key` is an object of the names that the rule correlates by, and partitions \
             and offsets are not negative",
        ));
    }
    let workflow = wire
        .workflow
        .ok_or_else(|| unreadable("a start without `workflow`"))?;
    Ok(Start {
        run_id,
        workflow,
        version: wire.version,
        input: wire.input,
        tags: wire.tags.unwrap_or_default(),
        priority: wire.priority.unwrap_or(0),
        provenance,
    })
}

/// What the patterns' stage found for a step; the attempt names its run.
fn matched(wire: WireCommand<'_>) -> Result<Matched, Unreadable> {
    wire.check(&["task_id", "output"])?;
    let attempt = wire.task_id.as_deref().and_then(TaskId::parse);
    Ok(Matched {
        attempt: attempt
            .ok_or_else(|| unreadable("a match without the `task_id` of an attempt"))?,
        output: wire.output,
    })
}

/// What is to be done, and the tags of the runs that are meant, where there are any.
type OrderAndTags = (Order, Option<BTreeMap<String, String>>);

fn order(wire: WireCommand<'_>) -> Result<OrderAndTags, Unreadable> {
    let allowed: &[&str] = match wire.kind.as_ref() {
        "pause" | "resume" | "cancel" => &["tags", "workflow", "after", "reason", "depth"],
        "signal" => &["tags", "workflow", "after", "name", "data", "id", "depth"],
        other => {
            return Err(unreadable(format!(
                "`{other}` is no type of a command; known: start, pause, resume, cancel, signal"
            )));
        }
    };
    wire.check(allowed)?;
    let reason = wire.reason;
    let order = match wire.kind.as_ref() {
        "pause" => Order::Pause { reason },
        "resume" => Order::Resume { reason },
        "cancel" => Order::Cancel { reason },
        _ => {
            let name = wire
                .name
                .ok_or_else(|| unreadable("a signal without `name`"))?;
            let wrong = |error: crate::model::ids::InvalidSignal| unreadable(error.to_string());
            let id = wire.id.as_deref().map(SignalId::parse).transpose();
            Order::Signal {
                name: SignalName::parse(&name).map_err(wrong)?,
                data: wire.data,
                id: id.map_err(wrong)?,
            }
        }
    };
    Ok((order, wire.tags))
}

/// All that a reply may hold; what else is there is the agent's own business.
#[derive(Deserialize)]
pub(super) struct WireReply<'a> {
    #[serde(alias = "workflow_id", borrow, default)]
    pub run_id: Option<Cow<'a, str>>,
    pub step_id: String,
    #[serde(default)]
    pub task_id: Option<String>,
    #[serde(default)]
    pub attempt: Option<u32>,
    #[serde(default)]
    pub epoch: Option<u32>,
    #[serde(borrow)]
    pub status: Cow<'a, str>,
    #[serde(default)]
    pub output: Option<Json>,
    #[serde(default)]
    pub error: Option<WireFailure>,
    #[serde(default)]
    pub progress: Option<f64>,
    #[serde(default)]
    pub note: Option<String>,
}

#[derive(Deserialize, Default)]
pub(super) struct WireFailure {
    #[serde(default)]
    pub class: Option<String>,
    #[serde(default)]
    pub message: Option<String>,
    #[serde(default)]
    pub retryable: Option<bool>,
    #[serde(default)]
    pub details: Option<Json>,
}

/// Reads a record of `replies`. The run is the body's `run_id`, else the key.
pub fn reply(
    key: Option<&[u8]>,
    value: Option<&[u8]>,
    content_type: Option<&[u8]>,
) -> Result<Reply, Unreadable> {
    let value = value.ok_or_else(|| unreadable("a reply without a value"))?;
    let wire: WireReply<'_> = match avro_input::is_avro(value, content_type) {
        true => avro_input::reply(value, content_type)?,
        false => object(value)
            .and_then(serde_json::from_slice)
            .map_err(|error| unreadable(format!("not a reply in JSON: {error}")))?,
    };
    let run_id = run_id(wire.run_id.as_deref(), key)?;
    let status = match wire.status.as_ref() {
        "completed" => ReplyStatus::Completed {
            output: wire.output.unwrap_or_default(),
        },
        "failed" => {
            let error = wire.error.unwrap_or_default();
            ReplyStatus::Failed {
                error: Failure {
                    class: error.class.unwrap_or_else(|| class::ERROR.to_owned()),
                    message: error.message.unwrap_or_default(),
                    retryable: error.retryable,
                    details: error.details,
                    step: None,
                },
            }
        }
        "progress" => ReplyStatus::Progress {
            progress: wire.progress,
            note: wire.note,
        },
        "heartbeat" => ReplyStatus::Heartbeat,
        other => {
            return Err(unreadable(format!(
                "`{other}` is no status of a reply; known: completed, failed, progress, heartbeat"
            )));
        }
    };
    Ok(Reply {
        run_id,
        step_id: wire.step_id,
        task_id: wire.task_id,
        attempt: wire.attempt,
        epoch: wire.epoch,
        status,
    })
}

fn run_id(in_body: Option<&str>, key: Option<&[u8]>) -> Result<RunId, Unreadable> {
    let text = match (in_body, key) {
        (Some(text), _) => Cow::Borrowed(text),
        (None, Some(key)) => String::from_utf8_lossy(key),
        (None, None) => return Err(unreadable("neither a `run_id` nor a key names the run")),
    };
    RunId::parse(&text).map_err(|error| unreadable(error.to_string()))
}

#[cfg(test)]
mod tests;
