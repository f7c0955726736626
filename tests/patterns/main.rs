//! The table suite of patterns: each case is a rule, its events and what must come out.

use std::path::Path;

use partita::pattern::{replay, syntax};
use serde_json::{Value, json};

/// Events may be short: `{a: 1}` at its place gets `t` (event time) from the case's `step`, and the
/// topic is the rule's only one unless `topic` stands in the event.
fn record(event: &Value, place: usize) -> String {
    let at = event.get("t").cloned().unwrap_or(json!(place + 1));
    match event.get("topic") {
        Some(topic) => json!({"topic": topic, "ts": at, "payload": event.to_string()}),
        None => json!({"topic": "t", "ts": at, "payload": event.to_string()}),
    }
    .to_string()
}

/// Members that `expected` names must be the same; lists as a whole.
fn agrees(expected: &Value, found: &Value) -> bool {
    match (expected, found) {
        (Value::Object(expected), Value::Object(_)) => expected
            .iter()
            .all(|(name, value)| agrees(value, &found[name.as_str()])),
        (Value::Array(expected), Value::Array(found)) => {
            expected.len() == found.len()
                && expected
                    .iter()
                    .zip(found)
                    .all(|(one, two)| agrees(one, two))
        }
        _ => expected == found,
    }
}

fn run(case: &Value) -> Result<(), String> {
    let mut rule = case["rule"].clone();
    let defaults = json!({"kind": "rule", "name": "r"});
    for (name, value) in defaults.as_object().into_iter().flatten() {
        if rule.get(name).is_none() {
            rule[name.as_str()] = value.clone();
        }
    }
    let rules = match (syntax::parse(&rule.to_string(), None), case.get("refused")) {
        (Ok(_), Some(refused)) => return Err(format!("it was not refused with {refused}")),
        (Ok(rules), None) => rules,
        (Err(violations), Some(refused)) => {
            let (text, refused) = (violations.to_string(), refused.as_str().unwrap_or_default());
            return if !refused.is_empty() && text.contains(refused) {
                Ok(())
            } else {
                Err(format!("refused with:\n{text}\nnot with: {refused}"))
            };
        }
        (Err(violations), None) => return Err(violations.to_string()),
    };
    let events = case["events"].as_array().ok_or("no events")?;
    let lines: Vec<String> = events
        .iter()
        .enumerate()
        .map(|(place, event)| record(event, place))
        .collect();
    let advance = case.get("advance_to").and_then(Value::as_i64);
    let found = replay::replay(
        &rules[0],
        &lines.join("\n"),
        advance.map(partita::model::Timestamp),
    )
    .map_err(|error| error.to_string())?;
    let expected = case.get("expect").ok_or("no `expect`")?;
    // `expect: [{a: [1]}]` is short for the events of all matches.
    let expected = match expected {
        Value::Array(matches) => {
            let whole = matches.iter().map(|events| json!({"events": events}));
            let found_events: Vec<&Value> = found["matches"]
                .as_array()
                .into_iter()
                .flatten()
                .map(|found| &found["events"])
                .collect();
            if found_events != matches.iter().collect::<Vec<_>>() {
                return Err(format!("found {}", json!(found_events)));
            }
            json!({"matches": whole.collect::<Vec<_>>()})
        }
        other => other.clone(),
    };
    if agrees(&expected, &found) {
        Ok(())
    } else {
        Err(format!("expected {expected}\nfound {found}"))
    }
}

#[test]
fn every_case_comes_out_as_written() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/patterns");
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .expect("the folder is there")
        .map(|entry| entry.expect("it can be listed").path())
        .filter(|path| path.extension().is_some_and(|end| end == "yaml"))
        .collect();
    files.sort();
    let (mut count, mut failures) = (0, Vec::new());
    for file in files {
        let text = std::fs::read_to_string(&file).expect("a case file is text");
        let cases: Vec<Value> = serde_saphyr::from_str(&text).expect("a case file is a list");
        for case in cases {
            count += 1;
            if let Err(message) = run(&case) {
                let name = case["name"].as_str().unwrap_or("?");
                failures.push(format!("{}: {name}: {message}", file.display()));
            }
        }
    }
    println!("{count} cases");
    assert!(count > 0);
    assert!(
        failures.is_empty(),
        "{} of {count} fail:\n{}",
        failures.len(),
        failures.join("\n")
    );
}
