//! A step that awaits a signal: `await: NAME`, and `where` over what the signal brings.

use super::expressions::{self, Reference};
use super::step::KindSource;
use crate::document::fields::Fields;
use crate::document::violation::Report;
use crate::model::SignalName;

/// Keys of other kinds.
const NOT_OF_AWAIT: [&str; 5] = ["agent", "task", "inputs", "heartbeat_timeout", "switch"];

pub(super) fn read(
    fields: &Fields<'_>,
    report: &mut Report<'_>,
    references: &mut Vec<Reference>,
) -> Option<KindSource> {
    for name in NOT_OF_AWAIT {
        if let Some((key, _)) = fields.entry(name) {
            let message = format!(
                "a step that awaits a signal asks no agent, so it has no `{}`",
                key.name
            );
            report.add(key.at, &fields.path_of(name), message);
        }
    }
    let condition = fields.get("where").map(|node| {
        expressions::signal_condition(node, &fields.path_of("where"), report, references)
    });
    if fields.get("await").is_none() {
        let message = "a step of kind `await` needs an `await` with the name of its signal";
        report.add(fields.at, &fields.path, message);
        return None;
    }
    let (name, node) = fields.string("await", report)?;
    let signal = match SignalName::parse(name) {
        Ok(signal) => signal,
        Err(error) => {
            report.add(node.at, &fields.path_of("await"), error.to_string());
            return None;
        }
    };
    let condition = match condition {
        None => None,
        Some(condition) => Some(condition?),
    };
    Some(KindSource::Await { signal, condition })
}

/// Refuses the keys of such a step in one of another kind, `what`.
pub(super) fn refuse_keys(fields: &Fields<'_>, what: &str, report: &mut Report<'_>) {
    for name in ["await", "where"] {
        if let Some((key, _)) = fields.entry(name) {
            let message = format!("{what} awaits no signal, so it has no `{name}`");
            report.add(key.at, &fields.path_of(name), message);
        }
    }
}
