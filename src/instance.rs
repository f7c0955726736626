//! One running instance, put together: topics, definitions, runtime, membership, HTTP API,
//! the intake of events, built-in agents. `serve`, `dev`, `demo` and `bench` all start the same thing.
//!
//! Order matters. Topics first (whoever comes first creates them), then the registry, so that a
//! worker finds definitions; then the workers; then membership, which tells the others what the
//! workers own; the HTTP door opens last, and until the brokers answer ([`brokers`]) a smaller one
//! stands in for it, which says that the instance lives and what it waits for. Shutdown goes the
//! other way round.

mod brokers;
mod intake;
mod name;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use metrics_exporter_prometheus::PrometheusHandle;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::agents::{PumpSettings, Pumps, agent, builtin};
use crate::api::connections::ConnectionLimits;
use crate::api::{Api, ApiSettings};
use crate::config::Config;
use crate::runtime::definitions::{Registry, RegistrySettings};
use crate::runtime::intake::Intake;
use crate::runtime::intake::schemas::SchemaSettings;
use crate::runtime::membership::{MemberSettings, Membership};
use crate::runtime::{self, Handle, Readiness, RuntimeConfig};
use crate::telemetry::process;
use crate::topics::{Catalogue, ClusterError};
use crate::workflow::definition::Defaults;
use crate::workflow::program::{Backoff, RetryPolicy};

/// Between two samples of memory and processor time.
const SAMPLE_EVERY: Duration = Duration::from_secs(5);
/// Open requests may take so long once the instance stops.
const HTTP_GRACE: Duration = Duration::from_secs(2);

/// Why an instance does not start.
#[derive(Debug, thiserror::Error)]
pub enum InstanceError {
    #[error(
        "cannot listen on {listen}: {source}; choose another address with --http, or a port with --http-port where it is dev"
    )]
    Listen {
        listen: String,
        source: std::io::Error,
    },
    #[error("cannot use the data folder {folder}: {source}")]
    DataDir {
        folder: PathBuf,
        source: std::io::Error,
    },
    #[error(transparent)]
    TopicsFile(#[from] crate::topics::TopicsFileError),
    #[error(transparent)]
    Cluster(#[from] ClusterError),
    #[error("the topics are not as they must be:\n{0}")]
    Topics(String),
    #[error("cannot start: {0}")]
    Start(String),
}

/// What an instance starts from, beside the configuration.
pub struct Start<'a> {
    pub config: &'a Config,
    /// Folder of the store; `None`: in memory, rebuilt from Kafka at each start.
    pub data_dir: Option<PathBuf>,
    pub metrics: PrometheusHandle,
}

/// A running instance.
pub struct Instance {
    pub runtime: Handle,
    pub definitions: Arc<Registry>,
    membership: Arc<Membership>,
    pumps: Arc<Pumps>,
    intake: Intake,
    address: SocketAddr,
    stop: CancellationToken,
    tasks: JoinSet<()>,
}

impl Instance {
    /// Starts everything; returns once the HTTP door is open, which may be before the instance
    /// owns any partition ([`Instance::until_ready`]). Waits for a broker that is away, as long
    /// as it takes.
    ///
    /// # Errors
    /// An address or folder that cannot be used, or topics that are not as declared.
    pub async fn start(start: Start<'_>) -> Result<Self, InstanceError> {
        let Start {
            config,
            data_dir,
            metrics,
        } = start;
        let listener = TcpListener::bind(&config.http.listen)
            .await
            .map_err(|source| InstanceError::Listen {
                listen: config.http.listen.clone(),
                source,
            })?;
        let address = listener
            .local_addr()
            .map_err(|source| InstanceError::Listen {
                listen: config.http.listen.clone(),
                source,
            })?;
        let name = name::of(data_dir.as_deref())?;
        tracing::info!(instance = %name, brokers = %config.kafka.brokers, prefix = %config.topics.prefix, "starting");
        let catalogue = Catalogue::load(&config.topics)?;
        let settings = api_settings(config);
        let limits = settings.connections;
        let listener = brokers::await_topics(listener, config, limits, &catalogue).await?;

        let client = config.kafka.client_settings();
        let failed = |what: &str, error: &dyn std::fmt::Display| {
            InstanceError::Start(format!("{what}: {error}"))
        };
        let definitions = Registry::start(registry_settings(config, &catalogue))
            .map_err(|error| failed("definitions", &error))?;
        let runtime = runtime::start(
            runtime_config(config, name.clone(), data_dir),
            Arc::clone(&definitions) as _,
        )
        .map_err(|error| failed("workers", &error))?;
        let intake = intake::start(config, &name, &(Arc::clone(&definitions) as _))?;
        let members = MemberSettings {
            client: client.client_config(),
            prefix: config.topics.prefix.clone(),
            instance: name,
            api: config
                .http
                .advertise
                .clone()
                .unwrap_or_else(|| url_of(address)),
        };
        let membership = Membership::start(members, Arc::new(runtime.clone()))
            .map_err(|error| failed("membership", &error))?;
        let pumps = Pumps::new(PumpSettings {
            lease: config.agents.lease.duration(),
            ..PumpSettings::new(client.client_config(), &config.topics.prefix)
        });
        let render = {
            let metrics = metrics.clone();
            Arc::new(move || metrics.render())
        };
        let api = Api::new(
            settings,
            Arc::new(runtime.clone()),
            Arc::clone(&definitions),
            Arc::clone(&membership),
            Arc::clone(&pumps),
            render,
        )
        .map_err(|error| failed("HTTP", &error))?;

        let stop = CancellationToken::new();
        let mut tasks = JoinSet::new();
        let stopping = stop.clone();
        tasks.spawn(async move {
            api.serve(listener, stopping, HTTP_GRACE).await;
        });
        tasks.spawn(builtin::run(
            built_in_agents(config),
            agent_settings(config),
            stop.clone(),
        ));
        let stopping = stop.clone();
        tasks.spawn(async move {
            tokio::select! {
                () = process::sample_forever(metrics, SAMPLE_EVERY) => {}
                () = stopping.cancelled() => {}
            }
        });
        tracing::info!(api = %url_of(address), "listening");
        Ok(Self {
            runtime,
            definitions,
            membership,
            pumps,
            intake,
            address,
            stop,
            tasks,
        })
    }

    /// Where the API answers, such as `http://127.0.0.1:8080`.
    pub fn api_url(&self) -> String {
        url_of(self.address)
    }

    /// Waits until the instance can do its work; `false` where the time was not enough.
    pub async fn until_ready(&self, at_most: Duration) -> bool {
        let deadline = Instant::now() + at_most;
        loop {
            let ready = self.not_ready_because().is_empty();
            if ready || Instant::now() >= deadline {
                return ready;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Why the instance cannot do its work yet, for people; empty once it can.
    pub fn not_ready_because(&self) -> Vec<String> {
        let mut reasons = match self.runtime.readiness() {
            Readiness::Ready => Vec::new(),
            Readiness::NotReady { reasons } => reasons,
        };
        if !self.definitions.restored() {
            reasons.push("the definitions have not been read yet".to_owned());
        }
        if !self.membership.restored() {
            reasons.push("the other instances have not been heard of yet".to_owned());
        }
        reasons
    }

    /// Closes the doors, finishes open transactions, leaves the groups and writes the store.
    /// `false` where that took longer than `at_most`.
    pub async fn stop(mut self, at_most: Duration) -> bool {
        let deadline = tokio::time::Instant::now() + at_most;
        self.stop.cancel();
        self.intake.stop();
        self.pumps.close().await;
        let all = async { while self.tasks.join_next().await.is_some() {} };
        let closed = tokio::time::timeout_at(deadline, all).await.is_ok();
        let left = deadline.saturating_duration_since(tokio::time::Instant::now());
        let finished = self
            .runtime
            .shutdown(left.max(Duration::from_secs(1)))
            .await;
        self.membership.leave().await;
        closed && finished && self.intake.until_finished(deadline).await
    }
}

/// A URL that reaches a listener; one that listens everywhere is reached on the loopback.
fn url_of(address: SocketAddr) -> String {
    let mut address = address;
    if address.ip().is_unspecified() {
        address.set_ip(std::net::Ipv4Addr::LOCALHOST.into());
    }
    format!("http://{address}")
}

/// Where the schemas of users' events come from, as configured.
pub fn event_schemas(config: &Config) -> SchemaSettings {
    intake::schema_settings(config)
}

/// What definitions leave open, as configured.
pub fn definition_defaults(config: &Config) -> Defaults {
    let retry = &config.runtime.retry;
    let backoff = Backoff {
        initial: retry.backoff.initial.0,
        multiplier: retry.backoff.multiplier,
        max: retry.backoff.max.0,
    };
    Defaults {
        retry: RetryPolicy {
            max_attempts: retry.max_attempts,
            backoff,
            retry_on: None,
        },
        ..Defaults::default()
    }
}

fn registry_settings(config: &Config, catalogue: &Catalogue) -> RegistrySettings {
    let factor = catalogue
        .replication_factor
        .map_or(-1, |factor| i32::try_from(factor).unwrap_or(i32::MAX));
    RegistrySettings {
        client: config.kafka.client_settings().client_config(),
        prefix: config.topics.prefix.clone(),
        task_partitions: i32::try_from(catalogue.tasks.partitions).unwrap_or(i32::MAX),
        replication_factor: factor,
        task_retention: catalogue
            .tasks
            .retention
            .map_or(Duration::from_secs(7 * 86_400), |span| span.duration()),
        task_config: catalogue.tasks.config.clone(),
        defaults: definition_defaults(config),
    }
}

fn runtime_config(config: &Config, instance: String, data_dir: Option<PathBuf>) -> RuntimeConfig {
    let settings = &config.runtime;
    RuntimeConfig {
        prefix: config.topics.prefix.clone(),
        workers: settings.workers,
        batch_records: settings.batch_records,
        event_batch_records: config.events.batch_records,
        batch_bytes: settings.batch_bytes,
        max_payload_bytes: settings.max_payload_bytes,
        max_concurrent_runs: settings.max_concurrent_runs,
        max_pending_runs: settings.max_pending_runs,
        retention: settings.retention.0,
        cache_bytes: settings.cache_bytes,
        write_behind: settings.write_behind.0,
        park_for: settings.park_for.0,
        max_rule_depth: config.rules.max_depth,
        transaction_timeout: settings.transaction_timeout.0,
        session_timeout: settings.session_timeout.0,
        static_membership: settings.static_membership,
        table_bytes: config.events.table_bytes,
        table_wait: config.events.table_wait.0,
        schemas: intake::schema_settings(config),
        data_dir,
        ..RuntimeConfig::new(config.kafka.client_settings(), instance)
    }
}

fn api_settings(config: &Config) -> ApiSettings {
    let http = &config.http;
    let defaults = ApiSettings::default();
    let max_payload_bytes = config.runtime.max_payload_bytes;
    ApiSettings {
        max_payload_bytes,
        // A payload at its limit fits, however it is indented.
        max_body_bytes: defaults.max_body_bytes.max(2 * max_payload_bytes),
        connections: ConnectionLimits {
            max_connections: http.max_connections,
            header_timeout: http.header_timeout.duration(),
            body_timeout: http.body_timeout.duration(),
            idle_timeout: http.idle_timeout.duration(),
            send_timeout: http.send_timeout.duration(),
        },
        ..defaults
    }
}

fn built_in_agents(config: &Config) -> builtin::BuiltIn {
    let http = &config.agents.http;
    builtin::BuiltIn {
        echo: config.agents.echo.enabled,
        http: (!http.allow.is_empty()).then(|| crate::agents::HttpSettings {
            allow: http.allow.clone(),
            max_response_bytes: http.max_response_bytes,
            timeout: http.timeout.duration(),
        }),
    }
}

fn agent_settings(config: &Config) -> agent::Settings {
    agent::Settings {
        client: config.kafka.client_settings().client_config(),
        prefix: config.topics.prefix.clone(),
        ..agent::Settings::new(&config.kafka.brokers)
    }
}
