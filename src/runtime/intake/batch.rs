//! One batch, one transaction: events to the rules that want them, what cannot be read to the dead
//! letters, how far time has come, and the positions; or nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::worker::IntakeWorker;
use crate::clock::{Clock, SystemClock};
use crate::codec::event::{self, DecodedEvent, RawEvent, Refused, Schemas};
use crate::codec::signal::{self, EventParts, WatermarkParts};
use crate::log::kafka::SourceLog;
use crate::log::kafka::sources::{Position, SourcePartition, SourceRecord};
use crate::log::{LogError, Outgoing, Target, partitioner};
use crate::model::Failure;
use crate::pattern::filter::Verdict;
use crate::pattern::{Recorded, Rule};
use crate::runtime::dead_letter::dead_letter;
use crate::runtime::meters;

/// What a dead letter's `stage` says.
const STAGE: &str = "intake";

/// Positions that moved past events which nobody wants are committed by the way, at the latest after
/// this: read again, they would come to nothing again.
const COMMIT_EVERY: Duration = Duration::from_secs(1);

/// Signals and dead letters of one transaction, but for those of its last record: an event may be wanted by
/// thousands of rules, and all must be written within the transaction's timeout.
const MAX_SENT: usize = 50_000;

/// What a batch came to, counted once it is committed.
#[derive(Default)]
struct Tally<'a> {
    events: BTreeMap<&'a str, u64>,
    signals: BTreeMap<String, u64>,
    unkeyed: BTreeMap<String, u64>,
    own: BTreeMap<String, u64>,
    unreadable: u64,
    dead_letters: BTreeMap<String, u64>,
}

/// The partitions whose watermarks a transaction tells, as they were due.
struct Told {
    when: Instant,
    partitions: BTreeSet<SourcePartition>,
}

impl IntakeWorker {
    /// Takes the records, or as many of the first as give enough for one transaction; how many.
    pub(super) fn transact(&mut self, records: &[SourceRecord]) -> Result<usize, LogError> {
        let mut tally = Tally::default();
        let mut positions: BTreeMap<&SourcePartition, i64> = BTreeMap::new();
        let mut held: Vec<SourcePartition> = Vec::new();
        let now = SystemClock.now();
        let mut sender = Sender::new(&mut self.log, self.pace.of(MAX_SENT));
        // Records come in runs of one partition: what is known of it is looked up once for each.
        let mut taken = 0;
        for run in records.chunk_by(|one, next| one.from == next.from) {
            if sender.is_full() {
                break;
            }
            taken += run.len();
            let from = &run[0].from;
            let owned = self.owned.get_mut(from).filter(|owned| owned.is_started);
            let Some(owned) = owned else { continue };
            let Some(of_topic) = self.filter.topic(&from.topic) else {
                owned.has_passed_over = true;
                continue;
            };
            let first = positions.get(from).copied();
            let (mut events, mut next) = (0, first.unwrap_or(owned.position));
            for (place, record) in run.iter().enumerate() {
                if owned.hold.is_on() {
                    break;
                }
                if sender.is_full() {
                    taken -= run.len() - place;
                    break;
                }
                if record.offset < next {
                    // The client gives none from behind where it was told to begin, unless there is no such
                    // place any more.
                    tracing::warn!(
                        topic = &*from.topic,
                        partition = from.partition,
                        position = next,
                        offset = record.offset,
                        "a topic was made anew; reading it from its first record"
                    );
                }
                owned.gap.note(next, record.offset);
                let schemas = self.schemas.as_ref();
                let decoded = sender.decode(record, schemas, self.max_payload_bytes, &mut tally)?;
                if let Decoded::Waits(reason) = decoded {
                    // From here on the partition is read again.
                    next = record.offset;
                    let retry_ms = owned.hold.begin().as_millis() as u64;
                    tracing::warn!(
                        topic = &*from.topic,
                        partition = from.partition,
                        offset = next,
                        reason,
                        retry_ms,
                        "a partition waits for a schema"
                    );
                    held.push(from.clone());
                    break;
                }
                owned.hold.forget();
                events += 1;
                next = record.offset + 1;
                let Decoded::Event(event) = decoded else {
                    continue;
                };
                let recorded = Recorded {
                    at: event.at,
                    // A clock that is ahead of ours is not believed.
                    written: Some(record.timestamp.map_or(now, |written| written.min(now))),
                    headers: &record.headers,
                };
                owned
                    .watermarks
                    .see(of_topic.clocks(), &event.payload, recorded);
                let mut sent = Ok(());
                of_topic.select(&event.payload, recorded, &mut |verdict| {
                    if verdict.rule().has_caused(event.attributes.as_ref()) {
                        count(&mut tally.own, &verdict.rule().name);
                    } else if sent.is_ok() {
                        sent = sender.verdict(record, &event, verdict, &mut tally);
                    }
                });
                sent?;
            }
            positions.insert(from, next);
            if events > 0 {
                *tally.events.entry(&from.topic).or_default() += events;
            }
        }
        let mut told = Told {
            when: Instant::now(),
            partitions: BTreeSet::new(),
        };
        for (at, owned) in self.owned.iter_mut().filter(|(_, owned)| owned.is_started) {
            if owned.hold.is_waiting() {
                owned.watermarks.hear();
            }
            for (clock, time) in owned.watermarks.due(told.when) {
                sender.watermark(&WatermarkParts {
                    topic: &at.topic,
                    partition: at.partition,
                    partitions: self.topics.partitions(&at.topic),
                    clock,
                    at: time,
                })?;
                told.partitions.insert(at.clone());
            }
        }
        let is_open = sender.is_open;
        self.conclude(is_open, &positions, &told)?;
        if !held.is_empty() {
            self.log.pause(&held)?;
        }
        tally.publish();
        Ok(taken)
    }

    fn conclude(
        &mut self,
        is_open: bool,
        positions: &BTreeMap<&SourcePartition, i64>,
        told: &Told,
    ) -> Result<(), LogError> {
        let mut moved = Vec::new();
        let mut is_uncommitted = false;
        for (at, owned) in self.owned.iter().filter(|(_, owned)| owned.is_started) {
            let next = positions.get(at).copied().unwrap_or(owned.position);
            // A partition without a committed offset gets one at once: until then, events that come
            // while nobody runs would be missed.
            is_uncommitted |= owned.committed.is_none();
            // Where a watermark alone is told, the position goes along all the same: only offsets
            // carry the group's generation, and without it an owner of yesterday is not fenced.
            if owned.committed != Some(next) || told.partitions.contains(at) {
                moved.push(Position {
                    at: at.clone(),
                    next,
                    note: owned.watermarks.note(told.when, owned.hold.is_waiting()),
                });
            }
        }
        let is_due = !moved.is_empty() && self.committed_at.elapsed() >= COMMIT_EVERY;
        if is_open || is_uncommitted || is_due {
            if !is_open {
                self.log.begin()?;
            }
            self.log.settle()?;
            self.log.send_offsets(&moved)?;
            self.log.commit()?;
            self.pace.note_success();
            self.committed_at = Instant::now();
            for position in &moved {
                if let Some(owned) = self.owned.get_mut(&position.at) {
                    owned.committed = Some(position.next);
                }
            }
        }
        for (at, owned) in &mut self.owned {
            if let Some(next) = positions.get(at) {
                owned.position = *next;
            }
            owned.watermarks.keep_seen();
            if told.partitions.contains(at) {
                owned.watermarks.note_told(told.when);
            }
        }
        Ok(())
    }
}

/// What a record was decoded to.
enum Decoded {
    Event(DecodedEvent),
    /// There is nothing in it for a rule.
    Nothing,
    /// Its schema cannot be had at the moment; why.
    Waits(String),
}

/// Writes records; the first begins the transaction.
struct Sender<'l> {
    log: &'l mut SourceLog,
    is_open: bool,
    /// Records, so far.
    sent: usize,
    /// Enough for one transaction.
    most: usize,
    key: Vec<u8>,
    value: Vec<u8>,
}

impl<'l> Sender<'l> {
    fn new(log: &'l mut SourceLog, most: usize) -> Self {
        Self {
            log,
            is_open: false,
            sent: 0,
            most,
            key: Vec::with_capacity(64),
            value: Vec::with_capacity(1_024),
        }
    }

    /// The next record is to be written: there is a transaction for it.
    fn open(&mut self) -> Result<(), LogError> {
        if !self.is_open {
            self.log.begin()?;
            self.is_open = true;
        }
        self.sent += 1;
        Ok(())
    }

    /// Whether it is enough for one transaction.
    fn is_full(&self) -> bool {
        self.sent >= self.most
    }

    /// What rules see of a record; one that cannot be read is a dead letter.
    fn decode(
        &mut self,
        record: &SourceRecord,
        schemas: &dyn Schemas,
        max_payload_bytes: usize,
        tally: &mut Tally<'_>,
    ) -> Result<Decoded, LogError> {
        let raw = RawEvent {
            value: record.value.as_deref(),
            headers: &record.headers,
            timestamp: record.timestamp,
        };
        match event::decode(&raw, schemas, max_payload_bytes) {
            Ok(Some(event)) => Ok(Decoded::Event(event)),
            Ok(None) => Ok(Decoded::Nothing),
            Err(Refused::Unreadable(unreadable)) => {
                tally.unreadable += 1;
                let failure = Failure::new(unreadable.class, unreadable.message);
                self.dead_letter(record, &failure, None, tally)?;
                Ok(Decoded::Nothing)
            }
            Err(Refused::Unavailable(reason)) => Ok(Decoded::Waits(reason)),
        }
    }

    fn verdict(
        &mut self,
        record: &SourceRecord,
        event: &DecodedEvent,
        verdict: Verdict<'_>,
        tally: &mut Tally<'_>,
    ) -> Result<(), LogError> {
        match verdict {
            Verdict::Wanted {
                rule,
                key,
                at,
                begins,
            } => {
                count(&mut tally.signals, &rule.name);
                self.event(&EventParts {
                    rule: &rule.name,
                    version: rule.version,
                    key: key.as_bytes(),
                    topic: &record.from.topic,
                    partition: record.from.partition,
                    offset: record.offset,
                    at,
                    payload: &event.payload,
                    begins,
                })
            }
            Verdict::Unkeyed { rule } => {
                count(&mut tally.unkeyed, &rule.name);
                Ok(())
            }
            Verdict::Timeless { rule, why } => {
                let failure = Failure::new(why.class(), why.to_string());
                self.dead_letter(record, &failure, Some(rule), tally)
            }
        }
    }

    fn event(&mut self, event: &EventParts<'_>) -> Result<(), LogError> {
        self.open()?;
        self.key.clear();
        signal::put_event_key(event.rule, event.version, event.key, &mut self.key);
        self.value.clear();
        signal::encode_event(event, &mut self.value);
        let home = partitioner::partition_of(&self.key, self.log.signal_partitions());
        self.log.send(Outgoing {
            target: Target::Signals(home),
            key: Some(&self.key),
            value: Some(&self.value),
            headers: &[],
        })
    }

    fn watermark(&mut self, watermark: &WatermarkParts<'_>) -> Result<(), LogError> {
        self.open()?;
        self.key.clear();
        signal::put_watermark_key(watermark, &mut self.key);
        self.value.clear();
        signal::encode_watermark(watermark, &mut self.value);
        for partition in 0..self.log.signal_partitions() {
            self.log.send(Outgoing {
                target: Target::Signals(partition),
                key: Some(&self.key),
                value: Some(&self.value),
                headers: &[],
            })?;
        }
        Ok(())
    }

    fn dead_letter(
        &mut self,
        record: &SourceRecord,
        failure: &Failure,
        rule: Option<&Rule>,
        tally: &mut Tally<'_>,
    ) -> Result<(), LogError> {
        self.open()?;
        count(&mut tally.dead_letters, &failure.class);
        let id = rule.map(Rule::id);
        let about = id.as_deref().map(|id| ("rule", id));
        dead_letter(
            &record.origin(),
            failure,
            STAGE,
            about.as_slice(),
            |record| self.log.send(record),
        )
    }
}

fn count(counts: &mut BTreeMap<String, u64>, name: &str) {
    match counts.get_mut(name) {
        Some(count) => *count += 1,
        None => {
            counts.insert(name.to_owned(), 1);
        }
    }
}

impl Tally<'_> {
    fn publish(self) {
        for (topic, records) in self.events {
            meters::intake_events(topic, records);
        }
        for (rule, signals) in self.signals {
            meters::intake_signals(&rule, signals);
        }
        for (rule, events) in self.unkeyed {
            meters::intake_unkeyed(&rule, events);
        }
        for (rule, events) in self.own {
            meters::intake_own(&rule, events);
        }
        meters::intake_unreadable(self.unreadable);
        for (class, records) in self.dead_letters {
            meters::dead_letters(&class, records);
        }
    }
}
