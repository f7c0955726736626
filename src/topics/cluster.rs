//! Topics as a cluster has them: create what is missing, compare with what is declared, list.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication};
use rdkafka::client::{ClientContext, DefaultClientContext};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::metadata::Metadata;
use rdkafka::producer::{BaseProducer, DeliveryResult, Producer as _, ProducerContext};

use super::catalogue::{Catalogue, Cleanup, TopicSpec};
use crate::log::kafka::errors::failed_connection;

#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    #[error("cannot reach Kafka at {brokers}: {message}")]
    Unreachable { brokers: String, message: String },
    #[error("cannot make a Kafka client: {0}")]
    Client(String),
    #[error("Kafka refuses to create topic `{topic}`: {reason}")]
    Refused { topic: String, reason: String },
    #[error("topic `{topic}` was created, but no broker names it after {seconds} s; try again")]
    Unseen { topic: String, seconds: u64 },
}

/// A topic that the cluster has.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    pub name: String,
    pub partitions: usize,
    pub replication_factor: usize,
    /// `cleanup.policy` and `retention.ms`, as the broker says them.
    pub cleanup: Option<String>,
    pub retention_ms: Option<i64>,
    /// `max.message.bytes`, as the broker says it.
    pub max_message_bytes: Option<u64>,
}

/// What `check` says of one declared topic.
#[derive(Clone, Debug, PartialEq)]
pub struct Verdict {
    pub topic: String,
    /// `None`: as declared.
    pub fault: Option<TopicFault>,
}

/// In what a topic is not as declared, and what to do.
#[derive(Clone, Debug, PartialEq)]
pub struct TopicFault {
    pub what: String,
    pub remedy: &'static str,
    /// Whether no instance can work with it. Else it can until the topic refuses a record.
    pub forbids_work: bool,
}

impl std::fmt::Display for TopicFault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}; {}", self.what, self.remedy)
    }
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.fault {
            Some(fault) => write!(f, "{}: {fault}", self.topic),
            None => write!(f, "{}: as declared", self.topic),
        }
    }
}

/// `<topic>: <what is wrong and what to do>` for each topic that is not as declared.
pub fn faults(verdicts: &[Verdict]) -> Vec<String> {
    let faulty = verdicts.iter().filter(|verdict| verdict.fault.is_some());
    faulty.map(Verdict::to_string).collect()
}

/// Remembers why a connection last failed: the errors of librdkafka's calls say only that it did.
#[derive(Default)]
struct Failures(Mutex<Option<String>>);

impl Failures {
    fn last(&self) -> Option<String> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

impl ClientContext for Failures {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, line: &str) {
        tracing::debug!(?level, facility, line, "librdkafka");
        if let Some(reason) = failed_connection(facility, line) {
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(reason.to_owned());
        }
    }

    // What is told here is told by the log and by the call that failed.
    fn error(&self, _: KafkaError, _: &str) {}
}

impl ProducerContext for Failures {
    type DeliveryOpaque = ();

    fn delivery(&self, _: &DeliveryResult<'_>, (): ()) {}
}

/// Time for reading what librdkafka has logged already; it is there, and there is little of it.
const READ_LOG: Duration = Duration::from_millis(20);

/// An admin client of one cluster.
pub struct Cluster {
    admin: AdminClient<DefaultClientContext>,
    /// Asks for metadata. A producer that produces nothing: unlike an admin client it can be made to
    /// hand over what librdkafka has logged.
    asker: BaseProducer<Failures>,
    brokers: String,
    timeout: Duration,
}

impl Cluster {
    /// Makes the client; nothing is connected yet. `timeout` bounds each request.
    pub fn new(config: &ClientConfig, timeout: Duration) -> Result<Self, ClusterError> {
        let failed = |error: KafkaError| ClusterError::Client(error.to_string());
        let admin = config.create().map_err(failed)?;
        let asker = config
            .create_with_context(Failures::default())
            .map_err(failed)?;
        let brokers = config
            .get("bootstrap.servers")
            .unwrap_or_default()
            .to_owned();
        Ok(Self {
            admin,
            asker,
            brokers,
            timeout,
        })
    }

    fn unreachable(&self, message: impl ToString) -> ClusterError {
        self.asker.poll(READ_LOG);
        let message = match self.asker.context().last() {
            Some(reason) => format!("{}; {reason}", message.to_string()),
            None => message.to_string(),
        };
        ClusterError::Unreachable {
            brokers: self.brokers.clone(),
            message,
        }
    }

    fn options(&self) -> AdminOptions {
        AdminOptions::new()
            .request_timeout(Some(self.timeout))
            .operation_timeout(Some(self.timeout))
    }

    /// The topics whose names start with `prefix`, by name.
    pub async fn topics(&self, prefix: &str) -> Result<BTreeMap<String, Found>, ClusterError> {
        let mut found = self.without_configuration(prefix)?;
        let specifiers: Vec<_> = found
            .keys()
            .map(|name| ResourceSpecifier::Topic(name))
            .collect();
        if specifiers.is_empty() {
            return Ok(found);
        }
        let resources = self
            .admin
            .describe_configs(&specifiers, &self.options())
            .await
            .map_err(|error| self.unreachable(error))?;
        // A cluster that does not let us read configurations still lets us see the rest.
        for resource in resources.into_iter().flatten() {
            let rdkafka::admin::OwnedResourceSpecifier::Topic(name) = &resource.specifier else {
                continue;
            };
            let Some(topic) = found.get_mut(name) else {
                continue;
            };
            let value = |key: &str| resource.get(key).and_then(|entry| entry.value.clone());
            topic.cleanup = value("cleanup.policy");
            topic.retention_ms = value("retention.ms").and_then(|text| text.parse().ok());
            topic.max_message_bytes = value(ROOM).and_then(|text| text.parse().ok());
        }
        Ok(found)
    }

    fn metadata(&self) -> Result<Metadata, ClusterError> {
        let ask = || self.asker.client().fetch_metadata(None, self.timeout);
        tokio::task::block_in_place(ask).map_err(|error| self.unreachable(error))
    }

    fn without_configuration(&self, prefix: &str) -> Result<BTreeMap<String, Found>, ClusterError> {
        let metadata = self.metadata()?;
        let topics = metadata
            .topics()
            .iter()
            .filter(|topic| topic.name().starts_with(prefix));
        let found = topics.map(|topic| Found {
            name: topic.name().to_owned(),
            partitions: topic.partitions().len(),
            replication_factor: topic
                .partitions()
                .iter()
                .map(|partition| partition.replicas().len())
                .min()
                .unwrap_or(0),
            cleanup: None,
            retention_ms: None,
            max_message_bytes: None,
        });
        Ok(found.map(|topic| (topic.name.clone(), topic)).collect())
    }

    /// Creates the declared topics that are missing and returns their names. Those that are there
    /// stay as they are; a run topic takes the partition count of those that are there already.
    pub async fn create(
        &self,
        catalogue: &Catalogue,
        prefix: &str,
    ) -> Result<Vec<String>, ClusterError> {
        let there = self.without_configuration(prefix)?;
        let of_runs = catalogue
            .of_runs()
            .find_map(|topic| there.get(&topic.name))
            .map(|found| found.partitions);
        let missing: Vec<&TopicSpec> = catalogue
            .topics
            .iter()
            .filter(|topic| !there.contains_key(&topic.name))
            .collect();
        if missing.is_empty() {
            return Ok(Vec::new());
        }
        let replication = catalogue
            .replication_factor
            .map_or(-1, |factor| i32::try_from(factor).unwrap_or(i32::MAX));
        let retentions: Vec<_> = missing
            .iter()
            .map(|topic| topic.retention.map(|span| span.0.0.to_string()))
            .collect();
        let new: Vec<_> = missing
            .iter()
            .zip(&retentions)
            .map(|(topic, retention)| {
                let partitions = match (topic.partitioned_by, of_runs) {
                    (Some(_), Some(count)) => i32::try_from(count).unwrap_or(i32::MAX),
                    _ => i32::try_from(topic.partitions).unwrap_or(i32::MAX),
                };
                let new = NewTopic::new(
                    &topic.name,
                    partitions,
                    TopicReplication::Fixed(replication),
                )
                .set("cleanup.policy", topic.cleanup.name());
                let new = match retention {
                    Some(millis) => new.set("retention.ms", millis),
                    None => new,
                };
                topic
                    .config
                    .iter()
                    .fold(new, |new, (name, value)| new.set(name, value))
            })
            .collect();
        let results = self
            .admin
            .create_topics(&new, &self.options())
            .await
            .map_err(|error| self.unreachable(error))?;
        let mut created = Vec::new();
        for result in results {
            match result {
                Ok(name) => created.push(name),
                // Another instance was faster.
                Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                Err((topic, code)) => {
                    return Err(ClusterError::Refused {
                        topic,
                        reason: code.to_string(),
                    });
                }
            }
        }
        self.until_visible(&missing, prefix).await?;
        Ok(created)
    }

    /// Brokers hear of a creation some time after the controller has answered it; whoever looks
    /// next is not to miss the topics.
    async fn until_visible(&self, topics: &[&TopicSpec], prefix: &str) -> Result<(), ClusterError> {
        let deadline = tokio::time::Instant::now() + self.timeout;
        loop {
            let there = self.without_configuration(prefix)?;
            let has_partitions = |found: &Found| found.partitions > 0;
            let unseen = topics
                .iter()
                .find(|topic| !there.get(&topic.name).is_some_and(has_partitions));
            let Some(topic) = unseen else {
                return Ok(());
            };
            if tokio::time::Instant::now() > deadline {
                return Err(ClusterError::Unseen {
                    topic: topic.name.clone(),
                    seconds: self.timeout.as_secs(),
                });
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Compares every declared topic with the cluster.
    pub async fn check(
        &self,
        catalogue: &Catalogue,
        prefix: &str,
    ) -> Result<Vec<Verdict>, ClusterError> {
        Ok(compare(catalogue, &self.topics(prefix).await?))
    }
}

/// One verdict per declared topic, one on what topics must have in common, and the topics of agents that are
/// not as declared.
fn compare(catalogue: &Catalogue, found: &BTreeMap<String, Found>) -> Vec<Verdict> {
    let mut verdicts: Vec<_> = catalogue
        .topics
        .iter()
        .map(|topic| Verdict {
            topic: topic.name.clone(),
            fault: fault_of(catalogue, topic, found.get(&topic.name)),
        })
        .collect();
    let counts: Vec<_> = catalogue
        .of_runs()
        .filter_map(|topic| Some((topic.name.as_str(), found.get(&topic.name)?.partitions)))
        .collect();
    if counts.iter().any(|(_, count)| *count != counts[0].1) {
        let list: Vec<_> = counts
            .iter()
            .map(|(name, count)| format!("{name} {count}"))
            .collect();
        let what = format!(
            "a run lives in one partition number of all of these, so they need the same count: {}",
            list.join(", ")
        );
        verdicts.push(Verdict {
            topic: "co-partitioning".to_owned(),
            fault: Some(TopicFault::forbidding(what, ANEW)),
        });
    }
    let of_agents = format!("{}.", catalogue.tasks.name);
    let of_agents = found
        .values()
        .filter(|topic| topic.name.starts_with(&of_agents));
    verdicts.extend(of_agents.filter_map(|topic| {
        let fault = Some(lack_of_room(&catalogue.tasks, topic)?);
        let topic = topic.name.clone();
        Some(Verdict { topic, fault })
    }));
    verdicts
}

impl TopicFault {
    fn forbidding(what: String, remedy: &'static str) -> Self {
        Self {
            what,
            remedy,
            forbids_work: true,
        }
    }
}

/// Records may be larger than the topic takes.
fn lack_of_room(declared: &TopicSpec, found: &Found) -> Option<TopicFault> {
    let wanted: u64 = declared.config.get(ROOM)?.parse().ok()?;
    let room = found.max_message_bytes.filter(|room| *room < wanted)?;
    Some(TopicFault {
        what: format!(
            "has {ROOM}={room} and should have {wanted}, or a partition may stand still for a record that is refused"
        ),
        remedy: "raise its max.message.bytes with the broker's own tools",
        forbids_work: false,
    })
}

/// Kafka's name for the largest record of a topic.
const ROOM: &str = "max.message.bytes";

const ANEW: &str = "create the installation anew under another prefix";

fn fault_of(catalogue: &Catalogue, topic: &TopicSpec, found: Option<&Found>) -> Option<TopicFault> {
    let fault = |what: String, remedy| Some(TopicFault::forbidding(what, remedy));
    let Some(found) = found else {
        return fault("is missing".to_owned(), "`partita topics create` makes it");
    };
    let declared = usize::try_from(topic.partitions).unwrap_or(usize::MAX);
    let fixed = topic.partitioned_by.is_none() || catalogue.partitions_are_wanted;
    if topic.name.ends_with("definitions") && found.partitions != 1 {
        return fault(
            format!(
                "has {} partitions and must have 1, so that all instances read one order",
                found.partitions
            ),
            ANEW,
        );
    }
    if fixed && topic.partitioned_by.is_some() && found.partitions != declared {
        return fault(
            format!(
                "has {} partitions and should have {declared}",
                found.partitions
            ),
            "the count cannot change: correct topics.partitions, or create the installation anew under another prefix",
        );
    }
    if let Some(policy) = &found.cleanup {
        let compacts = policy.split(',').any(|word| word.trim() == "compact");
        if compacts != (topic.cleanup == Cleanup::Compact)
            || (compacts && policy.contains("delete"))
        {
            let wanted = topic.cleanup.name();
            return fault(
                format!(
                    "has cleanup.policy={policy} and must have {wanted}, or state is lost or never goes"
                ),
                "set its cleanup.policy with the broker's own tools",
            );
        }
    }
    if let Some(factor) = catalogue.replication_factor
        && found.replication_factor != usize::try_from(factor).unwrap_or(usize::MAX)
    {
        return fault(
            format!(
                "has {} copies of a partition and should have {factor}",
                found.replication_factor
            ),
            "reassign its partitions with the broker's own tools, or correct topics.replication_factor",
        );
    }
    lack_of_room(topic, found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::TopicsSettings;

    fn as_declared(catalogue: &Catalogue) -> BTreeMap<String, Found> {
        let found = |topic: &TopicSpec| Found {
            name: topic.name.clone(),
            partitions: topic.partitions as usize,
            replication_factor: 1,
            cleanup: Some(topic.cleanup.name().to_owned()),
            retention_ms: None,
            max_message_bytes: topic.config.get(ROOM).map(|room| room.parse().unwrap()),
        };
        catalogue
            .topics
            .iter()
            .map(|topic| (topic.name.clone(), found(topic)))
            .collect()
    }

    fn faults_of(catalogue: &Catalogue, found: &BTreeMap<String, Found>) -> Vec<String> {
        faults(&compare(catalogue, found))
    }

    #[test]
    fn a_cluster_as_declared_has_no_fault() {
        let catalogue = Catalogue::load(&TopicsSettings::default()).unwrap();
        assert_eq!(
            faults_of(&catalogue, &as_declared(&catalogue)),
            Vec::<String>::new()
        );
    }

    #[test]
    fn what_differs_is_told() {
        let catalogue = Catalogue::load(&TopicsSettings::default()).unwrap();
        let mut found = as_declared(&catalogue);
        found.remove("partita.agents");
        found.get_mut("partita.state").unwrap().cleanup = Some("delete".to_owned());
        found.get_mut("partita.replies").unwrap().partitions = 12;
        found.get_mut("partita.definitions").unwrap().partitions = 3;
        let faults = faults_of(&catalogue, &found);
        assert_eq!(faults.len(), 4, "{faults:#?}");
        assert!(
            faults
                .iter()
                .any(|fault| fault.starts_with("partita.agents: is missing"))
        );
        assert!(
            faults
                .iter()
                .any(|fault| fault.starts_with("partita.state: has cleanup.policy=delete"))
        );
        assert!(
            faults
                .iter()
                .any(|fault| fault.starts_with("partita.definitions: has 3 partitions"))
        );
        assert!(
            faults
                .iter()
                .any(|fault| fault.starts_with("co-partitioning:")
                    && fault.contains("partita.replies 12"))
        );
    }

    #[test]
    fn a_topic_with_less_room_than_declared_is_told_and_forbids_no_work() {
        let catalogue = Catalogue::load(&TopicsSettings::default()).unwrap();
        let mut found = as_declared(&catalogue);
        let more = Some(16 << 20);
        found.get_mut("partita.events").unwrap().max_message_bytes = more;
        assert_eq!(faults_of(&catalogue, &found), Vec::<String>::new());
        let less = Some(1 << 20);
        found.get_mut("partita.state").unwrap().max_message_bytes = less;
        found
            .get_mut("partita.definitions")
            .unwrap()
            .max_message_bytes = less;
        let of_agent = Found {
            name: "partita.tasks.hand".to_owned(),
            ..found["partita.state"].clone()
        };
        found.insert(of_agent.name.clone(), of_agent);
        let verdicts = compare(&catalogue, &found);
        let faulty = verdicts.iter().filter_map(|verdict| verdict.fault.as_ref());
        assert!(faulty.clone().all(|fault| !fault.forbids_work));
        let said = faults(&verdicts);
        assert_eq!(said.len(), 2, "{said:#?}");
        for (said, topic) in said.iter().zip(["state", "tasks.hand"]) {
            let words =
                format!("partita.{topic}: has max.message.bytes=1048576 and should have 8388608");
            assert!(said.starts_with(&words), "{said}");
        }
    }

    #[test]
    fn an_equal_count_other_than_declared_is_a_fault_only_where_it_was_asked_for() {
        for (wanted, expected) in [(None, 0), (Some(8), 4)] {
            let settings = TopicsSettings {
                partitions: wanted,
                ..TopicsSettings::default()
            };
            let catalogue = Catalogue::load(&settings).unwrap();
            let mut found = as_declared(&catalogue);
            for topic in catalogue.of_runs() {
                found.get_mut(&topic.name).unwrap().partitions = 16;
            }
            assert_eq!(faults_of(&catalogue, &found).len(), expected);
        }
    }
}
