//! The settings of a topic: which there are, what they may be, and their values ready for use.

use std::collections::BTreeMap;

/// What a setting's value looks like, as tools want to know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Int,
    Long,
    Double,
    Bool,
    List,
    Text,
}

/// One setting that a topic can have.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Setting {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    pub(crate) default: &'static str,
    /// For numbers: the least and the greatest value. For lists and texts: the words allowed, if they are limited.
    pub(crate) allowed: Allowed,
    pub(crate) doc: &'static str,
}

#[derive(Debug, Clone, Copy)]
pub(crate) enum Allowed {
    Any,
    Range(i64, i64),
    Fraction,
    Words(&'static [&'static str]),
}

const fn setting(
    name: &'static str,
    kind: Kind,
    default: &'static str,
    allowed: Allowed,
    doc: &'static str,
) -> Setting {
    Setting {
        name,
        kind,
        default,
        allowed,
        doc,
    }
}

use Allowed::{Any, Fraction, Range, Words};
const MAX: i64 = i64::MAX;
const MAX_INT: i64 = i32::MAX as i64;

/// Every setting, in the order of the names. Those marked as accepted are for clients of replicated brokers: their
/// values are kept and shown, and change nothing on a single node.
pub(crate) const SETTINGS: &[Setting] = &[
    setting(
        "cleanup.policy",
        Kind::List,
        "delete",
        Words(&["delete", "compact"]),
        "delete old records, keep the last of each key, or both",
    ),
    setting("compression.gzip.level", Kind::Int, "-1", Any, "accepted"),
    setting("compression.lz4.level", Kind::Int, "9", Any, "accepted"),
    setting(
        "compression.type",
        Kind::Text,
        "producer",
        Words(&["producer", "uncompressed", "gzip", "snappy", "lz4", "zstd"]),
        "accepted; batches are kept as their producer compressed them",
    ),
    setting("compression.zstd.level", Kind::Int, "3", Any, "accepted"),
    setting(
        "delete.retention.ms",
        Kind::Long,
        "86400000",
        Range(0, MAX),
        "how long compaction keeps the tombstone of a key, in milliseconds",
    ),
    setting(
        "file.delete.delay.ms",
        Kind::Long,
        "60000",
        Range(0, MAX),
        "accepted",
    ),
    setting(
        "flush.messages",
        Kind::Long,
        "9223372036854775807",
        Range(1, MAX),
        "accepted; durability is the broker's own setting",
    ),
    setting(
        "flush.ms",
        Kind::Long,
        "9223372036854775807",
        Range(0, MAX),
        "accepted; durability is the broker's own setting",
    ),
    setting(
        "follower.replication.throttled.replicas",
        Kind::List,
        "",
        Any,
        "accepted",
    ),
    setting(
        "index.interval.bytes",
        Kind::Int,
        "4096",
        Range(0, MAX_INT),
        "accepted",
    ),
    setting(
        "leader.replication.throttled.replicas",
        Kind::List,
        "",
        Any,
        "accepted",
    ),
    setting(
        "local.retention.bytes",
        Kind::Long,
        "-2",
        Range(-2, MAX),
        "accepted",
    ),
    setting(
        "local.retention.ms",
        Kind::Long,
        "-2",
        Range(-2, MAX),
        "accepted",
    ),
    setting(
        "max.compaction.lag.ms",
        Kind::Long,
        "9223372036854775807",
        Range(1, MAX),
        "the longest that a record waits for compaction, in milliseconds",
    ),
    setting(
        "max.message.bytes",
        Kind::Int,
        "1048588",
        Range(0, MAX_INT),
        "largest batch, in bytes",
    ),
    setting(
        "message.timestamp.after.max.ms",
        Kind::Long,
        "3600000",
        Range(0, MAX),
        "accepted",
    ),
    setting(
        "message.timestamp.before.max.ms",
        Kind::Long,
        "9223372036854775807",
        Range(0, MAX),
        "accepted",
    ),
    setting(
        "message.timestamp.type",
        Kind::Text,
        "CreateTime",
        Words(&["CreateTime", "LogAppendTime"]),
        "whose clock stamps records: the producer's or the broker's",
    ),
    setting(
        "min.cleanable.dirty.ratio",
        Kind::Double,
        "0.5",
        Fraction,
        "compaction begins when this part of the log is not compacted",
    ),
    setting(
        "min.compaction.lag.ms",
        Kind::Long,
        "0",
        Range(0, MAX),
        "the shortest time before a record may be compacted, in milliseconds",
    ),
    setting(
        "min.insync.replicas",
        Kind::Int,
        "1",
        Range(1, MAX_INT),
        "accepted; there is one replica",
    ),
    setting("preallocate", Kind::Bool, "false", Any, "accepted"),
    setting(
        "remote.storage.enable",
        Kind::Bool,
        "false",
        Words(&["false"]),
        "there is no remote storage",
    ),
    setting(
        "retention.bytes",
        Kind::Long,
        "-1",
        Range(-1, MAX),
        "most bytes of a partition; -1 for no limit",
    ),
    setting(
        "retention.ms",
        Kind::Long,
        "604800000",
        Range(-1, MAX),
        "oldest age of records, in milliseconds; -1 for no limit",
    ),
    setting(
        "segment.bytes",
        Kind::Int,
        "1073741824",
        Range(14, MAX_INT),
        "accepted; all partitions share the log's segments",
    ),
    setting(
        "segment.index.bytes",
        Kind::Int,
        "10485760",
        Range(4, MAX_INT),
        "accepted",
    ),
    setting(
        "segment.jitter.ms",
        Kind::Long,
        "0",
        Range(0, MAX),
        "accepted",
    ),
    setting(
        "segment.ms",
        Kind::Long,
        "604800000",
        Range(1, MAX),
        "accepted; all partitions share the log's segments",
    ),
    setting(
        "unclean.leader.election.enable",
        Kind::Bool,
        "false",
        Any,
        "accepted",
    ),
];

/// The setting of that name.
pub(crate) fn find(name: &str) -> Option<&'static Setting> {
    SETTINGS.iter().find(|setting| setting.name == name)
}

/// Longest value of a setting: a list of some thousand replicas, and nothing that an answer has no room for.
const MAX_VALUE_BYTES: usize = 32 << 10;

/// Why a setting is refused.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SettingError {
    #[error("unknown topic setting '{0}'")]
    Unknown(String),
    #[error("a value of '{name}' has at most {MAX_VALUE_BYTES} bytes, not {bytes}")]
    TooLong { name: String, bytes: usize },
    #[error("'{value}' is not a value for '{name}': {expected}")]
    Value {
        name: String,
        value: String,
        expected: String,
    },
}

/// Checks one setting.
pub(crate) fn check(name: &str, value: &str) -> Result<(), SettingError> {
    let setting = find(name).ok_or_else(|| SettingError::Unknown(name.to_owned()))?;
    if value.len() > MAX_VALUE_BYTES {
        return Err(SettingError::TooLong {
            name: name.to_owned(),
            bytes: value.len(),
        });
    }
    let refuse = |expected: String| {
        Err(SettingError::Value {
            name: name.to_owned(),
            value: value.to_owned(),
            expected,
        })
    };
    match (setting.kind, setting.allowed) {
        (Kind::Int | Kind::Long, Range(least, greatest)) => match value.trim().parse::<i64>() {
            Ok(number) if (least..=greatest).contains(&number) => Ok(()),
            _ => refuse(format!(
                "a whole number from {least} to {greatest} is expected"
            )),
        },
        (Kind::Double, _) => match value.trim().parse::<f64>() {
            Ok(number) if (0.0..=1.0).contains(&number) => Ok(()),
            _ => refuse("a number from 0 to 1 is expected".to_owned()),
        },
        (Kind::Bool, Words(words)) if !words.contains(&value) => {
            refuse(format!("expected is {}", words.join(" or ")))
        }
        (Kind::Bool, _) if !matches!(value, "true" | "false") => {
            refuse("true or false is expected".to_owned())
        }
        (Kind::List | Kind::Text, Words(words)) => {
            let parts: Vec<&str> = if setting.kind == Kind::List {
                value.split(',').map(str::trim).collect()
            } else {
                vec![value]
            };
            if parts.iter().all(|part| words.contains(part)) {
                Ok(())
            } else {
                refuse(format!("expected is one of {}", words.join(", ")))
            }
        }
        _ => Ok(()),
    }
}

/// The settings that the broker itself acts on.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct TopicSettings {
    pub(crate) delete: bool,
    pub(crate) compact: bool,
    /// Milliseconds; `None` for no limit.
    pub(crate) retention_ms: Option<i64>,
    /// Bytes of a partition; `None` for no limit.
    pub(crate) retention_bytes: Option<u64>,
    pub(crate) delete_retention_ms: i64,
    pub(crate) min_compaction_lag_ms: i64,
    pub(crate) max_compaction_lag_ms: i64,
    pub(crate) min_cleanable_ratio: f64,
    pub(crate) segment_bytes: u64,
    pub(crate) segment_ms: i64,
    /// `None` for the broker's own limit.
    pub(crate) max_message_bytes: Option<usize>,
    pub(crate) append_time: bool,
}

impl TopicSettings {
    /// Reads what was set, which was checked before.
    pub(crate) fn from_configs(configs: &BTreeMap<String, String>) -> TopicSettings {
        let text = |name: &str| {
            let default = find(name).map_or("", |setting| setting.default);
            configs.get(name).map_or(default, |value| value.trim())
        };
        let number = |name: &str| text(name).parse::<i64>().unwrap_or(-1);
        let policy = text("cleanup.policy");
        let has = |word: &str| policy.split(',').any(|part| part.trim() == word);
        TopicSettings {
            delete: has("delete"),
            compact: has("compact"),
            retention_ms: Some(number("retention.ms")).filter(|ms| *ms >= 0),
            retention_bytes: u64::try_from(number("retention.bytes")).ok(),
            delete_retention_ms: number("delete.retention.ms"),
            min_compaction_lag_ms: number("min.compaction.lag.ms"),
            max_compaction_lag_ms: number("max.compaction.lag.ms"),
            min_cleanable_ratio: text("min.cleanable.dirty.ratio").parse().unwrap_or(0.5),
            segment_bytes: number("segment.bytes").max(0) as u64,
            segment_ms: number("segment.ms"),
            max_message_bytes: configs
                .get("max.message.bytes")
                .and_then(|value| value.trim().parse().ok()),
            append_time: text("message.timestamp.type") == "LogAppendTime",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_default_is_allowed() {
        for setting in SETTINGS
            .iter()
            .filter(|setting| !setting.default.is_empty())
        {
            assert_eq!(
                check(setting.name, setting.default),
                Ok(()),
                "{}",
                setting.name
            );
        }
        assert!(SETTINGS.is_sorted_by_key(|setting| setting.name));
    }

    #[test]
    fn bad_values_are_refused_with_what_would_be_right() {
        let cases = [
            (
                "cleanup.policy",
                "delete,shred",
                "expected is one of delete, compact",
            ),
            ("retention.ms", "-2", "a whole number from -1"),
            ("min.cleanable.dirty.ratio", "1.5", "from 0 to 1"),
            ("preallocate", "yes", "true or false"),
            ("no.such.setting", "1", "unknown topic setting"),
        ];
        for (name, value, expected) in cases {
            let message = check(name, value).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
        assert_eq!(check("cleanup.policy", "compact, delete"), Ok(()));
        let replicas = "leader.replication.throttled.replicas";
        assert_eq!(check(replicas, &"1:1,".repeat(8 << 10)), Ok(()));
        for name in [replicas, "retention.ms"] {
            let message = check(name, &" ".repeat(40_000)).unwrap_err().to_string();
            assert!(
                message.contains("at most 32768 bytes, not 40000"),
                "{message}"
            );
        }
    }
}
