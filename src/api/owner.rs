//! Where a request for one run is answered: here, where this instance owns the run's partition,
//! else at the owner, to whom it is passed on. While a partition is between two owners the
//! request waits a little; then it is 503 with `Retry-After`.

use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::{HeaderName, HeaderValue, StatusCode, header};
use axum::response::Response;

use super::Api;
use super::incoming::{FORWARDED, Incoming};
use super::problem::{MAYBE_DONE, Problem};
use crate::model::RunId;
use crate::runtime::SubmitError;
use crate::runtime::membership::Owner;

/// Marks the answer of an instance that does not own (or has not restored) the run's partition.
const NOT_OWNER: &str = "partita-not-owner";
/// Pauses between two looks for the owner: doubled from the first to the last.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LAST_PAUSE: Duration = Duration::from_millis(500);
/// How long the owner may take: longer than any wait that a request may ask for.
const ANSWER_WITHIN: Duration = Duration::from_secs(400);
/// Headers that travel with a request that is passed on.
const PASSED_ON: [&str; 4] = ["accept", "content-type", "traceparent", "last-event-id"];

/// What a local attempt to answer came to.
pub enum Local<T> {
    Done(T),
    /// Ownership moved, or the state is not restored yet: look again.
    Moved,
}

impl<T> Local<Result<T, Problem>> {
    /// Reads an answer of the runtime: only the errors about ownership are looked after here.
    pub fn of(result: Result<T, SubmitError>) -> Self {
        match result {
            Ok(value) => Local::Done(Ok(value)),
            Err(SubmitError::NotOwner { .. } | SubmitError::NotReady { .. }) => Local::Moved,
            Err(other) => Local::Done(Err(other.into())),
        }
    }
}

/// Answers with `local` where this instance owns the run, else passes `request` on.
pub async fn answer<F, Fut>(
    api: &Api,
    run: &RunId,
    request: &Incoming,
    local: F,
) -> Result<Response, Problem>
where
    F: Fn() -> Fut,
    Fut: Future<Output = Local<Result<Response, Problem>>>,
{
    let deadline = Instant::now() + api.settings().owner_patience;
    let mut pause = FIRST_PAUSE;
    loop {
        match api.membership().owner_of(api.runs().partition_of(run)) {
            Owner::Local => {
                if let Local::Done(done) = local().await {
                    return done;
                }
            }
            Owner::Remote(address) if !request.forwarded() => {
                if let Some(response) = pass_on(api, &address, request).await? {
                    return Ok(response);
                }
            }
            Owner::Remote(_) | Owner::Unknown => {}
        }
        // Whoever passed the request on waits there, and knows better where to look next.
        if request.forwarded() || Instant::now() + pause >= deadline || api.closing().is_cancelled()
        {
            return if request.forwarded() {
                Ok(not_owner())
            } else {
                Err(nobody(run))
            };
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LAST_PAUSE);
    }
}

fn nobody(run: &RunId) -> Problem {
    Problem::unavailable(format!(
        "no instance has the state of run `{run}` just now: its partition is moving or being restored"
    ))
}

fn not_owner() -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    response.headers_mut().insert(
        HeaderName::from_static(NOT_OWNER),
        HeaderValue::from_static("1"),
    );
    response
}

/// Sends the request to the owner; `None`: that one is not reached or not the owner (any more),
/// so nothing has happened and another look is due.
async fn pass_on(
    api: &Api,
    address: &str,
    request: &Incoming,
) -> Result<Option<Response>, Problem> {
    let target = request
        .uri
        .path_and_query()
        .map_or("/", |target| target.as_str());
    let mut passed = api
        .0
        .http
        .request(request.method.clone(), format!("{address}{target}"))
        .body(request.body.clone());
    for name in PASSED_ON {
        if let Some(value) = request.headers.get(name) {
            passed = passed.header(name, value.clone());
        }
    }
    if !request.wants_events() {
        passed = passed.timeout(ANSWER_WITHIN);
    }
    let sent = passed.header(FORWARDED, api.membership().instance()).send();
    let answered = tokio::select! {
        answered = sent => answered,
        () = api.closing().cancelled() => return Err(Problem::unavailable("this instance is shutting down")),
    };
    let response = match answered {
        Ok(response) => response,
        Err(error) if error.is_connect() => return Ok(None),
        Err(error) => {
            return Err(Problem::unavailable(format!(
                "the instance that owns the run broke off ({error}); {MAYBE_DONE}"
            )));
        }
    };
    if response.headers().contains_key(NOT_OWNER) {
        return Ok(None);
    }
    let mut answer = Response::builder().status(response.status());
    for name in [
        header::CONTENT_TYPE,
        header::RETRY_AFTER,
        header::LOCATION,
        header::CACHE_CONTROL,
    ] {
        if let Some(value) = response.headers().get(&name) {
            answer = answer.header(name, value.clone());
        }
    }
    let streamed = Body::from_stream(response.bytes_stream());
    answer.body(streamed).map(Some).map_err(|error| {
        Problem::unavailable(format!("the owner's answer cannot be passed on: {error}"))
    })
}
