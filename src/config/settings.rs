//! The tree of keys and their defaults. What each key means, its unit and its bounds are said in
//! `config/partita.yaml`, key by key, and not repeated here.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::values::{Secret, Span};
use crate::log::kafka::settings as client;
use crate::telemetry::LogFormat;

/// Everything that can be configured.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Config {
    pub kafka: KafkaSettings,
    pub topics: TopicsSettings,
    pub runtime: RuntimeSettings,
    pub store: StoreSettings,
    pub http: HttpSettings,
    pub agents: AgentsSettings,
    pub events: EventsSettings,
    pub schema_registry: SchemaRegistrySettings,
    pub rules: RulesSettings,
    pub client: ClientSettings,
    pub telemetry: TelemetrySettings,
}

/// How to reach Kafka.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct KafkaSettings {
    pub brokers: String,
    pub client_id: String,
    pub security: SecuritySettings,
    /// librdkafka's own names, for what has no key here.
    pub properties: BTreeMap<String, String>,
}

/// Encryption and identity towards Kafka.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SecuritySettings {
    pub tls: bool,
    pub ca_file: Option<PathBuf>,
    pub certificate_file: Option<PathBuf>,
    pub key_file: Option<PathBuf>,
    pub key_password: Option<Secret>,
    pub sasl_mechanism: Option<SaslMechanism>,
    pub username: Option<String>,
    pub password: Option<Secret>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SaslMechanism {
    Plain,
    #[serde(rename = "scram-sha-256")]
    ScramSha256,
    #[serde(rename = "scram-sha-512")]
    ScramSha512,
}

/// Names and shape of the topics.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TopicsSettings {
    pub prefix: String,
    pub partitions: Option<u32>,
    pub replication_factor: Option<u32>,
    pub file: Option<PathBuf>,
}

/// The exactly-once loop and its bounds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RuntimeSettings {
    pub workers: usize,
    pub batch_records: usize,
    pub batch_bytes: usize,
    pub max_payload_bytes: usize,
    pub max_concurrent_runs: usize,
    pub max_pending_runs: usize,
    pub retention: Span,
    pub cache_bytes: usize,
    pub write_behind: Span,
    pub park_for: Span,
    pub transaction_timeout: Span,
    pub session_timeout: Span,
    pub static_membership: bool,
    pub retry: RetrySettings,
}

/// What a step does after a failed attempt where its definition does not say.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RetrySettings {
    pub max_attempts: u32,
    pub backoff: BackoffSettings,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct BackoffSettings {
    pub initial: Span,
    pub multiplier: f64,
    pub max: Span,
}

/// The local cache of run state.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct StoreSettings {
    pub data_dir: PathBuf,
}

/// The HTTP server of an instance.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct HttpSettings {
    pub listen: String,
    pub advertise: Option<String>,
    pub max_connections: usize,
    pub header_timeout: Span,
    pub body_timeout: Span,
    pub idle_timeout: Span,
    pub send_timeout: Span,
}

/// Agents over HTTP and those built in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct AgentsSettings {
    pub lease: Span,
    pub echo: EchoAgentSettings,
    pub http: HttpAgentSettings,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct EchoAgentSettings {
    pub enabled: bool,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct HttpAgentSettings {
    pub allow: Vec<String>,
    pub max_response_bytes: usize,
    pub timeout: Span,
}

/// The intake of events for rules.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct EventsSettings {
    pub workers: usize,
    pub table_bytes: usize,
    pub table_wait: Span,
    pub batch_records: usize,
    pub schemas: Vec<PathBuf>,
}

/// Bounds of all rules.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct RulesSettings {
    pub max_depth: u32,
}

/// Where schemas of events in Avro are asked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SchemaRegistrySettings {
    pub url: Option<String>,
    pub username: Option<String>,
    pub password: Option<Secret>,
    pub timeout: Span,
}

/// Where the verbs that ask a server find it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ClientSettings {
    pub api: String,
}

/// Logs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TelemetrySettings {
    pub log_level: String,
    pub log_format: LogFormat,
}

impl KafkaSettings {
    /// As the clients of Kafka take them.
    pub fn client_settings(&self) -> client::ClientSettings {
        let security = &self.security;
        let tls = security.tls.then(|| client::Tls {
            ca_file: security.ca_file.clone(),
            certificate_file: security.certificate_file.clone(),
            key_file: security.key_file.clone(),
            skip_hostname_check: false,
        });
        let sasl = security.sasl_mechanism.map(|mechanism| client::Sasl {
            mechanism: match mechanism {
                SaslMechanism::Plain => client::SaslMechanism::Plain,
                SaslMechanism::ScramSha256 => client::SaslMechanism::ScramSha256,
                SaslMechanism::ScramSha512 => client::SaslMechanism::ScramSha512,
            },
            username: security.username.clone().unwrap_or_default(),
            password: security
                .password
                .as_ref()
                .map(|secret| secret.expose().to_owned())
                .unwrap_or_default(),
        });
        let mut properties = self.properties.clone();
        if let Some(password) = &security.key_password {
            properties.insert("ssl.key.password".to_owned(), password.expose().to_owned());
        }
        client::ClientSettings {
            brokers: self.brokers.clone(),
            client_id: self.client_id.clone(),
            security: client::Security { tls, sasl },
            properties,
        }
    }
}

impl Default for KafkaSettings {
    fn default() -> Self {
        Self {
            brokers: "127.0.0.1:9092".to_owned(),
            client_id: "partita".to_owned(),
            security: SecuritySettings::default(),
            properties: BTreeMap::new(),
        }
    }
}

impl Default for TopicsSettings {
    fn default() -> Self {
        Self {
            prefix: "partita.".to_owned(),
            partitions: None,
            replication_factor: None,
            file: None,
        }
    }
}

impl Default for RuntimeSettings {
    fn default() -> Self {
        Self {
            workers: 2,
            batch_records: 2_000,
            batch_bytes: 8 * 1024 * 1024,
            max_payload_bytes: 256 * 1024,
            max_concurrent_runs: 200_000,
            max_pending_runs: 100_000,
            retention: Span::days(7),
            cache_bytes: 256 * 1024 * 1024,
            write_behind: Span::seconds(1),
            park_for: Span::seconds(5),
            transaction_timeout: Span::seconds(10),
            session_timeout: Span::seconds(10),
            static_membership: false,
            retry: RetrySettings::default(),
        }
    }
}

impl Default for RetrySettings {
    fn default() -> Self {
        Self {
            max_attempts: 3,
            backoff: BackoffSettings::default(),
        }
    }
}

impl Default for BackoffSettings {
    fn default() -> Self {
        Self {
            initial: Span::seconds(1),
            multiplier: 2.0,
            max: Span::seconds(60),
        }
    }
}

impl Default for StoreSettings {
    fn default() -> Self {
        Self {
            data_dir: PathBuf::from("partita-data"),
        }
    }
}

impl Default for HttpSettings {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:8080".to_owned(),
            advertise: None,
            max_connections: 512,
            header_timeout: Span::seconds(10),
            body_timeout: Span::seconds(30),
            idle_timeout: Span::seconds(75),
            send_timeout: Span::seconds(30),
        }
    }
}

impl Default for AgentsSettings {
    fn default() -> Self {
        Self {
            lease: Span::seconds(30),
            echo: EchoAgentSettings::default(),
            http: HttpAgentSettings::default(),
        }
    }
}

impl Default for EchoAgentSettings {
    fn default() -> Self {
        Self { enabled: true }
    }
}

impl Default for HttpAgentSettings {
    fn default() -> Self {
        Self {
            allow: Vec::new(),
            max_response_bytes: 256 * 1024,
            timeout: Span::seconds(30),
        }
    }
}

impl Default for EventsSettings {
    fn default() -> Self {
        Self {
            workers: 1,
            table_bytes: 256 * 1024 * 1024,
            table_wait: Span::seconds(60),
            batch_records: 20_000,
            schemas: Vec::new(),
        }
    }
}

impl Default for RulesSettings {
    fn default() -> Self {
        Self { max_depth: 8 }
    }
}

impl Default for SchemaRegistrySettings {
    fn default() -> Self {
        Self {
            url: None,
            username: None,
            password: None,
            timeout: Span::seconds(5),
        }
    }
}

impl Default for ClientSettings {
    fn default() -> Self {
        Self {
            api: "http://127.0.0.1:8080".to_owned(),
        }
    }
}

impl Default for TelemetrySettings {
    fn default() -> Self {
        Self {
            log_level: "info".to_owned(),
            log_format: LogFormat::Human,
        }
    }
}
