//! The matcher on the stream that other engines are measured on: ten types, one value in [0, 1),
//! one event a millisecond. Prints events per second of processor time of one thread, events in
//! memory, and the number of matches, which is the same on every machine.
//!
//! `cargo bench --bench patterns [-- EVENTS] [PATTERN] [--beside COMMAND]`; without arguments a million events
//! and all patterns. `COMMAND` runs another engine on a cell, see `stream/peer.rs`: right after ours, and the
//! line shows the ratio.

#[path = "stream/clock.rs"]
mod clock;
#[path = "stream/peer.rs"]
mod peer;
#[path = "stream/rules.rs"]
mod rules;
#[path = "stream/records.rs"]
mod stream;

use clock::processor_time;
use partita::model::{Json, Timestamp};
use partita::pattern::{Event, Matcher, Outputs};
use rules::rule;
use stream::{Record, records};

/// As in the program.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn run(name: &str, w: u64, keys: u64, records: &[Record], beside: Option<&str>) {
    let Some(rule) = rule(name, w, keys) else {
        return;
    };
    // `correlate.by` and the conditions name two fields, in this order.
    assert_eq!(rule.fields.len(), 2);
    let topics: Vec<u16> = (b'A'..=b'J')
        .map(|kind| {
            let kind = char::from(kind).to_string();
            let is_it = |topic: &str| *topic == *kind || topic == "all";
            let place = rule.topics.iter().position(|topic| is_it(topic));
            place.map_or(u16::MAX, |place| place as u16)
        })
        .collect();
    let payload = Json::null();
    let mut matcher = Matcher::new(rule, false);
    let mut out = Outputs::default();
    let (mut matches, mut early) = (0, 0);
    let start = processor_time();
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
    let seconds = (processor_time() - start).as_secs_f64();
    assert!(
        out.overflows.is_empty(),
        "a limit was met: matches are missing"
    );
    let rate = records.len() as f64 / seconds;
    println!(
        "{name:6} W={w:<7} K={keys:<6} {:>8.3} M events/s  matches {early} of the first 100,000, {matches} of all {}{}",
        rate / 1e6,
        records.len(),
        beside.map_or_else(String::new, |command| compared(
            command, name, w, keys, rate, early
        )),
    );
}

/// What the line says of the other engine.
fn compared(command: &str, name: &str, w: u64, keys: u64, rate: f64, early: usize) -> String {
    let Some(peer) = peer::reached(command, name, w, keys) else {
        return "; the other engine has no figure".to_owned();
    };
    let matches = match peer.early {
        Some(found) if found == early => "as many matches".to_owned(),
        Some(found) => format!("{found} matches of the first 100,000"),
        None => "it did not come to 100,000 events".to_owned(),
    };
    format!(
        "; the other engine {:.3} M events/s, {matches}: {:.1}×",
        peer.rate / 1e6,
        rate / peer.rate
    )
}

fn main() {
    let mut arguments: Vec<String> = std::env::args().skip(1).collect();
    let beside = arguments
        .iter()
        .position(|word| word == "--beside")
        .map(|at| {
            assert!(at + 1 < arguments.len(), "`--beside` takes a command");
            arguments.drain(at..at + 2).nth(1)
        });
    let beside = beside.flatten();
    let count = arguments.iter().find_map(|argument| argument.parse().ok());
    let count = count.unwrap_or(1_000_000);
    let only = arguments.iter().find(|argument| argument.starts_with('p'));
    let run = |name: &str, w: u64, keys: u64, records: &[Record]| {
        if only.is_none_or(|only| only == name) {
            run(name, w, keys, records, beside.as_deref());
        }
    };
    for keys in [1, 10_000] {
        let records = records(count, keys);
        run("p1", 0, keys, &records);
        for w in [100, 1_000, 10_000, 100_000] {
            run("p2a", w, keys, &records);
            // With a window as long as the stream one event of a single key completes more than ten million
            // matches, all of them in memory at once; the beginning of the stream shows how fast they come.
            let is_whole = w <= 10_000 || keys > 1;
            let events = if is_whole { count } else { count.min(50_000) };
            run("p2b", w, keys, &records[..events]);
            run("p3", w, keys, &records);
            run("p4", w, keys, &records);
            run("p5", w, keys, &records);
            run("p5_p95", w, keys, &records);
        }
    }
}
