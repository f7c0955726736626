//! The shorthand of the field, put into the words of a rule before it is read: a list of `events`
//! with a `temporal_relationship`, and a stream with `windowing`, `aggregations` and
//! `trigger_workflows`. What comes out is read like any other rule, so that nothing has two
//! meanings; every part keeps its place in the file for messages.
//!
//! | word | means |
//! |---|---|
//! | `pattern_id`, `pattern_name` | `name`; of both the second is the `description` |
//! | `event: E` | a condition with the id E on the topic E; where the entry or the rule gives a `topic`, on its events of the CloudEvents type E |
//! | `threshold: 0.15` | where E ends in `_drop`, `_decline`, `_spike`, …: a change by 15 % in that direction against the largest (downwards) or smallest (upwards) value of the `timeframe`; else a value of at least that |
//! | `increase: 0.25`, `decrease: 0.25` | a change by 25 % against the average of the `timeframe` before |
//! | `field: F` | what is compared, by a change and by a threshold; without it the word before the direction in E, else `value` |
//! | `timeframe: 1h` | `over` of the change; without it the window of the rule |
//! | any other `name: value` | the field of that name is equal, or one of a list |
//! | `temporal_relationship` | `all_within` (also where nothing is said), `any_of`, `sequence` |
//! | `window_minutes`, `window_seconds`, `window_hours` | `within` |
//! | `workflow_trigger: W` | `start`; its input is `key`, `matches` and, by topic, `context` |
//! | `context_enrichment: [T, …]` | `enrich` by the first correlation key |
//! | `debounce_ms: N` | `emit.debounce` |

use super::builder::condition_text;
use super::shorthand_members::{Members, list_of, map_of, text};
use super::shorthand_stream;
use crate::document::fields::join;
use crate::document::node::{Key, Node, Value};
use crate::document::violation::Report;
use crate::expr::{is_identifier, is_word, nearest};

/// What an entry of `events` may say beside the values of fields.
const WORDS: [&str; 9] = [
    "event",
    "id",
    "topic",
    "where",
    "threshold",
    "increase",
    "decrease",
    "timeframe",
    "field",
];

/// Ends of an event's name that say which way its value moved.
const DOWN: [&str; 7] = [
    "drop", "decline", "decrease", "fall", "loss", "dip", "crash",
];
const UP: [&str; 7] = [
    "spike", "surge", "increase", "rise", "jump", "growth", "gain",
];

/// Keys of a rule that are shorthand, in either form.
pub(super) const KEYS: [&str; 14] = [
    "events",
    "temporal_relationship",
    "window_minutes",
    "window_seconds",
    "window_hours",
    "workflow_trigger",
    "context_enrichment",
    "debounce_ms",
    "pattern_id",
    "pattern_name",
    "windowing",
    "aggregations",
    "trigger_workflows",
    "group_by",
];

/// The rules that a document stands for, in full words.
pub(super) fn lower(node: &Node, report: &mut Report<'_>) -> Vec<Node> {
    let Value::Map(members) = &node.value else {
        return vec![node.clone()];
    };
    if !members
        .iter()
        .any(|(key, _)| KEYS.contains(&key.name.as_str()))
    {
        return vec![node.clone()];
    }
    let faults_before = report.count();
    let mut rest = Members::new(node.at, members);
    let has_id = rest.get("pattern_id").is_some();
    rest.rename("pattern_id", "name");
    rest.rename("pattern_name", if has_id { "description" } else { "name" });
    rest.rename("group_by", "correlate");
    let joined = join_topics(&mut rest, report);
    debounce(&mut rest, report);
    let lowered = if rest.get("windowing").is_some()
        || rest.get("aggregations").is_some()
        || rest.get("trigger_workflows").is_some()
    {
        shorthand_stream::lower(rest, &joined, report)
    } else {
        pattern(rest, &joined, report).into_iter().collect()
    };
    if report.count() > faults_before {
        return Vec::new();
    }
    lowered
}

/// Puts `context_enrichment` into `enrich`; what each topic is known by.
fn join_topics(rest: &mut Members, report: &mut Report<'_>) -> Vec<String> {
    let Some(topics) = rest.take("context_enrichment") else {
        return Vec::new();
    };
    let keys = correlation(rest);
    let joined = enrichments(&topics, keys.first(), report);
    let (names, list) = joined.into_iter().unzip();
    rest.put("enrich", list_of(rest.at, list), report);
    names
}

/// Puts `debounce_ms` into `emit`.
fn debounce(rest: &mut Members, report: &mut Report<'_>) {
    let Some(node) = rest.take("debounce_ms") else {
        return;
    };
    let Value::Number(number) = &node.value else {
        let message = format!(
            "`debounce_ms` is a number of milliseconds, not {}",
            node.described()
        );
        report.add(node.at, "debounce_ms", message);
        return;
    };
    let emit = rest.get("emit");
    if emit.and_then(|emit| emit.member("debounce")).is_some() {
        let message = "`debounce_ms` and `emit.debounce` mean the same; give one of them";
        report.add(node.at, "debounce_ms", message);
        return;
    }
    let span = text(node.at, format!("{number}ms"));
    rest.merge("emit", "debounce", span);
}

/// A list of `events`, and what goes with it.
fn pattern(mut rest: Members, joined: &[String], report: &mut Report<'_>) -> Option<Node> {
    let within = rest.window(report);
    let relation = rest.take("temporal_relationship");
    if let Some(trigger) = rest.take("workflow_trigger") {
        rest.put("start", start(&trigger, joined), report);
    }
    let Some(events) = rest.take("events") else {
        let relation = relation.map(|node| ("temporal_relationship", node));
        for (word, node) in within.into_iter().chain(relation) {
            let message = format!("`{word}` is about a list of `events`, and there is none");
            report.add(node.at, word, message);
        }
        return Some(rest.finish());
    };
    let within = within.map(|(_, node)| node);
    let Value::List(entries) = &events.value else {
        let message = format!("`events` is a list, not {}", events.described());
        report.add(events.at, "events", message);
        return None;
    };
    refuse_same_names(entries, report);
    let has_topic = rest.get("topic").is_some();
    let conditions: Option<Vec<Node>> = entries
        .iter()
        .enumerate()
        .map(|(place, entry)| {
            let path = format!("events[{place}]");
            condition(entry, &path, has_topic, within.as_ref(), report)
        })
        .collect();
    let list = list_of(events.at, conditions?);
    let word = relation.as_ref().map(|node| (node.as_str(), node));
    let (shape, parts) = match word {
        None | Some((Some("all_within" | "all"), _)) => ("all", "conditions"),
        Some((Some("any_of" | "any"), _)) => ("any", "conditions"),
        Some((Some("sequence" | "sequential" | "ordered" | "in_order"), _)) => {
            ("sequence", "steps")
        }
        Some((_, node)) => {
            let message =
                "`temporal_relationship` is `all_within`, `any_of` or `sequence`".to_owned();
            report.add(node.at, "temporal_relationship", message);
            return None;
        }
    };
    let mut of_shape = vec![(parts, list)];
    if shape != "any" {
        let Some(within) = within else {
            let remedy = Some("add one, such as `window_minutes: 30`".to_owned());
            let message = "the events have no window: without it the state would grow for ever";
            report.add_with(events.at, "events", message, remedy);
            return None;
        };
        of_shape.push(("within", within));
    }
    let shape = map_of(events.at, vec![(shape, map_of(events.at, of_shape))]);
    rest.put("match", shape, report);
    Some(rest.finish())
}

/// An entry without an `id` is called as its event is: of two for one event, one needs an `id`.
fn refuse_same_names(entries: &[Node], report: &mut Report<'_>) {
    let mut taken: Vec<&str> = Vec::new();
    for (place, entry) in entries.iter().enumerate() {
        let given = entry.member("id").and_then(Node::as_str);
        let event = entry.member("event").and_then(Node::as_str);
        let Some(name) = given.or(event.filter(|name| is_name(name))) else {
            continue;
        };
        if given.is_none() && taken.contains(&name) {
            let message = format!(
                "the id `{name}` is taken already: an entry without an `id` has the name of its event"
            );
            let remedy = format!("give this one an `id`, such as `id: {name}_{}`", place + 1);
            report.add_with(entry.at, &format!("events[{place}]"), message, Some(remedy));
        }
        taken.push(name);
    }
}

/// Whether an event's name can be the id of its condition.
fn is_name(name: &str) -> bool {
    is_identifier(name) && !is_word(name)
}

/// One entry of `events` as a condition.
fn condition(
    entry: &Node,
    path: &str,
    has_topic: bool,
    within: Option<&Node>,
    report: &mut Report<'_>,
) -> Option<Node> {
    let Value::Map(members) = &entry.value else {
        let message = format!(
            "an event is a mapping such as `{{event: stock_price_drop, threshold: 0.15}}`, not {}",
            entry.described()
        );
        report.add(entry.at, path, message);
        return None;
    };
    let mut rest = Members::new(entry.at, members);
    let Some(event) = rest.take("event") else {
        report.add(entry.at, path, "this does not name its `event`");
        return None;
    };
    let Some(name) = event.as_str().filter(|name| !name.is_empty()) else {
        report.add(event.at, &join(path, "event"), "`event` is a name");
        return None;
    };
    let given = rest.take("field");
    if !names_a_field(given.as_ref(), &join(path, "field"), report) {
        return None;
    }
    let field = given.clone().unwrap_or_else(|| {
        let word = moved(name).map(|(_, word)| word);
        text(
            event.at,
            word.filter(|word| !word.is_empty()).unwrap_or("value"),
        )
    });
    let change = change(name, &field, &mut rest, path, within, report);
    if let Some(node) = given.filter(|_| change.is_none() && rest.get("threshold").is_none()) {
        let message = "`field` belongs to a `threshold`, an `increase` or a `decrease`";
        report.add(node.at, &join(path, "field"), message);
    }
    let mut tests = Vec::new();
    let mut out = Vec::new();
    for (key, node) in &rest.members {
        match key.name.as_str() {
            "id" | "topic" => out.push((key.name.as_str(), node.clone())),
            "where" => {
                let test = condition_text(node, &join(path, "where"), report);
                tests.extend(test.map(|test| format!("({test})")));
            }
            "threshold" => {
                let of = field.as_str().unwrap_or("value");
                tests.push(format!("event.{of} >= {}", node.to_json()));
            }
            other => tests.extend(equality(other, key, node, path, report)),
        }
    }
    if rest.get("id").is_none() && is_name(name) {
        out.push(("id", text(event.at, name)));
    }
    if has_topic || rest.get("topic").is_some() {
        out.push(("type", text(event.at, name)));
    } else {
        out.push(("topic", text(event.at, name)));
    }
    if !tests.is_empty() {
        out.push(("where", text(entry.at, tests.join(" && "))));
    }
    out.extend(change.map(|change| ("change", change)));
    Some(map_of(entry.at, out))
}

/// `sentiment: negative`, where it is no word that was misspelt.
fn equality(
    name: &str,
    key: &Key,
    node: &Node,
    path: &str,
    report: &mut Report<'_>,
) -> Option<String> {
    let path = join(path, name);
    if let Some(near) = nearest(name, WORDS.iter().copied()) {
        let remedy = format!("did you mean `{near}`? A field of this name is tested by `where`");
        let message = format!("unknown key `{name}` in an event");
        report.add_with(key.at, &path, message, Some(remedy));
        return None;
    }
    let is_plain = name.split('.').all(is_identifier);
    match &node.value {
        Value::Map(_) | Value::Null => None,
        _ if !is_plain => None,
        Value::List(_) => Some(format!("event.{name} in {}", node.to_json())),
        _ => Some(format!("event.{name} == {}", node.to_json())),
    }
    .or_else(|| {
        let message = format!(
            "`{name}` is compared with text, a number, true, false or a list of these; other tests go into `where`"
        );
        report.add(key.at, &path, message);
        None
    })
}

/// Whether what stands under `field`, if anything does, is a name.
pub(super) fn names_a_field(field: Option<&Node>, path: &str, report: &mut Report<'_>) -> bool {
    let Some(node) = field.filter(|node| node.as_str().is_none()) else {
        return true;
    };
    let message = format!("`field` is the name of a field, not {}", node.described());
    report.add(node.at, path, message);
    false
}

/// Which way an event's name says that its value moved, and the word before that.
fn moved(name: &str) -> Option<(&'static str, &str)> {
    const APART: [char; 3] = ['_', '.', '-'];
    let (before, last) = name.rsplit_once(APART).unwrap_or(("", name));
    let direction = match last {
        last if DOWN.contains(&last) => "down",
        last if UP.contains(&last) => "up",
        _ => return None,
    };
    Some((direction, before.rsplit(APART).next().unwrap_or_default()))
}

/// The `change` that an event's name, its `threshold`, `increase` and `decrease` speak of.
fn change(
    name: &str,
    field: &Node,
    rest: &mut Members,
    path: &str,
    within: Option<&Node>,
    report: &mut Report<'_>,
) -> Option<Node> {
    let timeframe = rest.take("timeframe");
    let named = moved(name).map(|(direction, _)| direction);
    let increase = rest.take("increase");
    let decrease = rest.take("decrease");
    if let (Some(_), Some(node)) = (&increase, &decrease) {
        let message = "give one of `increase` and `decrease`; two entries can have both";
        report.add(node.at, &join(path, "decrease"), message);
    }
    let (by, direction, from) = if let Some(by) = increase {
        (by, "up", "previous_window_avg")
    } else if let Some(by) = decrease {
        (by, "down", "previous_window_avg")
    } else if let (Some(direction), Some(_)) = (named, rest.get("threshold")) {
        let from = if direction == "down" {
            "window_max"
        } else {
            "window_min"
        };
        (rest.take("threshold")?, direction, from)
    } else {
        if let Some(timeframe) = timeframe {
            let message = "`timeframe` belongs to a change: an `increase`, a `decrease`, or a `threshold` of an event whose name says which way, such as `price_drop`";
            report.add(timeframe.at, &join(path, "timeframe"), message);
        }
        return None;
    };
    let Some(over) = timeframe.as_ref().or(within) else {
        let remedy = Some("add one, such as `timeframe: 1h`".to_owned());
        report.add_with(by.at, path, "the change has no `timeframe`", remedy);
        return None;
    };
    let percent = match &by.value {
        Value::Number(number) => text(by.at, format!("{}%", percent_of(number))),
        _ => by.clone(),
    };
    Some(map_of(
        by.at,
        vec![
            ("field", field.clone()),
            ("direction", text(by.at, direction)),
            ("by", percent),
            ("over", over.clone()),
            ("from", text(by.at, from)),
        ],
    ))
}

/// A fraction as a percentage, without the dust of binary fractions.
fn percent_of(number: &serde_json::Number) -> f64 {
    let percent = number.as_f64().unwrap_or_default() * 100.0;
    (percent * 1e9).round() / 1e9
}

/// `[market_data]`, each joined by the first correlation key and known by the topic's name.
fn enrichments(node: &Node, key: Option<&String>, report: &mut Report<'_>) -> Vec<(String, Node)> {
    let path = "context_enrichment";
    let Value::List(topics) = &node.value else {
        let message = format!("`{path}` is a list of topics, not {}", node.described());
        report.add(node.at, path, message);
        return Vec::new();
    };
    let Some(key) = key else {
        let remedy = Some("add `correlation_keys`".to_owned());
        let message = "topics are joined by the first correlation key, and there is none";
        report.add_with(node.at, path, message, remedy);
        return Vec::new();
    };
    let mut joined = Vec::new();
    for topic in topics {
        let Some(name) = topic.as_str() else {
            let message = format!(
                "`{path}` is a list of topics; this is {}",
                topic.described()
            );
            report.add(topic.at, path, message);
            continue;
        };
        let is_word = |character: char| character.is_ascii_alphanumeric() || character == '_';
        let known_as: String = name
            .chars()
            .map(|character| if is_word(character) { character } else { '_' })
            .collect();
        let entry = map_of(
            topic.at,
            vec![
                ("topic", topic.clone()),
                ("as", text(topic.at, known_as.clone())),
                ("key", text(topic.at, key.clone())),
            ],
        );
        joined.push((known_as, entry));
    }
    joined
}

/// `workflow_trigger: W`, or what `start` takes.
pub(super) fn start(trigger: &Node, joined: &[String]) -> Node {
    if !matches!(trigger.value, Value::String(_)) {
        return trigger.clone();
    }
    let at = trigger.at;
    let mut input = vec![
        ("key", text(at, "${key}")),
        ("matches", text(at, "${matches}")),
    ];
    if !joined.is_empty() {
        let names = joined.iter();
        let context = names.map(|name| (name.as_str(), text(at, format!("${{{name}}}"))));
        input.push(("context", map_of(at, context.collect())));
    }
    map_of(
        at,
        vec![("workflow", trigger.clone()), ("input", map_of(at, input))],
    )
}

fn correlation(rest: &Members) -> Vec<String> {
    let node = rest
        .get("correlate")
        .or_else(|| rest.get("correlation_keys"));
    let Some(node) = node else {
        return Vec::new();
    };
    if let Value::String(name) = &node.value {
        return vec![name.clone()];
    }
    match &node.member("by").unwrap_or(node).value {
        Value::List(items) => items
            .iter()
            .filter_map(|item| match &item.value {
                Value::Map(_) => {
                    let name = item.member("name");
                    name.and_then(Node::as_str)
                }
                _ => item.as_str(),
            })
            .map(str::to_owned)
            .collect(),
        _ => Vec::new(),
    }
}
