//! Rules that steps of workflows imply. Whoever waits has a key of its own: that of the events, and
//! the name of the attempt that waits. So each begins with nothing, and what it has so far goes when it
//! waits no more.

use std::sync::Arc;

use serde_json::json;

use super::event::Scalar;
use super::output::{Key, Match};
use super::predicate::{key_json, matches_json};
use super::rule::Rule;
use crate::expr::Segment;
use crate::model::Json;

impl Rule {
    /// The rule as its matcher runs it, with one more value in the key: who waits. No event has a
    /// field for it, and no expression reads it. [`Rule::watched`] puts it into an event's slots.
    #[must_use]
    pub fn for_watchers(&self) -> Rule {
        let mut rule = self.clone();
        let slot = u16::try_from(rule.fields.len()).expect("a file of one megabyte names fewer");
        let nowhere = vec![Segment::Name(String::new())];
        for fields in &mut rule.fields_by_topic {
            fields.push(nowhere.clone());
        }
        rule.fields.push(nowhere);
        rule.correlate.push((Arc::from(""), slot));
        rule
    }

    /// The slots of an event as one who waits sees them; of [`Rule::for_watchers`].
    pub fn watched(&self, slots: &[Scalar], watcher: &Arc<str>) -> Vec<Scalar> {
        let (_, own) = slots.split_last().expect("such a rule has a slot");
        let watcher = Scalar::Text(watcher.clone());
        own.iter().cloned().chain([watcher]).collect()
    }

    /// What a step gets that waited for this match: `matches`, `key` and `at`.
    pub fn awaited_output(&self, found: &Match) -> Json {
        let own = &found.key[..found.key.len().saturating_sub(1)];
        Json::from(json!({
            "matches": matches_json(self, |name| found.taken(name)),
            "key": key_json(self, own),
            "at": found.at,
        }))
    }
}

/// The key of one who waits for events of `key`.
pub fn watched_key(key: &[Scalar], watcher: &Arc<str>) -> Key {
    let watcher = Scalar::Text(watcher.clone());
    key.iter().cloned().chain([watcher]).collect()
}

/// Who waits, of such a key.
pub fn watcher_of(key: &Key) -> Option<&Arc<str>> {
    match key.last() {
        Some(Scalar::Text(watcher)) => Some(watcher),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use crate::model::{Json, Timestamp};
    use crate::pattern::{Event, Matcher, Outputs, Scalar, syntax};

    #[test]
    fn what_is_forgotten_counts_no_more() {
        let text = "{kind: rule, name: r, topic: t, correlate: [k], match: {all: {within: 1h, \
                    conditions: [{id: a, where: 'event.n == 1'}, {id: b, where: 'event.n == 2'}]}}}";
        let rule = syntax::parse(text, None).expect("a rule").remove(0);
        let mut matcher = Matcher::new(rule.clone(), false);
        let payload = Json::from_text(r#"{"k":"x","n":1}"#).expect("JSON");
        let event = Event {
            topic: 0,
            at: Timestamp(1),
            position: 0,
            slots: &rule.slots(0, &payload),
            payload: &payload,
        };
        matcher.push(&event, &mut Outputs::default());
        assert_eq!((matcher.keys(), matcher.partials()), (1, 1));
        matcher.forget(&[Scalar::Text("x".into())]);
        assert_eq!((matcher.keys(), matcher.partials()), (0, 0));
    }
}
