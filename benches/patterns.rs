//! The matcher on the stream that other engines are measured on: ten types, one value in [0, 1),
//! one event a millisecond. Prints events per second of one thread, events in memory, and the
//! number of matches, which is the same on every machine.
//!
//! `cargo bench --bench patterns [-- EVENTS]`; without an argument a million events.

use std::sync::Arc;
use std::time::Instant;

use partita::model::{Json, Timestamp};
use partita::pattern::{Event, Matcher, Outputs, Rule, Scalar, syntax};

struct Stream {
    state: u64,
}

impl Stream {
    fn next(&mut self) -> u64 {
        self.state = self
            .state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        self.state
    }
}

/// Type, and the slots `key` and `value`.
struct Record {
    kind: u8,
    slots: [Scalar; 2],
}

fn records(count: usize, keys: u64) -> Vec<Record> {
    let mut stream = Stream { state: 42 };
    (0..count)
        .map(|_| {
            let kind = ((stream.next() >> 33) % 10) as u8;
            let key = ((stream.next() >> 33) % keys) as i64;
            let value = (stream.next() >> 11) as f64 * 2f64.powi(-53);
            Record {
                kind,
                slots: [Scalar::Int(key), Scalar::Float(value)],
            }
        })
        .collect()
}

fn step(id: &str, over: f64, next: &str) -> String {
    format!("{{id: {id}, topic: {id}, where: 'event.value > {over:?}', next: {next}}}")
}

/// The patterns by name, for a window of `w` milliseconds.
fn rule(name: &str, w: u64, keys: u64) -> Option<Arc<Rule>> {
    let one = keys == 1;
    let last = if one { 0.999 } else { 0.99 };
    let condition =
        |id: &str, over: f64| format!("{{id: {id}, topic: {id}, where: 'event.value > {over:?}'}}");
    let sequence = |next: &str| {
        let steps = [
            condition("A", 0.5),
            step("B", 0.5, next),
            step("C", last, next),
        ];
        format!("sequence: {{within: {w}ms, steps: [{}]}}", steps.join(", "))
    };
    let (shape, skip) = match name {
        "p1" => (format!("any: [{}]", condition("A", 0.9)), "no_skip"),
        "p2a" => (sequence("relaxed"), "skip_past_last"),
        "p2b" => (sequence("any"), "no_skip"),
        "p3" => {
            let conditions = [
                condition("A", 0.5),
                condition("B", 0.5),
                condition("C", last),
            ];
            let list = conditions.join(", ");
            (
                format!("all: {{within: {w}ms, conditions: [{list}]}}"),
                "skip_past_last",
            )
        }
        "p4" => {
            let over = if one { 1.0 - 62.0 / w as f64 } else { 0.0 };
            let (a, b) = (condition("A", 0.5), condition("B", over));
            (
                format!("absent: {{within: {w}ms, after: {a}, expect: {b}}}"),
                "no_skip",
            )
        }
        _ => return None,
    };
    let text = format!(
        "kind: rule\nname: {name}\ncorrelate: {{by: [key]}}\nmatch:\n  {shape}\nemit: {{after_match: {skip}}}\n"
    );
    let rules =
        syntax::parse(&text, Some(name)).unwrap_or_else(|violations| panic!("{violations}"));
    rules.into_iter().next()
}

fn run(name: &str, w: u64, keys: u64, records: &[Record]) {
    let Some(rule) = rule(name, w, keys) else {
        return;
    };
    // `correlate.by` and the conditions name two fields, in this order.
    assert_eq!(rule.fields.len(), 2);
    let topics: Vec<u16> = (b'A'..=b'J')
        .map(|kind| {
            let kind = char::from(kind).to_string();
            let place = rule.topics.iter().position(|topic| **topic == *kind);
            place.map_or(u16::MAX, |place| place as u16)
        })
        .collect();
    let payload = Json::null();
    let mut matcher = Matcher::new(rule, false);
    let mut out = Outputs::default();
    let (mut matches, mut early) = (0, 0);
    let start = Instant::now();
    for (place, record) in records.iter().enumerate() {
        if place == 100_000 {
            early = matches;
        }
        let event = Event {
            topic: topics[usize::from(record.kind)],
            at: Timestamp(place as i64),
            position: place as u64,
            slots: &record.slots,
            payload: &payload,
        };
        matcher.push(&event, &mut out);
        if !out.matches.is_empty() {
            matches += out.matches.len();
            out.matches.clear();
        }
    }
    let seconds = start.elapsed().as_secs_f64();
    println!(
        "{name:4} W={w:<7} K={keys:<6} {:>8.2} M events/s  matches {early} of the first 100,000, {matches} in all",
        records.len() as f64 / seconds / 1e6,
    );
}

fn main() {
    let count = std::env::args()
        .skip(1)
        .find_map(|argument| argument.parse().ok())
        .unwrap_or(1_000_000);
    for keys in [1, 10_000] {
        let records = records(count, keys);
        run("p1", 0, keys, &records);
        for w in [100, 1_000, 10_000, 100_000] {
            run("p2a", w, keys, &records);
            // With any contiguity the matches of a longer window are cubic in it.
            if w <= 1_000 || keys > 1 {
                run("p2b", w, keys, &records);
            }
            run("p3", w, keys, &records);
            run("p4", w, keys, &records);
        }
    }
}
