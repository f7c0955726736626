//! Rules come and go while the intake runs.

use std::ops::Range;
use std::time::Duration;

use partita::clock::{Clock, SystemClock};
use partita::codec::signal;
use partita::model::signal::Signal;
use partita::model::{Millis, Timestamp};
use rdkafka::admin::AdminOptions;
use rdkafka::producer::Producer;

use super::support::{
    BASE, LIMIT, Rules, admin, all_of, broker_with, click, create, intake, producer, read_all,
    send, signals, stop, until_anchored, until_signals,
};

/// Rules come and go while the intake runs; a rule that comes back goes on where it was.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_intake_follows_its_rules() {
    let (_broker, brokers) = broker_with(&[("a", 2), ("b", 1)]).await;
    let rules = Rules::of("");
    let intake = intake(&brokers, rules.clone(), None, None);
    let producer = producer(&brokers);
    let send = |topic: &str, partitions: usize, n: usize| {
        send(&producer, topic, partitions, n, &click(n));
        producer.flush(LIMIT).expect("a delivery");
    };
    send("a", 2, 0);
    rules.set(&all_of("a"));
    until_anchored(&brokers, &[("a", 2)]).await;
    send("a", 2, 1);
    send("b", 1, 2);
    until_signals(&brokers, 1).await;

    rules.set(&format!("{}\n---\n{}", all_of("a"), all_of("b")));
    until_anchored(&brokers, &[("b", 1)]).await;
    send("a", 2, 3);
    send("b", 1, 4);
    until_signals(&brokers, 3).await;

    rules.set(&all_of("b"));
    send("b", 1, 5);
    until_signals(&brokers, 4).await;
    // Both rebalances of the smaller subscription lie between this record and the next look.
    tokio::time::sleep(Duration::from_secs(1)).await;
    send("a", 2, 6);
    rules.set(&format!("{}\n---\n{}", all_of("a"), all_of("b")));
    send("a", 2, 7);
    until_signals(&brokers, 6).await;
    let (found, twice) = signals(&brokers);
    let expected = [
        "of_a a 1", "of_a a 3", "of_a a 6", "of_a a 7", "of_b b 4", "of_b b 5",
    ];
    assert_eq!(found, expected.map(str::to_owned).into());
    assert!(twice.is_empty(), "{twice:?}");
    stop(intake).await;
}

/// Whoever has applied a rule and then produces an event finds the rule to have it, though the intake was
/// waiting for events by the rules before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rule_has_the_first_event_after_it_was_applied() {
    let (_broker, brokers) = broker_with(&[("a", 1)]).await;
    let rules = Rules::of(&all_of("a"));
    let intake = intake(&brokers, rules.clone(), None, None);
    until_anchored(&brokers, &[("a", 1)]).await;
    let producer = producer(&brokers);
    for n in 1..=10 {
        let younger = format!("kind: rule\nname: r{n}\nmatch: {{any: [{{id: x, topic: a}}]}}");
        rules.set(&format!("{}\n---\n{younger}", all_of("a")));
        send(&producer, "a", 1, n, &click(n));
        until_signals(&brokers, 2 * n).await;
    }
    let (found, twice) = signals(&brokers);
    let both = |n: usize| [format!("of_a a {n}"), format!("r{n} a {n}")];
    assert_eq!(found, (1..=10).flat_map(both).collect());
    assert!(twice.is_empty(), "{twice:?}");
    stop(intake).await;
}

/// Both versions have the event, the one that drains to go on with what it has begun, until its time is over.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_version_that_drains_gets_further_events_for_a_while() {
    let (_broker, brokers) = broker_with(&[("a", 1)]).await;
    let rules = Rules::of(&all_of("a"));
    let intake = intake(&brokers, rules.clone(), None, None);
    until_anchored(&brokers, &[("a", 1)]).await;
    let producer = producer(&brokers);
    let taken = || -> Vec<(u32, i64, bool)> {
        let signals = read_all(&brokers, "p.signals").into_iter();
        let signals = signals.map(|(_, _, value, _)| signal::decode(&value).expect("a signal"));
        let mut taken: Vec<_> = signals
            .filter_map(|signal| match signal {
                Signal::Event {
                    version,
                    offset,
                    begins,
                    ..
                } => Some((version, offset, begins)),
                _ => None,
            })
            .collect();
        taken.sort_unstable_by_key(|(version, offset, _)| (*offset, *version));
        taken
    };
    let expected = [(1, 0, true), (1, 1, false), (2, 1, true), (2, 2, true)];
    let until = SystemClock.now() + Millis(5_000);
    for (n, count) in [(0, 1), (1, 3), (2, 4)] {
        match n {
            1 => rules.replace(&format!("version: 2\n{}", all_of("a")), until),
            // The last is produced when the time of the first version is over.
            2 => tokio::time::sleep(until.since(SystemClock.now()).into()).await,
            _ => {}
        }
        send(&producer, "a", 1, n, &click(n));
        let deadline = SystemClock.now() + Millis(LIMIT.as_millis() as u64);
        while taken().len() < count && SystemClock.now() < deadline {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    assert_eq!(taken(), expected);
    stop(intake).await;
}

/// A topic of the same name is another topic: its offsets begin anew, though the consumer's do not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_that_is_deleted_and_made_anew_is_read_from_its_beginning() {
    let (_broker, brokers) = broker_with(&[("anew", 1)]).await;
    let rules = Rules::applied_at(&all_of("anew"), Some(Timestamp(BASE)));
    let intake = intake(&brokers, rules, None, None);
    let producer = producer(&brokers);
    let send = |numbers: Range<usize>| {
        for n in numbers {
            send(&producer, "anew", 1, n, &click(n));
        }
        producer.flush(LIMIT).expect("deliveries");
    };
    send(0..20);
    until_signals(&brokers, 20).await;
    let deleted = admin(&brokers)
        .delete_topics(&["anew"], &AdminOptions::new())
        .await;
    deleted.expect("an answer").remove(0).expect("deleted");
    create(&brokers, "anew", 1).await;
    send(20..25);
    until_signals(&brokers, 25).await;
    assert_eq!(signals(&brokers).1, [""; 0]);
    stop(intake).await;
}
