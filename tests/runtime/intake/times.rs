//! Event time from a header of the record, and fields that topics call differently.

use partita::clock::{Clock, SystemClock};
use partita::codec::signal;
use partita::model::signal::Signal;
use rdkafka::producer::{BaseRecord, Producer};

use super::support::{
    BASE, LIMIT, Rules, Sent, broker_with, intake, producer, read_all, send, until_anchored,
};

const RULE: &str = "{kind: rule, name: r, time: {header: sent}, match: {any: [{id: x, topic: a, where: 'event.n > 0'}]}}";

/// An event whose header cannot be read, or says a time far ahead of the record, is a dead letter where the
/// rule wants it, and says nothing about how far time has come.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn event_time_is_read_from_the_header_that_the_rule_names() {
    let (_broker, brokers) = broker_with(&[("a", 1)]).await;
    let intake = intake(&brokers, Rules::of(RULE), None, None);
    until_anchored(&brokers, &[("a", 1)]).await;
    let producer = producer(&brokers);
    let events: [(i64, &[(&'static str, &'static str)]); 8] = [
        (1, &[("sent", "12")]),
        (2, &[("other", "13")]),
        (3, &[("sent", "14"), ("sent", "1970-01-01T00:00:01Z")]),
        (4, &[("sent", "noon")]),
        (0, &[("sent", "noon")]),
        (
            5,
            &[
                ("ce_type", "t"),
                ("ce_time", "2030-01-01T00:00:00Z"),
                ("sent", "15"),
            ],
        ),
        (6, &[("sent", "9999-12-31T00:00:00Z")]),
        (7, &[("sent", "16")]),
    ];
    for (place, (n, headers)) in events.iter().enumerate() {
        let sent = Sent {
            value: format!(r#"{{"n":{n},"sent":{BASE}}}"#).into(),
            headers: headers.to_vec(),
            ..Sent::default()
        };
        send(&producer, "a", 1, place, &sent);
    }
    producer.flush(LIMIT).expect("deliveries");
    let signals = || {
        let records = read_all(&brokers, "p.signals").into_iter();
        let signals = records.map(|(_, _, value, _)| signal::decode(&value).expect("a signal"));
        signals.collect::<Vec<_>>()
    };
    let deadline = std::time::Instant::now() + LIMIT;
    let times = loop {
        let mut times: Vec<(i64, i64)> = signals()
            .into_iter()
            .filter_map(|signal| match signal {
                Signal::Event { offset, at, .. } => Some((offset, at.0)),
                _ => None,
            })
            .collect();
        if times.len() >= 4 || std::time::Instant::now() > deadline {
            times.sort_unstable();
            break times;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    };
    assert_eq!(times, [(0, 12), (2, 1_000), (5, 15), (7, 16)]);
    let clocks = signals().into_iter().filter_map(|signal| match signal {
        Signal::Watermark { clock, at, .. } => Some((clock, at.0)),
        _ => None,
    });
    for (clock, at) in clocks {
        assert_eq!(clock, ".sent");
        assert!([12, 1_000].contains(&at), "{at}");
    }
    let mut dead: Vec<_> = read_all(&brokers, "p.dead-letter")
        .into_iter()
        .map(|(_, _, _, headers)| {
            let header = |name: &str| headers[name].clone();
            (
                header("partita-error-class"),
                header("partita-error-rule"),
                header("partita-error-offset"),
            )
        })
        .collect();
    dead.sort();
    let letter =
        |class: &str, offset: &str| (class.to_owned(), "r@1".to_owned(), offset.to_owned());
    assert_eq!(
        dead,
        [
            letter("event_time_ahead", "6"),
            letter("no_event_time", "1"),
            letter("no_event_time", "3"),
        ]
    );
    drop(intake);
}

/// Where event time is the record's own, the clock of the intake says what is too far ahead.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_that_is_far_ahead_of_the_clock_makes_no_other_late() {
    let rule = "{kind: rule, name: r, match: {any: [{id: x, topic: a}]}}";
    let (_broker, brokers) = broker_with(&[("a", 1)]).await;
    let intake = intake(&brokers, Rules::of(rule), None, None);
    until_anchored(&brokers, &[("a", 1)]).await;
    let producer = producer(&brokers);
    let now = SystemClock.now().0;
    let day = 86_400_000;
    // In thousands of years, in two days, and tomorrow.
    for at in [250_000_000_000_000, now + 2 * day, now + day - 60_000, now] {
        let record = BaseRecord::<str, str>::to("a").payload("{}").timestamp(at);
        assert!(producer.send(record).is_ok(), "the queue has room");
    }
    producer.flush(LIMIT).expect("deliveries");
    let deadline = std::time::Instant::now() + LIMIT;
    let signals = loop {
        let records = read_all(&brokers, "p.signals").into_iter();
        let signals = records.map(|(_, _, value, _)| signal::decode(&value).expect("a signal"));
        let signals: Vec<Signal> = signals.collect();
        let is_event = |signal: &&Signal| matches!(signal, Signal::Event { .. });
        if signals.iter().filter(is_event).count() >= 2 || std::time::Instant::now() > deadline {
            break signals;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    };
    let mut taken = Vec::new();
    for signal in signals {
        match signal {
            Signal::Event { at, .. } => taken.push(at.0),
            Signal::Watermark { at, .. } => assert_eq!(at.0, now + day - 60_000),
            Signal::Watch(_) | Signal::Unwatch(_) => {}
        }
    }
    assert_eq!(taken, [now + day - 60_000, now]);
    let dead = read_all(&brokers, "p.dead-letter");
    let classes: Vec<_> = dead
        .iter()
        .map(|(_, _, _, headers)| headers["partita-error-class"].as_str())
        .collect();
    assert_eq!(classes, ["event_time_ahead"; 2]);
    drop(intake);
}

/// A source whose events all have the same time, as a business date, says so again while they come: it is not
/// idle.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_whose_time_stands_still_is_heard_while_it_sends() {
    let rule = "{kind: rule, name: r, time: {field: day}, match: {any: [{id: x, topic: a, where: 'event.n > 0'}]}}";
    let (_broker, brokers) = broker_with(&[("a", 1)]).await;
    let intake = intake(&brokers, Rules::of(rule), None, None);
    until_anchored(&brokers, &[("a", 1)]).await;
    let producer = producer(&brokers);
    let told = || {
        let records = read_all(&brokers, "p.signals").into_iter();
        let of_first = records.filter(|(partition, ..)| *partition == 0);
        let signals = of_first.map(|(_, _, value, _)| signal::decode(&value).expect("a signal"));
        let times = signals.filter_map(|signal| match signal {
            Signal::Watermark { at, .. } => Some(at.0),
            _ => None,
        });
        times.collect::<Vec<_>>()
    };
    let deadline = std::time::Instant::now() + LIMIT;
    for place in 0.. {
        let sent = Sent {
            value: r#"{"n":0,"day":"1970-01-01T00:00:01Z"}"#.into(),
            ..Sent::default()
        };
        send(&producer, "a", 1, place, &sent);
        producer.flush(LIMIT).expect("deliveries");
        if told().len() >= 3 || std::time::Instant::now() > deadline {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert_eq!(told()[..3], [1_000; 3]);
    drop(intake);
}

const MAPPED: &str = "{kind: rule, name: r, \
    correlate: {by: [shop, {name: user, field: {a: user, b: account.id}}]}, \
    time: {field: {a: ts, b: made.at}}, \
    match: {all: {within: 1m, conditions: [{id: x, topic: a}, {id: y, topic: b}]}}}";

/// The same key from both topics, each with a clock of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fields_are_found_under_the_names_that_each_topic_has_for_them() {
    let (_broker, brokers) = broker_with(&[("a", 1), ("b", 1)]).await;
    let intake = intake(&brokers, Rules::of(MAPPED), None, None);
    until_anchored(&brokers, &[("a", 1), ("b", 1)]).await;
    let producer = producer(&brokers);
    for (place, (topic, value)) in [
        ("a", r#"{"shop":1,"user":"u","ts":12,"made":{"at":1}}"#),
        (
            "b",
            r#"{"shop":1,"user":"v","ts":1,"made":{"at":13},"account":{"id":"u"}}"#,
        ),
        ("b", r#"{"shop":1,"user":"v","ts":1,"made":{"at":14}}"#),
        ("a", r#"{"shop":1,"user":"v","made":{"at":15}}"#),
        ("a", r#"{"shop":2,"user":"v","ts":16}"#),
        ("b", r#"{"shop":2,"made":{"at":17},"account":{"id":"v"}}"#),
    ]
    .into_iter()
    .enumerate()
    {
        let sent = Sent {
            value: value.into(),
            ..Sent::default()
        };
        send(&producer, topic, 1, place, &sent);
    }
    producer.flush(LIMIT).expect("deliveries");
    let deadline = std::time::Instant::now() + LIMIT;
    let found = loop {
        let mut found = Vec::new();
        for (_, _, value, _) in read_all(&brokers, "p.signals") {
            match signal::decode(&value).expect("a signal") {
                Signal::Event { key, topic, at, .. } => {
                    let key = String::from_utf8(key).expect("JSON");
                    found.push(format!("{topic} {key} {}", at.0));
                }
                Signal::Watermark { topic, clock, .. } => {
                    assert_eq!(clock, if topic == "a" { "ts" } else { "made.at" });
                }
                Signal::Watch(_) | Signal::Unwatch(_) => {}
            }
        }
        if found.len() >= 4 || std::time::Instant::now() > deadline {
            found.sort();
            break found;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    };
    let expected = [
        r#"a [1,"u"] 12"#,
        r#"a [2,"v"] 16"#,
        r#"b [1,"u"] 13"#,
        r#"b [2,"v"] 17"#,
    ];
    assert_eq!(found, expected);
    let dead = read_all(&brokers, "p.dead-letter");
    let classes: Vec<_> = dead
        .iter()
        .map(|(_, _, _, headers)| headers["partita-error-class"].as_str())
        .collect();
    assert_eq!(classes, ["no_event_time"]);
    drop(intake);
}
