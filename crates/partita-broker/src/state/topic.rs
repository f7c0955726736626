//! A topic: its name, identity, partitions and what was configured for it.

use std::collections::BTreeMap;
use std::sync::Arc;

use uuid::Uuid;

use super::event::PartitionId;
use super::settings::TopicSettings;

#[derive(Debug, Clone)]
pub(crate) struct Topic {
    pub(crate) name: Arc<str>,
    pub(crate) id: Uuid,
    /// The partitions' numbers in the log, by their index.
    pub(crate) partitions: Vec<PartitionId>,
    /// Only what was set for this topic; everything else has the broker's default.
    pub(crate) configs: BTreeMap<String, String>,
    /// The same, with the defaults, ready for use.
    pub(crate) settings: TopicSettings,
}

/// Why a name cannot be a topic's.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum NameError {
    #[error("a topic name cannot be empty, '.' or '..'")]
    Reserved,
    #[error("a topic name has at most 249 characters; this one has {0}")]
    TooLong(usize),
    #[error(
        "a topic name consists of ASCII letters, digits, '.', '_' and '-'; '{0}' has something else"
    )]
    Character(String),
}

/// Checks a name by the rules that Kafka's clients and tools expect.
pub(crate) fn check_name(name: &str) -> Result<(), NameError> {
    if matches!(name, "" | "." | "..") {
        return Err(NameError::Reserved);
    }
    if name.len() > 249 {
        return Err(NameError::TooLong(name.len()));
    }
    if !name
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
    {
        return Err(NameError::Character(name.to_owned()));
    }
    Ok(())
}
