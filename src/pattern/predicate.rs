//! Conditions on one event: simple ones are a tree over slots, the rest is left to the CEL
//! interpreter. A condition without an answer (a field is missing, or of another type) does not
//! hold, and is counted.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::sync::Arc;

use super::event::{Event, Scalar, Taken};
use super::rule::Rule;
use crate::expr::lowered::{Arithmetic, Comparison, Literal, Lowered, Search};
use crate::expr::{Bindings, Condition, Path, Segment};
use crate::model::Json;

/// A condition on the events of one topic.
#[derive(Clone, Debug)]
pub struct Predicate {
    /// Place in [`Rule::topics`].
    pub topic: u16,
    /// Whether it reads what the partial match took so far.
    pub looks_back: bool,
    test: Test,
    /// `None`: it always holds.
    condition: Option<Condition>,
}

/// What a partial match took so far.
pub trait History {
    /// The events taken for the step of this name, in order.
    fn taken(&self, name: u16) -> Vec<&Taken>;
}

/// Nothing taken yet.
pub struct Nothing;

impl History for Nothing {
    fn taken(&self, _: u16) -> Vec<&Taken> {
        Vec::new()
    }
}

/// Names to places, while a rule is read.
pub(super) trait Scope {
    fn slot(&mut self, path: &[Segment]) -> u16;
    fn key(&self, name: &str) -> Option<u16>;
    fn name(&self, id: &str) -> Option<u16>;
    /// The slot of a name that an expression begins with; conditions on events have none.
    fn root(&self, _name: &str) -> Option<u16> {
        None
    }
}

#[derive(Clone, Debug)]
enum Test {
    Always,
    /// A field against a number that is no integer, the commonest of all.
    Number {
        slot: u16,
        comparison: Comparison,
        value: f64,
    },
    Value(Operand),
    /// Out of the tree's reach.
    Ask,
}

#[derive(Clone, Debug)]
enum Operand {
    Constant(Scalar),
    Slot(u16),
    Key(u16),
    Taken { name: u16, index: usize, slot: u16 },
    Count(u16),
    Has(u16),
    Not(Box<Operand>),
    And(Box<Operand>, Box<Operand>),
    Or(Box<Operand>, Box<Operand>),
    Conditional(Box<[Operand; 3]>),
    Compare(Comparison, Box<Operand>, Box<Operand>),
    In(Box<Operand>, Vec<Scalar>),
    Search(Search, Box<Operand>, Box<Operand>),
    Arithmetic(Arithmetic, Box<Operand>, Box<Operand>),
}

/// Why the tree has no value.
#[derive(Clone, Copy, PartialEq)]
enum Stop {
    /// Nor has the interpreter.
    Error,
    /// The interpreter may have one.
    Ask,
}

struct Moment<'a> {
    event: &'a Event<'a>,
    key: &'a [Scalar],
    history: &'a dyn History,
}

impl Predicate {
    /// A condition that every event of `topic` meets.
    pub(super) fn always(topic: u16) -> Self {
        Self {
            topic,
            looks_back: false,
            test: Test::Always,
            condition: None,
        }
    }

    pub(super) fn new(topic: u16, condition: Condition, scope: &mut dyn Scope) -> Self {
        let paths: Vec<Path> = condition.paths().cloned().collect();
        let looks_back = paths.iter().any(|path| path.name(0) == Some("matches"));
        let lowered = condition
            .lowered()
            .and_then(|tree| lower(tree, &paths, scope));
        let test = match lowered {
            None => Test::Ask,
            Some(Operand::Compare(comparison, left, right)) => match (*left, *right) {
                (Operand::Slot(slot), Operand::Constant(Scalar::Float(value))) => Test::Number {
                    slot,
                    comparison,
                    value,
                },
                (left, right) => Test::Value(Operand::Compare(
                    comparison,
                    Box::new(left),
                    Box::new(right),
                )),
            },
            Some(Operand::Constant(Scalar::Bool(true))) => Test::Always,
            Some(operand) => Test::Value(operand),
        };
        Self {
            topic,
            looks_back,
            test,
            condition: Some(condition),
        }
    }

    /// A field that has one of these values in every event that meets the condition; none where
    /// the condition does not ask for that.
    pub(super) fn requires(&self) -> Option<(u16, Vec<Scalar>)> {
        match &self.test {
            Test::Value(operand) => operand.requires(),
            _ => None,
        }
    }

    /// Whether it holds for an event of its topic; `None`: it has no answer.
    pub fn holds(
        &self,
        rule: &Rule,
        event: &Event<'_>,
        key: &[Scalar],
        history: &dyn History,
    ) -> Option<bool> {
        let bindings = EventBindings {
            rule,
            event,
            key,
            history,
        };
        self.answer(event, key, history, &bindings)
    }

    /// `bindings` are asked only where the tree has no answer.
    pub(super) fn answer(
        &self,
        event: &Event<'_>,
        key: &[Scalar],
        history: &dyn History,
        bindings: &dyn Bindings,
    ) -> Option<bool> {
        let answer = match &self.test {
            Test::Always => return Some(true),
            Test::Number {
                slot,
                comparison,
                value,
            } => match &event.slots[usize::from(*slot)] {
                Scalar::Float(found) => return Some(decide(*comparison, found.partial_cmp(value))),
                Scalar::Int(found) => {
                    return Some(decide(*comparison, (*found as f64).partial_cmp(value)));
                }
                Scalar::Missing => return None,
                Scalar::Container(_) => Err(Stop::Ask),
                _ => match comparison {
                    Comparison::Equal => return Some(false),
                    Comparison::NotEqual => return Some(true),
                    _ => return None,
                },
            },
            Test::Value(operand) => {
                let moment = Moment {
                    event,
                    key,
                    history,
                };
                operand.truth(&moment)
            }
            Test::Ask => Err(Stop::Ask),
        };
        match answer {
            Ok(answer) => Some(answer),
            Err(Stop::Error) => None,
            Err(Stop::Ask) => self.condition.as_ref()?.eval(bindings).ok(),
        }
    }
}

fn lower(tree: &Lowered, paths: &[Path], scope: &mut dyn Scope) -> Option<Operand> {
    let mut two = |left: &Lowered, right: &Lowered| {
        Some((
            Box::new(lower(left, paths, scope)?),
            Box::new(lower(right, paths, scope)?),
        ))
    };
    Some(match tree {
        Lowered::Literal(literal) => Operand::Constant(constant(literal)),
        Lowered::Path(place) => lower_path(&paths[*place], scope)?,
        Lowered::Has(place) => match &paths[*place].segments[..] {
            [Segment::Name(root), rest @ ..] if root == "event" && !rest.is_empty() => {
                Operand::Has(scope.slot(rest))
            }
            _ => return None,
        },
        Lowered::Not(part) => Operand::Not(Box::new(lower(part, paths, scope)?)),
        Lowered::And(left, right) => two(left, right).map(|(l, r)| Operand::And(l, r))?,
        Lowered::Or(left, right) => two(left, right).map(|(l, r)| Operand::Or(l, r))?,
        Lowered::Conditional(parts) => Operand::Conditional(Box::new([
            lower(&parts[0], paths, scope)?,
            lower(&parts[1], paths, scope)?,
            lower(&parts[2], paths, scope)?,
        ])),
        Lowered::Compare(comparison, left, right) => {
            two(left, right).map(|(l, r)| Operand::Compare(*comparison, l, r))?
        }
        Lowered::InList(needle, literals) => Operand::In(
            Box::new(lower(needle, paths, scope)?),
            literals.iter().map(constant).collect(),
        ),
        Lowered::Search(search, left, right) => {
            two(left, right).map(|(l, r)| Operand::Search(*search, l, r))?
        }
        Lowered::Arithmetic(operation, left, right) => {
            two(left, right).map(|(l, r)| Operand::Arithmetic(*operation, l, r))?
        }
        Lowered::Size(part) => match &**part {
            Lowered::Path(place) => match &paths[*place].segments[..] {
                [Segment::Name(root), Segment::Name(id)] if root == "matches" => {
                    Operand::Count(scope.name(id)?)
                }
                _ => return None,
            },
            _ => return None,
        },
        Lowered::In(..) => return None,
    })
}

fn lower_path(path: &Path, scope: &mut dyn Scope) -> Option<Operand> {
    match &path.segments[..] {
        [Segment::Name(root), rest @ ..] if root == "event" && !rest.is_empty() => {
            Some(Operand::Slot(scope.slot(rest)))
        }
        [Segment::Name(root), Segment::Name(name)] if root == "key" => {
            scope.key(name).map(Operand::Key)
        }
        [Segment::Name(root)] => scope.root(root).map(Operand::Slot),
        [
            Segment::Name(root),
            Segment::Name(id),
            Segment::Index(index),
            rest @ ..,
        ] if root == "matches" && !rest.is_empty() => Some(Operand::Taken {
            name: scope.name(id)?,
            index: *index,
            slot: scope.slot(rest),
        }),
        _ => None,
    }
}

fn constant(literal: &Literal) -> Scalar {
    match literal {
        Literal::Null => Scalar::Null,
        Literal::Bool(value) => Scalar::Bool(*value),
        Literal::Int(value) => Scalar::Int(*value),
        Literal::Double(value) => Scalar::Float(*value),
        Literal::String(text) => Scalar::Text(Arc::from(text.as_str())),
    }
}

impl Operand {
    /// See [`Predicate::requires`]. An operand of `&&` that does not hold leaves the whole false or
    /// without an answer, so what one side asks for the whole asks for.
    fn requires(&self) -> Option<(u16, Vec<Scalar>)> {
        match self {
            Operand::And(left, right) => left.requires().or_else(|| right.requires()),
            Operand::Compare(Comparison::Equal, left, right) => match (&**left, &**right) {
                (Operand::Slot(slot), Operand::Constant(value))
                | (Operand::Constant(value), Operand::Slot(slot)) => {
                    Some((*slot, vec![value.clone()]))
                }
                _ => None,
            },
            Operand::In(needle, values) => match &**needle {
                Operand::Slot(slot) => Some((*slot, values.clone())),
                _ => None,
            },
            _ => None,
        }
    }

    fn value<'a>(&'a self, moment: &Moment<'a>) -> Result<Cow<'a, Scalar>, Stop> {
        let found = match self {
            Operand::Constant(value) => value,
            Operand::Slot(slot) => &moment.event.slots[usize::from(*slot)],
            Operand::Key(place) => &moment.key[usize::from(*place)],
            Operand::Taken { name, index, slot } => {
                let taken = moment.history.taken(*name);
                let slots = taken.get(*index).and_then(|taken| taken.slots.as_deref());
                &slots.ok_or(Stop::Error)?[usize::from(*slot)]
            }
            Operand::Count(name) => {
                let count = moment.history.taken(*name).len();
                return Ok(Cow::Owned(Scalar::Int(
                    i64::try_from(count).unwrap_or(i64::MAX),
                )));
            }
            Operand::Conditional(parts) => {
                let place = if parts[0].truth(moment)? { 1 } else { 2 };
                return parts[place].value(moment);
            }
            Operand::Arithmetic(operation, left, right) => {
                let (left, right) = (left.value(moment)?, right.value(moment)?);
                return calculate(*operation, &left, &right).map(Cow::Owned);
            }
            _ => {
                return self
                    .truth(moment)
                    .map(|truth| Cow::Owned(Scalar::Bool(truth)));
            }
        };
        match found {
            Scalar::Missing => Err(Stop::Error),
            Scalar::Container(_) => Err(Stop::Ask),
            _ => Ok(Cow::Borrowed(found)),
        }
    }

    fn truth<'a>(&'a self, moment: &Moment<'a>) -> Result<bool, Stop> {
        match self {
            Operand::Not(part) => part.truth(moment).map(|truth| !truth),
            // As in CEL, an operand that decides by itself makes up for an error in the other.
            Operand::And(left, right) => match left.truth(moment) {
                Ok(false) => Ok(false),
                Ok(true) => right.truth(moment),
                Err(stop) => match right.truth(moment) {
                    Ok(false) if stop == Stop::Error => Ok(false),
                    Err(Stop::Ask) => Err(Stop::Ask),
                    _ => Err(stop),
                },
            },
            Operand::Or(left, right) => match left.truth(moment) {
                Ok(true) => Ok(true),
                Ok(false) => right.truth(moment),
                Err(stop) => match right.truth(moment) {
                    Ok(true) if stop == Stop::Error => Ok(true),
                    Err(Stop::Ask) => Err(Stop::Ask),
                    _ => Err(stop),
                },
            },
            Operand::Compare(comparison, left, right) => {
                let (left, right) = (left.value(moment)?, right.value(moment)?);
                compare(*comparison, &left, &right)
            }
            Operand::In(needle, values) => {
                let needle = needle.value(moment)?;
                Ok(values.contains(&needle))
            }
            Operand::Search(search, text, part) => {
                let (text, part) = (text.value(moment)?, part.value(moment)?);
                let (Scalar::Text(text), Scalar::Text(part)) = (&*text, &*part) else {
                    return Err(Stop::Error);
                };
                Ok(match search {
                    Search::StartsWith => text.starts_with(&**part),
                    Search::EndsWith => text.ends_with(&**part),
                    Search::Contains => text.contains(&**part),
                })
            }
            Operand::Has(slot) => Ok(!matches!(
                moment.event.slots[usize::from(*slot)],
                Scalar::Missing
            )),
            _ => match *self.value(moment)? {
                Scalar::Bool(truth) => Ok(truth),
                _ => Err(Stop::Error),
            },
        }
    }
}

fn decide(comparison: Comparison, order: Option<Ordering>) -> bool {
    match comparison {
        Comparison::Equal => order == Some(Ordering::Equal),
        Comparison::NotEqual => order != Some(Ordering::Equal),
        Comparison::Less => order == Some(Ordering::Less),
        Comparison::LessOrEqual => matches!(order, Some(Ordering::Less | Ordering::Equal)),
        Comparison::Greater => order == Some(Ordering::Greater),
        Comparison::GreaterOrEqual => matches!(order, Some(Ordering::Greater | Ordering::Equal)),
    }
}

fn compare(comparison: Comparison, left: &Scalar, right: &Scalar) -> Result<bool, Stop> {
    match comparison {
        Comparison::Equal => return Ok(left == right),
        Comparison::NotEqual => return Ok(left != right),
        _ => {}
    }
    let order = match (left, right) {
        (Scalar::Int(left), Scalar::Int(right)) => Some(left.cmp(right)),
        (Scalar::Int(left), Scalar::Float(right)) => (*left as f64).partial_cmp(right),
        (Scalar::Float(left), Scalar::Int(right)) => left.partial_cmp(&(*right as f64)),
        (Scalar::Float(left), Scalar::Float(right)) => left.partial_cmp(right),
        (Scalar::Text(left), Scalar::Text(right)) => Some(left.cmp(right)),
        (Scalar::Bool(_), Scalar::Bool(_)) => return Err(Stop::Ask),
        _ => return Err(Stop::Error),
    };
    Ok(decide(comparison, order))
}

fn calculate(operation: Arithmetic, left: &Scalar, right: &Scalar) -> Result<Scalar, Stop> {
    match (left, right) {
        (Scalar::Int(left), Scalar::Int(right)) => match operation {
            Arithmetic::Add => left.checked_add(*right),
            Arithmetic::Subtract => left.checked_sub(*right),
            Arithmetic::Multiply => left.checked_mul(*right),
            Arithmetic::Divide => left.checked_div(*right),
            Arithmetic::Remainder => left.checked_rem(*right),
        }
        .map(Scalar::Int)
        .ok_or(Stop::Error),
        _ => {
            let (Some(left), Some(right)) = (left.number(), right.number()) else {
                return Err(Stop::Ask);
            };
            let result = operation.of_doubles(left, right);
            result.map(Scalar::Float).ok_or(Stop::Error)
        }
    }
}

/// What `event`, `key` and `matches` stand for in a condition.
struct EventBindings<'a> {
    rule: &'a Rule,
    event: &'a Event<'a>,
    key: &'a [Scalar],
    history: &'a dyn History,
}

impl Bindings for EventBindings<'_> {
    fn lookup(&self, path: &[&str]) -> Option<(Json, usize)> {
        match path {
            ["event", ..] => Some((self.event.payload.clone(), 1)),
            ["key", ..] => Some((key_json(self.rule, self.key), 1)),
            ["matches", ..] => {
                let taken = |name| self.history.taken(name);
                Some((matches_json(self.rule, taken), 1))
            }
            _ => None,
        }
    }
}

/// Reads a correlation key from the text of a JSON array; `None` where it is none.
pub fn key_values(text: &str) -> Option<Vec<Scalar>> {
    let values: Vec<&serde_json::value::RawValue> = serde_json::from_str(text).ok()?;
    Some(
        values
            .into_iter()
            .map(|value| Scalar::from_json(value.get()))
            .collect(),
    )
}

/// The correlation key as an object of its names.
pub(super) fn key_json(rule: &Rule, key: &[Scalar]) -> Json {
    let names = rule.correlate.iter().zip(key);
    let members = names.map(|((name, _), value)| (name.to_string(), value.whole().to_json()));
    Json::from(serde_json::Value::Object(members.collect()))
}

/// `matches`: for each name the list of the events taken.
pub(super) fn matches_json<'a>(rule: &Rule, taken: impl Fn(u16) -> Vec<&'a Taken>) -> Json {
    let mut text = String::from("{");
    for (place, name) in rule.names.iter().enumerate() {
        if place > 0 {
            text.push(',');
        }
        text.push_str(&format!("{:?}:[", &**name));
        let taken = taken(u16::try_from(place).unwrap_or(u16::MAX));
        for (place, taken) in taken.iter().enumerate() {
            if place > 0 {
                text.push(',');
            }
            text.push_str(taken.payload.as_str());
        }
        text.push(']');
    }
    text.push('}');
    Json::from_text(&text).expect("made of JSON")
}
