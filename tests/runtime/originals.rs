//! Records of users' topics are read again by where they lie: what rules refuse after it was read is a dead
//! letter byte for byte. On the embedded broker and on Apache Kafka.

use std::collections::BTreeSet;

use kafka_harness::Kafka;
use partita::log::kafka::ClientSettings;
use partita::log::kafka::places::{Place, PlaceReader};
use partita::log::kafka::sources::{SourcePartition, SourceRecord};
use partita::runtime;
use partita_broker::{Broker, Config};
use rdkafka::admin::AdminOptions;
use rdkafka::producer::Producer;
use rdkafka::{Offset, TopicPartitionList};

use crate::intake::support::{
    BASE, LIMIT, Rules, Sent, admin, create, create_declared, intake, key_of, producer, read_all,
    send, stop, until_anchored,
};
use crate::world;

/// More than are read and passed over on the way to the next.
const RECORDS: usize = 6_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_are_read_again_on_the_embedded_broker() {
    let broker = Broker::start(Config::memory()).await.expect("a broker");
    by_their_places(&broker.bootstrap()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_are_read_again_on_apache_kafka() {
    let Some(kafka) = Kafka::start_or_skip("reading records again on Apache Kafka") else {
        return;
    };
    by_their_places(&kafka.bootstrap()).await;
    late_events(&kafka.bootstrap()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_event_is_a_dead_letter_byte_for_byte() {
    let broker = Broker::start(Config::memory()).await.expect("a broker");
    late_events(&broker.bootstrap()).await;
}

fn place(topic: &str, partition: i32, offset: i64) -> Place {
    let topic = topic.into();
    (SourcePartition { topic, partition }, offset)
}

fn sent(n: usize) -> Sent {
    Sent {
        value: format!(" {{\"n\": {n}}}\n").into(),
        headers: vec![("mine", "of it")],
        ..Sent::default()
    }
}

async fn by_their_places(brokers: &str) {
    create(brokers, "a", 2).await;
    let producer = producer(brokers);
    for n in 0..RECORDS {
        send(&producer, "a", 2, n, &sent(n));
    }
    producer.flush(LIMIT).expect("deliveries");
    let mut gone = TopicPartitionList::new();
    gone.add_partition_offset("a", 0, Offset::Offset(2))
        .expect("an offset");
    let deleted = admin(brokers).delete_records(&gone, &AdminOptions::new());
    deleted.await.expect("an answer");

    let mut reader = PlaceReader::new(ClientSettings::plain(brokers));
    let last = RECORDS as i64 / 2 - 1;
    let there = [(0, 2), (0, 3), (0, last), (1, 0), (1, 700), (1, last - 1)];
    let not_there = [
        ("a", 0, 0),
        ("a", 0, 1),
        ("a", 1, last + 1),
        ("nowhere", 0, 5),
    ];
    let places: BTreeSet<Place> = there
        .map(|(partition, offset)| place("a", partition, offset))
        .into_iter()
        .chain(not_there.map(|(topic, partition, offset)| place(topic, partition, offset)))
        .collect();
    // What was asked for once is read again as it was.
    for _ in 0..2 {
        let mut found: Vec<SourceRecord> = Vec::new();
        let read = reader.read(&places, &mut |record| found.push(record));
        read.expect("the cluster answers");
        let read: Vec<(i32, i64)> = found
            .iter()
            .map(|record| (record.from.partition, record.offset))
            .collect();
        assert_eq!(read, there);
        for record in found {
            let n = record.offset as usize * 2 + record.from.partition as usize;
            assert_eq!(record.key, Some(key_of(n)));
            assert_eq!(record.value, Some(sent(n).value));
            assert_eq!(record.headers, [("mine".to_owned(), b"of it".to_vec())]);
            let at = record.timestamp.expect("it has one");
            assert_eq!(at.0, BASE + 10 * n as i64);
        }
    }
}

async fn late_events(brokers: &str) {
    create_declared(brokers).await;
    create(brokers, "late", 1).await;
    let rules = "kind: rule\nname: r\ncorrelate: {by: [n]}\nmatch: {any: [{id: x, topic: late}]}\n\
                 time: {field: at, out_of_order: 1s}\n";
    let config = world::config(brokers, "p.", "one", None);
    let rules = Rules::of(rules);
    let handle = runtime::start(config, rules.clone()).expect("an instance");
    let intake = intake(brokers, rules, None, None);
    until_anchored(brokers, &[("late", 1)]).await;
    let producer = producer(brokers);
    let event = |at: i64| Sent {
        value: format!("{{ \"n\":1.0,\t\"at\":{} }}", BASE + at).into(),
        headers: vec![("mine", "of it"), ("partita-error-class", "of before")],
        ..Sent::default()
    };
    let mut n = 0;
    // How far time has come is told when a batch was read: what comes some batches later is late.
    world::until(|| {
        for at in [60_000, 10] {
            send(&producer, "late", 1, n, &event(at));
            n += 1;
        }
        producer.flush(LIMIT).expect("deliveries");
        !read_all(brokers, "p.dead-letter").is_empty()
    })
    .await;
    for (_, key, value, headers) in read_all(brokers, "p.dead-letter") {
        assert_eq!(headers["partita-error-class"], "late");
        let n = headers["partita-error-offset"].parse().expect("a number");
        assert_eq!(key, key_of(n));
        assert_eq!(value, event(10).value);
        assert_eq!(headers["mine"], "of it");
        assert!(
            !headers.contains_key("partita-error-decoded-value"),
            "{headers:?}"
        );
    }
    stop(intake).await;
    assert!(handle.shutdown(LIMIT).await);
}
