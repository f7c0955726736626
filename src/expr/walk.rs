//! Finding a part of a JSON text without building a tree: a member of an object or an element of
//! an array is a range of the text. The text is known to be valid JSON, so no check is repeated
//! here; all loops are flat, whatever the depth.

use std::borrow::Cow;
use std::ops::Range;

/// What a JSON text begins as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    Null,
    Bool(bool),
    Number,
    String,
    Array,
    Object,
}

impl Shape {
    /// With its article, for messages.
    pub(super) fn described(self) -> &'static str {
        match self {
            Shape::Null => "null",
            Shape::Bool(_) => "a boolean",
            Shape::Number => "a number",
            Shape::String => "a string",
            Shape::Array => "a list",
            Shape::Object => "an object",
        }
    }
}

/// `text` is one JSON value without white space around it.
pub(super) fn shape(text: &str) -> Shape {
    match text.as_bytes().first() {
        Some(b'{') => Shape::Object,
        Some(b'[') => Shape::Array,
        Some(b'"') => Shape::String,
        Some(b't') => Shape::Bool(true),
        Some(b'f') => Shape::Bool(false),
        Some(b'n') => Shape::Null,
        _ => Shape::Number,
    }
}

/// The member `name` of an object; the last one where the name is repeated, as parsers that build
/// a tree have it.
pub(crate) fn member(object: &str, name: &str) -> Option<Range<usize>> {
    let named = members(object).filter(|(key, _)| string_equals(key, name));
    named.last().map(|(_, value)| value)
}

/// The members of an object, in order: the text of the name with its quotes (for [`string_equals`]),
/// and where the value is.
pub(crate) fn members(object: &str) -> impl Iterator<Item = (&str, Range<usize>)> {
    let bytes = object.as_bytes();
    let mut at = skip_space(bytes, 1);
    std::iter::from_fn(move || {
        if bytes.get(at) != Some(&b'"') {
            return None;
        }
        let key = at..skip_string(bytes, at);
        let colon = skip_space(bytes, key.end);
        let value = skip_space(bytes, colon + 1);
        let value = value..skip_value(bytes, value);
        at = after_comma(bytes, value.end);
        Some((&object[key], value))
    })
}

/// The element of an array at `index`.
pub(crate) fn element(array: &str, index: usize) -> Option<Range<usize>> {
    elements(array).nth(index)
}

/// The elements of an array, in order.
pub(super) fn elements(array: &str) -> impl Iterator<Item = Range<usize>> {
    let bytes = array.as_bytes();
    let mut at = skip_space(bytes, 1);
    std::iter::from_fn(move || {
        if at >= bytes.len() || bytes[at] == b']' {
            return None;
        }
        let end = skip_value(bytes, at);
        let range = at..end;
        at = after_comma(bytes, end);
        Some(range)
    })
}

/// The value of a JSON string (with its quotes); borrowed where nothing is escaped.
pub(super) fn decode_string(text: &str) -> Cow<'_, str> {
    let inner = &text[1..text.len() - 1];
    if !inner.contains('\\') {
        return Cow::Borrowed(inner);
    }
    Cow::Owned(serde_json::from_str(text).unwrap_or_else(|_| inner.to_owned()))
}

/// Whether the JSON string `text` (with its quotes) has this value.
pub(crate) fn string_equals(text: &str, expected: &str) -> bool {
    let inner = &text[1..text.len() - 1];
    if inner.len() < expected.len() {
        return false;
    }
    inner == expected || (inner.contains('\\') && decode_string(text) == expected)
}

fn skip_space(bytes: &[u8], mut at: usize) -> usize {
    while matches!(bytes.get(at), Some(b' ' | b'\t' | b'\n' | b'\r')) {
        at += 1;
    }
    at
}

fn after_comma(bytes: &[u8], at: usize) -> usize {
    let at = skip_space(bytes, at);
    if bytes.get(at) == Some(&b',') {
        skip_space(bytes, at + 1)
    } else {
        at
    }
}

/// From an opening quote to just behind the closing one.
fn skip_string(bytes: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while at < bytes.len() {
        match bytes[at] {
            b'"' => return at + 1,
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
    bytes.len()
}

/// From the first byte of a value to just behind its last.
fn skip_value(bytes: &[u8], start: usize) -> usize {
    match bytes.get(start) {
        Some(b'"') => skip_string(bytes, start),
        Some(b'{' | b'[') => skip_container(bytes, start),
        _ => {
            let rest = &bytes[start.min(bytes.len())..];
            let length = rest.iter().position(|byte| b",]} \t\n\r".contains(byte));
            start + length.unwrap_or(rest.len())
        }
    }
}

fn skip_container(bytes: &[u8], start: usize) -> usize {
    let mut depth = 0usize;
    let mut at = start;
    while at < bytes.len() {
        match bytes[at] {
            b'"' => {
                at = skip_string(bytes, at);
                continue;
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' => {
                depth -= 1;
                if depth == 0 {
                    return at + 1;
                }
            }
            _ => {}
        }
        at += 1;
    }
    bytes.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_members_and_elements_where_they_are() {
        let text =
            r#"{ "a" : [1, {"b":"]}\""} ,null ] , "é\u0061": -1.5e3,"x":1,"x":2,"deep":{"x":3} }"#;
        let at = |name: &str| member(text, name).map(|range| &text[range]);
        assert_eq!(at("a"), Some(r#"[1, {"b":"]}\""} ,null ]"#));
        assert_eq!(at("éa"), Some("-1.5e3"));
        assert_eq!(at("x"), Some("2"), "the last of two wins");
        assert_eq!(at("b"), None, "only this level counts");
        let array = at("a").expect("there");
        assert_eq!(
            element(array, 1).map(|range| &array[range]),
            Some(r#"{"b":"]}\""}"#)
        );
        assert_eq!(element(array, 2).map(|range| &array[range]), Some("null"));
        assert_eq!(element(array, 3), None);
        assert_eq!(elements("[ ]").count(), 0);
        assert_eq!(member("{}", "a"), None);
    }

    #[test]
    fn depth_costs_no_stack() {
        let deep = format!(
            "{{\"a\":{}{},\"b\":7}}",
            "[".repeat(200_000),
            "]".repeat(200_000)
        );
        assert_eq!(member(&deep, "b").map(|range| &deep[range]), Some("7"));
    }
}
