//! `demo`: everything in one process and a temporary folder. Embedded broker, one instance, the
//! examples ([`examples`]) with their agents ([`agents`]), a rule over three topics and the run that it
//! starts ([`market`]), one strategic planning and a few hundred smaller runs over HTTP, progress from
//! the live stream of events, a summary.

mod agents;
mod examples;
mod market;

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use self::agents::Stopwatch;
use self::market::Market;
use super::apply::put;
use super::args::DemoArgs;
use super::client::Api;
use super::dev::start_broker;
use super::measure::quantile_words;
use super::serve::{SHUTDOWN_WITHIN, Signals, stop_signal};
use super::{CliError, Context, sse, status};
use crate::agent;
use crate::instance::{Instance, Start, definition_defaults};
use crate::runtime::kinds;
use crate::telemetry;

/// Runs started a second: enough to see the engine at work, few enough to see latencies and not
/// queues on a small machine.
const STARTS_PER_SECOND: f64 = 60.0;
/// Starts under way at one time.
const MAX_STARTING: usize = 32;
const READY_WITHIN: Duration = Duration::from_secs(60);
/// The demo has failed where its runs have not ended so long after the last was started.
const END_WITHIN: Duration = Duration::from_secs(120);
/// Between two lines of progress where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(1);
/// Runs to warm the paths before anything is timed.
const WARM_UP_RUNS: usize = 5;

/// What the live stream told so far.
#[derive(Default)]
struct Tally {
    completed: AtomicU64,
    failed: AtomicU64,
    cancelled: AtomicU64,
    steps: AtomicU64,
    retries: AtomicU64,
    by_workflow: Mutex<BTreeMap<String, u64>>,
}

impl Tally {
    fn ended(&self) -> u64 {
        [&self.completed, &self.failed, &self.cancelled]
            .iter()
            .map(|count| count.load(Ordering::Acquire))
            .sum()
    }

    fn take(&self, event: &Value) {
        let kind = event["type"].as_str().unwrap_or_default();
        let count = match kind.strip_prefix("partita.").unwrap_or_default() {
            "run.completed" => &self.completed,
            "run.failed" => &self.failed,
            "run.cancelled" => &self.cancelled,
            "step.completed" => &self.steps,
            "step.retrying" => &self.retries,
            _ => return,
        };
        count.fetch_add(1, Ordering::AcqRel);
        if kind.starts_with("partita.run.") {
            let workflow = event["data"]["workflow"].as_str().unwrap_or("?").to_owned();
            *self
                .by_workflow
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .entry(workflow)
                .or_insert(0) += 1;
        }
    }
}

pub async fn demo(context: &Context, args: &DemoArgs) -> Result<(), CliError> {
    tokio::select! {
        result = play(context, args) => result,
        _ = stop_signal(), if !args.keep => Err(CliError::Interrupted),
    }
}

async fn play(context: &Context, args: &DemoArgs) -> Result<(), CliError> {
    let output = &context.output;
    let metrics =
        telemetry::install_metrics().map_err(|error| CliError::Failed(error.to_string()))?;
    let folder = tempfile::tempdir()
        .map_err(|error| CliError::Failed(format!("no temporary folder: {error}")))?;
    let broker = start_broker(Some(folder.path()), 0).await?;
    let mut config = context.config.clone();
    config.kafka.brokers = broker.bootstrap();
    config.http.listen = "127.0.0.1:0".to_owned();
    config.runtime.static_membership = true;
    let data_dir = Some(folder.path().join("state"));
    let instance = Instance::start(Start {
        config: &config,
        data_dir,
        metrics,
    })
    .await?;
    output.say(&format!(
        "embedded broker  {}   (a Kafka client can look in)",
        config.kafka.brokers
    ));
    output.say(&format!("instance         {}", instance.api_url()));
    if !instance.until_ready(READY_WITHIN).await {
        let reasons = instance.not_ready_because().join("; ");
        return Err(CliError::Failed(format!(
            "the instance did not become ready: {reasons}"
        )));
    }
    let api = Arc::new(Api::new(&instance.api_url())?);
    let clients = config.kafka.client_settings();
    market::make_topics(&clients).await?;
    for (name, text) in examples::WORKFLOWS.iter().chain([&market::RULE]) {
        let parsed = kinds::parse(text, Some(name), &definition_defaults(&config))
            .map_err(|violations| CliError::Failed(violations.to_string()))?;
        for definition in &parsed {
            put(&api, definition, false).await?;
        }
    }
    output.say(&format!(
        "definitions      {} workflows and a rule of examples/",
        examples::WORKFLOWS.len() + 1
    ));

    let stop = CancellationToken::new();
    let stopwatch = Arc::new(Stopwatch::default());
    let settings = agent::Settings {
        client: config.kafka.client_settings().client_config(),
        prefix: config.topics.prefix.clone(),
        ..agent::Settings::new(&config.kafka.brokers)
    };
    let mut agents = agents::start(&settings, &stopwatch, &stop);
    warm_up(&api).await?;
    stopwatch.start_over();
    let market = market::play(&clients, &config.topics.prefix, &api).await?;
    for run in &market.runs {
        output.say(&format!(
            "a rule           {} events on 3 topics, {} match: run {} {}",
            market.events,
            market.matches,
            run["id"].as_str().unwrap_or("?"),
            run["status"].as_str().unwrap_or("?")
        ));
        if let Some(words) = status::match_words(&run["provenance"]) {
            output.say(&format!("                 started {words}"));
        }
    }

    let mut signals = Signals::listen();
    // Interrupted half way, agents, instance and broker still end in order and the folder goes.
    let result = tokio::select! {
        result = run_all(context, args, &api, &stopwatch, &market) => result,
        _ = signals.next() => Err(CliError::Interrupted),
    };
    if args.keep && result.is_ok() {
        output.say(&format!(
            "still up: partita --api {} list; Ctrl-C ends it",
            instance.api_url()
        ));
        signals.next().await;
    }
    stop.cancel();
    while agents.join_next().await.is_some() {}
    instance.stop(SHUTDOWN_WITHIN).await;
    broker.shutdown().await;
    result
}

/// A run of each workflow, so that consumers have joined and paths are warm before clocks run.
async fn warm_up(api: &Api) -> Result<(), CliError> {
    let deadline = Instant::now() + READY_WITHIN;
    for number in 0..WARM_UP_RUNS {
        let (workflow, input) = work(number);
        let id = format!("warm-{number}");
        api.post(
            "/v1/runs",
            &json!({"workflow": workflow, "id": id, "input": input}),
        )
        .await?;
    }
    for number in 0..WARM_UP_RUNS {
        loop {
            let run = api
                .get(&format!("/v1/runs/warm-{number}"), &[])
                .await?
                .value()?;
            if matches!(
                run["status"].as_str(),
                Some("completed" | "failed" | "cancelled")
            ) {
                break;
            }
            if Instant::now() > deadline {
                return Err(CliError::Failed(
                    "the agents of the demo do not answer".to_owned(),
                ));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    Ok(())
}

/// The workflow and the input of the smaller run with this number.
fn work(number: usize) -> (&'static str, Value) {
    match number % 4 {
        0 => (
            "order_fulfilment",
            json!({"order": format!("A-{number}"), "amount": 20 + number % 500, "express": number.is_multiple_of(3),
                "items": [{"sku": "lamp", "count": 1 + number % 4}]}),
        ),
        1 => (
            "content_review",
            json!({"text": format!("Text number {number}"), "author": "ada"}),
        ),
        2 => (
            "nightly_report",
            json!({"day": format!("2026-11-{:02}", 1 + number % 30)}),
        ),
        _ => ("five_steps", json!({"number": number})),
    }
}

async fn run_all(
    context: &Context,
    args: &DemoArgs,
    api: &Arc<Api>,
    stopwatch: &Arc<Stopwatch>,
    market: &Market,
) -> Result<(), CliError> {
    let total = u64::from(args.runs) + 1;
    let tally = Arc::new(Tally::default());
    let mut listener = {
        let (api, tally) = (Arc::clone(api), Arc::clone(&tally));
        tokio::spawn(async move {
            let take = |data: &str| {
                let event: Value = serde_json::from_str(data).unwrap_or(Value::Null);
                if event["subject"]
                    .as_str()
                    .is_some_and(|run| run.starts_with("demo-"))
                {
                    tally.take(&event);
                }
                Ok(true)
            };
            sse::follow(&api, "/v1/events", take).await
        })
    };
    // The stream tells of events from its opening on.
    tokio::time::sleep(Duration::from_millis(300)).await;

    let began = Instant::now();
    let starting = tokio::spawn(start_runs(
        Arc::clone(api),
        Arc::clone(stopwatch),
        args.runs as usize,
    ));
    let outcome = tokio::select! {
        outcome = watch(context, &tally, total, began, &starting) => outcome,
        broken = &mut listener => Err(match broken {
            Ok(Err(error)) => error,
            _ => CliError::Failed("the stream of events ended".to_owned()),
        }),
    };
    let ended = began.elapsed();
    starting.abort();
    listener.abort();
    outcome?;
    let summary = summary(&tally, stopwatch, ended, market);
    print(context, &summary);
    match summary["runs_failed"].as_u64() {
        Some(0) => Ok(()),
        _ => Err(CliError::Failed("not every run completed".to_owned())),
    }
}

/// Starts `strategic_planning`, then the smaller runs at their pace.
async fn start_runs(api: Arc<Api>, stopwatch: Arc<Stopwatch>, runs: usize) -> Result<(), CliError> {
    let places = Arc::new(Semaphore::new(MAX_STARTING));
    let began = Instant::now();
    let mut starts = tokio::task::JoinSet::new();
    for number in 0..=runs {
        let (workflow, input) = if number == 0 {
            ("strategic_planning", Value::Null)
        } else {
            work(number)
        };
        let due = began + Duration::from_secs_f64(number as f64 / STARTS_PER_SECOND);
        tokio::time::sleep_until(due.into()).await;
        let place = Arc::clone(&places)
            .acquire_owned()
            .await
            .expect("never closed");
        let (api, stopwatch) = (Arc::clone(&api), Arc::clone(&stopwatch));
        starts.spawn(async move {
            let _place = place;
            let id = format!("demo-{number}-{workflow}");
            let body =
                json!({"workflow": workflow, "id": id, "input": input, "tags": {"by": "demo"}});
            stopwatch.call(&id);
            api.post("/v1/runs", &body).await
        });
        while let Some(done) = starts.try_join_next() {
            done.map_err(|error| CliError::Failed(error.to_string()))??;
        }
    }
    while let Some(done) = starts.join_next().await {
        done.map_err(|error| CliError::Failed(error.to_string()))??;
    }
    Ok(())
}

/// Shows progress until all runs have ended: a bar on a terminal, a line a second elsewhere.
async fn watch(
    context: &Context,
    tally: &Tally,
    total: u64,
    began: Instant,
    starting: &tokio::task::JoinHandle<Result<(), CliError>>,
) -> Result<(), CliError> {
    let terminal = std::io::stderr().is_terminal() && !context.output.is_quiet();
    let target = if terminal {
        ProgressDrawTarget::stderr()
    } else {
        ProgressDrawTarget::hidden()
    };
    let bar = ProgressBar::with_draw_target(Some(total), target);
    let style = ProgressStyle::with_template("runs {bar:32} {pos}/{len}  {msg}")
        .expect("the template is fixed");
    bar.set_style(style.progress_chars("█▉ "));
    let mut last_line = Instant::now();
    let deadline = began + Duration::from_secs_f64(total as f64 / STARTS_PER_SECOND) + END_WITHIN;
    loop {
        let ended = tally.ended();
        let steps = tally.steps.load(Ordering::Acquire);
        bar.set_position(ended);
        bar.set_message(format!(
            "{steps} steps, {} retries",
            tally.retries.load(Ordering::Acquire)
        ));
        if !terminal && last_line.elapsed() >= LINE_EVERY {
            last_line = Instant::now();
            context.output.say(&format!(
                "{ended} of {total} runs ended, {steps} steps completed"
            ));
        }
        if ended >= total {
            bar.finish_and_clear();
            return Ok(());
        }
        if Instant::now() > deadline {
            bar.abandon();
            let why = if starting.is_finished() {
                ""
            } else {
                "; not all could be started"
            };
            return Err(CliError::Failed(format!(
                "{ended} of {total} runs ended in time{why}"
            )));
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn summary(tally: &Tally, stopwatch: &Stopwatch, ended: Duration, market: &Market) -> Value {
    let (mut start_to_task, mut reply_to_task) = stopwatch.samples();
    let count = |count: &AtomicU64| count.load(Ordering::Acquire);
    let steps = count(&tally.steps);
    let by_workflow = tally
        .by_workflow
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .clone();
    json!({
        "runs_completed": count(&tally.completed),
        "runs_failed": count(&tally.failed) + count(&tally.cancelled),
        "runs_by_workflow": by_workflow,
        "steps_completed": steps,
        "steps_retried": count(&tally.retries),
        "matches": market.matches,
        "runs_started_by_rules": market.runs.len(),
        "start_to_task_ms": start_to_task.quantiles(),
        "reply_to_task_ms": reply_to_task.quantiles(),
        "steps_per_second": (steps as f64 / ended.as_secs_f64() * 10.0).round() / 10.0,
        "seconds": (ended.as_secs_f64() * 100.0).round() / 100.0,
    })
}

fn print(context: &Context, summary: &Value) {
    let output = &context.output;
    if !output.is_table() {
        output.document(summary);
        return;
    }
    let by_workflow: Vec<_> = summary["runs_by_workflow"]
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, count)| format!("{name} {count}"))
        .collect();
    for (what, figure) in [
        (
            "runs",
            format!(
                "{} completed, {} failed",
                summary["runs_completed"], summary["runs_failed"]
            ),
        ),
        ("by workflow", by_workflow.join(", ")),
        (
            "steps",
            format!(
                "{} completed, {} tried again",
                summary["steps_completed"], summary["steps_retried"]
            ),
        ),
        (
            "rules",
            format!(
                "{} match, {} run started",
                summary["matches"], summary["runs_started_by_rules"]
            ),
        ),
        (
            "start → first task",
            quantile_words(&summary["start_to_task_ms"]),
        ),
        (
            "reply → next task",
            quantile_words(&summary["reply_to_task_ms"]),
        ),
        (
            "steps per second",
            format!(
                "{} over {} s, agents thinking 2 to 21 ms",
                summary["steps_per_second"], summary["seconds"]
            ),
        ),
    ] {
        output.line(&format!("{what:<20} {figure}"));
    }
}
