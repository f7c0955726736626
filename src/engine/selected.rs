//! An order for all runs that have some tags, of one workflow where it names one: those that have not ended, by id, each as if the
//! order were a command for it alone. Those beyond `max_selected` are left to a record of their own
//! in this partition, so that no order makes a transaction that others would have to wait for.

use super::batch::Batch;
use super::{Effect, Outcome, Refusal};
use crate::model::{Failure, Order, RunId, Selected, Timestamp};

impl Batch<'_> {
    /// What some of the runs refuse makes one dead letter of the record; the others were served.
    pub(super) fn selected(&mut self, selected: Selected, now: Timestamp) {
        let outcome = match self.check_order(&selected.order) {
            Ok(()) => self.for_each_selected(selected, now),
            Err(refusal) => {
                self.outbox.push(Effect::DeadLetter {
                    failure: refusal.failure(),
                    run: None,
                    origin: None,
                });
                Outcome::Refused(refusal)
            }
        };
        self.outbox.push(Effect::Answer(outcome));
    }

    /// What is wrong with the order for every run.
    fn check_order(&self, order: &Order) -> Result<(), Refusal> {
        match order {
            Order::Signal { data, .. } => self.check_size("data", data.as_ref()),
            _ => Ok(()),
        }
    }

    fn for_each_selected(&mut self, selected: Selected, now: Timestamp) -> Outcome {
        let Selected {
            tags,
            workflow,
            order,
            after,
            depth,
        } = selected;
        let limit = self.config.max_selected.max(1);
        let mut runs = self.overlay.tagged(&tags, after.as_ref(), limit + 1);
        let has_more = runs.len() > limit;
        runs.truncate(limit);
        let mut is_applied = has_more;
        let mut refused = 0;
        let mut first: Option<(&RunId, Refusal)> = None;
        for run in &runs {
            if !self.overlay.is_meant(run, &tags, workflow.as_deref()) {
                continue;
            }
            match self.carry_out(order.clone().to(run.clone(), depth), None, now) {
                Outcome::Applied => is_applied = true,
                Outcome::Refused(refusal) => {
                    refused += 1;
                    first.get_or_insert((run, refusal));
                }
                Outcome::Started | Outcome::AlreadyStarted | Outcome::AlreadyHolds => {}
            }
        }
        if let Some((run, refusal)) = first {
            let Failure { class, message, .. } = refusal.failure();
            let message = format!(
                "{refused} of {} runs refused it, the first `{run}`: {message}",
                runs.len()
            );
            self.outbox.push(Effect::DeadLetter {
                failure: Failure::new(&class, message),
                run: None,
                origin: None,
            });
        }
        if let (true, Some(last)) = (has_more, runs.pop()) {
            let after = Some(last);
            self.outbox.push(Effect::Continue(Selected {
                tags,
                workflow,
                order,
                after,
                depth,
            }));
        }
        match is_applied {
            true => Outcome::Applied,
            false => Outcome::AlreadyHolds,
        }
    }
}
