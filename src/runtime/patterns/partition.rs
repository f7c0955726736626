//! One owned partition of `signals`: the rules at work on its keys.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::LOOK_AT_REST_EVERY;
use super::agenda::Agenda;
use super::batch::Batch;
use super::running::{Arrival, Running, definition_of, entry};
use super::sources::Sources;
use super::stats::RuleLevel;
use crate::codec::pattern_state::{self as state, PatternKey, SourceTime};
use crate::codec::{CodecError, signal};
use crate::model::signal::Signal;
use crate::model::{Millis, Timestamp, Watch};
use crate::pattern::Rule;
use crate::runtime::rules::{Draining, RuleSet};
use crate::runtime::tables::Tables;

/// State of a rule that is not known is kept for so long: the definitions may have been read in part only.
const ORPHANS_KEPT: Millis = Millis(60_000);

/// Entries of a rule that is not known, in one transaction.
const FORGOTTEN_AT_ONCE: usize = 10_000;

/// How long after the last events were handed to a version that drains they may yet come.
const IN_FLIGHT: Millis = Millis(60_000);

/// `<rule>@<version>`.
pub(super) type RuleId = String;

/// See the module.
pub struct RulesPartition {
    tables: Arc<dyn Tables>,
    pub(super) running: BTreeMap<RuleId, Running>,
    agenda: Agenda,
    /// Versions that others have taken the place of, and which take events yet.
    draining: BTreeMap<RuleId, Draining>,
    sources: Sources,
    /// The changelog while it is read, and what of it belongs to no rule that is known.
    pub(super) entries: BTreeMap<PatternKey, Vec<u8>>,
    /// Of the rules that are in force, once all of them are at work.
    generation: Option<u64>,
    /// When the changelog had been read.
    began: Timestamp,
    /// A transaction changed it and has not committed.
    pub(super) is_pending: bool,
    /// When time was last looked at, by the wall clock.
    pub(super) looked_at: Timestamp,
    /// There was more due than there was room for: no event is to be taken before that is done.
    pub(super) is_behind: bool,
}

impl RulesPartition {
    pub(super) fn new(tables: Arc<dyn Tables>) -> Self {
        Self {
            tables,
            running: BTreeMap::new(),
            agenda: Agenda::default(),
            draining: BTreeMap::new(),
            sources: Sources::default(),
            entries: BTreeMap::new(),
            generation: None,
            began: Timestamp::default(),
            is_pending: false,
            looked_at: Timestamp::default(),
            is_behind: false,
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
        is_new || !self.entries.is_empty() || self.agenda.is_waiting()
    }

    /// What the rules at work hold now.
    pub(super) fn levels(&self) -> BTreeMap<RuleId, RuleLevel> {
        let running = self.running.iter();
        running
            .map(|(id, running)| (id.clone(), running.level(self.agenda.come_to(running))))
            .collect()
    }

    /// Puts the rules in force to work, from their saved state where there is one, and retires those
    /// that are not. A retired one goes at once where it says `on_update: drop`; else when it holds
    /// nothing more. Until then one that drains takes the events that come for it, and every other none
    /// but the deadlines that it waits for. Whether the rules are others than before.
    pub(super) fn apply_rules(
        &mut self,
        rules: &RuleSet,
        known: &dyn Fn(&str) -> Option<Arc<Rule>>,
        now: Timestamp,
        batch: &mut Batch,
    ) -> bool {
        let forgets = !self.entries.is_empty() && now.since(self.began) >= ORPHANS_KEPT;
        if self.generation == Some(rules.generation) && !forgets {
            return false;
        }
        let draining = rules.draining.iter();
        self.draining = draining.map(|one| (one.rule.id(), one.clone())).collect();
        for (id, running) in &mut self.running {
            observe(id, running, &self.agenda, batch);
        }
        let draining = rules.draining.iter().map(|one| &one.rule);
        for rule in rules.in_force.iter().chain(draining) {
            self.set_aside_other(rule);
        }
        let in_force: BTreeSet<RuleId> = rules.in_force.iter().map(|rule| rule.id()).collect();
        let mut is_whole = true;
        for rule in rules.in_force.iter() {
            let id = rule.id();
            match self.running.get_mut(&id) {
                Some(running) => running.is_leaving = false,
                None => is_whole &= self.put_to_work(&id, rule, batch),
            }
        }
        // What an earlier owner left of rules that are not in force any more.
        let left: BTreeSet<&str> = self.entries.keys().filter_map(PatternKey::rule).collect();
        let left: Vec<RuleId> = left.into_iter().map(str::to_owned).collect();
        for id in left.iter().filter(|id| !in_force.contains(*id)) {
            match known(id) {
                Some(rule) => is_whole &= self.put_to_work(id, &rule, batch),
                None if forgets => {
                    let gone = self.take_entries(id, FORGOTTEN_AT_ONCE).into_iter();
                    batch.entries.extend(gone.map(|(key, _)| (key, None)));
                }
                None => {}
            }
        }
        self.generation = is_whole.then_some(rules.generation);
        self.agenda = Agenda::default();
        for (id, running) in &mut self.running {
            running.is_leaving = !in_force.contains(id);
            self.agenda.enter(id, running);
        }
        self.keep_sources();
        true
    }

    /// Event time of topics that no rule here reads goes with the last of their rules: it would go on with the
    /// wall clock, and all that came meanwhile would be late for one that reads them again.
    fn keep_sources(&mut self) {
        let at_work = self.running.values().map(|running| &running.rule);
        let draining = self.draining.values().map(|one| &one.rule);
        let read: BTreeSet<(String, String)> = at_work
            .chain(draining)
            .flat_map(|rule| {
                let topics = rule.topics.iter().map(|topic| topic.to_string());
                topics.zip(rule.clocks())
            })
            .collect();
        self.sources
            .keep(|topic, clock| read.contains(&(topic.to_owned(), clock.to_owned())));
    }

    /// What was read of a rule, at most so much. Each kind of key goes by its rule first, and what else
    /// there is of the kind is not looked at. Of which definition it is goes after what is of one.
    fn take_entries(&mut self, id: &RuleId, most: usize) -> Vec<(PatternKey, Vec<u8>)> {
        let (rule, none) = (|| id.clone(), String::new);
        let first_of_each = [
            entry(id, "", 0),
            PatternKey::Held {
                rule: rule(),
                number: 0,
                part: 0,
            },
            PatternKey::Progress { rule: rule() },
            PatternKey::Watch {
                rule: rule(),
                attempt: none(),
                key: none(),
            },
        ];
        let mut keys = Vec::new();
        for first in first_of_each {
            let kind = std::mem::discriminant(&first);
            let from = self.entries.range(first..).map(|(key, _)| key);
            let is_of_rule =
                |key: &&PatternKey| std::mem::discriminant(*key) == kind && key.rule() == Some(id);
            let room = most - keys.len();
            keys.extend(from.take_while(is_of_rule).take(room).cloned());
        }
        let take = |key: PatternKey| Some((self.entries.remove(&key)?, key));
        let taken = keys.into_iter().filter_map(take);
        taken.map(|(value, key)| (key, value)).collect()
    }

    /// A version that was deleted and applied again may say something else: then what it held before is as if
    /// it were read, and is found to be of another definition.
    fn set_aside_other(&mut self, rule: &Rule) {
        let id = rule.id();
        if let Some(running) = self.running.get(&id)
            && running.rule.source != rule.source
        {
            self.entries.extend(running.saved(&id));
            self.running.remove(&id);
        }
    }

    /// From what was saved of it. What was saved under another definition is forgotten first, so much in one
    /// transaction; whether that is done and the rule at work. Who waits goes on waiting.
    fn put_to_work(&mut self, id: &RuleId, rule: &Arc<Rule>, batch: &mut Batch) -> bool {
        let progress = PatternKey::Progress { rule: id.clone() };
        let definition = |value: &Vec<u8>| state::decode_times(value).ok()?.1;
        let saved = self.entries.get(&progress).and_then(definition);
        if saved.is_some_and(|saved| saved != definition_of(rule)) {
            for (key, value) in self.take_entries(id, FORGOTTEN_AT_ONCE) {
                match key {
                    PatternKey::Watch { .. } => drop(self.entries.insert(key, value)),
                    _ => batch.entries.push((key, None)),
                }
            }
            if self.entries.contains_key(&progress) {
                return false;
            }
            tracing::info!(rule = id, "forgot what was known under another definition");
        }
        let entries = self.take_entries(id, usize::MAX);
        let running = Running::restore(id, rule, entries, self.tables.as_ref());
        self.running.insert(id.clone(), running);
        true
    }

    /// Where an event comes that was handed to a version before another took its place, and nothing is
    /// left of that version: it begins anew.
    fn take_up(&mut self, id: &RuleId, batch: &mut Batch) {
        // Mostly nothing drains, and that is quickly found.
        let draining = self.draining.get(id).map(|one| one.rule.clone());
        let Some(rule) = draining.filter(|_| !self.running.contains_key(id)) else {
            return;
        };
        self.put_to_work(id, &rule, batch);
        if let Some(running) = self.running.get_mut(id) {
            running.is_leaving = true;
            self.agenda.enter(id, running);
            observe(id, running, &self.agenda, batch);
        }
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
                begins,
            } => {
                let id = format!("{rule}@{version}");
                if begins {
                    self.take_up(&id, batch);
                }
                let drains = self.draining.contains_key(&id);
                let running = self.touch(&id, batch);
                let place = |running: &Running| {
                    let mut topics = running.rule.topics.iter();
                    topics.position(|name| **name == *topic)
                };
                let found = running.and_then(|running| Some((place(running)?, running)));
                let takes = |running: &Running| drains || !running.is_leaving;
                let Some((place, running)) = found.filter(|(_, running)| takes(running)) else {
                    // One that only went on with something finds nothing to go on with.
                    batch.tally.ownerless += u64::from(begins);
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
                    begins,
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
        match self.touch(&id, batch) {
            Some(running) => take(running, watch),
            None => batch.tally.ownerless += 1,
        }
    }

    /// The rule that something is to be done with, as far on in event time as its sources had come when
    /// time was last looked at.
    fn touch(&mut self, id: &RuleId, batch: &mut Batch) -> Option<&mut Running> {
        let running = self.running.get_mut(id)?;
        if self.agenda.touch(id, running) {
            observe(id, running, &self.agenda, batch);
        }
        Some(running)
    }

    /// Moves event time on as far as the sources allow, or until so much was due as there is room for.
    pub(super) fn move_time(&mut self, now: Timestamp, room: &mut usize, batch: &mut Batch) {
        self.agenda.look(&self.sources, now);
        // A rule that is not at work yet finds the events there when it is.
        self.is_behind = self.generation.is_none();
        for id in self.agenda.touched() {
            let Some(running) = self.running.get_mut(id) else {
                continue;
            };
            let come_to = self.agenda.come_to(running);
            self.is_behind |= !running.observe(id, come_to, room, batch);
            running.release(id, batch);
        }
    }

    /// A look begins, before anything is noted at `now`. Between two that are further apart than looks are, what
    /// was told waited to be read, as where the brokers are not heard; and the clock may have been set back.
    pub(super) fn begin_look(&mut self, now: Timestamp, is_hearing: bool) {
        let elapsed = now.0.saturating_sub(self.looked_at.0);
        let usual = match is_hearing {
            true => elapsed.clamp(0, LOOK_AT_REST_EVERY.0 as i64),
            false => 0,
        };
        if elapsed != usual {
            self.sources.pass_over(elapsed.saturating_sub(usual));
        }
        self.looked_at = now;
    }

    /// The entries of all that changed.
    pub(super) fn save(&mut self, has_new_times: bool, batch: &mut Batch) {
        let mut has_retired = false;
        for id in self.agenda.take_touched() {
            let Some(running) = self.running.get_mut(&id) else {
                continue;
            };
            running.save(&id, batch);
            let until = self.draining.get(&id).map(|one| one.until);
            let takes_events = until.is_some_and(|until| self.looked_at < until + IN_FLIGHT);
            let goes = running.is_leaving && running.is_done(takes_events);
            if goes && running.retire(&id, batch) {
                has_retired = true;
                if let Some(gone) = self.running.remove(&id) {
                    self.agenda.remove(&id, gone);
                }
            } else {
                self.agenda.settle(&id, running);
            }
        }
        if has_retired {
            self.keep_sources();
        }
        // The records that told of them are not read again: without this an event that is too late would
        // be taken after a restart.
        if has_new_times {
            let bytes = state::encode_sources(&self.sources.saved());
            batch.entries.push((PatternKey::Sources, Some(bytes)));
        }
    }
}

/// Lets a rule come as far as the last look at time did. What was due by then is done.
fn observe(id: &RuleId, running: &mut Running, agenda: &Agenda, batch: &mut Batch) {
    let mut room = usize::MAX;
    running.observe(id, agenda.come_to(running), &mut room, batch);
}

#[cfg(test)]
mod tests;
