//! A rule over a file of events: what `rules test` prints.

use serde_json::{Map, Value, json};
use std::sync::Arc;

use super::event::{Event, Scalar, Taken};
use super::matcher::Matcher;
use super::output::{Match, Outputs, TimedOut};
use super::predicate::{key_json, matches_json};
use super::rule::{Rule, Start};
use crate::expr::walk;
use crate::expr::{Bindings, ExprError, Segment};
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
    /// The values of the rule's fields in an event.
    pub fn slots(&self, payload: &Json) -> Vec<Scalar> {
        let read = |path: &Vec<Segment>| value_at(payload.as_str(), path);
        self.fields.iter().map(read).collect()
    }

    /// Event time: that of the field which the rule names, else `recorded`, the record's own.
    ///
    /// # Errors
    /// With a sentence, where the field holds no time, or where nothing says when it was.
    pub fn event_time(
        &self,
        slots: &[Scalar],
        recorded: Option<Timestamp>,
    ) -> Result<Timestamp, String> {
        let Some(slot) = self.time.field else {
            return recorded.ok_or_else(|| {
                "the event has no time: give the rule a `time.field`, or the record a `ts`"
                    .to_owned()
            });
        };
        let value = &slots[usize::from(slot)];
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
}

fn scalar_time(value: &Scalar) -> Option<Timestamp> {
    match value {
        Scalar::Int(millis) => Some(Timestamp(*millis)),
        Scalar::Float(millis) => Some(Timestamp(millis.floor() as i64)),
        Scalar::Text(text) => Timestamp::parse(text),
        _ => None,
    }
}

fn value_at(text: &str, path: &[Segment]) -> Scalar {
    let mut at = text;
    for segment in path {
        let range = match segment {
            Segment::Name(name) if at.starts_with('{') => walk::member(at, name),
            Segment::Index(index) if at.starts_with('[') => walk::element(at, *index),
            _ => None,
        };
        match range {
            Some(range) => at = &at[range],
            None => return Scalar::Missing,
        }
    }
    Scalar::from_json(at)
}

/// Feeds the lines of a file to a rule and shows what came of them, as one JSON document. Each
/// line is a record as kcat writes it (`topic`, `payload`, `ts`, `headers`) or, where the rule
/// reads one topic, the event itself; records of other topics are passed over. After the last line
/// event time moves to `advance_to`, or to the end of all windows.
///
/// # Errors
/// At the first line that is no event.
pub fn replay(
    rule: &Arc<Rule>,
    lines: &str,
    advance_to: Option<Timestamp>,
) -> Result<Value, LineError> {
    let mut matcher = Matcher::new(rule.clone(), true);
    let mut out = Outputs::default();
    for (place, text) in lines.lines().enumerate() {
        let line = place + 1;
        if text.trim().is_empty() {
            continue;
        }
        let failed = |message: String| LineError { line, message };
        let tree: Value = serde_json::from_str(text)
            .map_err(|error| failed(format!("this is no JSON: {error}")))?;
        let Some(record) = read_record(rule, tree).map_err(failed)? else {
            continue;
        };
        let slots = rule.slots(&record.payload);
        let at = rule.event_time(&slots, record.at).map_err(failed)?;
        let event = Event {
            topic: record.topic,
            at,
            position: line as u64,
            slots: &slots,
            payload: &record.payload,
        };
        matcher.push(&event, &mut out);
    }
    if let Some(end) = advance_to.or_else(|| matcher.end_of_windows()) {
        matcher.advance(end, &mut out);
    }
    let matches: Vec<Value> = out.matches.iter().map(|found| shown(rule, found)).collect();
    let timed_out: Vec<Value> = out
        .timed_out
        .iter()
        .map(|partial| shown_timed_out(rule, partial))
        .collect();
    let mut document = json!({"matches": matches, "late": out.late, "timed_out": timed_out});
    if !out.unkeyed.is_empty() {
        document["unkeyed"] = json!(out.unkeyed);
    }
    if !out.overflows.is_empty() {
        let shown = out.overflows.iter().map(|overflow| {
            json!({"at": overflow.at, "limit": overflow.limit, "dropped": overflow.dropped})
        });
        document["overflows"] = shown.collect();
    }
    Ok(document)
}

struct Record {
    topic: u16,
    at: Option<Timestamp>,
    payload: Json,
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
        let (payload, at) = unwrapped(tree);
        return Ok(Some(Record {
            topic: 0,
            at,
            payload: Json::from(payload),
        }));
    }
    let name = tree["topic"].as_str().unwrap_or_default();
    let Some(topic) = rule.topics.iter().position(|topic| **topic == *name) else {
        return Ok(None);
    };
    let payload = match &tree["payload"] {
        Value::Null => return Ok(None),
        Value::String(text) => {
            serde_json::from_str(text).map_err(|error| format!("`payload` is no JSON: {error}"))?
        }
        other => other.clone(),
    };
    let recorded = tree.get("ts").and_then(Value::as_i64).map(Timestamp);
    let (payload, stated) = unwrapped(payload);
    Ok(Some(Record {
        topic: u16::try_from(topic).unwrap_or(u16::MAX),
        at: stated
            .or_else(|| header_time(&tree["headers"]))
            .or(recorded),
        payload: Json::from(payload),
    }))
}

/// The data and the time of a structured CloudEvent; anything else is the event itself.
fn unwrapped(tree: Value) -> (Value, Option<Timestamp>) {
    if tree.get("specversion").is_none() || tree.get("data").is_none() {
        return (tree, None);
    }
    let at = tree["time"].as_str().and_then(Timestamp::parse);
    (tree["data"].clone(), at)
}

/// `ce_time` among headers as kcat writes them: names and values in turn.
fn header_time(headers: &Value) -> Option<Timestamp> {
    let headers = headers.as_array()?;
    let pair = headers.chunks(2).find(|pair| pair[0] == "ce_time")?;
    Timestamp::parse(pair.get(1)?.as_str()?)
}

fn shown(rule: &Rule, found: &Match) -> Value {
    let mut shown = json!({
        "rule": &*rule.name,
        "key": key_json(rule, &found.key).parse::<Value>().unwrap_or(Value::Null),
        "at": found.at,
        "events": lines_of(rule, &found.events),
        "start": null,
    });
    if let Some(start) = &rule.start {
        shown["start"] = match start.request(rule, found) {
            Ok(request) => request,
            Err(error) => json!({"workflow": &*start.workflow, "error": error.to_string()}),
        };
    }
    shown
}

fn shown_timed_out(rule: &Rule, partial: &TimedOut) -> Value {
    json!({"at": partial.at, "events": lines_of(rule, &partial.events)})
}

fn lines_of(rule: &Rule, events: &[(u16, Taken)]) -> Value {
    let mut lines: Map<String, Value> = Map::new();
    for (name, taken) in events {
        let name = rule.names[usize::from(*name)].to_string();
        if let Some(lines) = lines
            .entry(name)
            .or_insert_with(|| json!([]))
            .as_array_mut()
        {
            lines.push(taken.position.into());
        }
    }
    Value::Object(lines)
}

impl Start {
    /// The workflow and its input for a match, with `version`, `priority` and `tags` where the
    /// rule gives them.
    ///
    /// # Errors
    /// Where an expression has no value.
    pub fn request(&self, rule: &Rule, found: &Match) -> Result<Value, ExprError> {
        let bindings = MatchBindings { rule, found };
        let render = |template: &crate::expr::Template| {
            let json = template.render(&bindings)?;
            Ok::<Value, ExprError>(json.parse().unwrap_or(Value::Null))
        };
        let input = self.input.as_ref().map(render).transpose()?;
        let mut request = json!({"workflow": &*self.workflow, "input": input});
        if let Some(version) = self.version {
            request["version"] = version.into();
        }
        if let Some(priority) = self.priority {
            request["priority"] = priority.into();
        }
        if !self.tags.is_empty() {
            let mut tags = Map::new();
            for (name, template) in &self.tags {
                tags.insert(name.clone(), render(template)?);
            }
            request["tags"] = Value::Object(tags);
        }
        Ok(request)
    }
}

struct MatchBindings<'a> {
    rule: &'a Rule,
    found: &'a Match,
}

impl Bindings for MatchBindings<'_> {
    fn lookup(&self, path: &[&str]) -> Option<(Json, usize)> {
        let json = match *path.first()? {
            "key" => key_json(self.rule, &self.found.key),
            "matches" => matches_json(self.rule, |name| {
                let of_name = self.found.events.iter().filter(|event| event.0 == name);
                of_name.map(|(_, taken)| taken).collect()
            }),
            "rule" => Json::from(json!({
                "name": &*self.rule.name,
                "version": self.rule.version,
                "at": self.found.at,
            })),
            _ => return None,
        };
        Some((json, 1))
    }
}
