//! One expression: parsed by the CEL parser, its paths taken out, lowered where that is possible.

use std::sync::Arc;

use cel::common::ast::{EntryExpr, Expr, IdedExpr, LiteralValue, operators};

use super::error::nearest;
use super::lowered::{self, Lowered, Value};
use super::path::Segment;
use super::template::quoted;
use super::{Bindings, ExprError, Names, Path, interpreter, numbers, text};
use crate::model::Json;

/// A compiled expression. Cloning is cheap.
#[derive(Clone, Debug)]
pub(super) struct Expression(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    text: String,
    paths: Vec<Path>,
    /// Where the expression is simple.
    lowered: Option<Lowered>,
    /// Always there: it decides whatever the lowered tree leaves open.
    program: interpreter::Program,
}

impl Expression {
    /// Offsets in errors count bytes of `source`.
    pub(super) fn compile(source: &str, names: &Names<'_>) -> Result<Self, ExprError> {
        text::check_bounds(source)?;
        let parsed = interpreter::parse(source)?;
        let mut extraction = Extraction {
            source,
            names,
            paths: Vec::new(),
            tested: Vec::new(),
            scope: Vec::new(),
            loop_reads: 0,
            is_nested: false,
            parsed: &parsed,
        };
        let mut root = parsed.root.clone();
        extraction.rewrite(&mut root)?;
        let Extraction {
            paths,
            tested,
            loop_reads,
            is_nested,
            ..
        } = extraction;
        let lowered = lowered::lower(&root, &tested);
        let copies = if is_nested { loop_reads } else { 0 };
        let program = interpreter::Program::new(root, tested, copies);
        Ok(Self(Arc::new(Inner {
            text: source.trim().to_owned(),
            paths,
            lowered,
            program,
        })))
    }

    /// Counts the offsets of the paths from `by` bytes earlier.
    pub(super) fn shifted(mut self, by: usize) -> Self {
        let inner = Arc::get_mut(&mut self.0).expect("nobody else has it yet");
        for path in &mut inner.paths {
            path.offset += by;
        }
        self
    }

    pub(super) fn paths(&self) -> &[Path] {
        &self.0.paths
    }

    pub(super) fn lowered(&self) -> Option<&Lowered> {
        self.0.lowered.as_ref()
    }

    pub(super) fn eval_bool(&self, bindings: &dyn Bindings) -> Result<bool, ExprError> {
        if let Some(Value::Bool(answer)) = self.lowered_value(bindings) {
            return Ok(answer);
        }
        match self.interpret(bindings)? {
            cel::Value::Bool(answer) => Ok(answer),
            other => {
                let message = format!(
                    "a condition must be true or false; this is {}",
                    interpreter::described(&other)
                );
                Err(ExprError::new(message, &self.0.text))
            }
        }
    }

    pub(super) fn eval_json(&self, bindings: &dyn Bindings) -> Result<Json, ExprError> {
        if let Some(Lowered::Path(place)) = self.0.lowered
            && let Ok(slice) = self.0.paths[place].resolve(bindings)
        {
            return Ok(slice.into_json());
        }
        let mut out = String::new();
        self.write_json(bindings, &mut out)?;
        Ok(Json::from_text(&out).expect("a value is written as JSON"))
    }

    pub(super) fn write_json(
        &self,
        bindings: &dyn Bindings,
        out: &mut String,
    ) -> Result<(), ExprError> {
        if let Some(Lowered::Path(place)) = self.0.lowered {
            if let Ok(slice) = self.0.paths[place].resolve(bindings) {
                out.push_str(slice.text());
                return Ok(());
            }
        } else if let Some(value) = self.lowered_value(bindings)
            && value.write_json(out)
        {
            return Ok(());
        }
        let value = self.interpret(bindings)?;
        interpreter::write_json(&value, out)
            .map_err(|message| ExprError::new(message, &self.0.text))
    }

    /// As part of a JSON string: strings as they are, other values as their JSON text.
    pub(super) fn write_inside(
        &self,
        bindings: &dyn Bindings,
        out: &mut String,
    ) -> Result<(), ExprError> {
        let start = out.len();
        self.write_json(bindings, out)?;
        if out[start..].starts_with('"') {
            out.pop();
            out.remove(start);
        } else {
            let text = quoted(&out[start..]);
            out.truncate(start);
            out.push_str(&text[1..text.len() - 1]);
        }
        Ok(())
    }

    fn lowered_value(&self, bindings: &dyn Bindings) -> Option<Value<'_>> {
        self.0.lowered.as_ref()?.eval(&self.0.paths, bindings)
    }

    fn interpret(&self, bindings: &dyn Bindings) -> Result<cel::Value, ExprError> {
        self.0
            .program
            .run(&self.0.paths, bindings)
            .map_err(|message| ExprError::new(message, &self.0.text))
    }
}

#[cfg(test)]
impl Expression {
    /// What the tree alone answers, where it does.
    pub(super) fn lowered_json(&self, bindings: &dyn Bindings) -> Option<String> {
        let mut out = String::new();
        let value = self.lowered_value(bindings)?;
        value.write_json(&mut out).then_some(out)
    }

    /// What the interpreter alone answers.
    pub(super) fn interpreted_json(&self, bindings: &dyn Bindings) -> Result<String, String> {
        let mut out = String::new();
        let value = self.interpret(bindings).map_err(|error| error.message)?;
        interpreter::write_json(&value, &mut out).map(|()| out)
    }
}

/// Takes the paths out of a parsed expression: each becomes a variable of its own, so that only
/// what an expression names is ever parsed, and a missing field is told by its full path.
struct Extraction<'a> {
    source: &'a str,
    names: &'a Names<'a>,
    parsed: &'a interpreter::Parsed,
    paths: Vec<Path>,
    /// Which of the paths are only asked for by `has(…)`.
    tested: Vec<bool>,
    /// Variables of the loops around, innermost last.
    scope: Vec<String>,
    /// Names read within loops: each may copy its value at every iteration.
    loop_reads: usize,
    /// Whether a loop holds another loop, or reads what lies outside of it.
    is_nested: bool,
}

impl Extraction<'_> {
    fn rewrite(&mut self, node: &mut IdedExpr) -> Result<(), ExprError> {
        if let Some((segments, tested, root)) = self.path_of(node)? {
            let offset = self.parsed.offset(root, self.source);
            if !self.scope.is_empty() {
                self.loop_reads += 1;
                self.is_nested = true;
            }
            node.expr = Expr::Ident(interpreter::variable(self.paths.len()));
            self.paths.push(Path { segments, offset });
            self.tested.push(tested);
            return Ok(());
        }
        match &mut node.expr {
            Expr::Call(call) => {
                let (name, is_method) = (call.func_name.clone(), call.target.is_some());
                for part in call
                    .target
                    .iter_mut()
                    .map(AsMut::as_mut)
                    .chain(&mut call.args)
                {
                    self.rewrite(part)?;
                }
                self.check_function(&name, is_method, node.id)?;
                if let Expr::Call(call) = &mut node.expr {
                    numbers::mix(call);
                }
            }
            Expr::Comprehension(loops) => {
                self.is_nested |= !self.scope.is_empty();
                self.rewrite(&mut loops.iter_range)?;
                self.rewrite(&mut loops.accu_init)?;
                self.scope.push(loops.iter_var.clone());
                self.scope.push(loops.accu_var.clone());
                for part in [
                    &mut loops.loop_cond,
                    &mut loops.loop_step,
                    &mut loops.result,
                ] {
                    self.rewrite(part)?;
                }
                self.scope.truncate(self.scope.len() - 2);
                interpreter::count_iterations(loops);
            }
            Expr::List(list) => {
                for element in &mut list.elements {
                    self.rewrite(element)?;
                }
            }
            Expr::Map(map) => {
                for entry in &mut map.entries {
                    if let EntryExpr::MapEntry(entry) = &mut entry.expr {
                        self.rewrite(&mut entry.key)?;
                        self.rewrite(&mut entry.value)?;
                    }
                }
            }
            Expr::Select(select) => self.rewrite(&mut select.operand)?,
            Expr::Struct(made) => {
                let message = format!(
                    "`{}{{…}}`: messages are not supported; write a map, such as `{{'a': 1}}`",
                    made.type_name
                );
                return Err(self.refuse(node.id, message));
            }
            Expr::Ident(_) => self.loop_reads += 1,
            Expr::Literal(_) | Expr::Unspecified => {}
        }
        Ok(())
    }

    /// The path that `node` spells, if it does, whether `has(…)` asks for it, and the node of its
    /// root.
    fn path_of(&self, node: &IdedExpr) -> Result<Option<(Vec<Segment>, bool, u64)>, ExprError> {
        let mut segments = Vec::new();
        let tested = matches!(&node.expr, Expr::Select(select) if select.test);
        let mut at = node;
        loop {
            match &at.expr {
                Expr::Ident(name) if self.scope.contains(name) || interpreter::is_type(name) => {
                    return Ok(None);
                }
                Expr::Ident(name) => {
                    self.check_root(name, at.id)?;
                    segments.push(Segment::Name(name.clone()));
                    segments.reverse();
                    return Ok(Some((segments, tested, at.id)));
                }
                // The answer of an inner `has(…)` is no part of a path.
                Expr::Select(select) if select.test && !segments.is_empty() => return Ok(None),
                Expr::Select(select) => {
                    segments.push(Segment::Name(select.field.clone()));
                    at = &select.operand;
                }
                Expr::Call(call) if call.func_name == operators::INDEX && call.args.len() == 2 => {
                    segments.push(match &call.args[1].expr {
                        Expr::Literal(LiteralValue::String(name)) => {
                            Segment::Name(name.inner().to_owned())
                        }
                        Expr::Literal(LiteralValue::Int(index)) => {
                            match usize::try_from(*index.inner()) {
                                Ok(index) => Segment::Index(index),
                                Err(_) => return Ok(None),
                            }
                        }
                        _ => return Ok(None),
                    });
                    at = &call.args[0];
                }
                _ => return Ok(None),
            }
        }
    }

    fn check_root(&self, name: &str, id: u64) -> Result<(), ExprError> {
        if self.names.known.contains(&name) {
            return Ok(());
        }
        if let Some((_, reason)) = self
            .names
            .refused
            .iter()
            .find(|(refused, _)| *refused == name)
        {
            return Err(self.refuse(id, format!("`{name}` {reason}")));
        }
        let known = self.names.known;
        let message = format!(
            "unknown name `{name}`; an expression begins with {}",
            known.join(", ")
        );
        Err(self
            .refuse(id, message)
            .suggest(nearest(name, known.iter().copied()).map(str::to_owned)))
    }

    fn check_function(&self, name: &str, is_method: bool, id: u64) -> Result<(), ExprError> {
        if interpreter::is_function(name) {
            return Ok(());
        }
        let kind = if is_method { "method" } else { "function" };
        let suggestion = nearest(name, interpreter::FUNCTIONS.iter().copied()).map(str::to_owned);
        // The parser places a call at its bracket.
        let bracket = self.parsed.offset(id, self.source);
        let before = self.source[..bracket].trim_end();
        let start = before.strip_suffix(name).map_or(bracket, str::len);
        Err(self
            .refuse(id, format!("unknown {kind} `{name}`"))
            .at(start)
            .suggest(suggestion))
    }

    fn refuse(&self, id: u64, message: String) -> ExprError {
        ExprError::new(message, self.source.trim()).at(self.parsed.offset(id, self.source))
    }
}
