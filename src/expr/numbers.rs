//! Arithmetic over integers and doubles together. JSON has one kind of number, CEL has two and takes
//! two of a kind only: here an integer beside a double is taken for a double.

use cel::common::ast::{CallExpr, Expr, operators};
use cel::{Context, ExecutionError, Value};

/// What the operators are called once they mix; `@` keeps the names apart from all that can be written.
pub(super) const ADD: &str = "@add";
pub(super) const SUBTRACT: &str = "@subtract";
pub(super) const MULTIPLY: &str = "@multiply";
pub(super) const DIVIDE: &str = "@divide";

/// Lets an operator of an expression mix the kinds.
pub(super) fn mix(call: &mut CallExpr) {
    let name = match call.func_name.as_str() {
        // A list that grows: the interpreter appends in place where `map` and `filter` say it so.
        operators::ADD
            if call
                .args
                .iter()
                .any(|part| matches!(part.expr, Expr::List(_))) =>
        {
            return;
        }
        operators::ADD => ADD,
        operators::SUBSTRACT => SUBTRACT,
        operators::MULTIPLY => MULTIPLY,
        operators::DIVIDE => DIVIDE,
        _ => return,
    };
    call.func_name = name.to_owned();
}

/// Adds the operators to a context.
pub(super) fn add_to(context: &mut Context<'_, '_>) {
    type Operation = fn(Value, Value) -> Result<Value, ExecutionError>;
    let operations: [(&str, Operation); 4] = [
        (ADD, |left, right| left + right),
        (SUBTRACT, |left, right| left - right),
        (MULTIPLY, |left, right| left * right),
        (DIVIDE, |left, right| left / right),
    ];
    for (name, operation) in operations {
        let added = context.add_function(name, move |left: Value, right: Value| {
            let (left, right) = of_a_kind(left, right);
            operation(left, right)
        });
        debug_assert!(added.is_ok());
    }
}

fn of_a_kind(left: Value, right: Value) -> (Value, Value) {
    match (left, right) {
        (Value::Int(left), right @ Value::Float(_)) => (Value::Float(left as f64), right),
        (left @ Value::Float(_), Value::Int(right)) => (left, Value::Float(right as f64)),
        alike => alike,
    }
}
