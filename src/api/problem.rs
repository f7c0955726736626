//! Errors as RFC 9457 has them: one type for every refusal of the API, and what each error of the
//! rooms below becomes.

use axum::http::{HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};

use crate::engine::{IgnoredReply, Refusal};
use crate::runtime::SubmitError;
use crate::runtime::definitions::RegistryError;

/// The beginning of every `type`; what follows names the problem for programs.
const TYPE_PREFIX: &str = "urn:partita:problem:";

/// One problem, before it knows the request it answers (`instance`).
#[derive(Clone, Debug)]
pub struct Problem {
    pub status: StatusCode,
    /// The last part of `type`.
    pub kind: &'static str,
    /// The same for every problem of this kind.
    pub title: &'static str,
    /// What went wrong this time, and what would be right.
    pub detail: String,
    /// Seconds after which it makes sense to try again.
    pub retry_after: Option<u32>,
    /// The methods that the target takes, for 405.
    pub allow: Option<&'static str>,
    /// Further members, such as `violations`.
    pub members: Map<String, Value>,
}

impl Problem {
    pub fn new(
        status: StatusCode,
        kind: &'static str,
        title: &'static str,
        detail: impl Into<String>,
    ) -> Self {
        Self {
            status,
            kind,
            title,
            detail: detail.into(),
            retry_after: None,
            allow: None,
            members: Map::new(),
        }
    }

    /// 400: the request itself is malformed.
    pub fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(
            StatusCode::BAD_REQUEST,
            "bad-request",
            "The request is malformed",
            detail,
        )
    }

    /// 404 for a thing that is not there.
    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "not-found",
            "There is no such thing",
            detail,
        )
    }

    /// 413 for a payload over `max_payload_bytes`, a body over the body limit, or a record or definition
    /// that Kafka would not take.
    pub fn too_large(detail: impl Into<String>) -> Self {
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "payload-too-large",
            "The payload is too large",
            detail,
        )
    }

    /// 405: the target takes only the methods in `allow` (`None`: the router names them).
    pub fn wrong_method(allow: Option<&'static str>, detail: impl Into<String>) -> Self {
        let title = "The target has no such method";
        Self {
            allow,
            ..Self::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "method-not-allowed",
                title,
                detail,
            )
        }
    }

    /// 408: a request that began and did not come to its end in time.
    pub fn too_slow(detail: impl Into<String>) -> Self {
        Self::new(
            StatusCode::REQUEST_TIMEOUT,
            "request-timeout",
            "The request did not come in time",
            detail,
        )
    }

    /// 503: not now, but soon.
    pub fn unavailable(detail: impl Into<String>) -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "unavailable",
            "The service cannot answer just now",
            detail,
        )
        .retry_after(1)
    }

    /// 503 of an instance that cannot do its work yet: why, each reason by itself.
    pub fn not_ready(reasons: Vec<String>) -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "not-ready",
            "The instance is not ready",
            reasons.join("; "),
        )
        .retry_after(1)
        .with(
            "reasons",
            reasons.into_iter().map(Value::from).collect::<Vec<_>>(),
        )
    }

    pub fn retry_after(mut self, seconds: u32) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.members.insert(name.to_owned(), value.into());
        self
    }

    /// The body, once the request's target (path and query) is known.
    pub fn text(&self, target: &str) -> String {
        let mut body = json!({
            "type": format!("{TYPE_PREFIX}{}", self.kind),
            "title": self.title,
            "status": self.status.as_u16(),
            "detail": self.detail,
            "instance": target,
        });
        if let Value::Object(members) = &mut body {
            members.extend(self.members.clone());
        }
        body.to_string()
    }

    /// The response, once the request's target is known.
    pub fn respond(&self, instance: &Uri) -> Response {
        let target = instance
            .path_and_query()
            .map_or("/", |target| target.as_str());
        let mut response = (self.status, self.text(target)).into_response();
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        if let Some(methods) = self.allow {
            headers.insert(header::ALLOW, HeaderValue::from_static(methods));
        }
        response
    }
}

/// Carries the problem out to the layer that knows the request's target.
impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

/// What is to be done where nobody knows whether a request was carried out.
pub const MAYBE_DONE: &str = "the request may still be carried out; to repeat it is safe, for a start and a \
                              signal with the same `id`";

impl From<SubmitError> for Problem {
    fn from(error: SubmitError) -> Self {
        match error {
            SubmitError::Overloaded { what } => Self::new(
                StatusCode::TOO_MANY_REQUESTS,
                "overloaded",
                "Too much is waiting already",
                format!("{what}; try again later"),
            )
            .retry_after(1),
            SubmitError::Timeout(after) => Self::unavailable(format!(
                "no answer within {} s; {MAYBE_DONE}",
                after.as_secs()
            )),
            large @ SubmitError::TooLarge { .. } => Self::too_large(large.to_string()),
            other @ (SubmitError::NotOwner { .. }
            | SubmitError::NotReady { .. }
            | SubmitError::Broker(_)) => Self::unavailable(other.to_string()),
        }
    }
}

/// What a refusal of the engine becomes for a request about run `run`.
pub fn refused(refusal: &Refusal, run: &str) -> Problem {
    let conflict =
        |kind, title, detail: String| Problem::new(StatusCode::CONFLICT, kind, title, detail);
    match refusal {
        Refusal::Conflict { status } => conflict(
            "run-conflict",
            "The id is taken by a different start",
            format!(
                "run `{run}` was started with other content and is {}; choose another id",
                status.name()
            ),
        )
        .with("run_id", run)
        .with("run_status", status.name()),
        Refusal::UnknownWorkflow { workflow, version } => {
            let version = version
                .map(|version| format!("@{version}"))
                .unwrap_or_default();
            Problem::not_found(format!("no workflow `{workflow}{version}` is applied"))
        }
        Refusal::PayloadTooLarge { what, bytes, limit } => payload_too_large(what, *bytes, *limit),
        Refusal::InputInvalid { message } => Problem::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "input-invalid",
            "The input does not match the workflow's schema",
            message.clone(),
        ),
        Refusal::UnknownRun => unknown_run(run),
        Refusal::Status { status } => conflict(
            "run-status",
            "The run's status forbids it",
            format!("run `{run}` is {}", status.name()),
        )
        .with("run_id", run)
        .with("run_status", status.name()),
        Refusal::TaskNotOpen(reason) => task_not_open(*reason),
        Refusal::TooManySignals { limit } => Problem::new(
            StatusCode::TOO_MANY_REQUESTS,
            "too-many-signals",
            "Too many signals wait already",
            format!("{limit} signals wait for a step of run `{run}`, and no more are kept"),
        )
        .retry_after(1)
        .with("run_id", run),
    }
}

pub fn payload_too_large(what: &str, bytes: usize, limit: usize) -> Problem {
    Problem::too_large(format!(
        "the {what} has {bytes} bytes of JSON; at most {limit} are allowed"
    ))
}

pub fn unknown_run(run: &str) -> Problem {
    Problem::not_found(format!("there is no run `{run}`"))
}

fn task_not_open(reason: IgnoredReply) -> Problem {
    let never_was = match reason {
        IgnoredReply::Future | IgnoredReply::NotScheduled => {
            Some("this attempt has not been handed out")
        }
        IgnoredReply::UnknownStep => Some("the run has no such step"),
        IgnoredReply::WrongTaskId => Some("the step has no such task"),
        IgnoredReply::StaleAttempt
        | IgnoredReply::StaleEpoch
        | IgnoredReply::RunEnded
        | IgnoredReply::Duplicate => None,
    };
    if let Some(detail) = never_was {
        return Problem::not_found(detail);
    }
    let detail = match reason {
        IgnoredReply::StaleAttempt => "a later attempt of the step is under way",
        IgnoredReply::StaleEpoch => "the run was rolled back since",
        IgnoredReply::RunEnded => "the run has ended",
        _ => "the task was answered before",
    };
    Problem::new(
        StatusCode::CONFLICT,
        "task-not-open",
        "The task is not open any more",
        detail,
    )
    .with("reason", reason.reason())
}

impl From<RegistryError> for Problem {
    fn from(error: RegistryError) -> Self {
        let detail = error.to_string();
        match error {
            RegistryError::Invalid(violations) => Problem::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "definition-invalid",
                "The definition is invalid",
                detail,
            )
            .with(
                "violations",
                serde_json::to_value(&violations).unwrap_or_default(),
            ),
            RegistryError::Conflict { .. } => Problem::new(
                StatusCode::CONFLICT,
                "definition-conflict",
                "This version is applied with other content",
                detail,
            ),
            RegistryError::Collision { .. } => Problem::new(
                StatusCode::CONFLICT,
                "agent-conflict",
                "Two agents cannot both have a topic",
                detail,
            ),
            RegistryError::TooLarge { .. } => Self::too_large(detail),
            RegistryError::Topic { .. } | RegistryError::Write { .. } | RegistryError::Read(_) => {
                Problem::unavailable(detail)
            }
        }
    }
}
