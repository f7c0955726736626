//! A JSON value with expressions in its strings, compiled to JSON text with gaps.

use super::expression::Expression;
use super::text::{Part, Text};
use super::{Bindings, ExprError, MAX_RENDERED_BYTES, Names, Path};
use crate::model::Json;

/// A JSON value with expressions in its strings.
#[derive(Clone, Debug)]
pub struct Template {
    pieces: Vec<Piece>,
    /// The value, where no expression is in it.
    constant: Option<Json>,
}

#[derive(Clone, Debug)]
enum Piece {
    /// JSON text as it stands.
    Verbatim(String),
    /// A value of any type.
    Value(Expression),
    /// Text within a JSON string, whose quotes stand in the pieces around it.
    Inside(Expression),
}

impl Template {
    /// Compiles every string of `value`, at any depth; collects all that is wrong.
    pub fn compile(value: &serde_json::Value, names: &Names<'_>) -> Result<Self, Vec<ExprError>> {
        let mut builder = TemplateBuilder::new();
        let mut errors = Vec::new();
        compile_into(value, names, &mut builder, &mut errors);
        if errors.is_empty() {
            Ok(builder.finish())
        } else {
            Err(errors)
        }
    }

    /// A template without expressions.
    pub fn constant(value: Json) -> Self {
        Self {
            pieces: Vec::new(),
            constant: Some(value),
        }
    }

    /// Whether it renders to the same value always.
    pub fn is_constant(&self) -> bool {
        self.constant.is_some()
    }

    /// Whether it is one `${…}` as a whole, so that its value may be of any type.
    pub fn is_expression(&self) -> bool {
        matches!(&self.pieces[..], [Piece::Value(_)])
    }

    /// The value with every expression replaced. Fails where an expression does, or where the
    /// text exceeds [`MAX_RENDERED_BYTES`].
    pub fn render(&self, bindings: &dyn Bindings) -> Result<Json, ExprError> {
        if let Some(constant) = &self.constant {
            return Ok(constant.clone());
        }
        if let [Piece::Value(expression)] = &self.pieces[..] {
            return expression.eval_json(bindings);
        }
        let mut out = String::new();
        for piece in &self.pieces {
            match piece {
                Piece::Verbatim(text) => out.push_str(text),
                Piece::Value(expression) => expression.write_json(bindings, &mut out)?,
                Piece::Inside(expression) => expression.write_inside(bindings, &mut out)?,
            }
            if out.len() > MAX_RENDERED_BYTES {
                let message = format!("the rendered value exceeds {MAX_RENDERED_BYTES} bytes");
                return Err(ExprError::new(message, "the template as a whole"));
            }
        }
        Json::from_text(&out).map_err(|error| {
            ExprError::new(format!("the rendered value is no JSON: {error}"), &out)
        })
    }

    /// The paths that its expressions follow.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        self.pieces.iter().flat_map(|piece| match piece {
            Piece::Verbatim(_) => &[][..],
            Piece::Value(expression) | Piece::Inside(expression) => expression.paths(),
        })
    }
}

fn compile_into(
    value: &serde_json::Value,
    names: &Names<'_>,
    builder: &mut TemplateBuilder,
    errors: &mut Vec<ExprError>,
) {
    match value {
        serde_json::Value::String(text) => match Text::compile(text, names) {
            Ok(text) => builder.text(text),
            Err(error) => errors.push(error),
        },
        serde_json::Value::Array(items) => {
            builder.begin_list();
            for item in items {
                compile_into(item, names, builder, errors);
            }
            builder.end_list();
        }
        serde_json::Value::Object(members) => {
            builder.begin_object();
            for (key, member) in members {
                builder.key(key);
                compile_into(member, names, builder, errors);
            }
            builder.end_object();
        }
        scalar => builder.scalar(&scalar.to_string()),
    }
}

/// Builds a template value by value, for a caller that has a tree of its own. The calls must nest
/// as JSON does.
#[derive(Debug, Default)]
pub struct TemplateBuilder {
    pieces: Vec<Piece>,
    needs_comma: bool,
}

impl TemplateBuilder {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn begin_object(&mut self) {
        self.open("{");
    }

    pub fn end_object(&mut self) {
        self.close("}");
    }

    pub fn begin_list(&mut self) {
        self.open("[");
    }

    pub fn end_list(&mut self) {
        self.close("]");
    }

    /// The name of the member that follows; expressions are not read in it.
    pub fn key(&mut self, key: &str) {
        self.comma();
        self.push(&quoted(key));
        self.push(":");
        self.needs_comma = false;
    }

    /// A number, a boolean or null, as JSON text.
    pub fn scalar(&mut self, json: &str) {
        self.comma();
        self.push(json);
        self.needs_comma = true;
    }

    /// A string.
    pub fn text(&mut self, text: Text) {
        self.comma();
        self.needs_comma = true;
        let whole = text.is_whole();
        if !whole {
            self.push("\"");
        }
        for part in text.parts {
            match part {
                Part::Literal(literal) => {
                    let quoted = quoted(&literal);
                    self.push(&quoted[1..quoted.len() - 1]);
                }
                Part::Expression(expression) if whole => self.pieces.push(Piece::Value(expression)),
                Part::Expression(expression) => self.pieces.push(Piece::Inside(expression)),
            }
        }
        if !whole {
            self.push("\"");
        }
    }

    pub fn finish(self) -> Template {
        match &self.pieces[..] {
            [Piece::Verbatim(text)] => {
                Template::constant(Json::from_text(text).expect("a builder writes JSON"))
            }
            _ => Template {
                pieces: self.pieces,
                constant: None,
            },
        }
    }

    fn open(&mut self, bracket: &str) {
        self.comma();
        self.push(bracket);
        self.needs_comma = false;
    }

    fn close(&mut self, bracket: &str) {
        self.push(bracket);
        self.needs_comma = true;
    }

    fn comma(&mut self) {
        if self.needs_comma {
            self.push(",");
        }
    }

    fn push(&mut self, text: &str) {
        if let Some(Piece::Verbatim(last)) = self.pieces.last_mut() {
            last.push_str(text);
        } else {
            self.pieces.push(Piece::Verbatim(text.to_owned()));
        }
    }
}

/// As a JSON string.
pub(super) fn quoted(text: &str) -> String {
    serde_json::to_string(text).expect("a string is JSON")
}
