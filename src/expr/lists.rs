//! Functions over lists of numbers: `sum`, `avg`, `min` and `max`, as functions (`sum(list)`) and as
//! methods (`list.sum()`).

use std::cmp::Ordering;

use cel::extractors::This;
use cel::{Context, ExecutionError, Value};

use super::numbers as arithmetic;

/// A context that knows them beside CEL's own, and operators that mix kinds of numbers.
pub(super) fn context() -> Context<'static, 'static> {
    let mut context = Context::default();
    let added = [
        context.add_function("sum", |This(list): This<Value>| sum(&list)),
        context.add_function("avg", |This(list): This<Value>| avg(&list)),
        context.add_function("min", |This(list): This<Value>| {
            extreme("min", &list, Ordering::Less)
        }),
        context.add_function("max", |This(list): This<Value>| {
            extreme("max", &list, Ordering::Greater)
        }),
    ];
    debug_assert!(added.iter().all(Result::is_ok));
    arithmetic::add_to(&mut context);
    context
}

/// The numbers of a list; ints where all are.
enum Numbers {
    Ints(Vec<i64>),
    Doubles(Vec<f64>),
}

fn numbers(function: &str, list: &Value) -> Result<Numbers, ExecutionError> {
    let fault = |message: &str| ExecutionError::function_error(function, message);
    let Value::List(items) = list else {
        return Err(fault("it takes a list of numbers"));
    };
    let as_int = |item: &Value| match item {
        Value::Int(value) => Some(*value),
        Value::UInt(value) => i64::try_from(*value).ok(),
        _ => None,
    };
    if let Some(ints) = items.iter().map(as_int).collect() {
        return Ok(Numbers::Ints(ints));
    }
    let as_double = |item: &Value| match item {
        Value::Int(value) => Some(*value as f64),
        Value::UInt(value) => Some(*value as f64),
        Value::Float(value) => Some(*value),
        _ => None,
    };
    let doubles: Option<Vec<f64>> = items.iter().map(as_double).collect();
    doubles
        .map(Numbers::Doubles)
        .ok_or_else(|| fault("the list holds something that is no number"))
}

/// 0 of an empty list.
fn sum(list: &Value) -> Result<Value, ExecutionError> {
    match numbers("sum", list)? {
        Numbers::Ints(ints) => ints
            .iter()
            .try_fold(0i64, |sum, value| sum.checked_add(*value))
            .map(Value::Int)
            .ok_or_else(|| ExecutionError::function_error("sum", "the sum is too large")),
        Numbers::Doubles(doubles) => Ok(Value::Float(doubles.iter().sum())),
    }
}

fn avg(list: &Value) -> Result<Value, ExecutionError> {
    let doubles: Vec<f64> = match numbers("avg", list)? {
        Numbers::Ints(ints) => ints.iter().map(|value| *value as f64).collect(),
        Numbers::Doubles(doubles) => doubles,
    };
    if doubles.is_empty() {
        return Err(ExecutionError::function_error("avg", "the list is empty"));
    }
    Ok(Value::Float(
        doubles.iter().sum::<f64>() / doubles.len() as f64,
    ))
}

/// The element that compares to all others as `wanted`.
fn extreme(function: &str, list: &Value, wanted: Ordering) -> Result<Value, ExecutionError> {
    let best = match numbers(function, list)? {
        Numbers::Ints(ints) => {
            let better = |best: i64, value: i64| {
                if value.cmp(&best) == wanted {
                    value
                } else {
                    best
                }
            };
            ints.into_iter().reduce(better).map(Value::Int)
        }
        Numbers::Doubles(doubles) => {
            let better = |best: f64, value: f64| {
                if value.partial_cmp(&best) == Some(wanted) {
                    value
                } else {
                    best
                }
            };
            doubles.into_iter().reduce(better).map(Value::Float)
        }
    };
    best.ok_or_else(|| ExecutionError::function_error(function, "the list is empty"))
}
