//! The agents of the examples, written with the Rust library: they think for a few milliseconds
//! and give plausible answers. The clocks of [`Stopwatch`] run from a client's call and from an
//! agent's reply to the next agent's entry.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::agent::{Agent, Settings};
use crate::cli::measure::Samples;
use crate::model::{Failure, Json, Task, class};

/// Every agent that the examples name, `echo` aside, which is built in.
const AGENTS: &[&str] = &[
    "cmo_agent",
    "cfo_agent",
    "ceo_agent",
    "payments",
    "warehouse",
    "messages",
    "reviewer",
    "publisher",
    "editor",
    "collector",
    "reporter",
];

/// Tasks of one agent under way at one time.
const CONCURRENCY: usize = 64;

/// Latencies, taken on this process's clock.
#[derive(Default)]
pub struct Stopwatch(Mutex<Clocks>);

#[derive(Default)]
struct Clocks {
    called: HashMap<String, Instant>,
    replied: HashMap<String, Instant>,
    start_to_task: Samples,
    reply_to_task: Samples,
}

impl Stopwatch {
    /// Forgets what was measured so far.
    pub fn start_over(&self) {
        *self.clocks() = Clocks::default();
    }

    /// Just before the client's call.
    pub fn call(&self, run: &str) {
        self.clocks().called.insert(run.to_owned(), Instant::now());
    }

    /// A second attempt is no next task: what lies before it is a backoff, not the engine.
    fn entry(&self, run: &str, attempt: u32) {
        let now = Instant::now();
        let mut clocks = self.clocks();
        if attempt > 1 {
            return;
        }
        if let Some(at) = clocks.called.remove(run) {
            clocks.start_to_task.add(now - at);
        } else if let Some(at) = clocks.replied.remove(run) {
            clocks.reply_to_task.add(now - at);
        }
    }

    /// Just before a reply is sent.
    fn reply(&self, run: &str) {
        self.clocks().replied.insert(run.to_owned(), Instant::now());
    }

    /// Call → first task, reply → next task.
    pub fn samples(&self) -> (Samples, Samples) {
        let clocks = self.clocks();
        (clocks.start_to_task.clone(), clocks.reply_to_task.clone())
    }

    fn clocks(&self) -> std::sync::MutexGuard<'_, Clocks> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Runs all agents until `stop` is cancelled.
pub fn start(
    settings: &Settings,
    stopwatch: &Arc<Stopwatch>,
    stop: &CancellationToken,
) -> JoinSet<()> {
    let mut running = JoinSet::new();
    for name in AGENTS {
        let stopwatch = Arc::clone(stopwatch);
        let agent = Agent::new(settings.clone(), *name)
            .handler(move |task, _| {
                let stopwatch = Arc::clone(&stopwatch);
                async move {
                    let run = task.run_id.as_str().to_owned();
                    stopwatch.entry(&run, task.attempt);
                    tokio::time::sleep(thinking_time(&task)).await;
                    let answer = answer(&task);
                    stopwatch.reply(&run);
                    answer
                }
            })
            .concurrency(CONCURRENCY);
        let stop = stop.clone();
        running.spawn(async move {
            if let Err(error) = agent.run_until(stop).await {
                tracing::error!(agent = name, %error, "an agent of the demo stopped");
            }
        });
    }
    running
}

/// 2 to 21 ms, by the task, so that two demos do the same.
fn thinking_time(task: &Task) -> Duration {
    Duration::from_millis(2 + spread(task) % 20)
}

/// A number that depends on the run and the step (FNV-1a).
fn spread(task: &Task) -> u64 {
    let bytes = task.run_id.as_str().bytes().chain(task.step_id.bytes());
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

fn answer(task: &Task) -> Result<Json, Failure> {
    let wanted: serde_json::Value = task.task.parse().unwrap_or_default();
    let action = wanted["action"]
        .as_str()
        .or(wanted["source"].as_str())
        .unwrap_or_default();
    let value = match (task.agent.as_str(), action) {
        ("cmo_agent", _) => json!({"segment": "small firms", "growth": 0.12, "sentiment": "good"}),
        ("cfo_agent", _) => json!({"revenue": 4_200_000, "confidence": 0.81}),
        ("ceo_agent", _) => json!({"decision": "expand", "budget": 350_000}),
        // A payment service that is away now and then: the second attempt finds it.
        ("payments", _) if task.attempt == 1 && spread(task).is_multiple_of(10) => {
            return Err(Failure::new(
                class::CONNECTION_ERROR,
                "the payment service did not answer",
            ));
        }
        ("payments", _) => json!({"payment": format!("p-{}", spread(task) % 100_000)}),
        ("warehouse", "reserve") => json!({"reservation": format!("r-{}", spread(task) % 100_000)}),
        ("warehouse", _) => json!({"tracking": format!("t-{}", spread(task) % 100_000)}),
        ("reviewer", _) => {
            json!({"value": (spread(task) % 100) as f64 / 100.0, "remarks": ["shorter sentences"]})
        }
        ("editor", _) => json!({"text": "edited"}),
        ("collector", "traffic") if spread(task).is_multiple_of(4) => {
            return Err(Failure::new(
                "not_available",
                "no traffic was counted on that day",
            ));
        }
        ("collector", source) => json!({"source": source, "rows": spread(task) % 1_000}),
        ("reporter", _) => json!({"pages": 3, "document": "report.pdf"}),
        _ => Value::Bool(true),
    };
    Ok(Json::from(value))
}
