//! From a run to the records that made it start and back, what `events` tells of rules, and rules over
//! `events` itself, which never go on for ever.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::dev::{Dev, get};
use crate::folder;

const WITHIN: Duration = Duration::from_secs(120);

const DEFINITIONS: &str = r#"
kind: workflow
name: failing
steps: [{id: a, agent: echo, task: {fail: {class: critical_error, message: no, retryable: false}}}]
---
{kind: workflow, name: incident, steps: [{id: a, agent: echo}]}
---
{kind: workflow, name: ping_run, steps: [{id: a, agent: echo}]}
---
{kind: workflow, name: pong_run, steps: [{id: a, agent: echo}]}
---
{kind: workflow, name: tick_run, steps: [{id: a, agent: echo}]}
---
{kind: workflow, name: tock_run, steps: [{id: a, agent: echo}]}
---
{kind: workflow, name: again_run, steps: [{id: a, agent: echo}]}
---
{kind: workflow, name: steered, steps: [{id: a, await: go}]}
---
kind: rule
name: halt
topic: partita.events
time: {out_of_order: 1s, allowed_lateness: 5m, idle_after: 1s}
match: {any: [{id: on, type: partita.run.resumed, where: "event.workflow == 'steered'"}]}
pause: {run: "${matches.on[0].ce.subject}"}
---
kind: rule
name: go_on
topic: partita.events
time: {out_of_order: 1s, allowed_lateness: 5m, idle_after: 1s}
match: {any: [{id: off, type: partita.run.paused, where: "event.workflow == 'steered'"}]}
resume: {run: "${matches.off[0].ce.subject}"}
---
kind: rule
name: storm
topic: partita.events
time: {out_of_order: 1s, allowed_lateness: 5m, idle_after: 1s}
correlate: {by: [workflow]}
match: {count: {id: failed, type: partita.run.failed, at_least: 3, within: 5m}}
emit: {after_match: skip_past_last}
start: {workflow: incident, input: {class: "${matches.failed[0].error.class}"}}
---
kind: rule
name: unseen
mode: shadow
topic: partita.events
time: {out_of_order: 1s, allowed_lateness: 5m, idle_after: 1s}
match: {any: [{id: failed, type: partita.run.failed, where: "event.workflow == 'failing'"}]}
start: {workflow: incident}
---
kind: rule
name: ping
topic: partita.events
time: {out_of_order: 1s, allowed_lateness: 5m, idle_after: 1s}
match: {any: [{id: done, type: partita.run.completed, where: "event.workflow == 'pong_run'"}]}
start: {workflow: ping_run}
---
kind: rule
name: pong
topic: partita.events
time: {out_of_order: 1s, allowed_lateness: 5m, idle_after: 1s}
match: {any: [{id: done, type: partita.run.completed, where: "event.workflow == 'ping_run'"}]}
start: {workflow: pong_run}
---
kind: rule
name: tick
topic: partita.events
time: {out_of_order: 1s, allowed_lateness: 5m, idle_after: 1s}
match:
  window: {type: sliding, size: 1m, where: "event.ce.type == 'partita.run.completed' && event.workflow == 'tock_run'", aggregate: {n: count}, having: "n > 0"}
start: {workflow: tick_run}
---
kind: rule
name: tock
topic: partita.events
time: {out_of_order: 1s, allowed_lateness: 5m, idle_after: 1s}
match:
  window: {type: sliding, size: 1m, where: "event.ce.type == 'partita.run.completed' && event.workflow == 'tick_run'", aggregate: {n: count}, having: "n > 0"}
start: {workflow: tock_run}
---
kind: rule
name: again
topic: partita.events
time: {out_of_order: 1s, allowed_lateness: 5m, idle_after: 1s}
match: {any: [{id: done, type: partita.run.completed, where: "event.workflow == 'again_run'"}]}
start: {workflow: again_run}
"#;

/// Waits for what `look` finds.
pub fn found<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + WITHIN;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "{what}: not in time");
        std::thread::sleep(Duration::from_millis(100));
    }
}

pub fn runs(dev: &Dev, filter: &[&str]) -> Vec<Value> {
    let mut arguments = vec!["list", "--limit", "1000", "--json"];
    arguments.extend(filter);
    let page = dev.run(&arguments).code(0).json();
    page["runs"].as_array().expect("runs").clone()
}

fn metric(dev: &Dev, line: &str) -> u64 {
    let metrics = get(&dev.api, "/metrics");
    let value = metrics.lines().find_map(|text| text.strip_prefix(line));
    value.map_or(0, |value| value.trim().parse().expect("a whole number"))
}

/// The events of a type that the stream tells, from the beginning of the topic on, up to the first
/// that `ends`.
fn told(dev: &Dev, kind: &str, ends: impl Fn(&Value) -> bool) -> Vec<Value> {
    let cluster: Value = serde_json::from_str(&get(&dev.api, "/v1/cluster")).expect("JSON");
    let partitions = cluster["partitions"].as_u64().expect("a number");
    let from: Vec<String> = (0..partitions)
        .map(|number| format!("{number}-0"))
        .collect();
    let address = dev.api.trim_start_matches("http://");
    let mut stream = TcpStream::connect(address).expect("a connection");
    stream.set_read_timeout(Some(WITHIN)).expect("a socket");
    write!(
        stream,
        "GET /v1/events?type={kind} HTTP/1.1\r\nhost: {address}\r\nlast-event-id: {}\r\n\r\n",
        from.join(".")
    )
    .expect("a request");
    let mut told = Vec::new();
    for line in BufReader::new(stream).lines() {
        let line = line.expect("the event comes");
        let Some(data) = line.strip_prefix("data: ") else {
            continue;
        };
        let event: Value = serde_json::from_str(data).expect("JSON");
        assert_eq!(event["type"], kind);
        let is_last = ends(&event);
        told.push(event);
        if is_last {
            break;
        }
    }
    told
}

#[test]
fn runs_know_their_records_and_rules_over_their_own_events_come_to_an_end() {
    let files = folder(&[("all.yaml", DEFINITIONS)]);
    let dev = Dev::start_with(&["--memory"], &[("PARTITA_RULES__MAX_DEPTH", "3")]);
    dev.run(&["apply", files.path().to_str().unwrap()]).code(0);

    // Runs fail until three of them that the rule has seen start an incident.
    let incident = found("an incident", || {
        dev.run(&["run", "failing"]).code(0);
        let started = runs(&dev, &["--workflow", "incident"]);
        started.into_iter().next_back()
    });
    let id = incident["id"].as_str().expect("an id");
    assert_eq!(incident["input"], json!({"class": "critical_error"}));
    let from = &incident["provenance"];
    assert_eq!(from["rule"], "storm@1", "{from}");
    assert_eq!(from["key"], json!({"workflow": "failing"}), "{from}");
    assert_eq!((&from["depth"], &from["more"]), (&json!(1), &json!(0)));
    let records = from["events"].as_array().expect("records");
    assert_eq!(records.len(), 3, "{from}");
    for record in records {
        assert_eq!(
            (&record["step"], &record["topic"]),
            (&json!("failed"), &json!("partita.events"))
        );
        let place = format!(
            "partita.events/{}/{}",
            record["partition"], record["offset"]
        );
        let back = runs(&dev, &["--record", &place]);
        assert!(back.iter().any(|run| run["id"] == id), "{place}: {back:?}");
    }
    assert!(runs(&dev, &["--record", "partita.events/0/1000000"]).is_empty());
    let shown = dev.run(&["status", id]).code(0).stdout;
    assert!(shown.contains("by storm@1 at "), "{shown}");

    // Its history tells where it comes from, and whoever reads it sees which rule it stems from.
    let history = dev.run(&["history", id, "--json"]).code(0).json();
    for event in history["events"].as_array().expect("events") {
        assert_eq!(
            (&event["partitarule"], &event["partitadepth"]),
            (&json!("storm@1"), &json!(1)),
            "{event}"
        );
    }
    let begun = &history["events"][0]["data"]["provenance"];
    assert_eq!(begun["events"], from["events"], "{begun}");

    // Every match is told, those of a rule in shadow too.
    let matched = told(&dev, "partita.rule.matched", |event| {
        event["data"]["run"] == id
    });
    let last = matched.last().expect("the match of the incident");
    assert_eq!(last["subject"], "storm@1");
    let data = &last["data"];
    assert_eq!(
        (&data["rule"], &data["version"], &data["mode"]),
        (&json!("storm"), &json!(1), &json!("live"))
    );
    assert_eq!(
        (&data["commands"], &data["events"]),
        (&json!(["start"]), &from["events"])
    );
    let shadow = found("a match in shadow", || {
        let all = told(&dev, "partita.rule.matched", |event| {
            event["subject"] == "unseen@1"
        });
        all.into_iter().next_back()
    });
    assert_eq!(
        (
            &shadow["data"]["mode"],
            &shadow["data"]["run"],
            &shadow["data"]["commands"]
        ),
        (&json!("shadow"), &Value::Null, &json!([]))
    );

    // A rule never sees what it caused itself.
    dev.run(&["run", "again_run"]).code(0);
    found("the rule's own event", || {
        (metric(&dev, "partita_intake_own_total{rule=\"again\"}") > 0).then_some(())
    });
    assert_eq!(runs(&dev, &["--workflow", "again_run"]).len(), 2);

    // Two that pause and resume a run by turns come to an end as well.
    dev.run(&["run", "steered", "--id", "steered"]).code(0);
    dev.run(&["pause", "steered"]).code(0);
    found("a loop of commands", || {
        let loops = |rule: &str| {
            let line = format!("partita_pattern_loops_total{{rule=\"{rule}@1\"}}");
            metric(&dev, &line)
        };
        (loops("halt") + loops("go_on") > 0).then_some(())
    });
    let history = dev.run(&["history", "steered", "--json"]).code(0).json();
    let events = history["events"].as_array().expect("events").iter();
    let steered: Vec<_> = events
        .filter(|event| {
            event["data"]["status"] == "paused" || event["type"] == "partita.run.resumed"
        })
        .map(|event| (event["partitarule"].clone(), event["partitadepth"].clone()))
        .collect();
    let depths = [json!(null), json!(1), json!(2), json!(3)];
    assert_eq!(steered, depths.map(|depth| (Value::Null, depth)));

    // Two that start each other's runs come to an end: depths 1, 2 and 3, and a dead letter.
    dev.run(&["run", "ping_run"]).code(0);
    found("a loop", || {
        (metric(&dev, "partita_pattern_loops_total{rule=\"ping@1\"}") > 0).then_some(())
    });
    assert_eq!(
        metric(&dev, "partita_dead_letters_total{class=\"loop\"}"),
        2
    );
    let depths = |workflow: &str| -> Vec<Value> {
        let depth = |run: &Value| run["provenance"]["depth"].clone();
        let mut depths: Vec<Value> = runs(&dev, &["--workflow", workflow])
            .iter()
            .map(depth)
            .collect();
        depths.sort_by_key(Value::as_u64);
        depths
    };
    assert_eq!(depths("ping_run"), [json!(null), json!(2)]);
    assert_eq!(depths("pong_run"), [json!(1), json!(3)]);

    // As do two whose matches are windows, which hold no events.
    dev.run(&["run", "tick_run"]).code(0);
    found("a loop of windows", || {
        (metric(&dev, "partita_pattern_loops_total{rule=\"tick@1\"}") > 0).then_some(())
    });
    assert_eq!(depths("tick_run"), [json!(null), json!(2)]);
    assert_eq!(depths("tock_run"), [json!(1), json!(3)]);
}
