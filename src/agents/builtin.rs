//! The agents that come with Partita and run inside an instance: `echo`, for trials and tests,
//! and `http`, which calls a service.

use std::time::Duration;

use serde::Deserialize;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::agent::{Agent, Context, Settings};
use super::http::{Caller, HttpSettings};
use crate::document::duration;
use crate::model::{Failure, Json, Task, class};

/// Which of them run. None by default.
#[derive(Clone, Debug, Default)]
pub struct BuiltIn {
    pub echo: bool,
    /// The `http` agent; `None`: it does not run.
    pub http: Option<HttpSettings>,
}

/// Runs them until `stop` is cancelled. One that fails is started again after a pause.
pub async fn run(built_in: BuiltIn, settings: Settings, stop: CancellationToken) {
    let mut running = JoinSet::new();
    if built_in.echo {
        let make = |settings| {
            Agent::new(settings, "echo")
                .handler(|task, context| async move { echo(&task, &context).await })
                .concurrency(256)
        };
        running.spawn(again_and_again(
            "echo",
            settings.clone(),
            stop.clone(),
            make,
        ));
    }
    if let Some(http) = built_in.http {
        match Caller::new(http) {
            Ok(caller) => {
                let caller = std::sync::Arc::new(caller);
                let make = move |settings| {
                    let caller = std::sync::Arc::clone(&caller);
                    Agent::new(settings, "http")
                        .handler(move |task, context| {
                            let caller = std::sync::Arc::clone(&caller);
                            async move { caller.call(&task, &context).await }
                        })
                        .concurrency(64)
                };
                running.spawn(again_and_again("http", settings, stop, make));
            }
            Err(error) => tracing::error!(%error, "the http agent does not run: no HTTP client"),
        }
    }
    while running.join_next().await.is_some() {}
}

async fn again_and_again(
    name: &'static str,
    settings: Settings,
    stop: CancellationToken,
    make: impl Fn(Settings) -> super::agent::Ready,
) {
    while !stop.is_cancelled() {
        if let Err(error) = make(settings.clone()).run_until(stop.clone()).await {
            tracing::error!(agent = name, %error, "a built-in agent stopped, starting it again");
            tokio::select! {
                () = tokio::time::sleep(Duration::from_secs(2)) => {}
                () = stop.cancelled() => {}
            }
        }
    }
}

/// What `echo` can be told; anything else in `task` is left alone.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct EchoTask {
    /// Before it answers, such as `200ms`; at most one hour.
    sleep: Option<String>,
    fail: Option<EchoFailure>,
}

/// How `echo` is told to fail.
#[derive(Debug, Deserialize)]
struct EchoFailure {
    #[serde(default)]
    class: Option<String>,
    #[serde(default)]
    message: Option<String>,
    #[serde(default)]
    retryable: Option<bool>,
    /// Fails the first so many attempts; without it all of them.
    #[serde(default)]
    attempts: Option<u32>,
}

/// Answers with the task's inputs, after `task.sleep`, or fails as `task.fail` says.
async fn echo(task: &Task, context: &Context) -> Result<Json, Failure> {
    let wanted: EchoTask = read_task(&task.task)?;
    if let Some(text) = &wanted.sleep {
        let wrong = |error: duration::InvalidDuration| {
            Failure::new(class::VALIDATION_ERROR, format!("task.sleep: {error}"))
        };
        let sleep =
            Duration::from(duration::parse(text).map_err(wrong)?).min(Duration::from_secs(3_600));
        tokio::select! {
            () = tokio::time::sleep(sleep) => {}
            () = context.cancelled().cancelled() => {}
        }
    }
    match wanted.fail {
        Some(fail)
            if fail
                .attempts
                .is_none_or(|attempts| task.attempt <= attempts) =>
        {
            let mut failure = Failure::new(
                fail.class.as_deref().unwrap_or(class::ERROR),
                fail.message
                    .unwrap_or_else(|| "failed as it was told to".to_owned()),
            );
            failure.retryable = fail.retryable;
            Err(failure)
        }
        _ => Ok(task.inputs.clone()),
    }
}

/// Reads what a task asks for; a task of another form is a `validation_error` not worth a retry.
pub fn read_task<T: serde::de::DeserializeOwned>(task: &Json) -> Result<T, Failure> {
    let read = match task.is_null() {
        true => serde_json::from_str("{}"),
        false => task.parse::<T>(),
    };
    read.map_err(|error| {
        let mut failure = Failure::new(
            class::VALIDATION_ERROR,
            format!("the task cannot be read: {error}"),
        );
        failure.retryable = Some(false);
        failure
    })
}
