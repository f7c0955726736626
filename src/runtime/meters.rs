//! What the runtime counts, and when. Numbers of a partition are summed over the instance by
//! [`Snapshot`], from time to time.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use metrics::{Histogram, counter, gauge, histogram};

use super::handle::DefinitionRegistry;
use crate::codec::awaiting::Awaiting;
use crate::engine::{Effect, Emitted};
use crate::log::Lost;
use crate::model::{Millis, RunState, RunStatus, StepState, StepStatus, Timestamp, class};
use crate::telemetry::names;
use crate::workflow::program::StepKind;

pub fn run_ended(run: &RunState) {
    let workflow = run.workflow.to_string();
    let class = run
        .error
        .as_ref()
        .map_or("cancelled", |error| error.class.as_str())
        .to_owned();
    if let (Some(started), Some(ended)) = (run.started_at, run.ended_at) {
        let seconds = seconds(ended.since(started));
        let status = run.status.name();
        histogram!(names::WORKFLOW_EXECUTION_SECONDS, "workflow" => workflow.clone(), "status" => status)
            .record(seconds);
    }
    if run.status == RunStatus::Completed {
        counter!(names::WORKFLOW_SUCCESS_TOTAL, "workflow" => workflow).increment(1);
    } else {
        let class = told_class(class);
        counter!(names::WORKFLOW_FAILURE_TOTAL, "workflow" => workflow, "class" => class)
            .increment(1);
    }
}

/// Classes that the failures of one process are told apart by. Agents name their own, and one that puts an id
/// into them would make a time series of each.
const TOLD_CLASSES: usize = 100;

/// The class, or `other` where there were so many already.
fn told_class(class: String) -> String {
    static TOLD: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    let mut told = TOLD.lock().unwrap_or_else(PoisonError::into_inner);
    if told.contains(&class) {
        return class;
    }
    if told.len() >= TOLD_CLASSES {
        return "other".to_owned();
    }
    told.insert(class.clone());
    class
}

/// How long agents took. An agent's histogram is looked up once for a batch, in which most tasks are of
/// a few agents.
pub struct AgentsHeard<'d> {
    definitions: &'d dyn DefinitionRegistry,
    known: Vec<(Arc<str>, Histogram)>,
}

impl<'d> AgentsHeard<'d> {
    pub fn new(definitions: &'d dyn DefinitionRegistry) -> Self {
        Self {
            definitions,
            known: Vec::new(),
        }
    }

    /// Agents whose word ended a step of this run in the batch of `now`: how long they took, from the
    /// dispatch of that attempt.
    pub fn record(&mut self, run: &RunState, now: Timestamp) {
        let mut workflow = None;
        for (place, step) in run.steps.iter().enumerate() {
            let (Some(scheduled), true) = (step.scheduled_at, step.ended_at == Some(now)) else {
                continue;
            };
            if !is_by_agent(step) {
                continue;
            }
            if workflow.is_none() {
                workflow = self.definitions.workflow(&run.workflow, Some(run.version));
            }
            let definition = workflow
                .as_ref()
                .and_then(|workflow| workflow.steps.get(place));
            if let Some(StepKind::Agent { agent, .. }) = definition.map(|step| &step.kind) {
                let took = seconds(now.since(scheduled));
                self.of(agent).record(took);
            }
        }
    }

    fn of(&mut self, agent: &Arc<str>) -> &Histogram {
        let place = self.known.iter().position(|(name, _)| name == agent);
        let place = place.unwrap_or_else(|| {
            let histogram =
                histogram!(names::AGENT_COMMUNICATION_SECONDS, "agent" => agent.to_string());
            self.known.push((Arc::clone(agent), histogram));
            self.known.len() - 1
        });
        &self.known[place].1
    }
}

/// Whether it was the agent who ended the step, and not a timeout.
fn is_by_agent(step: &StepState) -> bool {
    let error_class = step.error.as_ref().map(|error| error.class.as_str());
    match step.status {
        StepStatus::Completed => true,
        StepStatus::Failed => error_class != Some(class::TIMEOUT),
        _ => false,
    }
}

fn seconds(span: Millis) -> f64 {
    span.0 as f64 / 1e3
}

/// Counts what a committed batch has brought.
pub fn effects(effects: &[Emitted]) {
    for emitted in effects {
        match &emitted.effect {
            Effect::Ignored(reply) => {
                counter!(names::REPLIES_IGNORED_TOTAL, "reason" => reply.reason()).increment(1);
            }
            Effect::IgnoredSignal(signal) => {
                counter!(names::SIGNALS_IGNORED_TOTAL, "reason" => signal.reason()).increment(1);
            }
            Effect::DeadLetter { failure, .. } => dead_letter(&failure.class),
            _ => {}
        }
    }
}

pub fn dead_letter(class: &str) {
    dead_letters(class, 1);
}

pub fn dead_letters(class: &str, records: u64) {
    counter!(names::DEAD_LETTERS_TOTAL, "class" => class.to_owned()).increment(records);
}

pub fn intake_events(topic: &str, records: u64) {
    counter!(names::INTAKE_EVENTS_TOTAL, "topic" => topic.to_owned()).increment(records);
}

pub fn intake_signals(rule: &str, signals: u64) {
    counter!(names::INTAKE_SIGNALS_TOTAL, "rule" => rule.to_owned()).increment(signals);
}

pub fn intake_unkeyed(rule: &str, events: u64) {
    counter!(names::INTAKE_UNKEYED_TOTAL, "rule" => rule.to_owned()).increment(events);
}

/// Events that `rule` caused itself and does not get.
pub fn intake_own(rule: &str, events: u64) {
    counter!(names::INTAKE_OWN_TOTAL, "rule" => rule.to_owned()).increment(events);
}

pub fn intake_unreadable(records: u64) {
    if records > 0 {
        counter!(names::INTAKE_UNREADABLE_TOTAL).increment(records);
    }
}

/// Tells of records that were deleted before they were read, and counts them.
pub fn records_lost(lost: &[Lost]) {
    for lost in lost.iter().filter(|lost| lost.records > 0) {
        tracing::error!(
            topic = lost.topic,
            partition = lost.partition,
            records = lost.records,
            "records were deleted before they were read; going on with the first that is there"
        );
        counter!(names::RECORDS_LOST_TOTAL, "topic" => lost.topic.clone()).increment(lost.records);
    }
}

/// Partitions of event topics that wait for a schema.
pub fn held_partitions(partitions: usize) {
    gauge!(names::INTAKE_HELD_PARTITIONS).set(partitions as f64);
}

pub fn missing_topics(topics: usize) {
    gauge!(names::INTAKE_MISSING_TOPICS).set(topics as f64);
}

pub fn forwarded(topic: &str, records: usize) {
    counter!(names::FORWARDED_RECORDS_TOTAL, "topic" => topic.to_owned()).increment(records as u64);
}

/// A transaction with so many inputs took so long.
pub fn committed(inputs: usize, took: std::time::Duration) {
    histogram!(names::BATCH_RECORDS).record(inputs as f64);
    histogram!(names::COMMIT_SECONDS).record(took.as_secs_f64());
}

pub fn aborted(cause: &'static str) {
    counter!(names::TRANSACTIONS_ABORTED_TOTAL, "cause" => cause).increment(1);
}

/// An operation on state, over `count` runs, took so long altogether.
pub fn state_operation(operation: &'static str, count: usize, took: std::time::Duration) {
    if count > 0 {
        let each = took.as_secs_f64() / count as f64;
        histogram!(names::STATE_OPERATION_SECONDS, "operation" => operation).record(each);
    }
}

pub fn rebalanced() {
    counter!(names::REBALANCES_TOTAL).increment(1);
}

pub fn restoring(partition: i32, remaining: u64) {
    gauge!(names::RESTORE_RECORDS_REMAINING, "partition" => partition.to_string())
        .set(remaining as f64);
}

pub fn lag(topic: &str, partition: i32, records: u64) {
    gauge!(names::CONSUMER_LAG_RECORDS, "topic" => topic.to_owned(), "partition" => partition.to_string())
        .set(records as f64);
}

/// Matches of `rule`, in a batch that was committed.
pub fn pattern_matches(rule: &str, count: u64) {
    counter!(names::PATTERN_MATCHES_TOTAL, "rule" => rule.to_owned()).increment(count);
}

/// Events that came too late for `rule`.
pub fn pattern_late(rule: &str, count: u64) {
    counter!(names::PATTERN_LATE_EVENTS_TOTAL, "rule" => rule.to_owned()).increment(count);
}

/// Matches that `debounce` or `cooldown` held back for good.
pub fn pattern_suppressed(rule: &str, count: u64) {
    counter!(names::PATTERN_SUPPRESSED_TOTAL, "rule" => rule.to_owned()).increment(count);
}

/// Conditions without an answer.
pub fn pattern_condition_errors(rule: &str, count: u64) {
    counter!(names::PATTERN_CONDITION_ERRORS_TOTAL, "rule" => rule.to_owned()).increment(count);
}

/// Partial matches, events or matches given up at a bound of `rule`.
pub fn pattern_overflows(rule: &str, limit: &'static str, count: u64) {
    counter!(names::PATTERN_OVERFLOWS_TOTAL, "rule" => rule.to_owned(), "limit" => limit)
        .increment(count);
}

/// Matches of `rule` that are taken for loops and act not.
pub fn pattern_loops(rule: &str, count: u64) {
    counter!(names::PATTERN_LOOPS_TOTAL, "rule" => rule.to_owned()).increment(count);
}

/// Signals for rules that are not in force.
pub fn pattern_ownerless(count: u64) {
    counter!(names::PATTERN_OWNERLESS_SIGNALS_TOTAL).increment(count);
}

/// Keys of `rule` that had no event for long and were dropped.
pub fn pattern_idle_keys(rule: &str, count: u64) {
    counter!(names::PATTERN_IDLE_KEYS_TOTAL, "rule" => rule.to_owned()).increment(count);
}

/// Matches of `rule` that could not be joined and became dead letters.
pub fn pattern_unjoined(rule: &str, count: u64) {
    counter!(names::PATTERN_UNJOINED_MATCHES_TOTAL, "rule" => rule.to_owned()).increment(count);
}

/// The meters of one table.
pub struct TableMeters {
    entries: metrics::Gauge,
    bytes: metrics::Gauge,
    ready: metrics::Gauge,
    unreadable: metrics::Counter,
}

impl TableMeters {
    pub fn new(topic: &str) -> Self {
        let topic = || topic.to_owned();
        Self {
            entries: gauge!(names::TABLE_ENTRIES, "topic" => topic()),
            bytes: gauge!(names::TABLE_BYTES, "topic" => topic()),
            ready: gauge!(names::TABLE_READY, "topic" => topic()),
            unreadable: counter!(names::TABLE_UNREADABLE_TOTAL, "topic" => topic()),
        }
    }

    pub fn size(&self, entries: usize, bytes: usize) {
        self.entries.set(entries as f64);
        self.bytes.set(bytes as f64);
    }

    pub fn ready(&self, is_ready: bool) {
        self.ready.set(f64::from(u8::from(is_ready)));
    }

    pub fn unreadable(&self) {
        self.unreadable.increment(1);
    }
}

/// Sums over the partitions of an instance.
#[derive(Clone, Copy, Debug, Default)]
pub struct Snapshot {
    pub live: usize,
    pub pending: usize,
    pub awaiting: Awaiting,
    pub cache_bytes: usize,
}

impl Snapshot {
    pub fn publish(self) {
        gauge!(names::ACTIVE_WORKFLOWS_COUNT).set(self.live as f64);
        gauge!(names::RUNS_PENDING).set(self.pending as f64);
        let awaiting = self.awaiting;
        for (kind, steps) in [("signal", awaiting.signals), ("pattern", awaiting.patterns)] {
            gauge!(names::STEPS_WAITING, "kind" => kind).set(f64::from(steps));
        }
        gauge!(names::CACHE_BYTES).set(self.cache_bytes as f64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_told_apart_by_so_many_classes() {
        let told: Vec<String> = (0..2 * TOLD_CLASSES)
            .map(|number| told_class(format!("class-{number}")))
            .collect();
        assert!(
            told[..TOLD_CLASSES / 2]
                .iter()
                .all(|class| class != "other")
        );
        assert!(told[TOLD_CLASSES..].iter().all(|class| class == "other"));
        assert_eq!(told_class("class-0".to_owned()), "class-0");
    }
}
