//! Commands and replies in Avro, by `schemas/command.avsc` and `schemas/reply.avsc`: single-object
//! encoding (told by its marker), or the bare datum where `content-type` says Avro. The wire format
//! of a schema registry is told apart and refused, for there is no registry to ask.

use std::collections::HashMap;
use std::sync::LazyLock;

use apache_avro::Schema;
use apache_avro::rabin::Rabin;
use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::types::Value;

use super::input::{Unreadable, WireCommand, WireFailure, WireReply, unreadable};
use crate::model::Json;

/// First bytes of Avro's single-object encoding.
const SINGLE_OBJECT: [u8; 2] = [0xc3, 0x01];

/// First byte of the wire format of schema registries.
const REGISTRY: u8 = 0;

struct Known {
    schema: Schema,
    /// CRC-64-AVRO of the schema's canonical form, as it stands in records.
    fingerprint: Vec<u8>,
}

impl Known {
    fn new(text: &str) -> Self {
        let schema = Schema::parse_str(text).expect("our schemas are valid");
        let fingerprint = schema.fingerprint::<Rabin>().bytes.clone();
        Self {
            schema,
            fingerprint,
        }
    }
}

static COMMAND: LazyLock<Known> =
    LazyLock::new(|| Known::new(include_str!("../../schemas/command.avsc")));
static REPLY: LazyLock<Known> =
    LazyLock::new(|| Known::new(include_str!("../../schemas/reply.avsc")));

/// Whether the record is Avro rather than JSON.
pub(super) fn is_avro(value: &[u8], content_type: Option<&[u8]>) -> bool {
    says_avro(content_type) || value.starts_with(&SINGLE_OBJECT) || value.first() == Some(&REGISTRY)
}

fn says_avro(content_type: Option<&[u8]>) -> bool {
    content_type.is_some_and(|text| {
        let text = text.to_ascii_lowercase();
        text.windows(4).any(|window| window == b"avro")
    })
}

pub(super) fn command(
    value: &[u8],
    content_type: Option<&[u8]>,
) -> Result<WireCommand<'static>, Unreadable> {
    let mut fields = Fields::read(&COMMAND, value, content_type, "command")?;
    Ok(WireCommand {
        kind: fields.text("type").unwrap_or_default().into(),
        // A datum always has one: empty where tags say which runs are meant.
        run_id: fields
            .text("run_id")
            .filter(|run_id| !run_id.is_empty())
            .map(Into::into),
        workflow: fields.text("workflow"),
        version: fields.number("version")?,
        input: fields.json("input")?,
        tags: match fields.take("tags") {
            Some(Value::Map(tags)) => Some(
                tags.into_iter()
                    .filter_map(|(name, value)| Some((name, as_text(value)?)))
                    .collect(),
            ),
            _ => None,
        }
        .filter(|tags: &std::collections::BTreeMap<_, _>| !tags.is_empty()),
        priority: fields.number("priority")?.filter(|priority| *priority != 0),
        reason: fields.text("reason"),
        name: fields.text("name"),
        data: fields.json("data")?,
        id: fields.text("id"),
        // The schema has no place for it: only rules give it, and they write JSON.
        after: None,
        task_id: None,
        output: None,
        provenance: None,
        depth: None,
    })
}

pub(super) fn reply(
    value: &[u8],
    content_type: Option<&[u8]>,
) -> Result<WireReply<'static>, Unreadable> {
    let mut fields = Fields::read(&REPLY, value, content_type, "reply")?;
    let error = match fields.take("error") {
        Some(Value::Record(error)) => {
            let mut error = Fields(error.into_iter().collect());
            Some(WireFailure {
                class: error.text("class"),
                message: error.text("message"),
                retryable: match error.take("retryable") {
                    Some(Value::Boolean(retryable)) => Some(retryable),
                    _ => None,
                },
                details: error.json("details")?,
            })
        }
        _ => None,
    };
    Ok(WireReply {
        run_id: fields.text("run_id").map(Into::into),
        step_id: fields.text("step_id").unwrap_or_default(),
        task_id: fields.text("task_id"),
        attempt: fields.number("attempt")?,
        epoch: fields.number("epoch")?,
        status: fields.text("status").unwrap_or_default().into(),
        output: fields.json("output")?,
        error,
        progress: match fields.take("progress") {
            Some(Value::Double(progress)) if progress.is_finite() => Some(progress),
            Some(Value::Double(progress)) => {
                let reason = format!("`progress` is {progress}; it is a fraction of 1");
                return Err(unreadable(reason));
            }
            _ => None,
        },
        note: fields.text("note"),
    })
}

/// Fields of a record, each taken once.
struct Fields(HashMap<String, Value>);

impl Fields {
    fn read(
        known: &Known,
        value: &[u8],
        content_type: Option<&[u8]>,
        what: &str,
    ) -> Result<Self, Unreadable> {
        let mut datum = match value {
            [0xc3, 0x01, rest @ ..] => match rest.strip_prefix(known.fingerprint.as_slice()) {
                Some(datum) => datum,
                None => {
                    return Err(unreadable(format!(
                        "Avro by a schema that is not ours; a {what} goes by schemas/{what}.avsc"
                    )));
                }
            },
            // A bare datum may begin with that byte as well; it has to be declared.
            [REGISTRY, ..] if !says_avro(content_type) => {
                return Err(unreadable(
                    "Avro by a schema registry, and none is configured; send JSON or Avro in \
                     single-object encoding",
                ));
            }
            bare => bare,
        };
        let malformed =
            |error: apache_avro::Error| unreadable(format!("not a {what} in Avro: {error}"));
        let reader = GenericDatumReader::builder(&known.schema)
            .build()
            .map_err(malformed)?;
        match reader.read_value(&mut datum).map_err(malformed)? {
            Value::Record(_) if !datum.is_empty() => Err(unreadable(format!(
                "{} bytes follow the {what}",
                datum.len()
            ))),
            Value::Record(fields) => Ok(Self(fields.into_iter().collect())),
            _ => Err(unreadable(format!("not a {what} in Avro"))),
        }
    }

    /// The value, taken out of its union; null is none.
    fn take(&mut self, name: &str) -> Option<Value> {
        match self.0.remove(name)? {
            Value::Union(_, inner) => match *inner {
                Value::Null => None,
                inner => Some(inner),
            },
            value => Some(value),
        }
    }

    fn text(&mut self, name: &str) -> Option<String> {
        self.take(name).and_then(as_text)
    }

    fn number<T: TryFrom<i64>>(&mut self, name: &str) -> Result<Option<T>, Unreadable> {
        let number = match self.take(name) {
            Some(Value::Int(number)) => i64::from(number),
            Some(Value::Long(number)) => number,
            _ => return Ok(None),
        };
        let fits =
            T::try_from(number).map_err(|_| unreadable(format!("`{name}` is out of its range")));
        fits.map(Some)
    }

    /// A field that holds the text of a JSON value.
    fn json(&mut self, name: &str) -> Result<Option<Json>, Unreadable> {
        let Some(text) = self.text(name) else {
            return Ok(None);
        };
        let parsed = Json::from_text(&text);
        parsed
            .map(Some)
            .map_err(|error| unreadable(format!("`{name}` does not hold JSON: {error}")))
    }
}

fn as_text(value: Value) -> Option<String> {
    match value {
        Value::String(text) | Value::Enum(_, text) => Some(text),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use apache_avro::writer::datum::GenericDatumWriter;

    use super::super::input;
    use super::super::input::Commanded;
    use super::*;
    use crate::model::{Command, Order, ReplyStatus};

    fn optional(place: u32, value: Value) -> Value {
        Value::Union(place, Box::new(value))
    }

    fn single_object(known: &Known, fields: Vec<(&str, Value)>) -> Vec<u8> {
        let record = Value::Record(
            fields
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value))
                .collect(),
        );
        let writer = GenericDatumWriter::builder(&known.schema).build().unwrap();
        let mut bytes = SINGLE_OBJECT.to_vec();
        bytes.extend(&known.fingerprint);
        bytes.extend(writer.write_value_to_vec(record).unwrap());
        bytes
    }

    fn start() -> Vec<u8> {
        let none = || optional(0, Value::Null);
        let text = |text: &str| Value::String(text.to_owned());
        single_object(
            &COMMAND,
            vec![
                ("type", Value::Enum(0, "start".into())),
                ("run_id", text("r")),
                ("workflow", optional(1, text("w"))),
                ("version", optional(1, Value::Int(3))),
                ("input", optional(1, text(r#"{"a":1}"#))),
                (
                    "tags",
                    Value::Map(HashMap::from([("k".to_owned(), text("v"))])),
                ),
                ("priority", Value::Int(2)),
                ("reason", none()),
                ("name", none()),
                ("data", none()),
                ("id", none()),
            ],
        )
    }

    fn signal(run_id: &str, tags: &[(&str, &str)]) -> Vec<u8> {
        let none = || optional(0, Value::Null);
        let text = |text: &str| Value::String(text.to_owned());
        let tags = tags
            .iter()
            .map(|(name, value)| ((*name).to_owned(), text(value)));
        single_object(
            &COMMAND,
            vec![
                ("type", Value::Enum(4, "signal".into())),
                ("run_id", text(run_id)),
                ("workflow", none()),
                ("version", none()),
                ("input", none()),
                ("tags", Value::Map(tags.collect())),
                ("priority", Value::Int(0)),
                ("reason", none()),
                ("name", optional(1, text("go"))),
                ("data", optional(1, text("[1]"))),
                ("id", optional(1, text("s-1"))),
            ],
        )
    }

    #[test]
    fn a_signal_in_avro_is_for_a_run_or_for_those_with_its_tags() {
        let Ok(Commanded::One(Command::Signal(read))) =
            input::command(None, Some(&signal("r", &[])), None)
        else {
            panic!("not a signal");
        };
        assert_eq!((read.run_id.as_str(), read.name.as_str()), ("r", "go"));
        assert_eq!(read.data.unwrap().as_str(), "[1]");
        assert_eq!(read.id.unwrap().as_str(), "s-1");
        let by_tag = signal("", &[("team", "red")]);
        let Ok(Commanded::Selected(read)) = input::command(Some(b"r"), Some(&by_tag), None) else {
            panic!("not an order by tag");
        };
        assert_eq!(read.tags["team"], "red");
        assert!(matches!(read.order, Order::Signal { .. }));
    }

    #[test]
    fn a_start_in_avro_is_a_start() {
        let bytes = start();
        let Ok(Commanded::One(Command::Start(read))) = input::command(None, Some(&bytes), None)
        else {
            panic!("not a start");
        };
        assert_eq!(
            (read.run_id.as_str(), read.workflow.as_str(), read.version),
            ("r", "w", Some(3))
        );
        assert_eq!(read.input.unwrap().as_str(), r#"{"a":1}"#);
        assert_eq!((read.priority, read.tags["k"].as_str()), (2, "v"));
        let bare = &bytes[10..];
        assert!(input::command(None, Some(bare), Some(b"application/avro")).is_ok());
    }

    fn reply(status: Value, progress: Value) -> Vec<u8> {
        let none = || optional(0, Value::Null);
        let text = |text: &str| Value::String(text.to_owned());
        single_object(
            &REPLY,
            vec![
                ("run_id", text("r")),
                ("step_id", text("s")),
                ("status", status),
                ("task_id", none()),
                ("attempt", optional(1, Value::Int(1))),
                ("epoch", none()),
                ("output", optional(1, text("[1]"))),
                ("error", none()),
                ("progress", progress),
                ("note", none()),
            ],
        )
    }

    #[test]
    fn progress_that_is_no_number_is_refused() {
        let progress = |progress: f64| {
            let progress = optional(1, Value::Double(progress));
            let bytes = reply(Value::Enum(2, "progress".into()), progress);
            input::reply(None, Some(&bytes), None)
        };
        assert!(progress(0.5).is_ok());
        for wrong in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            let refused = progress(wrong).expect_err("no fraction of anything");
            assert!(refused.message.contains("progress"), "{refused:?}");
        }
    }

    #[test]
    fn a_reply_in_avro_is_a_reply() {
        let completed = Value::Enum(0, "completed".into());
        let bytes = reply(completed, optional(0, Value::Null));
        let read = input::reply(None, Some(&bytes), None).unwrap();
        assert_eq!(
            read.status,
            ReplyStatus::Completed {
                output: Json::from_text("[1]").unwrap()
            }
        );
        assert_eq!(read.attempt, Some(1));
    }

    #[test]
    fn avro_that_cannot_be_read_says_why() {
        let mut foreign = start();
        foreign[3] ^= 1;
        let cut = start()[..14].to_vec();
        let mut longer = start();
        longer.push(0);
        for (bytes, why) in [
            (foreign, "not ours"),
            (cut, "not a command in Avro"),
            (longer, "1 bytes follow"),
            (vec![0, 0, 0, 0, 7, 1], "none is configured"),
        ] {
            let message = input::command(None, Some(&bytes), None)
                .unwrap_err()
                .message;
            assert!(message.contains(why), "{message}");
        }
    }
}
