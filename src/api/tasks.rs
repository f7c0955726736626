//! Agents over HTTP: the long poll for tasks, and what they say of them. A task may be answered
//! here however it was delivered.

use std::time::Duration;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};

use super::Api;
use super::incoming::{FORWARDED, Incoming, Segments, span_parameter, split_verb};
use super::owner::{self, Local};
use super::problem::{Problem, refused};
use super::runs::json_response;
use crate::agents::{HandedOut, Held, PollError};
use crate::engine::{Definitions as _, Outcome};
use crate::model::{Failure, Json, Reply, ReplyStatus, RunId, RunState, TaskId, class};
use crate::runtime::Answered;
use crate::runtime::membership::Owner;

/// Tasks of one poll.
const LARGEST_POLL: usize = 100;
const DEFAULT_WAIT: Duration = Duration::from_secs(10);
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// How long another instance may take to say how a run stands.
const ASK_WITHIN: Duration = Duration::from_secs(3);
/// Tells an instance of the lease of a task alone: `settled` or `renewed`.
const LEASE: &str = "partita-lease";

/// Body of a poll.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct PollBody {
    /// 1 by default.
    #[serde(default)]
    max: Option<usize>,
    /// A span such as `30s`, or seconds.
    #[serde(default)]
    wait: Option<Value>,
    /// Names the agent's process in logs.
    #[serde(default)]
    worker: Option<String>,
}

/// `POST /v1/agents/{agent}/tasks:poll`.
pub async fn poll(
    State(api): State<Api>,
    Segments((agent, verb)): Segments<(String, String)>,
    request: Incoming,
) -> Result<Response, Problem> {
    if verb != "tasks:poll" {
        return Err(Problem::not_found(format!(
            "an agent has no `{verb}`; there is tasks:poll"
        )));
    }
    request.query(&[], &[])?;
    let body: PollBody = request.json()?;
    let max = body.max.unwrap_or(1);
    if !(1..=LARGEST_POLL).contains(&max) {
        return Err(Problem::bad_request(format!(
            "`max` is {max}; write a number from 1 to {LARGEST_POLL}"
        )));
    }
    let wait = match &body.wait {
        None => DEFAULT_WAIT,
        Some(Value::String(text)) => span_parameter("wait", text, LONGEST_WAIT)?,
        Some(other) => span_parameter("wait", &other.to_string(), LONGEST_WAIT)?,
    };
    let passed = |task_id: String| {
        let api = api.clone();
        async move { has_passed(&api, &task_id).await }
    };
    let polled = tokio::select! {
        polled = api.pumps().poll(&agent, max, wait, passed) => polled,
        () = api.closing().cancelled() => Ok(Vec::new()),
    };
    let tasks = polled.map_err(|error| match error {
        PollError::Name(_) => Problem::bad_request(error.to_string()),
        PollError::TooMany(_) => Problem::new(
            StatusCode::TOO_MANY_REQUESTS,
            "too-many-agents",
            "Too many agents are polled for",
            error.to_string(),
        )
        .retry_after(15),
        PollError::Feed(_) => Problem::unavailable(error.to_string()),
    })?;
    if let (Some(worker), false) = (&body.worker, tasks.is_empty()) {
        tracing::debug!(agent, worker, tasks = tasks.len(), "handed out tasks");
    }
    let texts: Vec<String> = tasks.iter().map(task_json).collect();
    Ok(json_response(
        StatusCode::OK,
        format!(r#"{{"tasks":[{}]}}"#, texts.join(",")),
    ))
}

/// The task as it is on its topic, with its trace and the length of its lease.
fn task_json(task: &HandedOut) -> String {
    let extra =
        json!({"traceparent": task.delivery.traceparent, "lease_seconds": task.lease.as_secs()})
            .to_string();
    let whole = task.delivery.json.trim_end();
    format!(
        "{},{}",
        whole.strip_suffix('}').unwrap_or(whole),
        extra.trim_start_matches('{')
    )
}

/// Whether the attempt is surely over. A state that seems older than the task proves nothing: the
/// record may be seen before the state that made it is.
async fn has_passed(api: &Api, task_id: &str) -> bool {
    let Some(id) = TaskId::parse(task_id) else {
        return true;
    };
    let deadline = tokio::time::Instant::now() + ASK_WITHIN;
    match api.membership().owner_of(api.runs().partition_of(&id.run)) {
        Owner::Local => match api.runs().run(&id.run) {
            Ok(Some(run)) => passed_locally(api, &run, &id),
            // An old task of a run that nobody knows any more.
            Ok(None) => true,
            Err(_) => false,
        },
        Owner::Remote(address) => {
            let asked = passed_remotely(api, &address, &id);
            tokio::time::timeout_at(deadline, asked)
                .await
                .unwrap_or(None)
                .unwrap_or(false)
        }
        Owner::Unknown => false,
    }
}

fn passed_locally(api: &Api, run: &RunState, id: &TaskId) -> bool {
    let Some(workflow) = api.definitions().workflow(&run.workflow, Some(run.version)) else {
        return run.status.is_ended();
    };
    let Some(step) = workflow
        .by_id
        .get(id.step.as_str())
        .and_then(|index| run.steps.get(*index))
    else {
        return true;
    };
    let later = run.epoch > id.epoch || (run.epoch == id.epoch && step.attempt > id.attempt);
    let closed = run.epoch == id.epoch && step.attempt == id.attempt && !step.status.is_open();
    run.status.is_ended() || later || closed
}

async fn passed_remotely(api: &Api, address: &str, id: &TaskId) -> Option<bool> {
    let url = format!("{address}/v1/runs/{}", id.run);
    let answer = api
        .0
        .http
        .get(url)
        .header(FORWARDED, api.membership().instance())
        .send()
        .await
        .ok()?;
    if answer.status() == StatusCode::NOT_FOUND {
        return Some(true);
    }
    let run: Value = answer.error_for_status().ok()?.json().await.ok()?;
    let step = run["steps"]
        .as_array()?
        .iter()
        .find(|step| step["id"] == id.step.as_str())?;
    let ended = run["ended_at"].is_string();
    let (epoch, attempt) = (run["epoch"].as_u64()?, step["attempt"].as_u64()?);
    let later = epoch > u64::from(id.epoch)
        || (epoch == u64::from(id.epoch) && attempt > u64::from(id.attempt));
    let same = epoch == u64::from(id.epoch) && attempt == u64::from(id.attempt);
    let open = step["status"] == "scheduled" || step["status"] == "running";
    Some(ended || later || (same && !open))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct CompleteBody {
    #[serde(default)]
    output: Json,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct FailBody {
    #[serde(default)]
    error: Option<Failure>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct ProgressBody {
    #[serde(default)]
    progress: Option<f64>,
    #[serde(default)]
    note: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct NoBody {}

/// `POST /v1/tasks/{task_id}:complete | :fail | :progress | :heartbeat`.
pub async fn answer(
    State(api): State<Api>,
    Segments(segment): Segments<String>,
    request: Incoming,
) -> Result<Response, Problem> {
    request.query(&[], &[])?;
    let (task_id, verb) = split_verb(&segment);
    let verbs = "complete, fail, progress, heartbeat";
    let verb =
        verb.ok_or_else(|| Problem::not_found(format!("say what of the task: verbs are {verbs}")))?;
    if let Some(lease) = request.headers.get(LEASE) {
        // Another instance tells what it heard of a task that may have been handed out here.
        if lease == "settled" {
            api.pumps().settle(task_id)
        } else {
            api.pumps().renew(task_id)
        };
        return Ok(StatusCode::NO_CONTENT.into_response());
    }
    let status = match verb {
        "complete" => completed(
            request.json::<CompleteBody>()?.output,
            api.settings().max_payload_bytes,
        ),
        "fail" => {
            let error = request
                .json::<FailBody>()?
                .error
                .unwrap_or_else(|| Failure::new(class::ERROR, ""));
            ReplyStatus::Failed { error }
        }
        "progress" => progressed(request.json()?)?,
        "heartbeat" => {
            let NoBody {} = request.json()?;
            ReplyStatus::Heartbeat
        }
        other => {
            return Err(Problem::not_found(format!(
                "a task has no verb `{other}`; verbs are {verbs}"
            )));
        }
    };
    let unknown = || Problem::not_found(format!("there is no task `{task_id}`"));
    let id = TaskId::parse(task_id).ok_or_else(unknown)?;
    let ends = matches!(
        status,
        ReplyStatus::Completed { .. } | ReplyStatus::Failed { .. }
    );
    let reply = Reply {
        run_id: id.run.clone(),
        step_id: id.step.clone(),
        task_id: Some(task_id.to_owned()),
        attempt: Some(id.attempt),
        epoch: Some(id.epoch),
        status,
    };
    let traceparent = request.traceparent();
    let answered = owner::answer(&api, &id.run, &request, || async {
        // A reply to a run that is not there would wait for it for seconds; a caller over HTTP is
        // told sooner.
        match known(&api, &id.run).await {
            Local::Moved => return Local::Moved,
            Local::Done(Err(problem)) => return Local::Done(Err(problem)),
            Local::Done(Ok(false)) => return Local::Done(Err(unknown())),
            Local::Done(Ok(true)) => {}
        }
        let told = api.runs().answer(reply.clone(), traceparent.clone());
        match Local::of(told.await) {
            Local::Moved => Local::Moved,
            Local::Done(answered) => Local::Done(
                answered.and_then(|answered| applied(&answered, &id.run.to_string(), task_id)),
            ),
        }
    })
    .await;
    if !request.forwarded() {
        let code = match &answered {
            Ok(response) => response.status(),
            Err(problem) => problem.status,
        };
        note_lease(&api, task_id, ends, code);
    }
    answered
}

/// Whether the run is there. A task can be seen a moment before the state that made it, so a run
/// that is not there is looked for again before that is believed.
async fn known(api: &Api, run: &RunId) -> Local<Result<bool, Problem>> {
    for pause in [10, 40, 150, 0] {
        match Local::of(api.runs().run(run)) {
            Local::Done(Ok(None)) => tokio::time::sleep(Duration::from_millis(pause)).await,
            Local::Done(found) => return Local::Done(found.map(|_| true)),
            Local::Moved => return Local::Moved,
        }
    }
    Local::Done(Ok(false))
}

/// An output over the limit fails the step, as it does on its way over Kafka; such a record might
/// not even fit on the topic.
fn completed(output: Json, limit: usize) -> ReplyStatus {
    if output.len() <= limit {
        return ReplyStatus::Completed { output };
    }
    let message = format!(
        "the output has {} bytes of JSON; at most {limit} are allowed",
        output.len()
    );
    ReplyStatus::Failed {
        error: Failure::new(class::PAYLOAD_TOO_LARGE, message),
    }
}

fn progressed(body: ProgressBody) -> Result<ReplyStatus, Problem> {
    let ProgressBody { progress, note } = body;
    if let Some(progress) = progress.filter(|progress| !(0.0..=1.0).contains(progress)) {
        return Err(Problem::bad_request(format!(
            "`progress` is {progress}; write a fraction from 0 to 1"
        )));
    }
    Ok(ReplyStatus::Progress { progress, note })
}

fn applied(answered: &Answered, run: &str, task_id: &str) -> Result<Response, Problem> {
    if let Outcome::Refused(refusal) = &answered.outcome {
        return Err(refused(refusal, run));
    }
    let status = answered.run.as_ref().map(|run| run.status.name());
    let body = json!({"task_id": task_id, "run_id": run, "run_status": status}).to_string();
    Ok(json_response(StatusCode::OK, body))
}

/// Settles or renews the task's lease where it is held; another instance that may have handed it
/// out is told in the background. Being late costs one more delivery of the same task, no more.
fn note_lease(api: &Api, task_id: &str, ends: bool, answered: StatusCode) {
    let gone = matches!(answered, StatusCode::NOT_FOUND | StatusCode::CONFLICT);
    let settled = gone || (ends && answered.is_success());
    if !settled && !answered.is_success() {
        return;
    }
    let held = if settled {
        api.pumps().settle(task_id)
    } else {
        api.pumps().renew(task_id)
    };
    if held == Held::Here || gone {
        return;
    }
    for member in api.membership().others() {
        let verb = if settled { "complete" } else { "heartbeat" };
        let telling = api
            .0
            .http
            .post(format!("{}/v1/tasks/{task_id}:{verb}", member.api))
            .header(LEASE, if settled { "settled" } else { "renewed" })
            .header(header::CONTENT_LENGTH, 0)
            .timeout(ASK_WITHIN)
            .send();
        tokio::spawn(async move {
            if let Err(error) = telling.await {
                tracing::debug!(instance = member.instance, %error, "could not tell of a lease");
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_output_over_the_limit_fails_the_step() {
        let output = Json::from_text(r#""0123456789""#).unwrap();
        assert!(matches!(
            completed(output.clone(), 12),
            ReplyStatus::Completed { .. }
        ));
        let ReplyStatus::Failed { error } = completed(output, 11) else {
            panic!("it is over the limit")
        };
        assert_eq!(error.class, class::PAYLOAD_TOO_LARGE);
    }
}
