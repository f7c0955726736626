//! `run`: starts a run, and waits for it or watches it where asked to.

use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use super::args::RunArgs;
use super::client::{Answer, Api, each_tag_once, json_argument};
use super::output::cell;
use super::{CliError, Context, history, status};
use crate::model::RunId;

/// Longest wait of one request; further ones follow until the end.
const WAIT_PER_REQUEST: Duration = Duration::from_secs(20);

pub async fn run(context: &Context, args: RunArgs) -> Result<(), CliError> {
    let api = Api::new(&context.config.client.api)?;
    let id = args
        .id
        .clone()
        .unwrap_or_else(|| uuid::Uuid::now_v7().to_string());
    let body = start_body(&args, &id)?;
    let answer = start(&api, &body).await?;
    let output = &context.output;
    if args.watch {
        history::follow(context, &api, &id).await?;
        // The event of the end is read as soon as it is committed; the owner folds it in after that.
        let seen = api.get(&run_path(&id)?, &[]).await?;
        let ended = wait_for_end(&api, &id, seen, WAIT_PER_REQUEST).await?;
        return report(context, ended);
    }
    let Some(wait) = args.wait else {
        if output.is_table() {
            let word = if answer.status.as_u16() == 201 {
                "started"
            } else {
                "was started before"
            };
            output.say(&format!(
                "run {word}; look at it with `partita status {id}`"
            ));
            output.line(&id);
        } else {
            output.document_text(&answer.text)?;
        }
        return Ok(());
    };
    let ended = wait_for_end(&api, &id, answer, wait.duration()).await?;
    report(context, ended)
}

fn start_body(args: &RunArgs, id: &str) -> Result<Value, CliError> {
    each_tag_once(&args.tags)?;
    let mut body = Map::new();
    match args.workflow.rsplit_once('@') {
        Some((name, version)) => {
            let version: u32 = version.parse().map_err(|_| {
                CliError::Usage(format!(
                    "`{}`: write WORKFLOW@VERSION with a number for the version",
                    args.workflow
                ))
            })?;
            body.insert("workflow".to_owned(), name.into());
            body.insert("version".to_owned(), version.into());
        }
        None => {
            body.insert("workflow".to_owned(), args.workflow.as_str().into());
        }
    }
    body.insert("id".to_owned(), id.into());
    if let Some(text) = &args.input {
        body.insert("input".to_owned(), json_argument("--input", text)?);
    }
    if !args.tags.is_empty() {
        let tags: Map<String, Value> = args
            .tags
            .iter()
            .map(|(key, value)| (key.clone(), value.as_str().into()))
            .collect();
        body.insert("tags".to_owned(), tags.into());
    }
    if let Some(priority) = args.priority {
        body.insert("priority".to_owned(), json!(priority));
    }
    Ok(Value::Object(body))
}

/// The id is ours, so a start whose answer got lost can be sent again: it stays one run.
async fn start(api: &Api, body: &Value) -> Result<Answer, CliError> {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        match api.post("/v1/runs", body).await {
            Err(CliError::Unreachable(reason))
                if Instant::now() < deadline && !reason.contains("cannot reach") =>
            {
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
            result => return result,
        }
    }
}

/// The path of the run `id`. What is no run id is refused in the server's words: it could lead elsewhere.
pub fn run_path(id: &str) -> Result<String, CliError> {
    let id = RunId::parse(id).map_err(|error| CliError::Usage(error.to_string()))?;
    Ok(format!("/v1/runs/{id}"))
}

fn has_ended(run: &Value) -> bool {
    matches!(
        run["status"].as_str(),
        Some("completed" | "failed" | "cancelled")
    )
}

/// The run once it has ended, or as it stands when the time is over.
async fn wait_for_end(
    api: &Api,
    id: &str,
    started: Answer,
    at_most: Duration,
) -> Result<Answer, CliError> {
    let deadline = Instant::now().checked_add(at_most);
    let mut last = started;
    let mut pause = Duration::from_millis(20);
    loop {
        if has_ended(&last.value()?) {
            return Ok(last);
        }
        let left = deadline.map_or(WAIT_PER_REQUEST, |at| {
            at.saturating_duration_since(Instant::now())
        });
        if left.is_zero() {
            return Ok(last);
        }
        tokio::time::sleep(pause.min(left)).await;
        pause = (pause * 3 / 2).min(Duration::from_millis(500));
        last = match api.get(&run_path(id)?, &[]).await {
            Ok(answer) => answer,
            // An instance that restarts is no reason to lose the wait.
            Err(CliError::Unreachable(_)) if !left.is_zero() => continue,
            Err(error) => return Err(error),
        };
    }
}

/// Prints the run; the exit code says whether it completed.
fn report(context: &Context, answer: Answer) -> Result<(), CliError> {
    let run = answer.value()?;
    if context.output.is_table() {
        status::print(context, &run);
    } else {
        context.output.document_text(&answer.text)?;
    }
    match run["status"].as_str() {
        Some("completed") => Ok(()),
        Some("failed" | "cancelled") => {
            let error = &run["error"];
            let reason = if error.is_object() {
                format!(": {}: {}", cell(error, "class"), cell(error, "message"))
            } else {
                String::new()
            };
            Err(CliError::Failed(format!(
                "run {} {}{reason}",
                cell(&run, "id"),
                cell(&run, "status")
            )))
        }
        _ => Err(CliError::Failed(format!(
            "run {} is still {}",
            cell(&run, "id"),
            cell(&run, "status")
        ))),
    }
}
