//! Events in the envelope of CloudEvents 1.0: what a rule sees of one.
//!
//! `event` is the data; the attributes that rules ask for are beside it under `event.ce`:
//! `type`, `source`, `subject`, `id` and `time`, those that are there, and `partitarule` and
//! `partitadepth`, which say that the event stems from a rule. A member `ce` of the data itself hides
//! them.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{Json, Timestamp};

/// Attributes of a CloudEvent, as far as rules can ask for them.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Attributes {
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// None also where it is not in RFC 3339: then the record's own time stands for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub time: Option<Timestamp>,
    /// The rule that the event stems from, `<name>@<version>`.
    #[serde(rename = "partitarule", skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
    /// Over how many rules the event came about.
    #[serde(rename = "partitadepth", skip_serializing_if = "Option::is_none")]
    pub depth: Option<u32>,
}

/// A CloudEvent in structured mode.
#[derive(Clone, Debug, PartialEq)]
pub struct Structured {
    pub attributes: Attributes,
    /// `None`: the event carries none, or carries it as `data_base64`.
    pub data: Option<Json>,
    pub has_base64: bool,
}

/// Members of the envelope, of whatever type: an event that is no CloudEvent may have any of them.
#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    specversion: Option<&'a RawValue>,
    #[serde(borrow, rename = "type")]
    kind: Option<&'a RawValue>,
    #[serde(borrow)]
    source: Option<&'a RawValue>,
    #[serde(borrow)]
    subject: Option<&'a RawValue>,
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    #[serde(borrow)]
    time: Option<&'a RawValue>,
    #[serde(borrow)]
    partitarule: Option<&'a RawValue>,
    #[serde(borrow)]
    partitadepth: Option<&'a RawValue>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    #[serde(borrow)]
    data_base64: Option<&'a RawValue>,
}

impl Attributes {
    /// Takes the attribute of a header `ce_<name>`; others than ours are passed over.
    pub fn set(&mut self, name: &str, value: &str) {
        let place = match name {
            "type" => &mut self.kind,
            "source" => &mut self.source,
            "subject" => &mut self.subject,
            "id" => &mut self.id,
            "partitarule" => &mut self.rule,
            "partitadepth" => {
                self.depth = value.parse().ok();
                return;
            }
            "time" => {
                self.time = Timestamp::parse(value);
                return;
            }
            _ => return,
        };
        *place = Some(value.to_owned());
    }

    /// The event as rules see it: the data with the attributes under `ce`. Data that is no object
    /// stays as it is.
    pub fn beside(&self, data: &Json) -> Json {
        let Some(members) = data.as_str().strip_prefix('{') else {
            return data.clone();
        };
        let Ok(attributes) = serde_json::to_string(self) else {
            return data.clone();
        };
        let comma = if members.trim_start().starts_with('}') {
            ""
        } else {
            ","
        };
        let text = format!("{{\"ce\":{attributes}{comma}{members}");
        Json::from_text(&text).unwrap_or_else(|_| data.clone())
    }

    /// An event without data, as rules see it.
    pub fn alone(&self) -> Json {
        #[derive(Serialize)]
        struct Alone<'a> {
            ce: &'a Attributes,
        }
        Json::from_serialize(&Alone { ce: self }).unwrap_or_default()
    }
}

impl Structured {
    /// Reads an envelope; `None` where the text is no CloudEvent: that takes a `specversion` and
    /// either a `type` or `data`.
    pub fn read(text: &str) -> Option<Self> {
        // Most events are none, and say so without being parsed.
        if !text.contains("specversion") {
            return None;
        }
        let envelope: Envelope<'_> = serde_json::from_str(text).ok()?;
        let string = |value: Option<&RawValue>| {
            value.and_then(|raw| serde_json::from_str::<String>(raw.get()).ok())
        };
        string(envelope.specversion)?;
        if envelope.kind.is_none() && envelope.data.is_none() {
            return None;
        }
        Some(Self {
            attributes: Attributes {
                kind: string(envelope.kind),
                source: string(envelope.source),
                subject: string(envelope.subject),
                id: string(envelope.id),
                time: string(envelope.time).and_then(|text| Timestamp::parse(&text)),
                rule: string(envelope.partitarule),
                depth: envelope
                    .partitadepth
                    .and_then(|raw| raw.get().trim_matches('"').parse().ok()),
            },
            data: envelope
                .data
                .and_then(|raw| Json::from_text(raw.get()).ok()),
            has_base64: envelope.data_base64.is_some(),
        })
    }

    /// The event as rules see it; without data an object that has only `ce`.
    pub fn payload(&self) -> Json {
        match &self.data {
            Some(data) => self.attributes.beside(data),
            None => self.attributes.alone(),
        }
    }
}

/// The attribute of a CloudEvent that says over how many rules it came about.
pub const DEPTH: &str = "partitadepth";

/// Over how many rules an event came about: the attribute `partitadepth` of a CloudEvent, 0 where it
/// has none.
pub fn depth(payload: &Json) -> u32 {
    #[derive(Deserialize)]
    struct Attributes {
        partitadepth: Option<u32>,
    }
    #[derive(Deserialize)]
    struct Event {
        ce: Attributes,
    }
    // Most events are no CloudEvents, and of those few have it: neither is parsed.
    let text = payload.as_str();
    if !text.starts_with(r#"{"ce":"#) || !text.contains(DEPTH) {
        return 0;
    }
    let event = serde_json::from_str::<Event>(text).ok();
    event.and_then(|event| event.ce.partitadepth).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(text: &str) -> Option<String> {
        Structured::read(text).map(|event| event.payload().as_str().to_owned())
    }

    #[test]
    fn an_envelope_gives_data_and_attributes() {
        let text = r#"{"specversion":"1.0","type":"t","source":"/s","id":"1","subject":"x",
            "time":"2026-01-31T12:00:00+01:00","traceparent":"00-1","data": {"a":1}}"#;
        assert_eq!(
            shown(text).unwrap(),
            r#"{"ce":{"type":"t","source":"/s","subject":"x","id":"1","time":"2026-01-31T11:00:00.000Z"},"a":1}"#
        );
        assert_eq!(
            shown(r#"{"specversion":"1.0","type":"t","data":{ }}"#).unwrap(),
            r#"{"ce":{"type":"t"} }"#
        );
        assert_eq!(
            shown(r#"{"specversion":"1.0","type":"t"}"#).unwrap(),
            r#"{"ce":{"type":"t"}}"#
        );
        assert_eq!(
            shown(r#"{"specversion":"1.0","type":"t","data":[1]}"#).unwrap(),
            "[1]"
        );
    }

    #[test]
    fn an_event_says_which_rule_it_stems_from() {
        for depth in ["2", r#""2""#] {
            let text = format!(
                r#"{{"specversion":"1.0","type":"t","partitarule":"r@1","partitadepth":{depth}}}"#
            );
            assert_eq!(
                shown(&text).unwrap(),
                r#"{"ce":{"type":"t","partitarule":"r@1","partitadepth":2}}"#
            );
        }
        let mut attributes = Attributes::default();
        attributes.set("partitarule", "r@1");
        attributes.set("partitadepth", "7");
        assert_eq!(
            (attributes.rule.as_deref(), attributes.depth),
            (Some("r@1"), Some(7))
        );
    }

    #[test]
    fn what_is_no_envelope_is_left_alone() {
        for text in [
            r#"{"type":"t","data":{}}"#,
            r#"{"specversion":1,"data":{}}"#,
            r#"{"note":"specversion","type":7}"#,
            r#"["specversion"]"#,
            r#"{"specversion":"1.0""#,
        ] {
            assert_eq!(Structured::read(text), None, "{text}");
        }
    }

    #[test]
    fn the_data_s_own_member_hides_the_attributes() {
        let text = r#"{"specversion":"1.0","type":"t","data":{"ce":5}}"#;
        let tree: serde_json::Value = Structured::read(text).unwrap().payload().parse().unwrap();
        assert_eq!(tree, serde_json::json!({"ce": 5}));
    }

    #[test]
    fn a_depth_is_an_attribute_and_nothing_else() {
        for (text, expected) in [
            (r#"{"ce":{"type":"t","partitadepth":3},"a":1}"#, 3),
            (r#"{"ce":{"type":"t"},"partitadepth":3}"#, 0),
            (r#"{"a":{"partitadepth":3}}"#, 0),
            (r#"{"ce":{"partitadepth":-1}}"#, 0),
            (r#"{"ce":{"partitadepth":"x"}}"#, 0),
            (r#"{"ce":5,"partitadepth":3}"#, 0),
            ("{}", 0),
        ] {
            assert_eq!(depth(&Json::from_text(text).unwrap()), expected, "{text}");
        }
    }
}
