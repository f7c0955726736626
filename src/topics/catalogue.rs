//! `topics.yaml`, read and checked: what topics there are, without a cluster in sight.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use crate::config::{Span, TopicsSettings};

/// The file built in, for where no other is configured.
const BUILT_IN: &str = include_str!("../../topics.yaml");

/// Kafka's own limit on the length of a name.
const MAX_NAME_LEN: usize = 249;

#[derive(Debug, thiserror::Error)]
pub enum TopicsFileError {
    #[error("cannot read {file}: {source}")]
    Read {
        file: String,
        source: std::io::Error,
    },
    #[error("{file}: {message}")]
    Invalid { file: String, message: String },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Cleanup {
    Delete,
    Compact,
}

impl Cleanup {
    /// The value of `cleanup.policy`.
    pub fn name(self) -> &'static str {
        match self {
            Cleanup::Delete => "delete",
            Cleanup::Compact => "compact",
        }
    }
}

/// What decides which partition a record belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PartitionedBy {
    /// murmur2 of the run id: all such topics have one partition count.
    Run,
}

/// One topic as declared.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TopicSpec {
    /// With the prefix, once it is part of a [`Catalogue`].
    pub name: String,
    pub partitions: u32,
    #[serde(default)]
    pub partitioned_by: Option<PartitionedBy>,
    pub cleanup: Cleanup,
    /// Only where `cleanup` is delete.
    #[serde(default)]
    pub retention: Option<Span>,
    /// What the key of a record is, in words.
    pub key: String,
    /// The Avro schema's file, from the top of the repository.
    #[serde(default)]
    pub schema: Option<String>,
    /// `json`, `avro` or `original`: of records that do not say.
    pub encoding: String,
    /// Further configuration at creation, by Kafka's own names.
    #[serde(default)]
    pub config: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    topics: Vec<TopicSpec>,
    tasks: TopicSpec,
}

/// All topics of one installation, with their prefix.
#[derive(Clone, Debug, PartialEq)]
pub struct Catalogue {
    pub topics: Vec<TopicSpec>,
    /// The pattern of the topics of agents: its name ends before `.<agent>`.
    pub tasks: TopicSpec,
    /// Copies of each partition at creation; `None`: what the broker takes for its default.
    pub replication_factor: Option<u32>,
    /// Whether a partition count other than the declared one is a fault: where it was configured.
    pub partitions_are_wanted: bool,
}

impl Catalogue {
    /// Reads the configured file, or the one built in, and applies what settings override.
    ///
    /// # Errors
    /// A file that cannot be read, unknown keys, or topics that contradict one another.
    pub fn load(settings: &TopicsSettings) -> Result<Self, TopicsFileError> {
        match &settings.file {
            None => Self::parse(BUILT_IN, "topics.yaml", settings),
            Some(path) => Self::parse(&read(path)?, &path.display().to_string(), settings),
        }
    }

    fn parse(text: &str, file: &str, settings: &TopicsSettings) -> Result<Self, TopicsFileError> {
        let invalid = |message: String| TopicsFileError::Invalid {
            file: file.to_owned(),
            message,
        };
        let File {
            mut topics,
            mut tasks,
        } = serde_saphyr::from_str(text).map_err(|error| {
            let place = error
                .location()
                .map(|at| format!("line {}, column {}: ", at.line(), at.column()));
            invalid(format!(
                "{}{}",
                place.unwrap_or_default(),
                error.to_string().lines().next().unwrap_or_default()
            ))
        })?;
        for topic in topics.iter_mut().chain([&mut tasks]) {
            if topic.partitions == 0 {
                return Err(invalid(format!(
                    "topic `{}`: partitions must be at least 1",
                    topic.name
                )));
            }
            if topic.retention.is_some() != (topic.cleanup == Cleanup::Delete) {
                return Err(invalid(format!(
                    "topic `{}`: retention belongs to cleanup: delete, and only to it",
                    topic.name
                )));
            }
            if let (Some(PartitionedBy::Run), Some(partitions)) =
                (topic.partitioned_by, settings.partitions)
            {
                topic.partitions = partitions;
            }
            topic.name.insert_str(0, &settings.prefix);
            if topic.name.len() > MAX_NAME_LEN {
                return Err(invalid(format!(
                    "topic `{}`: the name is longer than {MAX_NAME_LEN}",
                    topic.name
                )));
            }
        }
        for required in [
            "commands",
            "replies",
            "events",
            "state",
            "definitions",
            "agents",
            "signals",
            "dead-letter",
        ] {
            if !topics
                .iter()
                .any(|topic| topic.name.strip_prefix(&settings.prefix) == Some(required))
            {
                return Err(invalid(format!("topic `{required}` is missing")));
            }
        }
        let catalogue = Self {
            topics,
            tasks,
            replication_factor: settings.replication_factor,
            partitions_are_wanted: settings.partitions.is_some(),
        };
        let counts: Vec<u32> = catalogue.of_runs().map(|topic| topic.partitions).collect();
        if counts.iter().any(|count| *count != counts[0]) {
            return Err(invalid(
                "topics with `partitioned_by: run` must have the same number of partitions"
                    .to_owned(),
            ));
        }
        Ok(catalogue)
    }

    /// The topics that share one partition count.
    pub fn of_runs(&self) -> impl Iterator<Item = &TopicSpec> {
        self.topics
            .iter()
            .filter(|topic| topic.partitioned_by == Some(PartitionedBy::Run))
    }
}

fn read(path: &Path) -> Result<String, TopicsFileError> {
    std::fs::read_to_string(path).map_err(|source| TopicsFileError::Read {
        file: path.display().to_string(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> TopicsSettings {
        TopicsSettings::default()
    }

    #[test]
    fn the_built_in_file_is_whole() {
        let catalogue = Catalogue::load(&settings()).unwrap();
        assert!(
            catalogue
                .topics
                .iter()
                .all(|topic| topic.name.starts_with("partita."))
        );
        let of_runs: Vec<_> = catalogue
            .of_runs()
            .map(|topic| topic.name.as_str())
            .collect();
        assert_eq!(
            of_runs,
            [
                "partita.commands",
                "partita.replies",
                "partita.events",
                "partita.state"
            ]
        );
        assert_eq!(catalogue.tasks.name, "partita.tasks");
    }

    #[test]
    fn settings_change_prefix_and_partitions_of_run_topics() {
        let catalogue = Catalogue::load(&TopicsSettings {
            prefix: "x-".into(),
            partitions: Some(3),
            ..settings()
        })
        .unwrap();
        assert!(
            catalogue
                .of_runs()
                .all(|topic| topic.partitions == 3 && topic.name.starts_with("x-"))
        );
        let definitions = catalogue
            .topics
            .iter()
            .find(|topic| topic.name == "x-definitions")
            .unwrap();
        assert_eq!(definitions.partitions, 1);
    }

    #[test]
    fn contradictions_are_told() {
        let check = |from: &str, to: &str, expected: &str| {
            let text = BUILT_IN.replacen(from, to, 1);
            assert_ne!(text, BUILT_IN, "{from}");
            let error = Catalogue::parse(&text, "t.yaml", &settings())
                .unwrap_err()
                .to_string();
            assert!(error.contains(expected), "{error}");
        };
        check(
            "name: commands, partitions: 8",
            "name: commands, partitions: 4",
            "same number of partitions",
        );
        check(
            "name: commands,",
            "name: comands,",
            "topic `commands` is missing",
        );
        check(
            "cleanup: compact,",
            "cleanup: compact, retention: 7d,",
            "retention belongs to",
        );
        check("cleanup: compact,", "cleanup: compacted,", "line ");
        check(
            "name: replies, partitions: 8",
            "name: replies, partitions: 0",
            "at least 1",
        );
    }
}
