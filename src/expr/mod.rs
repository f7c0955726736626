//! Expressions: CEL inside `${…}`, compiled once, evaluated against whatever a caller binds.
//! Knows JSON and nothing of workflows or patterns.
//!
//! A [`Template`] is a JSON value with expressions in its strings; a [`Condition`] is one boolean
//! expression. Both ask a [`Bindings`] for the values behind their paths, so nothing is parsed or
//! copied that no expression looks at.
//!
//! The way of an expression: `text` finds it between `${` and `}` and bounds its length and depth;
//! `expression` parses it, takes out its paths (`path`: `steps.a.output.x`), and lowers what is
//! simple to a tree of ours (`lowered`), which reads the JSON text in place (`walk`). Whatever the
//! tree does not cover, and every error, is left to the CEL interpreter (`interpreter`, with the
//! functions of `lists` beside its own, and with the operators of `numbers`, which take integers
//! and doubles together), so the two cannot differ in what they refuse.

mod condition;
mod error;
mod expression;
mod interpreter;
mod lists;
pub(crate) mod lowered;
mod numbers;
mod path;
mod template;
mod text;
pub(crate) mod walk;

#[cfg(test)]
mod agreement;
#[cfg(test)]
mod tests;

pub use condition::Condition;
pub use error::ExprError;
pub(crate) use error::nearest;
pub use path::{Path, Segment};
pub(crate) use path::{is_identifier, is_word};
pub use template::{Template, TemplateBuilder};
pub use text::Text;

use crate::model::Json;

/// Longest expression, in bytes of its text.
pub const MAX_EXPRESSION_BYTES: usize = 4_096;

/// Deepest nesting of brackets in an expression.
pub const MAX_NESTING: usize = 32;

/// Words and operators in one expression, at most.
pub const MAX_TOKENS: usize = 512;

/// Elements that the loops of one evaluation (`all`, `exists`, `map`, `filter`) may visit in all.
pub const MAX_ITERATIONS: u32 = 50_000;

/// Bytes that loops within loops, and loops over what lies outside of them, may copy at worst in
/// one evaluation; it lowers their iterations where the data are large.
pub const MAX_COPIED_BYTES: usize = 256 * 1024 * 1024;

/// Largest JSON text that one template or expression may produce, in bytes.
pub const MAX_RENDERED_BYTES: usize = 16 * 1024 * 1024;

/// Where an expression finds its values.
pub trait Bindings {
    /// The JSON text that holds the longest known beginning of `path` (`["steps","a","output","x"]`)
    /// and how many segments it stands for (3 there); the evaluator walks the rest. `None`: the
    /// name is unknown.
    fn lookup(&self, path: &[&str]) -> Option<(Json, usize)>;
}

/// The names that an expression may begin a path with.
#[derive(Clone, Copy, Debug)]
pub struct Names<'a> {
    pub known: &'a [&'a str],
    /// Names that are refused with a reason of their own, as `(name, reason)`.
    pub refused: &'a [(&'a str, &'a str)],
}
