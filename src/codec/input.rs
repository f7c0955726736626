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
mod tests {
    use super::*;
    use crate::model::{Contributor, Timestamp};

    fn provenance() -> Provenance {
        Provenance {
            rule: "storm@2".to_owned(),
            key: Json::from_text(r#"{"workflow": "w"}"#).unwrap(),
            at: Timestamp(1_795_219_200_123),
            depth: 2,
            events: vec![Contributor {
                step: "failed".to_owned(),
                topic: "partita.events".to_owned(),
                partition: 3,
                offset: 17,
            }],
            more: 0,
        }
    }

    fn orders() -> Vec<Order> {
        let reason = || Some("why".to_owned());
        let name = || SignalName::parse("go").unwrap();
        vec![
            Order::Pause { reason: reason() },
            Order::Resume { reason: None },
            Order::Cancel { reason: reason() },
            Order::Signal {
                name: name(),
                data: None,
                id: None,
            },
            Order::Signal {
                name: name(),
                data: Some(Json::from_text(r#"{"a": [1]}"#).unwrap()),
                id: Some(SignalId::parse("s-1").unwrap()),
            },
        ]
    }

    fn found(output: Option<&str>) -> Command {
        Command::Match(Matched {
            attempt: TaskId::parse("r-1.step.0.2").unwrap(),
            output: output.map(|output| Json::from_text(output).unwrap()),
        })
    }

    #[test]
    fn a_match_names_an_attempt_and_nothing_else_has_one() {
        for (body, told) in [
            (
                r#"{"type":"match","task_id":"r-1"}"#,
                "without the `task_id`",
            ),
            (r#"{"type":"match","output":1}"#, "without the `task_id`"),
            (
                r#"{"type":"match","task_id":"r.s.0.1","name":"n"}"#,
                "no field `name`",
            ),
            (
                r#"{"type":"cancel","run_id":"r","task_id":"r.s.0.1"}"#,
                "no field `task_id`",
            ),
            (
                r#"{"type":"start","run_id":"r","workflow":"w","depth":1}"#,
                "no field `depth`",
            ),
        ] {
            let error = command(None, Some(body.as_bytes()), None).unwrap_err();
            assert!(error.message.contains(told), "{body}: {error}");
        }
    }

    #[test]
    fn commands_read_what_serde_writes() {
        let run_id = RunId::parse("r-1").unwrap();
        let start = Start {
            run_id: run_id.clone(),
            workflow: "w".into(),
            version: Some(2),
            input: Some(Json::from_text(r#"{"a":[1,2.5]}"#).unwrap()),
            tags: BTreeMap::from([("k".to_owned(), "v".to_owned())]),
            priority: 3,
            provenance: Some(provenance()),
        };
        let of_run = |order: Order| order.to(run_id.clone(), 3);
        for expected in orders().into_iter().map(of_run).chain([
            Command::Start(start),
            found(Some("{}")),
            found(None),
        ]) {
            let bytes = serde_json::to_vec(&expected).unwrap();
            assert_eq!(
                command(None, Some(&bytes), None),
                Ok(Commanded::One(expected))
            );
        }
    }

    #[test]
    fn a_provenance_names_so_many_records_and_counts_the_rest() {
        let event = r#"{"step":"s","topic":"t","partition":0,"offset":1}"#;
        let body = format!(
            r#"{{"type":"start","run_id":"r","workflow":"w","provenance":{{"rule":"r@1","key":{{}},"at":"2026-01-01T00:00:00Z","events":[{}]}}}}"#,
            [event; 130].join(",")
        );
        let Ok(Commanded::One(Command::Start(start))) = command(None, Some(body.as_bytes()), None)
        else {
            panic!("not a start");
        };
        let provenance = start.provenance.unwrap();
        assert_eq!((provenance.events.len(), provenance.more), (100, 30));
        assert_eq!(provenance.depth, 1);
    }

    #[test]
    fn orders_by_tag_read_what_serde_writes() {
        for order in orders() {
            let tags = BTreeMap::from([("k".to_owned(), "v".to_owned())]);
            let after = matches!(order, Order::Signal { .. }).then(|| RunId::parse("q").unwrap());
            let workflow = after.is_some().then(|| "w".to_owned());
            let expected = Selected {
                tags,
                workflow,
                order,
                after,
                depth: 2,
            };
            let bytes = serde_json::to_vec(&expected).unwrap();
            // The key says nothing then.
            assert_eq!(
                command(Some(b"r-1"), Some(&bytes), None),
                Ok(Commanded::Selected(expected))
            );
        }
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
                r#"{"type":"start","run_id":"r","workflow":"w","provenance":{"rule":"r@1","key":[],"at":"2026-01-01T00:00:00Z","events":[]}}"#,
                "is an object of the names",
            ),
            (
                r#"{"type":"pause","run_id":"r","provenance":{"rule":"r@1","key":{},"at":"2026-01-01T00:00:00Z","events":[]}}"#,
                "has no field `provenance`",
            ),
            (
                r#"{"type":"pause","run_id":"r","input":1}"#,
                "has no field `input`",
            ),
            (
                r#"{"type":"pause","run_id":"r","colour":1}"#,
                "unknown field `colour`",
            ),
            (r#"{"type":"signal","run_id":"r"}"#, "without `name`"),
            (
                r#"{"type":"signal","run_id":"r","name":"a b"}"#,
                "`a b` is no name of a signal",
            ),
            (
                r#"{"type":"signal","run_id":"r","name":"a","id":""}"#,
                "no id of a signal",
            ),
            (
                r#"{"type":"pause","run_id":"r","id":"x"}"#,
                "has no field `id`",
            ),
            (r#"{"type":"cancel","tags":{}}"#, "`tags` names no tag"),
            (
                r#"{"type":"cancel","tags":{"a":"b"},"run_id":"r"}"#,
                "both a `run_id` and `tags`",
            ),
            (
                r#"{"type":"cancel","run_id":"r","after":"q"}"#,
                "`after` goes with `tags`",
            ),
            (
                r#"{"type":"cancel","run_id":"r","workflow":"w"}"#,
                "`workflow` goes with `tags`",
            ),
            (
                r#"{"type":"cancel","tags":{"a":1}}"#,
                "not a command in JSON",
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
