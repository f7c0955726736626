//! From the text that a person wrote to a checked [`Rule`], or to all that is wrong with it.
//!
//! [`parse`] reads a file; `shorthand` and `shorthand_stream` put the words of others into those of
//! a rule, by way of `shorthand_members`; `shapes` reads what stands under `match`, `sequence` its steps, `windows`
//! its windows, `measures` what compares an event with those before it; `settings`,
//! `actions` and `route` read the rest; `builder` interns topics, fields and names on the way.

mod actions;
mod builder;
mod measures;
mod route;
mod sequence;
mod settings;
mod shapes;
mod shorthand;
mod shorthand_members;
mod shorthand_stream;
mod windows;

use std::sync::Arc;

use super::rule::Rule;
use crate::document;
use crate::document::canonical;
use crate::document::fields::{Field, Fields, alias, field};
use crate::document::node::{Node, Value};
use crate::document::violation::{Report, Violations};
use crate::model::Json;
use builder::Builder;

const RULE_FIELDS: &[Field] = &[
    field("kind"),
    field("name"),
    field("version"),
    field("description"),
    field("topic"),
    alias("correlate", &["correlation_keys"]),
    field("time"),
    field("match"),
    field("emit"),
    field("limits"),
    field("start"),
    field("signal"),
    field("cancel"),
    field("pause"),
    field("resume"),
    field("enrich"),
    field("canary"),
    field("enabled"),
    field("mode"),
    field("on_update"),
];

/// Reads the rules of a file, one or many (`---` between them), YAML or JSON. `file` is its name
/// for messages. A file without any rule is a fault, and so is a document of another kind.
pub fn parse(text: &str, file: Option<&str>) -> Result<Vec<Arc<Rule>>, Violations> {
    let (documents, mut report) = document::read(text, file);
    let mut rules: Vec<Arc<Rule>> = Vec::new();
    for node in &documents {
        for rule in read(node, &mut report) {
            let is_same =
                |other: &Arc<Rule>| (&other.name, other.version) == (&rule.name, rule.version);
            if rules.iter().any(is_same) {
                let message = format!(
                    "`{}` version {} is already defined in this file",
                    rule.name, rule.version
                );
                let remedy = "give it another version or name".to_owned();
                report.add_with(node.at, "", message, Some(remedy));
            }
            rules.push(Arc::new(rule));
        }
    }
    report.finish(rules)
}

/// Keys of a rule that a step has which awaits a pattern; its `correlate` says values as well.
const AWAITED_FIELDS: &[Field] = &[
    field("topic"),
    field("correlate"),
    field("time"),
    field("match"),
    field("limits"),
];

/// Reads the rule that a step implies which awaits a pattern: `name` at `version`, from a mapping of
/// these keys of the step, `correlate` being a list.
pub(crate) fn read_awaited(
    node: &Node,
    name: &str,
    version: u32,
    report: &mut Report<'_>,
) -> Option<Rule> {
    let what = "the pattern of a step";
    let fields = Fields::read(node, "", what, AWAITED_FIELDS, &[], report)?;
    let rule = read_body(&fields, report, report.count())?;
    Some(Rule {
        is_awaited: true,
        ..named(rule, Arc::from(name), version, node)?
    })
}

/// Whether a document says that it is a rule.
pub(crate) fn is_rule(node: &Node) -> bool {
    let Value::Map(members) = &node.value else {
        return false;
    };
    let kind = members.iter().find(|(key, _)| key.name == "kind");
    kind.is_some_and(|(_, kind)| kind.as_str() == Some("rule"))
}

/// Reads one document of a file: one rule, or of a stream's triggers one each. Nothing: it is
/// invalid; why is in the report.
pub(crate) fn read(node: &Node, report: &mut Report<'_>) -> Vec<Rule> {
    if check_kind(node, report).is_none() {
        return Vec::new();
    }
    let rules = shorthand::lower(node, report).into_iter();
    rules.filter_map(|node| read_rule(&node, report)).collect()
}

fn read_rule(node: &Node, report: &mut Report<'_>) -> Option<Rule> {
    let faults_before = report.count();
    let fields = Fields::read(node, "", "a rule", RULE_FIELDS, &[], report)?;
    let name = fields.definition_name("rule", report);
    let version = match fields.get("version") {
        Some(_) => fields.integer("version", 1..=u32::MAX, report),
        None => Some(1),
    };
    let rule = read_body(&fields, report, faults_before)?;
    named(rule, name?, version?, node)
}

/// The rule with its name, and its canonical form.
fn named(rule: Rule, name: Arc<str>, version: u32, node: &Node) -> Option<Rule> {
    let mut document = match node.to_json() {
        serde_json::Value::Object(members) => members,
        _ => return None,
    };
    document.insert("name".to_owned(), (*name).into());
    document.insert("version".to_owned(), version.into());
    if let Some(keys) = document.remove("correlation_keys") {
        document.insert("correlate".to_owned(), keys);
    }
    let text = canonical::text(&serde_json::Value::Object(document));
    Some(Rule {
        name,
        version,
        source: Json::from_text(&text).expect("canonical text is JSON"),
        ..rule
    })
}

/// All of a rule but its name, which is empty; nothing where more than `faults_before` are found.
fn read_body(fields: &Fields<'_>, report: &mut Report<'_>, faults_before: usize) -> Option<Rule> {
    let description = fields
        .string("description", report)
        .map(|(text, _)| text.to_owned());
    fields.topic("topic", report);
    let default_topic = fields.get("topic").and_then(Node::as_str);
    let limits = settings::limits(fields, report);
    let mut builder = Builder::new(default_topic, limits.clone());
    settings::correlate(fields, &mut builder, report);
    let time = settings::time(fields, &mut builder, report);
    let shape = match fields.get("match") {
        Some(node) => shapes::read(node, &mut builder, report),
        None => {
            report.add(fields.at, "", "a rule needs a `match`");
            None
        }
    };
    let emit = settings::emit(fields, shape.as_ref(), &builder, report);
    let enrich = actions::enrich(fields, &mut builder, report);
    let start = settings::start(fields, &builder, report);
    let enabled = settings::enabled(fields, report);
    let steers = actions::steers(fields, &builder, report);
    let fields_by_topic = match &shape {
        Some(_) => builder.fields_by_topic(report),
        None => Vec::new(),
    };
    if let Some(shape) = &shape {
        settings::check_ttl(fields, &limits, shape, &emit, &time, report);
    }
    let canary = actions::canary(fields, report);
    let mode = settings::mode(fields, report);
    let on_update = settings::on_update(fields, report);
    if report.count() > faults_before {
        return None;
    }
    Some(Rule {
        name: Arc::from(""),
        version: 1,
        description,
        source: Json::null(),
        topics: builder.topics,
        fields: builder.fields,
        fields_by_topic,
        correlate: builder.correlate,
        time,
        names: builder.names,
        predicates: builder.predicates,
        measures: builder.measures,
        shape: shape?,
        emit,
        limits,
        start,
        steers,
        enrich,
        canary,
        enabled,
        mode,
        on_update,
        is_awaited: false,
    })
}

fn check_kind(node: &Node, report: &mut Report<'_>) -> Option<()> {
    let Value::Map(members) = &node.value else {
        let message = format!(
            "a rule is a mapping that begins with `kind: rule`, not {}",
            node.described()
        );
        report.add(node.at, "", message);
        return None;
    };
    let Some((_, kind)) = members.iter().find(|(key, _)| key.name == "kind") else {
        let remedy = "add `kind: rule`".to_owned();
        report.add_with(node.at, "", "a definition needs a `kind`", Some(remedy));
        return None;
    };
    if kind.as_str() == Some("rule") {
        return Some(());
    }
    let found = canonical::text(&kind.to_json());
    report.add(
        kind.at,
        "kind",
        format!("only definitions of kind `rule` are read here, not {found}"),
    );
    None
}
