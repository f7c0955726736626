//! Where a match comes from: the records that it holds, and over how many rules it came about.

use super::action;
use crate::model::cloud_event::depth;
use crate::model::provenance::MAX_RECORDS;
use crate::model::{Contributor, Provenance};
use crate::pattern::{Match, Rule, Taken};

/// Of a match of `rule`.
pub(super) fn of(rule: &Rule, found: &Match) -> Provenance {
    let contributor = |(step, taken): &(u16, Taken)| {
        let (partition, offset) = action::place(taken.position);
        Contributor {
            step: rule.names[usize::from(*step)].to_string(),
            topic: rule.topic_of(*step).to_owned(),
            partition,
            offset,
        }
    };
    let named = found.events.iter().take(MAX_RECORDS);
    let deepest = found.events.iter().map(|(_, taken)| depth(&taken.payload));
    Provenance {
        rule: rule.id(),
        key: rule.key_object(&found.key),
        at: found.at,
        depth: deepest.max().unwrap_or(0).saturating_add(1),
        events: named.map(contributor).collect(),
        more: found.events.len().saturating_sub(MAX_RECORDS) as u64,
    }
}
