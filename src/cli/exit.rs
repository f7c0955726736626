//! How a verb may end, and with which exit code.

use crate::config::ConfigError;

/// The exit code of wrong usage; clap's own errors end with it too.
pub const USAGE: u8 = 2;

/// Why a verb did not end well. The text is for people and goes to stderr; an empty one means
/// that everything is said already.
#[derive(Debug, thiserror::Error)]
pub enum CliError {
    /// The thing asked about failed: a run, a check.
    #[error("{0}")]
    Failed(String),
    /// Wrong usage, or an invalid definition or configuration.
    #[error("{0}")]
    Usage(String),
    #[error("{0}")]
    Config(#[from] ConfigError),
    /// The broker or the server is not reachable, or asks to come again later.
    #[error("{0}")]
    Unreachable(String),
    /// Not found, or a conflict with what is there.
    #[error("{0}")]
    NotFoundOrConflict(String),
    #[error("interrupted")]
    Interrupted,
}

impl CliError {
    /// The same error, with what it is about before its words.
    pub fn about(self, what: &str) -> Self {
        let named = |text: String| format!("{what}: {text}");
        match self {
            CliError::Failed(text) => CliError::Failed(named(text)),
            CliError::Usage(text) => CliError::Usage(named(text)),
            CliError::Unreachable(text) => CliError::Unreachable(named(text)),
            CliError::NotFoundOrConflict(text) => CliError::NotFoundOrConflict(named(text)),
            other @ (CliError::Config(_) | CliError::Interrupted) => other,
        }
    }

    pub fn code(&self) -> u8 {
        match self {
            CliError::Failed(_) => 1,
            CliError::Usage(_) | CliError::Config(_) => USAGE,
            CliError::Unreachable(_) => 3,
            CliError::NotFoundOrConflict(_) => 4,
            CliError::Interrupted => 130,
        }
    }
}
