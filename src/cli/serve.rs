//! `serve`: one instance against a Kafka cluster, until it is told to stop.

use std::time::Duration;

use serde_json::json;

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
        _ = stop_signal() => return Err(CliError::Interrupted),
    };
    if !context.output.is_table() {
        context
            .output
            .stream_element(&json!({"api": instance.api_url()}).to_string());
    }
    let signal = stop_signal().await;
    finish(instance, signal).await
}

/// How the process was asked to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// Ctrl-C.
    Interrupt,
    /// What service managers send.
    Terminate,
}

/// Waits for SIGINT or SIGTERM.
pub async fn stop_signal() -> Signal {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut interrupt), Ok(mut terminate)) = (
        signal(SignalKind::interrupt()),
        signal(SignalKind::terminate()),
    ) else {
        tracing::error!("signals cannot be received; stop this process with SIGKILL");
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => Signal::Interrupt,
        _ = terminate.recv() => Signal::Terminate,
    }
}

/// Stops gracefully. An instance runs until it is stopped, so being stopped is its good end: 0
/// after SIGTERM, 130 after Ctrl-C as shells expect it.
pub async fn finish(instance: Instance, signal: Signal) -> Result<(), CliError> {
    tracing::info!("stopping");
    let clean = tokio::select! {
        clean = instance.stop(SHUTDOWN_WITHIN) => clean,
        _ = stop_signal() => false,
    };
    if clean {
        tracing::info!("stopped");
    } else {
        tracing::warn!(
            "stopped before everything was finished; what was not committed is done again by others"
        );
    }
    match signal {
        Signal::Terminate => Ok(()),
        Signal::Interrupt => Err(CliError::Interrupted),
    }
}
