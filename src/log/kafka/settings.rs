//! How to reach the cluster: brokers, encryption, authentication, and properties of librdkafka
//! that we have no word for.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use rdkafka::ClientConfig;

/// Settings that every client of an instance shares.
#[derive(Clone, Debug, PartialEq)]
pub struct ClientSettings {
    /// `HOST:PORT[,…]`.
    pub brokers: String,
    /// `client.id`, for the broker's logs and quotas.
    pub client_id: String,
    pub security: Security,
    /// Further properties of librdkafka, by its names; they win over everything but what
    /// exactly-once rests on.
    pub properties: BTreeMap<String, String>,
}

/// Encryption and authentication; both absent: plain text.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Security {
    pub tls: Option<Tls>,
    pub sasl: Option<Sasl>,
}

/// TLS to the brokers. Without `ca_file` the system's certificates are used.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tls {
    pub ca_file: Option<PathBuf>,
    /// Client certificate and key (PEM), for mutual TLS.
    pub certificate_file: Option<PathBuf>,
    pub key_file: Option<PathBuf>,
    /// Accept a certificate whose name is not the broker's. Off unless asked for.
    pub skip_hostname_check: bool,
}

/// User and password.
#[derive(Clone, PartialEq)]
pub struct Sasl {
    pub mechanism: SaslMechanism,
    pub username: String,
    pub password: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SaslMechanism {
    Plain,
    ScramSha256,
    ScramSha512,
}

impl fmt::Debug for Sasl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sasl")
            .field("mechanism", &self.mechanism)
            .field("username", &self.username)
            .field("password", &"…")
            .finish()
    }
}

impl SaslMechanism {
    pub fn name(self) -> &'static str {
        match self {
            SaslMechanism::Plain => "PLAIN",
            SaslMechanism::ScramSha256 => "SCRAM-SHA-256",
            SaslMechanism::ScramSha512 => "SCRAM-SHA-512",
        }
    }
}

impl ClientSettings {
    /// Plain text to `brokers`.
    pub fn plain(brokers: impl Into<String>) -> Self {
        Self {
            brokers: brokers.into(),
            client_id: "partita".to_owned(),
            security: Security::default(),
            properties: BTreeMap::new(),
        }
    }

    /// A librdkafka configuration that any client of ours starts from.
    pub fn client_config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.brokers);
        config.set("client.id", &self.client_id);
        // A broker that comes back is found within a second, not within ten.
        config.set("reconnect.backoff.max.ms", "1000");
        let protocol = match (&self.security.tls, &self.security.sasl) {
            (None, None) => "plaintext",
            (Some(_), None) => "ssl",
            (None, Some(_)) => "sasl_plaintext",
            (Some(_), Some(_)) => "sasl_ssl",
        };
        config.set("security.protocol", protocol);
        if let Some(tls) = &self.security.tls {
            for (name, file) in [
                ("ssl.ca.location", &tls.ca_file),
                ("ssl.certificate.location", &tls.certificate_file),
                ("ssl.key.location", &tls.key_file),
            ] {
                if let Some(file) = file {
                    config.set(name, file.to_string_lossy());
                }
            }
            if tls.skip_hostname_check {
                config.set("ssl.endpoint.identification.algorithm", "none");
            }
        }
        if let Some(sasl) = &self.security.sasl {
            config.set("sasl.mechanism", sasl.mechanism.name());
            config.set("sasl.username", &sasl.username);
            config.set("sasl.password", &sasl.password);
        }
        for (name, value) in &self.properties {
            config.set(name, value);
        }
        config
    }
}

/// What every reader of ours has in common, on top of the settings for reaching the cluster:
/// committed records only, from the beginning where nothing else is said, offsets never committed
/// behind our back.
///
/// `group` must be named even by those who assign by hand and never join. `wait` (milliseconds
/// count) is how long the broker may hold a fetch that finds nothing: it bounds how late the end of
/// a partition is told, and how long a question behind it on the same connection is held up.
pub fn reader_config(mut base: ClientConfig, group: &str, wait: Duration) -> ClientConfig {
    base.set("group.id", group)
        .set("isolation.level", "read_committed")
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "earliest")
        // A record is fetched when there is room again, not up to a second later.
        .set("fetch.queue.backoff.ms", "1")
        .set("fetch.wait.max.ms", wait.as_millis().to_string())
        // A batch or two at hand is all that helps; librdkafka would keep up to 64 MB.
        .set("queued.max.messages.kbytes", "16384");
    base
}

/// The group of readers that assign by hand: it is never joined.
pub const READERS_GROUP: &str = "partita.reader";
