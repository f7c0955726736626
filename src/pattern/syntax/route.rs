//! `start.route`: a table over values of the match that names the workflow.

use std::sync::Arc;

use super::actions::lookup_key;
use super::builder::Builder;
use crate::document::fields::{Field, Fields, field, join};
use crate::document::node::{Node, Value};
use crate::document::violation::Report;
use crate::expr::{is_identifier, nearest};
use crate::pattern::event::Scalar;
use crate::pattern::route::{Bound, Choice, Route, Row, Test, Workflow};

/// Most rows of a table, and values of a cell.
const MAX_ROWS: usize = 1_000;

/// What a row says beside its cells.
const CHOICE: &[Field] = &[field("workflow"), field("version"), field("priority")];

pub(super) fn read(
    node: &Node,
    path: &str,
    builder: &Builder<'_>,
    report: &mut Report<'_>,
) -> Option<Route> {
    let faults_before = report.count();
    let known = &[field("by"), field("table"), field("otherwise")];
    let fields = Fields::read(node, path, "`route`", known, &[], report)?;
    let columns = columns(&fields, builder, report);
    let rows = rows(&fields, &columns, report);
    let otherwise = otherwise(&fields, &rows, report);
    let route = Route {
        columns,
        rows: rows.into_iter().map(|(row, _)| row).collect(),
        otherwise,
    };
    (report.count() == faults_before).then_some(route)
}

fn columns(
    fields: &Fields<'_>,
    builder: &Builder<'_>,
    report: &mut Report<'_>,
) -> Vec<(Arc<str>, crate::expr::Template)> {
    let path = fields.path_of("by");
    let mut columns = Vec::new();
    let members = match fields.get("by").map(|node| (&node.value, node)) {
        Some((Value::Map(members), _)) if !members.is_empty() => members,
        found => {
            let at = found.map_or(fields.at, |(_, node)| node.at);
            let remedy = "such as `by: {type: \"${matches.a[0].ce.type}\"}`".to_owned();
            let message = "`route` needs `by`, a mapping of columns to expressions";
            report.add_with(at, &path, message, Some(remedy));
            return columns;
        }
    };
    for (name, node) in members {
        let path = join(&path, &name.name);
        let is_taken = CHOICE.iter().any(|field| field.name == name.name);
        if !is_identifier(&name.name) || is_taken {
            let message = format!("`{}` is no name for a column, or is taken", name.name);
            report.add(name.at, &path, message);
        }
        let Some(text) = node.as_str() else {
            let message = format!("a column is an expression, not {}", node.described());
            report.add(node.at, &path, message);
            continue;
        };
        if let Some(template) = lookup_key(text, node, &path, builder, report) {
            columns.push((Arc::from(name.name.as_str()), template));
        }
    }
    columns
}

/// The rows, each with whether it takes whatever comes.
fn rows(
    fields: &Fields<'_>,
    columns: &[(Arc<str>, crate::expr::Template)],
    report: &mut Report<'_>,
) -> Vec<(Row, bool)> {
    let path = fields.path_of("table");
    let mut rows: Vec<(Row, bool)> = Vec::new();
    let items = match fields.get("table").map(|node| (&node.value, node)) {
        Some((Value::List(items), _)) if (1..=MAX_ROWS).contains(&items.len()) => items,
        found => {
            let at = found.map_or(fields.at, |(_, node)| node.at);
            let message = format!("`route` needs `table`, a list of 1 to {MAX_ROWS} rows");
            report.add(at, &path, message);
            return rows;
        }
    };
    for (place, item) in items.iter().enumerate() {
        let path = format!("{path}[{place}]");
        let Some(row) = row(item, &path, columns, report) else {
            continue;
        };
        if let Some(first) = rows.iter().position(|(before, _)| before.covers(&row)) {
            let message = format!(
                "no match reaches this row: row {} takes all that would fit it",
                first + 1
            );
            report.add(item.at, &path, message);
        }
        let takes_all = row.cells.is_empty();
        rows.push((row, takes_all));
    }
    rows
}

fn row(
    node: &Node,
    path: &str,
    columns: &[(Arc<str>, crate::expr::Template)],
    report: &mut Report<'_>,
) -> Option<Row> {
    let Value::Map(members) = &node.value else {
        let message = format!("a row is a mapping, not {}", node.described());
        report.add(node.at, path, message);
        return None;
    };
    let mut cells = Vec::new();
    let mut of_choice = Vec::new();
    for (key, value) in members {
        let path = join(path, &key.name);
        if CHOICE.iter().any(|field| field.name == key.name) {
            of_choice.push((key.clone(), value.clone()));
            continue;
        }
        match columns.iter().position(|(name, _)| **name == *key.name) {
            Some(column) => {
                let tests = tests(value, &path, report)?;
                if let Some(tests) = tests {
                    cells.push((u16::try_from(column).unwrap_or(u16::MAX), tests));
                }
            }
            None => {
                let known = columns.iter().map(|(name, _)| &**name);
                let all = || {
                    let names: Vec<&str> = known.clone().collect();
                    format!(
                        "there are {}, and workflow, version, priority",
                        names.join(", ")
                    )
                };
                let words = CHOICE.iter().map(|field| field.name);
                let near = nearest(&key.name, known.clone().chain(words));
                let remedy = near.map_or_else(all, |near| format!("did you mean `{near}`?"));
                let message = format!("`by` names no column `{}`", key.name);
                report.add_with(key.at, &path, message, Some(remedy));
            }
        }
    }
    let rest = Node {
        value: Value::Map(of_choice),
        ..node.clone()
    };
    let choice = choice(&rest, path, "a row", report)?;
    Some(Row { cells, choice })
}

fn choice(node: &Node, path: &str, what: &str, report: &mut Report<'_>) -> Option<Choice> {
    let fields = Fields::read(node, path, what, CHOICE, &[], report)?;
    if fields.get("workflow").is_none() {
        report.add(node.at, path, format!("{what} needs a `workflow`"));
    }
    let workflow = fields.string("workflow", report);
    let version = fields.integer("version", 1..=u32::MAX, report);
    let priority = fields.integer("priority", 0..=i32::MAX as u32, report);
    Some(Choice {
        workflow: Workflow {
            name: Arc::from(workflow?.0),
            version,
        },
        priority: priority.and_then(|priority| i32::try_from(priority).ok()),
    })
}

/// What may stand in a cell; `Some(None)`: anything.
fn tests(node: &Node, path: &str, report: &mut Report<'_>) -> Option<Option<Vec<Test>>> {
    let items = match &node.value {
        Value::List(items) if (1..=MAX_ROWS).contains(&items.len()) => items.as_slice(),
        _ => std::slice::from_ref(node),
    };
    let mut tests = Vec::with_capacity(items.len());
    for item in items {
        match test(item) {
            Ok(Some(test)) => tests.push(test),
            Ok(None) => return Some(None),
            Err(message) => {
                report.add(item.at, path, message);
                return None;
            }
        }
    }
    Some(Some(tests))
}

/// `None`: anything.
fn test(node: &Node) -> Result<Option<Test>, String> {
    let text = match &node.value {
        Value::String(text) => text.as_str(),
        Value::List(_) | Value::Map(_) => {
            return Err(format!(
                "a cell is a value, a bound such as \">= 0.8\", a beginning such as \"order.*\", \
                 \"*\" for anything, or a list of these, not {}",
                node.described()
            ));
        }
        _ => {
            return Ok(Some(Test::Is(Scalar::from_json(
                &node.to_json().to_string(),
            ))));
        }
    };
    let bounds = [
        (">=", Bound::AtLeast),
        ("<=", Bound::AtMost),
        (">", Bound::Above),
        ("<", Bound::Below),
    ];
    for (sign, bound) in bounds {
        if let Some(edge) = text.strip_prefix(sign) {
            let edge = edge.trim().parse::<f64>().ok();
            let edge = edge.filter(|edge| edge.is_finite());
            let edge = edge.ok_or_else(|| format!("`{text}` has no number behind `{sign}`"))?;
            return Ok(Some(Test::Number(bound, edge)));
        }
    }
    Ok(match text.strip_suffix('*') {
        Some("") => None,
        Some(prefix) => Some(Test::Prefix(prefix.into())),
        None => Some(Test::Is(Scalar::Text(text.into()))),
    })
}

fn otherwise(fields: &Fields<'_>, rows: &[(Row, bool)], report: &mut Report<'_>) -> Option<Choice> {
    let path = fields.path_of("otherwise");
    let takes_all = rows.iter().any(|(_, takes_all)| *takes_all);
    let Some(node) = fields.get("otherwise") else {
        if !takes_all && !rows.is_empty() {
            let remedy = "add `otherwise: WORKFLOW`, or `otherwise: drop`".to_owned();
            let message = "`route` does not say what becomes of a match that no row fits";
            report.add_with(fields.at, &path, message, Some(remedy));
        }
        return None;
    };
    if takes_all {
        let message = "no match reaches `otherwise`: a row asks nothing of any column";
        report.add(node.at, &path, message);
        return None;
    }
    match &node.value {
        Value::String(word) if word == "drop" => None,
        Value::String(name) => Some(Choice {
            workflow: Workflow {
                name: Arc::from(name.as_str()),
                version: None,
            },
            priority: None,
        }),
        _ => choice(node, &path, "`otherwise`", report),
    }
}
