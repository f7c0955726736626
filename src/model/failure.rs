//! An error as the machine knows it: a class that rules of retry and handling go by, and a message
//! for people.

use serde::{Deserialize, Serialize};

use super::Json;

/// Classes that Partita itself raises or gives a meaning to. Agents may name others.
pub mod class {
    pub const TIMEOUT: &str = "timeout";
    pub const CONNECTION_ERROR: &str = "connection_error";
    pub const AGENT_UNAVAILABLE: &str = "agent_unavailable";
    pub const VALIDATION_ERROR: &str = "validation_error";
    pub const CRITICAL_ERROR: &str = "critical_error";
    pub const PAYLOAD_TOO_LARGE: &str = "payload_too_large";
    pub const EXPRESSION_ERROR: &str = "expression_error";
    pub const CANCELLED: &str = "cancelled";
    /// Where an agent gave no class.
    pub const ERROR: &str = "error";
}

/// `{"class","message","retryable","details"}` of a reply and of a step; `step` only at the run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Failure {
    #[serde(default = "default_class")]
    pub class: String,
    #[serde(default)]
    pub message: String,
    /// `false` ends the retries of the step; `true` and absence change nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retryable: Option<bool>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<Json>,
    /// In a run's error: the step that failed it, where one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
}

fn default_class() -> String {
    class::ERROR.to_owned()
}

impl Failure {
    pub fn new(class: &str, message: impl Into<String>) -> Self {
        Self {
            class: class.to_owned(),
            message: message.into(),
            retryable: None,
            details: None,
            step: None,
        }
    }

    pub fn at_step(mut self, step: &str) -> Self {
        self.step = Some(step.to_owned());
        self
    }
}
