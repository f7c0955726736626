//! The workflows that a bench runs.

use clap::ValueEnum;
use serde_json::{Value, json};

/// The agent whose tasks the bench answers.
pub const AGENT: &str = "bench";
/// An agent that does not exist: runs wait for it.
pub const NOBODY: &str = "bench_nobody";

/// How the steps of a run depend on one another.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Shape {
    /// One after the other.
    #[default]
    Linear,
    /// The first, then all but one side by side, then the last.
    Fan,
    /// All side by side.
    Parallel,
}

impl Shape {
    pub fn name(self) -> &'static str {
        match self {
            Shape::Linear => "linear",
            Shape::Fan => "fan",
            Shape::Parallel => "parallel",
        }
    }

    /// The places that step `place` of `steps` depends on.
    fn dependencies(self, place: usize, steps: usize) -> Vec<usize> {
        match self {
            Shape::Linear => place.checked_sub(1).into_iter().collect(),
            Shape::Parallel => Vec::new(),
            Shape::Fan if place == 0 => Vec::new(),
            Shape::Fan if place + 1 < steps || steps == 2 => vec![0],
            Shape::Fan => (1..place).collect(),
        }
    }

    /// The definition; each step takes what the steps before it gave.
    pub fn definition(self, steps: usize) -> Value {
        let step = |place: usize| {
            let before = self.dependencies(place, steps);
            let inputs: serde_json::Map<String, Value> = if before.is_empty() {
                [("value".to_owned(), "${input.value}".into())]
                    .into_iter()
                    .collect()
            } else {
                before
                    .iter()
                    .map(|from| {
                        (
                            format!("s{from}"),
                            format!("${{steps.s{from}.output}}").into(),
                        )
                    })
                    .collect()
            };
            json!({
                "id": format!("s{place}"),
                "agent": AGENT,
                "depends_on": before.iter().map(|from| format!("s{from}")).collect::<Vec<_>>(),
                "task": {"action": "analyze"},
                "inputs": inputs,
            })
        };
        json!({
            "kind": "workflow",
            "name": format!("bench_{}_{steps}", self.name()),
            "version": 1,
            "timeout": "1h",
            "steps": (0..steps).map(step).collect::<Vec<_>>(),
        })
    }
}

/// A run of this waits for ever at the first of its steps.
pub fn waiting_definition(steps: usize) -> Value {
    let mut definition = Shape::Linear.definition(steps);
    definition["name"] = "bench_waiting".into();
    definition["steps"][0]["agent"] = NOBODY.into();
    definition
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workflow::definition::{Defaults, parse};

    #[test]
    fn every_shape_is_a_valid_definition() {
        for shape in [Shape::Linear, Shape::Fan, Shape::Parallel] {
            for steps in [1, 2, 5] {
                let text = shape.definition(steps).to_string();
                let parsed = parse(&text, None, &Defaults::default())
                    .unwrap_or_else(|e| panic!("{shape:?} {steps}: {e}"));
                assert_eq!(parsed[0].workflow.steps.len(), steps);
            }
        }
        parse(
            &waiting_definition(5).to_string(),
            None,
            &Defaults::default(),
        )
        .unwrap();
    }

    #[test]
    fn a_fan_opens_and_closes() {
        let of = |place| Shape::Fan.dependencies(place, 5);
        assert_eq!(
            [of(0), of(1), of(3), of(4)],
            [vec![], vec![0], vec![0], vec![1, 2, 3]]
        );
    }
}
