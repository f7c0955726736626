//! `POST /v1/runs`, `GET /v1/runs/{id}` and the verbs of a run.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::Response;
use serde::{Deserialize, Serialize};

use super::Api;
use super::incoming::{Incoming, Segments, run_id, span_parameter, split_verb};
use super::owner::{self, Local};
use super::problem::{Problem, payload_too_large, refused, unknown_run};
use super::view::run_view;
use crate::engine::{Definitions as _, Outcome, TAGS};
use crate::model::{Command, Json, RunId, RunState, Signal, SignalId, SignalName, Start, Verb};
use crate::runtime::Answered;

/// The longest `?wait=`.
const LONGEST_WAIT: Duration = Duration::from_secs(300);
/// How many ids are tried so that a start without an id is carried out without another hop.
const LOCAL_ID_TRIES: usize = 64;

/// Body of a start.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct StartBody {
    workflow: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    version: Option<NonZeroU32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    id: Option<RunId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    input: Option<Json>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    tags: Option<BTreeMap<String, String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    priority: Option<i32>,
}

/// Body of pause, resume and cancel.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct VerbBody {
    #[serde(default)]
    reason: Option<String>,
}

/// Body of a signal.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct SignalBody {
    name: SignalName,
    #[serde(default)]
    data: Option<Json>,
    #[serde(default)]
    id: Option<SignalId>,
}

/// `POST /v1/runs`.
pub async fn start(State(api): State<Api>, mut request: Incoming) -> Result<Response, Problem> {
    let mut wait = None;
    for (_, text) in request.query(&["wait"], &[])? {
        wait = Some(span_parameter("wait", &text, LONGEST_WAIT)?);
    }
    let mut body: StartBody = request.json()?;
    check_size(&api, "input", body.input.as_ref())?;
    let id = if let Some(id) = body.id.clone() {
        id
    } else {
        let id = fresh_id(&api);
        // The id is settled before the request may travel, so that repeating it is one run.
        body.id = Some(id.clone());
        request.body = serde_json::to_vec(&body)
            .expect("a start serialises")
            .into();
        request.headers.insert(
            header::CONTENT_TYPE,
            header::HeaderValue::from_static("application/json"),
        );
        id
    };
    let start = Start {
        run_id: id.clone(),
        workflow: body.workflow,
        version: body.version.map(NonZeroU32::get),
        input: body.input,
        tags: body.tags.unwrap_or_default(),
        priority: body.priority.unwrap_or(0),
        // Only rules give one.
        provenance: None,
    };
    check_size(&api, TAGS, start.tags_json().as_ref())?;
    let traceparent = request.traceparent();
    owner::answer(&api, &id, &request, || async {
        let submitted = api
            .runs()
            .submit(Command::Start(start.clone()), traceparent.clone())
            .await;
        match Local::of(submitted) {
            Local::Moved => Local::Moved,
            Local::Done(Err(problem)) => Local::Done(Err(problem)),
            Local::Done(Ok(answered)) => Local::Done(started(&api, &id, answered, wait).await),
        }
    })
    .await
    // Who let us choose the id learns it, so that repeating the start is no second run.
    .map_err(|problem| match problem.status {
        StatusCode::SERVICE_UNAVAILABLE => problem.with("run_id", id.as_str()),
        _ => problem,
    })
}

/// Before anything is written.
fn check_size(api: &Api, what: &str, payload: Option<&Json>) -> Result<(), Problem> {
    let limit = api.settings().max_payload_bytes;
    match payload.map_or(0, Json::len) {
        bytes if bytes > limit => Err(payload_too_large(what, bytes, limit)),
        _ => Ok(()),
    }
}

/// A new id, of a partition owned here where a few tries find one.
fn fresh_id(api: &Api) -> RunId {
    let fresh = || RunId::parse(&uuid::Uuid::now_v7().to_string()).expect("a UUID is a run id");
    let local = |id: &RunId| api.runs().owns(api.runs().partition_of(id));
    std::iter::repeat_with(fresh)
        .take(LOCAL_ID_TRIES)
        .find(local)
        .unwrap_or_else(fresh)
}

async fn started(
    api: &Api,
    id: &RunId,
    answered: Answered,
    wait: Option<Duration>,
) -> Result<Response, Problem> {
    let status = match &answered.outcome {
        Outcome::Started => StatusCode::CREATED,
        Outcome::AlreadyStarted => StatusCode::OK,
        Outcome::Refused(refusal) => return Err(refused(refusal, id.as_str())),
        Outcome::Applied | Outcome::AlreadyHolds => StatusCode::OK,
    };
    let mut run = answered.run;
    if let Some(wait) = wait {
        let ended = tokio::select! {
            ended = api.runs().wait_for_end(id.clone(), wait) => ended.ok().flatten(),
            () = api.closing().cancelled() => None,
        };
        // Where the partition moved meanwhile, the answer is the run as it was started.
        run = ended.or(run);
    }
    let run = run.ok_or_else(|| unknown_run(id.as_str()))?;
    let mut response = run_response(api, status, &run);
    if status == StatusCode::CREATED
        && let Ok(location) = format!("/v1/runs/{id}").parse()
    {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

/// `GET /v1/runs/{id}`.
pub async fn show(
    State(api): State<Api>,
    Segments(segment): Segments<String>,
    request: Incoming,
) -> Result<Response, Problem> {
    let (name, verb) = split_verb(&segment);
    if let Some(verb) = verb {
        return Err(Problem::wrong_method(
            Some("POST"),
            format!("`:{verb}` takes POST"),
        ));
    }
    request.query(&[], &[])?;
    let id = run_id(name)?;
    owner::answer(&api, &id, &request, || async {
        match Local::of(api.runs().run(&id)) {
            Local::Moved => Local::Moved,
            Local::Done(found) => Local::Done(found.and_then(|run| {
                let run = run.ok_or_else(|| unknown_run(id.as_str()))?;
                Ok(run_response(&api, StatusCode::OK, &run))
            })),
        }
    })
    .await
}

/// `POST /v1/runs/{id}:pause | :resume | :cancel | :signal`.
pub async fn verb(
    State(api): State<Api>,
    Segments(segment): Segments<String>,
    request: Incoming,
) -> Result<Response, Problem> {
    request.query(&[], &[])?;
    let (name, verb) = split_verb(&segment);
    let known = "pause, resume, cancel, signal";
    let Some(verb) = verb else {
        let detail = format!(
            "a run takes POST only with a verb, as in /v1/runs/{name}:pause; verbs are {known}"
        );
        return Err(Problem::wrong_method(Some("GET"), detail));
    };
    let id = run_id(name)?;
    let of_verb = |body: VerbBody| Verb {
        run_id: id.clone(),
        reason: body.reason,
        depth: 0,
    };
    let command = match verb {
        "pause" => Command::Pause(of_verb(request.json()?)),
        "resume" => Command::Resume(of_verb(request.json()?)),
        "cancel" => Command::Cancel(of_verb(request.json()?)),
        "signal" => {
            let body: SignalBody = request.json()?;
            check_size(&api, "data", body.data.as_ref())?;
            Command::Signal(Signal {
                run_id: id.clone(),
                name: body.name,
                data: body.data,
                id: body.id,
                depth: 0,
            })
        }
        other => {
            return Err(Problem::not_found(format!(
                "a run has no verb `{other}`; verbs are {known}"
            )));
        }
    };
    let traceparent = request.traceparent();
    owner::answer(&api, &id, &request, || async {
        let submitted = api
            .runs()
            .submit(command.clone(), traceparent.clone())
            .await;
        match Local::of(submitted) {
            Local::Moved => Local::Moved,
            Local::Done(answered) => {
                Local::Done(answered.and_then(|answered| steered(&api, &id, &answered)))
            }
        }
    })
    .await
}

fn steered(api: &Api, id: &RunId, answered: &Answered) -> Result<Response, Problem> {
    if let Outcome::Refused(refusal) = &answered.outcome {
        return Err(refused(refusal, id.as_str()));
    }
    let run = answered
        .run
        .as_ref()
        .ok_or_else(|| unknown_run(id.as_str()))?;
    Ok(run_response(api, StatusCode::OK, run))
}

/// The run's view as a response.
pub fn run_response(api: &Api, status: StatusCode, run: &RunState) -> Response {
    json_response(status, view_json(api, run))
}

/// The run's view as JSON text.
pub fn view_json(api: &Api, run: &RunState) -> String {
    let workflow = api.definitions().workflow(&run.workflow, Some(run.version));
    let view = run_view(run, workflow.as_deref());
    serde_json::to_string(&view).expect("a view serialises")
}

/// A response with a body of JSON text.
pub fn json_response(status: StatusCode, body: impl Into<Body>) -> Response {
    Response::builder()
        .status(status)
        .header(header::CONTENT_TYPE, "application/json")
        .body(body.into())
        .expect("status and header are valid")
}
