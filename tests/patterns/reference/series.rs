//! `change` and `anomaly`: how a value stands against the list of those that came before it in its
//! series. Their parameters are read from the text of the rule.
//!
//! A detector judges a value by what came before and then learns it:
//!
//! - `ewma`: a value weighs `alpha`, or 1/n where it is the n-th and that is more; it moves the mean by
//!   its weight of the difference, and the variance becomes what remains of it and of that
//!   difference. An anomaly is more than `threshold` deviations from the mean.
//! - `robust_z`: more than `threshold` deviations from the median of the last `values`; a deviation
//!   is the median of the distances from it over 0.6745, or, where that is nothing, 1.253314 times
//!   their mean.
//! - `seasonal`: `ewma` among the values of its part of the period, with an `alpha` of 1/`memory`.
//!
//! `spot` is left out: what it finds depends on how the tail is fitted, which is an algorithm and no
//! definition.

use partita::document::duration;
use partita::pattern::Rule;
use serde_json::Value;

/// What judges the values of a series.
pub(super) struct Gauge {
    method: Method,
    direction: Direction,
    /// A series without values for so long is forgotten; that of a change never matters by then.
    forget_after: Option<i64>,
}

#[derive(Clone, Copy)]
enum Direction {
    Up,
    Down,
    Any,
}

enum Method {
    Change {
        by: By,
        over: i64,
        from: From,
    },
    Ewma {
        alpha: f64,
        bounds: Bounds,
    },
    RobustZ {
        values: usize,
        bounds: Bounds,
    },
    Seasonal {
        period: i64,
        slots: i64,
        memory: f64,
        bounds: Bounds,
    },
}

enum By {
    Part(f64),
    Number(f64),
}

enum From {
    Previous,
    Max,
    Min,
    Average,
    AverageBefore,
}

struct Bounds {
    threshold: f64,
    warm_up: usize,
    least_deviation: f64,
}

/// A value of a series.
#[derive(Clone, Copy)]
struct Known {
    at: i64,
    value: f64,
    /// It came behind a newer one.
    is_late: bool,
}

/// The values of one series, in the order in which they came.
#[derive(Default)]
pub(super) struct Series {
    known: Vec<Known>,
    newest: Option<i64>,
    /// How far time had come with the last.
    now: i64,
}

/// The texts of every `change` and `anomaly` of a rule, in the order of writing.
pub(super) fn written(rule: &Rule) -> Vec<Value> {
    let document: Value = rule.source.parse().expect("the source of a rule is JSON");
    let mut found = Vec::new();
    collect(&document["match"], &mut found);
    found
}

fn collect(node: &Value, found: &mut Vec<Value>) {
    match node {
        Value::Object(members) => {
            for (name, member) in members {
                match name.as_str() {
                    "change" | "anomaly" => found.push(member.clone()),
                    _ => collect(member, found),
                }
            }
        }
        Value::Array(items) => items.iter().for_each(|item| collect(item, found)),
        _ => {}
    }
}

/// Whether it is of a method that the reference leaves out.
pub(super) fn is_left_out(text: &Value) -> bool {
    text["method"] == "spot"
}

fn span(text: &Value) -> Option<i64> {
    let span = duration::parse(text.as_str()?);
    Some(span.expect("the rule was read").0 as i64)
}

impl Gauge {
    pub(super) fn read(text: &Value) -> Self {
        let number = |name: &str, usual: f64| text[name].as_f64().unwrap_or(usual);
        let bounds = |threshold: f64, warm_up: f64| Bounds {
            threshold: number("threshold", threshold),
            warm_up: number("warm_up", warm_up) as usize,
            least_deviation: number("least_deviation", 0.0),
        };
        let day = 86_400_000;
        let mut forget_after = Some(span(&text["forget_after"]).unwrap_or(7 * day));
        let method = match text["method"].as_str() {
            None => {
                forget_after = None;
                Method::Change {
                    by: By::read(&text["by"]),
                    over: span(&text["over"]).expect("a change has a span"),
                    from: From::read(&text["from"]),
                }
            }
            Some("ewma") => Method::Ewma {
                alpha: number("alpha", 0.1),
                bounds: bounds(3.0, 30.0),
            },
            Some("robust_z") => {
                let values = number("values", 100.0) as usize;
                let mut bounds = bounds(3.5, 30.0);
                bounds.warm_up = bounds.warm_up.min(values);
                Method::RobustZ { values, bounds }
            }
            Some("seasonal") => {
                let period = span(&text["period"]).unwrap_or(day);
                let usual = (7 * day).max(4 * period);
                forget_after = Some(span(&text["forget_after"]).unwrap_or(usual));
                Method::Seasonal {
                    period,
                    slots: number("slots", 24.0) as i64,
                    memory: number("memory", 28.0),
                    bounds: bounds(3.0, 3.0),
                }
            }
            Some(other) => unreachable!("`{other}` is left out"),
        };
        let direction = match text["direction"].as_str() {
            Some("up") => Direction::Up,
            Some("down") => Direction::Down,
            _ => Direction::Any,
        };
        Self {
            method,
            direction,
            forget_after,
        }
    }

    fn is_met(&self, before: &[Known], one: Known) -> bool {
        let values = |known: &[Known]| known.iter().map(|known| known.value).collect::<Vec<_>>();
        match &self.method {
            Method::Change { by, over, from } => {
                let reference = from.of(before, one, *over);
                !one.is_late && reference.is_some_and(|it| by.is_met(one.value, it, self.direction))
            }
            Method::Ewma { alpha, bounds } => {
                let before = values(before);
                let expected = weighted(&before, *alpha);
                bounds.is_beyond(&before, expected, one.value, self.direction)
            }
            Method::RobustZ {
                values: most,
                bounds,
            } => {
                let before = values(&before[before.len().saturating_sub(*most)..]);
                let expected = robust(&before);
                bounds.is_beyond(&before, expected, one.value, self.direction)
            }
            Method::Seasonal {
                period,
                slots,
                memory,
                bounds,
            } => {
                let slot = |at: i64| at.rem_euclid(*period) / (period / slots);
                let is_usual = |known: &&Known| slot(known.at) == slot(one.at);
                let before: Vec<Known> = before.iter().filter(is_usual).copied().collect();
                let before = values(&before);
                let expected = weighted(&before, 1.0 / memory);
                bounds.is_beyond(&before, expected, one.value, self.direction)
            }
        }
    }
}

impl Series {
    /// Whether a value meets the gauge, when time has come to `now`; it is known from then on.
    pub(super) fn takes(&mut self, gauge: &Gauge, at: i64, value: f64, now: i64) -> bool {
        if let (Some(after), Some(newest)) = (gauge.forget_after, self.newest)
            && newest.saturating_add(after) <= now
            && now > self.now
        {
            *self = Self::default();
        }
        let one = Known {
            at,
            value,
            is_late: self.newest.is_some_and(|newest| at < newest),
        };
        let is_met = gauge.is_met(&self.known, one);
        self.known.push(one);
        self.newest = self.newest.max(Some(at));
        self.now = now;
        is_met
    }
}

impl From {
    fn read(text: &Value) -> Self {
        match text.as_str() {
            Some("window_max") => From::Max,
            Some("window_min") => From::Min,
            Some("window_avg") => From::Average,
            Some("previous_window_avg") => From::AverageBefore,
            _ => From::Previous,
        }
    }

    fn of(&self, before: &[Known], one: Known, over: i64) -> Option<f64> {
        let within = |after: i64, last: i64| {
            let inside = move |known: &&Known| after < known.at && known.at <= last;
            before.iter().filter(inside)
        };
        let average = |values: Vec<f64>| {
            let count = values.len() as f64;
            (count > 0.0).then(|| values.iter().sum::<f64>() / count)
        };
        let window = || within(one.at - over, one.at).map(|known| known.value);
        match self {
            From::Previous => {
                let in_turn = |known: &&Known| !known.is_late;
                let mut before = within(one.at - over, one.at).filter(in_turn);
                before.next_back().map(|known| known.value)
            }
            From::Max => window().reduce(f64::max),
            From::Min => window().reduce(f64::min),
            From::Average => average(window().collect()),
            From::AverageBefore => {
                let before = within(one.at - 2 * over, one.at - over);
                average(before.map(|known| known.value).collect())
            }
        }
    }
}

impl By {
    fn read(text: &Value) -> Self {
        match text.as_str() {
            Some(part) => {
                let percent = part.trim().trim_end_matches('%').trim().parse::<f64>();
                By::Part(percent.expect("the rule was read") / 100.0)
            }
            None => By::Number(text.as_f64().expect("the rule was read")),
        }
    }

    /// What equals the threshold meets it, also where decimals round off a billionth of it. From
    /// zero every change is more than any part.
    fn is_met(&self, value: f64, reference: f64, direction: Direction) -> bool {
        let absolute = value - reference;
        let (size, threshold) = match self {
            By::Number(number) => (absolute, *number),
            By::Part(part) if absolute == 0.0 => (0.0, *part),
            By::Part(part) => (absolute / reference.abs(), *part),
        };
        let directed = match direction {
            Direction::Up => size,
            Direction::Down => -size,
            Direction::Any => size.abs(),
        };
        directed >= threshold * (1.0 - 1e-9)
    }
}

impl Bounds {
    fn is_beyond(
        &self,
        before: &[f64],
        (middle, deviation): (f64, f64),
        value: f64,
        direction: Direction,
    ) -> bool {
        let is_directed = match direction {
            Direction::Up => value > middle,
            Direction::Down => value < middle,
            Direction::Any => true,
        };
        let distance = (value - middle).abs();
        before.len() >= self.warm_up
            && is_directed
            && distance > 0.0
            && distance / deviation.max(self.least_deviation) > self.threshold
    }
}

/// The weighted mean and deviation.
fn weighted(values: &[f64], alpha: f64) -> (f64, f64) {
    let (mut mean, mut variance) = (0.0, 0.0);
    for (place, value) in values.iter().enumerate() {
        let weight = alpha.max(1.0 / (place + 1) as f64);
        let difference = value - mean;
        mean += weight * difference;
        variance = (1.0 - weight) * (variance + weight * difference * difference);
    }
    (mean, variance.sqrt())
}

/// The median and the robust deviation from it.
fn robust(values: &[f64]) -> (f64, f64) {
    let middle = median(values.to_vec());
    let distances: Vec<f64> = values.iter().map(|value| (value - middle).abs()).collect();
    let mean = distances.iter().sum::<f64>() / values.len().max(1) as f64;
    let deviation = match median(distances) {
        0.0 => mean * 1.253_314,
        distance => distance / 0.6745,
    };
    (middle, deviation)
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let half = values.len() / 2;
    match values.len() {
        0 => 0.0,
        count if count % 2 == 1 => values[half],
        _ => f64::midpoint(values[half - 1], values[half]),
    }
}
