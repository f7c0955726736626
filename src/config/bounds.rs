//! What values a key may take beyond its type. The comments of `config/partita.yaml` repeat each
//! line; a test compares them.

use serde_json::Value;

use super::layers::Sources;
use super::values::Span;
use super::{Config, Fault};

/// Smallest and largest value of a key, both allowed.
pub struct Bound {
    pub path: &'static str,
    pub range: Range,
}

pub enum Range {
    Count(u64, u64),
    Number(f64, f64),
    Time(Span, Span),
}

const fn count(path: &'static str, least: u64, most: u64) -> Bound {
    Bound {
        path,
        range: Range::Count(least, most),
    }
}

const fn time(path: &'static str, least: Span, most: Span) -> Bound {
    Bound {
        path,
        range: Range::Time(least, most),
    }
}

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;

pub const BOUNDS: &[Bound] = &[
    count("topics.partitions", 1, 1_000),
    count("topics.replication_factor", 1, 15),
    count("runtime.workers", 1, 64),
    count("runtime.batch_records", 1, 100_000),
    count("runtime.batch_bytes", KIB, 256 * MIB),
    count("runtime.max_payload_bytes", KIB, MIB),
    count("runtime.max_concurrent_runs", 1, 10_000_000),
    count("runtime.max_pending_runs", 0, 10_000_000),
    time("runtime.retention", Span::seconds(60), Span::days(3_650)),
    count("runtime.cache_bytes", MIB, 64 * KIB * MIB),
    time("runtime.write_behind", Span::millis(10), Span::seconds(60)),
    time("runtime.park_for", Span::millis(0), Span::seconds(3_600)),
    time(
        "runtime.transaction_timeout",
        Span::seconds(1),
        Span::seconds(900),
    ),
    time(
        "runtime.session_timeout",
        Span::seconds(6),
        Span::seconds(300),
    ),
    count("runtime.retry.max_attempts", 1, 1_000),
    time(
        "runtime.retry.backoff.initial",
        Span::millis(1),
        Span::days(1),
    ),
    Bound {
        path: "runtime.retry.backoff.multiplier",
        range: Range::Number(1.0, 100.0),
    },
    time("runtime.retry.backoff.max", Span::millis(1), Span::days(1)),
    count("http.max_connections", 1, 100_000),
    time("http.header_timeout", Span::millis(100), Span::seconds(600)),
    time("http.body_timeout", Span::millis(100), Span::seconds(3_600)),
    time("http.idle_timeout", Span::millis(100), Span::seconds(3_600)),
    time("http.send_timeout", Span::millis(100), Span::seconds(3_600)),
    time("agents.lease", Span::seconds(1), Span::seconds(3_600)),
    count("agents.http.max_response_bytes", KIB, 16 * MIB),
    time(
        "agents.http.timeout",
        Span::millis(100),
        Span::seconds(3_600),
    ),
    count("events.workers", 1, 64),
    count("events.table_bytes", MIB, 64 * KIB * MIB),
    time("events.table_wait", Span::millis(100), Span::seconds(3_600)),
    count("rules.max_depth", 1, 1_000),
    count("events.batch_records", 1, 100_000),
    time(
        "schema_registry.timeout",
        Span::millis(100),
        Span::seconds(300),
    ),
];

impl Range {
    /// As error messages and `config/partita.yaml` say it.
    pub fn words(&self) -> String {
        match self {
            Range::Count(least, most) => format!("{least} to {most}"),
            Range::Number(least, most) => format!("{least} to {most}"),
            Range::Time(least, most) => format!("{least} to {most}"),
        }
    }

    fn admits(&self, value: &Value) -> bool {
        match (self, value) {
            (_, Value::Null) => true,
            (Range::Count(least, most), value) => value
                .as_u64()
                .is_some_and(|n| (*least..=*most).contains(&n)),
            (Range::Number(least, most), value) => value
                .as_f64()
                .is_some_and(|n| (*least..=*most).contains(&n)),
            (Range::Time(least, most), Value::String(text)) => {
                Span::parse(text).is_some_and(|span| (*least..=*most).contains(&span))
            }
            _ => false,
        }
    }
}

/// Adds a fault for each key out of bounds and each pair of keys that contradict one another.
pub fn check(config: &Config, sources: &Sources, faults: &mut Vec<Fault>) {
    let tree = serde_json::to_value(config).expect("settings are plain data");
    for bound in BOUNDS {
        let value = tree
            .pointer(&format!("/{}", bound.path.replace('.', "/")))
            .unwrap_or(&Value::Null);
        if !bound.range.admits(value) {
            let shown = value
                .as_str()
                .map_or_else(|| value.to_string(), str::to_owned);
            faults.push(Fault {
                origin: sources.origin(bound.path),
                message: format!(
                    "`{}` is {shown}; allowed: {}",
                    bound.path,
                    bound.range.words()
                ),
            });
        }
    }
    let mut fault = |path: &str, message: String| {
        faults.push(Fault {
            origin: sources.origin(path),
            message,
        })
    };

    let backoff = &config.runtime.retry.backoff;
    if backoff.initial > backoff.max {
        let message = format!(
            "`runtime.retry.backoff.initial` is {} and exceeds `max`, which is {}",
            backoff.initial, backoff.max
        );
        fault("runtime.retry.backoff.initial", message);
    }
    for broker in config.kafka.brokers.split(',') {
        let port = broker
            .trim()
            .rsplit_once(':')
            .and_then(|(host, port)| (!host.is_empty()).then_some(port));
        if port.and_then(|port| port.parse::<u16>().ok()).is_none() {
            let message = format!(
                "`kafka.brokers` holds `{broker}`; write HOST:PORT, several separated by commas"
            );
            fault("kafka.brokers", message);
        }
    }
    let prefix = &config.topics.prefix;
    if prefix.is_empty()
        || prefix.len() > 64
        || !prefix
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b))
    {
        let message = format!(
            "`topics.prefix` is `{prefix}`; allowed: 1 to 64 characters of A-Z a-z 0-9 - . _"
        );
        fault("topics.prefix", message);
    }
    if config.http.listen.parse::<std::net::SocketAddr>().is_err() {
        let message = format!(
            "`http.listen` is `{}`; write IP:PORT, such as 0.0.0.0:8080",
            config.http.listen
        );
        fault("http.listen", message);
    }
    for (path, url) in [
        ("client.api", Some(&config.client.api)),
        ("http.advertise", config.http.advertise.as_ref()),
        ("schema_registry.url", config.schema_registry.url.as_ref()),
    ] {
        if url.is_some_and(|url| !url.starts_with("http://") && !url.starts_with("https://")) {
            let message = format!(
                "`{path}` is `{}`; write a URL, such as http://127.0.0.1:8080",
                url.expect("checked")
            );
            fault(path, message);
        }
    }
    let security = &config.kafka.security;
    if security.sasl_mechanism.is_some()
        && (security.username.is_none() || security.password.is_none())
    {
        let message =
            "`kafka.security.sasl_mechanism` is set; `username` and `password` are needed with it"
                .to_owned();
        fault("kafka.security.sasl_mechanism", message);
    }
    if security.certificate_file.is_some() != security.key_file.is_some() {
        let message =
            "`kafka.security.certificate_file` and `key_file` belong together: set both or neither"
                .to_owned();
        fault("kafka.security", message);
    }
}
