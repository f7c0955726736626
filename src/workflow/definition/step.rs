//! One step: its keys read and its expressions compiled. What it names is resolved by `graph`.

use std::sync::Arc;

use serde_json::{Map, Value as Json};

use super::expressions::{self, Reference};
use super::retry::{self, RetrySpec};
use super::{awaiting, awaiting_pattern};
use crate::document::fields::{Field, Fields, alias, field};
use crate::document::node::{Node, Position, Value};
use crate::document::violation::Report;
use crate::document::{MAX_NAME_LENGTH, duration};
use crate::expr::{Condition, Template};
use crate::model::{Json as JsonText, Millis, SignalName};
use crate::workflow::program::OnError;

pub(super) const STEP_FIELDS: &[Field] = &[
    alias("id", &["step_id"]),
    field("kind"),
    field("description"),
    alias("agent", &["agent_id", "agent_type"]),
    field("task"),
    field("inputs"),
    field("switch"),
    field("await"),
    field("where"),
    field("correlate"),
    field("topic"),
    field("time"),
    field("match"),
    field("limits"),
    alias("depends_on", &["dependencies"]),
    field("when"),
    retry::RETRY,
    retry::RETRY_COUNT,
    field("timeout"),
    field("timeout_seconds"),
    field("heartbeat_timeout"),
    field("on_error"),
];

/// Keys that only an agent step has.
const AGENT_ONLY: [&str; 8] = [
    "agent",
    "task",
    "inputs",
    "retry",
    "retry_count",
    "timeout",
    "timeout_seconds",
    "heartbeat_timeout",
];

pub(super) const SWITCH_FIELDS: &[Field] = &[field("cases"), field("default")];

pub(super) const CASE_FIELDS: &[Field] = &[field("name"), field("when"), field("then")];

/// Kinds of steps that there are.
const KINDS: [&str; 4] = ["agent", "switch", "await", "await_pattern"];

/// Kinds of steps that will be and are not yet.
const PLANNED_KINDS: [&str; 13] = [
    "foreach",
    "loop",
    "parallel",
    "wait",
    "workflow",
    "human",
    "set",
    "emit",
    "graph",
    "pipeline",
    "fan_out",
    "consensus",
    "hierarchy",
];

/// A step as read.
pub(super) struct StepSource {
    pub(super) id: Arc<str>,
    /// Where the id stands.
    pub(super) at: Position,
    pub(super) path: String,
    pub(super) kind: KindSource,
    pub(super) depends_on: Vec<Named>,
    pub(super) when: Option<Condition>,
    pub(super) retry: RetrySpec,
    pub(super) timeout: Option<Millis>,
    pub(super) heartbeat_timeout: Option<Millis>,
    pub(super) on_error: OnError,
    /// The steps that its expressions read.
    pub(super) references: Vec<Reference>,
    pub(super) canonical: Json,
}

pub(super) enum KindSource {
    Agent {
        agent: Arc<str>,
        task: Template,
        inputs: Template,
    },
    Switch {
        cases: Vec<CaseSource>,
        default: Vec<Named>,
    },
    Await {
        signal: SignalName,
        condition: Option<Condition>,
    },
    AwaitPattern {
        key: Vec<Template>,
    },
}

pub(super) struct CaseSource {
    pub(super) name: Option<String>,
    pub(super) when: Condition,
    pub(super) then: Vec<Named>,
}

/// The name of a step where it is given.
pub(super) struct Named {
    pub(super) name: String,
    pub(super) at: Position,
    pub(super) path: String,
}

/// Reads a step. `None`: it cannot take part in the checks of the graph; why is in the report.
pub(super) fn read(node: &Node, path: &str, report: &mut Report<'_>) -> Option<StepSource> {
    let faults_before = report.count();
    let planned: Vec<&str> = PLANNED_KINDS
        .iter()
        .copied()
        .chain(["compensate"])
        .collect();
    let fields = Fields::read(node, path, "a step", STEP_FIELDS, &planned, report)?;
    let mut references = Vec::new();
    let id = read_id(&fields, report);
    fields.string("description", report);
    let kind = read_kind(&fields, node, report, &mut references);
    let depends_on = names(&fields, "depends_on", report);
    let when = fields.get("when").and_then(|node| {
        expressions::condition(node, &fields.path_of("when"), report, &mut references)
    });
    let retry = RetrySpec::read(&fields, report);
    let timeout = fields.span("timeout", "timeout_seconds", report);
    let heartbeat_timeout = fields.span("heartbeat_timeout", "", report);
    let on_error_path = fields.path_of("on_error");
    let on_error = fields
        .get("on_error")
        .map(|node| retry::on_error(node, &on_error_path, report))
        .unwrap_or_default();
    let canonical = canonical(&fields, &retry, timeout, heartbeat_timeout);
    let (id, at) = id?;
    let kind = match kind {
        Some(kind) => kind,
        // Its faults are told; as a step that does nothing it still takes part in the graph.
        None if report.count() > faults_before => KindSource::Switch {
            cases: Vec::new(),
            default: Vec::new(),
        },
        None => return None,
    };
    Some(StepSource {
        id,
        at,
        path: path.to_owned(),
        kind,
        depends_on,
        when,
        retry,
        timeout,
        heartbeat_timeout,
        on_error,
        references,
        canonical,
    })
}

fn read_id(fields: &Fields<'_>, report: &mut Report<'_>) -> Option<(Arc<str>, Position)> {
    if fields.get("id").is_none() {
        report.add(fields.at, &fields.path, "a step needs an `id`");
        return None;
    }
    let (id, node) = fields.string("id", report)?;
    let first = |character: char| character.is_ascii_alphabetic() || character == '_';
    let rest = |character: char| character.is_ascii_alphanumeric() || character == '_';
    if !id.starts_with(first) || !id.chars().all(rest) || id.len() > MAX_NAME_LENGTH {
        let message = format!(
            "`{}` is no step id: letters, digits and `_`, not beginning with a digit, at most {MAX_NAME_LENGTH}",
            id.chars().take(60).collect::<String>(),
        );
        let fixed: String = id
            .chars()
            .map(|character| if rest(character) { character } else { '_' })
            .collect();
        let fixed = if fixed.starts_with(first) {
            fixed
        } else {
            format!("_{fixed}")
        };
        let suggestion =
            (!id.is_empty() && fixed.len() <= 60).then(|| format!("such as `{fixed}`"));
        report.add_with(node.at, &fields.path_of("id"), message, suggestion);
        return None;
    }
    Some((Arc::from(id), node.at))
}

fn read_kind(
    fields: &Fields<'_>,
    node: &Node,
    report: &mut Report<'_>,
    references: &mut Vec<Reference>,
) -> Option<KindSource> {
    let named = fields.string("kind", report);
    match named {
        Some(("agent", _)) => {}
        Some(("switch", _)) => return read_switch(fields, report, references),
        Some(("await", _)) => return read_await(fields, report, references),
        Some(("await_pattern", _)) => return awaiting_pattern::read(fields, report, references),
        Some((kind, node)) => {
            let path = fields.path_of("kind");
            if PLANNED_KINDS.contains(&kind) {
                let message = format!(
                    "the step kind `{kind}` is not there yet; there are `agent`, `switch`, `await` and `await_pattern`"
                );
                report.add(node.at, &path, message);
            } else {
                let suggestion =
                    crate::expr::nearest(kind, KINDS).map(|near| format!("did you mean `{near}`?"));
                let message = format!(
                    "unknown step kind `{kind}`; there are `agent`, `switch`, `await` and `await_pattern`"
                );
                report.add_with(node.at, &path, message, suggestion);
            }
            return None;
        }
        None if fields.get("switch").is_some() => return read_switch(fields, report, references),
        None if fields.get("await").is_some() => return read_await(fields, report, references),
        None if fields.get("match").is_some() => {
            return awaiting_pattern::read(fields, report, references);
        }
        // A key of a kind that is not there yet was refused by its name.
        None if has_planned_kind(node) => return None,
        None => {}
    }
    read_agent(fields, report, references)
}

fn read_await(
    fields: &Fields<'_>,
    report: &mut Report<'_>,
    references: &mut Vec<Reference>,
) -> Option<KindSource> {
    awaiting_pattern::refuse_keys(fields, "a step that awaits a signal", report);
    awaiting::read(fields, report, references)
}

fn has_planned_kind(node: &Node) -> bool {
    match &node.value {
        Value::Map(members) => members
            .iter()
            .any(|(key, _)| PLANNED_KINDS.contains(&&*key.name)),
        _ => false,
    }
}

fn read_agent(
    fields: &Fields<'_>,
    report: &mut Report<'_>,
    references: &mut Vec<Reference>,
) -> Option<KindSource> {
    if let Some((key, _)) = fields.entry("switch") {
        report.add(
            key.at,
            &fields.path_of("switch"),
            "an agent step has no `switch`",
        );
    }
    awaiting::refuse_keys(fields, "an agent step", report);
    awaiting_pattern::refuse_keys(fields, "an agent step", report);
    let task = object(fields, "task", report, references);
    let inputs = object(fields, "inputs", report, references);
    if fields.get("agent").is_none() {
        let suggestion =
            "add `agent: NAME`, or `switch:` for a branch, or `await: SIGNAL`, or `match:` for a pattern"
                .to_owned();
        report.add_with(
            fields.at,
            &fields.path,
            "a step needs an `agent`",
            Some(suggestion),
        );
        return None;
    }
    let (agent, node) = fields.string("agent", report)?;
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if agent.is_empty() || agent.len() > MAX_NAME_LENGTH || !agent.bytes().all(allowed) {
        let message = format!(
            "`{}` is no agent's name: it becomes part of a topic's name, so 1 to {MAX_NAME_LENGTH} of A-Z a-z 0-9 . _ - are allowed",
            agent.chars().take(60).collect::<String>(),
        );
        report.add(node.at, &fields.path_of("agent"), message);
        return None;
    }
    Some(KindSource::Agent {
        agent: Arc::from(agent),
        task,
        inputs,
    })
}

/// A mapping, or one expression that gives one; `{}` where it is absent.
fn object(
    fields: &Fields<'_>,
    name: &str,
    report: &mut Report<'_>,
    references: &mut Vec<Reference>,
) -> Template {
    let empty = || Template::constant(JsonText::from_text("{}").expect("it is JSON"));
    let Some(node) = fields.get(name) else {
        return empty();
    };
    let path = fields.path_of(name);
    let is_expression = node.as_str().is_some_and(|text| text.starts_with("${"));
    if !is_expression && !matches!(node.value, Value::Map(_)) {
        let message = format!(
            "`{name}` is a mapping, or one expression such as `${{input}}`, not {}",
            node.described()
        );
        report.add(node.at, &path, message);
        return empty();
    }
    let template = expressions::template(node, &path, report, references);
    if is_expression && !template.is_expression() {
        report.add(
            node.at,
            &path,
            format!("`{name}` is a mapping, or one expression as a whole; this text is neither"),
        );
    }
    template
}

fn read_switch(
    fields: &Fields<'_>,
    report: &mut Report<'_>,
    references: &mut Vec<Reference>,
) -> Option<KindSource> {
    for name in AGENT_ONLY {
        if let Some((key, _)) = fields.entry(name) {
            report.add(
                key.at,
                &fields.path_of(name),
                format!("a switch sends no task, so it has no `{}`", key.name),
            );
        }
    }
    awaiting::refuse_keys(fields, "a switch", report);
    awaiting_pattern::refuse_keys(fields, "a switch", report);
    let Some(node) = fields.get("switch") else {
        report.add(
            fields.at,
            &fields.path,
            "a step of kind `switch` needs a `switch` with `cases`",
        );
        return None;
    };
    let switch = Fields::read(
        node,
        &fields.path_of("switch"),
        "a switch",
        SWITCH_FIELDS,
        &[],
        report,
    )?;
    let cases_path = switch.path_of("cases");
    let default = names(&switch, "default", report);
    let items = match switch.get("cases").map(|node| (&node.value, node)) {
        Some((Value::List(items), _)) if !items.is_empty() => items,
        Some((Value::List(_), node)) => {
            report.add(node.at, &cases_path, "a switch needs at least one case");
            return None;
        }
        Some((_, node)) => {
            report.add(
                node.at,
                &cases_path,
                format!("`cases` is a list, not {}", node.described()),
            );
            return None;
        }
        None => {
            report.add(switch.at, &switch.path, "a switch needs `cases`");
            return None;
        }
    };
    let cases: Vec<Option<CaseSource>> = items
        .iter()
        .enumerate()
        .map(|(place, node)| read_case(node, &format!("{cases_path}[{place}]"), report, references))
        .collect();
    let cases: Vec<CaseSource> = cases.into_iter().collect::<Option<_>>()?;
    for (place, case) in cases.iter().enumerate() {
        let same = |other: &CaseSource| other.name.is_some() && other.name == case.name;
        if cases[..place].iter().any(same) {
            let name = case.name.as_deref().unwrap_or_default();
            report.add(
                items[place].at,
                &format!("{cases_path}[{place}].name"),
                format!("two cases are named `{name}`"),
            );
        }
    }
    Some(KindSource::Switch { cases, default })
}

fn read_case(
    node: &Node,
    path: &str,
    report: &mut Report<'_>,
    references: &mut Vec<Reference>,
) -> Option<CaseSource> {
    let fields = Fields::read(node, path, "a case", CASE_FIELDS, &[], report)?;
    let name = fields
        .string("name", report)
        .map(|(name, _)| name.to_owned());
    let when = match fields.get("when") {
        Some(node) => expressions::condition(node, &fields.path_of("when"), report, references),
        None => {
            report.add(
                fields.at,
                path,
                "a case needs a `when`; what holds otherwise goes to `default`",
            );
            None
        }
    };
    if fields.get("then").is_none() {
        report.add(
            fields.at,
            path,
            "a case needs a `then` with the steps that it leads to",
        );
    }
    let then = names(&fields, "then", report);
    Some(CaseSource {
        name,
        when: when?,
        then,
    })
}

fn names(fields: &Fields<'_>, name: &str, report: &mut Report<'_>) -> Vec<Named> {
    let path = fields.path_of(name);
    let texts = fields.strings(name, report).unwrap_or_default();
    let named = |(place, (text, node)): (usize, (&str, &Node))| Named {
        name: text.to_owned(),
        at: node.at,
        path: format!("{path}[{place}]"),
    };
    texts.into_iter().enumerate().map(named).collect()
}

/// The step with its aliases resolved.
fn canonical(
    fields: &Fields<'_>,
    retry: &RetrySpec,
    timeout: Option<Millis>,
    heartbeat_timeout: Option<Millis>,
) -> Json {
    let mut step = Map::new();
    for name in [
        "id",
        "kind",
        "description",
        "agent",
        "task",
        "inputs",
        "switch",
        "await",
        "where",
        "correlate",
        "topic",
        "time",
        "match",
        "limits",
        "depends_on",
        "when",
        "on_error",
    ] {
        if let Some(node) = fields.get(name) {
            step.insert(name.to_owned(), node.to_json());
        }
    }
    for (name, span) in [
        ("timeout", timeout),
        ("heartbeat_timeout", heartbeat_timeout),
    ] {
        if let Some(span) = span {
            step.insert(name.to_owned(), duration::write(span).into());
        }
    }
    if let Some(retry) = retry.canonical() {
        step.insert("retry".to_owned(), retry);
    }
    Json::Object(step)
}
