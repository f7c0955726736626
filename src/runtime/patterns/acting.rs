//! When a match acts: not in shadow, not where the canary spares its key, not where it is taken for a
//! loop; and not before the tables are read that its rule joins.

use super::action;
use super::batch::{Batch, Refused};
use super::held::TooMany;
use super::partition::RuleId;
use super::provenance;
use super::running::Running;
use crate::model::rule_event::{MatchMode, Matched};
use crate::model::{Failure, Json, Provenance};
use crate::pattern::filter::key_text;
use crate::pattern::{Match, Mode};
use crate::runtime::tables::NoValue;

impl Running {
    pub(super) fn act(&mut self, id: &RuleId, found: &Match, batch: &mut Batch) {
        let provenance = provenance::of(&self.rule, found);
        if provenance.depth > batch.bounds.max_depth {
            *batch.tally.loops.entry(id.clone()).or_default() += 1;
            let message = format!(
                "the match stems from {} rules one after the other, and rules.max_depth allows {}: taken for a loop of rules that start one another, it starts and steers nothing",
                provenance.depth, batch.bounds.max_depth
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
        let limit = batch.bounds.max_payload_bytes;
        match action::orders(&self.rule, &key, found, joined, &provenance, limit) {
            Ok(orders) => {
                let (verbs, orders): (Vec<_>, Vec<_>) = orders.into_iter().unzip();
                if !orders.is_empty() {
                    *batch.tally.acted.entry(id.clone()).or_default() += 1;
                }
                batch.orders.extend(orders);
                self.tell(found, provenance, MatchMode::Live, Ok(verbs), batch);
            }
            Err(failure) => self.fail(id, found, provenance, failure, batch),
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
}
