//! Definitions: from the text that a person wrote to a checked, compiled [`Workflow`], or to all
//! that is wrong with it, each fault with its line, its column and what would be right.
//!
//! In the order in which data passes: `document` reads a workflow from a tree of the room of the
//! same name, by `step`, `awaiting`, `awaiting_pattern`, `retry` and `expressions` (templates and conditions); `graph`
//! links the steps and refuses circles and reads of what has not ended.

mod awaiting;
mod awaiting_pattern;
mod document;
mod expressions;
mod graph;
mod retry;
mod step;

#[cfg(test)]
mod tests;

use std::sync::Arc;

pub use crate::document::{MAX_FILE_BYTES, MAX_NAME_LENGTH, Violation, Violations};

use super::program::{RetryPolicy, Workflow};
use crate::document::node::Node;
use crate::document::violation::Report;
use crate::model::Json;

/// One definition that passed all checks.
#[derive(Clone, Debug)]
pub struct Definition {
    pub name: Arc<str>,
    /// From 1.
    pub version: u32,
    /// The canonical form: aliases resolved, members sorted. [`parse`] reads it back to the same
    /// workflow, and two definitions say the same exactly where these texts are equal.
    pub source: Json,
    pub workflow: Arc<Workflow>,
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

/// Reads one document of a file. `None`: it is no workflow; why is in the report.
pub(crate) fn read(
    node: &Node,
    defaults: &Defaults,
    report: &mut Report<'_>,
) -> Option<Definition> {
    document::read(node, defaults, report)
}

/// Reads the workflows of a file, one or many (`---` between them), YAML or JSON. `file` is its
/// name for messages. Empty documents are passed over; a file without any definition is a fault,
/// and so is a definition of another kind.
pub fn parse(
    text: &str,
    file: Option<&str>,
    defaults: &Defaults,
) -> Result<Vec<Definition>, Violations> {
    let (documents, mut report) = crate::document::read(text, file);
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
