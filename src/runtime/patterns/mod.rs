//! The stage of the patterns: signals through the matchers of the rules in force, and the runs that
//! matches start, in one transaction with the matchers' state.
//!
//! A [`partition`](RulesPartition) holds the matchers of its keys in memory; what they know lies in
//! `pattern-state`, key by key, and is read from there when the partition is assigned, or after a
//! transaction that did not commit. `agenda` knows for which of its rules there is something to do;
//! [`sources`](self) says how far event time has come, `action` what a match does (`acting` when),
//! `provenance` where it comes from, `told` what `events` hears of it, `watching` who waits for a
//! pattern within a run, `originals` which record an event was; [`stats`] tells what the rules have done.

mod acting;
pub(super) mod action;
mod agenda;
mod batch;
mod held;
mod originals;
mod partition;
mod provenance;
mod running;
pub(super) mod sources;
pub mod stats;
mod told;
mod watching;

use std::collections::BTreeMap;
use std::sync::Arc;

use rustc_hash::FxHashSet;

use action::Order;
pub use batch::Bounds;
use batch::{Batch, Refused, Whole};
pub use originals::Originals;
pub use partition::RulesPartition;

use super::dead_letter::{dead_letter, origin};
use super::handle::DefinitionRegistry;
use super::meters;
use super::recovery::Pace;
use super::rules::RuleSet;
use super::send::{CLOUD_EVENT, JSON};
use super::shared::Shared;
use super::stage::{Owned, RECORDS_PER_STEP, Stage};
use super::tables::{Joins, Tables};
use crate::codec::CodecError;
use crate::codec::pattern_state::{self as state, PatternKey};
use crate::codec::rule_event;
use crate::log::{
    ChangelogReader, ErrorClass, Log, LogError, Outgoing, Positions, Record, RestoreProgress,
    Source, Target, Topics, partitioner,
};
use crate::model::{Failure, Millis, Timestamp};
use crate::pattern::{Matcher, Rule};

/// What a dead letter's `stage` says.
const STAGE: &str = "patterns";

/// Between two looks at how far time has come where no signal comes.
const LOOK_EVERY: Millis = Millis(250);

/// The same where nothing is waited for: what is told of the rules is no older.
const LOOK_AT_REST_EVERY: Millis = Millis(1_000);

/// See the module.
pub struct Patterns {
    /// Its place in the list of troubles of [`Shared`].
    number: usize,
    topics: Topics,
    definitions: Arc<dyn DefinitionRegistry>,
    shared: Arc<Shared>,
    tables: Arc<dyn Tables>,
    originals: Box<dyn Originals>,
    /// The tables of the rules in force: they are read before a partition is here, and kept while it
    /// is restored. As of a generation of the registry.
    joined: (Option<u64>, Vec<Joins>),
    bounds: Bounds,
    /// Rules that the registry was asked for, in force or not, since it changed last.
    seen: Seen,
}

/// `<rule>@<version>` of rules, as of one generation of the registry.
#[derive(Default)]
struct Seen {
    generation: Option<u64>,
    rules: FxHashSet<String>,
}

/// What a partition took of the records that were for it.
struct Taken {
    /// So many, from the first on.
    records: usize,
    /// Whether sources have gone on by them.
    has_new_times: bool,
}

/// By partition, each with the positions after it.
type Batches = BTreeMap<i32, (Positions, Batch)>;

impl Patterns {
    /// `number` tells it apart from all workers of the instance.
    pub fn new(
        number: usize,
        topics: Topics,
        definitions: Arc<dyn DefinitionRegistry>,
        shared: Arc<Shared>,
        tables: Arc<dyn Tables>,
        originals: Box<dyn Originals>,
        bounds: Bounds,
    ) -> Self {
        Self {
            number,
            topics,
            definitions,
            shared,
            tables,
            originals,
            joined: (None, Vec::new()),
            bounds,
            seen: Seen::default(),
        }
    }

    /// The rules in force. An intake elsewhere may know a rule before this instance does: then the
    /// definitions catch up first, or the first events of a rule would find nobody.
    ///
    /// # Errors
    /// They cannot: nobody knows whether those events have a rule.
    fn rules_for(&mut self, records: &[Record]) -> Result<RuleSet, LogError> {
        let current = self.definitions.rules();
        self.seen.note(&current);
        let of_event = |record: &Record| {
            let key = std::str::from_utf8(record.key.as_deref()?).ok()?;
            let (rule, _) = key.split_once('/')?;
            // The key of a watermark begins with a topic, and no topic has this sign in its name.
            (rule.contains('@') && !self.seen.rules.contains(rule)).then(|| rule.to_owned())
        };
        let unknown: Vec<String> = records.iter().filter_map(of_event).collect();
        if unknown.is_empty() {
            return Ok(current);
        }
        self.definitions.catch_up()?;
        let current = self.definitions.rules();
        self.seen.note(&current);
        // Those that are still not in force were retired: they are not asked for again.
        self.seen.rules.extend(unknown);
        Ok(current)
    }

    fn open_tables(&mut self, generation: u64, rules: &[Arc<Rule>]) {
        if self.joined.0 == Some(generation) {
            return;
        }
        let joins = rules.iter().filter(|rule| !rule.enrich.is_empty());
        let joins = joins.map(|rule| Joins::of(rule, self.tables.as_ref()));
        // The new ones first: a table that both have is not read again.
        self.joined = (Some(generation), joins.collect());
    }

    fn send(
        &self,
        log: &mut dyn Log,
        number: i32,
        (positions, batch): &(Positions, Batch),
        now: Timestamp,
    ) -> Result<(), LogError> {
        for order in &batch.orders {
            self.order(log, order)?;
        }
        for refused in &batch.refused {
            refuse(log, refused)?;
        }
        let position = positions[Source::Signals.index()];
        let mut value = Vec::new();
        for (place, event) in batch.told().enumerate() {
            value.clear();
            let name = format!("{number}.{position}.{}.{place}", now.0);
            rule_event::rule_event(&mut value, &event, now, &name);
            let rule = event.rule().as_bytes();
            let home = partitioner::partition_of(rule, self.shared.partition_count());
            log.send(Outgoing {
                target: Target::Events(home),
                key: Some(rule),
                value: Some(&value),
                headers: &[CLOUD_EVENT],
            })?;
        }
        for (key, value) in &batch.entries {
            log.send(Outgoing {
                target: Target::State(number),
                key: Some(&key.to_bytes()),
                value: value.as_deref(),
                headers: &[],
            })?;
        }
        Ok(())
    }

    /// Puts the rules as they stand to work, and does what is left of what was due; whether events may be taken.
    fn catch_up(
        &self,
        partition: &mut RulesPartition,
        rules: &RuleSet,
        now: Timestamp,
        room: &mut usize,
        batch: &mut Batch,
    ) -> bool {
        let known = |id: &str| -> Option<Arc<Rule>> {
            let (name, version) = id.rsplit_once('@')?;
            self.definitions.rule(name, version.parse().ok()?)
        };
        if partition.apply_rules(rules, &known, now, batch) || partition.is_behind {
            // What is too late is decided by how far time had come when the records were read.
            partition.move_time(now, room, batch);
        }
        !partition.is_behind
    }

    /// Hands records to their partition, until enough has come of them for one transaction.
    fn take(
        &self,
        partition: &mut RulesPartition,
        records: &[Record],
        positions: &mut Positions,
        now: Timestamp,
        batch: &mut Batch,
    ) -> Result<Taken, LogError> {
        let topic = self.topics.of(Source::Signals);
        let position = &mut positions[Source::Signals.index()];
        let mut has_new_times = false;
        let mut taken = 0;
        for record in records {
            if batch.is_full() {
                break;
            }
            taken += 1;
            *position = (record.offset + 1).max(*position);
            let value = record.value.as_deref().unwrap_or_default();
            match partition.take(value, now, batch) {
                Ok(is_new_time) => has_new_times |= is_new_time,
                // An instance of that version will read it.
                Err(error @ CodecError::TooNew { .. }) => {
                    let (number, offset) = (record.partition, record.offset);
                    return Err(LogError {
                        class: ErrorClass::Retriable,
                        doing: "reading a signal",
                        reason: format!("{topic}/{number}, offset {offset}: {error}"),
                    });
                }
                Err(error) => batch.refused.push(unreadable(&self.topics, record, &error)),
            }
        }
        Ok(Taken {
            records: taken,
            has_new_times,
        })
    }

    /// Writes the batches in one transaction.
    fn commit(
        &mut self,
        log: &mut dyn Log,
        owned: &mut Owned<RulesPartition>,
        mut batches: Batches,
        now: Timestamp,
    ) -> Result<(), LogError> {
        let refused = batches
            .values_mut()
            .flat_map(|(_, batch)| &mut batch.refused);
        originals::complete(refused, self.originals.as_mut());
        log.begin()?;
        for (number, batch) in &batches {
            self.send(log, *number, batch, now)?;
        }
        log.settle()?;
        let positions: Vec<(i32, Positions)> = batches
            .iter()
            .map(|(number, (positions, _))| (*number, *positions))
            .collect();
        log.send_offsets(&positions)?;
        log.commit()?;
        for (number, (positions, batch)) in batches {
            if let Some(owned) = owned.get_mut(&number) {
                owned.positions = positions;
                if let Some(partition) = &mut owned.partition {
                    partition.is_pending = false;
                }
            }
            self.shared.rules().count(&batch.tally);
            batch.publish();
        }
        Ok(())
    }

    fn order(&self, log: &mut dyn Log, order: &Order) -> Result<(), LogError> {
        let (run, command) = match order {
            Order::Run(run, command) => (run, command),
            Order::All(command) => {
                let partitions = self.shared.partition_count();
                if partitions == 0 {
                    // The workers of the workflows find it out as they connect.
                    return Err(LogError {
                        class: ErrorClass::Retriable,
                        doing: "sending an order for many runs",
                        reason: "how many partitions `commands` has is not known yet".to_owned(),
                    });
                }
                for partition in 0..partitions {
                    log.send(Outgoing {
                        target: Target::Input(Source::Commands, partition),
                        key: None,
                        value: Some(command),
                        headers: &[JSON],
                    })?;
                }
                return Ok(());
            }
        };
        log.send(Outgoing {
            target: Target::Command,
            key: Some(run.as_str().as_bytes()),
            value: Some(command),
            headers: &[JSON],
        })
    }
}

impl Seen {
    fn note(&mut self, rules: &RuleSet) {
        if self.generation != Some(rules.generation) {
            self.generation = Some(rules.generation);
            let draining = rules.draining.iter().map(|one| &one.rule);
            let known = rules.in_force.iter().chain(draining);
            self.rules = known.map(|rule| rule.id()).collect();
        }
    }
}

fn refuse(log: &mut dyn Log, refused: &Refused) -> Result<(), LogError> {
    let about = (!refused.rule.is_empty()).then_some(("rule", refused.rule.as_str()));
    let decoded = match &refused.whole {
        Whole::No(reason) => Some(("decoded-value", reason.as_str())),
        Whole::Yes | Whole::ToBeRead => None,
    };
    let notes: Vec<(&str, &str)> = about.into_iter().chain(decoded).collect();
    dead_letter(&refused.origin, &refused.failure, STAGE, &notes, |record| {
        log.send(record)
    })
}

/// Whether a newer program wrote an entry of the changelog.
fn newer(key: &PatternKey, value: &[u8]) -> Result<(), CodecError> {
    state::check_version(value)?;
    let PatternKey::State { part: 0, .. } = key else {
        return Ok(());
    };
    let first = state::decode_piece(value).map(|piece| piece.state.first().copied());
    match first {
        Ok(Some(found)) if found > Matcher::STATE_VERSION => Err(CodecError::TooNew {
            found,
            known: Matcher::STATE_VERSION,
        }),
        _ => Ok(()),
    }
}

/// When time is to be looked at again; `None`: there is no rule for which it goes on.
fn due(partition: &RulesPartition) -> Option<Timestamp> {
    let every = match (partition.is_waiting(), partition.running.is_empty()) {
        (true, _) => LOOK_EVERY,
        (false, false) => LOOK_AT_REST_EVERY,
        (false, true) => return None,
    };
    Some(partition.looked_at + every)
}

/// Whether time is to be looked at, also after the clock was set back.
fn is_due(partition: &RulesPartition, now: Timestamp) -> bool {
    due(partition).is_some_and(|due| due <= now || now < partition.looked_at)
}

/// A record of `signals` that is none.
fn unreadable(topics: &Topics, record: &Record, error: &CodecError) -> Refused {
    Refused {
        rule: String::new(),
        origin: origin(topics, record),
        whole: Whole::Yes,
        failure: Failure::new("unreadable", error.to_string()),
    }
}

impl Stage for Patterns {
    type Partition = RulesPartition;

    fn connected(&mut self, _: i32) {}

    fn set_trouble(&self, trouble: Option<String>) {
        self.shared.set_trouble(self.number, trouble);
    }

    /// What is in memory may be ahead of what is committed.
    fn open(&mut self, _: i32, _: &str, _: Option<RulesPartition>) -> Option<RulesPartition> {
        Some(RulesPartition::new(self.tables.clone()))
    }

    fn open_empty(&mut self, _: i32, _: &str, _: RulesPartition) -> RulesPartition {
        RulesPartition::new(self.tables.clone())
    }

    fn changelog_offset(&self, _: &RulesPartition) -> i64 {
        0
    }

    fn restoring(&mut self, _: i32, _: &RulesPartition) {}

    fn replay(
        &mut self,
        number: i32,
        partition: &mut RulesPartition,
        changelog: &mut dyn ChangelogReader,
    ) -> Result<RestoreProgress, LogError> {
        let mut too_new = None;
        let progress = changelog.read(RECORDS_PER_STEP, &mut |record| {
            let Some(key) = PatternKey::parse(record.key) else {
                let key = String::from_utf8_lossy(record.key);
                tracing::error!(
                    %key, partition = number, offset = record.offset,
                    "skipping a record of the changelog that is not ours"
                );
                return;
            };
            match record.value.map(|value| newer(&key, value)) {
                Some(Err(error)) => too_new = Some(error),
                _ => partition.remember(key, record.value),
            }
        })?;
        match too_new {
            None => Ok(progress),
            // Going on would overwrite what a later version knows and we do not.
            Some(error) => Err(LogError {
                class: ErrorClass::Retriable,
                doing: "restoring",
                reason: format!("partition {number}: {error}"),
            }),
        }
    }

    fn restored(
        &mut self,
        number: i32,
        partition: &mut RulesPartition,
        now: Timestamp,
    ) -> Result<(), LogError> {
        // What is saved belongs to rules that other instances may have applied by now.
        self.definitions.catch_up()?;
        if let Err(error) = partition.begin(now) {
            tracing::error!(%error, partition = number, "event times of the sources are lost");
        }
        tracing::info!(partition = number, "restored the patterns");
        Ok(())
    }

    fn next_due(&self, partition: &RulesPartition) -> Option<Timestamp> {
        due(partition)
    }

    fn transact(
        &mut self,
        log: &mut dyn Log,
        owned: &mut Owned<RulesPartition>,
        records: &[Record],
        now: Timestamp,
        pace: &mut Pace,
    ) -> Result<usize, LogError> {
        let rules = self.rules_for(records)?;
        self.open_tables(rules.generation, &rules.in_force);
        let runs = records.chunk_by(|one, next| one.partition == next.partition);
        let mut untaken: BTreeMap<i32, &[Record]> =
            runs.map(|run| (run[0].partition, run)).collect();
        let is_hearing = log.outage().is_none();
        // Mostly one transaction. What is due at once may be more than fits into it, and events have to wait
        // for that; or what came of the first events is enough for one: then several.
        loop {
            let mut batches = Batches::new();
            let bounds = Bounds {
                at_once: pace.of(self.bounds.at_once),
                ..self.bounds
            };
            let mut room = bounds.at_once;
            let mut is_over = true;
            for (&number, owned) in owned.iter_mut() {
                let before = owned.positions;
                let Some(partition) = owned.working_mut() else {
                    continue;
                };
                let is_due = is_due(partition, now);
                if !untaken.contains_key(&number) && !is_due && !partition.is_behind {
                    continue;
                }
                partition.is_pending = true;
                partition.begin_look(now, is_hearing);
                let mut batch = Batch::new(bounds);
                let mut positions = before;
                let mut has_new_times = false;
                if self.catch_up(partition, &rules, now, &mut room, &mut batch) {
                    let records = untaken.remove(&number).unwrap_or_default();
                    let taken = self.take(partition, records, &mut positions, now, &mut batch)?;
                    has_new_times = taken.has_new_times;
                    partition.move_time(now, &mut room, &mut batch);
                    let rest = &records[taken.records..];
                    if !rest.is_empty() {
                        untaken.insert(number, rest);
                        is_over = false;
                    }
                }
                is_over &= !partition.is_behind;
                partition.save(has_new_times, &mut batch);
                if positions == before && batch.is_empty() {
                    partition.is_pending = false;
                } else {
                    batches.insert(number, (positions, batch));
                }
            }
            if !batches.is_empty() {
                self.commit(log, owned, batches, now)?;
                pace.note_success();
            }
            if is_over {
                return Ok(records.len());
            }
        }
    }

    fn survives_abort(&self, partition: &RulesPartition) -> bool {
        !partition.is_pending
    }

    fn session_lost(&mut self, _: i32, _: &RulesPartition) {}

    fn give_up(&mut self, number: i32, _: Option<RulesPartition>) {
        self.shared.rules().forget(number);
        meters::lag(self.topics.of(Source::Signals), number, 0);
    }

    fn observe(&self, number: i32, partition: &RulesPartition, behind: [u64; 2]) {
        self.shared.rules().observe(number, partition.levels());
        let behind = behind[Source::Signals.index()];
        meters::lag(self.topics.of(Source::Signals), number, behind);
        self.tables.observe();
    }
}
