//! What to do about an error of librdkafka.

use rdkafka::error::{KafkaError, RDKafkaError, RDKafkaErrorCode};

use crate::log::{ErrorClass, LogError};

/// An error outside a transaction's calls: the brokers are away, metadata is missing.
pub(super) fn retriable(doing: &'static str, error: impl ToString) -> LogError {
    LogError {
        class: ErrorClass::Retriable,
        doing,
        reason: error.to_string(),
    }
}

pub(super) fn fatal(doing: &'static str, error: impl ToString) -> LogError {
    LogError {
        class: ErrorClass::Fatal,
        doing,
        reason: error.to_string(),
    }
}

/// A consumer that is in its group no more, and never will be.
pub(super) fn of_membership(code: RDKafkaErrorCode) -> LogError {
    if code != RDKafkaErrorCode::FencedInstanceId {
        return fatal("consuming", code);
    }
    LogError {
        class: ErrorClass::Replaced,
        doing: "consuming",
        reason: "another process runs under the name of this instance (`group.instance.id`) and took its \
                 place: give one of the two another name, and restart this one"
            .to_owned(),
    }
}

pub(super) fn abortable(doing: &'static str, error: impl ToString) -> LogError {
    LogError {
        class: ErrorClass::Abortable,
        doing,
        reason: error.to_string(),
    }
}

/// The transactional error inside, where there is one.
pub(super) fn transactional(error: &KafkaError) -> Option<&RDKafkaError> {
    match error {
        KafkaError::Transaction(inner) => Some(inner),
        _ => None,
    }
}

/// Class of a failed transactional call. What librdkafka calls neither retriable nor abortable
/// is fatal: better a new session than a guess.
pub(super) fn of_transaction(doing: &'static str, error: &KafkaError) -> LogError {
    let class = match transactional(error) {
        Some(inner) if inner.is_fatal() => ErrorClass::Fatal,
        Some(inner) if inner.txn_requires_abort() => ErrorClass::Abortable,
        Some(inner) if inner.is_retriable() => ErrorClass::Retriable,
        _ => ErrorClass::Fatal,
    };
    LogError {
        class,
        doing,
        reason: describe(error),
    }
}

/// Class of a record that was not delivered: the transaction is lost; the session only where
/// librdkafka says so at the next call.
pub(super) fn of_delivery(error: &KafkaError) -> LogError {
    abortable("awaiting a delivery", describe(error))
}

/// Whether the code says that we were fenced or that the producer's state is broken.
pub(super) fn is_fatal_code(code: RDKafkaErrorCode) -> bool {
    matches!(code, RDKafkaErrorCode::Fatal | RDKafkaErrorCode::Fenced)
}

/// Why a connection failed, where a line of librdkafka's log tells that. The errors of its calls say
/// only that it did.
pub(crate) fn failed_connection<'l>(facility: &str, line: &'l str) -> Option<&'l str> {
    if facility != "FAIL" {
        return None;
    }
    // It begins with the name of the thread, which helps nobody.
    let unnamed = line
        .strip_prefix("[thrd:")
        .and_then(|rest| Some(rest.split_once("]: ")?.1));
    Some(unnamed.unwrap_or(line))
}

fn describe(error: &KafkaError) -> String {
    match transactional(error) {
        Some(inner) => format!("{inner}"),
        None => error.to_string(),
    }
}
