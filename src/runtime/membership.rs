//! Who owns what: each instance announces itself on the compacted topic `agents` (key
//! `instance/<id>`) every two seconds and at once when its partitions change, and reads what the
//! others announce. Nothing depends on it for correctness: a stale view costs a request one more
//! hop or a retry.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::error::KafkaError;
use rdkafka::producer::{FutureProducer, FutureRecord};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use super::PartitionInfo;
use super::follower::{Entry, Follower};
use crate::clock::{Clock, SystemClock};
use crate::model::Timestamp;

/// Between two announcements.
const ANNOUNCE_EVERY: Duration = Duration::from_secs(2);
/// An instance that was silent for so long counts as gone.
const GONE_AFTER: Duration = Duration::from_secs(10);
/// How long the last word of an instance may take.
const FAREWELL_WITHIN: Duration = Duration::from_secs(2);

/// What the instance tells of itself.
#[derive(Clone, Debug)]
pub struct MemberSettings {
    /// Brokers and security.
    pub client: ClientConfig,
    /// Prefix of all topics, such as `partita.`.
    pub prefix: String,
    /// The instance's name.
    pub instance: String,
    /// Where others reach its HTTP API, such as `http://10.0.0.7:8080`, without a trailing slash.
    pub api: String,
}

/// An instance as it announced itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Member {
    pub instance: String,
    pub api: String,
    /// Of the program.
    pub version: String,
    pub started_at: Timestamp,
    pub time: Timestamp,
    pub partitions: Vec<MemberPartition>,
}

/// One partition of a member.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct MemberPartition {
    pub partition: i32,
    /// Records of `commands` and `replies` not applied yet.
    pub lag: u64,
    pub restored: bool,
    /// Running and paused.
    pub live_runs: usize,
    pub pending: usize,
}

impl From<PartitionInfo> for MemberPartition {
    fn from(info: PartitionInfo) -> Self {
        let PartitionInfo {
            partition,
            lag,
            restored,
            live_runs,
            pending,
        } = info;
        Self {
            partition,
            lag,
            restored,
            live_runs,
            pending,
        }
    }
}

/// Who owns a partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owner {
    Local,
    /// The address of that instance's API.
    Remote(String),
    /// Nobody has said so lately: a rebalance is under way, or an instance was lost.
    Unknown,
}

/// What membership wants to know of this instance's runtime.
pub trait Ownership: Send + Sync {
    fn owned(&self) -> Vec<PartitionInfo>;
    fn owns(&self, partition: i32) -> bool;
    /// Tells of each change of the partitions owned.
    fn watch_owned(&self) -> watch::Receiver<Vec<i32>>;
}

impl Ownership for super::Handle {
    fn owned(&self) -> Vec<PartitionInfo> {
        super::Handle::owned(self)
    }

    fn owns(&self, partition: i32) -> bool {
        super::Handle::owns(self, partition)
    }

    fn watch_owned(&self) -> watch::Receiver<Vec<i32>> {
        super::Handle::watch_owned(self)
    }
}

struct Seen {
    member: Member,
    /// When it was heard of, put back by the age that it had by then.
    at: Instant,
}

type Others = Arc<RwLock<HashMap<String, Seen>>>;

/// See the module. One per instance.
pub struct Membership {
    settings: MemberSettings,
    runtime: Arc<dyn Ownership>,
    started_at: Timestamp,
    seen: Others,
    follower: Follower,
    producer: FutureProducer,
    leaving: watch::Sender<bool>,
    announcer: tokio::sync::Mutex<Option<tokio::task::JoinHandle<()>>>,
}

/// Why membership does not start.
#[derive(Debug, thiserror::Error)]
pub enum MembershipStartError {
    #[error("cannot make a Kafka client: {0}")]
    Client(#[from] KafkaError),
    #[error("cannot start a thread: {0}")]
    Thread(#[from] std::io::Error),
}

impl Membership {
    /// Begins to announce this instance and to listen to the others. Must be called within a
    /// tokio runtime.
    pub fn start(
        settings: MemberSettings,
        runtime: Arc<dyn Ownership>,
    ) -> Result<Arc<Self>, MembershipStartError> {
        let topic = format!("{}agents", settings.prefix);
        let seen = Others::default();
        let of_reader = Arc::clone(&seen);
        let follower = Follower::start(&settings.client, topic, move |entry| {
            read(&of_reader, &entry)
        })?;
        let mut producing = settings.client.clone();
        producing
            .set("linger.ms", "0")
            .set("message.timeout.ms", "5000");
        let producer = producing.create()?;
        let membership = Arc::new(Self {
            settings,
            runtime,
            started_at: SystemClock.now(),
            seen,
            follower,
            producer,
            leaving: watch::Sender::new(false),
            announcer: tokio::sync::Mutex::new(None),
        });
        let announcer = tokio::spawn(Arc::clone(&membership).announce_until_leaving());
        *membership
            .announcer
            .try_lock()
            .expect("nobody else knows it yet") = Some(announcer);
        Ok(membership)
    }

    /// Whether the others' announcements have been read.
    pub fn restored(&self) -> bool {
        self.follower.restored()
    }

    pub fn instance(&self) -> &str {
        &self.settings.instance
    }

    pub fn owner_of(&self, partition: i32) -> Owner {
        if self.runtime.owns(partition) {
            return Owner::Local;
        }
        let seen = self.seen.read().unwrap_or_else(PoisonError::into_inner);
        let claims = |member: &Member| {
            member
                .partitions
                .iter()
                .any(|owned| owned.partition == partition)
        };
        seen.values()
            .filter(|seen| {
                seen.member.instance != self.settings.instance && seen.at.elapsed() < GONE_AFTER
            })
            .filter(|seen| claims(&seen.member))
            .max_by_key(|seen| seen.at)
            .map_or(Owner::Unknown, |seen| {
                Owner::Remote(seen.member.api.clone())
            })
    }

    /// The other instances that were heard of lately, by name.
    pub fn others(&self) -> Vec<Member> {
        let seen = self.seen.read().unwrap_or_else(PoisonError::into_inner);
        let mut others: Vec<Member> = seen
            .values()
            .filter(|seen| {
                seen.member.instance != self.settings.instance && seen.at.elapsed() < GONE_AFTER
            })
            .map(|seen| seen.member.clone())
            .collect();
        others.sort_by(|a, b| a.instance.cmp(&b.instance));
        others
    }

    /// All instances, this one first as it stands now.
    pub fn cluster(&self) -> Vec<Member> {
        std::iter::once(self.own()).chain(self.others()).collect()
    }

    /// Says farewell, so that the others need not wait until the silence is long enough.
    pub async fn leave(&self) {
        self.leaving.send_replace(true);
        if let Some(announcer) = self.announcer.lock().await.take() {
            // No announcement may follow the farewell.
            let _ = tokio::time::timeout(ANNOUNCE_EVERY, announcer).await;
        }
        let topic = format!("{}agents", self.settings.prefix);
        let key = self.key();
        let farewell: FutureRecord<'_, str, [u8]> = FutureRecord::to(&topic).key(&key);
        let sent = self
            .producer
            .send(farewell, rdkafka::util::Timeout::After(FAREWELL_WITHIN));
        if !matches!(tokio::time::timeout(FAREWELL_WITHIN, sent).await, Ok(Ok(_))) {
            tracing::info!("left without a farewell: the broker did not take it in time");
        }
    }

    async fn announce_until_leaving(self: Arc<Self>) {
        let topic = format!("{}agents", self.settings.prefix);
        let key = self.key();
        let mut owned = self.runtime.watch_owned();
        let mut leaving = self.leaving.subscribe();
        let mut told_of_failure = false;
        while !*leaving.borrow_and_update() {
            let value = serde_json::to_vec(&self.own()).expect("a member serialises");
            let record = FutureRecord::to(&topic).key(&key).payload(&value);
            match self
                .producer
                .send(record, rdkafka::util::Timeout::After(ANNOUNCE_EVERY))
                .await
            {
                Ok(_) => told_of_failure = false,
                Err((error, _)) if !told_of_failure => {
                    tracing::warn!(%error, "could not announce this instance; trying on");
                    told_of_failure = true;
                }
                Err(_) => {}
            }
            tokio::select! {
                () = tokio::time::sleep(ANNOUNCE_EVERY) => {}
                changed = owned.changed() => {
                    if changed.is_err() {
                        // The runtime is gone: nothing will change but the time.
                        tokio::time::sleep(ANNOUNCE_EVERY).await;
                    }
                }
                _ = leaving.changed() => {}
            }
        }
    }

    fn own(&self) -> Member {
        Member {
            instance: self.settings.instance.clone(),
            api: self.settings.api.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started_at: self.started_at,
            time: SystemClock.now(),
            partitions: self
                .runtime
                .owned()
                .into_iter()
                .map(MemberPartition::from)
                .collect(),
        }
    }

    fn key(&self) -> String {
        format!("instance/{}", self.settings.instance)
    }
}

/// Takes one announcement in. Only those found at the start may be old; their age is told by the
/// announced time. What arrives later counts from its arrival, whatever the other's clock says.
fn read(others: &Others, entry: &Entry<'_>) {
    let Some(instance) = std::str::from_utf8(entry.key)
        .ok()
        .and_then(|key| key.strip_prefix("instance/"))
    else {
        return;
    };
    let mut others = others.write().unwrap_or_else(PoisonError::into_inner);
    let Some(value) = entry.value else {
        others.remove(instance);
        return;
    };
    match serde_json::from_slice::<Member>(value) {
        Ok(member) => {
            let age = if entry.restoring {
                SystemClock.now().since(member.time).into()
            } else {
                Duration::ZERO
            };
            // An age that reaches back before this process's clock began is over any bound.
            let Some(at) = Instant::now().checked_sub(age) else {
                return;
            };
            others.insert(instance.to_owned(), Seen { member, at });
            others.retain(|_, seen| seen.at.elapsed() < GONE_AFTER * 6);
        }
        Err(error) => {
            tracing::warn!(instance, %error, "skipped an announcement that cannot be read")
        }
    }
}
