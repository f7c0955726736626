//! The rules that the steps of a workflow imply which await patterns: here the two rooms meet. What a
//! step says of its pattern is read as a rule says it, under a name that no definition can have.

use std::sync::Arc;

use crate::document::node::{Key, Node, Value};
use crate::document::violation::Report;
use crate::model::signal::awaited_rule;
use crate::pattern::{Rule, syntax};

/// Keys of a step that are those of a rule.
const OF_THE_RULE: [&str; 4] = ["topic", "time", "match", "limits"];

/// Reads the rules that the workflow in this document implies. `workflow` is its name and version,
/// where it is valid; where not, only faults come of it.
pub(super) fn read(
    node: &Node,
    workflow: Option<(&str, u32)>,
    report: &mut Report<'_>,
) -> Vec<Arc<Rule>> {
    let Some(Value::List(steps)) = node.member("steps").map(|steps| &steps.value) else {
        return Vec::new();
    };
    let (name, version) = workflow.unwrap_or(("", 1));
    let mut rules = Vec::new();
    for (place, step) in steps.iter().enumerate() {
        if !is_awaiting(step) {
            continue;
        }
        let id = step.member("id").or_else(|| step.member("step_id"));
        let id = id.and_then(Node::as_str).unwrap_or_default();
        let name = awaited_rule(name, id);
        let pattern = pattern_of(step);
        let read = report.within(format!("steps[{place}]"), |report| {
            syntax::read_awaited(&pattern, &name, version, report)
        });
        rules.extend(read.map(Arc::new));
    }
    rules
}

/// Whether the step awaits a pattern and says which: what else is wrong is for the workflow to say.
fn is_awaiting(step: &Node) -> bool {
    let others = ["agent", "switch", "await"];
    let is_kind = match step.member("kind") {
        Some(kind) => kind.as_str() == Some("await_pattern"),
        None => others.iter().all(|other| step.member(other).is_none()),
    };
    is_kind && step.member("match").is_some()
}

/// What the step says of its pattern, with the fields alone that it correlates by.
fn pattern_of(step: &Node) -> Node {
    let mut members: Vec<(Key, Node)> = match &step.value {
        Value::Map(members) => members.clone(),
        _ => Vec::new(),
    };
    members.retain(|(key, _)| key.name == "correlate" || OF_THE_RULE.contains(&&*key.name));
    for (key, node) in &mut members {
        if key.name == "correlate" {
            node.value = Value::List(fields_of(node));
        }
    }
    Node {
        value: Value::Map(members),
        ..step.clone()
    }
}

/// The names of the fields in their order; where it is no mapping, the workflow says so.
fn fields_of(correlate: &Node) -> Vec<Node> {
    let Value::Map(members) = &correlate.value else {
        return Vec::new();
    };
    let field = |(key, _): &(Key, Node)| Node {
        at: key.at,
        source: None,
        value: Value::String(key.name.clone()),
    };
    let mut fields: Vec<Node> = members.iter().map(field).collect();
    fields.sort_by(|one, two| one.as_str().cmp(&two.as_str()));
    fields
}
