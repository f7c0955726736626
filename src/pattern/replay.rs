//! A rule over a file of events: what `rules test` prints.

use std::sync::Arc;

use serde_json::Value;

use super::event::{Event, Recorded, Scalar};
use super::rule::{Rule, TimeSource};
use super::trial::{Findings, Trial};
use crate::expr::{Segment, walk};
use crate::model::cloud_event::{Attributes, Structured};
use crate::model::{Json, Timestamp};

/// A line that is no event, which ends the replay.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {message}")]
pub struct LineError {
    /// From 1.
    pub line: usize,
    pub message: String,
}

impl Rule {
    /// The values of the rule's fields in an event of a topic, by the topic's place.
    pub fn slots(&self, topic: u16, payload: &Json) -> Vec<Scalar> {
        let mut slots = Vec::with_capacity(self.fields.len());
        values_at(payload.as_str(), self.fields_in(topic), &mut slots);
        slots
    }

    /// Event time: that of the field or the header which the rule names, else the record's own.
    ///
    /// # Errors
    /// With a sentence, where the field or the header holds no time, or where nothing says when it
    /// was.
    pub fn event_time(
        &self,
        slots: &[Scalar],
        recorded: Recorded<'_>,
    ) -> Result<Timestamp, String> {
        match &self.time.source {
            TimeSource::Record => recorded.at.ok_or_else(|| {
                "the event has no time: give the rule a `time.field`, or the record a `ts`"
                    .to_owned()
            }),
            TimeSource::Field(slot) => {
                let value = &slots[usize::from(*slot)];
                scalar_time(value).ok_or_else(|| {
                    let found = match value {
                        Scalar::Missing => "is missing".to_owned(),
                        value => format!("is {}", value.to_json()),
                    };
                    format!(
                        "the field of event time {found}; it is a number of milliseconds since 1970 or a string in RFC 3339"
                    )
                })
            }
            TimeSource::Header(name) => {
                let value = recorded.header(name);
                value.and_then(header_time).ok_or_else(|| {
                    let found = match value.map(std::str::from_utf8) {
                        None => "is missing".to_owned(),
                        Some(Err(_)) => "is not UTF-8".to_owned(),
                        Some(Ok(text)) => {
                            format!("is {:?}", text.chars().take(60).collect::<String>())
                        }
                    };
                    format!(
                        "the header `{name}` of event time {found}; it is a number of milliseconds since 1970 or a time in RFC 3339, as text"
                    )
                })
            }
        }
    }
}

pub(super) fn scalar_time(value: &Scalar) -> Option<Timestamp> {
    match value {
        Scalar::Int(millis) => Some(Timestamp(*millis)),
        Scalar::Float(millis) => Some(Timestamp(millis.floor() as i64)),
        Scalar::Text(text) => Timestamp::parse(text),
        _ => None,
    }
}

/// The time that the value of a header says: a number or RFC 3339, as text.
pub(super) fn header_time(value: &[u8]) -> Option<Timestamp> {
    let text = std::str::from_utf8(value).ok()?;
    match Scalar::from_json(text) {
        number @ (Scalar::Int(_) | Scalar::Float(_)) => scalar_time(&number),
        _ => Timestamp::parse(text),
    }
}

/// Puts the values at all `paths` into `out`, in their order. Walks over the text once, however many
/// they are.
pub(super) fn values_at(text: &str, paths: &[Vec<Segment>], out: &mut Vec<Scalar>) {
    out.clear();
    if !text.starts_with('{') {
        out.extend(paths.iter().map(|path| value_at(text, path)));
        return;
    }
    out.resize(paths.len(), Scalar::Missing);
    for (key, value) in walk::members(text) {
        for (path, out) in paths.iter().zip(&mut *out) {
            // Of a name that is repeated the last counts.
            if let [Segment::Name(name), rest @ ..] = &**path
                && walk::string_equals(key, name)
            {
                *out = value_at(&text[value.clone()], rest);
            }
        }
    }
    for (path, out) in paths.iter().zip(out) {
        if path.is_empty() {
            *out = Scalar::from_json(text);
        }
    }
}

pub(super) fn value_at(text: &str, path: &[Segment]) -> Scalar {
    text_at(text, path).map_or(Scalar::Missing, Scalar::from_json)
}

/// The text of the value at `path`.
pub(super) fn text_at<'t>(text: &'t str, path: &[Segment]) -> Option<&'t str> {
    let mut at = text;
    for segment in path {
        let range = match segment {
            Segment::Name(name) if at.starts_with('{') => walk::member(at, name),
            Segment::Index(index) if at.starts_with('[') => walk::element(at, *index),
            _ => None,
        };
        at = &at[range?];
    }
    Some(at)
}

/// Feeds the lines of a file to a rule and tells what came of them; events are known by their lines.
/// Each line is a record as kcat writes it (`topic`, `payload`, `ts`, `headers`) or, where the rule
/// reads one topic, the event itself; records of topics that the rule joins are the table, up to
/// that line; records of other topics are passed over. Of events that the rule caused itself it gets
/// the time and no more. After the last line event time moves to `advance_to`, or to the end of all
/// windows.
///
/// # Errors
/// At the first line that is no event.
pub fn replay(
    rule: &Arc<Rule>,
    lines: &str,
    advance_to: Option<Timestamp>,
) -> Result<Findings, LineError> {
    let mut trial = Trial::new(rule.clone(), |_, line| line.into(), usize::MAX);
    for (place, text) in lines.lines().enumerate() {
        let line = place + 1;
        if text.trim().is_empty() {
            continue;
        }
        let failed = |message: String| LineError { line, message };
        let tree: Value = serde_json::from_str(text)
            .map_err(|error| failed(format!("this is no JSON: {error}")))?;
        join(&mut trial, &tree).map_err(failed)?;
        let Some(record) = read_record(rule, tree).map_err(failed)? else {
            continue;
        };
        let slots = rule.slots(record.topic, &record.payload);
        let recorded = Recorded {
            at: record.at,
            headers: &record.headers,
        };
        let at = rule.event_time(&slots, recorded).map_err(failed)?;
        if rule.has_caused(Some(&record.attributes)) {
            trial.note_own(&rule.topics[usize::from(record.topic)], line as u64);
            trial.observe(at);
            continue;
        }
        trial.push(&Event {
            topic: record.topic,
            at,
            position: line as u64,
            slots: &slots,
            payload: &record.payload,
        });
    }
    Ok(trial.finish(advance_to))
}

/// Takes a record of a joined topic, by its key.
fn join(trial: &mut Trial, tree: &Value) -> Result<(), String> {
    let Some(topic) = tree["topic"].as_str() else {
        return Ok(());
    };
    let mut enrich = trial.rule().enrich.iter();
    if !enrich.any(|enrich| *enrich.topic == *topic) {
        return Ok(());
    }
    let key = match &tree["key"] {
        Value::Null => return Ok(()),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let value = payload(tree)?.map(|value| unwrapped(value, &tree["headers"]).0);
    trial.join(topic, &key, value.as_ref());
    Ok(())
}

struct Record {
    topic: u16,
    at: Option<Timestamp>,
    headers: Vec<(String, Vec<u8>)>,
    payload: Json,
    attributes: Attributes,
}

/// The value of a record as kcat writes it: JSON, or text that is JSON. `None`: there is none.
fn payload(tree: &Value) -> Result<Option<Value>, String> {
    Ok(match &tree["payload"] {
        Value::Null => None,
        Value::String(text) => Some(
            serde_json::from_str(text).map_err(|error| format!("`payload` is no JSON: {error}"))?,
        ),
        other => Some(other.clone()),
    })
}

/// `None`: the rule does not read it.
fn read_record(rule: &Rule, tree: Value) -> Result<Option<Record>, String> {
    let is_record =
        tree.get("topic").is_some_and(Value::is_string) && tree.get("payload").is_some();
    if !is_record {
        if rule.topics.len() != 1 {
            return Err(format!(
                "this is no record with `topic` and `payload`, and the rule reads {}",
                rule.topics.join(", ")
            ));
        }
        let (payload, attributes) = unwrapped(tree, &Value::Null);
        return Ok(Some(Record {
            topic: 0,
            at: attributes.time,
            headers: Vec::new(),
            payload,
            attributes,
        }));
    }
    let name = tree["topic"].as_str().unwrap_or_default();
    let Some(topic) = rule.topics.iter().position(|topic| **topic == *name) else {
        return Ok(None);
    };
    let Some(payload) = payload(&tree)? else {
        return Ok(None);
    };
    let recorded = tree.get("ts").and_then(Value::as_i64).map(Timestamp);
    let headers = headers(&tree["headers"]);
    let (payload, attributes) = unwrapped(payload, &tree["headers"]);
    Ok(Some(Record {
        topic: u16::try_from(topic).unwrap_or(u16::MAX),
        at: attributes.time.or(recorded),
        headers,
        payload,
        attributes,
    }))
}

/// Headers as kcat writes them, names and values in turn; the value may be absent.
fn header_pairs(list: &Value) -> impl Iterator<Item = (&str, Option<&str>)> {
    let list = list.as_array().map_or(&[][..], Vec::as_slice);
    let pairs = list.chunks_exact(2);
    pairs.filter_map(|pair| Some((pair[0].as_str()?, pair[1].as_str())))
}

/// The headers of a record; one without a value is empty.
fn headers(list: &Value) -> Vec<(String, Vec<u8>)> {
    header_pairs(list)
        .map(|(name, value)| (name.to_owned(), value.unwrap_or_default().into()))
        .collect()
}

/// An event as rules see it: of a CloudEvent, structured or by `headers`, the data with the attributes;
/// anything else as it is.
fn unwrapped(tree: Value, headers: &Value) -> (Json, Attributes) {
    let json = Json::from(tree);
    let mut attributes = Attributes::default();
    let mut is_binary = false;
    for (name, value) in header_pairs(headers) {
        if let (Some(name), Some(value)) = (name.strip_prefix("ce_"), value) {
            is_binary |= matches!(name, "specversion" | "type");
            attributes.set(name, value);
        }
    }
    if is_binary {
        return (attributes.beside(&json), attributes);
    }
    match Structured::read(json.as_str()) {
        Some(envelope) => (envelope.payload(), envelope.attributes),
        // A time among the headers is taken even where nothing else of a CloudEvent is.
        None => (json, attributes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_without_the_header_of_its_time_ends_the_replay() {
        let rule = "kind: rule\nname: r\ntime: {header: sent}\nmatch: {any: [{id: a, topic: t}]}";
        let rule = crate::pattern::syntax::parse(rule, None).expect("valid");
        let failure = |line: &str| {
            let failure = replay(&rule[0], line, None).expect_err("no event time");
            failure.to_string()
        };
        let said = "it is a number of milliseconds since 1970 or a time in RFC 3339, as text";
        for (line, found) in [
            (r#"{"sent":1}"#, "missing"),
            (r#"{"topic":"t","ts":1,"payload":{"sent":1}}"#, "missing"),
            (
                r#"{"topic":"t","ts":1,"headers":["Sent","1"],"payload":{}}"#,
                "missing",
            ),
            (
                r#"{"topic":"t","ts":1,"headers":["sent",null],"payload":{}}"#,
                "\"\"",
            ),
            (
                r#"{"topic":"t","ts":1,"headers":["sent","1","sent","noon"],"payload":{}}"#,
                "\"noon\"",
            ),
        ] {
            let whole = format!("line 1: the header `sent` of event time is {found}; {said}");
            assert_eq!(failure(line), whole, "{line}");
        }
    }

    /// One walk over a text finds what a walk for each path finds.
    #[test]
    fn all_paths_at_once_are_each_path_by_itself() {
        let name = |name: &str| Segment::Name(name.into());
        let paths = [
            vec![name("a")],
            vec![name("a"), name("b")],
            vec![name("é\"")],
            vec![name("b"), Segment::Index(1), name("c")],
            vec![Segment::Index(0)],
            vec![name("absent")],
            vec![],
        ];
        let texts = [
            r#"{"a":1,"b":[0,{"c":"x"}]}"#,
            r#"{ "a" : {"b":true} , "\u0061" : {"b":"\n"}, "é\"":null }"#,
            r#"{"a":{"b":1},"a":2,"b":{"c":1}}"#,
            r#"{"b":[],"é\u0022":"\u00e9","c":{"a":7}}"#,
            "{}",
            "[1.5]",
            "\"a\"",
        ];
        let mut found = 0;
        for text in texts {
            let mut values = vec![Scalar::Null; 2];
            values_at(text, &paths, &mut values);
            let each: Vec<Scalar> = paths.iter().map(|path| value_at(text, path)).collect();
            assert_eq!(values, each, "{text}");
            found += each.iter().filter(|it| **it != Scalar::Missing).count();
        }
        assert_eq!(found, 15);
    }
}
