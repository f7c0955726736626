//! What a match leads to beside a start: runs that it steers, topics that it joins, and the part of
//! the keys that it acts for.

use std::sync::Arc;

use super::builder::{Builder, unreadable};
use super::settings::{choice, text_templates};
use crate::document::fields::{Fields, field, join};
use crate::document::node::{Node, Value};
use crate::document::violation::Report;
use crate::expr::{Template, is_identifier, is_word};
use crate::pattern::rule::{Canary, Enrich, Steer, Target, Verb};

/// Most commands of one rule.
const MAX_STEERS: usize = 20;

/// `signal`, `cancel`, `pause`, `resume`: one each, or a list.
pub(super) fn steers(
    fields: &Fields<'_>,
    builder: &Builder<'_>,
    report: &mut Report<'_>,
) -> Vec<Steer> {
    let mut read = Vec::new();
    for verb in ["signal", "cancel", "pause", "resume"] {
        let Some(node) = fields.get(verb) else {
            continue;
        };
        let items = match &node.value {
            Value::List(items) => items.as_slice(),
            _ => std::slice::from_ref(node),
        };
        for (place, item) in items.iter().enumerate() {
            let path = match &node.value {
                Value::List(_) => format!("{verb}[{place}]"),
                _ => verb.to_owned(),
            };
            read.extend(steer(verb, item, &path, builder, report));
        }
        if read.len() > MAX_STEERS {
            let message = format!("a rule has at most {MAX_STEERS} commands");
            report.add(node.at, verb, message);
        }
    }
    read
}

fn steer(
    verb: &str,
    node: &Node,
    path: &str,
    builder: &Builder<'_>,
    report: &mut Report<'_>,
) -> Option<Steer> {
    let known: &[_] = if verb == "signal" {
        &[
            field("run"),
            field("tag"),
            field("workflow"),
            field("name"),
            field("data"),
        ]
    } else {
        &[
            field("run"),
            field("tag"),
            field("workflow"),
            field("reason"),
        ]
    };
    let what = format!("`{verb}`");
    let fields = Fields::read(node, path, &what, known, &[], report)?;
    let template = |name: &str, report: &mut Report<'_>| -> Option<Template> {
        let node = fields.get(name)?;
        builder.template(node, &fields.path_of(name), report)
    };
    let target = match (fields.get("run"), fields.get("tag")) {
        (Some(_), None) => {
            if let Some(node) = fields.get("workflow") {
                let message = "`workflow` narrows `tag`; a `run` is one run";
                report.add(node.at, &fields.path_of("workflow"), message);
            }
            template("run", report).map(Target::Run)
        }
        (None, Some(_)) => {
            let tags = text_templates(&fields, "tag", builder, report);
            let is_empty = matches!(
                fields.get("tag").map(|node| &node.value),
                Some(Value::Map(members)) if members.is_empty()
            );
            if is_empty {
                let message = "`tag` names at least one tag, or every run would be meant";
                report.add(fields.at, &fields.path_of("tag"), message);
            }
            let workflow = fields.string("workflow", report);
            Some(Target::Tags {
                tags,
                workflow: workflow.map(|(name, _)| Arc::from(name)),
            })
        }
        (Some(_), Some(node)) => {
            let message = "give one of `run` and `tag`";
            report.add(node.at, &fields.path_of("tag"), message);
            None
        }
        (None, None) => {
            let remedy =
                Some("name it by `run: \"${…}\"`, or runs by `tag: {order: \"${…}\"}`".to_owned());
            let message = format!("`{verb}` does not say which run it is for");
            report.add_with(fields.at, path, message, remedy);
            None
        }
    };
    let reason = template("reason", report);
    let verb = match verb {
        "signal" => {
            if fields.get("name").is_none() {
                report.add(fields.at, path, "`signal` needs a `name`");
            }
            Verb::Signal {
                name: template("name", report)?,
                data: template("data", report),
            }
        }
        "cancel" => Verb::Cancel { reason },
        "pause" => Verb::Pause { reason },
        _ => Verb::Resume { reason },
    };
    Some(Steer {
        verb,
        target: target?,
    })
}

/// `enrich: [{topic, as, key}]`; their names are known to the actions after this.
pub(super) fn enrich(
    fields: &Fields<'_>,
    builder: &mut Builder<'_>,
    report: &mut Report<'_>,
) -> Vec<Enrich> {
    let mut read: Vec<Enrich> = Vec::new();
    let Some(node) = fields.get("enrich") else {
        return read;
    };
    let Value::List(items) = &node.value else {
        let message = format!("`enrich` is a list, not {}", node.described());
        report.add(node.at, "enrich", message);
        return read;
    };
    for (place, item) in items.iter().enumerate() {
        let path = format!("enrich[{place}]");
        let known = &[field("topic"), field("as"), field("key")];
        let Some(fields) = Fields::read(item, &path, "an enrichment", known, &[], report) else {
            continue;
        };
        for name in ["topic", "as", "key"] {
            if fields.get(name).is_none() {
                let message = "an enrichment needs `topic`, `as` and `key`";
                report.add(fields.at, &join(&path, name), message);
            }
        }
        let topic = fields.topic("topic", report);
        let name = fields.string("as", report).filter(|(name, node)| {
            let is_taken = ["key", "matches", "rule", "event"].contains(name)
                || read.iter().any(|other| *other.name == **name);
            let message = if is_word(name) {
                unreadable(name, "the name of an enrichment")
            } else if !is_identifier(name) || is_taken {
                format!("`{name}` is no name for an enrichment, or is taken")
            } else {
                return true;
            };
            report.add(node.at, &join(&path, "as"), message);
            false
        });
        let key = key(&fields, builder, report);
        if let (Some(topic), Some((name, _)), Some(key)) = (topic, name, key) {
            read.push(Enrich {
                topic: Arc::from(topic),
                name: Arc::from(name),
                key,
            });
        }
    }
    builder.joined = read.iter().map(|enrich| enrich.name.clone()).collect();
    read
}

/// A name of `correlate.by`, or an expression.
fn key(fields: &Fields<'_>, builder: &Builder<'_>, report: &mut Report<'_>) -> Option<Template> {
    let (text, node) = fields.string("key", report)?;
    lookup_key(text, node, &fields.path_of("key"), builder, report)
}

/// The value of a name of `correlate.by`, or of an expression.
pub(super) fn lookup_key(
    text: &str,
    node: &Node,
    path: &str,
    builder: &Builder<'_>,
    report: &mut Report<'_>,
) -> Option<Template> {
    if text.contains("${") {
        return builder.template(node, path, report);
    }
    let node = Node {
        value: Value::String(format!("${{key[{text:?}]}}")),
        ..node.clone()
    };
    builder.template(&node, path, report)
}

/// `canary: {percent: 10, by: key}`.
pub(super) fn canary(fields: &Fields<'_>, report: &mut Report<'_>) -> Option<Canary> {
    let node = fields.get("canary")?;
    let known = &[field("percent"), field("by")];
    let inner = Fields::read(node, "canary", "`canary`", known, &[], report)?;
    choice(&inner, "by", &["key"], report);
    if inner.get("percent").is_none() {
        report.add(node.at, "canary", "`canary` needs `percent`");
    }
    let percent = inner.number("percent", 0.0, report)?;
    if percent > 100.0 {
        let at = inner.get("percent").map_or(node.at, |node| node.at);
        report.add(at, "canary.percent", "`percent` is at most 100");
    }
    Some(Canary { percent })
}
