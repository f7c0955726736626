//! Tables over the topics of a cluster: each is read whole by a [`Follower`], from its first record
//! on, by every instance that has a rule which joins it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, Weak};
use std::time::Duration;

use rdkafka::ClientConfig;

use super::rows::{Budget, Full, Rows};
use super::{NoValue, Table, Tables};
use crate::codec::event::{self, RawEvent, Refused, Schemas};
use crate::model::{Json, Timestamp};
use crate::runtime::follower::{Entry, Follower};
use crate::runtime::meters::TableMeters;

/// Between two questions to a schema registry that does not answer.
const ASK_AGAIN: Duration = Duration::from_millis(500);

/// How tables are read.
#[derive(Clone)]
pub struct TableSettings {
    pub client: ClientConfig,
    /// Of all tables together.
    pub max_bytes: usize,
    /// How long a table that is not read to its end yet may stand still until it is given up.
    pub wait: Duration,
    /// Of a value's JSON; a larger one is passed over.
    pub max_payload_bytes: usize,
    pub schemas: Arc<dyn Schemas + Send + Sync>,
}

/// See the module.
pub struct FollowedTables {
    settings: TableSettings,
    budget: Arc<Budget>,
    open: Mutex<HashMap<String, Weak<FollowedTable>>>,
}

impl FollowedTables {
    pub fn new(settings: TableSettings) -> Self {
        Self {
            budget: Arc::new(Budget::new(settings.max_bytes)),
            settings,
            open: Mutex::default(),
        }
    }
}

impl Tables for FollowedTables {
    fn open(&self, topic: &str) -> Arc<dyn Table> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|_, table| table.strong_count() > 0);
        if let Some(table) = open.get(topic).and_then(Weak::upgrade) {
            return table;
        }
        let table = Arc::new(FollowedTable::start(topic, &self.settings, &self.budget));
        open.insert(topic.to_owned(), Arc::downgrade(&table));
        table
    }

    fn observe(&self) {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        for table in open.values().filter_map(Weak::upgrade) {
            let is_read = table.follower.as_ref().is_some_and(Follower::restored);
            let is_ready = is_read && lock(&table.content.fault).is_none();
            table.content.meters.ready(is_ready);
        }
    }
}

struct FollowedTable {
    content: Arc<Content>,
    wait: Duration,
    /// `None`: its thread could not be started, or it is being dropped.
    follower: Option<Follower>,
}

/// What the reader writes and the rules read.
struct Content {
    topic: String,
    rows: RwLock<Rows>,
    budget: Arc<Budget>,
    meters: TableMeters,
    /// Why nothing of it is to be believed any more.
    fault: Mutex<Option<String>>,
    /// What keeps the reader from going on.
    trouble: Mutex<Option<String>>,
    stop: AtomicBool,
}

impl FollowedTable {
    fn start(topic: &str, settings: &TableSettings, budget: &Arc<Budget>) -> Self {
        let content = Arc::new(Content {
            topic: topic.to_owned(),
            rows: RwLock::default(),
            budget: Arc::clone(budget),
            meters: TableMeters::new(topic),
            fault: Mutex::default(),
            trouble: Mutex::default(),
            stop: AtomicBool::new(false),
        });
        let of_reader = Arc::clone(&content);
        let (schemas, most) = (Arc::clone(&settings.schemas), settings.max_payload_bytes);
        let apply = move |entry: Entry<'_>| of_reader.apply(&entry, schemas.as_ref(), most);
        tracing::info!(topic, "reading a table that rules join");
        let follower = Follower::start(&settings.client, topic.to_owned(), apply);
        let follower = follower
            .map_err(|error| content.give_up(format!("its reader cannot be started: {error}")));
        Self {
            content,
            wait: settings.wait,
            follower: follower.ok(),
        }
    }

    fn not_read(&self, follower: &Follower) -> Result<Option<Json>, NoValue> {
        if follower.still_for() < self.wait {
            return Err(NoValue::Reading);
        }
        let trouble = follower.trouble();
        if trouble.as_ref().is_some_and(|trouble| trouble.is_missing) {
            // A topic that is not there has no values.
            return Ok(None);
        }
        let of_reader = lock(&self.content.trouble).clone();
        let reason = of_reader.or(trouble.map(|trouble| trouble.reason));
        let reason = reason
            .unwrap_or_else(|| format!("nothing came of it for {} ms", self.wait.as_millis()));
        Err(NoValue::Unavailable(format!(
            "topic `{}` was not read to its end: {reason}",
            self.content.topic
        )))
    }
}

impl Table for FollowedTable {
    fn get(&self, key: &str) -> Result<Option<Json>, NoValue> {
        if let Some(reason) = lock(&self.content.fault).clone() {
            return Err(NoValue::Unavailable(reason));
        }
        match &self.follower {
            Some(follower) if follower.restored() => {
                let rows = self.content.rows.read();
                let rows = rows.unwrap_or_else(PoisonError::into_inner);
                Ok(rows.get(key).cloned())
            }
            Some(follower) => self.not_read(follower),
            None => Err(NoValue::Unavailable("it has no reader".to_owned())),
        }
    }
}

/// The reader waits for its thread when it is dropped, and librdkafka takes a second to take a
/// consumer down: not on the thread of a worker.
impl Drop for FollowedTable {
    fn drop(&mut self) {
        tracing::info!(
            topic = self.content.topic,
            "no rule joins the table any more"
        );
        self.content.stop.store(true, Ordering::Release);
        let (follower, content) = (self.follower.take(), Arc::clone(&self.content));
        std::thread::spawn(move || {
            // Its room first: the topic may be wanted again before its reader is gone.
            content.clear();
            content.meters.ready(false);
            drop(follower);
        });
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Content {
    fn apply(&self, entry: &Entry<'_>, schemas: &dyn Schemas, max_payload_bytes: usize) {
        if lock(&self.fault).is_some() {
            return;
        }
        let Ok(key) = std::str::from_utf8(entry.key) else {
            return self.pass_over(entry, "its key is no text in UTF-8");
        };
        let value = match entry.value {
            None => None,
            Some(_) => match self.decode(entry, schemas, max_payload_bytes) {
                Some(value) => Some(value),
                None => return,
            },
        };
        let mut rows = self.rows.write().unwrap_or_else(PoisonError::into_inner);
        if self.stop.load(Ordering::Acquire) {
            return;
        }
        let put = rows.put(key, value, &self.budget);
        self.meters.size(rows.len(), rows.bytes());
        drop(rows);
        if let Err(Full) = put {
            self.clear();
            self.give_up(format!(
                "topic `{}` does not fit: the tables of this instance may take {} bytes together \
                 (events.table_bytes)",
                self.topic, self.budget.most
            ));
        }
    }

    /// The value, decoded; `None`: it is passed over, or nobody waits for it any more.
    fn decode(
        &self,
        entry: &Entry<'_>,
        schemas: &dyn Schemas,
        max_payload_bytes: usize,
    ) -> Option<Json> {
        let headers = (entry.headers)();
        let raw = RawEvent {
            value: entry.value,
            headers: &headers,
            timestamp: Some(Timestamp(entry.timestamp)),
        };
        while !self.stop.load(Ordering::Acquire) {
            match event::decode(&raw, schemas, max_payload_bytes) {
                Ok(decoded) => {
                    *lock(&self.trouble) = None;
                    return decoded.map(|event| event.payload);
                }
                Err(Refused::Unreadable(error)) => {
                    self.pass_over(entry, &error.message);
                    return None;
                }
                Err(Refused::Unavailable(reason)) => {
                    let mut trouble = lock(&self.trouble);
                    if trouble.is_none() {
                        tracing::warn!(topic = self.topic, reason, "a table stands still");
                    }
                    *trouble = Some(reason);
                    drop(trouble);
                    std::thread::sleep(ASK_AGAIN);
                }
            }
        }
        None
    }

    /// The row stays as it was.
    fn pass_over(&self, entry: &Entry<'_>, reason: &str) {
        self.meters.unreadable();
        tracing::warn!(
            topic = self.topic,
            partition = entry.partition,
            offset = entry.offset,
            reason,
            "a record of a table cannot be read and is passed over"
        );
    }

    fn give_up(&self, reason: String) {
        tracing::error!(topic = self.topic, reason, "a table is given up");
        *lock(&self.fault) = Some(reason);
    }

    fn clear(&self) {
        let mut rows = self.rows.write().unwrap_or_else(PoisonError::into_inner);
        rows.clear(&self.budget);
        self.meters.size(0, 0);
    }
}
