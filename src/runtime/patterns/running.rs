//! One version of a rule at work on the keys of a partition.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::action;
use super::batch::{Batch, Refused};
use super::held::{Held, TooMany};
use super::partition::RuleId;
use super::provenance;
use super::watching::Watchers;
use crate::codec::pattern_state::{self as state, PatternKey, Piece, Times};
use crate::model::rule_event::{MatchMode, Matched};
use crate::model::{Failure, Json, Provenance, Timestamp};
use crate::pattern::filter::key_text;
use crate::pattern::matcher::Progress;
use crate::pattern::predicate::key_values;
use crate::pattern::{Event, Match, Matcher, Mode, Outputs, Rule};
use crate::runtime::tables::{Joins, NoValue, Tables};

pub(super) struct Running {
    pub(super) rule: Arc<Rule>,
    pub(super) clock: String,
    pub(super) matcher: Matcher,
    /// Pieces in which the state of each key is saved.
    pieces: BTreeMap<String, u32>,
    saved: Progress,
    joins: Joins,
    /// Matches that wait for the tables.
    pub(super) held: Held,
    /// The deepest event that it was given here: what it gives up may be due to that one.
    deepest: u32,
    /// Its version is not in force any more: it goes once it holds nothing.
    pub(super) is_leaving: bool,
    /// Of a rule that a step implies.
    pub(super) watchers: Option<Watchers>,
}

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
                    Ok([watermark, latest, now]) => {
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
            clock: rule.clock(),
            joins: Joins::of(&rule, tables),
            rule,
            matcher,
            pieces,
            saved,
            held: Held::restore(id, held),
            deepest: 0,
            is_leaving: false,
            watchers,
        }
    }

    /// An event for it.
    pub(super) fn take(&mut self, id: &RuleId, arrival: Arrival, batch: &mut Batch) {
        self.deepest = self.deepest.max(provenance::depth(&arrival.payload));
        if self.watchers.is_some() {
            return self.take_watched(id, arrival, batch);
        }
        let slots = self.rule.slots(&arrival.payload);
        let event = Event {
            topic: arrival.place as u16,
            at: arrival.at,
            position: action::position(arrival.partition, arrival.offset),
            slots: &slots,
            payload: &arrival.payload,
        };
        let mut out = Outputs::default();
        self.matcher.offer(&event, &mut out);
        if !out.late.is_empty() {
            self.refuse_late(id, arrival, batch);
        }
        self.conclude(id, out, batch);
    }

    pub(super) fn refuse_late(&self, id: &RuleId, arrival: Arrival, batch: &mut Batch) {
        let watermark = self.matcher.progress().watermark.unwrap_or_default();
        let message = format!(
            "event time {:?} lies beyond `allowed_lateness` of the rule, whose time has come to {watermark:?}",
            arrival.at
        );
        batch.refused.push(Refused {
            rule: id.clone(),
            topic: arrival.topic,
            partition: arrival.partition,
            offset: arrival.offset,
            value: arrival.payload.as_str().as_bytes().to_vec(),
            failure: Failure::new("late", message),
        });
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
        if self.watchers.is_none() {
            for found in &out.matches {
                self.act(id, found, batch);
            }
        }
    }

    fn act(&mut self, id: &RuleId, found: &Match, batch: &mut Batch) {
        let provenance = provenance::of(&self.rule, found);
        if provenance.depth > batch.max_depth {
            *batch.tally.loops.entry(id.clone()).or_default() += 1;
            let message = format!(
                "the match stems from {} rules one after the other, and rules.max_depth allows {}: taken for a loop of rules that start one another, it starts and steers nothing",
                provenance.depth, batch.max_depth
            );
            self.refuse(id, found, Failure::new("loop", message), batch);
            return;
        }
        let mode = match self.rule.mode {
            Mode::Shadow => MatchMode::Shadow,
            Mode::Live if !action::is_acting(&self.rule, &key_text(&found.key)) => {
                MatchMode::Spared
            }
            Mode::Live => MatchMode::Live,
        };
        if mode != MatchMode::Live {
            self.tell(found, provenance, mode, Ok(Vec::new()), batch);
            return;
        }
        let values = match self.held.is_empty() {
            true => self.joins.values(&self.rule, found),
            // Those that wait come first.
            false => Err(NoValue::Reading),
        };
        match values {
            Ok(joined) => self.order(id, found, provenance, &joined, batch),
            Err(NoValue::Reading) => {
                if let Err(TooMany) = self.held.push(id, found, batch) {
                    let reason = "too many matches wait for the tables already".to_owned();
                    self.unjoined(id, found, provenance, reason, batch);
                }
            }
            Err(NoValue::Unavailable(reason)) => {
                self.unjoined(id, found, provenance, reason, batch);
            }
        }
    }

    /// Lets those matches act that waited for tables which can be asked now.
    pub(super) fn release(&mut self, id: &RuleId, batch: &mut Batch) {
        while let Some(found) = self.held.first() {
            let values = self.joins.values(&self.rule, found);
            if values == Err(NoValue::Reading) {
                return;
            }
            let Some(found) = self.held.pop(id, batch) else {
                return;
            };
            let provenance = provenance::of(&self.rule, &found);
            match values {
                Ok(joined) => self.order(id, &found, provenance, &joined, batch),
                Err(NoValue::Unavailable(reason)) => {
                    self.unjoined(id, &found, provenance, reason, batch);
                }
                Err(NoValue::Reading) => {}
            }
        }
    }

    fn order(
        &self,
        id: &RuleId,
        found: &Match,
        provenance: Provenance,
        joined: &[Json],
        batch: &mut Batch,
    ) {
        let key = key_text(&found.key);
        match action::orders(&self.rule, &key, found, joined, &provenance) {
            Ok(orders) => {
                let (verbs, orders): (Vec<_>, Vec<_>) = orders.into_iter().unzip();
                batch.orders.extend(orders);
                self.tell(found, provenance, MatchMode::Live, Ok(verbs), batch);
            }
            Err(error) => {
                let failure = Failure::new("expression_error", error);
                self.fail(id, found, provenance, failure, batch);
            }
        }
    }

    fn unjoined(
        &self,
        id: &RuleId,
        found: &Match,
        provenance: Provenance,
        reason: String,
        batch: &mut Batch,
    ) {
        *batch.tally.unjoined.entry(id.clone()).or_default() += 1;
        let failure = Failure::new("join_unavailable", reason);
        self.fail(id, found, provenance, failure, batch);
    }

    /// A match that ought to act and cannot.
    fn fail(
        &self,
        id: &RuleId,
        found: &Match,
        provenance: Provenance,
        failure: Failure,
        batch: &mut Batch,
    ) {
        let why = Err(failure.clone());
        self.tell(found, provenance, MatchMode::Live, why, batch);
        self.refuse(id, found, failure, batch);
    }

    /// `events` hears of the match, and of the commands that it gives or why it gives none.
    fn tell(
        &self,
        found: &Match,
        provenance: Provenance,
        mode: MatchMode,
        commands: Result<Vec<&'static str>, Failure>,
        batch: &mut Batch,
    ) {
        let id = action::run_id(&self.rule, &key_text(&found.key), found);
        let error = commands.as_ref().err().cloned();
        let commands = commands.unwrap_or_default();
        batch.matched.push(Matched {
            run: commands.contains(&action::START).then(|| id.clone()),
            id,
            provenance,
            mode,
            commands,
            error,
        });
    }

    /// The last of the match's events becomes a dead letter.
    fn refuse(&self, id: &RuleId, found: &Match, failure: Failure, batch: &mut Batch) {
        let last = found.events.iter().max_by_key(|(_, taken)| taken.order);
        let (partition, offset) = last.map_or((0, 0), |(_, taken)| action::place(taken.position));
        let topic = last.map_or("", |(step, _)| self.rule.topic_of(*step));
        let value = last.map(|(_, taken)| taken.payload.as_str().as_bytes().to_vec());
        batch.refused.push(Refused {
            rule: id.clone(),
            topic: topic.to_owned(),
            partition,
            offset,
            value: value.unwrap_or_default(),
            failure,
        });
    }

    pub(super) fn save(&mut self, id: &RuleId, batch: &mut Batch) {
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
        if has_changed && progress != self.saved {
            let Progress {
                watermark,
                latest,
                now,
            } = progress;
            let times: Times = [watermark, latest, now];
            let value = state::encode_times(times);
            entries.push((PatternKey::Progress { rule: id.clone() }, Some(value)));
            self.saved = progress;
        }
    }

    /// Tombstones for all that is saved of it.
    pub(super) fn retire(&mut self, id: &RuleId, batch: &mut Batch) {
        for (key, count) in std::mem::take(&mut self.pieces) {
            let parts = (0..count).map(|part| (entry(id, &key, part), None));
            batch.entries.extend(parts);
        }
        let progress = PatternKey::Progress { rule: id.clone() };
        batch.entries.push((progress, None));
    }
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
