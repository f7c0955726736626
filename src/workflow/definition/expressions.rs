//! Templates and conditions of a workflow: compiled with their places in the file, and what they
//! name collected for the check against the graph.

use crate::document::fields::join;
use crate::document::node::{Node, Position, Value};
use crate::document::violation::Report;
use crate::expr::{Condition, Names, Path, Template, TemplateBuilder, Text, nearest};

/// What an expression of a workflow may begin with.
const NAMES: Names<'static> = Names {
    known: &["input", "steps", "run"],
    refused: &REFUSED,
};

/// And one over a signal.
const NAMES_WITH_SIGNAL: Names<'static> = Names {
    known: &["input", "steps", "run", "signal"],
    refused: &REFUSED,
};

const REFUSED: [(&str, &str); 6] = [
    ("vars", "is not there yet: no step sets variables so far"),
    (
        "event",
        "is not there: a rule gives what it found to the run as `input`",
    ),
    (
        "item",
        "has a value only within a `foreach`, which is not there yet",
    ),
    (
        "index",
        "has a value only within a `foreach`, which is not there yet",
    ),
    (
        "error",
        "has a value only within a `fallback`, which is not there yet",
    ),
    (
        "signal",
        "has a value only in the `where` of a step that awaits one; later it is the step's output",
    ),
];

const STEP_FIELDS: [&str; 4] = ["status", "output", "error", "attempt"];

const SIGNAL_FIELDS: [&str; 3] = ["name", "data", "id"];

const RUN_FIELDS: [&str; 6] = ["id", "workflow", "version", "tags", "started_at", "epoch"];

/// A step that an expression reads.
pub(super) struct Reference {
    pub(super) step: String,
    pub(super) at: Position,
    pub(super) path: String,
}

/// Compiles a value with expressions in its strings.
pub(super) fn template(
    node: &Node,
    path: &str,
    report: &mut Report<'_>,
    references: &mut Vec<Reference>,
) -> Template {
    let mut builder = TemplateBuilder::new();
    build(node, path, &mut builder, report, references);
    builder.finish()
}

fn build(
    node: &Node,
    path: &str,
    builder: &mut TemplateBuilder,
    report: &mut Report<'_>,
    references: &mut Vec<Reference>,
) {
    match &node.value {
        Value::String(text) => match Text::compile(text, &NAMES) {
            Ok(compiled) => {
                check_paths(compiled.paths(), node, text, path, report, references);
                builder.text(compiled);
            }
            Err(error) => {
                report.add_expression_error(&error, node, text, path);
                builder.scalar("null");
            }
        },
        Value::List(items) => {
            builder.begin_list();
            for (place, item) in items.iter().enumerate() {
                build(
                    item,
                    &format!("{path}[{place}]"),
                    builder,
                    report,
                    references,
                );
            }
            builder.end_list();
        }
        Value::Map(members) => {
            builder.begin_object();
            for (key, member) in members {
                builder.key(&key.name);
                build(member, &join(path, &key.name), builder, report, references);
            }
            builder.end_object();
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {
            builder.scalar(&node.to_json().to_string())
        }
    }
}

/// Compiles a condition; `true` and `false` may stand without quotes.
pub(super) fn condition(
    node: &Node,
    path: &str,
    report: &mut Report<'_>,
    references: &mut Vec<Reference>,
) -> Option<Condition> {
    condition_over(&NAMES, node, path, report, references)
}

/// The same over a signal as well.
pub(super) fn signal_condition(
    node: &Node,
    path: &str,
    report: &mut Report<'_>,
    references: &mut Vec<Reference>,
) -> Option<Condition> {
    condition_over(&NAMES_WITH_SIGNAL, node, path, report, references)
}

fn condition_over(
    names: &Names<'_>,
    node: &Node,
    path: &str,
    report: &mut Report<'_>,
    references: &mut Vec<Reference>,
) -> Option<Condition> {
    let text = match &node.value {
        Value::String(text) => text.as_str(),
        Value::Bool(true) => "true",
        Value::Bool(false) => "false",
        _ => {
            let message = format!(
                "a condition is an expression such as `${{input.amount > 100}}`, not {}",
                node.described()
            );
            report.add(node.at, path, message);
            return None;
        }
    };
    match Condition::compile(text, names) {
        Ok(condition) => {
            check_paths(condition.paths(), node, text, path, report, references);
            Some(condition)
        }
        Err(error) => {
            report.add_expression_error(&error, node, text, path);
            None
        }
    }
}

/// Checks what can be told without the graph, and notes the steps that are read.
fn check_paths<'p>(
    paths: impl Iterator<Item = &'p Path>,
    node: &Node,
    text: &str,
    path: &str,
    report: &mut Report<'_>,
    references: &mut Vec<Reference>,
) {
    for read in paths {
        let at = report.locate(node, text, read.offset);
        let mut unknown = |what: &str, name: &str, known: &[&str]| {
            let suggestion = match nearest(name, known.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("there are {}", known.join(", ")),
            };
            report.add_with(
                at,
                path,
                format!("{what} has no field `{name}`"),
                Some(suggestion),
            );
        };
        match (read.name(0), read.name(1)) {
            (Some("steps"), Some(step)) => {
                if let Some(field) = read.name(2)
                    && !STEP_FIELDS.contains(&field)
                {
                    unknown("a step", field, &STEP_FIELDS);
                }
                references.push(Reference {
                    step: step.to_owned(),
                    at,
                    path: path.to_owned(),
                });
            }
            (Some("steps"), None) => {
                let message = "`steps` must be followed by the name of a step, such as `steps.analyze.output`";
                report.add(at, path, message);
            }
            (Some("run"), Some(field)) if !RUN_FIELDS.contains(&field) => {
                unknown("`run`", field, &RUN_FIELDS)
            }
            (Some("signal"), Some(field)) if !SIGNAL_FIELDS.contains(&field) => {
                unknown("`signal`", field, &SIGNAL_FIELDS)
            }
            _ => {}
        }
    }
}
