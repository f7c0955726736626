//! One boolean expression.

use super::expression::Expression;
use super::lowered::Lowered;
use super::{Bindings, ExprError, Names, Path, text};

/// One boolean expression, compiled.
#[derive(Clone, Debug)]
pub struct Condition {
    expression: Expression,
}

impl Condition {
    /// `text` is `${ … }` as a whole, or the expression without its braces.
    pub fn compile(text: &str, names: &Names<'_>) -> Result<Self, ExprError> {
        let (inner, offset) = text::unwrap_condition(text)?;
        let expression =
            Expression::compile(inner, names).map_err(|error| error.shifted(offset))?;
        Ok(Self {
            expression: expression.shifted(offset),
        })
    }

    /// Fails where a value is missing, an operation does not fit its operands, or the result is
    /// no boolean.
    pub fn eval(&self, bindings: &dyn Bindings) -> Result<bool, ExprError> {
        self.expression.eval_bool(bindings)
    }

    /// The tree of a simple expression; its paths are places in [`Condition::paths`]. `None`: only
    /// the interpreter can evaluate it.
    pub(crate) fn lowered(&self) -> Option<&Lowered> {
        self.expression.lowered()
    }

    /// The paths that it follows.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.expression.paths().iter()
    }
}
