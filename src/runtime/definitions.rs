//! The registry of definitions: the compacted topic `definitions`, read whole by each instance
//! and held compiled in memory. Key `<kind>/<name>/<version>`, value the canonical JSON of the
//! definition; a tombstone deletes.
//!
//! An applied version never changes: a run pins the version it started with, so what that version
//! says must stay. Applying the same content again changes nothing; other content under the same
//! version is refused, and the remedy is a higher version.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::error::KafkaError;
use rdkafka::producer::{FutureProducer, FutureRecord, Producer as _};
use rdkafka::types::RDKafkaErrorCode;

use super::DefinitionRegistry;
pub use super::applied::Stored;
use super::applied::Table;
use super::follower::{Entry, FollowError, Follower};
use super::kinds::{self, Definition, Kind};
use super::rules::RuleSet;
use super::task_topics;
use crate::clock::{Clock, SystemClock};
use crate::engine::Definitions;
use crate::log::{ErrorClass, LogError};
use crate::model::Timestamp;
use crate::pattern::Rule;
use crate::workflow::Workflow;
use crate::workflow::definition::{Defaults, Violations};

/// How long an apply may wait for the broker, and for its own record to come back.
const WITHIN: Duration = Duration::from_secs(10);
/// How long a worker may be held up each time that it asks for what is unknown here.
const CATCH_UP_WITHIN: Duration = Duration::from_secs(5);

/// JSON of a definition, in bytes at most. Kafka takes a record of a million bytes unless it is told
/// otherwise, and the key is in it.
const LARGEST_DEFINITION: usize = 960 << 10;

/// Where the registry lives, and what it needs to make the topics of agents.
#[derive(Clone, Debug)]
pub struct RegistrySettings {
    /// Brokers and security; the registry adds what else it needs.
    pub client: ClientConfig,
    /// Prefix of all topics, such as `partita.`.
    pub prefix: String,
    /// Partitions of a new `tasks.<agent>` topic; at least 1.
    pub task_partitions: i32,
    /// Replicas of a new `tasks.<agent>` topic; at least 1, or -1 for the cluster's default.
    pub replication_factor: i32,
    /// How long records of a new `tasks.<agent>` topic are kept.
    pub task_retention: Duration,
    /// Further configuration of the topics of agents at creation, by Kafka's own names.
    pub task_config: BTreeMap<String, String>,
    /// What definitions leave open.
    pub defaults: Defaults,
}

/// What an apply did to one definition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    Created,
    /// It was there already, with the same content.
    Unchanged,
}

#[derive(Clone, Debug)]
pub struct Applied {
    pub stored: Arc<Stored>,
    pub change: Change,
    /// What is odd about it though it is applied, each a sentence.
    pub warnings: Vec<String>,
}

/// Why definitions were not applied, or not deleted.
#[derive(Debug, thiserror::Error)]
pub enum RegistryError {
    #[error("{} in the definitions", count(.0))]
    Invalid(Violations),
    #[error("{kind} {name}@{version} is applied with other content, and an applied version never changes; raise `version` to {}", .highest + 1)]
    Conflict {
        kind: &'static str,
        name: Arc<str>,
        version: u32,
        highest: u32,
    },
    #[error("{title} has {bytes} bytes of JSON; at most {limit} are allowed")]
    TooLarge {
        title: String,
        bytes: usize,
        limit: usize,
    },
    #[error(
        "Kafka refuses a topic for agent `{agent}` beside {other}: it takes names that differ in `.` and `_` alone for one; {}",
        task_topics::REMEDY
    )]
    Collision { agent: String, other: String },
    #[error("the topic `{topic}` of agent `{agent}` could not be made: {reason}")]
    Topic {
        agent: String,
        topic: String,
        reason: String,
    },
    #[error("the record for {key} was not written: {source}")]
    Write {
        key: String,
        #[source]
        source: KafkaError,
    },
    #[error(transparent)]
    Read(#[from] FollowError),
}

fn count(violations: &Violations) -> String {
    match violations.0.len() {
        1 => "1 fault".to_owned(),
        several => format!("{several} faults"),
    }
}

/// See the module. One per instance.
pub struct Registry {
    settings: RegistrySettings,
    topic: String,
    table: Arc<RwLock<Table>>,
    follower: Follower,
    producer: FutureProducer,
    admin: AdminClient<DefaultClientContext>,
    /// One apply or delete at a time, so that what was checked still holds when it is written.
    writing: tokio::sync::Mutex<()>,
}

/// Why a registry does not start.
#[derive(Debug, thiserror::Error)]
pub enum RegistryStartError {
    #[error("cannot make a Kafka client: {0}")]
    Client(#[from] KafkaError),
    #[error("cannot start a thread: {0}")]
    Thread(#[from] std::io::Error),
}

impl Registry {
    /// Begins to read the topic, in the background; a broker that is away is waited for. Must be
    /// called within a tokio runtime.
    pub fn start(settings: RegistrySettings) -> Result<Arc<Self>, RegistryStartError> {
        let topic = format!("{}definitions", settings.prefix);
        let table: Arc<RwLock<Table>> = Arc::default();
        let mut producing = settings.client.clone();
        producing
            .set("enable.idempotence", "true")
            .set("linger.ms", "0")
            .set("message.timeout.ms", "10000");
        let producer = producing.create()?;
        let admin = settings.client.create()?;
        let of_reader = Arc::clone(&table);
        let defaults = settings.defaults.clone();
        let follower = Follower::start(&settings.client, topic.clone(), move |entry| {
            read(&of_reader, &defaults, &entry);
        })?;
        Ok(Arc::new(Self {
            settings,
            topic,
            table,
            follower,
            producer,
            admin,
            writing: tokio::sync::Mutex::default(),
        }))
    }

    /// Whether everything that was applied before this instance started is known.
    pub fn restored(&self) -> bool {
        self.follower.restored()
    }

    /// That version, or the highest where none is given.
    pub fn get(&self, kind: Kind, name: &str, version: Option<u32>) -> Option<Arc<Stored>> {
        self.table().get(kind, name, version).cloned()
    }

    /// All versions of all definitions of a kind, by name, highest version first.
    pub fn list(&self, kind: Kind) -> Vec<Arc<Stored>> {
        self.table().list(kind).cloned().collect()
    }

    fn table(&self) -> RwLockReadGuard<'_, Table> {
        self.table.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until everything is known that was applied anywhere before the call.
    pub async fn caught_up(&self) -> Result<(), RegistryError> {
        Ok(self.follower.caught_up(WITHIN).await?)
    }

    /// Checks and compiles `text` (YAML or JSON, one document or many) without applying it.
    pub fn check(&self, text: &str, file: Option<&str>) -> Result<Vec<Definition>, RegistryError> {
        kinds::check(text, file, &self.settings.defaults).map_err(RegistryError::Invalid)
    }

    /// Applies all definitions in `text`, or none where one of them is invalid or conflicts.
    /// Returns when this instance has read them back, in the order of the documents. With
    /// `dry_run` everything is checked and nothing is written.
    pub async fn apply(
        &self,
        text: &str,
        file: Option<&str>,
        dry_run: bool,
    ) -> Result<Vec<Applied>, RegistryError> {
        let parsed = self.check(text, file)?;
        let _one_at_a_time = self.writing.lock().await;
        self.caught_up().await?;
        let mut changes = Vec::with_capacity(parsed.len());
        for definition in &parsed {
            check_size(definition)?;
            changes.push(self.compare(definition)?);
            if let Some((agent, other)) = self.table().collision(definition) {
                return Err(RegistryError::Collision { agent, other });
            }
        }
        if !dry_run {
            for (definition, change) in parsed.iter().zip(&changes) {
                if let Some(workflow) = definition.workflow() {
                    self.ensure_task_topics(workflow).await?;
                }
                if *change == Change::Created {
                    let key = key(definition.kind(), &definition.name, definition.version);
                    self.write(&key, Some(definition.source.as_str())).await?;
                }
            }
        }
        Ok(parsed
            .into_iter()
            .zip(changes)
            .map(|(definition, change)| self.applied(definition, change))
            .collect())
    }

    /// Deletes one version; `false` where it is not there. Whether runs still need it is the
    /// caller's question: it takes all instances to answer.
    pub async fn delete(
        &self,
        kind: Kind,
        name: &str,
        version: u32,
    ) -> Result<bool, RegistryError> {
        let _one_at_a_time = self.writing.lock().await;
        self.caught_up().await?;
        if self.get(kind, name, Some(version)).is_none() {
            return Ok(false);
        }
        self.write(&key(kind, name, version), None).await?;
        Ok(true)
    }

    /// Undoes [`Registry::delete`], unless that version was applied again since.
    pub async fn put_back(&self, stored: &Stored) -> Result<(), RegistryError> {
        let _one_at_a_time = self.writing.lock().await;
        self.caught_up().await?;
        let Definition {
            name,
            version,
            source,
            ..
        } = &stored.definition;
        let kind = stored.definition.kind();
        if self.get(kind, name, Some(*version)).is_some() {
            return Ok(());
        }
        let key = key(kind, name, *version);
        self.write(&key, Some(source.as_str())).await
    }

    fn compare(&self, definition: &Definition) -> Result<Change, RegistryError> {
        let (kind, name, version) = (definition.kind(), &definition.name, definition.version);
        match self.get(kind, name, Some(version)) {
            None => Ok(Change::Created),
            Some(stored) if stored.definition.source == definition.source => Ok(Change::Unchanged),
            Some(_) => {
                let highest = self.get(kind, name, None);
                Err(RegistryError::Conflict {
                    kind: kind.name(),
                    name: name.clone(),
                    version,
                    highest: highest.map_or(version, |stored| stored.definition.version),
                })
            }
        }
    }

    /// The definition as it stands now; before its record is read back (a dry run), as it would.
    fn applied(&self, definition: Definition, change: Change) -> Applied {
        let warnings = self.table().warnings(&definition);
        let stored = self
            .get(
                definition.kind(),
                &definition.name,
                Some(definition.version),
            )
            .unwrap_or_else(|| {
                Arc::new(Stored {
                    definition,
                    applied_at: SystemClock.now(),
                })
            });
        Applied {
            stored,
            change,
            warnings,
        }
    }

    async fn write(&self, key: &str, value: Option<&str>) -> Result<(), RegistryError> {
        let mut record: FutureRecord<'_, str, str> = FutureRecord::to(&self.topic).key(key);
        if let Some(value) = value {
            record = record.payload(value);
        }
        let sent = self
            .producer
            .send(record, rdkafka::util::Timeout::After(WITHIN))
            .await;
        let delivery = sent.map_err(|(source, _)| RegistryError::Write {
            key: key.to_owned(),
            source,
        })?;
        self.follower
            .applied(delivery.partition, delivery.offset, WITHIN)
            .await?;
        Ok(())
    }

    async fn ensure_task_topics(&self, workflow: &Workflow) -> Result<(), RegistryError> {
        let retention = self.settings.task_retention.as_millis().to_string();
        for agent in workflow.agents() {
            let topic = format!("{}tasks.{agent}", self.settings.prefix);
            let wanted = NewTopic::new(
                &topic,
                self.settings.task_partitions,
                TopicReplication::Fixed(self.settings.replication_factor),
            )
            .set("cleanup.policy", "delete")
            .set("retention.ms", &retention);
            let config = self.settings.task_config.iter();
            let wanted = config.fold(wanted, |wanted, (name, value)| wanted.set(name, value));
            let refused = |reason: String| RegistryError::Topic {
                agent: agent.to_owned(),
                topic: topic.clone(),
                reason,
            };
            let options = AdminOptions::new()
                .request_timeout(Some(WITHIN))
                .operation_timeout(Some(WITHIN));
            let results = self
                .admin
                .create_topics([&wanted], &options)
                .await
                .map_err(|error| refused(error.to_string()))?;
            for result in results {
                match result {
                    Ok(_) => tracing::info!(topic, "made the topic of an agent"),
                    Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
                    Err((_, RDKafkaErrorCode::InvalidTopic)) => {
                        return Err(self.name_refused(agent, topic));
                    }
                    Err((_, code)) => return Err(refused(code.to_string())),
                }
            }
        }
        Ok(())
    }

    /// Kafka refuses the name of an agent's topic: mostly for that of a topic that is there.
    fn name_refused(&self, agent: &str, topic: String) -> RegistryError {
        let client = self.producer.client();
        let metadata = tokio::task::block_in_place(|| client.fetch_metadata(None, WITHIN));
        let topics = metadata.iter().flat_map(|metadata| metadata.topics());
        let mut names = topics.map(|found| found.name());
        let agent = agent.to_owned();
        match names.find(|other| task_topics::collide(other, &topic)) {
            Some(other) => RegistryError::Collision {
                agent,
                other: format!("the topic `{other}`"),
            },
            None => RegistryError::Topic {
                agent,
                topic,
                reason: "Kafka refuses its name".to_owned(),
            },
        }
    }
}

impl Definitions for Registry {
    fn workflow(&self, name: &str, version: Option<u32>) -> Option<Arc<Workflow>> {
        let table = self.table();
        let stored = table.get(Kind::Workflow, name, version)?;
        stored.definition.workflow().cloned()
    }
}

impl DefinitionRegistry for Registry {
    fn catch_up(&self) -> Result<(), LogError> {
        let behind = |error: FollowError| LogError {
            class: ErrorClass::Retriable,
            doing: "reading the definitions",
            reason: error.to_string(),
        };
        self.follower.catch_up(CATCH_UP_WITHIN).map_err(behind)
    }

    /// Of a part that was read, the rules are not those in force: what the intake reads by them it passes
    /// over for all others.
    fn rules(&self) -> RuleSet {
        match self.restored() {
            true => self.table().rules().clone(),
            false => RuleSet::empty(),
        }
    }

    fn has_rules(&self) -> bool {
        self.restored() && self.table().has_rules()
    }

    fn rule(&self, name: &str, version: u32) -> Option<Arc<Rule>> {
        let table = self.table();
        table.rule(name, version).map(|(rule, _)| rule.clone())
    }

    fn rule_applied_at(&self, name: &str, version: u32) -> Option<Timestamp> {
        self.table().rule(name, version).map(|(_, at)| at)
    }
}

fn check_size(definition: &Definition) -> Result<(), RegistryError> {
    match definition.source.len() {
        bytes if bytes > LARGEST_DEFINITION => Err(RegistryError::TooLarge {
            title: definition.title(),
            bytes,
            limit: LARGEST_DEFINITION,
        }),
        _ => Ok(()),
    }
}

fn key(kind: Kind, name: &str, version: u32) -> String {
    format!("{}/{name}/{version}", kind.name())
}

/// Takes one record into the table. A record that cannot be read is said and skipped: whoever
/// wrote it past the registry may write it again.
fn read(table: &RwLock<Table>, defaults: &Defaults, entry: &Entry<'_>) {
    let skipped = |reason: &str| {
        tracing::warn!(
            key = %String::from_utf8_lossy(entry.key),
            partition = entry.partition,
            offset = entry.offset,
            reason,
            "skipped a record of the definitions"
        );
    };
    let Some((kind, name, version)) = read_key(entry.key) else {
        return skipped("the key is not `kind/name/version` of a known kind");
    };
    let Some(value) = entry.value else {
        let mut table = table.write().unwrap_or_else(PoisonError::into_inner);
        table.remove(kind, name, version);
        return;
    };
    let Ok(text) = std::str::from_utf8(value) else {
        return skipped("the value is not UTF-8");
    };
    match kinds::parse(text, None, defaults) {
        Err(violations) => skipped(&violations.to_string()),
        Ok(definitions) => {
            let mut matching = definitions.into_iter().filter(|definition| {
                definition.kind() == kind
                    && definition.name.as_ref() == name
                    && definition.version == version
            });
            let Some(definition) = matching.next() else {
                return skipped("the value is another definition than its key says");
            };
            let stored = Stored {
                definition,
                applied_at: Timestamp(entry.timestamp),
            };
            let mut table = table.write().unwrap_or_else(PoisonError::into_inner);
            table.insert(stored);
        }
    }
}

fn read_key(key: &[u8]) -> Option<(Kind, &str, u32)> {
    let mut parts = std::str::from_utf8(key).ok()?.split('/');
    let kind = Kind::of(parts.next()?)?;
    let name = parts.next()?;
    let version = parts.next()?.parse().ok()?;
    parts.next().is_none().then_some((kind, name, version))
}
