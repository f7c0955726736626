//! A table that says which workflow a match starts: columns, rows of tests, and the first row that
//! fits.

use std::sync::Arc;

use super::event::Scalar;
use crate::expr::Template;

/// What a match starts.
#[derive(Clone, Debug)]
pub enum Destination {
    Workflow(Workflow),
    Route(Route),
}

/// A workflow by its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workflow {
    pub name: Arc<str>,
    /// `None`: the highest that is applied when the run starts.
    pub version: Option<u32>,
}

/// See the module.
#[derive(Clone, Debug)]
pub struct Route {
    /// Names as written, and what each is of a match. One without a value fits only the rows that
    /// ask nothing of it.
    pub columns: Vec<(Arc<str>, Template)>,
    pub rows: Vec<Row>,
    /// Of matches that no row fits; `None`: they start nothing.
    pub otherwise: Option<Choice>,
}

/// One row: a test for each column that it asks anything of.
#[derive(Clone, Debug)]
pub struct Row {
    /// Places in [`Route::columns`] with what may stand there: one of these is enough.
    pub cells: Vec<(u16, Vec<Test>)>,
    pub choice: Choice,
}

/// What a row leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    pub workflow: Workflow,
    /// In place of the start's.
    pub priority: Option<i32>,
}

/// What a value has to be.
#[derive(Clone, Debug, PartialEq)]
pub enum Test {
    Is(Scalar),
    /// Text that begins with this.
    Prefix(Arc<str>),
    Number(Bound, f64),
}

/// How a number stands to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    Below,
    AtMost,
    Above,
    AtLeast,
}

impl Route {
    /// What the first row leads to that fits the values of the columns.
    pub fn choose(&self, values: &[Scalar]) -> Option<&Choice> {
        let fits = |row: &&Row| {
            let mut cells = row.cells.iter();
            cells.all(|(column, tests)| {
                let value = &values[usize::from(*column)];
                tests.iter().any(|test| test.holds(value))
            })
        };
        let row = self.rows.iter().find(fits).map(|row| &row.choice);
        row.or(self.otherwise.as_ref())
    }

    /// All that it may lead to.
    pub fn choices(&self) -> impl Iterator<Item = &Choice> {
        let rows = self.rows.iter().map(|row| &row.choice);
        rows.chain(&self.otherwise)
    }
}

impl Row {
    /// Whether every match that fits `other` fits this one too.
    pub fn covers(&self, other: &Row) -> bool {
        self.cells.iter().all(|(column, tests)| {
            let of_other = other.cells.iter().find(|(other, _)| other == column);
            of_other.is_some_and(|(_, narrower)| {
                let covered = |test: &Test| tests.iter().any(|wider| wider.covers(test));
                narrower.iter().all(covered)
            })
        })
    }
}

impl Test {
    fn holds(&self, value: &Scalar) -> bool {
        match (self, value) {
            (Test::Is(Scalar::Null), Scalar::Missing) => false,
            (Test::Is(expected), value) => expected == value,
            (Test::Prefix(prefix), Scalar::Text(text)) => text.starts_with(&**prefix),
            (Test::Number(bound, edge), value) => number(value).is_some_and(|value| match bound {
                Bound::Below => value < *edge,
                Bound::AtMost => value <= *edge,
                Bound::Above => value > *edge,
                Bound::AtLeast => value >= *edge,
            }),
            (Test::Prefix(_), _) => false,
        }
    }

    /// Whether it holds wherever `other` does.
    fn covers(&self, other: &Test) -> bool {
        match (self, other) {
            (_, Test::Is(value)) => self.holds(value),
            (Test::Prefix(prefix), Test::Prefix(longer)) => longer.starts_with(&**prefix),
            (Test::Number(wide, edge), Test::Number(narrow, inner)) => match (wide, narrow) {
                (Bound::Below, Bound::AtMost) => inner < edge,
                (Bound::Below | Bound::AtMost, Bound::Below | Bound::AtMost) => inner <= edge,
                (Bound::Above, Bound::AtLeast) => inner > edge,
                (Bound::Above | Bound::AtLeast, Bound::Above | Bound::AtLeast) => inner >= edge,
                _ => false,
            },
            _ => false,
        }
    }
}

fn number(value: &Scalar) -> Option<f64> {
    match value {
        Scalar::Int(value) => Some(*value as f64),
        Scalar::Float(value) => Some(*value),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values() -> Vec<Scalar> {
        let text = |text: &str| Scalar::Text(text.into());
        vec![
            Scalar::Missing,
            Scalar::Null,
            Scalar::Bool(true),
            Scalar::Int(0),
            Scalar::Int(1),
            Scalar::Float(0.5),
            Scalar::Float(1.0),
            Scalar::Float(1.5),
            text(""),
            text("a"),
            text("a.b"),
            text("b"),
        ]
    }

    fn tests() -> Vec<Test> {
        let is = values()
            .into_iter()
            .filter(|value| *value != Scalar::Missing);
        let mut tests: Vec<Test> = is.map(Test::Is).collect();
        tests.extend(["a", "a.", "b"].map(|prefix| Test::Prefix(prefix.into())));
        for bound in [Bound::Below, Bound::AtMost, Bound::Above, Bound::AtLeast] {
            tests.extend([0.5, 1.0].map(|edge| Test::Number(bound, edge)));
        }
        tests
    }

    #[test]
    fn what_covers_a_test_holds_wherever_it_holds() {
        let mut covered = 0;
        for wide in tests() {
            for narrow in tests() {
                if !wide.covers(&narrow) {
                    continue;
                }
                covered += 1;
                for value in values() {
                    assert!(
                        wide.holds(&value) || !narrow.holds(&value),
                        "{wide:?} covers {narrow:?}, and not {value:?}"
                    );
                }
            }
        }
        assert!(covered > tests().len(), "more than each itself");
    }

    #[test]
    fn no_test_holds_for_what_is_missing() {
        assert!(tests().iter().all(|test| !test.holds(&Scalar::Missing)));
    }
}
