//! Definitions: from the text that a person wrote to a checked, compiled [`Workflow`], or to all
//! that is wrong with it, each fault with its line, its column and what would be right.
//!
//! In the order in which data passes: `yaml` reads YAML or JSON into trees of `node`s that know
//! their places; `document` reads a workflow from a tree, by `fields` (known keys, aliases,
//! types), `step`, `retry`, `duration` and `expressions` (templates and conditions); `graph` links
//! the steps and refuses circles and reads of what has not ended; `canonical` writes the one JSON
//! form that is stored and compared; `violation` collects what is wrong on the way.

mod canonical;
mod document;
pub mod duration;
mod expressions;
mod fields;
mod graph;
mod node;
mod retry;
mod step;
mod violation;
mod yaml;

#[cfg(test)]
mod tests;

use std::sync::Arc;

pub use violation::{Violation, Violations};

use super::program::{RetryPolicy, Workflow};
use crate::model::Json;
use violation::Report;

/// Longest file of definitions, in bytes.
pub const MAX_FILE_BYTES: usize = 1024 * 1024;

/// Longest name of a workflow, a step or an agent, in bytes.
pub const MAX_NAME_LENGTH: usize = 200;

/// One definition that passed all checks.
#[derive(Clone, Debug)]
pub struct Definition {
    pub kind: Kind,
    pub name: Arc<str>,
    /// From 1.
    pub version: u32,
    /// The canonical form: aliases resolved, members sorted. [`parse`] reads it back to the same
    /// workflow, and two definitions say the same exactly where these texts are equal.
    pub source: Json,
    pub workflow: Arc<Workflow>,
}

/// What a definition defines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    Workflow,
}

impl Kind {
    /// As it stands in `kind:`.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Workflow => "workflow",
        }
    }
}

/// What holds where a definition says nothing, and how large one may be; from configuration.
#[derive(Clone, Debug)]
pub struct Defaults {
    pub retry: RetryPolicy,
    /// Steps of one workflow.
    pub max_steps: usize,
}

impl Default for Defaults {
    fn default() -> Self {
        Self {
            retry: RetryPolicy::default(),
            max_steps: 1_000,
        }
    }
}

/// Reads the definitions of a file, one or many (`---` between them), YAML or JSON. `file` is its
/// name for messages. Empty documents are passed over; a file without any definition is a fault.
pub fn parse(
    text: &str,
    file: Option<&str>,
    defaults: &Defaults,
) -> Result<Vec<Definition>, Violations> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut report = Report::new(text, file);
    let start = node::Position { line: 1, column: 1 };
    if text.len() > MAX_FILE_BYTES {
        report.add(
            start,
            "",
            format!(
                "the file has {} bytes; {MAX_FILE_BYTES} are allowed",
                text.len()
            ),
        );
        return report.finish(Vec::new());
    }
    let documents = yaml::read(text, &mut report);
    if documents.is_empty() && report.count() == 0 {
        report.add(start, "", "there is no definition in this file");
    }
    let mut definitions: Vec<Definition> = Vec::new();
    for node in &documents {
        let Some(definition) = document::read(node, defaults, &mut report) else {
            continue;
        };
        let is_same = |other: &Definition| {
            (&other.name, other.version) == (&definition.name, definition.version)
        };
        if definitions.iter().any(is_same) {
            let (name, version) = (&definition.name, definition.version);
            let message = format!("`{name}` version {version} is already defined in this file");
            let remedy = "give it another version or name".to_owned();
            report.add_with(node.at, "", message, Some(remedy));
        }
        definitions.push(definition);
    }
    report.finish(definitions)
}
