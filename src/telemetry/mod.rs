//! What an operator sees: metrics for Prometheus and logs.
//!
//! [`names`] is the one list of metrics (name, unit, help, buckets). [`install_metrics`] registers
//! them and returns the handle that `/metrics` renders; it opens no port of its own. [`process`]
//! samples this process's memory and processor time. [`init_logs`] sends `tracing` to stderr, for
//! people or as JSON lines.

pub mod names;
pub mod process;

use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use serde::{Deserialize, Serialize};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

use names::{Kind, METRICS};

/// What can go wrong while logs and metrics are set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    #[error("metrics cannot be installed: {0}")]
    Metrics(#[from] metrics_exporter_prometheus::BuildError),
    #[error(
        "`{filter}` is not a log level (error, warn, info, debug, trace) or a filter such as `info,partita=debug`: {message}"
    )]
    Filter { filter: String, message: String },
}

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One line for people.
    #[default]
    Human,
    /// One JSON object a line.
    Json,
}

/// Registers every metric and makes this process's recorder the global one. Once per process.
///
/// # Errors
/// Where a recorder is installed already.
pub fn install_metrics() -> Result<PrometheusHandle, TelemetryError> {
    let mut builder = PrometheusBuilder::new();
    for metric in METRICS {
        if let Kind::Histogram(buckets) = metric.kind {
            builder =
                builder.set_buckets_for_metric(Matcher::Full(metric.name.to_owned()), buckets)?;
        }
    }
    let handle = builder.install_recorder()?;
    for metric in METRICS {
        match metric.kind {
            Kind::Counter => metrics::describe_counter!(metric.name, metric.unit, metric.help),
            Kind::Gauge => metrics::describe_gauge!(metric.name, metric.unit, metric.help),
            Kind::Histogram(_) => {
                metrics::describe_histogram!(metric.name, metric.unit, metric.help)
            }
        }
    }
    Ok(handle)
}

/// Sends `tracing` to stderr. `filter` is a level or a list of `target=level`; `RUST_LOG`, where
/// it is set, wins.
///
/// # Errors
/// Where `filter` cannot be read. A second call changes nothing.
pub fn init_logs(filter: &str, format: LogFormat, color: bool) -> Result<(), TelemetryError> {
    let filter = match std::env::var("RUST_LOG") {
        Ok(text) if !text.is_empty() => text,
        _ => filter.to_owned(),
    };
    let filter = EnvFilter::try_new(&filter).map_err(|error| TelemetryError::Filter {
        filter: filter.clone(),
        message: error.to_string(),
    })?;
    // A log that nobody reads any more (`2>&1 | head`) must not bring down who writes it.
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .log_internal_errors(false);
    let registry = tracing_subscriber::registry().with(filter);
    // An error here means that a test or an embedding program has set up its own subscriber.
    let _ = match format {
        LogFormat::Human => registry
            .with(lines.with_ansi(color).with_target(false))
            .try_init(),
        LogFormat::Json => registry.with(lines.json().flatten_event(true)).try_init(),
    };
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_filter_is_named() {
        let error = init_logs("partita=loud", LogFormat::Human, false).unwrap_err();
        assert!(error.to_string().contains("partita=loud"), "{error}");
    }

    #[test]
    fn histograms_are_rendered_with_their_buckets_and_help() {
        let handle = install_metrics().unwrap();
        metrics::histogram!(names::COMMIT_SECONDS).record(0.003);
        metrics::counter!(names::DEAD_LETTERS_TOTAL, "class" => "unreadable").increment(2);
        let text = handle.render();
        assert!(
            text.contains("# TYPE partita_commit_seconds histogram"),
            "{text}"
        );
        assert!(
            text.contains("partita_commit_seconds_bucket{le=\"0.005\"} 1"),
            "{text}"
        );
        assert!(
            text.contains("partita_dead_letters_total{class=\"unreadable\"} 2"),
            "{text}"
        );
        assert!(text.contains("# HELP partita_dead_letters_total"), "{text}");
    }
}
