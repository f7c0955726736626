//! A dead letter as every stage sends it: the record as it came, the reason in headers.

use crate::codec::output::dead_letter_headers;
use crate::log::{LogError, Outgoing, Record, Target, Topics};
use crate::model::{Failure, Origin};

/// Hands the record of a dead letter to `send`. `stage` is where the record failed, `notes` what else is
/// to be said of it, such as `("run", id)`: what it is about.
pub(super) fn dead_letter(
    origin: &Origin,
    failure: &Failure,
    stage: &str,
    notes: &[(&str, &str)],
    send: impl FnOnce(Outgoing<'_>) -> Result<(), LogError>,
) -> Result<(), LogError> {
    let headers = dead_letter_headers(origin, failure, stage, notes);
    let headers: Vec<(&str, &[u8])> = headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_slice()))
        .collect();
    send(Outgoing {
        target: Target::DeadLetter,
        key: origin.key.as_deref(),
        value: origin.value.as_deref(),
        headers: &headers,
    })
}

/// The record as a dead letter needs it.
pub(super) fn origin(topics: &Topics, record: &Record) -> Origin {
    Origin {
        topic: topics.of(record.source).to_owned(),
        partition: record.partition,
        offset: record.offset,
        key: record.key.clone(),
        value: record.value.clone(),
        headers: record.headers.clone(),
    }
}
