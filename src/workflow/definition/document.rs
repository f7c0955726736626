//! One document of a file: its kind, name and version, and the workflow that it is.

use std::sync::Arc;

use serde_json::{Map, Value as Json};

use super::expressions::{self, Reference};
use super::retry::{self, RetrySpec};
use super::step::{self, StepSource};
use super::{Defaults, Definition, graph};
use crate::document::fields::{Field, Fields, field};
use crate::document::node::{Node, Value};
use crate::document::violation::Report;
use crate::document::{canonical, duration};
use crate::expr::{Template, nearest};
use crate::model::Json as JsonText;
use crate::workflow::program::{InputSchema, Workflow};

pub(super) const WORKFLOW_FIELDS: &[Field] = &[
    field("kind"),
    field("name"),
    field("version"),
    field("description"),
    field("timeout"),
    field("timeout_seconds"),
    retry::RETRY,
    retry::RETRY_COUNT,
    field("input_schema"),
    field("steps"),
    field("output"),
];

/// Kinds of definitions that will be and are not yet.
const PLANNED_KINDS: [&str; 2] = ["agent", "policy"];

/// Reads one document. `None`: it is invalid; why is in the report.
pub(super) fn read(
    node: &Node,
    defaults: &Defaults,
    report: &mut Report<'_>,
) -> Option<Definition> {
    let faults_before = report.count();
    check_kind(node, report)?;
    let fields = Fields::read(node, "", "a workflow", WORKFLOW_FIELDS, &[], report)?;
    let name = fields.definition_name("workflow", report);
    let version = match fields.get("version") {
        Some(_) => fields.integer("version", 1..=u32::MAX, report),
        None => Some(1),
    };
    let description = fields
        .string("description", report)
        .map(|(text, _)| text.to_owned());
    let timeout = fields.span("timeout", "timeout_seconds", report);
    let retry = RetrySpec::read(&fields, report);
    let policy = retry.merge(&defaults.retry, report);
    let input_schema = fields
        .get("input_schema")
        .and_then(|node| read_schema(node, report));
    let mut output_reads: Vec<Reference> = Vec::new();
    let output: Option<Template> = fields
        .get("output")
        .map(|node| expressions::template(node, "output", report, &mut output_reads));
    let sources = read_steps(&fields, defaults, report);
    let steps_json: Vec<Json> = sources
        .iter()
        .map(|source| source.canonical.clone())
        .collect();
    let (steps, by_id) = graph::link(sources, &policy, &output_reads, report);
    if report.count() > faults_before {
        return None;
    }
    let (name, version) = (name?, version?);
    let mut document = Map::new();
    document.insert("kind".to_owned(), "workflow".into());
    document.insert("name".to_owned(), (*name).into());
    document.insert("version".to_owned(), version.into());
    document.insert("steps".to_owned(), steps_json.into());
    for name in ["description", "input_schema", "output"] {
        if let Some(node) = fields.get(name) {
            document.insert(name.to_owned(), node.to_json());
        }
    }
    if let Some(timeout) = timeout {
        document.insert("timeout".to_owned(), duration::write(timeout).into());
    }
    if let Some(retry) = retry.canonical() {
        document.insert("retry".to_owned(), retry);
    }
    let source = JsonText::from_text(&canonical::text(&Json::Object(document)))
        .expect("canonical text is JSON");
    let workflow = Workflow {
        name: name.clone(),
        version,
        description,
        timeout,
        steps,
        by_id,
        output,
        input_schema,
    };
    Some(Definition {
        name,
        version,
        source,
        workflow: Arc::new(workflow),
    })
}

fn check_kind(node: &Node, report: &mut Report<'_>) -> Option<()> {
    let Value::Map(members) = &node.value else {
        let message = format!(
            "a definition is a mapping that begins with its `kind`, such as `kind: workflow`, not {}",
            node.described()
        );
        report.add(node.at, "", message);
        return None;
    };
    let Some((_, kind)) = members.iter().find(|(key, _)| key.name == "kind") else {
        report.add_with(
            node.at,
            "",
            "a definition needs a `kind`",
            Some("add `kind: workflow` or `kind: rule`".to_owned()),
        );
        return None;
    };
    match kind.as_str() {
        Some("workflow") => return Some(()),
        Some("rule") => report.add(kind.at, "kind", "only workflows are read here, not rules"),
        Some(name) if PLANNED_KINDS.contains(&name) => {
            report.add(
                kind.at,
                "kind",
                format!("definitions of kind `{name}` are not there yet; there are `workflow` and `rule`"),
            );
        }
        Some(name) => {
            let suggestion =
                nearest(name, ["workflow", "rule"]).map(|near| format!("did you mean `{near}`?"));
            report.add_with(
                kind.at,
                "kind",
                format!("unknown kind `{name}`; there are `workflow` and `rule`"),
                suggestion,
            );
        }
        None => report.add(
            kind.at,
            "kind",
            format!(
                "`kind` is a string such as `workflow`, not {}",
                kind.described()
            ),
        ),
    }
    None
}

fn read_schema(node: &Node, report: &mut Report<'_>) -> Option<InputSchema> {
    if !matches!(node.value, Value::Map(_) | Value::Bool(_)) {
        let message = format!(
            "`input_schema` is a JSON Schema: a mapping, not {}",
            node.described()
        );
        report.add(node.at, "input_schema", message);
        return None;
    }
    match jsonschema::validator_for(&node.to_json()) {
        Ok(validator) => Some(InputSchema(validator)),
        Err(error) => {
            let message: String = error.to_string().chars().take(300).collect();
            report.add(
                node.at,
                "input_schema",
                format!("not a JSON Schema: {message}"),
            );
            None
        }
    }
}

fn read_steps(
    fields: &Fields<'_>,
    defaults: &Defaults,
    report: &mut Report<'_>,
) -> Vec<StepSource> {
    let Some(node) = fields.get("steps") else {
        report.add(fields.at, "", "a workflow needs `steps`");
        return Vec::new();
    };
    let Value::List(items) = &node.value else {
        report.add(
            node.at,
            "steps",
            format!("`steps` is a list of steps, not {}", node.described()),
        );
        return Vec::new();
    };
    if items.is_empty() {
        report.add(node.at, "steps", "a workflow needs at least one step");
    }
    if items.len() > defaults.max_steps {
        let message = format!(
            "the workflow has {} steps; {} are allowed",
            items.len(),
            defaults.max_steps
        );
        report.add(node.at, "steps", message);
        return Vec::new();
    }
    let read = |(place, item)| step::read(item, &format!("steps[{place}]"), report);
    items.iter().enumerate().filter_map(read).collect()
}
