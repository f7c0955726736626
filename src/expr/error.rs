//! What is wrong with an expression, for the person who wrote it.

/// Why an expression does not compile, or has no value. Its class is `expression_error`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}{}", in_expression(expression))]
pub struct ExprError {
    /// What is wrong and what would be right; at most [`ExprError::MAX_MESSAGE`] bytes or so.
    pub message: String,
    /// The expression, without `${` and `}`; shortened where it is long.
    pub expression: String,
    /// Where the fault begins, in bytes from the beginning of the text that was compiled; `None`
    /// where it has no place of its own.
    pub offset: Option<usize>,
    /// The nearest thing that would be right, where there is one.
    pub suggestion: Option<String>,
}

impl ExprError {
    pub const MAX_MESSAGE: usize = 500;
    const MAX_QUOTE: usize = 200;

    pub(super) fn new(message: impl Into<String>, expression: &str) -> Self {
        Self {
            message: shorten(message.into(), Self::MAX_MESSAGE),
            expression: shorten(expression.to_owned(), Self::MAX_QUOTE),
            offset: None,
            suggestion: None,
        }
    }

    pub(super) fn at(mut self, offset: usize) -> Self {
        self.offset = Some(offset);
        self
    }

    pub(super) fn suggest(mut self, suggestion: Option<String>) -> Self {
        self.suggestion = suggestion;
        self
    }

    /// Moves the place of the fault along with the text that it is counted in.
    pub(super) fn shifted(mut self, by: usize) -> Self {
        self.offset = self.offset.map(|offset| offset + by);
        self
    }
}

fn in_expression(expression: &str) -> String {
    if expression.is_empty() {
        return String::new();
    }
    format!(" (in `{expression}`)")
}

/// Cuts `text` to about `limit` bytes, on a character's edge.
fn shorten(mut text: String, limit: usize) -> String {
    if text.len() > limit {
        let mut end = limit;
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        text.push('…');
    }
    text
}

/// The candidate nearest to `name`, if any is near enough to be what was meant.
pub(crate) fn nearest<'a>(
    name: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    let name_length = name.chars().count();
    if name_length > 64 {
        return None;
    }
    candidates
        .into_iter()
        .map(|candidate| (strsim::damerau_levenshtein(name, candidate), candidate))
        .filter(|(distance, candidate)| {
            let length = name_length.max(candidate.chars().count());
            *distance < length && *distance <= 1.max(length / 3)
        })
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}
