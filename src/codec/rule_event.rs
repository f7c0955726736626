//! Events about rules as CloudEvents 1.0 in structured JSON.

use serde::Serialize;

use super::output;
use crate::model::rule_event::{Matched, Overflowed, RuleEvent};
use crate::model::{Contributor, Failure, Json, RunId, Timestamp};

#[derive(Serialize)]
struct Envelope<'a, T> {
    specversion: &'static str,
    id: &'a str,
    source: &'static str,
    #[serde(rename = "type")]
    kind: &'static str,
    subject: &'a str,
    time: Timestamp,
    partitarule: &'a str,
    partitadepth: u32,
    datacontenttype: &'static str,
    data: T,
}

#[derive(Serialize)]
struct MatchedData<'a> {
    rule: &'a str,
    version: u32,
    key: &'a Json,
    at: Timestamp,
    mode: &'static str,
    events: &'a [Contributor],
    more: u64,
    run: Option<&'a RunId>,
    commands: &'a [&'static str],
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a Failure>,
}

#[derive(Serialize)]
struct OverflowedData<'a> {
    rule: &'a str,
    version: u32,
    key: Option<&'a Json>,
    at: Timestamp,
    limit: &'static str,
    dropped: u64,
}

/// Appends the event. `time` is when it was noticed; `batch` names the batch that an overflow came
/// about in, and is its id together with the rule.
pub fn rule_event(out: &mut Vec<u8>, event: &RuleEvent, time: Timestamp, batch: &str) {
    let (rule, version) = name_and_version(event.rule());
    match event {
        RuleEvent::Matched(matched) => {
            let data = matched_data(matched, rule, version);
            envelope(out, event, matched.id.as_str(), time, data);
        }
        RuleEvent::Overflowed(overflowed) => {
            let data = overflowed_data(overflowed, rule, version);
            let id = format!("{}/{batch}", event.rule());
            envelope(out, event, &id, time, data);
        }
    }
}

fn envelope<T: Serialize>(
    out: &mut Vec<u8>,
    event: &RuleEvent,
    id: &str,
    time: Timestamp,
    data: T,
) {
    output::json(
        out,
        &Envelope {
            specversion: "1.0",
            id,
            source: "/partita/rules",
            kind: event.kind(),
            subject: event.rule(),
            time,
            partitarule: event.rule(),
            partitadepth: event.depth(),
            datacontenttype: "application/json",
            data,
        },
    );
}

fn matched_data<'a>(matched: &'a Matched, rule: &'a str, version: u32) -> MatchedData<'a> {
    let from = &matched.provenance;
    MatchedData {
        rule,
        version,
        key: &from.key,
        at: from.at,
        mode: matched.mode.name(),
        events: &from.events,
        more: from.more,
        run: matched.run.as_ref(),
        commands: &matched.commands,
        error: matched.error.as_ref(),
    }
}

fn overflowed_data<'a>(of: &'a Overflowed, rule: &'a str, version: u32) -> OverflowedData<'a> {
    OverflowedData {
        rule,
        version,
        key: of.key.as_ref(),
        at: of.at,
        limit: of.limit,
        dropped: of.dropped,
    }
}

fn name_and_version(rule: &str) -> (&str, u32) {
    let parts = rule.rsplit_once('@');
    parts.map_or((rule, 0), |(name, version)| {
        (name, version.parse().unwrap_or(0))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Provenance;
    use crate::model::rule_event::MatchMode;
    use serde_json::{Value, json};

    fn written(event: &RuleEvent) -> Value {
        let mut out = Vec::new();
        rule_event(&mut out, event, Timestamp(1_795_219_200_123), "3.17.0");
        serde_json::from_slice(&out).unwrap()
    }

    #[test]
    fn a_match_is_a_cloud_event() {
        let contributor = Contributor {
            step: "s".to_owned(),
            topic: "t".to_owned(),
            partition: 1,
            offset: 2,
        };
        let event = RuleEvent::Matched(Matched {
            id: RunId::parse("storm-1").unwrap(),
            provenance: Provenance {
                rule: "storm@2".to_owned(),
                key: Json::from_text(r#"{"workflow":"w"}"#).unwrap(),
                at: Timestamp(0),
                depth: 1,
                events: vec![contributor],
                more: 0,
            },
            mode: MatchMode::Live,
            run: Some(RunId::parse("storm-1").unwrap()),
            commands: vec!["start", "signal"],
            error: None,
        });
        assert_eq!(
            written(&event),
            json!({
                "specversion": "1.0", "id": "storm-1", "source": "/partita/rules",
                "type": "partita.rule.matched", "subject": "storm@2",
                "time": Timestamp(1_795_219_200_123).to_string(),
                "partitarule": "storm@2", "partitadepth": 1, "datacontenttype": "application/json",
                "data": {
                    "rule": "storm", "version": 2, "key": {"workflow": "w"},
                    "at": "1970-01-01T00:00:00.000Z", "mode": "live",
                    "events": [{"step": "s", "topic": "t", "partition": 1, "offset": 2}], "more": 0,
                    "run": "storm-1", "commands": ["start", "signal"],
                },
            })
        );
    }

    #[test]
    fn an_overflow_is_a_cloud_event() {
        let event = RuleEvent::Overflowed(Overflowed {
            rule: "storm@2".to_owned(),
            key: None,
            at: Timestamp(0),
            limit: "max_keys",
            dropped: 4,
            depth: 3,
        });
        let written = written(&event);
        assert_eq!(written["id"], "storm@2/3.17.0");
        assert_eq!(written["type"], "partita.rule.overflowed");
        assert_eq!(written["partitadepth"], 3);
        assert_eq!(
            written["data"],
            json!({
                "rule": "storm", "version": 2, "key": null, "at": "1970-01-01T00:00:00.000Z",
                "limit": "max_keys", "dropped": 4,
            })
        );
    }
}
