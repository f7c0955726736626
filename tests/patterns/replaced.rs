//! A version that another takes the place of: it finds what it would have found without that, of all
//! that began before, and holds nothing when that is over.

use std::collections::BTreeMap;
use std::sync::Arc;

use partita::model::Timestamp;
use partita::pattern::filter::Filter;
use partita::pattern::{Event, Match, Matcher, Outputs, Rule, Shape};
use serde_json::Value;

use crate::random::{self, Random};
use crate::reference::{Input, Output, key_text};

const CASES: u64 = 40_000;
const SEED: u64 = 20_261_122;

/// Event time at which what matched began.
fn beginning(rule: &Rule, found: &Match) -> i64 {
    match rule.shape {
        Shape::Window(_) => {
            let window: Value = found.events[0].1.payload.parse().expect("a window");
            let start = window["start"].as_str().expect("a time");
            let start = chrono::DateTime::parse_from_rfc3339(start).expect("a time");
            start.timestamp_millis()
        }
        _ => {
            let times = found.events.iter().map(|(_, taken)| taken.at.0);
            times.min().expect("a match has events")
        }
    }
}

/// What comes out, each with when it began, where the version is replaced after `old` events.
fn drive(
    rule: &Arc<Rule>,
    inputs: &[Input],
    old: usize,
    end: i64,
) -> (Vec<(Output, i64)>, Matcher) {
    let mut matcher = Matcher::new(rule.clone(), false);
    matcher.note_changes();
    let mut found = Vec::new();
    let mut note = |call: usize, out: Outputs| {
        found.extend(out.matches.iter().map(|one| {
            let events = one.events.iter();
            let output = Output {
                call,
                key: key_text(&one.key),
                at: one.at.0,
                events: events
                    .map(|(name, taken)| (*name, taken.position))
                    .collect(),
            };
            (output, beginning(rule, one))
        }));
    };
    let mut latest = Timestamp(i64::MIN);
    for (call, input) in inputs.iter().enumerate() {
        let mut out = Outputs::default();
        match call < old {
            true => matcher.offer(&input.event(), &mut out),
            false => matcher.carry_on(&input.event(), &mut out),
        }
        latest = latest.max(input.at);
        matcher.observe(latest, &mut out);
        note(call, out);
        matcher = crate::between_events(matcher);
    }
    let mut out = Outputs::default();
    matcher.advance(Timestamp(end), &mut out);
    note(inputs.len(), out);
    found.sort();
    (found, matcher)
}

/// The latest of the first events of each key, of those that matter.
fn latest_of(rule: &Arc<Rule>, inputs: &[Input]) -> BTreeMap<String, i64> {
    let filter = Filter::new(std::slice::from_ref(rule));
    let mut latest = BTreeMap::new();
    for input in inputs {
        let topic = &rule.topics[usize::from(input.topic)];
        let of_topic = filter.topic(topic).expect("it reads this");
        of_topic.select(&input.payload, Some(input.at).into(), &mut |_| {
            let slots = rule.correlate.iter().map(|(_, slot)| usize::from(*slot));
            let key: Vec<_> = slots.map(|slot| input.slots[slot].clone()).collect();
            let at = latest.entry(key_text(&key)).or_insert(input.at.0);
            *at = input.at.0.max(*at);
        });
    }
    latest
}

#[test]
fn a_version_that_is_replaced_finds_what_began_before_and_nothing_else() {
    let mut random = Random(SEED);
    let (mut done, mut across, mut cut_off) = (0, 0, 0);
    let mut by_shape = [0; 5];
    while done < CASES {
        let (text, Some(rule)) = random::rule(&mut random) else {
            continue;
        };
        // One match holds back another, whenever that began.
        if rule.emit.debounce.is_some() || rule.emit.cooldown.is_some() {
            continue;
        }
        let is_disordered = text.get("time").is_some();
        let events: Vec<Value> = random::stream(&mut random, is_disordered, 12);
        let inputs = random::inputs(&rule, &events);
        // Where the two halves overlap in time, some of the second may begin something.
        let splits = (1..inputs.len()).filter(|split| {
            let (old, new) = inputs.split_at(*split);
            let last = old.iter().map(|input| input.at).max();
            new.iter().all(|input| Some(input.at) > last)
        });
        let splits: Vec<usize> = splits.collect();
        if splits.is_empty() {
            continue;
        }
        let old = splits[random.below(splits.len() as u64) as usize];
        let end = inputs.iter().map(|input| input.at.0).max().unwrap_or(0) + 1_000_000;
        let (whole, _) = drive(&rule, &inputs, inputs.len(), end);
        let (found, rest) = drive(&rule, &inputs, old, end);
        let latest = latest_of(&rule, &inputs[..old]);
        let (expected, later): (Vec<_>, Vec<_>) = whole
            .into_iter()
            .partition(|(output, began)| latest.get(&output.key).is_some_and(|at| began <= at));
        assert_eq!(
            found, expected,
            "case {done}, replaced after {old} of {inputs:#?}\n{text}"
        );
        let ends = !matches!(&rule.shape, Shape::Sequence(sequence) if sequence.within.is_none());
        assert!(!ends || !rest.is_waiting(), "case {done}: {text}");
        done += 1;
        across += expected
            .iter()
            .filter(|(output, _)| output.call >= old)
            .count();
        cut_off += later.len();
        let shape = match rule.shape {
            Shape::Any { .. } => 0,
            Shape::All { .. } => 1,
            Shape::Count { .. } => 2,
            Shape::Window(_) => 3,
            Shape::Sequence(_) => 4,
        };
        let of_shape = expected.iter().filter(|(output, _)| output.call >= old);
        by_shape[shape] += of_shape.count();
    }
    println!(
        "{done} cases: {across} matches across the change {by_shape:?}, {cut_off} began after it"
    );
    // Of `any`, events that came before the change and wait for their turn.
    assert!(by_shape.iter().all(|count| *count > 200));
    assert!(cut_off > across);
}

/// An event behind one that could begin nothing any more is behind all the same.
#[test]
fn a_trailing_window_of_a_replaced_version_knows_which_event_is_the_newest() {
    let text = r#"{"kind": "rule", "name": "r", "topic": "t", "time": {"allowed_lateness": "5ms"},
        "match": {"window": {"type": "sliding", "size": "9ms", "aggregate": {"n": "count"}, "having": "n >= 2"}}}"#;
    let rule = partita::pattern::syntax::parse(text, None).expect("a rule");
    let mut matchers = [(); 2].map(|()| Matcher::new(rule[0].clone(), false));
    let mut found = [(); 2].map(|()| Outputs::default());
    let payload = partita::model::Json::none();
    for (place, at) in [101, 102, 106, 105, 110, 114, 108].into_iter().enumerate() {
        let slots = rule[0].slots(0, payload);
        let event = Event {
            topic: 0,
            at: Timestamp(at),
            position: place as u64,
            slots: &slots,
            payload,
        };
        matchers[0].offer(&event, &mut found[0]);
        match place {
            0 => matchers[1].offer(&event, &mut found[1]),
            _ => matchers[1].carry_on(&event, &mut found[1]),
        }
        for (matcher, out) in matchers.iter_mut().zip(&mut found) {
            let latest = matcher
                .progress()
                .latest
                .map_or(at, |latest| latest.0.max(at));
            matcher.observe(Timestamp(latest), out);
        }
    }
    let at = |out: &Outputs| -> Vec<i64> { out.matches.iter().map(|one| one.at.0).collect() };
    assert_eq!(at(&found[0]), [102, 106, 110, 114]);
    assert_eq!(at(&found[1]), [102, 106]);
}
