//! The mapping of a shorthand while its words are put into those of a rule, and the nodes that are made
//! on the way.

use crate::document::node::{Key, Node, Position, Value};
use crate::document::violation::Report;

/// The members of a mapping, while they are put into other words.
pub(super) struct Members {
    pub(super) at: Position,
    pub(super) members: Vec<(Key, Node)>,
}

impl Members {
    pub(super) fn new(at: Position, members: &[(Key, Node)]) -> Self {
        Self {
            at,
            members: members.to_vec(),
        }
    }

    pub(super) fn get(&self, name: &str) -> Option<&Node> {
        let found = self.members.iter().find(|(key, _)| key.name == name);
        found.map(|(_, node)| node)
    }

    pub(super) fn take(&mut self, name: &str) -> Option<Node> {
        let place = self.members.iter().position(|(key, _)| key.name == name)?;
        Some(self.members.remove(place).1)
    }

    pub(super) fn rename(&mut self, from: &str, to: &str) {
        if self.get(to).is_none()
            && let Some((key, _)) = self.members.iter_mut().find(|(key, _)| key.name == from)
        {
            key.name = to.to_owned();
        }
    }

    /// Adds a member that must not be there yet.
    pub(super) fn put(&mut self, name: &str, node: Node, report: &mut Report<'_>) {
        if self.get(name).is_some() {
            let message = format!("`{name}` and its shorthand say the same; give one of them");
            report.add(node.at, name, message);
            return;
        }
        self.members.push((key(node.at, name), node));
    }

    /// Adds a member to the mapping under `name`; what is no mapping is left to be refused.
    pub(super) fn merge(&mut self, name: &str, inner: &str, node: Node) {
        let found = self.members.iter_mut().find(|(key, _)| key.name == name);
        let Some((_, of)) = found else {
            let at = node.at;
            let whole = map_of(at, vec![(inner, node)]);
            self.members.push((key(at, name), whole));
            return;
        };
        if let Value::Map(members) = &mut of.value {
            members.push((key(node.at, inner), node));
        }
    }

    /// `window_minutes` and the like as a duration, with the word.
    pub(super) fn window(&mut self, report: &mut Report<'_>) -> Option<(&'static str, Node)> {
        let words = [
            ("window_seconds", 's'),
            ("window_minutes", 'm'),
            ("window_hours", 'h'),
        ];
        let mut found: Option<(&'static str, Node)> = None;
        for (word, unit) in words {
            let Some(node) = self.take(word) else {
                continue;
            };
            if let Some((other, _)) = &found {
                let message = format!("give one of `{other}` and `{word}`");
                report.add(node.at, word, message);
            } else if let Value::Number(number) = &node.value {
                found = Some((word, text(node.at, span(number, unit))));
            } else {
                let message = format!("`{word}` is a number, not {}", node.described());
                report.add(node.at, word, message);
                // So that nobody says that there is none.
                found = Some((word, text(node.at, format!("1{unit}"))));
            }
        }
        found
    }

    pub(super) fn finish(self) -> Node {
        Node {
            at: self.at,
            source: None,
            value: Value::Map(self.members),
        }
    }
}

/// A number of seconds, minutes or hours as a duration, which has no decimals.
pub(super) fn span(number: &serde_json::Number, unit: char) -> String {
    let millis = match unit {
        's' => 1e3,
        'm' => 60e3,
        _ => 3_600e3,
    };
    match number.as_f64().filter(|_| number.is_f64()) {
        Some(value) => format!("{}ms", (value * millis).round()),
        None => format!("{number}{unit}"),
    }
}

fn key(at: Position, name: &str) -> Key {
    Key {
        at,
        name: name.to_owned(),
    }
}

pub(super) fn text(at: Position, text: impl Into<String>) -> Node {
    Node {
        at,
        source: None,
        value: Value::String(text.into()),
    }
}

pub(super) fn list_of(at: Position, items: Vec<Node>) -> Node {
    Node {
        at,
        source: None,
        value: Value::List(items),
    }
}

pub(super) fn map_of(at: Position, members: Vec<(&str, Node)>) -> Node {
    let members = members.into_iter();
    Node {
        at,
        source: None,
        value: Value::Map(members.map(|(name, node)| (key(at, name), node)).collect()),
    }
}
