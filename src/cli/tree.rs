//! JSON of the server as a tree to make tables of, however odd the payloads in it are.
//!
//! Partita carries payloads as text and looks into them only where it must, so one may be what no tree holds:
//! nested deeper than serde_json follows, half a surrogate pair, a number beyond 64 bits. In the tree such a
//! value stands as its text, in a string, with all that surrounds it.

use std::collections::BTreeMap;

use serde_json::Value;
use serde_json::value::RawValue;

/// How deep odd values are looked for; the API nests its own members less deep.
const LEVELS: usize = 8;

/// Fails only where `json` is no JSON.
pub fn read(json: &str) -> serde_json::Result<Value> {
    // Skipping over a raw value takes no stack, however deep it is.
    serde_json::from_str(json).or_else(|_| Ok(around_odd(serde_json::from_str(json)?, LEVELS)))
}

fn around_odd(raw: &RawValue, levels: usize) -> Value {
    let text = raw.get();
    if let Ok(value) = serde_json::from_str(text) {
        return value;
    }
    if let Some(levels) = levels.checked_sub(1) {
        if let Ok(members) = serde_json::from_str::<BTreeMap<String, &RawValue>>(text) {
            let members = members.into_iter();
            return members
                .map(|(name, member)| (name, around_odd(member, levels)))
                .collect();
        }
        if let Ok(items) = serde_json::from_str::<Vec<&RawValue>>(text) {
            let items = items.into_iter();
            return items.map(|item| around_odd(item, levels)).collect();
        }
    }
    Value::String(text.to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_no_tree_holds_stands_as_its_text() {
        for odd in [r#""\ud800""#, "1e400", r#"{"\ud800":1}"#] {
            let run = read(&format!(
                r#"{{"id":"r","steps":[{{"output":{odd},"n":1}}]}}"#
            ))
            .unwrap();
            assert_eq!(run, json!({"id": "r", "steps": [{"output": odd, "n": 1}]}));
        }
        assert_eq!(
            read(r#"{"a":[1e400,2]}"#).unwrap(),
            json!({"a": ["1e400", 2]})
        );
    }

    #[test]
    fn a_value_however_deep_hides_nothing_beside_it() {
        let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
        let run = read(&format!(r#"{{"input":{deep},"id":"r"}}"#)).unwrap();
        assert_eq!(run["id"], "r");
        assert!(
            run["input"].to_string().starts_with("[[["),
            "{}",
            run["input"]
        );
    }

    #[test]
    fn what_is_no_json_is_an_error() {
        for wrong in ["", "{", r#"{"a":1} 2"#, "no"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
