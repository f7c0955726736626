//! Records that come in, well and badly written.

use super::*;
use crate::model::{Contributor, Timestamp};

fn provenance() -> Provenance {
    Provenance {
        rule: "storm@2".to_owned(),
        key: Json::from_text(r#"{"workflow": "w"}"#).unwrap(),
        at: Timestamp(1_795_219_200_123),
        depth: 2,
        events: vec![Contributor {
            step: "failed".to_owned(),
            topic: "partita.events".to_owned(),
            partition: 3,
            offset: 17,
        }],
        more: 0,
    }
}

fn orders() -> Vec<Order> {
    let reason = || Some("why".to_owned());
    let name = || SignalName::parse("go").unwrap();
    vec![
        Order::Pause { reason: reason() },
        Order::Resume { reason: None },
        Order::Cancel { reason: reason() },
        Order::Signal {
            name: name(),
            data: None,
            id: None,
        },
        Order::Signal {
            name: name(),
            data: Some(Json::from_text(r#"{"a": [1]}"#).unwrap()),
            id: Some(SignalId::parse("s-1").unwrap()),
        },
    ]
}

fn found(output: Option<&str>) -> Command {
    Command::Match(Matched {
        attempt: TaskId::parse("r-1.step.0.2").unwrap(),
        output: output.map(|output| Json::from_text(output).unwrap()),
    })
}

#[test]
fn a_match_names_an_attempt_and_nothing_else_has_one() {
    for (body, told) in [
        (
            r#"{"type":"match","task_id":"r-1"}"#,
            "without the `task_id`",
        ),
        (r#"{"type":"match","output":1}"#, "without the `task_id`"),
        (
            r#"{"type":"match","task_id":"r.s.0.1","name":"n"}"#,
            "no field `name`",
        ),
        (
            r#"{"type":"cancel","run_id":"r","task_id":"r.s.0.1"}"#,
            "no field `task_id`",
        ),
        (
            r#"{"type":"start","run_id":"r","workflow":"w","depth":1}"#,
            "no field `depth`",
        ),
    ] {
        let error = command(None, Some(body.as_bytes()), None).unwrap_err();
        assert!(error.message.contains(told), "{body}: {error}");
    }
}

#[test]
fn commands_read_what_serde_writes() {
    let run_id = RunId::parse("r-1").unwrap();
    let start = Start {
        run_id: run_id.clone(),
        workflow: "w".into(),
        version: Some(2),
        input: Some(Json::from_text(r#"{"a":[1,2.5]}"#).unwrap()),
        tags: BTreeMap::from([("k".to_owned(), "v".to_owned())]),
        priority: 3,
        provenance: Some(provenance()),
    };
    let of_run = |order: Order| order.to(run_id.clone(), 3);
    for expected in orders().into_iter().map(of_run).chain([
        Command::Start(start),
        found(Some("{}")),
        found(None),
    ]) {
        let bytes = serde_json::to_vec(&expected).unwrap();
        assert_eq!(
            command(None, Some(&bytes), None),
            Ok(Commanded::One(expected))
        );
    }
}

#[test]
fn a_provenance_names_so_many_records_and_counts_the_rest() {
    let event = r#"{"step":"s","topic":"t","partition":0,"offset":1}"#;
    let body = format!(
        r#"{{"type":"start","run_id":"r","workflow":"w","provenance":{{"rule":"r@1","key":{{}},"at":"2026-01-01T00:00:00Z","events":[{}]}}}}"#,
        [event; 130].join(",")
    );
    let Ok(Commanded::One(Command::Start(start))) = command(None, Some(body.as_bytes()), None)
    else {
        panic!("not a start");
    };
    let provenance = start.provenance.unwrap();
    assert_eq!((provenance.events.len(), provenance.more), (100, 30));
    assert_eq!(provenance.depth, 1);
}

#[test]
fn orders_by_tag_read_what_serde_writes() {
    for order in orders() {
        let tags = BTreeMap::from([("k".to_owned(), "v".to_owned())]);
        let after = matches!(order, Order::Signal { .. }).then(|| RunId::parse("q").unwrap());
        let workflow = after.is_some().then(|| "w".to_owned());
        let expected = Selected {
            tags,
            workflow,
            order,
            after,
            depth: 2,
        };
        let bytes = serde_json::to_vec(&expected).unwrap();
        // The key says nothing then.
        assert_eq!(
            command(Some(b"r-1"), Some(&bytes), None),
            Ok(Commanded::Selected(expected))
        );
    }
}

#[test]
fn replies_read_what_serde_writes() {
    for status in [
        ReplyStatus::Completed {
            output: Json::from_text("[1]").unwrap(),
        },
        ReplyStatus::Failed {
            error: Failure::new("x", "y"),
        },
        ReplyStatus::Progress {
            progress: Some(0.5),
            note: None,
        },
        ReplyStatus::Heartbeat,
    ] {
        let expected = Reply {
            run_id: RunId::parse("r").unwrap(),
            step_id: "s".into(),
            task_id: Some("t".into()),
            attempt: Some(1),
            epoch: None,
            status,
        };
        let bytes = serde_json::to_vec(&expected).unwrap();
        assert_eq!(reply(None, Some(&bytes), None), Ok(expected));
    }
}

#[test]
fn a_missing_run_id_is_the_key() {
    let body = br#"{"step_id":"s","status":"completed"}"#;
    assert_eq!(
        reply(Some(b"k"), Some(body), None).unwrap().run_id.as_str(),
        "k"
    );
    assert!(
        reply(None, Some(body), None)
            .unwrap_err()
            .message
            .contains("neither")
    );
    assert!(
        reply(Some(b"a b"), Some(body), None)
            .unwrap_err()
            .message
            .contains("not a run id")
    );
}

#[test]
fn what_cannot_be_read_says_why() {
    for (body, why) in [
        ("nonsense", "not a command in JSON"),
        (r#"{"type":"dance","run_id":"r"}"#, "no type of a command"),
        (r#"{"type":"start","run_id":"r"}"#, "without `workflow`"),
        (
            r#"{"type":"start","run_id":"r","workflow":"w","provenance":{"rule":"r@1","key":[],"at":"2026-01-01T00:00:00Z","events":[]}}"#,
            "is an object of the names",
        ),
        (
            r#"{"type":"pause","run_id":"r","provenance":{"rule":"r@1","key":{},"at":"2026-01-01T00:00:00Z","events":[]}}"#,
            "has no field `provenance`",
        ),
        (
            r#"{"type":"pause","run_id":"r","input":1}"#,
            "has no field `input`",
        ),
        (
            r#"{"type":"pause","run_id":"r","colour":1}"#,
            "unknown field `colour`",
        ),
        (r#"{"type":"signal","run_id":"r"}"#, "without `name`"),
        (
            r#"{"type":"signal","run_id":"r","name":"a b"}"#,
            "`a b` is no name of a signal",
        ),
        (
            r#"{"type":"signal","run_id":"r","name":"a","id":""}"#,
            "no id of a signal",
        ),
        (
            r#"{"type":"pause","run_id":"r","id":"x"}"#,
            "has no field `id`",
        ),
        (r#"{"type":"cancel","tags":{}}"#, "`tags` names no tag"),
        (
            r#"{"type":"cancel","tags":{"a":"b"},"run_id":"r"}"#,
            "both a `run_id` and `tags`",
        ),
        (
            r#"{"type":"cancel","run_id":"r","after":"q"}"#,
            "`after` goes with `tags`",
        ),
        (
            r#"{"type":"cancel","run_id":"r","workflow":"w"}"#,
            "`workflow` goes with `tags`",
        ),
        (
            r#"{"type":"cancel","tags":{"a":1}}"#,
            "not a command in JSON",
        ),
    ] {
        let message = command(None, Some(body.as_bytes()), None)
            .unwrap_err()
            .message;
        assert!(message.contains(why), "{message}");
    }
    assert!(command(None, None, None).is_err());
}
