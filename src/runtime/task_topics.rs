//! Whether the agents of definitions can have topics beside one another: names that differ in `.` and `_`
//! alone are one to Kafka, for its metrics are called by them, and it refuses the second topic.

use std::collections::BTreeMap;

use crate::document::node::{Node, Value};
use crate::document::violation::Report;

/// How `agent` is called in a step.
const NAMES_OF_AGENT: [&str; 3] = ["agent", "agent_id", "agent_type"];

/// What to do about it.
pub(super) const REMEDY: &str = "give one of them another name";

/// The name as Kafka compares it.
fn compared(name: &str) -> String {
    name.replace('.', "_")
}

/// Whether Kafka refuses a topic of one name where there is one of the other.
pub(super) fn collide(one: &str, other: &str) -> bool {
    one != other && compared(one) == compared(other)
}

/// Reports agents of a file that cannot both have a topic. Not for what was applied before: some brokers
/// take such topics, and its runs go on.
pub(super) fn check(documents: &[Node], report: &mut Report<'_>) {
    let mut seen: BTreeMap<String, (&str, usize)> = BTreeMap::new();
    for document in documents {
        let Some(Value::List(steps)) = document.member("steps").map(|steps| &steps.value) else {
            continue;
        };
        for (place, step) in steps.iter().enumerate() {
            let agent = NAMES_OF_AGENT.iter().find_map(|name| step.member(name));
            let Some((agent, name)) = agent.and_then(|node| Some((node, node.as_str()?))) else {
                continue;
            };
            let &mut (first, line) = seen.entry(compared(name)).or_insert((name, agent.at.line));
            if first != name {
                let message = format!(
                    "Kafka refuses a topic for agent `{name}` beside that of agent `{first}` on line {line}: it takes names that differ in `.` and `_` alone for one"
                );
                let path = format!("steps[{place}].agent");
                report.add_with(agent.at, &path, message, Some(REMEDY.to_owned()));
            }
        }
    }
}
