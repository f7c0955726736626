//! The pumps of an instance: one for each agent name that somebody polls for, opened by the first
//! poll and closed when nobody polls any more.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rdkafka::ClientConfig;
use tokio::time::Instant;

use super::feed::{Feed, FeedError, FeedSettings, group_of};
use super::pump::{HandedOut, Held, Pump};
use crate::clock::{Clock, SystemClock};

/// A task this old, or one that was handed out before, may have been answered behind the pump's
/// back: it is asked for before it is handed out.
const FRESH: Duration = Duration::from_secs(2);

/// How tasks are handed out over HTTP.
#[derive(Clone, Debug)]
pub struct PumpSettings {
    /// Brokers and security.
    pub client: ClientConfig,
    /// Prefix of all topics and groups, such as `partita.`.
    pub prefix: String,
    /// How long an agent may be silent before its task is handed out again.
    pub lease: Duration,
    /// Tasks of one agent that are read and not answered; reading pauses beyond it.
    pub max_open: usize,
    /// Agent names that may be polled for at one time.
    pub max_agents: usize,
    /// A pump that nobody polls is closed after this long, so that its tasks go to instances that
    /// are polled.
    pub close_after: Duration,
}

impl PumpSettings {
    /// The documented defaults.
    pub fn new(client: ClientConfig, prefix: &str) -> Self {
        Self {
            client,
            prefix: prefix.to_owned(),
            lease: Duration::from_secs(30),
            max_open: 1_000,
            max_agents: 128,
            close_after: Duration::from_secs(15),
        }
    }
}

/// Why a poll is refused.
#[derive(Debug, thiserror::Error)]
pub enum PollError {
    #[error("`{0}` is not an agent's name: 1 to 200 characters of A-Z a-z 0-9 - . _ are allowed")]
    Name(String),
    #[error("{0} agent names are polled for at this instance already")]
    TooMany(usize),
    #[error(transparent)]
    Feed(#[from] FeedError),
}

struct Open {
    pump: Arc<Pump>,
    feed: Arc<Feed>,
}

/// See the module.
pub struct Pumps {
    settings: PumpSettings,
    open: Mutex<HashMap<String, Open>>,
}

impl Pumps {
    pub fn new(settings: PumpSettings) -> Arc<Self> {
        Arc::new(Self {
            settings,
            open: Mutex::default(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Open>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Up to `max` tasks of `agent`; waits for the first one, at most `wait`. `passed` tells of a
    /// task that may be old whether its attempt is over, so that it need not be handed out.
    pub async fn poll<F, Fut>(
        &self,
        agent: &str,
        max: usize,
        wait: Duration,
        passed: F,
    ) -> Result<Vec<HandedOut>, PollError>
    where
        F: Fn(String) -> Fut,
        Fut: Future<Output = bool>,
    {
        let deadline = Instant::now() + wait;
        let mut tasks = Vec::new();
        loop {
            let pump = self.pump(agent)?;
            // A pump that closed between the two looks is opened anew by the next one.
            let Some(_poller) = pump.enter() else {
                continue;
            };
            loop {
                for handed_out in pump.take(max - tasks.len()) {
                    let id = &handed_out.delivery.task.task_id;
                    if may_be_old(&handed_out) && passed(id.clone()).await {
                        pump.settle(id);
                    } else {
                        tasks.push(handed_out);
                    }
                }
                if !tasks.is_empty() || !pump.arrival(deadline).await {
                    return Ok(tasks);
                }
            }
        }
    }

    /// The task was answered, or is not open any more.
    pub fn settle(&self, task_id: &str) -> Held {
        self.first(|pump| pump.settle(task_id))
    }

    /// The agent that has the task was heard of.
    pub fn renew(&self, task_id: &str) -> Held {
        self.first(|pump| pump.renew(task_id))
    }

    fn first(&self, ask: impl Fn(&Pump) -> Held) -> Held {
        let held = self
            .lock()
            .values()
            .any(|open| ask(&open.pump) == Held::Here);
        if held { Held::Here } else { Held::Elsewhere }
    }

    fn pump(&self, agent: &str) -> Result<Arc<Pump>, PollError> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
        if agent.is_empty() || agent.len() > 200 || !agent.bytes().all(allowed) {
            return Err(PollError::Name(agent.chars().take(220).collect()));
        }
        let mut open = self.lock();
        open.retain(|_, open| !open.pump.closed() && !open.feed.ended());
        if let Some(open) = open.get(agent) {
            return Ok(Arc::clone(&open.pump));
        }
        if open.len() >= self.settings.max_agents {
            return Err(PollError::TooMany(open.len()));
        }
        let PumpSettings {
            client,
            prefix,
            lease,
            max_open,
            close_after,
            ..
        } = &self.settings;
        let settings = FeedSettings {
            client: client.clone(),
            prefix: prefix.clone(),
            agent: agent.to_owned(),
            group: group_of(prefix, agent),
            read_uncommitted: false,
            max_open: *max_open,
        };
        let (feed, pump) = Feed::start(&settings, |done| {
            Arc::new(Pump::new(done, *lease, *close_after))
        })?;
        open.insert(
            agent.to_owned(),
            Open {
                pump: Arc::clone(&pump),
                feed: Arc::new(feed),
            },
        );
        Ok(pump)
    }

    /// Closes all pumps and leaves their groups.
    pub async fn close(&self) {
        let feeds: Vec<Arc<Feed>> = self.lock().drain().map(|(_, open)| open.feed).collect();
        let closing = feeds
            .into_iter()
            .map(|feed| tokio::task::spawn_blocking(move || feed.close()));
        futures_util::future::join_all(closing).await;
    }
}

fn may_be_old(handed_out: &HandedOut) -> bool {
    let age = SystemClock.now().0 - handed_out.delivery.timestamp;
    handed_out.handed_out_before > 0 || age > i64::try_from(FRESH.as_millis()).unwrap_or(i64::MAX)
}
