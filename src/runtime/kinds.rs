//! Definitions of every kind: what can be applied, and how a file that mixes kinds is read. Each
//! document goes to the room that its `kind` names.

use std::sync::Arc;

use super::{awaited, task_topics};
use crate::document::node::Node;
use crate::document::violation::Report;
use crate::document::{self, Violations};
use crate::model::Json;
use crate::pattern::{Rule, syntax};
use crate::workflow::Workflow;
use crate::workflow::definition::{self, Defaults};

/// What a definition defines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    Workflow,
    Rule,
}

impl Kind {
    /// Every kind, in the order in which definitions of a file are best applied.
    pub const ALL: [Kind; 2] = [Kind::Workflow, Kind::Rule];

    /// As it stands in `kind:`, in URLs and in keys.
    pub fn name(self) -> &'static str {
        match self {
            Kind::Workflow => "workflow",
            Kind::Rule => "rule",
        }
    }

    /// The kind of that name.
    pub fn of(name: &str) -> Option<Kind> {
        Kind::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// One definition that passed all checks.
#[derive(Clone, Debug)]
pub struct Definition {
    pub name: Arc<str>,
    /// From 1.
    pub version: u32,
    /// The canonical form; [`parse`] reads it back to the same definition, and two definitions say
    /// the same exactly where these texts are equal.
    pub source: Json,
    pub program: Program,
    /// The rules that a workflow's steps imply which await patterns, in the order of the steps.
    pub awaited: Vec<Arc<Rule>>,
}

/// What a definition compiles to.
#[derive(Clone, Debug)]
pub enum Program {
    Workflow(Arc<Workflow>),
    Rule(Arc<Rule>),
}

impl Definition {
    pub fn kind(&self) -> Kind {
        match self.program {
            Program::Workflow(_) => Kind::Workflow,
            Program::Rule(_) => Kind::Rule,
        }
    }

    pub fn workflow(&self) -> Option<&Arc<Workflow>> {
        match &self.program {
            Program::Workflow(workflow) => Some(workflow),
            Program::Rule(_) => None,
        }
    }

    pub fn rule(&self) -> Option<&Arc<Rule>> {
        match &self.program {
            Program::Rule(rule) => Some(rule),
            Program::Workflow(_) => None,
        }
    }

    /// Such as `rule market_opportunity@2`.
    pub fn title(&self) -> String {
        format!("{} {}@{}", self.kind().name(), self.name, self.version)
    }
}

impl From<definition::Definition> for Definition {
    fn from(found: definition::Definition) -> Self {
        Self {
            name: found.name,
            version: found.version,
            source: found.source,
            program: Program::Workflow(found.workflow),
            awaited: Vec::new(),
        }
    }
}

impl From<Rule> for Definition {
    fn from(rule: Rule) -> Self {
        Self {
            name: rule.name.clone(),
            version: rule.version,
            source: rule.source.clone(),
            program: Program::Rule(Arc::new(rule)),
            awaited: Vec::new(),
        }
    }
}

/// Reads the definitions of a file, one or many (`---` between them), of any kinds, YAML or JSON.
/// `file` is its name for messages. Empty documents are passed over.
///
/// # Errors
/// All faults of all documents; a file without any definition is one.
pub fn parse(
    text: &str,
    file: Option<&str>,
    defaults: &Defaults,
) -> Result<Vec<Definition>, Violations> {
    read(text, file, defaults, |_, _| {})
}

/// The same for definitions that are to be applied: with what holds of them beside one another.
///
/// # Errors
/// As [`parse`].
pub fn check(
    text: &str,
    file: Option<&str>,
    defaults: &Defaults,
) -> Result<Vec<Definition>, Violations> {
    read(text, file, defaults, task_topics::check)
}

fn read(
    text: &str,
    file: Option<&str>,
    defaults: &Defaults,
    check: impl FnOnce(&[Node], &mut Report<'_>),
) -> Result<Vec<Definition>, Violations> {
    let (documents, mut report) = document::read(text, file);
    check(&documents, &mut report);
    let mut definitions: Vec<Definition> = Vec::new();
    for node in &documents {
        let found: Vec<Definition> = if syntax::is_rule(node) {
            let rules = syntax::read(node, &mut report);
            rules.into_iter().map(Definition::from).collect()
        } else {
            let workflow = definition::read(node, defaults, &mut report);
            let named = workflow.as_ref().map(|found| (&*found.name, found.version));
            let awaited = awaited::read(node, named, &mut report);
            let workflow = workflow.into_iter().map(Definition::from);
            let with_rules = |found| Definition {
                awaited: awaited.clone(),
                ..found
            };
            workflow.map(with_rules).collect()
        };
        for definition in found {
            let identity = |of: &Definition| (of.kind(), of.name.clone(), of.version);
            if definitions
                .iter()
                .any(|other| identity(other) == identity(&definition))
            {
                let (name, version) = (&definition.name, definition.version);
                let message = format!("`{name}` version {version} is already defined in this file");
                let remedy = "give it another version or name".to_owned();
                report.add_with(node.at, "", message, Some(remedy));
            }
            definitions.push(definition);
        }
    }
    report.finish(definitions)
}
