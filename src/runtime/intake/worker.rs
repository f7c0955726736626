//! One worker of the intake, moved on by [`IntakeWorker::step`]: looks whether rules or their topics
//! have changed, polls, starts the partitions that it was assigned, and turns what came in into one
//! transaction (`batch`). Errors are met as the workflows' worker meets them: an abortable one gives
//! up the transaction and goes back to where it began; a fatal one makes a new session and asks for
//! the committed offsets.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::IntakeConfig;
use super::gaps::Gap;
use super::hold::Hold;
use super::topics::SourceTopics;
use super::watermarks::Watermarks;
use crate::clock::{Clock, SystemClock};
use crate::codec::event::Schemas;
use crate::log::kafka::SourceLog;
use crate::log::kafka::sources::{SourceChange, SourcePartition};
use crate::log::{ErrorClass, LogError, Lost, PollLimits};
use crate::model::Timestamp;
use crate::pattern::Rule;
use crate::pattern::filter::Filter;
use crate::runtime::DefinitionRegistry;
use crate::runtime::meters;
use crate::runtime::recovery::{MAX_BACKOFF, Pace, Recover, TRY_AGAIN_AFTER, backoff, recover};
pub use crate::runtime::worker::Stepped;

/// A source partition and how far it is.
pub(super) struct Owned {
    /// Whether it is fetched from, and the positions are known.
    pub is_started: bool,
    /// Where it could not be started: when that is tried again, by itself, for it may be the one of several
    /// that stands before the others.
    put_off: Option<Instant>,
    /// The next offset to read: what came before it has left nothing to be written.
    pub position: i64,
    /// Whether records from there on came while no rule read the topic. They are for a rule that
    /// comes back.
    pub has_passed_over: bool,
    /// The position that the group has committed; `None`: none yet.
    pub committed: Option<i64>,
    pub watermarks: Watermarks,
    pub hold: Hold,
    pub gap: Gap,
}

/// See the module.
pub struct IntakeWorker {
    pub(super) number: usize,
    pub(super) max_payload_bytes: usize,
    limits: PollLimits,
    pub(super) log: SourceLog,
    rules: Arc<dyn DefinitionRegistry>,
    pub(super) schemas: Arc<dyn Schemas + Send + Sync>,
    generation: Option<u64>,
    /// When a version of a rule stops to take events, the first of them.
    narrows_at: Option<Timestamp>,
    pub(super) filter: Filter,
    pub(super) topics: SourceTopics,
    subscribed: Vec<Arc<str>>,
    is_connected: bool,
    pub(super) owned: BTreeMap<SourcePartition, Owned>,
    /// When positions were last committed.
    pub(super) committed_at: Instant,
    failures: u32,
    pub(super) pace: Pace,
    /// Another took its place: it does nothing any more.
    is_retired: bool,
}

impl IntakeWorker {
    /// Worker `number` of the instance; reaches for nothing yet.
    pub fn new(
        config: &IntakeConfig,
        number: usize,
        log: SourceLog,
        rules: Arc<dyn DefinitionRegistry>,
        schemas: Arc<dyn Schemas + Send + Sync>,
    ) -> Self {
        Self {
            number,
            max_payload_bytes: config.max_payload_bytes,
            limits: PollLimits {
                wait: Duration::ZERO,
                records: config.batch_records.max(1),
                bytes: config.batch_bytes.max(1),
            },
            log,
            rules,
            schemas,
            generation: None,
            narrows_at: None,
            filter: Filter::default(),
            topics: SourceTopics::default(),
            subscribed: Vec::new(),
            is_connected: false,
            owned: BTreeMap::new(),
            committed_at: Instant::now(),
            failures: 0,
            pace: Pace::default(),
            is_retired: false,
        }
    }

    /// Does what there is to do; waits at most `wait` for input where nothing else is to be done.
    pub fn step(&mut self, wait: Duration) -> Stepped {
        if self.is_retired {
            return Stepped::Failed {
                retry_after: MAX_BACKOFF,
            };
        }
        match self.try_step(wait) {
            Ok(taken) => {
                self.failures = 0;
                match taken {
                    0 => Stepped::Idle,
                    taken => Stepped::Worked(taken),
                }
            }
            Err(error) => self.recover(&error),
        }
    }

    /// Tells how far behind the partitions are, and what was deleted before it was read.
    pub fn observe(&mut self) {
        self.explain_gaps();
        for (at, owned) in &self.owned {
            if owned.is_started {
                let behind = self.log.lag(at, owned.position);
                meters::lag(&at.topic, at.partition, behind);
            }
        }
        meters::missing_topics(self.topics.missing());
        let held = self.owned.values().filter(|owned| owned.hold.is_on());
        meters::held_partitions(held.count());
    }

    fn explain_gaps(&mut self) {
        for (at, owned) in &mut self.owned {
            if !owned.gap.is_open() {
                continue;
            }
            match self.log.first_offset(at) {
                Ok(first) => meters::records_lost(&[Lost {
                    topic: at.topic.to_string(),
                    partition: at.partition,
                    records: owned.gap.explain(first),
                }]),
                Err(error) => tracing::debug!(%error, "cannot explain a gap yet"),
            }
        }
    }

    /// Leaves the group. What is not committed was never done.
    pub fn leave(&mut self) {
        self.log.leave();
        self.is_connected = false;
        self.subscribed.clear();
        for at in std::mem::take(&mut self.owned).keys() {
            meters::lag(&at.topic, at.partition, 0);
        }
    }

    fn try_step(&mut self, wait: Duration) -> Result<usize, LogError> {
        self.look_at_rules()?;
        self.topics.look(&self.log)?;
        let existing = self.topics.existing();
        if existing.is_empty() {
            // A member that does not poll is no member.
            if self.is_connected {
                self.leave();
            }
            std::thread::sleep(wait);
            return Ok(0);
        }
        if !self.is_connected {
            self.log.connect()?;
            self.is_connected = true;
            tracing::info!(
                worker = self.number,
                "the intake is connected to the brokers"
            );
        }
        if existing != self.subscribed {
            self.log.subscribe(&existing)?;
            self.subscribed = existing;
        }
        self.end_holds()?;
        let mut records = Vec::new();
        let limits = PollLimits {
            wait: match self.to_start().is_empty() {
                true => wait,
                false => Duration::ZERO,
            },
            records: self.pace.of(self.limits.records),
            bytes: self.pace.of(self.limits.bytes),
        };
        for change in self.log.poll(limits, &mut records)? {
            self.change_ownership(change);
        }
        // Whoever applied a rule while the poll waited may have produced its first event right after.
        let read_again = self.look_at_rules()?;
        if !read_again.is_empty() {
            records.retain(|record| !read_again.contains(&record.from));
        }
        // What was at hand of a partition that is yet to be started lies behind where it begins: it comes
        // again from there, and taken now it would stand for what lies between.
        let to_start = self.to_start();
        if !to_start.is_empty() {
            records.retain(|record| self.is_started(&record.from));
            self.start_partitions(to_start)?;
        }
        let mut taken = 0;
        loop {
            let transacted = self.transact(&records[taken..]);
            taken += transacted.inspect_err(|_| self.pace.note_failure())?;
            if taken >= records.len() {
                return Ok(taken);
            }
        }
    }

    /// The partitions to be started now: all those that were not put off, else one that was.
    fn to_start(&self) -> Vec<SourcePartition> {
        let waiting = || self.owned.iter().filter(|(_, owned)| !owned.is_started);
        let fresh = waiting().filter(|(_, owned)| owned.put_off.is_none());
        let fresh: Vec<SourcePartition> = fresh.map(|(at, _)| at.clone()).collect();
        if !fresh.is_empty() {
            return fresh;
        }
        let now = Instant::now();
        let due = waiting().filter(|(_, owned)| owned.put_off.is_some_and(|until| until <= now));
        let first = due.min_by_key(|(_, owned)| owned.put_off);
        first.map(|(at, _)| at.clone()).into_iter().collect()
    }

    fn is_started(&self, at: &SourcePartition) -> bool {
        self.owned.get(at).is_some_and(|owned| owned.is_started)
    }

    /// Goes by the rules in force and those that drain; the partitions that go back for them to what was
    /// passed over.
    fn look_at_rules(&mut self) -> Result<Vec<SourcePartition>, LogError> {
        let rules = self.rules.rules();
        let now = SystemClock.now();
        let narrows = self.narrows_at.is_some_and(|at| at <= now);
        if self.generation == Some(rules.generation) && !narrows {
            return Ok(Vec::new());
        }
        self.generation = Some(rules.generation);
        self.filter = Filter::new(&rules.in_force);
        for one in rules.draining_at(now) {
            self.filter.add_draining(&one.rule);
        }
        self.narrows_at = rules.draining_at(now).map(|one| one.until).min();
        self.topics.want(self.beginnings_of(rules.reading(now)));
        let mut behind = Vec::new();
        for (at, owned) in &mut self.owned {
            if let Some(of_topic) = self.filter.topic(&at.topic) {
                owned.watermarks.keep_clocks(of_topic.clocks());
                if owned.is_started && std::mem::take(&mut owned.has_passed_over) {
                    behind.push((at.clone(), owned.position));
                }
            }
        }
        tracing::info!(
            worker = self.number,
            rules = rules.in_force.len(),
            draining = rules.draining_at(now).count(),
            generation = rules.generation,
            "rules have changed"
        );
        if !behind.is_empty() {
            self.log.start(&behind)?;
        }
        Ok(behind.into_iter().map(|(at, _)| at).collect())
    }

    /// The topics of the rules, each with when the first of its rules was applied.
    fn beginnings_of<'r>(
        &self,
        rules: impl Iterator<Item = &'r Arc<Rule>>,
    ) -> BTreeMap<Arc<str>, Option<Timestamp>> {
        let mut beginnings: BTreeMap<Arc<str>, Option<Timestamp>> = BTreeMap::new();
        for rule in rules {
            let applied = self.rules.rule_applied_at(&rule.name, rule.version);
            for topic in &rule.topics {
                let since = beginnings.entry(topic.clone()).or_default();
                *since = since.take().into_iter().chain(applied).min();
            }
        }
        beginnings
    }

    fn change_ownership(&mut self, change: SourceChange) {
        meters::rebalanced();
        match change {
            // The end of a rebalance that brings nothing.
            SourceChange::Assigned(partitions) if partitions.is_empty() => {}
            SourceChange::Assigned(partitions) => {
                tracing::info!(worker = self.number, partitions = %shown(&partitions), "assigned");
                for at in partitions {
                    let owned = Owned {
                        is_started: false,
                        put_off: None,
                        position: 0,
                        has_passed_over: false,
                        committed: None,
                        watermarks: Watermarks::default(),
                        hold: Hold::default(),
                        gap: Gap::default(),
                    };
                    self.owned.insert(at, owned);
                }
            }
            SourceChange::Revoked(partitions) => {
                tracing::info!(worker = self.number, partitions = %shown(&partitions), "revoked");
                for at in partitions {
                    self.owned.remove(&at);
                    meters::lag(&at.topic, at.partition, 0);
                }
            }
        }
    }

    fn start_partitions(&mut self, waiting: Vec<SourcePartition>) -> Result<(), LogError> {
        let since = |at: &SourcePartition| self.topics.since(at);
        let beginnings = match self.log.beginnings(&waiting, &since) {
            Err(error) if error.class == ErrorClass::Retriable => {
                tracing::warn!(
                    worker = self.number, partitions = %shown(&waiting), %error,
                    "cannot begin with partitions yet"
                );
                let until = Instant::now() + Duration::from(TRY_AGAIN_AFTER);
                for at in &waiting {
                    if let Some(owned) = self.owned.get_mut(at) {
                        owned.put_off = Some(until);
                    }
                }
                return Ok(());
            }
            beginnings => beginnings?,
        };
        meters::records_lost(&self.log.take_lost());
        let list: Vec<(SourcePartition, i64)> = waiting
            .into_iter()
            .zip(&beginnings)
            .map(|(at, beginning)| (at, beginning.offset))
            .collect();
        self.log.start(&list)?;
        for ((at, offset), beginning) in list.iter().zip(beginnings) {
            if let Some(owned) = self.owned.get_mut(at) {
                owned.is_started = true;
                owned.put_off = None;
                owned.position = *offset;
                owned.committed = beginning.is_committed.then_some(*offset);
                if !beginning.note.is_empty() {
                    owned.watermarks = Watermarks::from_note(&beginning.note);
                    let of_topic = self.filter.topic(&at.topic);
                    let clocks = of_topic.map_or(&[][..], |of_topic| of_topic.clocks());
                    owned.watermarks.keep_clocks(clocks);
                }
            }
        }
        Ok(())
    }

    /// Reads on where a schema was waited for long enough. Before the poll: it must bring nothing that was
    /// fetched from behind the position.
    fn end_holds(&mut self) -> Result<(), LogError> {
        let mut ended = Vec::new();
        for (at, owned) in &mut self.owned {
            if owned.hold.end_if_due() && owned.is_started {
                ended.push((at.clone(), owned.position));
            }
        }
        match ended.is_empty() {
            true => Ok(()),
            false => self.log.start(&ended),
        }
    }

    fn recover(&mut self, error: &LogError) -> Stepped {
        self.failures = self.failures.saturating_add(1);
        let retry_after = backoff(self.failures);
        match error.class {
            ErrorClass::Replaced => {
                tracing::error!(worker = self.number, %error, "the intake gives up for good");
            }
            class => tracing::warn!(
                worker = self.number, %error, ?class, attempt = self.failures,
                retry_ms = retry_after.as_millis() as u64, "the intake tries again"
            ),
        }
        recover(self, error.class);
        Stepped::Failed { retry_after }
    }
}

impl Recover for IntakeWorker {
    fn is_connected(&self) -> bool {
        self.is_connected
    }

    fn go_back(&mut self) -> Result<(), LogError> {
        self.log.abort()?;
        let mut positions = Vec::new();
        for (at, owned) in &mut self.owned {
            owned.watermarks.go_back();
            if owned.is_started && !owned.hold.is_on() {
                positions.push((at.clone(), owned.position));
            }
        }
        if positions.is_empty() {
            return Ok(());
        }
        self.log.start(&positions)
    }

    fn lose_session(&mut self) {
        self.is_connected = false;
        for owned in self.owned.values_mut() {
            owned.is_started = false;
            owned.watermarks.go_back();
        }
    }

    fn retire(&mut self) {
        self.leave();
        self.is_retired = true;
    }
}

fn shown(partitions: &[SourcePartition]) -> String {
    let names = partitions.iter();
    let names: Vec<String> = names
        .map(|at| format!("{}/{}", at.topic, at.partition))
        .collect();
    names.join(" ")
}
