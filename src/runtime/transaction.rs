//! One batch, one transaction: inputs through the engine, outputs and changelog to the log,
//! positions with them, and only after the commit into the cache and out to those who wait.

use std::sync::Arc;
use std::time::Instant;

use super::cache::Due;
use super::dead_letter::origin;
use super::meters;
use super::partition::{Change, Partition, View};
use super::recovery::Pace;
use super::send::Sender;
use super::stage::{Owned, Phase, Stage};
use super::workflows::{RunsPartition, Workflows};
use crate::codec::input::{self, Commanded, Unreadable};
use crate::codec::{header, keys};
use crate::engine::{Effect, Engine, Finished, Input, Origin};
use crate::log::{ErrorClass, Log, LogError, Positions, Record, Source, partitioner};
use crate::model::{Command, Millis, RunId, Timestamp};
use crate::store::StoreError;

/// A timer that changed nothing (which would be a bug of the engine) is not asked again at once.
const FRUITLESS_TIMER: Millis = Millis(1_000);

/// What one partition brings to the transaction.
pub(super) struct Prepared<'r> {
    pub number: i32,
    pub partition: Arc<Partition>,
    pub finished: Finished,
    /// The record of each of the engine's inputs; none for a timer.
    pub inputs: Vec<Option<&'r Record>>,
    /// Who waits for the input's answer, by the input's number.
    pub requests: Vec<(usize, u64, RunId)>,
    pub unreadable: Vec<(&'r Record, Unreadable)>,
    /// Records that belong to another partition, and that partition.
    pub forwards: Vec<(&'r Record, i32)>,
    pub expired: Vec<keys::EntryKey>,
    /// Next positions, where there were records.
    pub positions: Option<Positions>,
    /// Runs that were due.
    pub ticked: Vec<RunId>,
}

impl Prepared<'_> {
    fn is_empty(&self) -> bool {
        self.positions.is_none()
            && self.expired.is_empty()
            && self.finished.changes.runs.is_empty()
            && self.finished.changes.parked.is_empty()
            && !self
                .finished
                .effects
                .iter()
                .any(|emitted| !matches!(emitted.effect, Effect::Held { .. }))
    }
}

impl Workflows {
    /// Applies the records and what is due; how many inputs there were.
    pub(super) fn commit_batch(
        &mut self,
        log: &mut dyn Log,
        owned: &mut Owned<RunsPartition>,
        records: &[Record],
        now: Timestamp,
        pace: &mut Pace,
    ) -> Result<usize, LogError> {
        for owned in owned.values_mut() {
            let failed = |known: &RunsPartition| known.partition.is_abandoned();
            if owned.working().is_some_and(failed) {
                owned.phase = Phase::Opening;
            }
        }
        let read = self.read_all(records)?;
        let most_due = pace.of(self.config.batch_records);
        let prepared = self.prepare_all(log.partitions(), owned, records, read, most_due, now);
        let prepared = match prepared {
            Ok(prepared) => prepared,
            Err((number, error)) => {
                tracing::error!(%error, partition = number, "the store failed; rebuilding it");
                *self.store_failures.entry(number).or_default() += 1;
                if let Some(failed) = owned.get_mut(&number) {
                    let old = failed.partition.take();
                    failed.partition = old.map(|old| self.open_empty(number, log.cluster(), old));
                    failed.phase = Phase::Opening;
                }
                // What was polled is read again; other partitions lose nothing by it.
                let reason = error.to_string();
                return Err(LogError {
                    class: ErrorClass::Abortable,
                    doing: "reading state",
                    reason,
                });
            }
        };
        if prepared.is_empty() {
            return Ok(0);
        }
        let inputs = prepared
            .iter()
            .map(|part| part.inputs.len() + part.unreadable.len() + part.forwards.len())
            .sum();
        let began = Instant::now();
        let has_output = prepared.iter().any(|part| !part.is_empty());
        let mut sender = Sender::new(&self.config.topics);
        let mut changelog_offsets = Vec::new();
        let mut changes = Vec::with_capacity(prepared.len());
        if has_output {
            log.begin()?;
            for part in &prepared {
                changes.push(sender.send(log, part)?);
            }
            changelog_offsets = log.settle()?;
            // Timers alone move no position, but theirs go along all the same: only offsets carry
            // the group's generation, and without it an owner of yesterday would not be fenced.
            let positions: Vec<(i32, Positions)> = prepared
                .iter()
                .filter_map(|part| {
                    let resting = || Some(owned.get(&part.number)?.positions);
                    Some((part.number, part.positions.or_else(resting)?))
                })
                .collect();
            log.send_offsets(&positions)?;
            log.commit()?;
            pace.note_success();
            meters::committed(inputs, began.elapsed());
        }
        let mut changes = changes.into_iter();
        for part in prepared {
            let next = changelog_offsets
                .iter()
                .find(|(number, _)| *number == part.number);
            let next = next.map_or(part.partition.changelog_offset(), |(_, next)| *next);
            let positions = part.positions;
            let number = part.number;
            self.conclude(part, changes.next().unwrap_or_default(), next, now);
            if let (Some(owned), Some(positions)) = (owned.get_mut(&number), positions) {
                owned.positions = positions;
            }
        }
        Ok(inputs)
    }

    /// Runs every partition's inputs through the engine. Changes nothing.
    fn prepare_all<'r>(
        &self,
        count: i32,
        owned: &mut Owned<RunsPartition>,
        records: &'r [Record],
        mut read: Vec<Option<Read>>,
        most_due: usize,
        now: Timestamp,
    ) -> Result<Vec<Prepared<'r>>, (i32, StoreError)> {
        let Some(engine) = &self.engine else {
            return Ok(Vec::new());
        };
        let mut prepared = Vec::new();
        for (&number, owned) in owned {
            let positions = owned.positions;
            let Some(RunsPartition { partition, sweep }) = owned.working_mut() else {
                continue;
            };
            if partition.is_abandoned() {
                // It failed just now.
                continue;
            }
            let first = records.partition_point(|record| record.partition < number);
            let last = records.partition_point(|record| record.partition <= number);
            let due = partition.cache().due(now, most_due);
            let expired = sweep.pass(partition, self.config.retention, now);
            let expired = expired.map_err(|error| (number, error))?;
            if first == last && due.is_empty() && expired.is_empty() {
                continue;
            }
            let mut part = Prepared {
                number,
                partition: Arc::clone(partition),
                finished: Finished::default(),
                inputs: Vec::with_capacity(last - first + due.len()),
                requests: Vec::new(),
                unreadable: Vec::new(),
                forwards: Vec::new(),
                expired,
                positions: None,
                ticked: Vec::new(),
            };
            if first < last {
                let mut positions = positions;
                for record in &records[first..last] {
                    let position = &mut positions[record.source.index()];
                    *position = (record.offset + 1).max(*position);
                }
                part.positions = Some(positions);
            }
            let batch = Batch {
                engine,
                instance: &self.shared.instance,
                topics: &self.config.topics,
                count,
                now,
            };
            batch
                .run(
                    &mut part,
                    &records[first..last],
                    &mut read[first..last],
                    due,
                )
                .map_err(|error| (number, error))?;
            prepared.push(part);
        }
        Ok(prepared)
    }

    /// Reads the records. A start of a workflow that is not known here may be known elsewhere by
    /// now: then the definitions catch up, once.
    ///
    /// # Errors
    /// They cannot: nobody knows whether that start is to be refused.
    fn read_all(&self, records: &[Record]) -> Result<Vec<Option<Read>>, LogError> {
        let read: Vec<Option<Read>> = records.iter().map(|record| Some(read(record))).collect();
        let is_unknown = |read: &Option<Read>| match read {
            Some(Ok((
                Input::Command {
                    command: Command::Start(start),
                    ..
                },
                _,
            ))) => {
                let known = self.definitions.workflow(&start.workflow, start.version);
                known.is_none()
            }
            _ => false,
        };
        if read.iter().any(is_unknown) {
            self.definitions.catch_up()?;
        }
        Ok(read)
    }

    /// The transaction has committed: cache, timers, answers, counts.
    fn conclude(&self, part: Prepared<'_>, changes: Vec<Change>, next_offset: i64, now: Timestamp) {
        let folding = Instant::now();
        let folded = changes.len();
        part.partition.fold(changes, next_offset);
        meters::state_operation("fold", folded, folding.elapsed());
        self.settle_timers(&part, now);
        meters::effects(&part.finished.effects);
        for emitted in part.finished.effects {
            let (Some(input), Effect::Answer(outcome)) = (emitted.input, emitted.effect) else {
                continue;
            };
            // Requests are in the order of their inputs.
            let found = part
                .requests
                .binary_search_by_key(&input, |(input, _, _)| *input);
            let Some((_, request, run)) = found.ok().map(|place| &part.requests[place]) else {
                continue;
            };
            if self.shared.is_awaited(*request) {
                let run = part.partition.run(run).unwrap_or_default();
                self.shared.answer(*request, outcome, run);
            }
        }
        let mut agents = meters::AgentsHeard::new(self.definitions.as_ref());
        for run in &part.finished.changes.runs {
            agents.record(run, now);
            if run.status.is_ended() {
                meters::run_ended(run);
                self.shared.note_end(&run.id);
            }
        }
        if part.partition.cache().bytes() > self.config.cache_bytes {
            part.partition
                .cache_mut()
                .evict(self.config.cache_bytes, 1_000);
        }
    }

    fn settle_timers(&self, part: &Prepared<'_>, now: Timestamp) {
        if part.ticked.is_empty() {
            return;
        }
        let mut cache = part.partition.cache_mut();
        for emitted in &part.finished.effects {
            if let Effect::Held { run, until } = &emitted.effect {
                cache.hold(run, *until);
            }
        }
        for run in &part.ticked {
            if cache.is_due(run, now) {
                tracing::error!(%run, "a timer fell due and nothing came of it");
                cache.hold(run, now + FRUITLESS_TIMER);
            }
        }
    }
}

/// What the inputs of one partition are applied with.
struct Batch<'a> {
    engine: &'a Engine,
    instance: &'a str,
    topics: &'a crate::log::Topics,
    /// Partitions of the installation.
    count: i32,
    now: Timestamp,
}

impl Batch<'_> {
    fn run<'r>(
        &self,
        part: &mut Prepared<'r>,
        records: &'r [Record],
        read: &mut [Option<Read>],
        due: Vec<Due>,
    ) -> Result<(), StoreError> {
        let partition = Arc::clone(&part.partition);
        let view = View::new(&partition);
        let mut batch = self.engine.batch(&view);
        for (record, read) in records.iter().zip(read) {
            let Some(read) = read.take() else {
                continue;
            };
            match read {
                Err(unreadable) => part.unreadable.push((record, unreadable)),
                Ok((input, run)) => {
                    if let Some(home) = self.home_elsewhere(run.as_ref(), part.number) {
                        part.forwards.push((record, home));
                        continue;
                    }
                    let number = batch.apply(input, || self.origin(record), self.now);
                    part.inputs.push(Some(record));
                    if let (Some(request), Some(run)) = (self.request(record), run) {
                        part.requests.push((number, request, run));
                    }
                }
            }
        }
        for due in due {
            let input = match due {
                Due::Run(run) => {
                    part.ticked.push(run.clone());
                    Input::Tick(run)
                }
                Due::Parked(key) => Input::Unpark(key),
            };
            batch.apply(input, Origin::default, self.now);
            part.inputs.push(None);
        }
        part.finished = batch.finish(self.now);
        match view.into_failure() {
            None => Ok(()),
            Some(error) => Err(error),
        }
    }

    /// The partition that the run lives in, where it is another; what is about no one run is for
    /// the partition that it came in.
    fn home_elsewhere(&self, run: Option<&RunId>, here: i32) -> Option<i32> {
        let home = partitioner::partition_of(run?.as_str().as_bytes(), self.count);
        (home != here).then_some(home)
    }

    /// The number under which somebody at this instance waits.
    fn request(&self, record: &Record) -> Option<u64> {
        let text = std::str::from_utf8(record.header(header::REQUEST)?).ok()?;
        let (instance, number) = text.rsplit_once('/')?;
        (instance == self.instance).then(|| number.parse().ok())?
    }

    fn origin(&self, record: &Record) -> Origin {
        origin(self.topics, record)
    }
}

/// What a record holds, and the run that it is about, where it is about one.
type Read = Result<(Input, Option<RunId>), Unreadable>;

fn read(record: &Record) -> Read {
    match record.source {
        Source::Commands => {
            let command = match command_of(record)? {
                Commanded::One(command) => command,
                Commanded::Selected(selected) => return Ok((Input::Selected(selected), None)),
            };
            let run = Some(command.run_id().clone());
            let traceparent = record.header(header::TRACEPARENT);
            let traceparent = traceparent.and_then(|text| String::from_utf8(text.to_vec()).ok());
            let caller_waits = record.header(header::REQUEST).is_some();
            Ok((
                Input::Command {
                    command,
                    traceparent,
                    caller_waits,
                },
                run,
            ))
        }
        // The workflows' stage has no other input.
        Source::Replies | Source::Signals => {
            let content_type = record.header(header::CONTENT_TYPE);
            let reply = input::reply(record.key.as_deref(), record.value.as_deref(), content_type)?;
            let run = Some(reply.run_id.clone());
            Ok((Input::Reply(reply), run))
        }
    }
}

fn command_of(record: &Record) -> Result<Commanded, Unreadable> {
    let content_type = record.header(header::CONTENT_TYPE);
    input::command(record.key.as_deref(), record.value.as_deref(), content_type)
}
