//! What a rule reads of an event: the values of its fields, and when it was.

use super::event::{Recorded, Scalar};
use super::rule::{Rule, TimeSource};
use crate::expr::{Segment, walk};
use crate::model::{Json, Millis, Timestamp};

/// Why an event has no time that its rule goes by.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoTime {
    /// The field or the header holds none, or nothing says when it was.
    #[error("{0}")]
    Unreadable(String),
    /// Taken, it would make late whatever comes until then.
    #[error(
        "event time is {at}, more than {} ms (`time.max_ahead`) ahead of {written}, by when its record was written", max_ahead.0
    )]
    Ahead {
        at: Timestamp,
        written: Timestamp,
        max_ahead: Millis,
    },
}

impl NoTime {
    /// Of its dead letter.
    pub fn class(&self) -> &'static str {
        match self {
            NoTime::Unreadable(_) => "no_event_time",
            NoTime::Ahead { .. } => "event_time_ahead",
        }
    }
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
    /// See [`NoTime`].
    pub fn event_time(
        &self,
        slots: &[Scalar],
        recorded: Recorded<'_>,
    ) -> Result<Timestamp, NoTime> {
        let at = self.time_in(slots, recorded).map_err(NoTime::Unreadable)?;
        let max_ahead = self.time.max_ahead;
        match recorded.is_passed(at, max_ahead) {
            None => Ok(at),
            Some(written) => Err(NoTime::Ahead {
                at,
                written,
                max_ahead,
            }),
        }
    }

    fn time_in(&self, slots: &[Scalar], recorded: Recorded<'_>) -> Result<Timestamp, String> {
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

#[cfg(test)]
mod tests {
    use super::*;

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
