//! A JSON value as text. Inputs and outputs pass through the engine far more often than anything
//! looks into them, so they stay text until an expression asks.

use std::borrow::Cow;
use std::fmt;
use std::sync::{Arc, LazyLock};

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;

/// One valid JSON value, kept as its text. Cloning is a reference count.
#[derive(Clone)]
pub struct Json(Arc<RawValue>);

impl Json {
    /// `null`; one value shared by all.
    pub fn null() -> Self {
        Self::none().clone()
    }

    /// `null`, to look at.
    pub fn none() -> &'static Self {
        static NULL: LazyLock<Json> =
            LazyLock::new(|| Json::from_text("null").expect("null is JSON"));
        &NULL
    }

    /// Checks that `text` is one JSON value and keeps it (surrounding white space is dropped).
    pub fn from_text(text: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str::<Box<RawValue>>(text).map(|raw| Self(Arc::from(raw)))
    }

    /// Serialises any value. Fails only where serde fails (a map with keys that are not strings).
    pub fn from_serialize<T: Serialize + ?Sized>(value: &T) -> Result<Self, serde_json::Error> {
        serde_json::value::to_raw_value(value).map(|raw| Self(Arc::from(raw)))
    }

    pub fn as_str(&self) -> &str {
        self.0.get()
    }

    /// Length of the text in bytes: what `max_payload_bytes` measures.
    pub fn len(&self) -> usize {
        self.0.get().len()
    }

    pub fn is_empty(&self) -> bool {
        false
    }

    pub fn is_null(&self) -> bool {
        self.0.get() == "null"
    }

    /// Reads the text as a value of another type.
    ///
    /// # Errors
    /// Where the value is not of that form, and where it nests deeper than serde_json follows
    /// (128 levels): such a payload can be carried but not looked into.
    pub fn parse<T: serde::de::DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_str(self.0.get())
    }
}

impl From<&serde_json::Value> for Json {
    fn from(value: &serde_json::Value) -> Self {
        Self::from_serialize(value).expect("a JSON tree always serialises")
    }
}

impl From<serde_json::Value> for Json {
    fn from(value: serde_json::Value) -> Self {
        Self::from(&value)
    }
}

/// Equal as values: white space and the order of keys do not matter (they do in a value that is too
/// deep to look into, which equals its own text alone).
impl PartialEq for Json {
    fn eq(&self, other: &Self) -> bool {
        let tree = |json: &Json| json.parse::<serde_json::Value>().ok();
        self.as_str() == other.as_str()
            || tree(self).is_some_and(|value| Some(value) == tree(other))
    }
}

impl fmt::Debug for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Default for Json {
    fn default() -> Self {
        Self::null()
    }
}

/// As the value in formats that people read (which are JSON, in this house), as its text in others.
impl Serialize for Json {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if !serializer.is_human_readable() {
            return serializer.serialize_str(self.as_str());
        }
        self.0.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if !deserializer.is_human_readable() {
            let text = String::deserialize(deserializer)?;
            return Json::from_text(&text).map_err(serde::de::Error::custom);
        }
        Box::<RawValue>::deserialize(deserializer).map(|raw| Self(Arc::from(raw)))
    }
}

/// `json` without the white space around its values, which makes it one line. Its values are not looked into.
pub fn compact(json: &str) -> Cow<'_, str> {
    let mut compacted = String::new();
    // Up to where `json` is dealt with.
    let mut done = 0;
    let (mut in_string, mut escaped) = (false, false);
    for (place, byte) in json.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b' ' | b'\t' | b'\n' | b'\r' if !in_string => {
                compacted.push_str(&json[done..place]);
                done = place + 1;
            }
            _ => {}
        }
    }
    if done == 0 {
        return Cow::Borrowed(json);
    }
    compacted.push_str(&json[done..]);
    Cow::Owned(compacted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn white_space_is_dropped_around_values_and_kept_in_them() {
        for (json, expected) in [
            (
                "{\r\n\"a\":\r1,\n\n\"b\" : [ 2,\t3 ] }\n",
                r#"{"a":1,"b":[2,3]}"#,
            ),
            (
                r#"{"a b": "c  \" d" , "e\\": " "}"#,
                r#"{"a b":"c  \" d","e\\":" "}"#,
            ),
            (" \"ä ö\" ", "\"ä ö\""),
            ("", ""),
        ] {
            assert_eq!(compact(json), expected, "{json}");
        }
        assert!(matches!(compact(r#"{"a":" "}"#), Cow::Borrowed(_)));
    }

    #[test]
    fn values_are_equal_whatever_their_text() {
        let json = |text: &str| Json::from_text(text).unwrap();
        assert_eq!(
            json(r#"{"a":1,"b":[2]}"#),
            json(r#" { "b": [2], "a": 1 } "#)
        );
        assert_ne!(json("1"), json("2"));
    }

    #[test]
    fn a_value_too_deep_to_look_into_is_carried_all_the_same() {
        let deep = |inner: &str| format!("{}{inner}{}", "[".repeat(5_000), "]".repeat(5_000));
        let (one, two) = (
            Json::from_text(&deep("1")).unwrap(),
            Json::from_text(&deep("2")).unwrap(),
        );
        assert_eq!(one, one.clone());
        assert_ne!(one, two);
        assert!(one.parse::<serde_json::Value>().is_err());
    }
}
