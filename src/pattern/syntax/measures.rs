//! Conditions that compare an event with those before it: `change` and `anomaly`.

use super::builder::{Builder, field_path};
use super::settings::choice;
use super::shapes::span;
use crate::document::fields::{Field, Fields, field, join};
use crate::document::node::{Node, Value};
use crate::document::violation::Report;
use crate::model::Millis;
use crate::pattern::anomaly::{
    DetectorError, EwmaSpec, RobustZSpec, SeasonalSpec, Sides, SpotSpec,
};
use crate::pattern::gauge::{Gauge, Method};
use crate::pattern::predicate::Scope as _;
use crate::pattern::rule::Measure;
use crate::pattern::window::change::{By, ChangeSpec, Direction, From};

/// How long a detector remembers a series that has no values, where the rule does not say.
const FORGET_AFTER: Millis = Millis(7 * 86_400_000);

const CHANGE: &[Field] = &[
    field("field"),
    field("series"),
    field("direction"),
    field("by"),
    field("over"),
    field("from"),
];

const ANOMALY: &[Field] = &[
    field("field"),
    field("series"),
    field("direction"),
    field("method"),
    field("threshold"),
    field("forget_after"),
    field("alpha"),
    field("warm_up"),
    field("least_deviation"),
    field("values"),
    field("period"),
    field("slots"),
    field("memory"),
    field("calibration"),
    field("level"),
    field("risk"),
    field("depth"),
];

/// What each method has beside `field`, `series`, `direction`, `method` and `forget_after`.
const PARAMETERS: [(&str, &[&str]); 4] = [
    (
        "ewma",
        &["threshold", "alpha", "warm_up", "least_deviation"],
    ),
    ("robust_z", &["threshold", "values", "warm_up"]),
    (
        "seasonal",
        &[
            "threshold",
            "period",
            "slots",
            "memory",
            "warm_up",
            "least_deviation",
        ],
    ),
    ("spot", &["calibration", "level", "risk", "depth"]),
];

/// A gauge, the name of what it measures and the node that says so, and what tells series apart.
pub(super) struct Measured<'n> {
    pub(super) field: (&'n str, &'n Node),
    pub(super) series: Vec<(&'n str, &'n Node)>,
    pub(super) gauge: Gauge,
}

/// Reads the `change` or `anomaly` of a condition, if it has one, and puts it before the predicate.
pub(super) fn attach(
    fields: &Fields<'_>,
    name: u16,
    predicate: u16,
    builder: &mut Builder<'_>,
    report: &mut Report<'_>,
) -> Option<()> {
    let faults_before = report.count();
    let Some(measured) = read(fields, builder.limits.max_partials_per_key, report) else {
        return (report.count() == faults_before).then_some(());
    };
    if builder.predicates[usize::from(predicate)].looks_back {
        let at = fields.get("where").map_or(fields.at, |node| node.at);
        let message = "beside `change` and `anomaly`, `where` cannot read `matches`: what enters a series would depend on the match";
        report.add(at, &fields.path_of("where"), message);
        return None;
    }
    let slot = |name: &str, builder: &mut Builder<'_>| builder.slot(&field_path(name));
    let measure = Measure {
        predicate,
        name,
        field: slot(measured.field.0, builder),
        series: measured
            .series
            .iter()
            .map(|(name, _)| slot(name, builder))
            .collect(),
        gauge: measured.gauge,
    };
    builder.measures.push(measure);
    Some(())
}

/// The `change` or the `anomaly` under `fields`; `None` without one, and where it is at fault.
pub(super) fn read<'n>(
    fields: &Fields<'n>,
    max_values: usize,
    report: &mut Report<'_>,
) -> Option<Measured<'n>> {
    match (fields.get("change"), fields.get("anomaly")) {
        (None, None) => None,
        (Some(_), Some(node)) => {
            let message = "give one of `change` and `anomaly`; two conditions can have both";
            report.add(node.at, &fields.path_of("anomaly"), message);
            None
        }
        (Some(node), None) => {
            let path = fields.path_of("change");
            let inner = Fields::read(node, &path, "`change`", CHANGE, &[], report)?;
            change(&inner, max_values, report)
        }
        (None, Some(node)) => {
            let path = fields.path_of("anomaly");
            let inner = Fields::read(node, &path, "`anomaly`", ANOMALY, &[], report)?;
            anomaly(&inner, report)
        }
    }
}

fn change<'n>(
    fields: &Fields<'n>,
    max_values: usize,
    report: &mut Report<'_>,
) -> Option<Measured<'n>> {
    let field = named_field(fields, report);
    let series = series(fields, report);
    let direction = direction(fields, report);
    let by = by(fields, report);
    let over =
        needed(fields, "over", "over: 1h", report).and_then(|()| span(fields, "over", report));
    let known = [
        "previous",
        "window_max",
        "window_min",
        "window_avg",
        "previous_window_avg",
    ];
    let from = match choice(fields, "from", &known, report) {
        Some("window_max") => From::WindowMax,
        Some("window_min") => From::WindowMin,
        Some("window_avg") => From::WindowAvg,
        Some("previous_window_avg") => From::PreviousWindowAvg,
        _ => From::Previous,
    };
    let over = millis(over?);
    match ChangeSpec::new(direction, by?, over, from, max_values) {
        Ok(spec) => Some(Measured {
            field: field?,
            series,
            gauge: Gauge {
                method: Method::Change(spec),
                forget_after: if from == From::PreviousWindowAvg {
                    over * 2
                } else {
                    over
                },
            },
        }),
        Err(error) => {
            report.add(fields.at, &fields.path, error.to_string());
            None
        }
    }
}

fn anomaly<'n>(fields: &Fields<'n>, report: &mut Report<'_>) -> Option<Measured<'n>> {
    let field = named_field(fields, report);
    let series = series(fields, report);
    let direction = direction(fields, report);
    needed(fields, "method", "method: ewma", report)?;
    let methods = PARAMETERS.map(|(name, _)| name);
    let method = choice(fields, "method", &methods, report)?;
    let own = PARAMETERS.iter().find(|(name, _)| *name == method)?.1;
    for (_, names) in PARAMETERS {
        for name in names.iter().filter(|name| !own.contains(name)) {
            if let Some((key, _)) = fields.entry(name) {
                let message = format!(
                    "`{name}` is no parameter of `{method}`, which has {}",
                    own.join(", ")
                );
                report.add(key.at, &fields.path_of(name), message);
                return None;
            }
        }
    }
    let faults_before = report.count();
    let mut number = |name: &str, usual: f64| {
        if fields.get(name).is_none() {
            return usual;
        }
        fields.number(name, f64::MIN, report).unwrap_or(usual)
    };
    let (threshold, alpha) = (
        number("threshold", if method == "robust_z" { 3.5 } else { 3.0 }),
        number("alpha", 0.1),
    );
    let (level, risk) = (number("level", 0.98), number("risk", 1e-4));
    let least = number("least_deviation", 0.0);
    let mut whole = |name: &str, usual: u32| {
        if fields.get(name).is_none() {
            return usual;
        }
        fields
            .integer(name, 0..=10_000_000, report)
            .unwrap_or(usual)
    };
    let warm_up = whole("warm_up", if method == "seasonal" { 3 } else { 30 });
    let (values, slots, memory) = (
        whole("values", 100),
        whole("slots", 24),
        whole("memory", 28),
    );
    let (calibration, depth) = (whole("calibration", 1_000), whole("depth", 0));
    let node = fields.get("warm_up");
    if let Some(node) = node.filter(|_| method == "robust_z" && warm_up > values) {
        let message = format!(
            "`warm_up` is {warm_up}, and a series holds the last {values} values (`values`): there would never be enough"
        );
        report.add(node.at, &fields.path_of("warm_up"), message);
    }
    let period = span(fields, "period", report).unwrap_or(Millis(86_400_000));
    let usual = Millis(FORGET_AFTER.0.max(if method == "seasonal" {
        period.0.saturating_mul(4)
    } else {
        0
    }));
    let forget_after = span(fields, "forget_after", report).unwrap_or(usual);
    if report.count() > faults_before {
        return None;
    }
    let made: Result<Method, DetectorError> = match method {
        "ewma" => EwmaSpec::new(alpha, threshold, warm_up)
            .and_then(|spec| spec.with_least_deviation(least))
            .map(|spec| Method::Ewma(spec, direction)),
        "robust_z" => RobustZSpec::new(values, threshold, warm_up.min(values))
            .map(|spec| Method::RobustZ(spec, direction)),
        "seasonal" => SeasonalSpec::new(millis(period), slots, threshold, memory, warm_up)
            .and_then(|spec| spec.with_least_deviation(least))
            .map(|spec| Method::Seasonal(spec, direction)),
        _ => {
            let sides = match direction {
                Direction::Up => Sides::Upper,
                Direction::Down => Sides::Lower,
                Direction::Any => Sides::Both,
            };
            let spec = SpotSpec::new(sides, calibration, level, risk);
            let spec = match depth {
                0 => spec,
                depth => spec.and_then(|spec| spec.with_drift(depth)),
            };
            spec.map(|spec| Method::Spot(spec, Direction::Any))
        }
    };
    match made {
        Ok(method) => Some(Measured {
            field: field?,
            series,
            gauge: Gauge {
                method,
                forget_after: millis(forget_after),
            },
        }),
        Err(error) => {
            report.add(fields.at, &fields.path, error.to_string());
            None
        }
    }
}

/// `by: 15%` of what it is compared with, or `by: 5` in the unit of the field.
fn by(fields: &Fields<'_>, report: &mut Report<'_>) -> Option<By> {
    needed(fields, "by", "by: 15%", report)?;
    let node = fields.get("by")?;
    let found = match &node.value {
        Value::Number(number) => number.as_f64().map(By::Absolute),
        Value::String(text) => text
            .trim()
            .strip_suffix('%')
            .and_then(|number| number.trim().parse::<f64>().ok())
            .map(|percent| By::Relative(percent / 100.0)),
        _ => None,
    };
    if found.is_none() {
        let message = format!(
            "`by` is a part such as `15%`, or a number in the unit of the field, not {}",
            node.described()
        );
        report.add(node.at, &fields.path_of("by"), message);
    }
    found
}

fn direction(fields: &Fields<'_>, report: &mut Report<'_>) -> Direction {
    match choice(fields, "direction", &["up", "down", "any"], report) {
        Some("up") => Direction::Up,
        Some("down") => Direction::Down,
        _ => Direction::Any,
    }
}

fn named_field<'n>(fields: &Fields<'n>, report: &mut Report<'_>) -> Option<(&'n str, &'n Node)> {
    needed(fields, "field", "field: price", report)?;
    let (name, node) = fields.string("field", report)?;
    is_field(name, node, &fields.path_of("field"), report).then_some((name, node))
}

fn series<'n>(fields: &Fields<'n>, report: &mut Report<'_>) -> Vec<(&'n str, &'n Node)> {
    let path = fields.path_of("series");
    let mut names = fields.strings("series", report).unwrap_or_default();
    names.retain(|(name, node)| is_field(name, node, &path, report));
    names
}

/// Whether `name` can be a field's; what is wrong with it goes to the report.
pub(super) fn is_field(name: &str, node: &Node, path: &str, report: &mut Report<'_>) -> bool {
    let is_good = !name.split('.').any(str::is_empty);
    if !is_good {
        report.add(node.at, path, format!("`{name}` is no field"));
    }
    is_good
}

fn needed(fields: &Fields<'_>, name: &str, example: &str, report: &mut Report<'_>) -> Option<()> {
    if fields.get(name).is_some() {
        return Some(());
    }
    let remedy = format!("add one, such as `{example}`");
    let path = join(&fields.path, name);
    report.add_with(
        fields.at,
        &path,
        format!("`{name}` is missing"),
        Some(remedy),
    );
    None
}

pub(super) fn millis(span: Millis) -> i64 {
    i64::try_from(span.0).unwrap_or(i64::MAX)
}
