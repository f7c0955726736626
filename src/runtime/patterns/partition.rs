//! One owned partition of `signals`: the rules at work on its keys.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::batch::Batch;
use super::running::{Arrival, Running, entry};
use super::sources::Sources;
use super::stats::RuleLevel;
use crate::codec::pattern_state::{self as state, PatternKey, SourceTime};
use crate::codec::{CodecError, signal};
use crate::model::signal::Signal;
use crate::model::{Millis, Timestamp, Watch};
use crate::pattern::{OnUpdate, Outputs, Rule};
use crate::runtime::tables::Tables;

/// State of a rule that is not known is kept for so long: the definitions may have been read in part only.
const ORPHANS_KEPT: Millis = Millis(60_000);

/// `<rule>@<version>`.
pub(super) type RuleId = String;

/// See the module.
pub struct RulesPartition {
    tables: Arc<dyn Tables>,
    running: BTreeMap<RuleId, Running>,
    sources: Sources,
    /// The changelog while it is read, and what of it belongs to no rule that is known.
    pub(super) entries: BTreeMap<PatternKey, Vec<u8>>,
    /// Of the rules that are in force.
    generation: Option<u64>,
    /// When the changelog had been read.
    began: Timestamp,
    /// A transaction changed it and has not committed.
    pub(super) is_pending: bool,
    /// When time was last looked at, by the wall clock.
    pub(super) looked_at: Timestamp,
}

impl RulesPartition {
    pub(super) fn new(tables: Arc<dyn Tables>) -> Self {
        Self {
            tables,
            running: BTreeMap::new(),
            sources: Sources::default(),
            entries: BTreeMap::new(),
            generation: None,
            began: Timestamp::default(),
            is_pending: false,
            looked_at: Timestamp::default(),
        }
    }

    /// Takes in an entry of the changelog; `None`: it was removed.
    pub(super) fn remember(&mut self, key: PatternKey, value: Option<&[u8]>) {
        match value {
            Some(value) => drop(self.entries.insert(key, value.to_vec())),
            None => drop(self.entries.remove(&key)),
        }
    }

    /// The changelog was read: event times of the sources are known again.
    pub(super) fn begin(&mut self, now: Timestamp) -> Result<(), CodecError> {
        if let Some(bytes) = self.entries.remove(&PatternKey::Sources) {
            for source in state::decode_sources(&bytes)? {
                self.sources.note(source, now);
            }
        }
        self.sources.listen_from(now);
        self.began = now;
        self.looked_at = now;
        Ok(())
    }

    /// Whether anything may fall due as time goes on.
    pub(super) fn is_waiting(&self) -> bool {
        // Nobody has looked at the rules yet.
        let is_new = self.generation.is_none();
        let mut running = self.running.values();
        is_new
            || !self.entries.is_empty()
            || running.any(|running| {
                let is_due = running.matcher.next_due().is_some() || running.is_leaving;
                is_due || !running.held.is_empty()
            })
    }

    /// What the rules at work hold now.
    pub(super) fn levels(&self) -> BTreeMap<RuleId, RuleLevel> {
        let running = self.running.iter();
        running
            .map(|(id, running)| (id.clone(), running.level()))
            .collect()
    }

    /// Puts the rules in force to work, from their saved state where there is one, and retires those
    /// that are not. A retired one goes at once where it says `on_update: drop`; else when it holds
    /// nothing more, and until then gets no event but the deadlines that it waits for. Whether the rules
    /// are others than before.
    pub(super) fn apply_rules(
        &mut self,
        generation: u64,
        rules: &[Arc<Rule>],
        known: &dyn Fn(&str) -> Option<Arc<Rule>>,
        now: Timestamp,
        batch: &mut Batch,
    ) -> bool {
        let forgets = !self.entries.is_empty() && now.since(self.began) >= ORPHANS_KEPT;
        if self.generation == Some(generation) && !forgets {
            return false;
        }
        self.generation = Some(generation);
        let in_force: BTreeSet<RuleId> = rules.iter().map(|rule| rule.id()).collect();
        for rule in rules {
            let id = rule.id();
            match self.running.get_mut(&id) {
                Some(running) => running.is_leaving = false,
                None => self.put_to_work(&id, rule),
            }
        }
        // What an earlier owner left of rules that are not in force any more.
        let left = self.entries.keys().filter_map(PatternKey::rule);
        let left: BTreeSet<RuleId> = left.map(str::to_owned).collect();
        for id in left {
            match known(&id) {
                Some(rule) => self.put_to_work(&id, &rule),
                None if forgets => {
                    let gone = self.take_entries(&id).into_iter();
                    batch.entries.extend(gone.map(|(key, _)| (key, None)));
                }
                None => {}
            }
        }
        for (id, running) in &mut self.running {
            running.is_leaving = !in_force.contains(id);
        }
        let read: BTreeSet<(String, String)> = self
            .running
            .values()
            .flat_map(|running| {
                let topics = running.rule.topics.iter();
                topics.map(|topic| (topic.to_string(), running.clock.clone()))
            })
            .collect();
        self.sources
            .keep(|topic, clock| read.contains(&(topic.to_owned(), clock.to_owned())));
        true
    }

    /// What was read of a rule. Each kind of key goes by its rule first, and what else there is of the
    /// kind is not looked at.
    fn take_entries(&mut self, id: &RuleId) -> Vec<(PatternKey, Vec<u8>)> {
        let (rule, none) = (|| id.clone(), String::new);
        let first_of_each = [
            entry(id, "", 0),
            PatternKey::Progress { rule: rule() },
            PatternKey::Watch {
                rule: rule(),
                attempt: none(),
                key: none(),
            },
            PatternKey::Held {
                rule: rule(),
                number: 0,
                part: 0,
            },
        ];
        let mut keys = Vec::new();
        for first in first_of_each {
            let kind = std::mem::discriminant(&first);
            let from = self.entries.range(first..).map(|(key, _)| key);
            let is_of_rule =
                |key: &&PatternKey| std::mem::discriminant(*key) == kind && key.rule() == Some(id);
            keys.extend(from.take_while(is_of_rule).cloned());
        }
        let take = |key: PatternKey| Some((self.entries.remove(&key)?, key));
        let taken = keys.into_iter().filter_map(take);
        taken.map(|(value, key)| (key, value)).collect()
    }

    fn put_to_work(&mut self, id: &RuleId, rule: &Arc<Rule>) {
        let entries = self.take_entries(id);
        let running = Running::restore(id, rule, entries, self.tables.as_ref());
        self.running.insert(id.clone(), running);
    }

    /// Takes a record of `signals` in.
    ///
    /// # Errors
    /// Where it is none of ours, or of a newer program.
    pub(super) fn take(
        &mut self,
        value: &[u8],
        now: Timestamp,
        batch: &mut Batch,
    ) -> Result<bool, CodecError> {
        match signal::decode(value)? {
            Signal::Watermark {
                topic,
                partition,
                partitions,
                clock,
                at,
            } => {
                let source = SourceTime {
                    topic,
                    partition,
                    partitions,
                    clock,
                    at,
                };
                Ok(self.sources.note(source, now))
            }
            Signal::Event {
                rule,
                version,
                key,
                topic,
                partition,
                offset,
                at,
                payload,
            } => {
                let id = format!("{rule}@{version}");
                let running = self.running.get_mut(&id);
                let place = |running: &Running| {
                    let mut topics = running.rule.topics.iter();
                    topics.position(|name| **name == *topic)
                };
                let found = running.and_then(|running| Some((place(running)?, running)));
                let Some((place, running)) = found.filter(|(_, running)| !running.is_leaving)
                else {
                    batch.tally.ownerless += 1;
                    return Ok(false);
                };
                let arrival = Arrival {
                    topic,
                    place,
                    key,
                    partition,
                    offset,
                    at,
                    payload,
                };
                running.take(&id, arrival, batch);
                Ok(false)
            }
            Signal::Watch(watch) => {
                self.watched(&watch, batch, Running::watch);
                Ok(false)
            }
            Signal::Unwatch(watch) => {
                self.watched(&watch, batch, Running::unwatch);
                Ok(false)
            }
        }
    }

    /// Also where the rule is leaving: while a run waits, its workflow may come back.
    fn watched(&mut self, watch: &Watch, batch: &mut Batch, take: fn(&mut Running, &Watch)) {
        let id = format!("{}@{}", watch.rule, watch.version);
        match self.running.get_mut(&id) {
            Some(running) => take(running, watch),
            None => batch.tally.ownerless += 1,
        }
    }

    /// Moves event time on as far as the sources allow.
    pub(super) fn move_time(&mut self, now: Timestamp, batch: &mut Batch) {
        self.looked_at = now;
        // Rules that follow one another mostly read the same topics, and then have the same time.
        let mut last: Option<(Arc<Rule>, String, Option<Timestamp>)> = None;
        for (id, running) in &mut self.running {
            let is_same = |(rule, clock, _): &&(Arc<Rule>, String, Option<Timestamp>)| {
                rule.topics == running.rule.topics
                    && rule.time.idle_after == running.rule.time.idle_after
                    && *clock == running.clock
            };
            let time = match last.as_ref().filter(is_same) {
                Some((_, _, time)) => *time,
                None => {
                    let time = self.sources.time_of(&running.rule, &running.clock, now);
                    last = Some((running.rule.clone(), running.clock.clone(), time));
                    time
                }
            };
            if let Some(time) = time {
                let mut out = Outputs::default();
                running.matcher.observe(time, &mut out);
                running.conclude(id, out, batch);
            }
            running.release(id, batch);
        }
    }

    /// The entries of all that changed.
    pub(super) fn save(&mut self, has_new_times: bool, batch: &mut Batch) {
        let mut gone = Vec::new();
        for (id, running) in &mut self.running {
            running.save(id, batch);
            let drops = running.rule.on_update == OnUpdate::Drop;
            let is_watched = running.watchers.as_ref();
            let is_watched = is_watched.is_some_and(|watchers| !watchers.is_empty());
            let is_done = drops || running.matcher.keys() == 0;
            if running.is_leaving && is_done && !is_watched && running.held.is_empty() {
                running.retire(id, batch);
                gone.push(id.clone());
            }
        }
        for id in gone {
            self.running.remove(&id);
        }
        // The records that told of them are not read again: without this an event that is too late would
        // be taken after a restart.
        if has_new_times {
            let bytes = state::encode_sources(&self.sources.saved());
            batch.entries.push((PatternKey::Sources, Some(bytes)));
        }
    }
}
