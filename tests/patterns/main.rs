//! The table suite of patterns: each case is a rule, its events and what must come out. The same
//! cases pass in the matcher, driven event by event, and in the naive matcher of `reference`;
//! `agreement` holds both against each other on random rules and streams.

mod agreement;
mod bounds;
mod drive;
mod examples;
mod random;
mod reference;
mod replaced;
mod tables;

use std::sync::Arc;

use partita::pattern::{Matcher, Rule, syntax};
use partita::runtime::replay::replay;
use serde_json::{Map, Value, json};

/// Events may be short: `{a: 1}` at its place gets `t` (event time) from the case's `step`, and the
/// topic is the rule's only one unless `topic` stands in the event. The record has the `headers` that
/// stand in it.
fn record(event: &Value, place: usize) -> String {
    let at = event.get("t").cloned().unwrap_or(json!(place + 1));
    let mut record = match event.get("topic") {
        Some(topic) => {
            json!({"topic": topic, "key": event["key"], "ts": at, "payload": event.to_string()})
        }
        None => json!({"topic": "t", "ts": at, "payload": event.to_string()}),
    };
    record["headers"] = tables::header_list(event);
    record.to_string()
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
    let rule = tables::rule_of(case);
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
    let found = replay(
        &rules[..1],
        &lines.join("\n"),
        advance.map(partita::model::Timestamp),
        1 << 20,
    )
    .map_err(|error| error.to_string())?
    .document();
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
    if !agrees(&expected, &found) {
        return Err(format!("expected {expected}\nfound {found}"));
    }
    check_others(&rules[0], events, advance, &found)
}

/// What becomes of the matcher between two events: all that it knows is saved, and put into another.
fn between_events(mut matcher: Matcher) -> Matcher {
    let mut other = Matcher::new(matcher.rule().clone(), true);
    // What is put back counts as changed, so that it is saved again the next time.
    other.note_changes();
    other.resume(matcher.progress());
    matcher.take_changed(&mut |key, saved| {
        if let Some(saved) = saved {
            other.restore(key, &saved).expect("what was just saved");
        }
    });
    other
}

/// The matcher driven event by event, and the reference, find the same as the replay did.
fn check_others(
    rule: &Arc<Rule>,
    events: &[Value],
    advance: Option<i64>,
    found: &Value,
) -> Result<(), String> {
    let inputs = random::inputs(rule, events);
    let driven = drive::drive(rule, &inputs, advance, &between_events);
    let lines = |events: &[(u16, u64)]| {
        let mut lines = Map::new();
        for (name, position) in events {
            let name = rule.names[usize::from(*name)].to_string();
            let of_name = lines.entry(name).or_insert_with(|| json!([]));
            of_name
                .as_array_mut()
                .expect("a list")
                .push(json!(position));
        }
        json!({ "events": lines })
    };
    let shown: Vec<Value> = driven
        .matches
        .iter()
        .map(|found| lines(&found.events))
        .collect();
    if !agrees(&json!(shown), &found["matches"]) {
        return Err(format!("driven event by event, {}", json!(shown)));
    }
    let end = advance.or_else(|| {
        let mut matcher = Matcher::new(rule.clone(), false);
        for input in &inputs {
            matcher.push(&input.event(), &mut Default::default());
        }
        matcher.end_of_windows().map(|end| end.0)
    });
    let Some(end) = end.filter(|_| reference::knows(rule)) else {
        return Ok(());
    };
    match reference::run(rule, &inputs, end) {
        Ok(expected) if drive::by_key(expected.clone()) == drive::by_key(driven.clone()) => Ok(()),
        Ok(expected) => Err(format!(
            "the reference found {expected:?}, the matcher {driven:?}"
        )),
        Err(reference::TooMany) => Err("too much for the reference".to_owned()),
    }
}

#[test]
fn every_case_comes_out_as_written() {
    let (mut count, mut failures) = (0, Vec::new());
    for (file, case) in tables::cases() {
        count += 1;
        if let Err(message) = run(&case) {
            let name = case["name"].as_str().unwrap_or("?");
            failures.push(format!("{}: {name}: {message}", file.display()));
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
