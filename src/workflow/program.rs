//! A workflow as the machine runs it: checked, compiled, immutable. `definition` makes it from
//! YAML or JSON; `transition` runs it. Steps are named by their place in [`Workflow::steps`].

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use crate::expr::{Condition, Template};
use crate::model::{Millis, SignalName};

/// A step's place in [`Workflow::steps`].
pub type StepIndex = usize;

/// One version of a workflow.
#[derive(Debug)]
pub struct Workflow {
    pub name: Arc<str>,
    pub version: u32,
    pub description: Option<String>,
    /// Bounds the whole run, from its start.
    pub timeout: Option<Millis>,
    /// In the order of the definition; dependencies point anywhere but never in a circle.
    pub steps: Vec<Step>,
    pub by_id: HashMap<Arc<str>, StepIndex>,
    /// The run's output; absent: null.
    pub output: Option<Template>,
    /// JSON Schema of the input, where the definition has one (`input_schema`), checked at the start.
    pub input_schema: Option<InputSchema>,
}

impl Workflow {
    /// The agents that its steps name, by name.
    pub fn agents(&self) -> BTreeSet<&str> {
        let agents = self.steps.iter().filter_map(|step| match &step.kind {
            StepKind::Agent { agent, .. } => Some(agent.as_ref()),
            StepKind::Switch { .. } | StepKind::Await { .. } | StepKind::AwaitPattern { .. } => {
                None
            }
        });
        agents.collect()
    }
}

/// A compiled JSON Schema for inputs.
#[derive(Debug)]
pub struct InputSchema(pub jsonschema::Validator);

/// One step.
#[derive(Debug)]
pub struct Step {
    pub id: Arc<str>,
    pub kind: StepKind,
    pub depends_on: Vec<StepIndex>,
    /// The inverse of `depends_on`.
    pub dependants: Vec<StepIndex>,
    /// The switch steps that name this one in a branch, with the branch's place: it runs only
    /// where each of those that completed chose a branch that names it, and one did. Those switches are
    /// in `depends_on` as well.
    pub guarded_by: Vec<(StepIndex, usize)>,
    pub when: Option<Condition>,
    /// Already merged: step over workflow over configured default, key by key.
    pub retry: RetryPolicy,
    /// Bounds one attempt, from its dispatch.
    pub timeout: Option<Millis>,
    /// Bounds the silence of an agent within an attempt.
    pub heartbeat_timeout: Option<Millis>,
    pub on_error: OnError,
}

/// What a step does.
#[derive(Debug)]
pub enum StepKind {
    /// One task for an agent.
    Agent {
        agent: Arc<str>,
        /// Rendered at each dispatch; an object.
        task: Template,
        inputs: Template,
    },
    /// Takes the first branch whose condition holds, else `default`. Its output is
    /// `{"branch": <name or place of the branch taken>}`, `{"branch": "default"}` where no case
    /// holds; steps that only branches not taken name are skipped. In `guarded_by` the place of
    /// the default is `cases.len()`.
    Switch {
        cases: Vec<Case>,
        default: Vec<StepIndex>,
    },
    /// Waits for a signal. Its output is the signal's data.
    Await {
        signal: SignalName,
        /// Over the signal (`signal.name`, `signal.data`, `signal.id`) beside all else: the step
        /// takes no other.
        condition: Option<Condition>,
    },
    /// Waits for a pattern of events, which a rule describes that the step implies
    /// ([`awaited_rule`](crate::model::signal::awaited_rule); its version is the workflow's). Its
    /// output is an object of `matches`, `key` and `at`.
    AwaitPattern {
        /// What the events must have in the fields that the rule correlates by, in its order.
        key: Vec<Template>,
    },
}

/// One branch of a switch.
#[derive(Debug)]
pub struct Case {
    pub name: Option<String>,
    pub when: Condition,
    pub then: Vec<StepIndex>,
}

/// How failed attempts are tried again.
#[derive(Clone, Debug, PartialEq)]
pub struct RetryPolicy {
    /// Including the first; at least 1.
    pub max_attempts: u32,
    pub backoff: Backoff,
    /// Classes that are tried again; `None`: all but `expression_error` and `payload_too_large`.
    pub retry_on: Option<Vec<String>>,
}

/// Waits between attempts: `initial · multiplier^(n−1)`, at most `max`, lengthened by up to 20 %
/// of deterministic jitter.
#[derive(Clone, Debug, PartialEq)]
pub struct Backoff {
    pub initial: Millis,
    /// At least 1.
    pub multiplier: f64,
    /// At least `initial`.
    pub max: Millis,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        let backoff = Backoff {
            initial: Millis(1_000),
            multiplier: 2.0,
            max: Millis(60_000),
        };
        Self {
            max_attempts: 3,
            backoff,
            retry_on: None,
        }
    }
}

/// What to do with a failure, by class.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct OnError {
    pub by_class: BTreeMap<String, Action>,
    /// For the classes not named.
    pub default: Option<Action>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Up to `max_attempts`, whatever `retry_on` says.
    Retry,
    /// The step counts as skipped; its dependants run.
    Skip,
    /// The step fails at once, and the run with it.
    Fail,
}

impl OnError {
    /// Whether any class is retried by it.
    pub fn retries(&self) -> bool {
        let mut actions = self.by_class.values().chain(&self.default);
        actions.any(|action| *action == Action::Retry)
    }

    pub fn action(&self, class: &str) -> Option<Action> {
        self.by_class.get(class).copied().or(self.default)
    }
}
