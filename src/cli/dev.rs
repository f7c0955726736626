//! `dev`: the embedded broker and one instance in one process, for work on definitions and agents.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use partita_broker::{Broker, Config as BrokerConfig, StartError};
use serde_json::json;

use super::apply::{files_of, gather, put};
use super::args::DevArgs;
use super::client::Api;
use super::output::complain;
use super::serve::{Signals, finish};
use super::{CliError, Context};
use crate::config::Config;
use crate::instance::{Instance, Start, definition_defaults};
use crate::telemetry;

/// Between two looks at the files of `--load`.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// After a failure that is not the files' fault.
const TRY_AGAIN_AFTER: Duration = Duration::from_secs(3);
/// How long the instance may take to own its partitions before definitions are loaded anyway.
const READY_WITHIN: Duration = Duration::from_secs(30);

pub async fn dev(context: &Context, args: DevArgs) -> Result<(), CliError> {
    let mut signals = Signals::listen();
    let metrics =
        telemetry::install_metrics().map_err(|error| CliError::Failed(error.to_string()))?;
    let folder = (!args.memory).then(|| {
        args.data
            .clone()
            .unwrap_or_else(|| context.config.store.data_dir.clone())
    });
    let broker = tokio::select! {
        broker = start_broker(folder.as_deref(), args.kafka_port) => broker?,
        signal = signals.next() => return signal.end(),
    };
    let mut config = context.config.clone();
    config.kafka.brokers = broker.bootstrap();
    config.http.listen = format!("127.0.0.1:{}", args.http_port);
    // Nobody else is there to take over: a restart after a kill is to go on at once.
    config.runtime.static_membership = true;
    let data_dir = folder.map(|folder| folder.join("state"));
    let instance = tokio::select! {
        instance = Instance::start(Start { config: &config, data_dir, metrics }) => instance?,
        signal = signals.next() => return signal.end(),
    };
    announce(context, &config, &instance)?;

    let loading = load(context, &config, &instance, &args.load);
    let signal = tokio::select! {
        signal = signals.next() => signal,
        error = loading => return Err(error),
    };
    let result = finish(instance, signal, &mut signals).await;
    broker.shutdown().await;
    result
}

/// Starts the embedded broker; port 0 picks a free one.
pub async fn start_broker(folder: Option<&std::path::Path>, port: u16) -> Result<Broker, CliError> {
    let mut config = match folder {
        Some(folder) => BrokerConfig::folder(folder.join("broker")),
        None => BrokerConfig::memory(),
    };
    config.listen = format!("127.0.0.1:{port}");
    // Topics are made by those who know their shape; a misspelt name must not make one.
    config.auto_create_topics = false;
    // The workers of an instance come within half a second: one rebalance for all of them.
    config.groups.initial_rebalance_delay_ms = 500;
    Broker::start(config).await.map_err(|error| {
        let remedy = match error {
            StartError::Listen { .. } => "; choose another port with --kafka-port",
            StartError::Store(_) => "; choose another folder with --data",
            StartError::Interrupted(_) => "",
        };
        CliError::Usage(format!(
            "the embedded broker does not start: {error}{remedy}"
        ))
    })
}

/// The first line on stdout: where everything is.
fn announce(context: &Context, config: &Config, instance: &Instance) -> Result<(), CliError> {
    let kafka = &config.kafka.brokers;
    let api = instance.api_url();
    if context.output.is_table() {
        context.output.line(&format!("kafka {kafka}  api {api}"));
    } else {
        context
            .output
            .stream_element(&json!({"kafka": kafka, "api": api}).to_string())?;
    }
    context.output.say(
        "Ctrl-C stops it; `partita apply PATH` loads definitions, `partita run NAME` starts a run",
    );
    Ok(())
}

/// Applies the files of `--load`, and again each time one changes. Faults are told and leave what
/// was applied before in force. Returns only where nothing can ever be loaded.
async fn load(
    context: &Context,
    config: &Config,
    instance: &Instance,
    paths: &[PathBuf],
) -> CliError {
    if paths.is_empty() {
        return std::future::pending().await;
    }
    let api = match Api::new(&instance.api_url()) {
        Ok(api) => api,
        Err(error) => return error,
    };
    instance.until_ready(READY_WITHIN).await;
    // Nothing is not the same as no files: a path that is not there is told at once.
    let mut seen = None;
    loop {
        let stamps = Some(stamps_of(paths));
        let mut pause = LOOK_EVERY;
        if stamps != seen {
            seen = stamps;
            if let Err(error) = apply_all(context, config, &api, paths).await {
                complain(&error.to_string());
                if matches!(error, CliError::Unreachable(_)) {
                    // Not the files' fault, so that they need not change for another try.
                    seen = None;
                    pause = TRY_AGAIN_AFTER;
                }
            }
        }
        tokio::time::sleep(pause).await;
    }
}

fn stamps_of(paths: &[PathBuf]) -> BTreeMap<PathBuf, Option<SystemTime>> {
    let files = files_of(paths).unwrap_or_default();
    files
        .into_iter()
        .map(|file| {
            (
                file.clone(),
                file.metadata().and_then(|meta| meta.modified()).ok(),
            )
        })
        .collect()
}

async fn apply_all(
    context: &Context,
    config: &Config,
    api: &Api,
    paths: &[PathBuf],
) -> Result<(), CliError> {
    let mut gathered = gather(paths, &definition_defaults(config))?;
    gathered.sort();
    for violation in &gathered.violations {
        complain(&violation.to_string());
    }
    for (_, definition) in &gathered.definitions {
        let name = definition.title();
        match put(api, definition, false).await {
            Ok(done) if done.word == "unchanged" => {}
            Ok(done) => {
                context.output.say(&format!("{name}: {}", done.word));
                for warning in &done.warnings {
                    context.output.say(&format!("warning: {warning}"));
                }
            }
            Err(error @ CliError::Unreachable(_)) => return Err(error.about(&name)),
            Err(error) => complain(&format!("{name}: {error}")),
        }
    }
    Ok(())
}
