//! One version of a rule at work on the keys of a partition.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::action;
use super::agenda::Place;
use super::batch::{Batch, Refused};
use super::held::Held;
use super::partition::RuleId;
use super::stats::RuleLevel;
use super::watching::Watchers;
use crate::codec::pattern_state::{self as state, Definition, PatternKey, Piece, Times};
use crate::model::cloud_event::depth;
use crate::model::{Failure, Json, Timestamp};
use crate::pattern::filter::key_text;
use crate::pattern::matcher::Progress;
use crate::pattern::predicate::key_values;
use crate::pattern::{Event, Matcher, OnUpdate, Outputs, Rule, Scalar};
use crate::runtime::tables::{Joins, Tables};

pub(super) struct Running {
    pub(super) rule: Arc<Rule>,
    pub(super) clocks: Vec<String>,
    pub(super) matcher: Matcher,
    pub(super) place: Place,
    /// Pieces in which the state of each key is saved.
    pieces: BTreeMap<String, u32>,
    saved: Progress,
    /// Whether what is saved says of which definition it is.
    is_named: bool,
    pub(super) joins: Joins,
    /// Matches that wait for the tables.
    pub(super) held: Held,
    /// The deepest event that it was given here: what it gives up may be due to that one.
    deepest: u32,
    /// Events taken that no batch has counted yet.
    taken: u64,
    /// Its version is not in force any more: it goes once it holds nothing.
    pub(super) is_leaving: bool,
    /// Of a rule that a step implies.
    pub(super) watchers: Option<Watchers>,
}

/// Keys of a rule that goes, in one transaction.
const KEYS_RETIRED_AT_ONCE: usize = 10_000;

/// Longest piece of what is saved in one record, in bytes: brokers take a megabyte.
const PIECE_BYTES: usize = 512 << 10;

/// An event of a source topic.
pub(super) struct Arrival {
    pub(super) topic: String,
    /// The topic's place in [`Rule::topics`].
    pub(super) place: usize,
    /// The correlation key, as text.
    pub(super) key: Vec<u8>,
    pub(super) partition: i32,
    pub(super) offset: i64,
    pub(super) at: Timestamp,
    pub(super) payload: Json,
    /// Whether it may begin something.
    pub(super) begins: bool,
}

impl Arrival {
    /// As the matcher takes it, with the values of the rule's fields.
    pub(super) fn event<'a>(&'a self, slots: &'a [Scalar]) -> Event<'a> {
        Event {
            topic: self.place as u16,
            at: self.at,
            position: action::position(self.partition, self.offset),
            slots,
            payload: &self.payload,
        }
    }
}

impl Running {
    /// At work from what was saved of it.
    pub(super) fn restore(
        id: &RuleId,
        rule: &Arc<Rule>,
        entries: Vec<(PatternKey, Vec<u8>)>,
        tables: &dyn Tables,
    ) -> Self {
        let rule = match rule.is_awaited {
            true => Arc::new(rule.for_watchers()),
            false => rule.clone(),
        };
        let mut watchers = rule.is_awaited.then(Watchers::default);
        let mut matcher = Matcher::new(rule.clone(), false);
        let mut pieces = BTreeMap::new();
        let mut states: BTreeMap<String, BTreeMap<u32, Vec<u8>>> = BTreeMap::new();
        let mut held: BTreeMap<u64, BTreeMap<u32, Vec<u8>>> = BTreeMap::new();
        let mut saved = Progress::default();
        let mut is_named = false;
        for (key, value) in entries {
            match key {
                PatternKey::State { key, part, .. } => {
                    states.entry(key).or_default().insert(part, value);
                }
                PatternKey::Watch { key, attempt, .. } => {
                    if let Some(watchers) = &mut watchers {
                        watchers.restore(key, &attempt);
                    }
                }
                PatternKey::Held { number, part, .. } => {
                    held.entry(number).or_default().insert(part, value);
                }
                _ => match state::decode_times(&value) {
                    Ok(([watermark, latest, now], definition)) => {
                        is_named = definition.is_some();
                        saved = Progress {
                            watermark,
                            latest,
                            now,
                        };
                    }
                    Err(error) => {
                        tracing::error!(rule = id, %error, "event time of a rule is lost");
                    }
                },
            }
        }
        matcher.resume(saved);
        for (key, parts) in states {
            match joined(&parts).and_then(|(count, bytes)| {
                let values = key_values(&key).ok_or_else(|| "its key is no list".to_owned())?;
                let restored = matcher.restore(&values, &bytes);
                restored.map_err(|error| error.to_string())?;
                Ok(count)
            }) {
                Ok(count) => drop(pieces.insert(key, count)),
                Err(error) => {
                    tracing::error!(rule = id, key, error, "the state of a key is lost");
                }
            }
        }
        matcher.note_changes();
        Self {
            clocks: rule.clocks(),
            joins: Joins::of(&rule, tables),
            rule,
            matcher,
            place: Place::default(),
            pieces,
            saved,
            is_named,
            held: Held::restore(id, held),
            deepest: 0,
            taken: 0,
            is_leaving: false,
            watchers,
        }
    }

    /// An event for it.
    pub(super) fn take(&mut self, id: &RuleId, arrival: Arrival, batch: &mut Batch) {
        self.deepest = self.deepest.max(depth(&arrival.payload));
        self.taken += 1;
        if self.watchers.is_some() {
            return self.take_watched(id, arrival, batch);
        }
        let slots = self.rule.slots(arrival.place as u16, &arrival.payload);
        let mut out = Outputs::default();
        match arrival.begins {
            true => self.matcher.offer(&arrival.event(&slots), &mut out),
            false => self.matcher.carry_on(&arrival.event(&slots), &mut out),
        }
        if !out.late.is_empty() {
            self.refuse_late(id, arrival, batch);
        }
        self.conclude(id, out, batch);
    }

    /// Its sources have come to `latest`; `None`: nobody can say. At most `room` of what falls due is done and
    /// taken off it; whether that was all.
    pub(super) fn observe(
        &mut self,
        id: &RuleId,
        latest: Option<Timestamp>,
        room: &mut usize,
        batch: &mut Batch,
    ) -> bool {
        let Some(latest) = latest else {
            return true;
        };
        let mut out = Outputs::default();
        let is_all = self.matcher.observe_some(latest, room, &mut out);
        self.conclude(id, out, batch);
        is_all
    }

    pub(super) fn refuse_late(&self, id: &RuleId, arrival: Arrival, batch: &mut Batch) {
        let watermark = self.matcher.progress().watermark.unwrap_or_default();
        let message = format!(
            "event time {:?} lies beyond `allowed_lateness` of the rule, whose time has come to {watermark:?}",
            arrival.at
        );
        let place = (arrival.topic, arrival.partition, arrival.offset);
        let failure = Failure::new("late", message);
        let refused = Refused::event(id, place, &arrival.payload, failure);
        batch.refused.push(refused);
    }

    pub(super) fn conclude(&mut self, id: &RuleId, out: Outputs, batch: &mut Batch) {
        let matches = match self.watchers {
            None => out.matches.len(),
            Some(_) => self.answer(&out.matches, batch),
        };
        let tally = &mut batch.tally;
        let add = |counts: &mut BTreeMap<RuleId, u64>, count: u64| {
            if count > 0 {
                *counts.entry(id.clone()).or_default() += count;
            }
        };
        add(&mut tally.matches, matches as u64);
        add(&mut tally.late, out.late.len() as u64);
        add(&mut tally.suppressed, out.suppressed);
        add(&mut tally.condition_errors, out.condition_errors);
        add(&mut tally.idle_keys, out.idle_keys);
        for overflow in &out.overflows {
            let counts = tally.overflows.entry((id.clone(), overflow.limit));
            *counts.or_default() += overflow.dropped;
            batch.overflows.add(&self.rule, id, overflow, self.deepest);
        }
        if let Some(last) = out.matches.iter().map(|found| found.at).max() {
            let known = tally.last_matches.entry(id.clone()).or_insert(last);
            *known = last.max(*known);
        }
        if self.watchers.is_none() {
            for found in &out.matches {
                self.act(id, found, batch);
            }
        }
    }

    /// What it holds now that its sources have come to `latest`.
    pub(super) fn level(&self, latest: Option<Timestamp>) -> RuleLevel {
        let known = self.matcher.progress().watermark;
        let watermark = latest.map(|latest| self.matcher.watermark_at(latest));
        RuleLevel {
            keys: self.matcher.keys() as u64,
            partials: self.matcher.partials() as u64,
            buffered: self.matcher.buffered() as u64,
            watermark: known.max(watermark),
            is_draining: self.is_leaving,
        }
    }

    pub(super) fn save(&mut self, id: &RuleId, batch: &mut Batch) {
        let taken = std::mem::take(&mut self.taken);
        if taken > 0 {
            *batch.tally.events.entry(id.clone()).or_default() += taken;
        }
        if let Some(watchers) = &mut self.watchers {
            watchers.save(id, batch);
        }
        let saved_in = &mut self.pieces;
        let entries = &mut batch.entries;
        let mut has_changed = false;
        self.matcher.take_changed(&mut |key, saved| {
            has_changed = true;
            let key = key_text(key);
            let before = saved_in.remove(&key).unwrap_or(0);
            let mut after = 0;
            if let Some(saved) = saved {
                for (part, value) in (0..).zip(pieces(&saved)) {
                    entries.push((entry(id, &key, part), Some(value)));
                    after += 1;
                }
                saved_in.insert(key.clone(), after);
            }
            entries.extend((after..before).map(|part| (entry(id, &key, part), None)));
        });
        let progress = self.matcher.progress();
        let is_newer = has_changed && progress != self.saved;
        if is_newer || (!self.is_named && self.has_saved()) {
            self.saved = progress;
            self.is_named = true;
            entries.push(self.progress(id));
        }
    }

    /// Whether anything of it is saved beside its times.
    fn has_saved(&self) -> bool {
        let watchers = self.watchers.as_ref();
        let has_watchers = watchers.is_some_and(|watchers| !watchers.is_empty());
        has_watchers || !self.pieces.is_empty() || !self.held.is_empty()
    }

    /// The entry of its times, as they were saved last.
    fn progress(&self, id: &RuleId) -> (PatternKey, Option<Vec<u8>>) {
        let Progress {
            watermark,
            latest,
            now,
        } = self.saved;
        let times: Times = [watermark, latest, now];
        let value = state::encode_times(times, definition_of(&self.rule));
        (PatternKey::Progress { rule: id.clone() }, Some(value))
    }

    /// What is saved of it: the keys, and of which definition it is.
    pub(super) fn saved(&self, id: &RuleId) -> impl Iterator<Item = (PatternKey, Vec<u8>)> {
        let pieces = self.pieces.iter();
        let states =
            pieces.flat_map(move |(key, count)| (0..*count).map(move |part| entry(id, key, part)));
        let watchers = self.watchers.iter();
        let watches = watchers.flat_map(move |watchers| watchers.keys(id));
        let keys = states.chain(self.held.keys(id)).chain(watches);
        let (progress, definition) = self.progress(id);
        keys.map(|key| (key, Vec::new()))
            .chain(definition.map(|value| (progress, value)))
    }

    /// Whether it may go now that it is not in force any more; `takes_events`: some may come for it yet.
    pub(super) fn is_done(&self, takes_events: bool) -> bool {
        let watchers = self.watchers.as_ref();
        if !self.held.is_empty() || watchers.is_some_and(|watchers| !watchers.is_empty()) {
            return false;
        }
        let matcher = &self.matcher;
        // What waits neither for an event nor for a time waits in vain.
        let is_vain = || !matcher.is_waiting() || matcher.next_due().is_none();
        self.rule.on_update == OnUpdate::Drop || matcher.keys() == 0 || (!takes_events && is_vain())
    }

    /// Tombstones for what is saved of it, of so many keys in one transaction; whether nothing is left.
    pub(super) fn retire(&mut self, id: &RuleId, batch: &mut Batch) -> bool {
        for _ in 0..KEYS_RETIRED_AT_ONCE {
            let Some((key, count)) = self.pieces.pop_first() else {
                let progress = PatternKey::Progress { rule: id.clone() };
                batch.entries.push((progress, None));
                return true;
            };
            let parts = (0..count).map(|part| (entry(id, &key, part), None));
            batch.entries.extend(parts);
        }
        false
    }
}

/// Tells what a rule says from what another of its name and version says. Part of the stored state: never to
/// change, nor the canonical form, or all state is forgotten.
pub(super) fn definition_of(rule: &Rule) -> Definition {
    let source = rule.source.as_str().as_bytes();
    uuid::Uuid::new_v5(&uuid::Uuid::NAMESPACE_OID, source).into_bytes()
}

pub(super) fn entry(id: &RuleId, key: &str, part: u32) -> PatternKey {
    PatternKey::State {
        rule: id.clone(),
        key: key.to_owned(),
        part,
    }
}

/// Bytes in the pieces in which they are saved.
pub(super) fn pieces(bytes: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    let chunks = bytes.chunks(PIECE_BYTES);
    let count = chunks.len() as u32;
    chunks.enumerate().map(move |(place, state)| {
        let parts = if place == 0 { count } else { 0 };
        state::encode_piece(Piece { parts, state })
    })
}

/// The pieces of what was saved as one; how many there are.
pub(super) fn joined(parts: &BTreeMap<u32, Vec<u8>>) -> Result<(u32, Vec<u8>), String> {
    let mut bytes = Vec::new();
    let mut count = 0;
    for (expected, (part, value)) in (0..).zip(parts) {
        let piece = state::decode_piece(value).map_err(|error| error.to_string())?;
        if *part != expected {
            return Err(format!("piece {expected} is missing"));
        }
        if expected == 0 {
            count = piece.parts;
        }
        bytes.extend_from_slice(piece.state);
    }
    match u32::try_from(parts.len()) {
        Ok(found) if found == count => Ok((count, bytes)),
        found => Err(format!("{count} pieces were saved, {found:?} are there")),
    }
}
