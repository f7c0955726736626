//! Steps of runs that wait for a pattern. The rule that a step implies is given events only while
//! somebody waits for their key; each who waits has partial matches of its own, from then on, and goes
//! with them as soon as a match is found or it waits no more.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::action::Order;
use super::batch::Batch;
use super::partition::RuleId;
use super::running::{Arrival, Running};
use crate::codec::pattern_state::{PatternKey, encode_watch};
use crate::model::{Command, Matched, TaskId, Watch};
use crate::pattern::filter::key_text;
use crate::pattern::predicate::key_values;
use crate::pattern::{Match, Outputs, watched_key, watcher_of};

/// Largest output that a command carries, in bytes: brokers take a megabyte.
const MAX_OUTPUT_BYTES: usize = 960 << 10;

/// Who waits for what, for one rule.
#[derive(Default)]
pub(super) struct Watchers {
    /// Attempts by the text of the key that their events must have.
    by_key: BTreeMap<String, BTreeSet<Arc<str>>>,
    /// Since they were saved.
    changes: Vec<(String, Arc<str>)>,
}

impl Watchers {
    /// As it was saved.
    pub(super) fn restore(&mut self, key: String, attempt: &str) {
        self.by_key.entry(key).or_default().insert(attempt.into());
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_key.is_empty()
    }

    /// The keys under which they are saved.
    pub(super) fn keys(&self, id: &RuleId) -> impl Iterator<Item = PatternKey> {
        self.by_key.iter().flat_map(move |(key, attempts)| {
            attempts.iter().map(move |attempt| entry(id, key, attempt))
        })
    }

    fn add(&mut self, key: &str, attempt: Arc<str>) {
        let of_key = self.by_key.entry(key.to_owned()).or_default();
        if of_key.insert(attempt.clone()) {
            self.changes.push((key.to_owned(), attempt));
        }
    }

    /// Whether it waited.
    fn remove(&mut self, key: &str, attempt: &Arc<str>) -> bool {
        let Some(of_key) = self.by_key.get_mut(key) else {
            return false;
        };
        let waited = of_key.remove(attempt);
        if waited {
            self.changes.push((key.to_owned(), attempt.clone()));
        }
        if of_key.is_empty() {
            self.by_key.remove(key);
        }
        waited
    }

    fn of(&self, key: &str) -> Vec<Arc<str>> {
        let of_key = self.by_key.get(key).into_iter().flatten();
        of_key.cloned().collect()
    }

    /// Entries for what changed since they were saved.
    pub(super) fn save(&mut self, id: &RuleId, batch: &mut Batch) {
        for (key, attempt) in std::mem::take(&mut self.changes) {
            let of_key = self.by_key.get(&key);
            let waits = of_key.is_some_and(|of_key| of_key.contains(&attempt));
            let entry = entry(id, &key, &attempt);
            batch.entries.push((entry, waits.then(encode_watch)));
        }
    }
}

fn entry(id: &RuleId, key: &str, attempt: &Arc<str>) -> PatternKey {
    PatternKey::Watch {
        rule: id.clone(),
        attempt: attempt.to_string(),
        key: key.to_owned(),
    }
}

impl Running {
    /// Somebody waits, from here on.
    pub(super) fn watch(&mut self, watch: &Watch) {
        if let Some(watchers) = &mut self.watchers {
            let attempt = watch.attempt.to_string().into();
            watchers.add(watch.key.as_str(), attempt);
        }
    }

    /// It waits no more: what was found for it so far goes.
    pub(super) fn unwatch(&mut self, watch: &Watch) {
        self.end_watch(watch.key.as_str(), &watch.attempt.to_string().into());
    }

    /// Whether it waited until now.
    fn end_watch(&mut self, key: &str, attempt: &Arc<str>) -> bool {
        let watchers = self.watchers.as_mut();
        let waited = watchers.is_some_and(|watchers| watchers.remove(key, attempt));
        if let Some(values) = key_values(key).filter(|_| waited) {
            self.matcher.forget(&watched_key(&values, attempt));
        }
        waited
    }

    /// An event for those who wait for its key.
    pub(super) fn take_watched(&mut self, id: &RuleId, arrival: Arrival, batch: &mut Batch) {
        let key = String::from_utf8_lossy(&arrival.key);
        let watchers = self.watchers.iter();
        let attempts: Vec<Arc<str>> = watchers.flat_map(|watchers| watchers.of(&key)).collect();
        if attempts.is_empty() {
            return;
        }
        let slots = self.rule.slots(arrival.place as u16, &arrival.payload);
        let mut is_late = false;
        for attempt in &attempts {
            let slots = self.rule.watched(&slots, attempt);
            let mut out = Outputs::default();
            self.matcher.offer(&arrival.event(&slots), &mut out);
            // For all or for none: it is one record.
            is_late |= !std::mem::take(&mut out.late).is_empty();
            self.conclude(id, out, batch);
        }
        if is_late {
            *batch.tally.late.entry(id.clone()).or_default() += 1;
            self.refuse_late(id, arrival, batch);
        }
    }

    /// Tells the steps whose patterns were found, each of its first; how many there are.
    pub(super) fn answer(&mut self, matches: &[Match], batch: &mut Batch) -> usize {
        let mut answered = 0;
        for found in matches {
            let Some(attempt) = watcher_of(&found.key).cloned() else {
                continue;
            };
            let own = &found.key[..found.key.len() - 1];
            if !self.end_watch(&key_text(own), &attempt) {
                continue;
            }
            let attempt = TaskId::parse(&attempt).expect("a watch names an attempt");
            let run = attempt.run.clone();
            let output = Some(self.rule.awaited_output(found));
            let output = output.filter(|output| output.len() <= MAX_OUTPUT_BYTES);
            let command = Command::Match(Matched { attempt, output });
            let bytes = serde_json::to_vec(&command).expect("a command always serialises");
            batch.orders.push(Order::Run(run, bytes));
            answered += 1;
        }
        answered
    }
}
