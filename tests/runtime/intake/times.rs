//! Event time from a header of the record.

use partita::codec::signal;
use partita::model::signal::Signal;
use rdkafka::producer::Producer;

use super::support::{
    BASE, LIMIT, Rules, Sent, broker_with, intake, producer, read_all, send, until_anchored,
};

const RULE: &str = "{kind: rule, name: r, time: {header: sent}, match: {any: [{id: x, topic: a, where: 'event.n > 0'}]}}";

/// An event whose header cannot be read is a dead letter where the rule wants it, and says nothing about
/// how far time has come.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn event_time_is_read_from_the_header_that_the_rule_names() {
    let (_broker, brokers) = broker_with(&[("a", 1)]).await;
    let intake = intake(&brokers, Rules::of(RULE), None, None);
    until_anchored(&brokers, &[("a", 1)]).await;
    let producer = producer(&brokers);
    let events: [(i64, &[(&'static str, &'static str)]); 7] = [
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
        (6, &[("sent", "16")]),
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
    assert_eq!(times, [(0, 12), (2, 1_000), (5, 15), (6, 16)]);
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
    let letter = |offset: &str| {
        (
            "no_event_time".to_owned(),
            "r@1".to_owned(),
            offset.to_owned(),
        )
    };
    assert_eq!(dead, [letter("1"), letter("3")]);
    drop(intake);
}
