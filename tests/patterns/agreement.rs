//! Random rules on random streams: the matchers and the reference give the same.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use partita::pattern::{Rule, Shape};
use serde_json::{Value, json};

use crate::drive::{by_key, drive};
use crate::random::{self, Random};
use crate::reference::{self, Expected};

const CASES: u64 = 100_000;
const SEED: u64 = 20_261_121;
/// Streams that each rule is tried on.
const STREAMS: u64 = 4;
/// After so many it stops.
const MOST_DIFFERENCES: usize = 8;

enum Verdict {
    /// Matches and timeouts.
    Agree(usize, usize),
    /// Both answers.
    Differ(String),
    /// Nothing arrives, or more than the reference can try.
    PassedOver,
}

fn judge(rule: &Arc<Rule>, events: &[Value], rest: i64) -> Verdict {
    let inputs = random::inputs(rule, events);
    let Some(last) = inputs.iter().map(|input| input.at.0).max() else {
        return Verdict::PassedOver;
    };
    let end = last + rest;
    let Ok(expected) = reference::run(rule, &inputs, end).map(by_key) else {
        return Verdict::PassedOver;
    };
    let driven = catch_unwind(AssertUnwindSafe(|| {
        by_key(drive(rule, &inputs, Some(end), &crate::between_events))
    }));
    let shown = show("reference", &expected);
    match driven {
        Ok(actual) if actual == expected => {
            Verdict::Agree(expected.matches.len(), expected.timed_out.len())
        }
        Ok(actual) => Verdict::Differ(format!("{shown}\n{}", show("matcher", &actual))),
        Err(_) => Verdict::Differ(format!("{shown}\nmatcher: it panicked")),
    }
}

fn show(who: &str, outputs: &Expected) -> String {
    let list = |outputs: &[reference::Output]| {
        let lines = outputs.iter().map(|output| {
            let (call, key, at) = (output.call, &output.key, output.at);
            format!("    call {call}, key [{key}], at {at}: {:?}", output.events)
        });
        lines.collect::<Vec<_>>().join("\n")
    };
    format!(
        "{who}: late {:?}, unkeyed {:?}\n  matches\n{}\n  timed out\n{}",
        outputs.late,
        outputs.unkeyed,
        list(&outputs.matches),
        list(&outputs.timed_out)
    )
}

/// Every document that lacks one member or element of `value`.
fn smaller(value: &Value) -> Vec<Value> {
    let mut found = Vec::new();
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                let mut without = members.clone();
                without.remove(name);
                found.push(Value::Object(without));
                for part in smaller(member) {
                    let mut with = members.clone();
                    with.insert(name.clone(), part);
                    found.push(Value::Object(with));
                }
            }
        }
        Value::Array(items) => {
            for (place, item) in items.iter().enumerate() {
                let mut without = items.clone();
                without.remove(place);
                found.push(Value::Array(without));
                for part in smaller(item) {
                    let mut with = items.clone();
                    with[place] = part;
                    found.push(Value::Array(with));
                }
            }
        }
        _ => {}
    }
    found
}

/// Leaves out whatever can be left out while both still differ.
fn minimal(mut text: Value, mut events: Vec<Value>, rest: i64) -> (Value, Vec<Value>, String) {
    let differ = |text: &Value, events: &[Value]| {
        let rule = random::parse(text)?;
        match judge(&rule, events, rest) {
            Verdict::Differ(difference) => Some(difference),
            _ => None,
        }
    };
    let mut found = differ(&text, &events).unwrap_or_default();
    loop {
        let fewer = smaller(&json!(events)).into_iter();
        let fewer = fewer.filter_map(|events| events.as_array().cloned());
        let shorter = fewer
            .filter(|events| events.iter().all(|event| event["t"].is_i64()))
            .find_map(|events| differ(&text, &events).map(|found| (events, found)));
        if let Some((shorter, difference)) = shorter {
            (events, found) = (shorter, difference);
            continue;
        }
        let mut simpler = smaller(&text).into_iter();
        let simpler = simpler.find_map(|text| differ(&text, &events).map(|found| (text, found)));
        match simpler {
            Some((simpler, difference)) => (text, found) = (simpler, difference),
            None => return (text, events, found),
        }
    }
}

fn setting(name: &str, default: u64) -> u64 {
    let text = std::env::var(name).ok();
    text.map_or(default, |text| text.parse().expect("a number"))
}

/// `PATTERN_SEED` and `PATTERN_CASES` set the seed and the number of cases.
#[test]
fn matchers_and_reference_agree() {
    let (seed, cases) = (
        setting("PATTERN_SEED", SEED),
        setting("PATTERN_CASES", CASES),
    );
    println!("PATTERN_SEED={seed} PATTERN_CASES={cases}");
    let began = Instant::now();
    let mut random = Random(seed);
    let (mut done, mut refused, mut matches, mut timeouts, mut skipped) = (0, 0, 0, 0, 0);
    // Cases of windows and of comparisons with earlier values, and their matches.
    let mut of_numbers = (0, 0);
    let mut differences: Vec<String> = Vec::new();
    while done < cases && differences.len() < MOST_DIFFERENCES {
        let (text, rule) = random::rule(&mut random);
        let Some(rule) = rule else {
            refused += 1;
            continue;
        };
        let is_disordered = text.get("time").is_some() || random.percent(10);
        let has_numbers = matches!(rule.shape, Shape::Window(_)) || !rule.measures.is_empty();
        let most = if has_numbers { 16 } else { 9 };
        for _ in 0..STREAMS {
            let events = random::stream(&mut random, is_disordered, most);
            let rest = [0, 3, 10, 1_000][random.below(4) as usize];
            match judge(&rule, &events, rest) {
                Verdict::Agree(found, ran_out) => {
                    matches += found;
                    timeouts += ran_out;
                    if has_numbers {
                        of_numbers.0 += 1;
                        of_numbers.1 += found;
                    }
                }
                Verdict::PassedOver => skipped += 1,
                Verdict::Differ(difference) => {
                    let (text, events, smallest) = minimal(text.clone(), events, rest);
                    let events: Vec<String> = events.iter().map(Value::to_string).collect();
                    let events = events.join("\n    - ");
                    differences.push(format!(
                        "case {done}\n{difference}\nat its smallest, with {rest} ms after the last event:\n- rule: {text}\n  events:\n    - {events}\n{smallest}"
                    ));
                }
            }
            done += 1;
        }
    }
    println!(
        "{done} cases ({of_numbers:?} of numbers): {matches} matches, {timeouts} timed out, {skipped} passed over, {refused} rules refused, {:?}",
        began.elapsed()
    );
    assert!(
        differences.is_empty(),
        "seed {seed}: {} differ\n{}",
        differences.len(),
        differences.join("\n\n")
    );
    // The cases would prove little if nothing ever matched, or most were passed over.
    assert!(matches as u64 > done / 2 && timeouts as u64 > done / 4);
    assert!(skipped < done / 5 && refused < done);
    assert!(of_numbers.0 > done / 5 && of_numbers.1 as u64 > of_numbers.0 / 2);
}
