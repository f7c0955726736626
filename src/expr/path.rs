//! A path such as `steps.a.output.items[0]`: where it leads in what a caller binds.

use std::fmt;
use std::ops::Range;

use super::Bindings;
use super::walk::{self, Shape};
use crate::model::Json;

/// One link of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Segment {
    /// `.name` or `["name"]`.
    Name(String),
    /// `[0]`.
    Index(usize),
}

/// Names and indices that an expression follows from one of its roots; never empty, and the first
/// segment is a name.
#[derive(Clone, Debug)]
pub struct Path {
    pub segments: Vec<Segment>,
    /// Where it begins, in bytes of the text that was compiled.
    pub offset: usize,
}

impl Path {
    /// The name at `place`, where there is one.
    pub fn name(&self, place: usize) -> Option<&str> {
        match self.segments.get(place)? {
            Segment::Name(name) => Some(name),
            Segment::Index(_) => None,
        }
    }

    /// Follows the path to its value.
    pub(super) fn resolve(&self, bindings: &dyn Bindings) -> Result<Slice, Unresolved> {
        let mut names = [""; 8];
        let mut known = 0;
        for segment in self.segments.iter().take(names.len()) {
            let Segment::Name(name) = segment else { break };
            names[known] = name;
            known += 1;
        }
        let (json, used) = bindings
            .lookup(&names[..known])
            .ok_or(Unresolved { at: 0, found: None })?;
        let mut slice = Slice::whole(json);
        for (at, segment) in self.segments.iter().enumerate().skip(used) {
            let range = match (segment, walk::shape(slice.text())) {
                (Segment::Name(name), Shape::Object) => walk::member(slice.text(), name),
                (Segment::Index(index), Shape::Array) => walk::element(slice.text(), *index),
                (_, shape) => {
                    return Err(Unresolved {
                        at,
                        found: Some(shape),
                    });
                }
            };
            let range = range.ok_or(Unresolved { at, found: None })?;
            slice.narrow(range);
        }
        Ok(slice)
    }

    /// A sentence for a path that leads nowhere.
    pub(super) fn explain(&self, unresolved: &Unresolved) -> String {
        let before = Prefix(&self.segments[..unresolved.at]);
        match (&self.segments[unresolved.at], unresolved.found) {
            (Segment::Name(name), _) if unresolved.at == 0 => format!("`{name}` has no value here"),
            (Segment::Name(name), None) => format!("`{before}` has no field `{name}`"),
            (Segment::Name(name), Some(shape)) => {
                format!(
                    "`{before}` is {}, so it has no field `{name}`",
                    shape.described()
                )
            }
            (Segment::Index(index), None) => format!("`{before}` has no element {index}"),
            (Segment::Index(index), Some(shape)) => {
                format!(
                    "`{before}` is {}, so it has no element {index}",
                    shape.described()
                )
            }
        }
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Prefix(&self.segments).fmt(f)
    }
}

struct Prefix<'a>(&'a [Segment]);

impl fmt::Display for Prefix<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, segment) in self.0.iter().enumerate() {
            match segment {
                Segment::Name(name) if place == 0 => f.write_str(name)?,
                Segment::Name(name) if is_identifier(name) => write!(f, ".{name}")?,
                Segment::Name(name) => write!(f, "[{name:?}]")?,
                Segment::Index(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}

/// Letters, digits and `_`, not beginning with a digit.
pub(crate) fn is_identifier(name: &str) -> bool {
    let mut bytes = name.bytes();
    bytes
        .next()
        .is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_')
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// Whether a name is a word of expressions: no variable or member can be written so.
pub(crate) fn is_word(name: &str) -> bool {
    matches!(name, "true" | "false" | "null" | "in")
}

/// Where a path stopped: the segment that leads nowhere, and what stood there where it was no
/// container of the right kind.
#[derive(Clone, Copy, Debug)]
pub(super) struct Unresolved {
    at: usize,
    found: Option<Shape>,
}

/// One value inside a JSON text.
#[derive(Clone, Debug)]
pub(super) struct Slice {
    json: Json,
    range: Range<usize>,
}

impl Slice {
    pub(super) fn whole(json: Json) -> Self {
        let range = 0..json.len();
        Self { json, range }
    }

    pub(super) fn text(&self) -> &str {
        &self.json.as_str()[self.range.clone()]
    }

    /// `range` counts from the beginning of this slice.
    pub(super) fn narrow(&mut self, range: Range<usize>) {
        self.range = self.range.start + range.start..self.range.start + range.end;
    }

    /// As a value of its own, without a copy where it is the whole text.
    pub(super) fn into_json(self) -> Json {
        if self.range.len() == self.json.len() {
            return self.json;
        }
        Json::from_text(self.text()).expect("a part of JSON is JSON")
    }
}
