//! A dead letter as every stage sends it: the record as it came, the reason in headers.

use crate::codec::output::dead_letter_headers;
use crate::log::{LogError, Outgoing, Target};
use crate::model::{Failure, Origin};

/// Hands the record of a dead letter to `send`. `stage` is where the record failed, `about` what it is
/// about, such as `("run", id)`.
pub(super) fn dead_letter(
    origin: &Origin,
    failure: &Failure,
    stage: &str,
    about: Option<(&str, &str)>,
    send: impl FnOnce(Outgoing<'_>) -> Result<(), LogError>,
) -> Result<(), LogError> {
    let headers = dead_letter_headers(origin, failure, stage, about);
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
