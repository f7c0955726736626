//! `serve`: one instance against a Kafka cluster, until it is told to stop.

use std::time::Duration;

use serde_json::json;
use tokio::signal::unix::{self, SignalKind};

use super::{CliError, Context};
use crate::instance::{Instance, InstanceError, Start};
use crate::telemetry;

/// Longest graceful shutdown.
pub const SHUTDOWN_WITHIN: Duration = Duration::from_secs(20);

impl From<InstanceError> for CliError {
    fn from(error: InstanceError) -> Self {
        match error {
            InstanceError::Cluster(error) => error.into(),
            InstanceError::TopicsFile(error) => error.into(),
            InstanceError::Listen { .. } | InstanceError::DataDir { .. } => {
                CliError::Usage(error.to_string())
            }
            InstanceError::Topics(_) | InstanceError::Start(_) => {
                CliError::Failed(error.to_string())
            }
        }
    }
}

pub async fn serve(context: &Context) -> Result<(), CliError> {
    let mut signals = Signals::listen();
    let metrics =
        telemetry::install_metrics().map_err(|error| CliError::Failed(error.to_string()))?;
    let data_dir = Some(context.config.store.data_dir.clone());
    let start = Instance::start(Start {
        config: &context.config,
        data_dir,
        metrics,
    });
    // A broker that is away may hold the start for ever: a signal ends that too.
    let instance = tokio::select! {
        instance = start => instance?,
        signal = signals.next() => return signal.end(),
    };
    if !context.output.is_table() {
        context
            .output
            .stream_element(&json!({"api": instance.api_url()}).to_string())?;
    }
    let signal = signals.next().await;
    finish(instance, signal, &mut signals).await
}

/// How the process was asked to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Ctrl-C.
    Interrupt,
    /// What service managers send.
    Terminate,
}

/// SIGINT and SIGTERM from here on: one that comes while nobody waits is told to whoever waits next. Whoever
/// listens anew hears of none that came before, and the process does not end by it any more either.
pub struct Signals(Option<(unix::Signal, unix::Signal)>);

impl Signals {
    /// Must be called within a tokio runtime.
    pub fn listen() -> Self {
        let streams = (
            unix::signal(SignalKind::interrupt()),
            unix::signal(SignalKind::terminate()),
        );
        let (Ok(interrupt), Ok(terminate)) = streams else {
            tracing::error!("signals cannot be received; stop this process with SIGKILL");
            return Self(None);
        };
        Self(Some((interrupt, terminate)))
    }

    /// Waits for the next.
    pub async fn next(&mut self) -> Signal {
        let Some((interrupt, terminate)) = &mut self.0 else {
            return std::future::pending().await;
        };
        tokio::select! {
            _ = interrupt.recv() => Signal::Interrupt,
            _ = terminate.recv() => Signal::Terminate,
        }
    }
}

/// Waits for SIGINT or SIGTERM.
pub async fn stop_signal() -> Signal {
    Signals::listen().next().await
}

impl Signal {
    /// An instance runs until it is stopped, so being stopped is its good end: 0 after SIGTERM, 130 after
    /// Ctrl-C as shells expect it.
    pub fn end(self) -> Result<(), CliError> {
        match self {
            Signal::Terminate => Ok(()),
            Signal::Interrupt => Err(CliError::Interrupted),
        }
    }
}

/// Stops gracefully; a second signal ends that too.
pub async fn finish(
    instance: Instance,
    signal: Signal,
    signals: &mut Signals,
) -> Result<(), CliError> {
    tracing::info!("stopping");
    let clean = tokio::select! {
        clean = instance.stop(SHUTDOWN_WITHIN) => clean,
        _ = signals.next() => false,
    };
    if clean {
        tracing::info!("stopped");
    } else {
        tracing::warn!(
            "stopped before everything was finished; what was not committed is done again by others"
        );
    }
    signal.end()
}
