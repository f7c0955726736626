//! The matcher, driven event by event, with its outputs as the reference shows them.

use std::sync::Arc;

use partita::model::Timestamp;
use partita::pattern::{Key, Matcher, Outputs, Rule, Taken};

use crate::reference::{Expected, Input, Output, key_text};

/// Pushes `inputs` into a new matcher and moves time to `end`, where one is given, or to the end
/// of all windows. The matcher passes through `between_events` after every event.
pub fn drive(
    rule: &Arc<Rule>,
    inputs: &[Input],
    end: Option<i64>,
    between_events: &dyn Fn(Matcher) -> Matcher,
) -> Expected {
    let mut matcher = Matcher::new(rule.clone(), true);
    matcher.note_changes();
    let mut actual = Expected::default();
    for (call, input) in inputs.iter().enumerate() {
        let mut out = Outputs::default();
        matcher.push(&input.event(), &mut out);
        collect(&mut actual, call, &out);
        matcher = between_events(matcher);
    }
    let end = end.map(Timestamp).or_else(|| matcher.end_of_windows());
    if let Some(end) = end {
        let mut out = Outputs::default();
        matcher.advance(end, &mut out);
        collect(&mut actual, inputs.len(), &out);
    }
    actual
}

fn collect(actual: &mut Expected, call: usize, out: &Outputs) {
    let output = |key: &Key, at: Timestamp, events: &[(u16, Taken)]| {
        let events = events.iter().map(|(name, taken)| (*name, taken.position));
        Output {
            call,
            key: key_text(key),
            at: at.0,
            events: events.collect(),
        }
    };
    let matches = out.matches.iter();
    let matches = matches.map(|found| output(&found.key, found.at, &found.events));
    actual.matches.extend(matches);
    let timed_out = out.timed_out.iter();
    let timed_out = timed_out.map(|partial| output(&partial.key, partial.at, &partial.events));
    actual.timed_out.extend(timed_out);
    actual.late.extend(&out.late);
    actual.unkeyed.extend(&out.unkeyed);
}

/// Keys are independent of each other: only the order within one counts, and the call with which
/// something comes out.
pub fn by_key(mut outputs: Expected) -> Expected {
    let place = |output: &Output| (output.call, output.key.clone());
    outputs.matches.sort_by_key(place);
    outputs.timed_out.sort_by_key(place);
    outputs.unkeyed.sort_unstable();
    outputs
}
