//! From the text that a person wrote to a checked [`Rule`], or to all that is wrong with it.
//!
//! [`parse`] reads a file; `shapes` reads what stands under `match`, `sequence` its steps,
//! `settings` the rest; `builder` interns topics, fields and names on the way.

mod builder;
mod sequence;
mod settings;
mod shapes;

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
    field("mode"),
    field("on_update"),
];

const PLANNED: &[&str] = &[
    "enrich",
    "signal",
    "cancel",
    "pause",
    "canary",
    "windowing",
    "aggregations",
    "trigger_workflows",
    "context_enrichment",
    "temporal_relationship",
    "workflow_trigger",
    "window_minutes",
    "debounce_ms",
    "events",
];

/// Reads the rules of a file, one or many (`---` between them), YAML or JSON. `file` is its name
/// for messages. A file without any rule is a fault, and so is a document of another kind.
pub fn parse(text: &str, file: Option<&str>) -> Result<Vec<Arc<Rule>>, Violations> {
    let (documents, mut report) = document::read(text, file);
    let mut rules: Vec<Arc<Rule>> = Vec::new();
    for node in &documents {
        let Some(rule) = read(node, &mut report) else {
            continue;
        };
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
    report.finish(rules)
}

fn read(node: &Node, report: &mut Report<'_>) -> Option<Rule> {
    let faults_before = report.count();
    check_kind(node, report)?;
    let fields = Fields::read(node, "", "a rule", RULE_FIELDS, PLANNED, report)?;
    let name = fields.definition_name("rule", report);
    let version = match fields.get("version") {
        Some(_) => fields.integer("version", 1..=u32::MAX, report),
        None => Some(1),
    };
    let description = fields
        .string("description", report)
        .map(|(text, _)| text.to_owned());
    let default_topic = fields.string("topic", report).map(|(topic, _)| topic);
    let mut builder = Builder::new(default_topic);
    settings::correlate(&fields, &mut builder, report);
    let time = settings::time(&fields, &mut builder, report);
    let shape = match fields.get("match") {
        Some(node) => shapes::read(node, &mut builder, report),
        None => {
            report.add(fields.at, "", "a rule needs a `match`");
            None
        }
    };
    let emit = settings::emit(&fields, &builder, report);
    let limits = settings::limits(&fields, report);
    let start = settings::start(&fields, &builder, report);
    let mode = settings::mode(&fields, report);
    let on_update = settings::on_update(&fields, report);
    if report.count() > faults_before {
        return None;
    }
    let (name, version) = (name?, version?);
    let mut document = match node.to_json() {
        serde_json::Value::Object(members) => members,
        _ => return None,
    };
    document.insert("version".to_owned(), version.into());
    let text = canonical::text(&serde_json::Value::Object(document));
    Some(Rule {
        name,
        version,
        description,
        source: Json::from_text(&text).expect("canonical text is JSON"),
        topics: builder.topics,
        fields: builder.fields,
        correlate: builder.correlate,
        time,
        names: builder.names,
        predicates: builder.predicates,
        shape: shape?,
        emit,
        limits,
        start,
        mode,
        on_update,
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
