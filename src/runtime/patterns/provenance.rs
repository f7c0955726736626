//! Where a match comes from: the records that it holds, and over how many rules it came about.

use serde::Deserialize;

use super::action;
use crate::model::provenance::MAX_RECORDS;
use crate::model::{Contributor, Json, Provenance};
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

/// Over how many rules an event came about: the attribute `partitadepth` of a CloudEvent, 0 where it
/// has none.
pub(super) fn depth(payload: &Json) -> u32 {
    #[derive(Deserialize)]
    struct Attributes {
        partitadepth: Option<u32>,
    }
    #[derive(Deserialize)]
    struct Event {
        ce: Attributes,
    }
    // Most events are no CloudEvents, and of those few have it: neither is parsed.
    let text = payload.as_str();
    if !text.starts_with(r#"{"ce":"#) || !text.contains("partitadepth") {
        return 0;
    }
    let event = serde_json::from_str::<Event>(text).ok();
    event.and_then(|event| event.ce.partitadepth).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_depth_is_an_attribute_and_nothing_else() {
        for (text, expected) in [
            (r#"{"ce":{"type":"t","partitadepth":3},"a":1}"#, 3),
            (r#"{"ce":{"type":"t"},"partitadepth":3}"#, 0),
            (r#"{"a":{"partitadepth":3}}"#, 0),
            (r#"{"ce":{"partitadepth":-1}}"#, 0),
            (r#"{"ce":{"partitadepth":"x"}}"#, 0),
            (r#"{"ce":5,"partitadepth":3}"#, 0),
            ("{}", 0),
        ] {
            assert_eq!(depth(&Json::from_text(text).unwrap()), expected, "{text}");
        }
    }
}
