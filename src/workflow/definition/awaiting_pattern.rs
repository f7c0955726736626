//! A step that awaits a pattern of events: what its events have in common with the run, by
//! `correlate`. The pattern itself (`topic`, `time`, `match`, `limits`) is a rule's, and is read as
//! one; workflows know that it is there and what it is called.

use super::expressions::{self, Reference};
use super::step::KindSource;
use crate::document::fields::{Fields, join};
use crate::document::node::Value;
use crate::document::violation::Report;

/// Keys that are read as those of a rule.
const OF_THE_RULE: [&str; 4] = ["topic", "time", "match", "limits"];

/// Keys of other kinds.
const NOT_OF_THIS: [&str; 7] = [
    "agent",
    "task",
    "inputs",
    "heartbeat_timeout",
    "switch",
    "await",
    "where",
];

pub(super) fn read(
    fields: &Fields<'_>,
    report: &mut Report<'_>,
    references: &mut Vec<Reference>,
) -> Option<KindSource> {
    for name in NOT_OF_THIS {
        if let Some((key, _)) = fields.entry(name) {
            let message = format!("a step that awaits a pattern has no `{}`", key.name);
            report.add(key.at, &fields.path_of(name), message);
        }
    }
    if fields.get("match").is_none() {
        let message = "a step of kind `await_pattern` needs a `match`, as a rule has it";
        report.add(fields.at, &fields.path, message);
    }
    let path = fields.path_of("correlate");
    let Some(node) = fields.get("correlate") else {
        return Some(KindSource::AwaitPattern { key: Vec::new() });
    };
    let Value::Map(members) = &node.value else {
        let message = format!(
            "`correlate` of a step is a mapping of the events' fields to values, such as `order: ${{input.order}}`, not {}",
            node.described()
        );
        report.add(node.at, &path, message);
        return None;
    };
    let mut by: Vec<_> = members.iter().collect();
    // As the rule has them, whatever order they are written in.
    by.sort_by(|(one, _), (two, _)| one.name.cmp(&two.name));
    let key = by.into_iter().map(|(field, value)| {
        let path = join(&path, &field.name);
        expressions::template(value, &path, report, references)
    });
    Some(KindSource::AwaitPattern { key: key.collect() })
}

/// Refuses the keys of such a step in one of another kind, `what`.
pub(super) fn refuse_keys(fields: &Fields<'_>, what: &str, report: &mut Report<'_>) {
    for name in ["correlate"].into_iter().chain(OF_THE_RULE) {
        if let Some((key, _)) = fields.entry(name) {
            let message = format!("{what} awaits no pattern, so it has no `{name}`");
            report.add(key.at, &fields.path_of(name), message);
        }
    }
}
