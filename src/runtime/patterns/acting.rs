//! When a match acts: not in shadow, not where the canary spares its key, not where it is taken for a
//! loop; and not before the tables are read that its rule joins.

use super::action;
use super::batch::{Batch, Refused};
use super::held::TooMany;
use super::partition::RuleId;
use super::provenance;
use super::running::Running;
use crate::model::rule_event::{MatchMode, Matched};
use crate::model::{Failure, Json, Provenance, RunId};
use crate::pattern::filter::key_text;
use crate::pattern::{Match, Mode, Rule};
use crate::runtime::tables::NoValue;

/// A match with what is worked out of it once, whoever asks.
struct Found<'m> {
    found: &'m Match,
    /// The correlation key, as text.
    key: String,
    /// Names the match: the run that it starts.
    id: RunId,
    provenance: Provenance,
}

impl<'m> Found<'m> {
    fn new(rule: &Rule, found: &'m Match, provenance: Provenance) -> Self {
        let key = key_text(&found.key);
        Self {
            found,
            id: action::run_id(rule, &key, found),
            key,
            provenance,
        }
    }

    /// `events` hears of the match, and of the commands that it gives or why it gives none.
    fn tell(
        self,
        mode: MatchMode,
        commands: Result<Vec<&'static str>, Failure>,
        batch: &mut Batch,
    ) {
        let error = commands.as_ref().err().cloned();
        let commands = commands.unwrap_or_default();
        batch.matched.push(Matched {
            run: commands.contains(&action::START).then(|| self.id.clone()),
            id: self.id,
            provenance: self.provenance,
            mode,
            commands,
            error,
        });
    }
}

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
        let seen = Found::new(&self.rule, found, provenance);
        let mode = match self.rule.mode {
            Mode::Shadow => MatchMode::Shadow,
            Mode::Live if !action::is_acting(&self.rule, &seen.key) => MatchMode::Spared,
            Mode::Live => MatchMode::Live,
        };
        if mode != MatchMode::Live {
            seen.tell(mode, Ok(Vec::new()), batch);
            return;
        }
        let values = match self.held.is_empty() {
            true => self.joins.values(&self.rule, found),
            // Those that wait come first.
            false => Err(NoValue::Reading),
        };
        match values {
            Ok(joined) => self.order(id, seen, &joined, batch),
            Err(NoValue::Reading) => {
                if let Err(TooMany) = self.held.push(id, found, batch) {
                    let reason = "too many matches wait for the tables already".to_owned();
                    self.unjoined(id, seen, reason, batch);
                }
            }
            Err(NoValue::Unavailable(reason)) => self.unjoined(id, seen, reason, batch),
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
            let seen = Found::new(&self.rule, &found, provenance);
            match values {
                Ok(joined) => self.order(id, seen, &joined, batch),
                Err(NoValue::Unavailable(reason)) => self.unjoined(id, seen, reason, batch),
                Err(NoValue::Reading) => {}
            }
        }
    }

    fn order(&self, id: &RuleId, seen: Found<'_>, joined: &[Json], batch: &mut Batch) {
        let limit = batch.bounds.max_payload_bytes;
        let (run, provenance) = (&seen.id, &seen.provenance);
        match action::orders(&self.rule, run, seen.found, joined, provenance, limit) {
            Ok(orders) => {
                let (verbs, orders): (Vec<_>, Vec<_>) = orders.into_iter().unzip();
                if !orders.is_empty() {
                    *batch.tally.acted.entry(id.clone()).or_default() += 1;
                }
                batch.orders.extend(orders);
                seen.tell(MatchMode::Live, Ok(verbs), batch);
            }
            Err(failure) => self.fail(id, seen, failure, batch),
        }
    }

    fn unjoined(&self, id: &RuleId, seen: Found<'_>, reason: String, batch: &mut Batch) {
        *batch.tally.unjoined.entry(id.clone()).or_default() += 1;
        let failure = Failure::new("join_unavailable", reason);
        self.fail(id, seen, failure, batch);
    }

    /// A match that ought to act and cannot.
    fn fail(&self, id: &RuleId, seen: Found<'_>, failure: Failure, batch: &mut Batch) {
        let found = seen.found;
        seen.tell(MatchMode::Live, Err(failure.clone()), batch);
        self.refuse(id, found, failure, batch);
    }

    /// The last of the match's events becomes a dead letter.
    fn refuse(&self, id: &RuleId, found: &Match, failure: Failure, batch: &mut Batch) {
        let Some((step, last)) = found.events.iter().max_by_key(|(_, taken)| taken.order) else {
            tracing::error!(rule = id, ?failure, "a match without events cannot act");
            return;
        };
        let (partition, offset) = action::place(last.position);
        let place = (self.rule.topic_of(*step).to_owned(), partition, offset);
        let refused = Refused::event(id, place, &last.payload, failure);
        batch.refused.push(refused);
    }
}
