//! Reading `events`: the history of a run, and what happens now.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaResult;
use rdkafka::message::BorrowedMessage;
use rdkafka::{Message, Offset, TopicPartitionList};
use serde::Deserialize;
use tokio::sync::mpsc;

use super::handle::SubmitError;
use crate::log::kafka::{ClientSettings, READERS_GROUP, reader_config};
use crate::model::{EventKind, Millis, RunId, RunState};

/// Readers at a time; each has a consumer of its own.
const MAX_READERS: usize = 200;

/// Events that wait for a slow follower; then reading pauses.
const CHANNEL: usize = 256;

const ASK_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a broker may hold a fetch that finds nothing: nobody waits for an end here.
const FETCH_WAIT: Duration = Duration::from_millis(500);

/// A reader looks so often whether somebody still wants its events.
const POLL: Duration = Duration::from_millis(200);

/// A history that takes longer to find is given as far as it was found, and says so.
const HISTORY_TIMEOUT: Duration = Duration::from_secs(20);

/// How far clocks of instances may be apart: so much before a run's creation its events are
/// looked for.
const CLOCK_SKEW: Millis = Millis(60_000);

/// A committed record of `events`.
#[derive(Clone, Debug, PartialEq)]
pub struct HistoryEvent {
    pub run: RunId,
    pub partition: i32,
    pub offset: i64,
    /// The CloudEvent as it is on the topic: one JSON object.
    pub json: String,
    pub sequence: u64,
    /// The CloudEvent's `type`.
    pub kind: String,
}

/// What was found of a run's events.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct History {
    pub events: Vec<HistoryEvent>,
    /// Whether these are all that were asked for, up to the run's last. Else some took too long to find, or
    /// are not on the topic any more.
    pub complete: bool,
}

/// A committed record of `events`, of a run or of a rule.
#[derive(Clone, Debug, PartialEq)]
pub struct LiveEvent {
    pub partition: i32,
    pub offset: i64,
    /// The CloudEvent as it is on the topic: one JSON object.
    pub json: String,
    /// The CloudEvent's `type`.
    pub kind: String,
}

/// The events of all runs and rules, from somewhere on.
#[derive(Debug)]
pub struct EventsTail {
    /// The next offset of each partition, where the tail begins.
    pub from: BTreeMap<i32, i64>,
    pub events: mpsc::Receiver<LiveEvent>,
}

impl History {
    /// Events in their order, where so many were asked for.
    pub fn of(events: Vec<HistoryEvent>, asked: u64) -> Self {
        let complete = events.len() as u64 >= asked;
        Self { events, complete }
    }
}

/// Makes readers of one installation's events.
#[derive(Clone)]
pub(super) struct Events {
    settings: ClientSettings,
    topic: Arc<str>,
    readers: Arc<AtomicUsize>,
}

/// A consumer, and its place among [`MAX_READERS`].
struct Reader {
    consumer: BaseConsumer,
    readers: Arc<AtomicUsize>,
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.readers.fetch_sub(1, Ordering::AcqRel);
    }
}

fn broken(error: impl ToString) -> SubmitError {
    SubmitError::Broker(error.to_string())
}

impl Events {
    pub fn new(settings: ClientSettings, topic: &str) -> Self {
        Self {
            settings,
            topic: Arc::from(topic),
            readers: Arc::new(AtomicUsize::new(0)),
        }
    }

    fn reader(&self) -> Result<Reader, SubmitError> {
        if self.readers.fetch_add(1, Ordering::AcqRel) >= MAX_READERS {
            self.readers.fetch_sub(1, Ordering::AcqRel);
            return Err(SubmitError::Overloaded {
                what: "readers of events",
            });
        }
        let readers = Arc::clone(&self.readers);
        let client = reader_config(self.settings.client_config(), READERS_GROUP, FETCH_WAIT);
        match client.create() {
            Ok(consumer) => Ok(Reader { consumer, readers }),
            Err(error) => {
                readers.fetch_sub(1, Ordering::AcqRel);
                Err(broken(error))
            }
        }
    }

    /// The run's events from `from_sequence` up to the one that `run` has as its last. Blocks.
    pub fn history(
        &self,
        run: &RunState,
        partition: i32,
        from_sequence: u64,
    ) -> Result<History, SubmitError> {
        let mut found = Vec::new();
        let asked = (run.sequence + 1).saturating_sub(from_sequence);
        if asked == 0 {
            return Ok(History::of(found, asked));
        }
        let reader = self.at_creation(run, partition)?;
        let deadline = Instant::now() + HISTORY_TIMEOUT;
        while Instant::now() < deadline {
            let Some(event) = next_of(&reader.consumer, &run.id) else {
                continue;
            };
            let sequence = event.sequence;
            if sequence >= from_sequence {
                found.push(event);
            }
            if sequence >= run.sequence {
                break;
            }
        }
        Ok(History::of(found, asked))
    }

    /// Follows the run from `from_sequence` to its end, on a thread of its own. Blocks until it
    /// has begun.
    pub fn follow(
        &self,
        run: &RunState,
        partition: i32,
        from_sequence: u64,
    ) -> Result<mpsc::Receiver<HistoryEvent>, SubmitError> {
        let reader = self.at_creation(run, partition)?;
        let (sender, receiver) = mpsc::channel(CHANNEL);
        let id = run.id.clone();
        let has_ended = run.status.is_ended();
        if has_ended && run.sequence < from_sequence {
            return Ok(receiver);
        }
        // All events of a run that has ended lie before it.
        let end = self.end(&reader, partition)?;
        spawn("partita-follow", move || {
            let mut behind_end: Option<Instant> = None;
            while !sender.is_closed() {
                let polled = reader.consumer.poll(POLL);
                let is_before = |message: &BorrowedMessage<'_>| message.offset() < end;
                if matches!(&polled, Some(Ok(message)) if is_before(message)) {
                    behind_end = None;
                }
                let Some(event) = polled.and_then(|message| read_of(&id, message)) else {
                    // The rest of a run that has ended may not be on the topic any more.
                    let since = behind_end.get_or_insert_with(Instant::now);
                    if has_ended && since.elapsed() >= HISTORY_TIMEOUT {
                        return;
                    }
                    continue;
                };
                behind_end = None;
                let ends = EventKind::ALL
                    .iter()
                    .any(|kind| kind.is_terminal() && kind.name() == event.kind);
                if event.sequence >= from_sequence && sender.blocking_send(event).is_err() {
                    return;
                }
                if ends {
                    return;
                }
            }
        })?;
        Ok(receiver)
    }

    /// Follows all events from `positions`, or from now on. Blocks until it has begun.
    pub fn tail(
        &self,
        partitions: i32,
        positions: &BTreeMap<i32, i64>,
    ) -> Result<EventsTail, SubmitError> {
        let reader = self.reader()?;
        let mut from = BTreeMap::new();
        let mut list = TopicPartitionList::new();
        for partition in 0..partitions {
            let offset = match positions.get(&partition) {
                Some(&offset) => offset,
                // Asked for now: events between this call and the first fetch are not missed.
                None => self.end(&reader, partition)?,
            };
            from.insert(partition, offset);
            list.add_partition_offset(&self.topic, partition, Offset::Offset(offset))
                .map_err(broken)?;
        }
        reader.consumer.assign(&list).map_err(broken)?;
        let (sender, receiver) = mpsc::channel(CHANNEL);
        spawn("partita-events", move || {
            while !sender.is_closed() {
                let polled = reader.consumer.poll(POLL);
                let Some((event, _)) = polled.and_then(read_any) else {
                    continue;
                };
                if sender.blocking_send(event).is_err() {
                    return;
                }
            }
        })?;
        let events = receiver;
        Ok(EventsTail { from, events })
    }

    /// A reader that stands at or before the run's first event.
    fn at_creation(&self, run: &RunState, partition: i32) -> Result<Reader, SubmitError> {
        let reader = self.reader()?;
        let from = (run.created_at - CLOCK_SKEW).0.max(0);
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&self.topic, partition, Offset::Offset(from))
            .map_err(broken)?;
        let mut found = reader
            .consumer
            .offsets_for_times(list, ASK_TIMEOUT)
            .map_err(broken)?;
        if found
            .elements()
            .iter()
            .any(|element| !matches!(element.offset(), Offset::Offset(_)))
        {
            // Nothing that young is there yet: stand at the end as it is now.
            let end = self.end(&reader, partition)?;
            found = TopicPartitionList::new();
            found
                .add_partition_offset(&self.topic, partition, Offset::Offset(end))
                .map_err(broken)?;
        }
        reader.consumer.assign(&found).map_err(broken)?;
        Ok(reader)
    }

    /// The offset behind the last committed event.
    fn end(&self, reader: &Reader, partition: i32) -> Result<i64, SubmitError> {
        let ends = reader
            .consumer
            .fetch_watermarks(&self.topic, partition, ASK_TIMEOUT);
        ends.map(|(_, end)| end).map_err(broken)
    }
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), SubmitError> {
    let thread = std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(work);
    thread.map(|_| ()).map_err(broken)
}

/// The next event, where there is one within a moment and it is of this run.
fn next_of(consumer: &BaseConsumer, run: &RunId) -> Option<HistoryEvent> {
    read_of(run, consumer.poll(POLL)?)
}

/// Reads a record of `events` where it is of this run.
fn read_of(run: &RunId, message: KafkaResult<BorrowedMessage<'_>>) -> Option<HistoryEvent> {
    let is_of_run = message
        .as_ref()
        .is_ok_and(|message| message.key() == Some(run.as_str().as_bytes()));
    if is_of_run { read(run, message) } else { None }
}

/// Reads a record of `events` that is the run's; `None` where it is none of ours.
fn read(run: &RunId, message: KafkaResult<BorrowedMessage<'_>>) -> Option<HistoryEvent> {
    let (event, sequence) = read_any(message)?;
    Some(HistoryEvent {
        run: run.clone(),
        partition: event.partition,
        offset: event.offset,
        sequence: sequence?.parse().ok()?,
        kind: event.kind,
        json: event.json,
    })
}

/// Reads a record of `events`, of a run or of a rule, with its `sequence` where it is of a run; `None`
/// where it is none of ours.
fn read_any(message: KafkaResult<BorrowedMessage<'_>>) -> Option<(LiveEvent, Option<String>)> {
    #[derive(Deserialize)]
    struct Seen {
        #[serde(rename = "type")]
        kind: String,
        sequence: Option<String>,
    }
    let message = match message {
        Ok(message) => message,
        Err(error) => {
            tracing::debug!(%error, "reading events");
            return None;
        }
    };
    let json = std::str::from_utf8(message.payload()?).ok()?;
    let seen: Seen = serde_json::from_str(json).ok()?;
    let event = LiveEvent {
        partition: message.partition(),
        offset: message.offset(),
        kind: seen.kind,
        json: json.to_owned(),
    };
    Some((event, seen.sequence))
}
