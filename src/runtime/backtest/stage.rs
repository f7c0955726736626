//! The rules at work: what the intake and the patterns do with an event, without a topic in between.

use std::sync::Arc;

use serde_json::Value;

use super::Backtested;
use super::merge::{Head, Part};
use crate::codec::event::DecodedEvent;
use crate::codec::pattern_state::SourceTime;
use crate::log::kafka::range::Span;
use crate::model::Timestamp;
use crate::pattern::filter::{Filter, Verdict};
use crate::pattern::trial::{Findings, Trial};
use crate::pattern::{Event, Recorded, Rule};
use crate::runtime::patterns::action::{place, position};
use crate::runtime::patterns::sources::Sources;
use crate::runtime::unreadable::{Unreadable, UnreadableRecord};

/// See the module.
pub(super) struct Stage {
    filter: Filter,
    running: Vec<Running>,
    sets: usize,
    most: usize,
    sources: Sources,
    /// The latest timestamp of any record: what the wall clock was at run time.
    now: Timestamp,
    /// What the wall clock is: no record was written later.
    end: Timestamp,
    records: u64,
    unreadable: Unreadable,
}

struct Running {
    set: usize,
    clocks: Vec<String>,
    trial: Trial,
}

fn shown(topic: &str, at: u64) -> Value {
    let (partition, offset) = place(at);
    format!("{topic}/{partition}/{offset}").into()
}

impl Stage {
    /// Of matches and so on, `most` are kept of each rule; it is `now`.
    pub(super) fn new(sets: &[Vec<Arc<Rule>>], most: usize, now: Timestamp) -> Self {
        let rules: Vec<Arc<Rule>> = sets.iter().flatten().cloned().collect();
        let places = sets.iter().enumerate();
        let running = places.flat_map(|(set, rules)| {
            rules.iter().map(move |rule| Running {
                set,
                clocks: rule.clocks(),
                trial: Trial::new(rule.clone(), shown, most),
            })
        });
        Self {
            filter: Filter::new(&rules),
            running: running.collect(),
            sets: sets.len(),
            most,
            sources: Sources::default(),
            now: Timestamp::ZERO,
            end: now,
            records: 0,
            unreadable: Unreadable::default(),
        }
    }

    /// Takes the next record.
    pub(super) fn take(&mut self, part: &Part, head: Head) {
        self.now = self.now.max(head.at);
        if let (true, Some(key)) = (part.is_joined, &head.key) {
            let value = match &head.event {
                _ if head.is_tombstone => Some(None),
                Ok(Some(event)) => Some(Some(&event.payload)),
                // What cannot be read leaves the row as it was.
                Ok(None) | Err(_) => None,
            };
            if let Some(value) = value {
                for running in &mut self.running {
                    running.trial.join(&part.span.at.topic, key, value);
                }
            }
        }
        self.records += u64::from(head.is_event);
        match head.event {
            Ok(Some(event)) if head.is_event => {
                let written = head.timestamp.unwrap_or(self.end).min(self.end);
                self.event(&part.span, head.offset, &event, written, &head.headers);
            }
            Ok(_) => {}
            // Neither an event of the range nor a row.
            Err(_) if !head.is_event && !part.is_joined => {}
            Err((class, message)) => self.unreadable.note(|| UnreadableRecord {
                place: named(&part.span, head.offset),
                class: class.to_owned(),
                message,
            }),
        }
    }

    fn event(
        &mut self,
        from: &Span,
        offset: i64,
        event: &DecodedEvent,
        written: Timestamp,
        headers: &[(String, Vec<u8>)],
    ) {
        self.move_time();
        let Some(of_topic) = self.filter.topic(&from.at.topic) else {
            return;
        };
        let (running, unreadable) = (&mut self.running, &mut self.unreadable);
        let at_work = |running: &mut Vec<Running>, rule: &Arc<Rule>| {
            let mut all = running.iter();
            all.position(|running| Arc::ptr_eq(running.trial.rule(), rule))
        };
        let position = position(from.at.partition, offset);
        let attributes = event.attributes.as_ref();
        let recorded = Recorded {
            at: event.at,
            written: Some(written),
            headers,
        };
        of_topic.select(&event.payload, recorded, &mut |verdict| match verdict {
            own if own.rule().has_caused(attributes) => {
                if let Some(running_at) = at_work(running, own.rule()) {
                    let trial = &mut running[running_at].trial;
                    trial.note_own(&from.at.topic, position);
                }
            }
            Verdict::Wanted { rule, at, .. } => {
                let mut topics = rule.topics.iter();
                let topic = topics.position(|name| *name == from.at.topic);
                if let (Some(running_at), Some(topic)) = (at_work(running, rule), topic) {
                    running[running_at].trial.offer(&Event {
                        topic: topic as u16,
                        at,
                        position,
                        slots: &rule.slots(topic as u16, &event.payload),
                        payload: &event.payload,
                    });
                }
            }
            Verdict::Unkeyed { rule } => {
                if let Some(running_at) = at_work(running, rule) {
                    let trial = &mut running[running_at].trial;
                    trial.note_unkeyed(&from.at.topic, position);
                }
            }
            Verdict::Timeless { rule, why } => unreadable.note(|| UnreadableRecord {
                place: named(from, offset),
                class: why.class().to_owned(),
                message: format!("rule {}: {why}", rule.id()),
            }),
        });
        for clock in of_topic.clocks() {
            if let Some(at) = clock.read(&event.payload, recorded) {
                let source = SourceTime {
                    topic: from.at.topic.to_string(),
                    partition: from.at.partition,
                    partitions: from.partitions,
                    clock: clock.name.clone(),
                    at,
                };
                self.sources.note(source, self.now);
            }
        }
    }

    /// Moves event time on as far as the sources allow.
    fn move_time(&mut self) {
        for running in &mut self.running {
            let rule = running.trial.rule();
            if let Some(time) = self.sources.time_of(rule, &running.clocks, self.now) {
                running.trial.observe(time);
            }
        }
    }

    /// Every source has come to its end: nothing holds time back any more.
    pub(super) fn finish(mut self, advance_to: Option<Timestamp>, spans: Vec<Span>) -> Backtested {
        self.move_time();
        let saved = self.sources.saved();
        let mut findings: Vec<Findings> =
            (0..self.sets).map(|_| Findings::new(self.most)).collect();
        for mut running in self.running {
            let rule = running.trial.rule();
            let is_read = |source: &&SourceTime| {
                let mut sources = rule.topics.iter().zip(&running.clocks);
                sources.any(|(topic, clock)| **topic == *source.topic && *clock == source.clock)
            };
            let latest = saved.iter().filter(is_read).map(|source| source.at).max();
            if let Some(latest) = latest {
                running.trial.observe(latest);
            }
            findings[running.set].append(running.trial.finish(advance_to));
        }
        Backtested {
            findings,
            spans,
            records: self.records,
            unreadable: self.unreadable,
        }
    }
}

fn named(from: &Span, offset: i64) -> Value {
    format!("{}/{}/{offset}", from.at.topic, from.at.partition).into()
}
