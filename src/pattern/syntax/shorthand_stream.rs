//! A stream with windows and triggers, put into the words of rules: one for each trigger, named
//! `<name>.<trigger>`.
//!
//! | word | means |
//! |---|---|
//! | `windowing` | `{type, size, every, gap}` as of `match.window`, with `slide` and `advance` for `every`, `hopping` for `sliding`, `size_minutes` and `size_seconds`; or the type alone beside `window_minutes` |
//! | `aggregations: [count, avg, percentile_95]` | aggregates of `field` (without it of `value`), each known by its name, with `_` for a dot |
//! | `trigger_workflows.threshold_exceeded: W` | start W where an aggregate is above its `threshold`: a mapping by aggregate, or one number for the first that is no `count` |
//! | `trigger_workflows.anomaly_detected: W` | start W where `avg`, or the first aggregate, is an anomaly among those of the windows before; `anomaly` says how: a method (`ewma`, `robust_z`, `seasonal`, `spot`) or all that `anomaly` of a window takes, by EWMA where nothing is said |
//! | `group_by` | `correlate` |

use super::shorthand::{names_a_field, start};
use super::shorthand_members::{Members, map_of, span, text};
use crate::document::node::{Key, Node, Value};
use crate::document::violation::Report;

const TRIGGERS: [&str; 2] = ["threshold_exceeded", "anomaly_detected"];

/// `joined` are the names of topics that are joined.
pub(super) fn lower(mut rest: Members, joined: &[String], report: &mut Report<'_>) -> Vec<Node> {
    let within = rest.window(report);
    let window = windowing(rest.take("windowing"), within, report);
    let field = rest.take("field");
    names_a_field(field.as_ref(), "field", report);
    let field = field.as_ref().and_then(Node::as_str).unwrap_or("value");
    let aggregations = rest.take("aggregations");
    let names = aggregations.as_ref().and_then(|node| names(node, report));
    let threshold = rest.take("threshold");
    let method = rest.take("anomaly");
    let anomaly = method
        .as_ref()
        .map_or(Some(Vec::new()), |node| anomaly(node, report));
    let triggers = rest.take("trigger_workflows");
    let Some(Value::Map(triggers)) = triggers.as_ref().map(|node| &node.value) else {
        let at = triggers.map_or(rest.at, |node| node.at);
        let message =
            "a stream needs `trigger_workflows`, such as `{threshold_exceeded: scale_up}`";
        report.add(at, "trigger_workflows", message);
        return Vec::new();
    };
    for (word, given, trigger) in [
        ("threshold", &threshold, TRIGGERS[0]),
        ("anomaly", &method, TRIGGERS[1]),
    ] {
        let is_there = triggers.iter().any(|(key, _)| key.name == trigger);
        if let Some(node) = given.as_ref().filter(|_| !is_there) {
            let message = format!("`{word}` is of no use without the trigger `{trigger}`");
            report.add(node.at, word, message);
        }
    }
    let Some(names) = names else {
        if aggregations.is_none() {
            let message = "a stream needs `aggregations`, such as `[count, avg]`";
            report.add(rest.at, "aggregations", message);
        }
        return Vec::new();
    };
    let (Some(window), Some(anomaly)) = (window, anomaly) else {
        return Vec::new();
    };
    let main = |wanted: &str| names.iter().find(|name| *name == wanted);
    let measured = main("avg").or_else(|| names.iter().find(|name| *name != "count"));
    let measured = known_as(measured.unwrap_or(&names[0]));
    let mut rules = Vec::new();
    for (key, trigger) in triggers {
        let path = format!("trigger_workflows.{}", key.name);
        let at = key.at;
        let mut of_window = window.clone();
        let calls = names.iter().map(|name| {
            let call = match name.as_str() {
                "count" => "count".to_owned(),
                function => format!("{function}({field})"),
            };
            (known_as(name), text(at, call))
        });
        let calls: Vec<(String, Node)> = calls.collect();
        let calls = calls
            .iter()
            .map(|(name, call)| (name.as_str(), call.clone()));
        of_window.push(("aggregate", map_of(at, calls.collect())));
        match key.name.as_str() {
            "threshold_exceeded" => {
                let Some(having) = having(threshold.as_ref(), &measured, &names, report) else {
                    if threshold.is_none() {
                        let remedy =
                            Some(format!("add one, such as `threshold: {{{measured}: 100}}`"));
                        report.add_with(at, &path, "there is no `threshold` to exceed", remedy);
                    }
                    continue;
                };
                of_window.push(("having", text(at, having)));
            }
            "anomaly_detected" => {
                let mut method = Members::new(at, &anomaly);
                for (name, usual) in [("field", measured.as_str()), ("method", "ewma")] {
                    if method.get(name).is_none() {
                        method.put(name, text(at, usual), report);
                    }
                }
                of_window.push(("anomaly", method.finish()));
            }
            other => {
                let message = format!("there is no trigger `{other}`");
                let remedy = Some(format!("there are {}", TRIGGERS.join(", ")));
                report.add_with(at, &path, message, remedy);
                continue;
            }
        }
        let mut rule = Members::new(rest.at, &rest.members);
        if let Some(name) = rule.take("name") {
            let whole = format!("{}.{}", name.as_str().unwrap_or_default(), key.name);
            rule.put("name", text(name.at, whole), report);
        }
        let shape = map_of(at, vec![("window", map_of(at, of_window))]);
        rule.put("match", shape, report);
        rule.put("start", start(trigger, joined), report);
        rules.push(rule.finish());
    }
    rules
}

/// What `match.window` has of `windowing`.
fn windowing(
    node: Option<Node>,
    within: Option<(&str, Node)>,
    report: &mut Report<'_>,
) -> Option<Vec<(&'static str, Node)>> {
    let Some(node) = node else {
        let Some((_, size)) = within else {
            let at = crate::document::node::Position { line: 1, column: 1 };
            let message = "a stream needs `windowing`, such as `{type: tumbling, size: 5m}`";
            report.add(at, "windowing", message);
            return None;
        };
        return Some(vec![("type", text(size.at, "tumbling")), ("size", size)]);
    };
    let kind = |node: &Node| match node.as_str() {
        Some("hopping") => text(node.at, "sliding"),
        _ => node.clone(),
    };
    let Value::Map(members) = &node.value else {
        let of = if node.as_str() == Some("session") {
            "gap"
        } else {
            "size"
        };
        let mut window = vec![("type", kind(&node))];
        window.extend(within.map(|(_, size)| (of, size)));
        return Some(window);
    };
    if let Some((word, size)) = within {
        let message = format!("`{word}` beside a mapping under `windowing`: that has the `size`");
        report.add(size.at, word, message);
    }
    let mut window = Vec::new();
    for (key, value) in members {
        let scaled = |unit: char| match &value.value {
            Value::Number(number) => text(value.at, span(number, unit)),
            _ => text(value.at, format!("{}{unit}", value.to_json())),
        };
        window.push(match key.name.as_str() {
            "type" => ("type", kind(value)),
            "size" => ("size", value.clone()),
            "size_minutes" => ("size", scaled('m')),
            "size_seconds" => ("size", scaled('s')),
            "every" | "slide" | "advance" => ("every", value.clone()),
            "gap" => ("gap", value.clone()),
            other => {
                let path = format!("windowing.{other}");
                let message = format!("unknown key `{other}` in `windowing`");
                let remedy = Some(
                    "there are type, size, size_minutes, size_seconds, every, slide, advance, gap"
                        .to_owned(),
                );
                report.add_with(key.at, &path, message, remedy);
                return None;
            }
        });
    }
    Some(window)
}

/// What an aggregate is called: `percentile_99.9` is no name in an expression.
fn known_as(name: &str) -> String {
    name.replace('.', "_")
}

fn names(node: &Node, report: &mut Report<'_>) -> Option<Vec<String>> {
    let items = match &node.value {
        Value::List(items) if !items.is_empty() => items,
        _ => {
            let message = "`aggregations` is a list such as `[count, avg, percentile_95]`";
            report.add(node.at, "aggregations", message);
            return None;
        }
    };
    let names: Vec<String> = items
        .iter()
        .filter_map(|item| item.as_str().map(str::to_owned))
        .collect();
    if names.len() < items.len() {
        let message = "`aggregations` is a list of names such as `[count, avg]`";
        report.add(node.at, "aggregations", message);
        return None;
    }
    Some(names)
}

/// `anomaly: robust_z`, or what `anomaly` of a window has.
fn anomaly(node: &Node, report: &mut Report<'_>) -> Option<Vec<(Key, Node)>> {
    match &node.value {
        Value::Map(members) => Some(members.clone()),
        Value::String(_) => {
            let name = "method".to_owned();
            Some(vec![(Key { at: node.at, name }, node.clone())])
        }
        _ => {
            let message = format!(
                "`anomaly` is a method (ewma, robust_z, seasonal or spot) or a mapping such as `{{method: robust_z, values: 100}}`, not {}",
                node.described()
            );
            report.add(node.at, "anomaly", message);
            None
        }
    }
}

/// `threshold: 100`, or `{percentile_95: 500, count: 1000}`: any of them exceeded.
fn having(
    threshold: Option<&Node>,
    measured: &str,
    names: &[String],
    report: &mut Report<'_>,
) -> Option<String> {
    let node = threshold?;
    match &node.value {
        Value::Number(number) => Some(format!("{measured} > {number}")),
        Value::Map(members) if !members.is_empty() => {
            let mut tests = Vec::new();
            for (key, value) in members {
                let path = format!("threshold.{}", key.name);
                let Value::Number(number) = &value.value else {
                    report.add(value.at, &path, "a threshold is a number");
                    return None;
                };
                let known = known_as(&key.name);
                if !names.iter().any(|name| known_as(name) == known) {
                    let message = format!("`{}` is not among the aggregations", key.name);
                    let remedy = Some(format!("there are {}", names.join(", ")));
                    report.add_with(key.at, &path, message, remedy);
                    return None;
                }
                tests.push(format!("{known} > {number}"));
            }
            Some(tests.join(" || "))
        }
        _ => {
            let message = "`threshold` is a number, or a mapping of aggregates to numbers";
            report.add(node.at, "threshold", message);
            None
        }
    }
}
