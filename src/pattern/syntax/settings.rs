//! The parts of a rule around its `match`: correlation, time, output, limits and the start.

use std::sync::Arc;

use super::builder::{Builder, field_path};
use super::route;
use super::sequence::boolean;
use super::shapes::span;
use crate::document::fields::{Fields, field, join};
use crate::document::node::{Node, Value};
use crate::document::violation::Report;
use crate::expr::{Template, nearest};
use crate::model::Millis;
use crate::pattern::predicate::Scope as _;
use crate::pattern::route::{Destination, Workflow};
use crate::pattern::rule::{
    Emit, Limits, Mode, OnOverflow, OnUpdate, Shape, Skip, Start, Time, TimeSource,
};

/// `correlate: {by: […]}`, or the list itself, or the name of one field.
pub(super) fn correlate<'n>(
    fields: &Fields<'n>,
    builder: &mut Builder<'n>,
    report: &mut Report<'_>,
) {
    let Some(node) = fields.get("correlate") else {
        return;
    };
    let path = fields.path_of("correlate");
    match &node.value {
        Value::List(items) => return keys(items, &path, builder, report),
        Value::String(_) => return keys(std::slice::from_ref(node), &path, builder, report),
        _ => {}
    }
    let known = &[field("by")];
    let Some(inner) = Fields::read(node, &path, "`correlate`", known, &[], report) else {
        return;
    };
    match inner.get("by").map(|node| &node.value) {
        Some(Value::List(items)) => keys(items, &inner.path_of("by"), builder, report),
        // Says what is wrong with it.
        Some(_) => drop(inner.strings("by", report)),
        None => {}
    }
}

/// Names of fields, or `{name, field}` where the field is called otherwise.
fn keys<'n>(items: &'n [Node], path: &str, builder: &mut Builder<'n>, report: &mut Report<'_>) {
    for (place, item) in items.iter().enumerate() {
        let path = format!("{path}[{place}]");
        let (name, named, read) = match &item.value {
            Value::String(name) => (name.as_str(), item, None),
            Value::Map(_) => {
                let known = &[field("name"), field("field")];
                let what = "a field that events are correlated by";
                let Some(entry) = Fields::read(item, &path, what, known, &[], report) else {
                    continue;
                };
                let Some(read) = entry.get("field") else {
                    let message = "this does not say which `field` it is";
                    report.add(item.at, &path, message);
                    continue;
                };
                if entry.get("name").is_none() {
                    let message = "a `field` that is called differently needs a `name`";
                    report.add(item.at, &path, message);
                }
                let Some((name, named)) = entry.string("name", report) else {
                    continue;
                };
                (name, named, Some(read))
            }
            _ => {
                let message = format!(
                    "events are correlated by names of fields, or by `{{name, field}}`; this is {}",
                    item.described()
                );
                report.add(item.at, &path, message);
                continue;
            }
        };
        if name.split('.').any(str::is_empty) || builder.key(name).is_some() {
            let message = format!("`{name}` is no field, or is named twice");
            report.add(named.at, "correlate", message);
            continue;
        }
        let slot = match read {
            Some(read) => builder.field(read, &join(&path, "field"), report),
            None => Some(builder.slot(&field_path(name))),
        };
        if let Some(slot) = slot {
            builder.correlate.push((Arc::from(name), slot));
        }
    }
}

pub(super) fn time<'n>(
    fields: &Fields<'n>,
    builder: &mut Builder<'n>,
    report: &mut Report<'_>,
) -> Time {
    let Some(node) = fields.get("time") else {
        return Time::default();
    };
    let known = &[
        field("field"),
        field("header"),
        field("out_of_order"),
        field("allowed_lateness"),
        field("idle_after"),
        field("max_ahead"),
    ];
    let Some(inner) = Fields::read(node, "time", "`time`", known, &[], report) else {
        return Time::default();
    };
    let source = time_source(&inner, builder, report);
    let usual = Time::default();
    let mut span_or = |name: &str, usual| inner.duration(name, report).unwrap_or(usual);
    Time {
        source,
        out_of_order: span_or("out_of_order", usual.out_of_order),
        allowed_lateness: span_or("allowed_lateness", usual.allowed_lateness),
        idle_after: span_or("idle_after", usual.idle_after),
        max_ahead: span_or("max_ahead", usual.max_ahead),
    }
}

/// `field` or `header`; without either the record's own time.
fn time_source<'n>(
    fields: &Fields<'n>,
    builder: &mut Builder<'n>,
    report: &mut Report<'_>,
) -> TimeSource {
    let path = fields.path_of("field");
    let field = fields
        .get("field")
        .map(|node| builder.field(node, &path, report));
    let header = fields.string("header", report);
    if let (Some((field, _)), Some((header, _))) = (fields.entry("field"), fields.entry("header")) {
        let later = if field.at > header.at { field } else { header };
        let message = "event time is read from a `field` or from a `header`, not from both";
        let remedy = Some("give one of them".to_owned());
        report.add_with(later.at, &fields.path_of(&later.name), message, remedy);
    }
    match (field, header) {
        (Some(slot), _) => slot.map_or(TimeSource::Record, TimeSource::Field),
        (None, Some(("", node))) => {
            report.add(node.at, &fields.path_of("header"), "`header` is empty");
            TimeSource::Record
        }
        (None, Some((name, _))) => TimeSource::Header(Arc::from(name)),
        (None, None) => TimeSource::Record,
    }
}

pub(super) fn emit(
    fields: &Fields<'_>,
    shape: Option<&Shape>,
    builder: &Builder<'_>,
    report: &mut Report<'_>,
) -> Emit {
    let Some(node) = fields.get("emit") else {
        return Emit::default();
    };
    let known = &[field("after_match"), field("debounce"), field("cooldown")];
    let Some(inner) = Fields::read(node, "emit", "`emit`", known, &[], report) else {
        return Emit::default();
    };
    let after_match = skip(&inner, builder, report);
    if after_match != Skip::None && matches!(shape, Some(Shape::Any { .. } | Shape::Window(_))) {
        let at = inner.get("after_match").map_or(inner.at, |node| node.at);
        let message = "there is nothing to skip: a match of `any`, of a `window` or of a `change` or `anomaly` alone gives up no other";
        let remedy = Some("`cooldown` keeps matches back for a while".to_owned());
        report.add_with(at, &inner.path_of("after_match"), message, remedy);
    }
    Emit {
        after_match,
        debounce: span(&inner, "debounce", report),
        cooldown: span(&inner, "cooldown", report),
    }
}

fn skip(fields: &Fields<'_>, builder: &Builder<'_>, report: &mut Report<'_>) -> Skip {
    let Some(node) = fields.get("after_match") else {
        return Skip::None;
    };
    let path = fields.path_of("after_match");
    if let Value::Map(_) = node.value {
        let known = &[field("skip_to_first"), field("skip_to_last")];
        let what = "`after_match`";
        let Some(inner) = Fields::read(node, &path, what, known, &[], report) else {
            return Skip::None;
        };
        let mut target = |name: &str| {
            let (id, at) = inner.string(name, report)?;
            match builder.bearing_name(id, "there is no step") {
                Ok(found) => Some(found),
                Err((message, remedy)) => {
                    report.add_with(at.at, &join(&path, name), message, remedy);
                    None
                }
            }
        };
        let (first, last) = (target("skip_to_first"), target("skip_to_last"));
        return match (first, last) {
            (Some(first), None) => Skip::ToFirst(first),
            (None, Some(last)) => Skip::ToLast(last),
            (None, None) => Skip::None,
            (Some(_), Some(_)) => {
                report.add(
                    node.at,
                    &path,
                    "give one of `skip_to_first` and `skip_to_last`",
                );
                Skip::None
            }
        };
    }
    let known = ["no_skip", "skip_past_last", "skip_to_next"];
    match choice(fields, "after_match", &known, report) {
        Some("skip_past_last") => Skip::PastLast,
        Some("skip_to_next") => Skip::ToNext,
        _ => Skip::None,
    }
}

pub(super) fn limits(fields: &Fields<'_>, report: &mut Report<'_>) -> Limits {
    let mut limits = Limits::default();
    let Some(node) = fields.get("limits") else {
        return limits;
    };
    let known = &[
        field("max_partials_per_key"),
        field("max_partials"),
        field("max_kleene"),
        field("max_keys"),
        field("max_buffered_events"),
        field("max_results_per_event"),
        field("idle_key_ttl"),
        field("on_overflow"),
    ];
    let Some(inner) = Fields::read(node, "limits", "`limits`", known, &[], report) else {
        return limits;
    };
    let mut set = |name: &str, value: &mut usize| {
        if let Some(number) = inner.integer(name, 1..=100_000_000, report) {
            *value = number as usize;
        }
    };
    set("max_partials_per_key", &mut limits.max_partials_per_key);
    set("max_partials", &mut limits.max_partials);
    set("max_keys", &mut limits.max_keys);
    set("max_buffered_events", &mut limits.max_buffered_events);
    set("max_results_per_event", &mut limits.max_results_per_event);
    if let Some(most) = inner.integer("max_kleene", 1..=10_000, report) {
        limits.max_kleene = most;
    }
    limits.idle_key_ttl = span(&inner, "idle_key_ttl", report);
    let known = ["drop_oldest_and_report", "drop_newest_and_report"];
    if choice(&inner, "on_overflow", &known, report) == Some("drop_newest_and_report") {
        limits.on_overflow = OnOverflow::DropNewest;
    }
    limits
}

/// What is dropped with an idle key has run out by then: nothing that would still come out of it is
/// lost.
pub(super) fn check_ttl(
    fields: &Fields<'_>,
    limits: &Limits,
    shape: &Shape,
    emit: &Emit,
    time: &Time,
    report: &mut Report<'_>,
) {
    let (Some(ttl), Some(node)) = (limits.idle_key_ttl, fields.get("limits")) else {
        return;
    };
    let reach = match shape {
        Shape::Any { .. } => Millis(0),
        Shape::All { within, .. } | Shape::Count { within, .. } => *within,
        Shape::Sequence(sequence) => sequence.within.unwrap_or_else(|| sequence.longest_gap()),
        Shape::Window(window) => window.span.reach(),
    };
    let spans = [
        Some(reach),
        Some(time.allowed_lateness),
        emit.debounce,
        emit.cooldown,
    ];
    let least = spans.iter().flatten().map(|span| span.0).sum::<u64>();
    if ttl.0 < least {
        let message = format!(
            "`idle_key_ttl` is {} ms, and what waits for its end may take {least} ms: `within` or the \
             window, `allowed_lateness`, `debounce` and `cooldown` together",
            ttl.0
        );
        report.add(node.at, "limits.idle_key_ttl", message);
    }
}

pub(super) fn start(
    fields: &Fields<'_>,
    builder: &Builder<'_>,
    report: &mut Report<'_>,
) -> Option<Start> {
    let node = fields.get("start")?;
    let known = &[
        field("workflow"),
        field("version"),
        field("route"),
        field("input"),
        field("priority"),
        field("tags"),
    ];
    let inner = Fields::read(node, "start", "`start`", known, &[], report)?;
    let to = destination(&inner, builder, report);
    let priority = inner.integer("priority", 0..=i32::MAX as u32, report);
    let input = inner
        .get("input")
        .and_then(|node| builder.template(node, "start.input", report));
    let tags = text_templates(&inner, "tags", builder, report);
    Some(Start {
        to: to?,
        input,
        priority: priority.and_then(|priority| i32::try_from(priority).ok()),
        tags,
    })
}

/// `workflow` and `version`, or `route`.
fn destination(
    fields: &Fields<'_>,
    builder: &Builder<'_>,
    report: &mut Report<'_>,
) -> Option<Destination> {
    let path = fields.path_of("route");
    let Some(node) = fields.get("route") else {
        let workflow = fields.string("workflow", report);
        if fields.get("workflow").is_none() {
            let message = "`start` needs a `workflow`, or a `route` to one";
            report.add(fields.at, "start", message);
        }
        let version = fields.integer("version", 1..=u32::MAX, report);
        return Some(Destination::Workflow(Workflow {
            name: Arc::from(workflow?.0),
            version,
        }));
    };
    for name in ["workflow", "version"] {
        if let Some(node) = fields.get(name) {
            let message = format!("`route` says which workflow; give `{name}` in its rows");
            report.add(node.at, &fields.path_of(name), message);
        }
    }
    route::read(node, &path, builder, report).map(Destination::Route)
}

/// A mapping whose values are templates.
pub(super) fn text_templates(
    fields: &Fields<'_>,
    name: &str,
    builder: &Builder<'_>,
    report: &mut Report<'_>,
) -> Vec<(String, Template)> {
    let mut read = Vec::new();
    let path = fields.path_of(name);
    match fields.get(name).map(|node| (&node.value, node)) {
        None => {}
        Some((Value::Map(members), _)) => {
            for (key, value) in members {
                let path = join(&path, &key.name);
                if let Some(template) = builder.template(value, &path, report) {
                    read.push((key.name.clone(), template));
                }
            }
        }
        Some((_, node)) => report.add(node.at, &path, format!("`{name}` is a mapping")),
    }
    read
}

pub(super) fn mode(fields: &Fields<'_>, report: &mut Report<'_>) -> Mode {
    match choice(fields, "mode", &["live", "shadow"], report) {
        Some("shadow") => Mode::Shadow,
        _ => Mode::Live,
    }
}

/// `enabled: true | false`, true where nothing is said.
pub(super) fn enabled(fields: &Fields<'_>, report: &mut Report<'_>) -> bool {
    fields.get("enabled").is_none() || boolean(fields, "enabled", report)
}

pub(super) fn on_update(fields: &Fields<'_>, report: &mut Report<'_>) -> OnUpdate {
    match choice(fields, "on_update", &["drain", "drop"], report) {
        Some("drop") => OnUpdate::Drop,
        _ => OnUpdate::Drain,
    }
}

/// One of a few words.
pub(super) fn choice<'n>(
    fields: &Fields<'n>,
    name: &str,
    known: &[&str],
    report: &mut Report<'_>,
) -> Option<&'n str> {
    let (found, node) = fields.string(name, report)?;
    if known.contains(&found) {
        return Some(found);
    }
    let suggestion = nearest(found, known.iter().copied())
        .map(|near| format!("did you mean `{near}`?"))
        .unwrap_or_else(|| format!("there are {}", known.join(", ")));
    report.add_with(
        node.at,
        &fields.path_of(name),
        format!("`{name}` cannot be `{found}`"),
        Some(suggestion),
    );
    None
}
