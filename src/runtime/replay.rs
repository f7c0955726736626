//! Rules over a file of events: what `rules test` prints. A line is decoded and shown to the rules as the
//! intake does it with a record, and the rules alone tell how far time has come: there is one source.

use std::slice::from_ref;
use std::sync::Arc;

use serde_json::Value;

use super::unreadable::{Unreadable, UnreadableRecord};
use crate::codec::event::{self, DecodedEvent, NoSchema, RawEvent, Refused, Schemas, WriterSchema};
use crate::codec::input::MALFORMED;
use crate::expr::walk;
use crate::model::{Json, Timestamp};
use crate::pattern::filter::{Filter, Verdict};
use crate::pattern::trial::{Findings, Trial};
use crate::pattern::{Event, Recorded, Rule};

/// A line that is neither an event nor a record, which ends the replay.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {message}")]
pub struct LineError {
    /// From 1.
    pub line: usize,
    pub message: String,
}

/// What was found.
#[derive(Debug)]
pub struct Replayed {
    /// Of all rules, in their order; events are known by their lines.
    pub findings: Findings,
    pub unreadable: Unreadable,
}

impl Replayed {
    /// That of the findings; `unreadable` where something is.
    pub fn document(&self) -> Value {
        let mut document = self.findings.document();
        if self.unreadable.count > 0 {
            document["unreadable"] = self.unreadable.document();
        }
        document
    }
}

/// Feeds the lines of a file to rules and tells what came of them. Each line is a record as kcat writes
/// it (`topic`, `payload`, `ts`, `headers`) or, where a rule reads one topic, the event itself; records of
/// topics that a rule joins are the table, up to that line; records of other topics are passed over. Of
/// events that a rule caused itself it gets the time and no more. A record that would be a dead letter is
/// one of the `unreadable`: one that has more than `max_payload_bytes` of JSON as well. After the last line
/// event time moves to `advance_to`, or to the end of all windows.
///
/// # Errors
/// At the first line that is no JSON, or neither a record nor an event of the only topic.
pub fn replay(
    rules: &[Arc<Rule>],
    lines: &str,
    advance_to: Option<Timestamp>,
    max_payload_bytes: usize,
) -> Result<Replayed, LineError> {
    let mut running: Vec<Running> = rules.iter().map(Running::new).collect();
    let mut unreadable = Unreadable::default();
    for (place, text) in lines.lines().enumerate() {
        let line = place + 1;
        if text.trim().is_empty() {
            continue;
        }
        let failed = |message: String| LineError { line, message };
        let record = Record::read(text).map_err(failed)?;
        let mut readers = Vec::new();
        for running in &mut running {
            if let Some(topic) = record.topic_of(running.rule()).map_err(failed)? {
                readers.push((topic, running));
            }
        }
        if readers.is_empty() {
            continue;
        }
        let line = line as u64;
        let decoded = match record.decode(max_payload_bytes) {
            Ok(decoded) => decoded,
            // What cannot be read leaves the row of a table as it was.
            Err((class, message)) => {
                unreadable.note(|| unreadable_line(line, class, message));
                continue;
            }
        };
        for (topic, running) in readers {
            running.join(&topic, &record, decoded.as_ref());
            if let Some(event) = &decoded {
                running.take(&topic, line, event, &record, &mut unreadable);
            }
        }
    }
    let mut findings = Findings::new(usize::MAX);
    for running in running {
        findings.append(running.trial.finish(advance_to));
    }
    Ok(Replayed {
        findings,
        unreadable,
    })
}

fn unreadable_line(line: u64, class: &str, message: String) -> UnreadableRecord {
    UnreadableRecord {
        place: line.into(),
        class: class.to_owned(),
        message,
    }
}

/// One rule at work.
struct Running {
    filter: Filter,
    trial: Trial,
}

impl Running {
    fn new(rule: &Arc<Rule>) -> Self {
        Self {
            filter: Filter::new(from_ref(rule)),
            trial: Trial::new(rule.clone(), |_, line| line.into(), usize::MAX),
        }
    }

    fn rule(&self) -> &Arc<Rule> {
        self.trial.rule()
    }

    /// Takes a record of a joined topic, by its key.
    fn join(&mut self, topic: &str, record: &Record, decoded: Option<&DecodedEvent>) {
        let Some(key) = &record.key else { return };
        match (&record.value, decoded) {
            (None, _) => self.trial.join(topic, key, None),
            (Some(_), Some(event)) => self.trial.join(topic, key, Some(&event.payload)),
            (Some(_), None) => {}
        }
    }

    /// Takes an event: time moves on by it, whether the rule wants it or not.
    fn take(
        &mut self,
        topic: &str,
        line: u64,
        event: &DecodedEvent,
        record: &Record,
        unreadable: &mut Unreadable,
    ) {
        let Some(of_topic) = self.filter.topic(topic) else {
            return;
        };
        let trial = &mut self.trial;
        let recorded = Recorded {
            at: event.at,
            written: record.timestamp,
            headers: &record.headers,
        };
        let rule = trial.rule().clone();
        let place = rule.topics.iter().position(|name| **name == *topic);
        let place = u16::try_from(place.unwrap_or_default()).unwrap_or(u16::MAX);
        let slots = rule.slots(place, &event.payload);
        let shown = |at: Timestamp| Event {
            topic: place,
            at,
            position: line,
            slots: &slots,
            payload: &event.payload,
        };
        let mut is_wanted = false;
        of_topic.select(&event.payload, recorded, &mut |verdict| {
            is_wanted = true;
            match verdict {
                _ if rule.has_caused(event.attributes.as_ref()) => trial.note_own(topic, line),
                Verdict::Wanted { at, .. } => trial.push(&shown(at)),
                Verdict::Unkeyed { .. } => trial.note_unkeyed(topic, line),
                Verdict::Timeless { why, .. } => unreadable.note(|| {
                    unreadable_line(line, why.class(), format!("rule {}: {why}", rule.id()))
                }),
            }
        });
        if !is_wanted {
            trial.pass_over(&shown(Timestamp::ZERO));
        }
        for clock in of_topic.clocks() {
            if let Some(at) = clock.read(&event.payload, recorded) {
                trial.observe(at);
            }
        }
    }
}

/// What a line says.
struct Record {
    /// `None`: the line is the event itself.
    topic: Option<String>,
    key: Option<String>,
    timestamp: Option<Timestamp>,
    headers: Vec<(String, Vec<u8>)>,
    /// `None`: a tombstone.
    value: Option<String>,
}

impl Record {
    fn read(text: &str) -> Result<Self, String> {
        let json = Json::from_text(text).map_err(|error| format!("this is no JSON: {error}"))?;
        let text = json.as_str();
        let member = |name: &str| {
            let is_object = text.starts_with('{');
            let found = is_object.then(|| walk::member(text, name)).flatten();
            found.map(|range| &text[range])
        };
        let topic = member("topic").and_then(|text| serde_json::from_str(text).ok());
        let (Some(topic), Some(payload)) = (topic, member("payload")) else {
            return Ok(Self {
                topic: None,
                key: None,
                timestamp: None,
                headers: Vec::new(),
                value: Some(text.to_owned()),
            });
        };
        Ok(Self {
            topic: Some(topic),
            key: member("key").and_then(text_of),
            timestamp: member("ts").and_then(|text| text.parse().ok().map(Timestamp)),
            headers: member("headers").map(headers).unwrap_or_default(),
            value: text_of(payload),
        })
    }

    /// The topic that the rule reads or joins this as; `None`: it does neither.
    fn topic_of(&self, rule: &Rule) -> Result<Option<String>, String> {
        match (&self.topic, &*rule.topics) {
            (None, [only]) => Ok(Some(only.to_string())),
            (None, _) => Err(format!(
                "this is no record with `topic` and `payload`, and the rule reads {}",
                rule.topics.join(", ")
            )),
            (Some(topic), topics) => {
                let mut joined = rule.enrich.iter().map(|enrich| &enrich.topic);
                let is_known = topics.iter().any(|name| **name == **topic)
                    || joined.any(|name| **name == **topic);
                Ok(is_known.then(|| topic.clone()))
            }
        }
    }

    /// # Errors
    /// The class and the message of its dead letter.
    fn decode(&self, max_payload_bytes: usize) -> Result<Option<DecodedEvent>, (&str, String)> {
        let raw = RawEvent {
            value: self.value.as_deref().map(str::as_bytes),
            headers: &self.headers,
            timestamp: self.timestamp,
        };
        let refused = |refused| match refused {
            Refused::Unreadable(unreadable) => (unreadable.class, unreadable.message),
            Refused::Unavailable(reason) => (MALFORMED, reason),
        };
        event::decode(&raw, &NoSchemas, max_payload_bytes).map_err(refused)
    }
}

/// A JSON string as its text, everything else as JSON; null is nothing.
fn text_of(json: &str) -> Option<String> {
    match json.as_bytes().first() {
        Some(b'n') => None,
        Some(b'"') => serde_json::from_str(json).ok(),
        _ => Some(json.to_owned()),
    }
}

/// Headers as kcat writes them, names and values in turn; one without a value is empty.
fn headers(list: &str) -> Vec<(String, Vec<u8>)> {
    let list: Vec<Value> = serde_json::from_str(list).unwrap_or_default();
    let pairs = list.chunks_exact(2).filter_map(|pair| {
        let value = pair[1].as_str().unwrap_or_default();
        Some((pair[0].as_str()?.to_owned(), value.into()))
    });
    pairs.collect()
}

/// A file of text has no events in Avro.
struct NoSchemas;

impl NoSchemas {
    fn refused() -> NoSchema {
        let message = "a line of text holds no event in Avro; write it as JSON";
        NoSchema::Refused(message.to_owned())
    }
}

impl Schemas for NoSchemas {
    fn by_id(&self, _id: u32) -> Result<WriterSchema, NoSchema> {
        Err(Self::refused())
    }

    fn by_fingerprint(&self, _fingerprint: [u8; 8]) -> Result<Arc<event::AvroSchema>, NoSchema> {
        Err(Self::refused())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_without_the_header_of_its_time_is_told_of() {
        let rule = "kind: rule\nname: r\ntime: {header: sent}\nmatch: {any: [{id: a, topic: t}]}";
        let rule = crate::pattern::syntax::parse(rule, None).expect("valid");
        let told = |line: &str| {
            let found = replay(&rule, line, None, 1_000).expect("a record");
            let [record] = &found.unreadable.first[..] else {
                panic!("it has no event time");
            };
            assert_eq!(
                (record.place.as_u64(), &*record.class),
                (Some(1), "no_event_time")
            );
            record.message.clone()
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
            let whole = format!("rule r@1: the header `sent` of event time is {found}; {said}");
            assert_eq!(told(line), whole, "{line}");
        }
    }
}
