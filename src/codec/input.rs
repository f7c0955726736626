//! What comes in. Records are JSON objects, or Avro where they say so.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Deserialize;

use super::avro_input;
use crate::model::{Command, Failure, Json, Reply, ReplyStatus, RunId, Signal, Start, Verb, class};

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

/// Reads a record of `commands`. The run is the body's `run_id`, else the key.
pub fn command(
    key: Option<&[u8]>,
    value: Option<&[u8]>,
    content_type: Option<&[u8]>,
) -> Result<Command, Unreadable> {
    let value = value.ok_or_else(|| unreadable("a command without a value"))?;
    let wire: WireCommand<'_> = match avro_input::is_avro(value, content_type) {
        true => avro_input::command(value, content_type)?,
        false => serde_json::from_slice(value)
            .map_err(|error| unreadable(format!("not a command in JSON: {error}")))?,
    };
    let run_id = run_id(wire.run_id.as_deref(), key)?;
    match wire.kind.as_ref() {
        "start" => {
            wire.check(&["workflow", "version", "input", "tags", "priority"])?;
            let workflow = wire
                .workflow
                .ok_or_else(|| unreadable("a start without `workflow`"))?;
            Ok(Command::Start(Start {
                run_id,
                workflow,
                version: wire.version,
                input: wire.input,
                tags: wire.tags.unwrap_or_default(),
                priority: wire.priority.unwrap_or(0),
            }))
        }
        "pause" | "resume" | "cancel" => {
            wire.check(&["reason"])?;
            let verb = Verb {
                run_id,
                reason: wire.reason,
            };
            Ok(match wire.kind.as_ref() {
                "pause" => Command::Pause(verb),
                "resume" => Command::Resume(verb),
                _ => Command::Cancel(verb),
            })
        }
        "signal" => {
            wire.check(&["name", "data"])?;
            let name = wire
                .name
                .ok_or_else(|| unreadable("a signal without `name`"))?;
            Ok(Command::Signal(Signal {
                run_id,
                name,
                data: wire.data,
            }))
        }
        other => Err(unreadable(format!(
            "`{other}` is no type of a command; known: start, pause, resume, cancel, signal"
        ))),
    }
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
        false => serde_json::from_slice(value)
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
mod tests {
    use super::*;

    #[test]
    fn commands_read_what_serde_writes() {
        let run_id = RunId::parse("r-1").unwrap();
        let verb = Verb {
            run_id: run_id.clone(),
            reason: Some("why".into()),
        };
        let start = Start {
            run_id: run_id.clone(),
            workflow: "w".into(),
            version: Some(2),
            input: Some(Json::from_text(r#"{"a":[1,2.5]}"#).unwrap()),
            tags: BTreeMap::from([("k".to_owned(), "v".to_owned())]),
            priority: 3,
        };
        let signal = Signal {
            run_id,
            name: "go".into(),
            data: Some(Json::null()),
        };
        for expected in [
            Command::Start(start),
            Command::Pause(verb.clone()),
            Command::Resume(verb.clone()),
            Command::Cancel(verb),
        ] {
            let bytes = serde_json::to_vec(&expected).unwrap();
            assert_eq!(command(None, Some(&bytes), None), Ok(expected));
        }
        let bytes = serde_json::to_vec(&Command::Signal(signal)).unwrap();
        assert!(matches!(
            command(None, Some(&bytes), None),
            Ok(Command::Signal(_))
        ));
    }

    #[test]
    fn replies_read_what_serde_writes() {
        for status in [
            ReplyStatus::Completed {
                output: Json::from_text("[1]").unwrap(),
            },
            ReplyStatus::Failed {
                error: Failure::new("x", "y"),
            },
            ReplyStatus::Progress {
                progress: Some(0.5),
                note: None,
            },
            ReplyStatus::Heartbeat,
        ] {
            let expected = Reply {
                run_id: RunId::parse("r").unwrap(),
                step_id: "s".into(),
                task_id: Some("t".into()),
                attempt: Some(1),
                epoch: None,
                status,
            };
            let bytes = serde_json::to_vec(&expected).unwrap();
            assert_eq!(reply(None, Some(&bytes), None), Ok(expected));
        }
    }

    #[test]
    fn a_missing_run_id_is_the_key() {
        let body = br#"{"step_id":"s","status":"completed"}"#;
        assert_eq!(
            reply(Some(b"k"), Some(body), None).unwrap().run_id.as_str(),
            "k"
        );
        assert!(
            reply(None, Some(body), None)
                .unwrap_err()
                .message
                .contains("neither")
        );
        assert!(
            reply(Some(b"a b"), Some(body), None)
                .unwrap_err()
                .message
                .contains("not a run id")
        );
    }

    #[test]
    fn what_cannot_be_read_says_why() {
        for (body, why) in [
            ("nonsense", "not a command in JSON"),
            (r#"{"type":"dance","run_id":"r"}"#, "no type of a command"),
            (r#"{"type":"start","run_id":"r"}"#, "without `workflow`"),
            (
                r#"{"type":"pause","run_id":"r","input":1}"#,
                "has no field `input`",
            ),
            (
                r#"{"type":"pause","run_id":"r","colour":1}"#,
                "unknown field `colour`",
            ),
        ] {
            let message = command(None, Some(body.as_bytes()), None)
                .unwrap_err()
                .message;
            assert!(message.contains(why), "{message}");
        }
        assert!(command(None, None, None).is_err());
    }
}
