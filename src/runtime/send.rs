//! From what the engine wants done to records, in the order in which it came about: first what
//! others see (tasks, events, dead letters, forwarded records), then the changelog, one entry for
//! each run that changed.

use std::sync::Arc;

use super::dead_letter::{dead_letter, origin};
use super::meters;
use super::partition::{Change, Partition};
use super::transaction::Prepared;
use crate::codec::keys::{self, EntryKey};
use crate::codec::signal::{self, put_event_key};
use crate::codec::state::{self, EntryFacts};
use crate::codec::{header, output};
use crate::engine::{Effect, Origin};
use crate::log::{Log, LogError, Outgoing, Record, Source, Target, Topics};
use crate::model::signal::Signal;
use crate::model::{CancelTask, Event, Failure, Json, RunState, Selected, Task, Watch};
use crate::pattern::filter::key_text;
use crate::pattern::predicate::key_values;

/// What a dead letter's `stage` says.
const STAGE: &str = "workflows";

pub(super) const JSON: (&str, &[u8]) = (header::CONTENT_TYPE, b"application/json");
pub(super) const CLOUD_EVENT: (&str, &[u8]) =
    (header::CONTENT_TYPE, b"application/cloudevents+json");

/// Writes records; keeps its buffers from one to the next.
pub(super) struct Sender<'t> {
    topics: &'t Topics,
    key: Vec<u8>,
    value: Vec<u8>,
}

impl<'t> Sender<'t> {
    pub fn new(topics: &'t Topics) -> Self {
        Self {
            topics,
            key: Vec::with_capacity(64),
            value: Vec::with_capacity(1_024),
        }
    }

    /// Sends all that a partition brings; returns what changes in its content.
    pub fn send(
        &mut self,
        log: &mut dyn Log,
        part: &Prepared<'_>,
    ) -> Result<Vec<Change>, LogError> {
        for (record, unreadable) in &part.unreadable {
            let failure = Failure::new(unreadable.class, unreadable.message.clone());
            meters::dead_letter(unreadable.class);
            self.dead_letter(log, &origin(self.topics, record), &failure, None)?;
        }
        for (record, home) in &part.forwards {
            self.forward(log, record, *home)?;
        }
        for emitted in &part.finished.effects {
            match &emitted.effect {
                Effect::Dispatch { task, traceparent } => {
                    self.task(log, part.number, task, traceparent.as_deref())?;
                }
                Effect::CancelTask(cancel) => self.cancel(log, cancel)?,
                Effect::Watch(watch) => self.watch(log, watch, Signal::Watch)?,
                Effect::Unwatch(watch) => self.watch(log, watch, Signal::Unwatch)?,
                Effect::Event(event) => self.event(log, part.number, event)?,
                Effect::Continue(rest) => self.rest(log, part.number, rest)?,
                Effect::DeadLetter {
                    failure,
                    run,
                    origin: of_parked,
                } => {
                    let record = emitted.input.and_then(|number| part.inputs[number]);
                    let of_input = || record.map(|record| origin(self.topics, record));
                    if let Some(origin) = of_parked.clone().or_else(of_input) {
                        self.dead_letter(log, &origin, failure, run.as_deref())?;
                    }
                }
                Effect::Ignored(_)
                | Effect::IgnoredSignal(_)
                | Effect::Held { .. }
                | Effect::Answer(_) => {}
            }
        }
        self.changelog(log, part)
    }

    fn task(
        &mut self,
        log: &mut dyn Log,
        partition: i32,
        task: &Task,
        traceparent: Option<&str>,
    ) -> Result<(), LogError> {
        self.value.clear();
        output::json(&mut self.value, task);
        let mut digits = itoa::Buffer::new();
        let mut headers = [
            JSON,
            (header::REPLY_TOPIC, self.topics.replies.as_bytes()),
            (header::REPLY_PARTITION, digits.format(partition).as_bytes()),
            (header::TRACEPARENT, b"".as_slice()),
        ];
        let mut used = 3;
        if let Some(traceparent) = traceparent {
            headers[used].1 = traceparent.as_bytes();
            used += 1;
        }
        log.send(Outgoing {
            target: Target::Tasks(&task.agent),
            key: Some(task.task_id.as_bytes()),
            value: Some(&self.value),
            headers: &headers[..used],
        })
    }

    fn cancel(&mut self, log: &mut dyn Log, cancel: &CancelTask) -> Result<(), LogError> {
        self.value.clear();
        output::json(&mut self.value, cancel);
        log.send(Outgoing {
            target: Target::Tasks(&cancel.agent),
            key: Some(cancel.task_id.as_bytes()),
            value: Some(&self.value),
            headers: &[JSON],
        })
    }

    /// Under the key of the events that it is about, so that it lies among them.
    fn watch(
        &mut self,
        log: &mut dyn Log,
        watch: &Watch,
        of: fn(Watch) -> Signal,
    ) -> Result<(), LogError> {
        let values = key_values(watch.key.as_str()).expect("a step renders a list");
        let key = key_text(&values);
        self.key.clear();
        put_event_key(&watch.rule, watch.version, key.as_bytes(), &mut self.key);
        self.value.clear();
        let key = Json::from_text(&key).expect("a key is a JSON array");
        let watch = Watch {
            key,
            ..watch.clone()
        };
        signal::encode(&of(watch), &mut self.value);
        log.send(Outgoing {
            target: Target::Signal,
            key: Some(&self.key),
            value: Some(&self.value),
            headers: &[],
        })
    }

    fn event(&mut self, log: &mut dyn Log, partition: i32, event: &Event) -> Result<(), LogError> {
        self.value.clear();
        output::event(&mut self.value, event);
        log.send(Outgoing {
            target: Target::Events(partition),
            key: Some(event.run.as_str().as_bytes()),
            value: Some(&self.value),
            headers: &[CLOUD_EVENT],
        })
    }

    fn dead_letter(
        &mut self,
        log: &mut dyn Log,
        origin: &Origin,
        failure: &Failure,
        run: Option<&str>,
    ) -> Result<(), LogError> {
        let about = run.map(|run| ("run", run));
        dead_letter(origin, failure, STAGE, about.as_slice(), |record| {
            log.send(record)
        })
    }

    /// To where its run lives, under the run's key.
    fn forward(&mut self, log: &mut dyn Log, record: &Record, home: i32) -> Result<(), LogError> {
        meters::forwarded(self.topics.of(record.source), 1);
        let headers: Vec<(&str, &[u8])> = record
            .headers
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_slice()))
            .collect();
        log.send(Outgoing {
            target: Target::Input(record.source, home),
            // As it came: should it end as a dead letter there, it is still the record that was sent.
            key: record.key.as_deref(),
            value: record.value.as_deref(),
            headers: &headers,
        })
    }

    /// What is left of an order for many runs, to where it came from.
    fn rest(&mut self, log: &mut dyn Log, partition: i32, rest: &Selected) -> Result<(), LogError> {
        self.value.clear();
        output::json(&mut self.value, rest);
        log.send(Outgoing {
            target: Target::Input(Source::Commands, partition),
            key: None,
            value: Some(&self.value),
            headers: &[JSON],
        })
    }

    fn changelog(
        &mut self,
        log: &mut dyn Log,
        part: &Prepared<'_>,
    ) -> Result<Vec<Change>, LogError> {
        let finished = &part.finished.changes;
        let mut changes = Vec::with_capacity(finished.runs.len() + finished.parked.len());
        for run in &finished.runs {
            self.run(log, part, run, &mut changes)?;
        }
        for (key, parked) in &finished.parked {
            changes.push(match parked {
                Some(parked) => Change::Parked {
                    key: key.clone(),
                    parked: Box::new(parked.clone()),
                },
                None => Change::Gone(EntryKey::Parked(key.clone())),
            });
            self.change(log, part.number, &changes[changes.len() - 1])?;
        }
        for key in &part.expired {
            let change = Change::Gone(key.clone());
            self.change(log, part.number, &change)?;
            changes.push(change);
        }
        Ok(changes)
    }

    fn run(
        &mut self,
        log: &mut dyn Log,
        part: &Prepared<'_>,
        run: &RunState,
        changes: &mut Vec<Change>,
    ) -> Result<(), LogError> {
        self.value.clear();
        let mut large = Vec::new();
        state::encode(run, &mut self.value, &mut large);
        for (slot, value) in large {
            if is_known(&part.partition, run, slot, &value) {
                continue;
            }
            let change = Change::Value {
                run: run.id.clone(),
                slot,
                value,
            };
            self.change(log, part.number, &change)?;
            changes.push(change);
        }
        self.key.clear();
        keys::write_run(&mut self.key, &run.id);
        log.send(Outgoing {
            target: Target::State(part.number),
            key: Some(&self.key),
            value: Some(&self.value),
            headers: &[],
        })?;
        let entry = Arc::from(self.value.as_slice());
        changes.push(Change::Run {
            id: run.id.clone(),
            entry,
            facts: EntryFacts::of(run),
        });
        Ok(())
    }

    fn change(
        &mut self,
        log: &mut dyn Log,
        partition: i32,
        change: &Change,
    ) -> Result<(), LogError> {
        self.key.clear();
        change.key().write(&mut self.key);
        log.send(Outgoing {
            target: Target::State(partition),
            key: Some(&self.key),
            value: change.value().as_deref(),
            headers: &[],
        })
    }
}

/// Whether the changelog has this very value already.
fn is_known(partition: &Partition, run: &RunState, slot: u32, value: &Json) -> bool {
    let known = || partition.value(&run.id, slot);
    run.revision > 1 && known().is_some_and(|known| known.as_str() == value.as_str())
}
