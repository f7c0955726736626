//! What the stage tells on `events`: each match, and what a batch gave up at bounds.

use std::collections::BTreeMap;

use super::partition::RuleId;
use crate::model::rule_event::{Overflowed, RuleEvent};
use crate::pattern::filter::key_text;
use crate::pattern::{Overflow, Rule};

/// Keys of one rule and limit that a batch tells of one by one; those beyond are summed up.
const MAX_KEYS_TOLD: usize = 100;

/// Overflows of a batch, by rule, limit and key (`None`: the rule's own, or those beyond the first
/// keys): a bound that is met by each of a thousand events is one event.
#[derive(Default)]
pub(super) struct Overflows {
    by_place: BTreeMap<(RuleId, &'static str, Option<String>), Overflowed>,
    keys: BTreeMap<(RuleId, &'static str), usize>,
}

impl Overflows {
    /// `depth` is that of the deepest event that may have led to it.
    pub(super) fn add(&mut self, rule: &Rule, id: &RuleId, overflow: &Overflow, depth: u32) {
        let mut key = overflow.key.as_deref();
        let mut place = (id.clone(), overflow.limit, key.map(key_text));
        if key.is_some() && !self.by_place.contains_key(&place) {
            let keys = self.keys.entry((id.clone(), overflow.limit)).or_default();
            if *keys == MAX_KEYS_TOLD {
                (key, place.2) = (None, None);
            } else {
                *keys += 1;
            }
        }
        let told = self.by_place.entry(place).or_insert_with(|| Overflowed {
            rule: id.clone(),
            key: key.map(|key| rule.key_object(key)),
            at: overflow.at,
            limit: overflow.limit,
            dropped: 0,
            depth: 0,
        });
        told.dropped += overflow.dropped;
        told.at = told.at.max(overflow.at);
        told.depth = told.depth.max(depth.saturating_add(1));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_place.is_empty()
    }

    /// As events.
    pub(super) fn events(&self) -> impl Iterator<Item = RuleEvent> {
        self.by_place.values().cloned().map(RuleEvent::Overflowed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Timestamp;
    use crate::pattern::{Scalar, syntax};

    #[test]
    fn overflows_of_a_batch_are_one_event_for_each_key_up_to_a_bound() {
        let text = "{kind: rule, name: r, topic: t, correlate: [k], match: {any: [{id: a}]}}";
        let rule = syntax::parse(text, None).unwrap().remove(0);
        let id = rule.id();
        let overflow = |key: Option<i64>| Overflow {
            key: key.map(|key| [Scalar::Int(key)].into()),
            at: Timestamp(key.unwrap_or(0)),
            limit: "max_partials_per_key",
            dropped: 2,
        };
        let mut overflows = Overflows::default();
        for key in 0..MAX_KEYS_TOLD as i64 + 5 {
            overflows.add(&rule, &id, &overflow(Some(key)), 0);
        }
        overflows.add(&rule, &id, &overflow(Some(3)), 4);
        overflows.add(&rule, &id, &overflow(None), 0);
        let events: Vec<Overflowed> = overflows
            .events()
            .map(|event| match event {
                RuleEvent::Overflowed(overflowed) => overflowed,
                RuleEvent::Matched(matched) => panic!("{matched:?}"),
            })
            .collect();
        assert_eq!(events.len(), MAX_KEYS_TOLD + 1);
        let of = |key: Option<&str>| {
            let is_it = |event: &&Overflowed| {
                event
                    .key
                    .as_ref()
                    .map(|key| key.as_str().to_owned())
                    .as_deref()
                    == key
            };
            events
                .iter()
                .find(is_it)
                .map(|event| (event.dropped, event.depth))
        };
        assert_eq!(of(Some(r#"{"k":3}"#)), Some((4, 5)));
        assert_eq!(of(Some(r#"{"k":7}"#)), Some((2, 1)));
        assert_eq!(
            of(None),
            Some((12, 1)),
            "five keys too many, and the rule's own"
        );
    }
}
