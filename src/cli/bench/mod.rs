//! `bench`: how fast the engine is on a broker, and how fast that broker would let it be.
//!
//! [`engine`] runs `partita serve` as a process of its own; [`load`] starts runs and is their
//! agent, in this process and on one clock; [`shape`] says what the runs look like. Four
//! measurements follow one another: latency at a modest rate, steps per second at saturation (with
//! the engine's processor time), memory of runs that wait, and the ceiling ([`bare`]): a loop that
//! writes records of the size and number that [`census`] counted, and does nothing else.
//! `bench patterns` ([`events`]) measures the way of events instead.

mod bare;
mod census;
mod engine;
mod events;
mod load;
mod prometheus;
pub mod shape;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use serde_json::{Value, json};

use super::args::{BareLoopArgs, BenchArgs, BenchCommand};
use super::client::{Api, segment};
use super::dev::start_broker;
use super::measure::quantile_words;
use super::serve::stop_signal;
use super::{CliError, Context};
use crate::config::Config;
use crate::runtime::REST_ROUND;
use crate::telemetry::names::STATE_OPERATION_SECONDS;
use crate::topics::{Catalogue, Cluster};

pub use bare::bare_loop;
use census::Count;
use engine::{Engine, start_bare_loop};
use load::{Figures, Load, Pace};

/// Runs under way at saturation.
const WINDOW: usize = 2_000;
/// Runs before anything is measured.
const WARM_UP_RUNS: usize = 200;
/// Runs come at the rate of the latency measurement for so long before it begins: a broker that has
/// just been flooded, or just started, answers late for some seconds.
const SETTLING_SECONDS: f64 = 5.0;
/// The latency measurement lasts about so long.
const LATENCY_SECONDS: f64 = 20.0;
/// Runs of a measurement have ended so long after their last reply, or never will.
const END_WITHIN: Duration = Duration::from_secs(30);
/// Buffers on the way go back before memory is looked at.
const SETTLE: Duration = Duration::from_secs(3);
/// After so long without a step the entry of a run is in the store alone.
const REST: Duration = REST_ROUND.saturating_mul(2).saturating_add(SETTLE);
/// How long the broker may hold a fetch that finds nothing, for each reader of the bench:
/// librdkafka's own default, which an agent that sets nothing has.
const FETCH_WAIT: Duration = Duration::from_millis(500);
/// One request to the cluster.
const CLUSTER_TIMEOUT: Duration = Duration::from_secs(10);
/// Between two looks at whether the broker still answers, and how long it may take to.
const ASK_EVERY: Duration = Duration::from_secs(5);
/// A busy broker may be silent for a while, but not for so long.
const GONE_AFTER: Duration = Duration::from_secs(20);
/// What waits may take to be started.
const WAITING_WITHIN: Duration = Duration::from_secs(120);

/// Where the bench runs.
struct Ground {
    brokers: String,
    kind: &'static str,
    version: Value,
    folder: tempfile::TempDir,
    /// The embedded broker, where it is that one; it stops with this value.
    _embedded: Option<partita_broker::Broker>,
}

pub async fn bench(context: &Context, args: &BenchArgs) -> Result<(), CliError> {
    let ground = ground(context).await?;
    let mut config = context.config.clone();
    config.kafka.brokers.clone_from(&ground.brokers);
    let client = config.kafka.client_settings().client_config();
    if let Some(BenchCommand::Patterns(args)) = &args.of {
        return tokio::select! {
            result = events::measure(context, &ground, args) => {
                events::print(context, &result?);
                Ok(())
            }
            gone = vanished(&client) => Err(gone),
            _ = stop_signal() => Err(CliError::Interrupted),
        };
    }
    let bench = Bench {
        context,
        args,
        ground,
        config,
        client,
    };
    // Dropping the measurement ends its processes.
    tokio::select! {
        result = bench.measure() => {
            let result = result?;
            print(context, &result);
            match result["runs_failed"].as_u64() {
                Some(0) => Ok(()),
                _ => Err(CliError::Failed("not every run completed".to_owned())),
            }
        }
        gone = vanished(&bench.client) => Err(gone),
        _ = stop_signal() => Err(CliError::Interrupted),
    }
}

/// Resolves when the broker has not answered for [`GONE_AFTER`]: what the measurement waits for then
/// would not come.
async fn vanished(client: &ClientConfig) -> CliError {
    let asker: Arc<BaseConsumer> = match client.create() {
        Ok(asker) => Arc::new(asker),
        Err(error) => return CliError::Failed(format!("no client: {error}")),
    };
    let mut answered = Instant::now();
    loop {
        tokio::time::sleep(ASK_EVERY).await;
        let asker = Arc::clone(&asker);
        let ask = move || asker.fetch_metadata(None, ASK_EVERY).map(|_| ());
        match tokio::task::spawn_blocking(ask).await {
            Ok(Ok(())) => answered = Instant::now(),
            Ok(Err(error)) if answered.elapsed() >= GONE_AFTER => {
                let brokers = client.get("bootstrap.servers").unwrap_or_default();
                return CliError::Unreachable(format!(
                    "Kafka at {brokers} went away during the bench and did not come back within \
                     {} s: {error}",
                    GONE_AFTER.as_secs()
                ));
            }
            _ => {}
        }
    }
}

struct Bench<'a> {
    context: &'a Context,
    args: &'a BenchArgs,
    ground: Ground,
    config: Config,
    client: ClientConfig,
}

/// What the engine did under load.
struct Loaded {
    /// Answered before anything was measured.
    warm_up_steps: usize,
    latency: Figures,
    saturation: Figures,
    cpu_seconds: f64,
    completed: u64,
    failed: u64,
    /// The histogram of operations on state.
    state: BTreeMap<u64, f64>,
    census: Census,
}

/// Resident bytes of an engine with runs that wait.
struct Memory {
    /// Of the process, with all of them at rest.
    whole: u64,
    /// What each has added once all are started.
    per_run_just_started: u64,
    /// What each adds at rest.
    per_run: u64,
}

type Census = BTreeMap<&'static str, Count>;

impl Bench<'_> {
    async fn measure(&self) -> Result<Value, CliError> {
        let ground = &self.ground;
        self.say(&format!(
            "bench against {} at {}",
            ground.kind, ground.brokers
        ));
        let mut loaded = self.loaded().await?;
        let memory = self.memory().await?;
        let ceiling = self.ceiling(&loaded).await?;
        let (saturation, state) = (&loaded.saturation, &loaded.state);
        let ratio = saturation.steps_per_second / ceiling.steps_per_second;
        Ok(json!({
            "runs_completed": loaded.completed,
            "runs_failed": loaded.failed,
            "steps_completed": loaded.warm_up_steps + loaded.latency.steps + saturation.steps,
            "start_to_task_ms": loaded.latency.start_to_task.quantiles(),
            "reply_to_task_ms": loaded.latency.reply_to_task.quantiles(),
            "runs_per_second_offered": self.args.rate,
            "agent_isolation": self.args.agent_isolation.name(),
            "steps_per_second": rounded(saturation.steps_per_second),
            "shape": self.args.shape.name(),
            "steps_per_run": self.args.steps,
            "broker": {"kind": ground.kind, "version": ground.version},
            "ceiling": ceiling.into_json(),
            "ceiling_ratio": (ratio * 1_000.0).round() / 1_000.0,
            "engine_cpu_seconds": (loaded.cpu_seconds * 100.0).round() / 100.0,
            "steps_per_cpu_second": rounded(saturation.steps as f64 / loaded.cpu_seconds.max(0.01)),
            "memory_bytes": memory.whole,
            "memory_bytes_per_live_run": memory.per_run,
            "memory_bytes_per_run_just_started": memory.per_run_just_started,
            "live_runs_measured": self.args.waiting,
            "state_op_ms": {
                "p50": prometheus::quantile_ms(state, 0.5),
                "p99": prometheus::quantile_ms(state, 0.99),
            },
        }))
    }

    /// Latency at a modest rate, then steps per second at saturation.
    async fn loaded(&self) -> Result<Loaded, CliError> {
        let (args, steps) = (self.args, self.args.steps);
        let definition = args.shape.definition(steps);
        let workflow = definition["name"].as_str().unwrap_or_default().to_owned();
        let prefix = fresh_prefix("bench");
        let engine = self.engine(&prefix, &definition).await?;
        let load = self.load(&prefix).await?;
        self.say("warming up");
        load.drive("warm", &workflow, WARM_UP_RUNS, steps, Pace::Window(50))
            .await?;

        self.say(&format!("latency at {} runs a second", args.rate));
        let (settling, latency) = self.latency(&load, &workflow).await?;
        engine.until_live(0, END_WITHIN).await?;

        self.say(&format!("saturation: {} runs of {steps} steps", args.runs));
        let before = census::ends(&self.client, &prefix)?;
        let used = engine.process.usage()?;
        let saturation = load
            .drive("full", &workflow, args.runs, steps, Pace::Window(WINDOW))
            .await?;
        engine.until_live(0, END_WITHIN).await?;
        let cpu_seconds = engine.process.usage()?.cpu_seconds - used.cpu_seconds;
        let (completed, failed) = outcome(&engine.api, &workflow).await?;
        let state = prometheus::histogram(&engine.metrics().await?, STATE_OPERATION_SECONDS);
        let count = || census::count(&self.client, &prefix, &before);
        let census = tokio::task::block_in_place(count)?;
        Ok(Loaded {
            warm_up_steps: WARM_UP_RUNS * steps + settling.steps,
            latency,
            saturation,
            cpu_seconds,
            completed,
            failed,
            state,
            census,
        })
    }

    /// What comes at the rate that was asked for: first what nobody measures, then what counts.
    async fn latency(&self, load: &Load, workflow: &str) -> Result<(Figures, Figures), CliError> {
        let (args, steps) = (self.args, self.args.steps);
        let lasting = |seconds: f64| ((args.rate * seconds) as usize).clamp(20, args.runs.max(20));
        let pace = Pace::Rate(args.rate);
        let settling = load
            .drive("settle", workflow, lasting(SETTLING_SECONDS), steps, pace)
            .await?;
        let latency = load
            .drive("rate", workflow, lasting(LATENCY_SECONDS), steps, pace)
            .await?;
        Ok((settling, latency))
    }

    /// Resident memory of waiting runs, in an engine that has done nothing else: one that was busy has
    /// freed memory to spare, and would need less.
    async fn memory(&self) -> Result<Memory, CliError> {
        let runs = self.args.waiting;
        self.say(&format!("memory: {runs} runs that wait"));
        let prefix = fresh_prefix("wait");
        let engine = self
            .engine(&prefix, &shape::waiting_definition(self.args.steps))
            .await?;
        // Names the bench's agent whatever the number of steps, so that its topic is there.
        put(&engine.api, &self.args.shape.definition(self.args.steps)).await?;
        let load = self.load(&prefix).await?;
        let flood = |name: &str, runs| {
            tokio::task::block_in_place(|| load.flood(name, "bench_waiting", runs))
        };
        flood("first", WARM_UP_RUNS)?;
        engine
            .until_live(WARM_UP_RUNS as u64, WAITING_WITHIN)
            .await?;
        tokio::time::sleep(SETTLE).await;
        let before = engine.process.usage()?.memory_bytes;
        flood("wait", runs)?;
        engine
            .until_live((WARM_UP_RUNS + runs) as u64, WAITING_WITHIN)
            .await?;
        tokio::time::sleep(SETTLE).await;
        let just_started = engine.process.usage()?.memory_bytes;
        tokio::time::sleep(REST).await;
        let at_rest = engine.process.usage()?.memory_bytes;
        let each = |bytes: u64| bytes.saturating_sub(before) / runs as u64;
        Ok(Memory {
            whole: at_rest,
            per_run_just_started: each(just_started),
            per_run: each(at_rest),
        })
    }

    /// A bare loop that writes records of the size and number that the census counted.
    async fn ceiling(&self, loaded: &Loaded) -> Result<Ceiling, CliError> {
        self.say("the broker's ceiling: a bare loop with the same records");
        let (args, steps) = (self.args, self.args.steps);
        let of = |name: &str| loaded.census.get(name).copied().unwrap_or_default();
        let all = loaded
            .census
            .values()
            .fold(Count::default(), |sum, one| sum + *one);
        // A run's inputs are its start and a reply for each step.
        let inputs = (args.runs * (steps + 1)) as f64;
        let bare = BareLoopArgs {
            workers: args.workers,
            steps,
            events_per_input: of("events").records as f64 / inputs,
            states_per_input: of("state").records as f64 / inputs,
            event_bytes: of("events").mean_bytes(),
            state_bytes: of("state").mean_bytes(),
            task_bytes: of("tasks").mean_bytes(),
        };
        let prefix = fresh_prefix("bare");
        let mut topics = self.config.topics.clone();
        topics.prefix.clone_from(&prefix);
        let mut catalogue = Catalogue::load(&topics)?;
        let mut tasks = catalogue.tasks.clone();
        tasks.name = format!("{prefix}tasks.{}", shape::AGENT);
        catalogue.topics.push(tasks);
        Cluster::new(&self.client, CLUSTER_TIMEOUT)?
            .create(&catalogue, &prefix)
            .await?;
        let _process = start_bare_loop(&self.flags(&prefix), &bare)?;
        let load = self.load(&prefix).await?;
        load.drive("warm", "bare", WARM_UP_RUNS, steps, Pace::Window(50))
            .await?;
        let (_, latency) = self.latency(&load, "bare").await?;
        let figures = load
            .drive("full", "bare", args.runs, steps, Pace::Window(WINDOW))
            .await?;
        Ok(Ceiling {
            latency,
            steps_per_second: figures.steps_per_second,
            records_per_step: all.records as f64 / loaded.saturation.steps.max(1) as f64,
            record_bytes: all.mean_bytes(),
        })
    }

    async fn engine(&self, prefix: &str, definition: &Value) -> Result<Engine, CliError> {
        let data_dir = self.ground.folder.path().join(prefix);
        let engine = Engine::start(&self.flags(prefix), &data_dir, self.args.workers).await?;
        put(&engine.api, definition).await?;
        Ok(engine)
    }

    async fn load(&self, prefix: &str) -> Result<Load, CliError> {
        Load::start(&self.client, prefix, self.args.agent_isolation).await
    }

    /// What the processes are told: the same brokers, a prefix of their own.
    fn flags(&self, prefix: &str) -> Vec<String> {
        ["--kafka", &self.ground.brokers, "--prefix", prefix]
            .map(str::to_owned)
            .to_vec()
    }

    fn say(&self, text: &str) {
        self.context.output.say(text);
    }
}

fn fresh_prefix(name: &str) -> String {
    let unique = uuid::Uuid::now_v7().simple().to_string();
    format!("{name}-{}.", &unique[20..])
}

fn rounded(figure: f64) -> u64 {
    figure.round() as u64
}

async fn ground(context: &Context) -> Result<Ground, CliError> {
    let folder = tempfile::tempdir()
        .map_err(|error| CliError::Failed(format!("no temporary folder: {error}")))?;
    if context.kafka_is_named {
        return Ok(Ground {
            brokers: context.config.kafka.brokers.clone(),
            kind: "kafka",
            version: Value::Null,
            folder,
            _embedded: None,
        });
    }
    let broker = start_broker(Some(folder.path()), 0).await?;
    Ok(Ground {
        brokers: broker.bootstrap(),
        kind: "embedded",
        version: env!("CARGO_PKG_VERSION").into(),
        folder,
        _embedded: Some(broker),
    })
}

async fn put(api: &Api, definition: &Value) -> Result<(), CliError> {
    let name = definition["name"].as_str().unwrap_or_default();
    api.put(
        &format!("/v1/definitions/workflow/{}", segment(&format!("{name}@1"))),
        definition.to_string(),
    )
    .await?;
    Ok(())
}

/// Runs that completed, and runs that ended otherwise, as the engine counts them.
async fn outcome(api: &Api, workflow: &str) -> Result<(u64, u64), CliError> {
    let text = api.get("/metrics", &[]).await?.text;
    let label = format!("workflow=\"{workflow}\"");
    let sum = |name: &str| {
        let lines = text
            .lines()
            .filter(|line| line.starts_with(&format!("{name}{{")) && line.contains(&label));
        lines
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
            .sum::<f64>() as u64
    };
    Ok((sum("workflow_success_total"), sum("workflow_failure_total")))
}

/// What the broker would let a loop reach that does nothing but write these records.
struct Ceiling {
    latency: Figures,
    steps_per_second: f64,
    records_per_step: f64,
    record_bytes: usize,
}

impl Ceiling {
    fn into_json(mut self) -> Value {
        json!({
            "start_to_task_ms": self.latency.start_to_task.quantiles(),
            "reply_to_task_ms": self.latency.reply_to_task.quantiles(),
            "steps_per_second": rounded(self.steps_per_second),
            "records_per_second": rounded(self.steps_per_second * self.records_per_step),
            "record_bytes": self.record_bytes,
            "records_per_step": (self.records_per_step * 100.0).round() / 100.0,
        })
    }
}

fn print(context: &Context, result: &Value) {
    let output = &context.output;
    if !output.is_table() {
        output.document(result);
        return;
    }
    let number = |path: &str| {
        result
            .pointer(path)
            .map_or_else(|| "-".to_owned(), Value::to_string)
    };
    let offered = number("/runs_per_second_offered");
    let latency = |name: &str| {
        format!(
            "{}   at {offered} runs/s; the bare loop {}",
            quantile_words(&result[name]),
            quantile_words(&result["ceiling"][name])
        )
    };
    for (what, figure) in [
        (
            "broker",
            format!(
                "{} {}",
                result["broker"]["kind"].as_str().unwrap_or("-"),
                result["broker"]["version"].as_str().unwrap_or("")
            ),
        ),
        (
            "runs",
            format!(
                "{} completed, {} failed",
                number("/runs_completed"),
                number("/runs_failed")
            ),
        ),
        ("start → first task", latency("start_to_task_ms")),
        ("reply → next task", latency("reply_to_task_ms")),
        ("steps per second", number("/steps_per_second")),
        (
            "broker's ceiling",
            format!(
                "{} steps/s, {} records/s ({} a step of {} bytes)",
                number("/ceiling/steps_per_second"),
                number("/ceiling/records_per_second"),
                number("/ceiling/records_per_step"),
                number("/ceiling/record_bytes")
            ),
        ),
        (
            "of the ceiling",
            format!(
                "{:.0} %",
                result["ceiling_ratio"].as_f64().unwrap_or(0.0) * 100.0
            ),
        ),
        (
            "engine processor time",
            format!(
                "{} s, {} steps a second of it",
                number("/engine_cpu_seconds"),
                number("/steps_per_cpu_second")
            ),
        ),
        (
            "memory per live run",
            format!(
                "{} bytes over {} runs at rest, {} just started",
                number("/memory_bytes_per_live_run"),
                number("/live_runs_measured"),
                number("/memory_bytes_per_run_just_started")
            ),
        ),
        ("state operations", quantile_words(&result["state_op_ms"])),
    ] {
        output.line(&format!("{what:<22} {}", figure.trim_end()));
    }
}
