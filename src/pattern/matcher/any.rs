//! Conditions of which each one event suffices: nothing is kept.

use super::{Shaped, Step};
use crate::model::Timestamp;
use crate::pattern::event::{Event, Taken};
use crate::pattern::rule::Condition;

#[derive(Debug)]
pub(super) struct Any {
    conditions: Vec<Condition>,
}

impl Any {
    pub(super) fn new(conditions: &[Condition]) -> Self {
        Self {
            conditions: conditions.to_vec(),
        }
    }
}

impl Shaped for Any {
    type State = ();

    fn event(&self, (): &mut (), event: &Event<'_>, met: u64, step: &mut Step<'_>) {
        if !step.may_begin(event.at) {
            return;
        }
        for condition in &self.conditions {
            if met >> condition.predicate & 1 == 1 {
                let taken = Taken::new(event, step.order, false);
                step.emit(event.at, vec![(condition.name, taken)]);
            }
        }
    }

    fn expire(&self, (): &mut (), _: &mut Step<'_>) {}

    fn deadline(&self, (): &()) -> Option<Timestamp> {
        None
    }

    fn is_idle(&self, (): &()) -> bool {
        true
    }

    fn partials(&self, (): &()) -> usize {
        0
    }

    fn shed(&self, (): &mut (), _: usize, _: &mut Step<'_>) {}
}
