//! Bytes to words and back.
//!
//! [`input`] reads what comes in on `commands` and `replies`, JSON or Avro (`avro_input`); [`output`] writes tasks, lifecycle
//! events and dead letters; [`rule_event`] what is told of rules; [`state`] is the entry of a run in the changelog, written once for
//! each transition and therefore by hand on top of [`avro`], Avro's binary primitives ([`awaiting`]: what
//! its steps wait for, without reading the rest);
//! [`parked`] is the entry of a reply that waits for its run; [`keys`] names entries. [`event`] reads
//! the records of users' event topics, and [`signal`] is what the intake makes of them for patterns.

pub mod avro;
mod avro_input;
pub mod awaiting;
pub mod event;
pub mod input;
pub mod keys;
pub mod output;
pub mod parked;
pub mod pattern_state;
mod provenance;
pub mod rule_event;
pub mod signal;
pub mod state;
#[cfg(test)]
mod state_tests;

/// Names of headers, as agents and producers see them.
pub mod header {
    pub const CONTENT_TYPE: &str = "content-type";
    pub const TRACEPARENT: &str = "traceparent";
    pub const REPLY_TOPIC: &str = "partita-reply-topic";
    pub const REPLY_PARTITION: &str = "partita-reply-partition";
    /// Who waits for the answer: `<instance>/<number>`. Only instances write it.
    pub const REQUEST: &str = "partita-request";
    pub const ERROR_PREFIX: &str = "partita-error-";
}

/// Why bytes are no entry or record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CodecError {
    #[error("the entry ends too early, at byte {at}")]
    TooShort { at: usize },
    #[error("{what} at byte {at}")]
    Malformed { what: &'static str, at: usize },
    #[error("the entry is of version {found}; this program knows versions up to {known}")]
    TooNew { found: u8, known: u8 },
    #[error("the entry refers to value {slot}, which is not there")]
    MissingValue { slot: u32 },
}
