//! The processes that a bench measures: an engine (`partita serve`) or the bare loop, each a child
//! of its own so that its processor time and memory are its alone.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::super::args::BareLoopArgs;
use crate::cli::CliError;
use crate::cli::client::Api;
use crate::telemetry::process::{Usage, usage_of};

/// From the start of the process to its first line.
const READY_WITHIN: Duration = Duration::from_secs(60);
/// From SIGTERM to SIGKILL.
const STOP_WITHIN: Duration = Duration::from_secs(15);

/// A child process; ends with this value.
pub struct Process {
    child: Child,
}

impl Process {
    fn spawn(arguments: &[String]) -> Result<Self, CliError> {
        let failed =
            |error: std::io::Error| CliError::Failed(format!("cannot start a process: {error}"));
        let program = std::env::current_exe().map_err(failed)?;
        let child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()
            .map_err(failed)?;
        Ok(Self { child })
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Processor time and memory so far.
    pub fn usage(&self) -> Result<Usage, CliError> {
        usage_of(self.child.id()).ok_or_else(|| {
            CliError::Failed("the measured process has ended, or /proc is absent".to_owned())
        })
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // The bare loop ends when its stdin closes, the engine on SIGTERM.
        drop(self.child.stdin.take());
        if let Ok(id) = libc::pid_t::try_from(self.child.id()) {
            // SAFETY: the child has not been waited for, so its id is still its own.
            unsafe { libc::kill(id, libc::SIGTERM) };
        }
        let deadline = Instant::now() + STOP_WITHIN;
        while Instant::now() < deadline {
            if !matches!(self.child.try_wait(), Ok(None)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An engine under measurement.
pub struct Engine {
    pub process: Process,
    pub api: Api,
}

impl Engine {
    /// Starts `partita serve` and waits until it is ready. `flags` go before the verb.
    pub async fn start(
        flags: &[String],
        data_dir: &std::path::Path,
        workers: usize,
    ) -> Result<Self, CliError> {
        let mut arguments = flags.to_vec();
        arguments.extend(["-q", "-o", "json", "serve", "--http", "127.0.0.1:0"].map(str::to_owned));
        arguments.extend(["--data".to_owned(), data_dir.display().to_string()]);
        arguments.extend(["--workers".to_owned(), workers.to_string()]);
        let mut process = Process::spawn(&arguments)?;
        let stdout = process.child.stdout.take().expect("piped above");
        let line = tokio::task::spawn_blocking(move || {
            let mut line = String::new();
            BufReader::new(stdout).read_line(&mut line).map(|_| line)
        });
        let line = tokio::time::timeout(READY_WITHIN, line).await;
        let line = line
            .ok()
            .and_then(Result::ok)
            .and_then(Result::ok)
            .unwrap_or_default();
        let told: Value = serde_json::from_str(&line).unwrap_or(Value::Null);
        let url = told["api"]
            .as_str()
            .ok_or_else(|| CliError::Failed("the engine's process did not start".to_owned()))?;
        let engine = Self {
            process,
            api: Api::new(url)?,
        };
        let deadline = Instant::now() + READY_WITHIN;
        while let Err(error) = engine.api.get("/readyz", &[]).await {
            if Instant::now() > deadline {
                return Err(error);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(engine)
    }

    /// Running and paused runs.
    pub async fn live_runs(&self) -> Result<u64, CliError> {
        let cluster = self.api.get("/v1/cluster", &[]).await?.value()?;
        let partitions = cluster["instances"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|one| one["partitions"].as_array());
        Ok(partitions
            .flatten()
            .filter_map(|partition| partition["live_runs"].as_u64())
            .sum())
    }

    /// Waits until exactly so many runs are live.
    pub async fn until_live(&self, runs: u64, at_most: Duration) -> Result<(), CliError> {
        let deadline = Instant::now() + at_most;
        loop {
            let live = self.live_runs().await?;
            if live == runs {
                return Ok(());
            }
            if Instant::now() > deadline {
                return Err(CliError::Failed(format!(
                    "{live} runs are live where {runs} should be"
                )));
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    pub async fn metrics(&self) -> Result<String, CliError> {
        Ok(self.api.get("/metrics", &[]).await?.text)
    }
}

/// Starts the bare loop.
pub fn start_bare_loop(flags: &[String], args: &BareLoopArgs) -> Result<Process, CliError> {
    let mut arguments = flags.to_vec();
    arguments.extend(["-q", "bench-bare-loop"].map(str::to_owned));
    let numbers = [
        ("--workers", args.workers.to_string()),
        ("--steps", args.steps.to_string()),
        ("--events-per-input", args.events_per_input.to_string()),
        ("--states-per-input", args.states_per_input.to_string()),
        ("--event-bytes", args.event_bytes.to_string()),
        ("--state-bytes", args.state_bytes.to_string()),
        ("--task-bytes", args.task_bytes.to_string()),
    ];
    arguments.extend(
        numbers
            .into_iter()
            .flat_map(|(flag, number)| [flag.to_owned(), number]),
    );
    Process::spawn(&arguments)
}
