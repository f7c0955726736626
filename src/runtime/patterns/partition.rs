//! One owned partition of `signals`: the rules at work on its keys.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::action::{self, Order};
use super::sources::Sources;
use crate::codec::pattern_state::{self as state, PatternKey, Piece, SourceTime, Times};
use crate::codec::{CodecError, signal};
use crate::model::signal::Signal;
use crate::model::{Failure, Millis, Timestamp};
use crate::pattern::filter::key_text;
use crate::pattern::matcher::Progress;
use crate::pattern::predicate::key_values;
use crate::pattern::{Event, Match, Matcher, Mode, OnUpdate, Outputs, Rule};

/// Longest piece of a key's state in one record, in bytes: brokers take a megabyte.
const PIECE_BYTES: usize = 512 << 10;

/// State of a rule that is not known is kept for so long: the definitions may have been read in part only.
const ORPHANS_KEPT: Millis = Millis(60_000);

/// `<rule>@<version>`.
pub(super) type RuleId = String;

/// See the module.
#[derive(Default)]
pub struct RulesPartition {
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

struct Running {
    rule: Arc<Rule>,
    clock: String,
    matcher: Matcher,
    /// Pieces in which the state of each key is saved.
    pieces: BTreeMap<String, u32>,
    saved: Progress,
    /// Its version is not in force any more: it goes once it holds nothing.
    is_leaving: bool,
}

/// What a batch comes to, to be written in one transaction.
#[derive(Default)]
pub(super) struct Batch {
    pub(super) orders: Vec<Order>,
    /// Events that came too late, and matches whose expressions have no value.
    pub(super) refused: Vec<Refused>,
    /// Entries of the changelog; `None`: a tombstone.
    pub(super) entries: Vec<(PatternKey, Option<Vec<u8>>)>,
    pub(super) tally: Tally,
}

/// Something that becomes a dead letter.
pub(super) struct Refused {
    pub(super) rule: RuleId,
    pub(super) topic: String,
    pub(super) partition: i32,
    pub(super) offset: i64,
    pub(super) value: Vec<u8>,
    pub(super) failure: Failure,
}

/// Counts of a batch, published once it is committed.
#[derive(Default)]
pub(super) struct Tally {
    pub(super) matches: BTreeMap<RuleId, u64>,
    pub(super) late: BTreeMap<RuleId, u64>,
    pub(super) suppressed: BTreeMap<RuleId, u64>,
    pub(super) condition_errors: BTreeMap<RuleId, u64>,
    pub(super) overflows: BTreeMap<(RuleId, &'static str), u64>,
    /// Signals for a rule that is not known here.
    pub(super) ownerless: u64,
}

impl Batch {
    pub(super) fn is_empty(&self) -> bool {
        self.orders.is_empty() && self.refused.is_empty() && self.entries.is_empty()
    }
}

impl RulesPartition {
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
            || running.any(|running| running.matcher.next_due().is_some() || running.is_leaving)
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
                None => self.put_to_work(id, rule.clone()),
            }
        }
        // What an earlier owner left of rules that are not in force any more.
        let left: BTreeSet<RuleId> = self
            .entries
            .keys()
            .filter_map(|key| match key {
                PatternKey::State { rule, .. } | PatternKey::Progress { rule } => {
                    Some(rule.clone())
                }
                PatternKey::Sources => None,
            })
            .collect();
        for id in left {
            match known(&id) {
                Some(rule) => self.put_to_work(id, rule),
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

    /// What was read of a rule.
    fn take_entries(&mut self, id: &str) -> Vec<(PatternKey, Vec<u8>)> {
        let first = entry(&id.to_owned(), "", 0);
        let is_of_rule =
            |key: &&PatternKey| matches!(key, PatternKey::State { rule, .. } if rule == id);
        let mut keys: Vec<PatternKey> = self
            .entries
            .range(first..)
            .map(|(key, _)| key)
            .take_while(is_of_rule)
            .cloned()
            .collect();
        keys.push(PatternKey::Progress {
            rule: id.to_owned(),
        });
        let take = |key: PatternKey| Some((self.entries.remove(&key)?, key));
        let taken = keys.into_iter().filter_map(take);
        taken.map(|(value, key)| (key, value)).collect()
    }

    fn put_to_work(&mut self, id: RuleId, rule: Arc<Rule>) {
        let mut matcher = Matcher::new(rule.clone(), false);
        let mut pieces = BTreeMap::new();
        let mut states: BTreeMap<String, BTreeMap<u32, Vec<u8>>> = BTreeMap::new();
        let mut saved = Progress::default();
        for (key, value) in self.take_entries(&id) {
            match key {
                PatternKey::State { key, part, .. } => {
                    states.entry(key).or_default().insert(part, value);
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
        let running = Running {
            clock: rule.clock(),
            rule,
            matcher,
            pieces,
            saved,
            is_leaving: false,
        };
        self.running.insert(id, running);
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
                topic,
                partition,
                offset,
                at,
                payload,
                ..
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
                let slots = running.rule.slots(&payload);
                let event = Event {
                    topic: place as u16,
                    at,
                    position: action::position(partition, offset),
                    slots: &slots,
                    payload: &payload,
                };
                let mut out = Outputs::default();
                running.matcher.offer(&event, &mut out);
                if !out.late.is_empty() {
                    let watermark = running.matcher.progress().watermark.unwrap_or_default();
                    let message = format!(
                        "event time {at:?} lies beyond `allowed_lateness` of the rule, whose time has come to {watermark:?}"
                    );
                    batch.refused.push(Refused {
                        rule: id.clone(),
                        topic,
                        partition,
                        offset,
                        value: payload.as_str().as_bytes().to_vec(),
                        failure: Failure::new("late", message),
                    });
                }
                running.conclude(&id, out, batch);
                Ok(false)
            }
        }
    }

    /// Moves event time on as far as the sources allow.
    pub(super) fn move_time(&mut self, now: Timestamp, batch: &mut Batch) {
        self.looked_at = now;
        for (id, running) in &mut self.running {
            if let Some(time) = self.sources.time_of(&running.rule, &running.clock, now) {
                let mut out = Outputs::default();
                running.matcher.observe(time, &mut out);
                running.conclude(id, out, batch);
            }
        }
    }

    /// The entries of all that changed.
    pub(super) fn save(&mut self, has_new_times: bool, batch: &mut Batch) {
        let mut gone = Vec::new();
        for (id, running) in &mut self.running {
            running.save(id, batch);
            let drops = running.rule.on_update == OnUpdate::Drop;
            if running.is_leaving && (drops || running.matcher.keys() == 0) {
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

impl Running {
    fn conclude(&mut self, id: &RuleId, out: Outputs, batch: &mut Batch) {
        let tally = &mut batch.tally;
        let add = |counts: &mut BTreeMap<RuleId, u64>, count: u64| {
            if count > 0 {
                *counts.entry(id.clone()).or_default() += count;
            }
        };
        add(&mut tally.matches, out.matches.len() as u64);
        add(&mut tally.late, out.late.len() as u64);
        add(&mut tally.suppressed, out.suppressed);
        add(&mut tally.condition_errors, out.condition_errors);
        for overflow in &out.overflows {
            let counts = tally.overflows.entry((id.clone(), overflow.limit));
            *counts.or_default() += overflow.dropped;
        }
        for found in &out.matches {
            self.act(id, found, batch);
        }
    }

    fn act(&self, id: &RuleId, found: &Match, batch: &mut Batch) {
        let key = key_text(&found.key);
        if self.rule.mode == Mode::Shadow || !action::is_acting(&self.rule, &key) {
            tracing::info!(rule = %id, key, at = ?found.at, "a match that is only noted");
            return;
        }
        match action::orders(&self.rule, &key, found) {
            Ok(orders) => batch.orders.extend(orders),
            Err(error) => {
                let last = found.events.iter().max_by_key(|(_, taken)| taken.order);
                let (partition, offset) =
                    last.map_or((0, 0), |(_, taken)| action::place(taken.position));
                let topic = last.map_or("", |(step, _)| self.rule.topic_of(*step));
                let value = last.map(|(_, taken)| taken.payload.as_str().as_bytes().to_vec());
                batch.refused.push(Refused {
                    rule: id.clone(),
                    topic: topic.to_owned(),
                    partition,
                    offset,
                    value: value.unwrap_or_default(),
                    failure: Failure::new("expression_error", error),
                });
            }
        }
    }

    fn save(&mut self, id: &RuleId, batch: &mut Batch) {
        let pieces = &mut self.pieces;
        let entries = &mut batch.entries;
        let mut has_changed = false;
        self.matcher.take_changed(&mut |key, saved| {
            has_changed = true;
            let key = key_text(key);
            let before = pieces.remove(&key).unwrap_or(0);
            let mut after = 0;
            if let Some(saved) = saved {
                let chunks = saved.chunks(PIECE_BYTES);
                let count = chunks.len() as u32;
                for (part, state) in (0..).zip(chunks) {
                    let parts = if part == 0 { count } else { 0 };
                    let value = state::encode_piece(Piece { parts, state });
                    entries.push((entry(id, &key, part), Some(value)));
                }
                after = count;
                pieces.insert(key.clone(), count);
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
    fn retire(&mut self, id: &RuleId, batch: &mut Batch) {
        for (key, count) in std::mem::take(&mut self.pieces) {
            let parts = (0..count).map(|part| (entry(id, &key, part), None));
            batch.entries.extend(parts);
        }
        let progress = PatternKey::Progress { rule: id.clone() };
        batch.entries.push((progress, None));
    }
}

fn entry(id: &RuleId, key: &str, part: u32) -> PatternKey {
    PatternKey::State {
        rule: id.clone(),
        key: key.to_owned(),
        part,
    }
}

/// The pieces of a key's state as one; how many there are.
fn joined(parts: &BTreeMap<u32, Vec<u8>>) -> Result<(u32, Vec<u8>), String> {
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
