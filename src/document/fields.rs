//! Reading a mapping by its known keys: unknown ones are refused with the nearest known one, an
//! alias stands for its field, and giving both is a fault.

use std::sync::Arc;

use super::node::{Key, Node, Position, Value};
use super::violation::Report;
use super::{MAX_NAME_LENGTH, MAX_TOPIC_LENGTH, canonical, duration};
use crate::expr::nearest;
use crate::model::Millis;

/// One key that a mapping may have.
pub(crate) struct Field {
    pub(crate) name: &'static str,
    pub(crate) aliases: &'static [&'static str],
}

/// A key without aliases.
pub(crate) const fn field(name: &'static str) -> Field {
    Field { name, aliases: &[] }
}

/// A key with aliases.
pub(crate) const fn alias(name: &'static str, aliases: &'static [&'static str]) -> Field {
    Field { name, aliases }
}

/// A mapping whose keys were checked.
pub(crate) struct Fields<'n> {
    pub(crate) at: Position,
    pub(crate) path: String,
    entries: Vec<(&'static str, &'n Key, &'n Node)>,
}

impl<'n> Fields<'n> {
    /// `what` names the mapping in messages ("a step"); `planned` are keys that will have a
    /// meaning and have none yet. `None`: `node` is no mapping.
    pub(crate) fn read(
        node: &'n Node,
        path: &str,
        what: &str,
        known: &[Field],
        planned: &[&str],
        report: &mut Report<'_>,
    ) -> Option<Self> {
        let Value::Map(members) = &node.value else {
            report.add(
                node.at,
                path,
                format!("{what} is a mapping, not {}", node.described()),
            );
            return None;
        };
        let mut entries: Vec<(&'static str, &Key, &Node)> = Vec::new();
        for (key, value) in members {
            let field = known
                .iter()
                .find(|field| field.name == key.name || field.aliases.contains(&&*key.name));
            let Some(field) = field else {
                refuse_unknown(key, path, what, known, planned, report);
                continue;
            };
            if let Some((_, first, _)) = entries.iter().find(|(name, ..)| *name == field.name) {
                let message = format!(
                    "`{}` and `{}` mean the same; give one of them",
                    first.name, key.name
                );
                report.add(key.at, &join(path, &key.name), message);
                continue;
            }
            entries.push((field.name, key, value));
        }
        Some(Self {
            at: node.at,
            path: path.to_owned(),
            entries,
        })
    }

    pub(crate) fn get(&self, name: &str) -> Option<&'n Node> {
        self.entry(name).map(|(_, node)| node)
    }

    pub(crate) fn entry(&self, name: &str) -> Option<(&'n Key, &'n Node)> {
        self.entries
            .iter()
            .find(|(entry, ..)| *entry == name)
            .map(|(_, key, node)| (*key, *node))
    }

    pub(crate) fn path_of(&self, name: &str) -> String {
        let written = self.entry(name).map_or(name, |(key, _)| &key.name);
        join(&self.path, written)
    }

    /// Two keys that say the same in different units.
    pub(crate) fn refuse_both(&self, name: &str, other: &str, report: &mut Report<'_>) {
        if let (Some((first, _)), Some((second, _))) = (self.entry(name), self.entry(other)) {
            let later = if first.at > second.at { first } else { second };
            let message = format!(
                "`{}` and `{}` mean the same; give one of them",
                first.name, second.name
            );
            report.add(later.at, &join(&self.path, &later.name), message);
        }
    }

    /// The name that a definition of `kind` must have.
    pub(crate) fn definition_name(&self, kind: &str, report: &mut Report<'_>) -> Option<Arc<str>> {
        if self.get("name").is_none() {
            report.add(self.at, "", format!("a {kind} needs a `name`"));
            return None;
        }
        let (name, node) = self.string("name", report)?;
        if !is_name(name, MAX_NAME_LENGTH) {
            let message = format!(
                "`{}` is no name for a {kind}: 1 to {MAX_NAME_LENGTH} of A-Z a-z 0-9 . _ - are allowed",
                name.chars().take(60).collect::<String>(),
            );
            report.add(node.at, "name", message);
            return None;
        }
        Some(Arc::from(name))
    }

    /// The name of a topic, as Kafka takes it.
    pub(crate) fn topic(&self, name: &str, report: &mut Report<'_>) -> Option<&'n str> {
        let (topic, node) = self.string(name, report)?;
        if !is_name(topic, MAX_TOPIC_LENGTH) || [".", ".."].contains(&topic) {
            let message = format!(
                "`{}` is no name for a topic: 1 to {MAX_TOPIC_LENGTH} of A-Z a-z 0-9 . _ - are allowed, and neither `.` nor `..` alone",
                topic.chars().take(60).collect::<String>(),
            );
            report.add(node.at, &self.path_of(name), message);
            return None;
        }
        Some(topic)
    }

    pub(crate) fn string(
        &self,
        name: &str,
        report: &mut Report<'_>,
    ) -> Option<(&'n str, &'n Node)> {
        let node = self.get(name)?;
        let text = node.as_str();
        if text.is_none() {
            let suggestion = match &node.value {
                Value::Number(_) | Value::Bool(_) => {
                    Some(format!("quote it: '{}'", canonical::text(&node.to_json())))
                }
                _ => None,
            };
            let message = format!("`{name}` is a string, not {}", node.described());
            report.add_with(node.at, &self.path_of(name), message, suggestion);
        }
        text.map(|text| (text, node))
    }

    /// A whole number within `bounds`.
    pub(crate) fn integer(
        &self,
        name: &str,
        bounds: std::ops::RangeInclusive<u32>,
        report: &mut Report<'_>,
    ) -> Option<u32> {
        let node = self.get(name)?;
        let number = match &node.value {
            Value::Number(number) => number
                .as_u64()
                .and_then(|number| u32::try_from(number).ok()),
            _ => None,
        };
        let number = number.filter(|number| bounds.contains(number));
        if number.is_none() {
            let found = match &node.value {
                Value::Number(number) => number.to_string(),
                _ => node.described().to_owned(),
            };
            let range = match *bounds.end() {
                u32::MAX => format!("of at least {}", bounds.start()),
                end => format!("from {} to {end}", bounds.start()),
            };
            report.add(
                node.at,
                &self.path_of(name),
                format!("`{name}` is a whole number {range}, not {found}"),
            );
        }
        number
    }

    /// A finite number of at least `least`.
    pub(crate) fn number(&self, name: &str, least: f64, report: &mut Report<'_>) -> Option<f64> {
        let node = self.get(name)?;
        let number = match &node.value {
            Value::Number(number) => number
                .as_f64()
                .filter(|number| number.is_finite() && *number >= least),
            _ => None,
        };
        if number.is_none() {
            let found = match &node.value {
                Value::Number(number) => number.to_string(),
                _ => node.described().to_owned(),
            };
            report.add(
                node.at,
                &self.path_of(name),
                format!("`{name}` is a number of at least {least}, not {found}"),
            );
        }
        number
    }

    /// A duration with units, such as `30s`.
    pub(crate) fn duration(&self, name: &str, report: &mut Report<'_>) -> Option<Millis> {
        let node = self.get(name)?;
        let problem = match &node.value {
            Value::String(text) => match duration::parse(text) {
                Ok(span) => return Some(span),
                Err(error) => (error.to_string(), None),
            },
            Value::Number(number) => (
                format!("`{name}` is a duration and needs a unit"),
                Some(format!("write `{number}s` for seconds")),
            ),
            _ => (
                format!(
                    "`{name}` is a duration such as `30s`, not {}",
                    node.described()
                ),
                None,
            ),
        };
        report.add_with(node.at, &self.path_of(name), problem.0, problem.1);
        None
    }

    /// A duration that is not zero; by `name` with units or by `seconds` as a bare number.
    pub(crate) fn span(
        &self,
        name: &str,
        seconds: &str,
        report: &mut Report<'_>,
    ) -> Option<Millis> {
        self.refuse_both(name, seconds, report);
        let (span, given) = match self.get(name) {
            Some(_) => (self.duration(name, report)?, name),
            None => {
                let number = self.number(seconds, 0.0, report)?;
                (
                    Millis((number * 1_000.0).round().min(duration::MAX.0 as f64) as u64),
                    seconds,
                )
            }
        };
        if span.0 == 0 {
            let at = self.get(given).map_or(self.at, |node| node.at);
            report.add(
                at,
                &self.path_of(given),
                format!("`{given}` must be longer than zero"),
            );
            return None;
        }
        Some(span)
    }

    /// A list of strings.
    pub(crate) fn strings(
        &self,
        name: &str,
        report: &mut Report<'_>,
    ) -> Option<Vec<(&'n str, &'n Node)>> {
        let node = self.get(name)?;
        let path = self.path_of(name);
        let Value::List(items) = &node.value else {
            let suggestion = node
                .as_str()
                .map(|text| format!("write `{name}: [{text}]`"));
            let message = format!("`{name}` is a list of strings, not {}", node.described());
            report.add_with(node.at, &path, message, suggestion);
            return None;
        };
        let mut texts = Vec::new();
        for (place, item) in items.iter().enumerate() {
            match item.as_str() {
                Some(text) => texts.push((text, item)),
                None => {
                    let message = format!(
                        "`{name}` is a list of strings; this is {}",
                        item.described()
                    );
                    report.add(item.at, &format!("{path}[{place}]"), message);
                }
            }
        }
        Some(texts)
    }
}

/// Whether names of definitions and topics may be written so, with at most so many bytes.
fn is_name(name: &str, most: usize) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    !name.is_empty() && name.len() <= most && name.bytes().all(allowed)
}

fn refuse_unknown(
    key: &Key,
    path: &str,
    what: &str,
    known: &[Field],
    planned: &[&str],
    report: &mut Report<'_>,
) {
    let path = join(path, &key.name);
    if planned.contains(&&*key.name) {
        report.add(key.at, &path, format!("`{}` is not there yet", key.name));
        return;
    }
    let names = || {
        known
            .iter()
            .flat_map(|field| std::iter::once(field.name).chain(field.aliases.iter().copied()))
    };
    let suggestion = match nearest(&key.name, names()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!(
            "known keys: {}",
            known
                .iter()
                .map(|field| field.name)
                .collect::<Vec<_>>()
                .join(", ")
        ),
    };
    report.add_with(
        key.at,
        &path,
        format!("unknown key `{}` in {what}", key.name),
        Some(suggestion),
    );
}

/// Appends a key to a path within the document.
pub(crate) fn join(path: &str, key: &str) -> String {
    if path.is_empty() {
        key.to_owned()
    } else {
        format!("{path}.{key}")
    }
}
