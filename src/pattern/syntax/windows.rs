//! `match.window`: spans of event time, aggregates and what they must meet.

use std::sync::Arc;

use super::builder::{Builder, field_path, unreadable};
use super::measures::{self, is_field, millis};
use super::settings::choice;
use super::shapes::{mandatory_span, span};
use crate::document::fields::{Field, Fields, field, join};
use crate::document::node::{Node, Value};
use crate::document::violation::Report;
use crate::expr::{Condition, Names, is_identifier, is_word, nearest};
use crate::pattern::aggregate::{Function, Needs};
use crate::pattern::gauge::{Gauge, Method};
use crate::pattern::having::Having;
use crate::pattern::predicate::Scope as _;
use crate::pattern::rule::{Aggregate, Shape, Span, Window};
use crate::pattern::window::{HoppingSpec, SessionSpec, TrailingSpec, WindowError};

const WINDOW: &[Field] = &[
    field("id"),
    field("topic"),
    field("where"),
    field("type"),
    field("size"),
    field("every"),
    field("gap"),
    field("aggregate"),
    field("having"),
    field("change"),
    field("anomaly"),
    field("emit"),
];

/// Members of a window in `matches` beside its aggregates, and what `having` reads beside them.
const TAKEN: [&str; 5] = ["start", "end", "measured", "ce", "key"];

/// Most aggregates of one window.
const MAX_AGGREGATES: usize = 64;

pub(super) fn read(
    node: &Node,
    path: &str,
    builder: &mut Builder<'_>,
    report: &mut Report<'_>,
) -> Option<Shape> {
    let faults_before = report.count();
    let fields = Fields::read(node, path, "`window`", WINDOW, &[], report)?;
    let name = match fields.get("id") {
        Some(_) => builder.register(&fields, "window", report),
        None => builder.name_of_shape("window"),
    };
    let topic = builder.topic(&fields, report);
    let predicate = topic.and_then(|topic| builder.predicate(&fields, "where", &[], topic, report));
    let span = read_span(&fields, builder.limits.max_partials_per_key, report);
    let early = choice(&fields, "emit", &["close", "early"], report) == Some("early");
    let (aggregates, samples) = aggregates(&fields, builder, report);
    let having = having(&fields, &aggregates, builder, report);
    let gauge = gauge(
        &fields,
        span,
        &aggregates,
        builder.limits.max_partials_per_key,
        report,
    );
    let mut refuse = |name: &str, message: &str| {
        let at = fields.get(name).map_or(fields.at, |node| node.at);
        report.add(at, &join(path, name), message);
    };
    if fields.get("having").is_none() && gauge.is_none() {
        refuse(
            "having",
            "a window needs `having`, such as `having: \"n >= 10\"`, or an `anomaly` or `change` of an aggregate",
        );
    }
    if early {
        if !matches!(span, None | Some(Span::Tumbling { .. })) {
            refuse(
                "emit",
                "`emit: early` is for `type: tumbling`; a `sliding` window without `every` is looked at with each event",
            );
        }
        if gauge.is_some() {
            refuse(
                "emit",
                "`change` and `anomaly` look at whole windows, at their close",
            );
        }
    }
    if let Some(predicate) = predicate
        && builder.predicates[usize::from(predicate)].looks_back
    {
        refuse(
            "where",
            "`matches` is known only in the steps of a `sequence`",
        );
    }
    if report.count() > faults_before {
        return None;
    }
    Some(Shape::Window(Window {
        name,
        predicate: predicate?,
        span: span?,
        early,
        samples,
        aggregates,
        having,
        gauge,
    }))
}

fn read_span(fields: &Fields<'_>, most: usize, report: &mut Report<'_>) -> Option<Span> {
    if fields.get("type").is_none() {
        let remedy = "add `type: tumbling`, `sliding` or `session`".to_owned();
        report.add_with(
            fields.at,
            &fields.path,
            "a window needs a `type`",
            Some(remedy),
        );
        return None;
    }
    let kind = choice(fields, "type", &["tumbling", "sliding", "session"], report)?;
    let (own, foreign): (&str, &[&str]) = match kind {
        "session" => ("gap", &["size", "every"]),
        "tumbling" => ("size", &["every", "gap"]),
        _ => ("size", &["gap"]),
    };
    for name in foreign {
        if let Some((key, _)) = fields.entry(name) {
            let message = format!("`{name}` has no meaning for `type: {kind}`");
            report.add(key.at, &fields.path_of(name), message);
        }
    }
    let reach = millis(mandatory_span(fields, own, report)?);
    let every = span(fields, "every", report).map(millis);
    let needs = Needs::default();
    let (checked, span): (Result<(), WindowError>, Span) = match (kind, every) {
        ("session", _) => (
            SessionSpec::new(reach, needs).map(drop),
            Span::Session { gap: reach },
        ),
        ("tumbling", _) => (
            HoppingSpec::new(reach, reach, needs).map(drop),
            Span::Tumbling { size: reach },
        ),
        (_, Some(every)) => (
            HoppingSpec::new(reach, every, needs).map(drop),
            Span::Hopping { size: reach, every },
        ),
        (_, None) => (
            TrailingSpec::new(reach, most, needs).map(drop),
            Span::Trailing { size: reach },
        ),
    };
    match checked {
        Ok(()) => Some(span),
        Err(error) => {
            let at = fields.get(own).map_or(fields.at, |node| node.at);
            report.add(at, &fields.path_of(own), error.to_string());
            None
        }
    }
}

/// The aggregates, and the slots of what they aggregate.
fn aggregates(
    fields: &Fields<'_>,
    builder: &mut Builder<'_>,
    report: &mut Report<'_>,
) -> (Vec<Aggregate>, Vec<Option<u16>>) {
    let (mut aggregates, mut samples) = (Vec::new(), Vec::new());
    let path = fields.path_of("aggregate");
    let members = match fields.get("aggregate").map(|node| (&node.value, node)) {
        Some((Value::Map(members), _)) if !members.is_empty() => members,
        found => {
            let at = found.map_or(fields.at, |(_, node)| node.at);
            let message =
                "`aggregate` names at least one aggregate, such as `aggregate: {n: count}`";
            report.add(at, &path, message);
            return (aggregates, samples);
        }
    };
    // By name, as the canonical form has them: state is kept by their places.
    let mut members: Vec<_> = members.iter().collect();
    members.sort_by(|(one, _), (other, _)| one.name.cmp(&other.name));
    for (key, node) in members {
        let path = join(&path, &key.name);
        if !is_identifier(&key.name) || TAKEN.contains(&&*key.name) {
            let message = format!(
                "`{}` cannot be the name of an aggregate: a letter or _, then letters, digits or _, and none of {}",
                key.name,
                TAKEN.join(", ")
            );
            report.add(key.at, &path, message);
            continue;
        }
        if is_word(&key.name) {
            let message = unreadable(&key.name, "the name of an aggregate");
            report.add(key.at, &path, message);
            continue;
        }
        if aggregates.len() >= MAX_AGGREGATES {
            let message = format!("a window has at most {MAX_AGGREGATES} aggregates");
            report.add(key.at, &path, message);
            break;
        }
        let Some((function, of)) = call(node, &path, report) else {
            continue;
        };
        let slot = of.map(|name| builder.slot(&field_path(name)));
        // Events are counted along with any field.
        let known = samples.iter().position(|known| *known == slot);
        let sample = known.unwrap_or_else(|| {
            samples.push(slot);
            samples.len() - 1
        });
        aggregates.push(Aggregate {
            name: Arc::from(key.name.as_str()),
            function,
            sample: u16::try_from(sample).unwrap_or(u16::MAX),
        });
    }
    (aggregates, samples)
}

/// `avg(price)` or `count`.
fn call<'n>(
    node: &'n Node,
    path: &str,
    report: &mut Report<'_>,
) -> Option<(Function, Option<&'n str>)> {
    let Some(text) = node.as_str() else {
        let message = format!(
            "an aggregate is `count` or a function of a field, such as `avg(price)`, not {}",
            node.described()
        );
        report.add(node.at, path, message);
        return None;
    };
    let (name, of) = match text.trim().split_once('(') {
        Some((name, rest)) => (name.trim(), rest.trim().strip_suffix(')').map(str::trim)),
        None => (text.trim(), None),
    };
    let of = of.filter(|of| !of.is_empty() && *of != "*");
    let of = of.map(|of| of.strip_prefix("event.").unwrap_or(of));
    let function: Function = match name.parse() {
        Ok(function) => function,
        Err(error) => {
            let error: crate::pattern::aggregate::UnknownFunction = error;
            report.add(node.at, path, error.to_string());
            return None;
        }
    };
    match (function, of) {
        (Function::Count, Some(_)) => {
            let remedy = Some("write `count`, and choose events by `where`".to_owned());
            report.add_with(node.at, path, "`count` counts events, not a field", remedy);
            None
        }
        (Function::Count, None) => Some((function, None)),
        (_, None) => {
            let message = format!("`{name}` is of a field: write `{name}(price)`");
            report.add(node.at, path, message);
            None
        }
        (_, Some(of)) => is_field(of, node, path, report).then_some((function, Some(of))),
    }
}

fn having(
    fields: &Fields<'_>,
    aggregates: &[Aggregate],
    builder: &Builder<'_>,
    report: &mut Report<'_>,
) -> Option<Having> {
    let (text, node) = fields.string("having", report)?;
    let mut known: Vec<&str> = aggregates.iter().map(|of| &*of.name).collect();
    known.push("key");
    let names = Names {
        known: &known,
        refused: &[],
    };
    let path = fields.path_of("having");
    match Condition::compile(text, &names) {
        Ok(condition) => {
            for read in condition.paths() {
                let at = report.locate(node, text, read.offset);
                builder.check(read, at, &path, report);
            }
            Some(Having::new(condition, aggregates, builder))
        }
        Err(error) => {
            report.add_expression_error(&error, node, text, &path);
            None
        }
    }
}

/// The `change` or `anomaly` of an aggregate from window to window.
fn gauge(
    fields: &Fields<'_>,
    span: Option<Span>,
    aggregates: &[Aggregate],
    max_values: usize,
    report: &mut Report<'_>,
) -> Option<(u16, Gauge)> {
    let measured = measures::read(fields, max_values, report)?;
    // The window before ends so much earlier, or more.
    let (apart, word) = match span {
        Some(Span::Tumbling { size }) => (size, "size"),
        Some(Span::Hopping { every, .. }) => (every, "every"),
        Some(Span::Session { gap }) => (gap, "gap"),
        Some(Span::Trailing { .. }) | None => (0, "size"),
    };
    if matches!(measured.gauge.method, Method::Change(_)) && measured.gauge.forget_after <= apart {
        let at = fields.get("change").map_or(fields.at, |node| node.at);
        let path = join(&fields.path_of("change"), "over");
        let message = format!(
            "`over` looks back {} ms, and `{word}` puts the window before {apart} ms or more behind: there would be nothing to compare with",
            measured.gauge.forget_after
        );
        let remedy = format!("give an `over` that is longer than `{word}`");
        report.add_with(at, &path, message, Some(remedy));
    }
    let (name, node) = measured.field;
    if let Some((_, series)) = measured.series.first() {
        let message = "a window has one series for each key; put it into `correlate`";
        report.add(series.at, &fields.path, message);
    }
    let found = aggregates.iter().position(|of| *of.name == *name);
    if found.is_none() {
        let known = aggregates.iter().map(|of| &*of.name);
        let suggestion = nearest(name, known).map(|near| format!("did you mean `{near}`?"));
        let message = format!("there is no aggregate `{name}`");
        report.add_with(node.at, &fields.path, message, suggestion);
    }
    Some((u16::try_from(found?).ok()?, measured.gauge))
}
