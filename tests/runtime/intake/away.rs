//! What happens while nobody runs, or while a schema registry does not.

use std::sync::OnceLock;

use metrics_exporter_prometheus::PrometheusHandle;
use partita::model::Timestamp;
use rdkafka::admin::AdminOptions;
use rdkafka::producer::Producer;
use rdkafka::{Offset, TopicPartitionList};

use super::exactly_once::order;
use super::support::{
    BASE, LIMIT, Registry, Rules, admin, all_of, broker_with, click, intake, producer, send,
    signals, stop, until_anchored, until_signals,
};
use crate::world;

/// Of this whole process.
fn metrics() -> String {
    static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();
    let handle = HANDLE.get_or_init(|| partita::telemetry::install_metrics().expect("metrics"));
    handle.render()
}

async fn delete_before(brokers: &str, topic: &str, offset: i64) {
    let mut before = TopicPartitionList::new();
    before
        .add_partition_offset(topic, 0, Offset::Offset(offset))
        .expect("an offset");
    let deleted = admin(brokers)
        .delete_records(&before, &AdminOptions::new())
        .await;
    deleted.expect("records are deleted");
}

/// The signals of `topic` are those of these numbers, each once.
fn assert_signals(brokers: &str, topic: &str, expected: impl Iterator<Item = usize>) {
    let (found, twice) = signals(brokers);
    let of_topic = |n: usize| format!("of_{topic} {topic} {n}");
    let name = format!("of_{topic} ");
    let found = found.into_iter().filter(|signal| signal.starts_with(&name));
    let mut expected: Vec<String> = expected.map(of_topic).collect();
    expected.sort();
    assert_eq!(found.collect::<Vec<_>>(), expected);
    assert!(twice.is_empty(), "{twice:?}");
}

/// Events that retention takes while nobody runs are gone, and that is told and counted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_that_are_deleted_before_they_are_read_are_counted() {
    metrics();
    let (_broker, brokers) = broker_with(&[("short", 1)]).await;
    let rules = Rules::of(&all_of("short"));
    let first = intake(&brokers, rules.clone(), None, None);
    until_anchored(&brokers, &[("short", 1)]).await;
    stop(first).await;
    let producer = producer(&brokers);
    for n in 0..10 {
        send(&producer, "short", 1, n, &click(n));
    }
    producer.flush(LIMIT).expect("deliveries");
    delete_before(&brokers, "short", 6).await;
    let second = intake(&brokers, rules, None, None);
    until_signals(&brokers, 4).await;
    assert_signals(&brokers, "short", 6..10);
    let counted = r#"partita_records_lost_total{topic="short"} 6"#;
    world::until(|| metrics().contains(counted)).await;
    stop(second).await;
}

/// A rule's events begin when it was applied, though no instance ran then and its topic came later.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_that_is_made_while_nobody_runs_is_read_from_when_its_rule_was_applied() {
    let (_broker, brokers) = broker_with(&[("made", 2)]).await;
    let producer = producer(&brokers);
    for n in 0..20 {
        send(&producer, "made", 2, n, &click(n));
    }
    producer.flush(LIMIT).expect("deliveries");
    let applied_at = Some(Timestamp(BASE + 10 * 12));
    let rules = Rules::applied_at(&all_of("made"), applied_at);
    let intake = intake(&brokers, rules, None, None);
    until_signals(&brokers, 8).await;
    assert_signals(&brokers, "made", 12..20);
    send(&producer, "made", 2, 20, &click(20));
    until_signals(&brokers, 9).await;
    assert_signals(&brokers, "made", 12..21);
    stop(intake).await;
}

/// A partition that waits can be overtaken by retention, too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_that_are_deleted_while_their_partition_waits_are_counted() {
    metrics();
    let (_broker, brokers) = broker_with(&[("waits", 1)]).await;
    let registry = Registry::start(usize::MAX).await;
    let rules = Rules::of(&all_of("waits"));
    let intake = intake(&brokers, rules, Some(&registry.url), None);
    until_anchored(&brokers, &[("waits", 1)]).await;
    let producer = producer(&brokers);
    let avro = 3;
    for n in 0..10 {
        let event = if n == avro { order(n) } else { click(n) };
        send(&producer, "waits", 1, n, &event);
    }
    producer.flush(LIMIT).expect("deliveries");
    until_signals(&brokers, avro).await;
    delete_before(&brokers, "waits", 8).await;
    registry.come_back();
    until_signals(&brokers, avro + 2).await;
    assert_signals(&brokers, "waits", (0..avro).chain(8..10));
    let counted = r#"partita_records_lost_total{topic="waits"} 5"#;
    world::until(|| metrics().contains(counted)).await;
    stop(intake).await;
}

/// A schema registry that is away stops the partitions that need it, and no others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_registry_that_is_away_stops_no_partition_that_does_not_need_it() {
    let (_broker, brokers) = broker_with(&[("avro", 2), ("plain", 1)]).await;
    let registry = Registry::start(usize::MAX).await;
    let rules = Rules::of(&format!("{}\n---\n{}", all_of("avro"), all_of("plain")));
    let intake = intake(&brokers, rules, Some(&registry.url), None);
    until_anchored(&brokers, &[("avro", 2), ("plain", 1)]).await;
    let producer = producer(&brokers);
    // Even numbers go to partition 0, odd ones to 1, where every other event is Avro.
    let avro = || (0..60).filter(|n| n % 6 == 3 && n % 50 < 46);
    for n in avro() {
        send(&producer, "avro", 2, n - 2, &click(n - 2));
        send(&producer, "avro", 2, n, &order(n));
        send(&producer, "avro", 2, n + 1, &click(n + 1));
    }
    for n in 0..30 {
        send(&producer, "plain", 1, n, &click(n));
    }
    producer.flush(LIMIT).expect("deliveries");
    // The first event of partition 1 comes before anybody asks for a schema.
    let free = 30 + avro().count() + 1;
    until_signals(&brokers, free).await;
    assert_signals(&brokers, "plain", 0..30);
    let before = avro().next().expect("there is one") - 2;
    let others = || avro().map(|n| n + 1);
    assert_signals(&brokers, "avro", others().chain([before]));
    registry.come_back();
    until_signals(&brokers, 30 + 3 * avro().count()).await;
    let all = avro().flat_map(|n| [n - 2, n, n + 1]);
    assert_signals(&brokers, "avro", all);
    stop(intake).await;
}
