//! The CEL interpreter behind the lowered trees: parsing, values in and out, and its bounds.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use cel::common::ast::{
    CallExpr, ComprehensionExpr, Expr, IdedExpr, LiteralValue, SourceInfo, operators,
};
use cel::common::types::CelBool;
use cel::common::value::CowVal;
use cel::context::VariableResolver;
use cel::{Context, ExecutionError, Value};

use super::lists;
use super::template::quoted;
use super::{Bindings, ExprError, MAX_COPIED_BYTES, MAX_ITERATIONS, MAX_RENDERED_BYTES, Path};

/// Functions and methods of the standard library, as far as JSON values have a use for them.
pub(super) const FUNCTIONS: &[&str] = &[
    "size",
    "contains",
    "startsWith",
    "endsWith",
    "matches",
    "has",
    "all",
    "exists",
    "exists_one",
    "map",
    "filter",
    "int",
    "uint",
    "double",
    "string",
    "bool",
    "bytes",
    "dyn",
    "type",
    "duration",
    "timestamp",
    "getFullYear",
    "getMonth",
    "getDate",
    "getDayOfMonth",
    "getDayOfWeek",
    "getDayOfYear",
    "getHours",
    "getMinutes",
    "getSeconds",
    "getMilliseconds",
    "sum",
    "avg",
    "min",
    "max",
];

const TYPES: &[&str] = &[
    "bool",
    "int",
    "uint",
    "double",
    "string",
    "bytes",
    "list",
    "map",
    "null_type",
    "type",
];

/// Counts an iteration when it is read; no expression can be written that names it.
const TICK: &str = "@tick";

/// Operators are calls as well, by names that no identifier can have.
pub(super) fn is_function(name: &str) -> bool {
    let is_identifier = name
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    FUNCTIONS.contains(&name) || !is_identifier
}

/// Whether a name stands for a type, as in `type(x) == string`.
pub(super) fn is_type(name: &str) -> bool {
    TYPES.contains(&name)
}

/// The variable that stands for the path at `place`; `@` keeps it apart from all that can be
/// written.
pub(super) fn variable(place: usize) -> String {
    format!("@{place}")
}

/// The place of the path that `name` stands for.
pub(super) fn path_place(name: &str) -> Option<usize> {
    name.strip_prefix('@')?.parse().ok()
}

/// What the parser gives.
pub(super) struct Parsed {
    pub(super) root: IdedExpr,
    program: cel::Program,
}

impl Parsed {
    /// Where a node begins, in bytes of the source.
    pub(super) fn offset(&self, id: u64, source: &str) -> usize {
        let info: &SourceInfo = self.program.source_info();
        let characters = info.offset_for(id).map_or(0, |(start, _)| start as usize);
        source
            .char_indices()
            .nth(characters)
            .map_or(source.len(), |(byte, _)| byte)
    }
}

/// `source` is within the bounds that keep the parser's stack small.
pub(super) fn parse(source: &str) -> Result<Parsed, ExprError> {
    let program = cel::Program::compile(source).map_err(|errors| {
        let Some(first) = errors.errors.first() else {
            return ExprError::new("not a CEL expression", source.trim());
        };
        let (line, column) = (first.pos.0.max(1) as usize, first.pos.1.max(1) as usize);
        let before: usize = source
            .split_inclusive('\n')
            .take(line - 1)
            .map(str::len)
            .sum();
        let rest = &source[before..];
        let within = rest
            .char_indices()
            .nth(column - 1)
            .map_or(rest.len(), |(byte, _)| byte);
        ExprError::new(
            format!("not a CEL expression: {}", syntax_fault(&first.msg)),
            source.trim(),
        )
        .at(before + within)
    })?;
    Ok(Parsed {
        root: program.expression().clone(),
        program,
    })
}

/// The parser's words without the list of all that it would have taken.
fn syntax_fault(message: &str) -> String {
    let message = message.strip_prefix("Syntax error: ").unwrap_or(message);
    let quoted = |start: &str| {
        let rest = message.strip_prefix(start)?.strip_prefix('\'')?;
        Some(
            rest.split_once("' expecting")
                .map_or(rest.trim_end_matches('\''), |(found, _)| found),
        )
    };
    let found = [
        "mismatched input ",
        "extraneous input ",
        "no viable alternative at input ",
    ];
    match found.into_iter().find_map(quoted) {
        Some("<EOF>") => "something is missing at its end".to_owned(),
        Some(found) => format!("`{}` does not belong there", found.replace("<EOF>", "")),
        None => message.to_owned(),
    }
}

/// An expression whose paths are variables.
#[derive(Debug)]
pub(super) struct Program {
    root: IdedExpr,
    /// By path: whether only its presence is asked for.
    tested: Vec<bool>,
    /// How many values each iteration of its loops may copy; 0 where copies cannot multiply.
    copies: usize,
}

impl Program {
    pub(super) fn new(root: IdedExpr, tested: Vec<bool>, copies: usize) -> Self {
        Self {
            root,
            tested,
            copies,
        }
    }

    /// Fails with a sentence for the person who wrote the expression.
    pub(super) fn run(&self, paths: &[Path], bindings: &dyn Bindings) -> Result<Value, String> {
        // A context takes 65 µs to make, an inner scope next to nothing.
        thread_local! {
            static ROOT: Context<'static, 'static> = lists::context();
        }
        let mut bound_bytes = 0;
        let ticks = Ticks(AtomicU32::new(0));
        ROOT.with(|root| {
            let mut scope = root.new_inner_scope();
            scope.set_variable_resolver(&ticks);
            for (place, path) in paths.iter().enumerate() {
                let resolved = path.resolve(bindings);
                if self.tested[place] {
                    scope.add_variable_from_value(variable(place), Value::Bool(resolved.is_ok()));
                } else if let Ok(slice) = resolved {
                    bound_bytes += slice.text().len();
                    // An unresolved path stays unknown: it is an error only where it is looked at.
                    scope.add_variable_from_value(variable(place), from_json(slice.text())?);
                }
            }
            ticks
                .0
                .store(self.iterations(bound_bytes), Ordering::Relaxed);
            Value::resolve(&self.root, &scope).map_err(|error| explain(&error, paths, bindings))
        })
    }
}

impl Program {
    /// How many iterations the loops may make over values of `bytes` in all.
    fn iterations(&self, bytes: usize) -> u32 {
        let worst = bytes.saturating_mul(self.copies).max(1);
        u32::try_from(MAX_COPIED_BYTES / worst)
            .map_or(MAX_ITERATIONS, |most| most.min(MAX_ITERATIONS))
    }
}

/// The iterations that one evaluation has left.
struct Ticks(AtomicU32);

impl VariableResolver for Ticks {
    fn resolve<'b>(&'b self, variable: &str) -> Option<CowVal<'b, 'b>> {
        if variable != TICK {
            return None;
        }
        let take = |left: u32| left.checked_sub(1);
        self.0
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take)
            .ok()?;
        Some(CowVal::owned(CelBool::from(true)))
    }
}

/// Makes a loop read [`TICK`] once an iteration, so that nested loops over long lists end.
pub(super) fn count_iterations(loops: &mut ComprehensionExpr) {
    let id = loops.loop_step.id;
    let when_ticked = |then: IdedExpr| {
        let otherwise = Expr::Literal(LiteralValue::Boolean(CelBool::from(false)));
        let tick = IdedExpr {
            id,
            expr: Expr::Ident(TICK.to_owned()),
        };
        let args = vec![
            tick,
            then,
            IdedExpr {
                id,
                expr: otherwise,
            },
        ];
        Expr::Call(CallExpr {
            func_name: operators::CONDITIONAL.to_owned(),
            target: None,
            args,
        })
    };
    // The interpreter appends in place only where the steps of `map` and `filter` keep their
    // form, so those count in the guard or in the element rather than in the loop's condition.
    if matches!(loops.accu_init.expr, Expr::List(_))
        && let Expr::Call(step) = &mut loops.loop_step.expr
    {
        if step.func_name == operators::CONDITIONAL {
            let guard = std::mem::take(&mut step.args[0]);
            step.args[0] = IdedExpr {
                id,
                expr: when_ticked(guard),
            };
            return;
        }
        if let Some(Expr::List(appended)) = step.args.get_mut(1).map(|list| &mut list.expr)
            && let Some(element) = appended.elements.first_mut()
        {
            let inner = std::mem::take(element);
            *element = IdedExpr {
                id,
                expr: when_ticked(inner),
            };
            return;
        }
    }
    let condition = std::mem::take(&mut loops.loop_cond);
    loops.loop_cond = IdedExpr {
        id,
        expr: when_ticked(condition),
    };
}

fn explain(error: &ExecutionError, paths: &[Path], bindings: &dyn Bindings) -> String {
    match error {
        ExecutionError::UndeclaredReference(name) if name.as_str() == TICK => {
            "the loops of the expression visit too many elements".to_owned()
        }
        ExecutionError::UndeclaredReference(name) => {
            match path_place(name).and_then(|place| paths.get(place)) {
                Some(path) => match path.resolve(bindings) {
                    Err(unresolved) => path.explain(&unresolved),
                    Ok(_) => format!("`{path}` has no value"),
                },
                None => format!("unknown name `{name}`"),
            }
        }
        ExecutionError::NoSuchKey(name) => format!("no field `{name}`"),
        ExecutionError::NoSuchOverload(call) if call.function() == "_._" => {
            format!("a value of type {} has no fields", call.argument_types()[0])
        }
        ExecutionError::NoSuchOverload(call) => {
            let name = call.function().trim_matches('_').trim_start_matches('@');
            format!(
                "`{name}` does not take {}",
                call.argument_types().join(" and ")
            )
        }
        ExecutionError::ValuesNotComparable(left, right) => {
            format!(
                "{} cannot be compared with {}",
                described(left),
                described(right)
            )
        }
        ExecutionError::DivisionByZero(_) | ExecutionError::RemainderByZero(_) => {
            "division by zero".to_owned()
        }
        ExecutionError::Overflow(operator, ..) => {
            format!("the result of `{operator}` is out of range")
        }
        ExecutionError::UnsupportedBinaryOperator(operator, left, right) => {
            format!(
                "`{operator}` does not take {} and {}",
                described(left),
                described(right)
            )
        }
        other => other.to_string(),
    }
}

/// The type of a value with its article.
pub(super) fn described(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Int(_) => "an integer",
        Value::UInt(_) => "an unsigned integer",
        Value::Float(_) => "a number",
        Value::String(_) => "a string",
        Value::List(_) => "a list",
        Value::Map(_) => "an object",
        Value::Bytes(_) => "bytes",
        Value::Duration(_) => "a duration",
        Value::Timestamp(_) => "a timestamp",
        _ => "something else",
    }
}

fn from_json(text: &str) -> Result<Value, String> {
    let tree: serde_json::Value =
        serde_json::from_str(text).map_err(|error| format!("a value cannot be read: {error}"))?;
    Ok(from_tree(tree))
}

fn from_tree(tree: serde_json::Value) -> Value {
    match tree {
        serde_json::Value::Null => Value::Null,
        serde_json::Value::Bool(value) => Value::Bool(value),
        serde_json::Value::Number(number) => match number.as_i64() {
            Some(integer) => Value::Int(integer),
            None => Value::Float(number.as_f64().unwrap_or(f64::NAN)),
        },
        serde_json::Value::String(text) => Value::String(Arc::new(text)),
        serde_json::Value::Array(items) => {
            Value::List(Arc::new(items.into_iter().map(from_tree).collect()))
        }
        serde_json::Value::Object(members) => {
            let members = members
                .into_iter()
                .map(|(key, value)| (key, from_tree(value)));
            Value::from(members.collect::<std::collections::HashMap<_, _>>())
        }
    }
}

/// Writes a value as JSON text, the members of objects in the order of their names, so that the
/// same values always give the same text.
pub(super) fn write_json(value: &Value, out: &mut String) -> Result<(), String> {
    if out.len() > MAX_RENDERED_BYTES {
        return Err(format!("the value exceeds {MAX_RENDERED_BYTES} bytes"));
    }
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
        Value::Int(value) => out.push_str(&value.to_string()),
        Value::UInt(value) => out.push_str(&value.to_string()),
        Value::Float(value) => match serde_json::Number::from_f64(*value) {
            Some(number) => out.push_str(&number.to_string()),
            None => return Err(format!("{value} has no form in JSON")),
        },
        Value::String(text) => out.push_str(&quoted(text)),
        Value::Timestamp(time) => out.push_str(&quoted(&time.to_rfc3339())),
        Value::List(items) => {
            out.push('[');
            for (place, item) in items.iter().enumerate() {
                if place > 0 {
                    out.push(',');
                }
                write_json(item, out)?;
            }
            out.push(']');
        }
        Value::Map(map) => {
            let mut members: Vec<_> = map
                .map
                .iter()
                .map(|(key, value)| (key.to_string(), value))
                .collect();
            members.sort_by(|left, right| left.0.cmp(&right.0));
            out.push('{');
            for (place, (key, member)) in members.into_iter().enumerate() {
                if place > 0 {
                    out.push(',');
                }
                out.push_str(&quoted(&key));
                out.push(':');
                write_json(member, out)?;
            }
            out.push('}');
        }
        other => {
            return Err(format!(
                "{} has no form in JSON; make a string of it with `string(…)`",
                described(other)
            ));
        }
    }
    Ok(())
}
