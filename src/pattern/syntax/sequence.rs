//! `match.sequence`: steps with contiguity and quantifiers, and what cannot stand together.

use super::builder::Builder;
use super::shapes::{event_condition, items, span};
use crate::document::fields::{Field, Fields, field, join};
use crate::document::node::{Node, Value};
use crate::document::violation::Report;
use crate::pattern::rule::{Contiguity, Part, Sequence, Step, Times};

const STEP: &[Field] = &[
    field("id"),
    field("topic"),
    field("type"),
    field("where"),
    field("change"),
    field("anomaly"),
    field("group"),
    field("next"),
    field("inner"),
    field("times"),
    field("one_or_more"),
    field("optional"),
    field("greedy"),
    field("until"),
    field("absent"),
    field("within_gap"),
];

const PLANNED_STEP: &[&str] = &["window", "aggregate"];

/// Most occurrences that `times` may ask for.
const MAX_TIMES: u32 = 1_000;

/// States of the automaton that a sequence becomes.
const MAX_STATES: u64 = 20_000;

/// Groups within groups.
const MAX_DEPTH: usize = 8;

pub(super) fn read(
    node: &Node,
    path: &str,
    builder: &mut Builder<'_>,
    report: &mut Report<'_>,
) -> Option<Sequence> {
    let known = &[field("within"), field("steps")];
    let fields = Fields::read(node, path, "`sequence`", known, &[], report)?;
    let faults_before = report.count();
    let within = span(&fields, "within", report);
    let Some(list) = fields.get("steps") else {
        report.add(fields.at, path, "`sequence` needs `steps`");
        return None;
    };
    let steps = steps(list, &fields.path_of("steps"), 0, builder, report);
    if report.count() > faults_before {
        return None;
    }
    let sequence = Sequence {
        within,
        steps: steps?,
    };
    if sequence.steps.iter().all(|step| step.is_skippable()) {
        report.add(list.at, path, "at least one step must not be optional");
    }
    if size(&sequence.steps) > MAX_STATES {
        let message = format!(
            "the steps unfold to more than {MAX_STATES} states; use smaller `times` within groups"
        );
        report.add(list.at, path, message);
    }
    if within.is_none() && grows(&sequence.steps, true) {
        let remedy = "add `within`, such as `within: 10m`".to_owned();
        report.add_with(
            fields.at,
            path,
            "`within` is missing: without it partial matches would wait for ever",
            Some(remedy),
        );
    }
    Some(sequence)
}

/// States that the steps unfold to, or a few more: repetitions are written out.
fn size(steps: &[Step]) -> u64 {
    // Alone, and behind an absent step or as the beginning of a group, where what follows an
    // optional step is written out once more.
    let (mut plain, mut special) = (1u64, 1u64);
    for step in steps.iter().rev() {
        let one = match &step.part {
            Part::Absent(_) => {
                special = special.saturating_add(1);
                plain = special;
                continue;
            }
            Part::Event(_) => 2,
            Part::Group(steps) => size(steps).saturating_add(1),
        };
        let copies = u64::from(step.times.max.unwrap_or(step.times.min + 1)) + 1;
        let body = copies.saturating_mul(one);
        let skipped = if step.optional { special } else { 0 };
        special = body.saturating_add(plain).saturating_add(skipped);
        plain = body.saturating_add(plain);
    }
    special
}

impl Step {
    /// Whether a match may go without it.
    fn is_skippable(&self) -> bool {
        match &self.part {
            Part::Absent(_) => true,
            Part::Event(_) => self.optional,
            Part::Group(steps) => self.optional || steps.iter().all(Step::is_skippable),
        }
    }
}

/// Whether a partial match may wait without an end.
fn grows(steps: &[Step], is_first: bool) -> bool {
    steps.iter().enumerate().any(|(place, step)| {
        let waits = !(is_first && place == 0)
            && step.next != Contiguity::Strict
            && step.within_gap.is_none();
        let repeats = step.times.max.is_none()
            || (step.times != Times::ONCE && step.inner != Contiguity::Strict);
        let inside = match &step.part {
            Part::Group(steps) => grows(steps, true),
            _ => false,
        };
        waits || repeats || inside
    })
}

fn steps(
    node: &Node,
    path: &str,
    depth: usize,
    builder: &mut Builder<'_>,
    report: &mut Report<'_>,
) -> Option<Vec<Step>> {
    let items = items(node, path, "step", report)?;
    let mut read = Vec::new();
    for (place, item) in items.iter().enumerate() {
        let path = format!("{path}[{place}]");
        let step = step(item, &path, depth, builder, report);
        if let Some(step) = &step {
            check_place(step, place, items.len(), depth, item, &path, report);
        }
        read.push(step);
    }
    read.into_iter().collect()
}

/// What depends on where a step stands.
fn check_place(
    step: &Step,
    place: usize,
    count: usize,
    depth: usize,
    node: &Node,
    path: &str,
    report: &mut Report<'_>,
) {
    let mut refuse = |message: &str| report.add(node.at, path, message);
    let is_absent = matches!(step.part, Part::Absent(_));
    if place == 0 && is_absent {
        refuse("an absent step needs a step before it");
    }
    if place + 1 == count && is_absent && depth > 0 {
        refuse("the last step of a group cannot be absent; put the absent step behind the group");
    }
    let is_last = place + 1 == count && step.next == Contiguity::Relaxed;
    if is_absent && step.within_gap.is_some() && !is_last {
        refuse(
            "an absent step has `within_gap` only as the last, where it says how long none may come",
        );
    }
    if place == 0 && depth == 0 && step.within_gap.is_some() {
        refuse("`within_gap` counts from the step before, and there is none");
    }
}

fn step(
    node: &Node,
    path: &str,
    depth: usize,
    builder: &mut Builder<'_>,
    report: &mut Report<'_>,
) -> Option<Step> {
    let fields = Fields::read(node, path, "a step", STEP, PLANNED_STEP, report)?;
    let faults_before = report.count();
    let name = builder.register(&fields, "step", report);
    let is_absent = boolean(&fields, "absent", report);
    if is_absent || fields.get("group").is_some() {
        builder.bears_none(name);
    }
    let times = times(&fields, builder.limits.max_kleene, report);
    let next = contiguity(&fields, "next", report);
    let inner = contiguity(&fields, "inner", report);
    let optional = boolean(&fields, "optional", report);
    let greedy = boolean(&fields, "greedy", report);
    let within_gap = span(&fields, "within_gap", report);
    let mut until = None;
    let part = match fields.get("group") {
        Some(group) => {
            for name in [
                "topic",
                "type",
                "where",
                "change",
                "anomaly",
                "until",
                "absent",
                "within_gap",
                "greedy",
            ] {
                if let Some((key, _)) = fields.entry(name) {
                    let message = format!("`{name}` does not stand beside `group`");
                    report.add(key.at, &join(path, name), message);
                }
            }
            if depth >= MAX_DEPTH {
                let message = format!("groups nest deeper than {MAX_DEPTH} levels");
                report.add(group.at, path, message);
                return None;
            }
            let path = fields.path_of("group");
            Part::Group(steps(group, &path, depth + 1, builder, report)?)
        }
        None => {
            let topic = builder.topic(&fields, report)?;
            let predicate = event_condition(&fields, name, topic, builder, report)?;
            if fields.get("until").is_some() {
                until = builder.predicate(&fields, "until", &[], topic, report);
            }
            if is_absent {
                Part::Absent(predicate)
            } else {
                Part::Event(predicate)
            }
        }
    };
    let mut refuse = |name: &str, message: &str| {
        let at = fields.entry(name).map_or(fields.at, |(key, _)| key.at);
        report.add(at, &join(path, name), message);
    };
    if is_absent {
        for name in [
            "times",
            "one_or_more",
            "optional",
            "greedy",
            "until",
            "inner",
        ] {
            if fields.get(name).is_some() {
                refuse(name, "an absent step has no quantifier");
            }
        }
        if next == Contiguity::Any {
            refuse(
                "next",
                "an absent step is `strict` (not the next event) or `relaxed` (none until the step after it)",
            );
        }
    } else if times == Times::ONCE {
        for name in ["greedy", "until", "inner"] {
            if fields.get(name).is_some() {
                refuse(
                    name,
                    "this has a meaning only with `times` or `one_or_more`",
                );
            }
        }
    }
    if until.is_some() && times.max == Some(times.min) {
        refuse(
            "until",
            "`until` ends a repetition whose number is open, such as `one_or_more`",
        );
    }
    if report.count() > faults_before {
        return None;
    }
    Some(Step {
        name,
        part,
        next,
        inner,
        times,
        optional,
        greedy,
        until,
        within_gap,
    })
}

pub(super) fn boolean(fields: &Fields<'_>, name: &str, report: &mut Report<'_>) -> bool {
    match fields.get(name).map(|node| (&node.value, node)) {
        None => false,
        Some((Value::Bool(value), _)) => *value,
        Some((_, node)) => {
            let message = format!("`{name}` is true or false, not {}", node.described());
            report.add(node.at, &fields.path_of(name), message);
            false
        }
    }
}

fn contiguity(fields: &Fields<'_>, name: &str, report: &mut Report<'_>) -> Contiguity {
    match fields.string(name, report) {
        None | Some(("relaxed", _)) => Contiguity::Relaxed,
        Some(("strict", _)) => Contiguity::Strict,
        Some(("any", _)) => Contiguity::Any,
        Some((found, node)) => {
            let message = format!("`{name}` is `strict`, `relaxed` or `any`, not `{found}`");
            report.add(node.at, &fields.path_of(name), message);
            Contiguity::Relaxed
        }
    }
}

/// How often the step occurs; without a maximum of its own it takes `most` events.
fn times(fields: &Fields<'_>, most: u32, report: &mut Report<'_>) -> Times {
    fields.refuse_both("times", "one_or_more", report);
    if boolean(fields, "one_or_more", report) {
        return Times { min: 1, max: None };
    }
    let Some(node) = fields.get("times") else {
        return Times::ONCE;
    };
    let path = fields.path_of("times");
    if let Value::Number(_) = node.value {
        let count = fields.integer("times", 1..=MAX_TIMES, report).unwrap_or(1);
        return Times {
            min: count,
            max: Some(count),
        };
    }
    let known = &[field("min"), field("max")];
    let Some(bounds) = Fields::read(node, &path, "`times`", known, &[], report) else {
        return Times::ONCE;
    };
    if bounds.get("min").is_none() {
        report.add(node.at, &path, "`times` needs `min`");
    }
    let min = bounds.integer("min", 1..=MAX_TIMES, report).unwrap_or(1);
    let max = bounds.integer("max", 1..=MAX_TIMES, report);
    if max.is_some_and(|max| max < min) {
        report.add(node.at, &path, "`max` is less than `min`");
    }
    if max.is_none() && min > most {
        let message = format!(
            "`times` asks for {min} or more, and one step takes at most {most} (`limits.max_kleene`): it would never be met"
        );
        let remedy = format!("give `limits.max_kleene: {min}` or more, or `times` a `max`");
        report.add_with(node.at, &path, message, Some(remedy));
    }
    Times { min, max }
}
