//! What stands under `match`.

use super::builder::Builder;
use super::{measures, sequence, windows};
use crate::document::fields::{Field, Fields, field, join};
use crate::document::node::{Node, Value};
use crate::document::violation::Report;
use crate::model::Millis;
use crate::pattern::rule::{Condition, Contiguity, Limits, Part, Sequence, Shape, Step, Times};

const SHAPES: &[Field] = &[
    field("any"),
    field("all"),
    field("sequence"),
    field("absent"),
    field("count"),
    field("window"),
    field("change"),
    field("anomaly"),
];

const PLANNED_SHAPES: &[&str] = &["aggregate"];

const CONDITION: &[Field] = &[
    field("id"),
    field("topic"),
    field("type"),
    field("where"),
    field("change"),
    field("anomaly"),
];

const PLANNED_CONDITION: &[&str] = &["window", "aggregate"];

pub(super) fn read(
    node: &Node,
    builder: &mut Builder<'_>,
    report: &mut Report<'_>,
) -> Option<Shape> {
    let fields = Fields::read(node, "match", "`match`", SHAPES, PLANNED_SHAPES, report)?;
    let given: Vec<&'static str> = SHAPES
        .iter()
        .map(|shape| shape.name)
        .filter(|name| fields.get(name).is_some())
        .collect();
    let [shape] = given[..] else {
        let message = if given.is_empty() {
            let names: Vec<String> = SHAPES
                .iter()
                .map(|shape| format!("`{}`", shape.name))
                .collect();
            format!("`match` needs one of {}", names.join(", "))
        } else {
            format!("`match` has one shape, not {}", given.join(" and "))
        };
        if given.len() > 1 || matches!(&node.value, Value::Map(members) if members.is_empty()) {
            report.add(node.at, "match", message);
        }
        return None;
    };
    let node = fields.get(shape)?;
    let path = fields.path_of(shape);
    match shape {
        "any" => any(node, &path, builder, report),
        "all" => all(node, &path, builder, report),
        "count" => count(node, &path, builder, report),
        "absent" => absent(node, &path, builder, report),
        "window" => windows::read(node, &path, builder, report),
        "change" | "anomaly" => measured(node, &fields, shape, builder, report),
        _ => sequence::read(node, &path, builder, report).map(Shape::Sequence),
    }
}

/// `any: [conditions]`, or `any: {conditions: […]}` as `all` has it.
fn any(
    node: &Node,
    path: &str,
    builder: &mut Builder<'_>,
    report: &mut Report<'_>,
) -> Option<Shape> {
    let conditions = if matches!(node.value, Value::List(_)) {
        conditions(node, path, builder, report)?
    } else {
        let known = &[field("conditions")];
        let fields = Fields::read(node, path, "`any`", known, &[], report)?;
        given_conditions(&fields, builder, report)?
    };
    Some(Shape::Any { conditions })
}

fn all(
    node: &Node,
    path: &str,
    builder: &mut Builder<'_>,
    report: &mut Report<'_>,
) -> Option<Shape> {
    let known = &[field("within"), field("conditions")];
    let fields = Fields::read(node, path, "`all`", known, &[], report)?;
    let within = mandatory_span(&fields, "within", report);
    let conditions = given_conditions(&fields, builder, report)?;
    Some(Shape::All {
        within: within?,
        conditions,
    })
}

fn count(
    node: &Node,
    path: &str,
    builder: &mut Builder<'_>,
    report: &mut Report<'_>,
) -> Option<Shape> {
    let known = &[
        field("id"),
        field("topic"),
        field("type"),
        field("where"),
        field("change"),
        field("anomaly"),
        field("within"),
        field("at_least"),
    ];
    let fields = Fields::read(node, path, "`count`", known, &[], report)?;
    let within = mandatory_span(&fields, "within", report);
    if fields.get("at_least").is_none() {
        report.add(fields.at, path, "`count` needs `at_least`");
    }
    let at_least = fields.integer("at_least", 1..=1_000_000, report);
    refuse_too_many(&fields, at_least, &builder.limits, report);
    let condition = condition_of(&fields, "condition", builder, report)?;
    Some(Shape::Count {
        within: within?,
        at_least: at_least?,
        condition,
    })
}

/// A count of more events than are kept is never met.
fn refuse_too_many(
    fields: &Fields<'_>,
    at_least: Option<u32>,
    limits: &Limits,
    report: &mut Report<'_>,
) {
    let (Some(at_least), Some(node)) = (at_least, fields.get("at_least")) else {
        return;
    };
    let wanted = at_least as usize;
    let (of_key, of_all) = (limits.max_partials_per_key, limits.max_partials);
    let (who, most, limit) = if wanted > of_key {
        ("a key keeps", of_key, "max_partials_per_key")
    } else if wanted - 1 > of_all {
        // The last of them is not kept for the next match.
        ("all keys together keep", of_all, "max_partials")
    } else {
        return;
    };
    let message = format!(
        "`at_least` is {wanted}, and {who} at most {most} events (`limits.{limit}`): there would never be enough"
    );
    let remedy = Some(format!("give `limits.{limit}: {wanted}` or more"));
    report.add_with(node.at, &fields.path_of("at_least"), message, remedy);
}

/// An event after which another does not come in time: a sequence whose last step is absent.
fn absent(
    node: &Node,
    path: &str,
    builder: &mut Builder<'_>,
    report: &mut Report<'_>,
) -> Option<Shape> {
    let known = &[field("after"), field("expect"), field("within")];
    let fields = Fields::read(node, path, "`absent`", known, &[], report)?;
    let within = mandatory_span(&fields, "within", report);
    let mut part = |name: &str| {
        let Some(node) = fields.get(name) else {
            report.add(fields.at, path, format!("`absent` needs `{name}`"));
            return None;
        };
        condition(node, &fields.path_of(name), name, builder, report)
    };
    let (after, expect) = (part("after"), part("expect"));
    if let Some(expect) = expect {
        builder.bears_none(expect.name);
    }
    let step = |condition: Condition, part: Part| Step {
        name: condition.name,
        part,
        next: Contiguity::Relaxed,
        inner: Contiguity::Relaxed,
        times: Times::ONCE,
        optional: false,
        greedy: false,
        until: None,
        within_gap: None,
    };
    let (after, expect) = (after?, expect?);
    Some(Shape::Sequence(Sequence {
        within: Some(within?),
        steps: vec![
            step(after, Part::Event(after.predicate)),
            step(expect, Part::Absent(expect.predicate)),
        ],
    }))
}

fn given_conditions(
    fields: &Fields<'_>,
    builder: &mut Builder<'_>,
    report: &mut Report<'_>,
) -> Option<Vec<Condition>> {
    match fields.get("conditions") {
        Some(node) => conditions(node, &fields.path_of("conditions"), builder, report),
        None => {
            report.add(fields.at, &fields.path, "`conditions` is missing");
            None
        }
    }
}

fn conditions(
    node: &Node,
    path: &str,
    builder: &mut Builder<'_>,
    report: &mut Report<'_>,
) -> Option<Vec<Condition>> {
    let items = items(node, path, "condition", report)?;
    let mut read = Vec::new();
    for (place, item) in items.iter().enumerate() {
        read.push(condition(
            item,
            &format!("{path}[{place}]"),
            "condition",
            builder,
            report,
        ));
    }
    read.into_iter().collect()
}

fn condition(
    node: &Node,
    path: &str,
    what: &str,
    builder: &mut Builder<'_>,
    report: &mut Report<'_>,
) -> Option<Condition> {
    let fields = Fields::read(
        node,
        path,
        "a condition",
        CONDITION,
        PLANNED_CONDITION,
        report,
    )?;
    condition_of(&fields, what, builder, report)
}

fn condition_of(
    fields: &Fields<'_>,
    what: &str,
    builder: &mut Builder<'_>,
    report: &mut Report<'_>,
) -> Option<Condition> {
    let name = builder.register(fields, what, report);
    let topic = builder.topic(fields, report)?;
    let predicate = event_condition(fields, name, topic, builder, report)?;
    if builder.predicates[usize::from(predicate)].looks_back {
        report.add(
            fields.get("where").map_or(fields.at, |node| node.at),
            &join(&fields.path, "where"),
            "`matches` is known only in the steps of a `sequence`",
        );
        return None;
    }
    Some(Condition { name, predicate })
}

/// `change` or `anomaly` alone: any event of the rule's topic that meets it.
fn measured(
    node: &Node,
    fields: &Fields<'_>,
    shape: &str,
    builder: &mut Builder<'_>,
    report: &mut Report<'_>,
) -> Option<Shape> {
    let name = builder.name_of_shape(shape);
    let topic = builder.rule_topic(node, report)?;
    let predicate = builder.predicate(fields, "where", &[], topic, report)?;
    measures::attach(fields, name, predicate, builder, report)?;
    let condition = Condition { name, predicate };
    Some(Shape::Any {
        conditions: vec![condition],
    })
}

/// What `type`, `where`, `change` and `anomaly` of an entry say about one event; the place of its
/// predicate.
pub(super) fn event_condition(
    fields: &Fields<'_>,
    name: u16,
    topic: u16,
    builder: &mut Builder<'_>,
    report: &mut Report<'_>,
) -> Option<u16> {
    let types: Vec<&str> = match fields.get("type").map(|node| (&node.value, node)) {
        None => Vec::new(),
        Some((Value::List(items), node)) => {
            if items.is_empty() {
                let message = "`type` is empty: no event would meet it";
                let remedy = Some("leave it out for events of every type".to_owned());
                report.add_with(node.at, &fields.path_of("type"), message, remedy);
            }
            let names = fields.strings("type", report).unwrap_or_default();
            names.into_iter().map(|(name, _)| name).collect()
        }
        Some(_) => fields
            .string("type", report)
            .map(|(name, _)| name)
            .into_iter()
            .collect(),
    };
    let predicate = builder.predicate(fields, "where", &types, topic, report)?;
    measures::attach(fields, name, predicate, builder, report)?;
    Some(predicate)
}

/// The items of a list that must not be empty; `one` names one of them.
pub(super) fn items<'n>(
    node: &'n Node,
    path: &str,
    one: &str,
    report: &mut Report<'_>,
) -> Option<&'n [Node]> {
    let Value::List(items) = &node.value else {
        let message = format!("{one}s are a list, not {}", node.described());
        report.add(node.at, path, message);
        return None;
    };
    if items.is_empty() {
        report.add(node.at, path, format!("at least one {one} is needed"));
        return None;
    }
    Some(items)
}

/// A duration that must be there and not be zero.
pub(super) fn mandatory_span(
    fields: &Fields<'_>,
    name: &str,
    report: &mut Report<'_>,
) -> Option<Millis> {
    if fields.get(name).is_none() {
        let remedy = format!("add `{name}`, such as `{name}: 10m`");
        let message = format!("`{name}` is missing: without it the state would grow for ever");
        report.add_with(fields.at, &fields.path, message, Some(remedy));
        return None;
    }
    span(fields, name, report)
}

/// A duration that is not zero, where it is given.
pub(super) fn span(fields: &Fields<'_>, name: &str, report: &mut Report<'_>) -> Option<Millis> {
    let span = fields.duration(name, report)?;
    if span.0 == 0 {
        let at = fields.get(name).map_or(fields.at, |node| node.at);
        let message = format!("`{name}` must be longer than zero");
        report.add(at, &fields.path_of(name), message);
        return None;
    }
    Some(span)
}
