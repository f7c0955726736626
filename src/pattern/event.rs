//! Events as matchers see them: the fields that a rule asks for, interned into slots.

use std::borrow::Cow;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::model::{Json, Millis, Timestamp};

/// The first double that is too large for an `i64`: 2⁶³.
const TOO_LARGE: f64 = -(i64::MIN as f64);

/// The value of a field.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub enum Scalar {
    /// The event has no such field.
    #[default]
    Missing,
    Null,
    Bool(bool),
    Int(i64),
    /// Every JSON number that is no 64-bit integer.
    Float(f64),
    Text(#[serde(serialize_with = "put_text", deserialize_with = "take_text")] Arc<str>),
    /// A list or an object, as its JSON text.
    Container(Json),
}

fn put_text<S: Serializer>(text: &Arc<str>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(text)
}

fn take_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Arc<str>, D::Error> {
    String::deserialize(deserializer).map(Arc::from)
}

impl Scalar {
    /// Reads one JSON value from its text.
    pub fn from_json(text: &str) -> Self {
        match text.as_bytes().first() {
            Some(b'"') => match plain_string(text) {
                Some(plain) => Scalar::Text(plain.into()),
                None => serde_json::from_str::<String>(text)
                    .map_or(Scalar::Missing, |text| Scalar::Text(text.into())),
            },
            Some(b'{' | b'[') => Json::from_text(text).map_or(Scalar::Missing, Scalar::Container),
            Some(b't') => Scalar::Bool(true),
            Some(b'f') => Scalar::Bool(false),
            Some(b'n') => Scalar::Null,
            _ => match text.parse() {
                Ok(integer) if text != "-0" => Scalar::Int(integer),
                _ => serde_json::from_str(text).map_or(Scalar::Missing, Scalar::Float),
            },
        }
    }

    /// As JSON; a missing value is null.
    pub fn to_json(&self) -> serde_json::Value {
        match self {
            Scalar::Missing | Scalar::Null => serde_json::Value::Null,
            Scalar::Bool(value) => (*value).into(),
            Scalar::Int(value) => (*value).into(),
            Scalar::Float(value) => (*value).into(),
            Scalar::Text(text) => (**text).into(),
            Scalar::Container(json) => json.parse().unwrap_or(serde_json::Value::Null),
        }
    }

    /// The number, if it is one.
    pub(super) fn number(&self) -> Option<f64> {
        match self {
            Scalar::Int(value) => Some(*value as f64),
            Scalar::Float(value) => Some(*value),
            _ => None,
        }
    }

    /// A whole number as an integer, as keys are compared: 1.0 is 1.
    pub(super) fn whole(&self) -> Cow<'_, Scalar> {
        match self {
            Scalar::Float(value) => match integer(*value) {
                Some(value) => Cow::Owned(Scalar::Int(value)),
                None => Cow::Borrowed(self),
            },
            value => Cow::Borrowed(value),
        }
    }

    /// Whether it can stand in a correlation key. An integer that fits no `Int` has lost digits, and
    /// would be one with others.
    pub fn is_key(&self) -> bool {
        match self {
            Scalar::Missing | Scalar::Null | Scalar::Container(_) => false,
            Scalar::Float(value) => value.abs() < TOO_LARGE,
            Scalar::Bool(_) | Scalar::Int(_) | Scalar::Text(_) => true,
        }
    }
}

/// The integer that a double is, exactly.
fn integer(value: f64) -> Option<i64> {
    let is_one = value.fract() == 0.0 && (-TOO_LARGE..TOO_LARGE).contains(&value);
    is_one.then_some(value as i64)
}

/// What stands between the quotes of a JSON string that needs no decoding.
pub(super) fn plain_string(text: &str) -> Option<&str> {
    let inner = text.strip_prefix('"')?.strip_suffix('"')?;
    (!inner.contains('\\')).then_some(inner)
}

/// Equal as keys: by type and value; a whole `Float` equals the `Int` of the same value.
impl PartialEq for Scalar {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Scalar::Missing, Scalar::Missing) | (Scalar::Null, Scalar::Null) => true,
            (Scalar::Bool(one), Scalar::Bool(two)) => one == two,
            (Scalar::Int(one), Scalar::Int(two)) => one == two,
            (Scalar::Float(one), Scalar::Float(two)) => one == two,
            (Scalar::Int(int), Scalar::Float(float)) | (Scalar::Float(float), Scalar::Int(int)) => {
                integer(*float) == Some(*int)
            }
            (Scalar::Text(one), Scalar::Text(two)) => one == two,
            (Scalar::Container(one), Scalar::Container(two)) => one == two,
            _ => false,
        }
    }
}

impl Eq for Scalar {}

impl Hash for Scalar {
    fn hash<H: Hasher>(&self, hasher: &mut H) {
        match self {
            Scalar::Missing | Scalar::Null | Scalar::Container(_) => {}
            Scalar::Bool(value) => value.hash(hasher),
            Scalar::Int(value) => hasher.write_i64(*value),
            Scalar::Float(value) => match integer(*value) {
                Some(value) => hasher.write_i64(value),
                None => hasher.write_u64(value.to_bits()),
            },
            Scalar::Text(text) => text.hash(hasher),
        }
    }
}

/// One record, decoded. Everything is borrowed: an event that nothing matches costs no allocation.
#[derive(Clone, Copy, Debug)]
pub struct Event<'a> {
    /// Place of its topic in the rule's list.
    pub topic: u16,
    /// Event time.
    pub at: Timestamp,
    /// What the caller calls it (a line, an index into its table of offsets); given back in
    /// matches.
    pub position: u64,
    /// The values of the rule's fields, in their order.
    pub slots: &'a [Scalar],
    /// What `event` stands for in expressions that are not lowered, and in `matches` of a start's
    /// input.
    pub payload: &'a Json,
}

/// What a record says beside its event.
#[derive(Clone, Copy, Debug, Default)]
pub struct Recorded<'a> {
    /// The record's own time: of a CloudEvent its `time`, else the timestamp.
    pub at: Option<Timestamp>,
    /// When it was written, or an instant after that; `None`: nobody knows.
    pub written: Option<Timestamp>,
    pub headers: &'a [(String, Vec<u8>)],
}

impl Recorded<'_> {
    /// When the record was written, where `at` is more than `most` ahead of that.
    pub(super) fn is_passed(&self, at: Timestamp, most: Millis) -> Option<Timestamp> {
        self.written.filter(|written| at > *written + most)
    }

    /// The value of a header; of a name that is repeated the last counts.
    pub(super) fn header(&self, name: &str) -> Option<&[u8]> {
        let mut headers = self.headers.iter().rev();
        let found = headers.find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_slice())
    }
}

/// A record without headers.
impl From<Option<Timestamp>> for Recorded<'_> {
    fn from(at: Option<Timestamp>) -> Self {
        Self {
            at,
            ..Self::default()
        }
    }
}

/// An event that a partial match holds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Taken {
    pub at: Timestamp,
    /// Dense number among the events of its key, after reordering; breaks ties of event time.
    pub order: u64,
    pub position: u64,
    /// Kept only by rules whose conditions look back at earlier events.
    pub slots: Option<Box<[Scalar]>>,
    pub payload: Json,
}

impl Taken {
    /// Keeps `event`.
    pub fn new(event: &Event<'_>, order: u64, keep_slots: bool) -> Self {
        Self {
            at: event.at,
            order,
            position: event.position,
            slots: keep_slots.then(|| event.slots.into()),
            payload: event.payload.clone(),
        }
    }
}
