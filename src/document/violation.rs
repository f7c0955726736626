//! What is wrong with a definition, and where.

use std::fmt;

use serde::Serialize;

use super::fields::join;
use super::node::{Node, Position};
use crate::expr::ExprError;

/// One fault: where it is, what it is, what would be right.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Violation {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// From 1.
    pub line: usize,
    /// From 1, in characters.
    pub column: usize,
    /// The place within the document, such as `steps[2].retry.backoff`; empty for the document.
    pub path: String,
    pub message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suggestion: Option<String>,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.file {
            write!(f, "{file}:")?;
        }
        write!(f, "{}:{}: ", self.line, self.column)?;
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        f.write_str(&self.message)?;
        if let Some(suggestion) = &self.suggestion {
            write!(f, "; {suggestion}")?;
        }
        Ok(())
    }
}

/// All that is wrong with a file, in the order of its lines; never empty, at most
/// [`Violations::MAX`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, thiserror::Error)]
#[serde(transparent)]
pub struct Violations(pub Vec<Violation>);

impl Violations {
    /// Further faults are not reported.
    pub const MAX: usize = 100;
}

impl fmt::Display for Violations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, violation) in self.0.iter().enumerate() {
            if place > 0 {
                f.write_str("\n")?;
            }
            violation.fmt(f)?;
        }
        Ok(())
    }
}

/// Collects the faults of one file.
pub(crate) struct Report<'a> {
    text: &'a str,
    file: Option<&'a str>,
    violations: Vec<Violation>,
    /// Stands before every path.
    within: String,
}

impl<'a> Report<'a> {
    pub(crate) fn new(text: &'a str, file: Option<&'a str>) -> Self {
        Self {
            text,
            file,
            violations: Vec::new(),
            within: String::new(),
        }
    }

    pub(crate) fn add(&mut self, at: Position, path: &str, message: impl Into<String>) {
        self.add_with(at, path, message, None);
    }

    pub(crate) fn add_with(
        &mut self,
        at: Position,
        path: &str,
        message: impl Into<String>,
        suggestion: Option<String>,
    ) {
        if self.violations.len() < Violations::MAX {
            self.violations.push(Violation {
                file: self.file.map(str::to_owned),
                line: at.line,
                column: at.column,
                path: match path {
                    "" => self.within.clone(),
                    path => join(&self.within, path),
                },
                message: message.into(),
                suggestion,
            });
        }
    }

    /// What `read` reports has its paths below `path`: it reads a part of the document as if that
    /// were all.
    pub(crate) fn within<T>(&mut self, path: String, read: impl FnOnce(&mut Self) -> T) -> T {
        let outer = std::mem::replace(&mut self.within, path);
        let read = read(self);
        self.within = outer;
        read
    }

    /// A fault of the expression `text`, which is the value of `node`, at its place in it.
    pub(crate) fn add_expression_error(
        &mut self,
        error: &ExprError,
        node: &Node,
        text: &str,
        path: &str,
    ) {
        let at = self.locate(node, text, error.offset.unwrap_or(0));
        let suggestion = error
            .suggestion
            .as_ref()
            .map(|near| format!("did you mean `{near}`?"));
        self.add_with(at, path, error.to_string(), suggestion);
    }

    /// How many faults were found so far.
    pub(crate) fn count(&self) -> usize {
        self.violations.len()
    }

    /// Where byte `offset` of a string's value stands in the file. The value as a whole is found
    /// in the source of its node where nothing in it is escaped or folded; else the words at the
    /// offset are looked for; else it is the node's own place.
    pub(crate) fn locate(&self, node: &Node, value: &str, offset: usize) -> Position {
        let Some(source) = node.source.clone().and_then(|range| self.text.get(range)) else {
            return node.at;
        };
        let start = node.source.as_ref().map_or(0, |range| range.start);
        let offset = offset.min(value.len());
        let found = source.find(value).map(|found| found + offset).or_else(|| {
            // Up to what may be escaped in the source.
            let rest = value.get(offset..)?;
            let is_plain = |character: char| {
                !character.is_control() && !matches!(character, '"' | '\'' | '\\')
            };
            let words: String = rest
                .chars()
                .take_while(|next| is_plain(*next))
                .take(24)
                .collect();
            if words.is_empty() {
                None
            } else {
                source.find(&words)
            }
        });
        found.map_or(node.at, |found| position_of(self.text, start + found))
    }

    pub(crate) fn finish<T>(mut self, value: T) -> Result<T, Violations> {
        if self.violations.is_empty() {
            return Ok(value);
        }
        self.violations
            .sort_by_key(|violation| (violation.line, violation.column));
        Err(Violations(self.violations))
    }
}

fn position_of(text: &str, byte: usize) -> Position {
    let before = &text[..byte];
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    Position {
        line: before.bytes().filter(|byte| *byte == b'\n').count() + 1,
        column: before[line_start..].chars().count() + 1,
    }
}
