//! A string as a definition has it: literal text with expressions between `${` and `}`. `$${`
//! stands for a literal `${`.

use super::expression::Expression;
use super::{ExprError, MAX_EXPRESSION_BYTES, MAX_NESTING, MAX_TOKENS, Names, Path};

/// A compiled string.
#[derive(Clone, Debug)]
pub struct Text {
    pub(super) parts: Vec<Part>,
}

#[derive(Clone, Debug)]
pub(super) enum Part {
    Literal(String),
    Expression(Expression),
}

impl Text {
    /// Offsets in errors and paths count bytes of `text`.
    pub fn compile(text: &str, names: &Names<'_>) -> Result<Self, ExprError> {
        let mut parts = Vec::new();
        let mut literal = String::new();
        let mut at = 0;
        while let Some(dollar) = text[at..].find('$').map(|found| at + found) {
            literal.push_str(&text[at..dollar]);
            let rest = &text[dollar..];
            if rest.starts_with("$${") {
                literal.push_str("${");
                at = dollar + 3;
            } else if rest.starts_with("${") {
                let start = dollar + 2;
                let end = closing_brace(text, start)?;
                if !literal.is_empty() {
                    parts.push(Part::Literal(std::mem::take(&mut literal)));
                }
                let expression = Expression::compile(&text[start..end], names)
                    .map_err(|error| error.shifted(start))?;
                parts.push(Part::Expression(expression.shifted(start)));
                at = end + 1;
            } else {
                literal.push('$');
                at = dollar + 1;
            }
        }
        literal.push_str(&text[at..]);
        if !literal.is_empty() {
            parts.push(Part::Literal(literal));
        }
        Ok(Self { parts })
    }

    /// The paths that its expressions follow.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.parts.iter().flat_map(|part| match part {
            Part::Literal(_) => &[][..],
            Part::Expression(expression) => expression.paths(),
        })
    }

    /// Whether it is exactly one `${…}`, which keeps the type of its value.
    pub fn is_whole(&self) -> bool {
        matches!(&self.parts[..], [Part::Expression(_)])
    }
}

/// The inside of a text that is one `${…}` as a whole, and where it begins; a text without `${`
/// at its beginning is taken as the expression itself.
pub(super) fn unwrap_condition(text: &str) -> Result<(&str, usize), ExprError> {
    let lead = text.len() - text.trim_start().len();
    let trimmed = text.trim();
    if !trimmed.starts_with("${") {
        return Ok((trimmed, lead));
    }
    let start = lead + 2;
    let end = closing_brace(text, start)?;
    if end + 1 != lead + trimmed.len() {
        let message = "a condition is one expression as a whole, such as `${a > 1 && b == 'x'}`";
        return Err(ExprError::new(message, trimmed).at(end + 1));
    }
    Ok((&text[start..end], start))
}

/// Where the expression that begins at `start` ends: the place of its `}`.
fn closing_brace(text: &str, start: usize) -> Result<usize, ExprError> {
    let mut depth = 0usize;
    let mut scanner = Scanner::new(&text[start..]);
    while let Some((at, byte)) = scanner.next_code() {
        match byte {
            b'{' => depth += 1,
            b'}' if depth == 0 => return Ok(start + at),
            b'}' => depth -= 1,
            _ => {}
        }
    }
    Err(ExprError::new("`${` has no matching `}`", &text[start..]).at(start - 2))
}

/// Refuses what would cost the parser too much stack or time, before it sees it.
pub(super) fn check_bounds(expression: &str) -> Result<(), ExprError> {
    let refuse = |message: String, at: usize| Err(ExprError::new(message, expression).at(at));
    if expression.trim().is_empty() {
        return refuse("the expression is empty".to_owned(), 0);
    }
    if expression.len() > MAX_EXPRESSION_BYTES {
        let length = expression.len();
        return refuse(
            format!("the expression has {length} bytes; {MAX_EXPRESSION_BYTES} are allowed"),
            0,
        );
    }
    let (mut depth, mut tokens, mut before) = (0usize, 0usize, b' ');
    let mut scanner = Scanner::new(expression);
    while let Some((at, byte)) = scanner.next_code() {
        match byte {
            b'(' | b'[' | b'{' => depth += 1,
            b')' | b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > MAX_NESTING {
            return refuse(
                format!("the expression is nested deeper than {MAX_NESTING} brackets"),
                at,
            );
        }
        let starts_word =
            byte.is_ascii_alphabetic() && !before.is_ascii_alphanumeric() && before != b'_';
        if starts_word || b"([{?:,.+-*/%<>=!&|".contains(&byte) {
            tokens += 1;
        }
        if tokens > MAX_TOKENS {
            return refuse(
                format!("the expression has more than {MAX_TOKENS} words and operators"),
                at,
            );
        }
        before = byte;
    }
    Ok(())
}

/// Walks over CEL text, passing over what stands in string literals.
struct Scanner<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Scanner<'a> {
    fn new(text: &'a str) -> Self {
        Self {
            bytes: text.as_bytes(),
            at: 0,
        }
    }

    /// The next byte that is not part of a string literal, and its place.
    fn next_code(&mut self) -> Option<(usize, u8)> {
        loop {
            let at = self.at;
            let byte = *self.bytes.get(at)?;
            if byte == b'"' || byte == b'\'' {
                self.skip_literal(byte);
                continue;
            }
            self.at += 1;
            return Some((at, byte));
        }
    }

    fn skip_literal(&mut self, quote: u8) {
        let raw = self.at > 0 && matches!(self.bytes[self.at - 1], b'r' | b'R');
        let triple = self.bytes[self.at..].starts_with(&[quote; 3]);
        let width = if triple { 3 } else { 1 };
        self.at += width;
        while self.at < self.bytes.len() {
            let rest = &self.bytes[self.at..];
            if rest[0] == b'\\' && !raw {
                self.at += 2;
            } else if rest.starts_with(&[quote; 3][..width]) {
                self.at += width;
                return;
            } else {
                self.at += 1;
            }
        }
        self.at = self.bytes.len();
    }
}
