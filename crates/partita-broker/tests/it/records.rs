//! Produce and fetch: order, codecs, timestamps, limits, data that is not in memory, waiting readers.

use std::time::{Duration, Instant};

use partita_broker::Config;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::producer::{BaseRecord, FutureProducer, FutureRecord, Producer};
use rdkafka::{Message, Offset, TopicPartitionList};

use crate::support::*;

#[test]
fn records_come_back_in_order_with_every_codec() {
    let broker = TestBroker::memory();
    let address = broker.address();
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        let topic = format!("codec-{codec}");
        // Compacted, so that the broker looks inside each batch.
        create(&address, &topic, 1, &[("cleanup.policy", "compact")]);
        let producer: Client = client(&address)
            .set("compression.type", codec)
            .set("linger.ms", "5")
            .create()
            .unwrap();
        let expected: Vec<String> = (0..500)
            .map(|number| format!("{number:05}{}", "x".repeat(100)))
            .collect();
        expected
            .iter()
            .for_each(|value| send(&producer, &topic, 0, value, value));
        settle(&producer);
        assert_eq!(
            values(&read_all(&address, &topic, 0, "read_committed")),
            expected,
            "{codec}"
        );
    }
}

#[test]
fn topics_are_created_by_asking_for_them_when_that_is_allowed() {
    let broker = TestBroker::memory();
    let writer = producer(&broker.address());
    let record = BaseRecord::to("by-itself").key("k").payload("v");
    writer.send(record).map_err(|(error, _)| error).unwrap();
    settle(&writer);
    assert_eq!(
        read_all(&broker.address(), "by-itself", 0, "read_committed").len(),
        1
    );
    let mut config = Config::memory();
    config.auto_create_topics = false;
    let broker = TestBroker::start(config);
    let producer: FutureProducer = client(&broker.address())
        .set("message.timeout.ms", "1500")
        .create()
        .unwrap();
    let sent = block_on(producer.send(FutureRecord::to("nowhere").key("k").payload("v"), PATIENCE));
    assert!(sent.is_err());
}

#[test]
fn a_batch_over_the_limit_is_refused_and_the_next_is_not() {
    let broker = TestBroker::memory();
    create(
        &broker.address(),
        "small",
        1,
        &[("max.message.bytes", "1000")],
    );
    let producer: FutureProducer = client(&broker.address())
        .set("linger.ms", "0")
        .create()
        .unwrap();
    let send = |value: String| {
        let record = FutureRecord::to("small").key("k").payload(&value);
        block_on(producer.send(record, PATIENCE)).map_err(|(error, _)| error)
    };
    let refused = send("x".repeat(2000)).unwrap_err();
    assert_eq!(
        refused.rdkafka_error_code(),
        Some(RDKafkaErrorCode::MessageSizeTooLarge)
    );
    send("y".repeat(500)).unwrap();
}

#[test]
fn offsets_are_found_by_time() {
    let broker = TestBroker::memory();
    let address = broker.address();
    create(&address, "times", 1, &[]);
    let producer: Client = client(&address)
        .set("compression.type", "lz4")
        .set("linger.ms", "20")
        .create()
        .unwrap();
    for number in 0..100i64 {
        let record = BaseRecord::to("times")
            .partition(0)
            .key("k")
            .payload("v")
            .timestamp(1_000_000 + number * 10);
        producer.send(record).map_err(|(error, _)| error).unwrap();
    }
    settle(&producer);
    let consumer = consumer(&address, "by-time", "read_committed");
    for (timestamp, offset) in [
        (0, Offset::Offset(0)),
        (1_000_000 + 421, Offset::Offset(43)),
        (2_000_000, Offset::End),
    ] {
        let mut wanted = TopicPartitionList::new();
        wanted
            .add_partition_offset("times", 0, Offset::Offset(timestamp))
            .unwrap();
        let found = consumer.offsets_for_times(wanted, PATIENCE).unwrap();
        assert_eq!(found.elements()[0].offset(), offset, "at {timestamp}");
    }
}

#[test]
fn the_brokers_clock_stamps_where_the_topic_says_so() {
    let broker = TestBroker::memory();
    let address = broker.address();
    create(
        &address,
        "stamped",
        1,
        &[("message.timestamp.type", "LogAppendTime")],
    );
    let producer = producer(&address);
    let record = BaseRecord::to("stamped")
        .partition(0)
        .key("k")
        .payload("v")
        .timestamp(5);
    producer.send(record).map_err(|(error, _)| error).unwrap();
    settle(&producer);
    let consumer = consumer(&address, "stamped", "read_committed");
    let mut assignment = TopicPartitionList::new();
    assignment
        .add_partition_offset("stamped", 0, Offset::Beginning)
        .unwrap();
    consumer.assign(&assignment).unwrap();
    let begin = Instant::now();
    let timestamp = loop {
        assert!(begin.elapsed() < PATIENCE);
        if let Some(Ok(record)) = consumer.poll(Duration::from_millis(100)) {
            break record.timestamp();
        }
    };
    assert!(
        matches!(timestamp, rdkafka::Timestamp::LogAppendTime(at) if at > 1_600_000_000_000),
        "{timestamp:?}"
    );
}

#[test]
fn data_larger_than_memory_is_read_from_the_files() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = quick(Config::folder(folder.path()));
    (config.hot_bytes, config.segment_bytes, config.log_segments) = (64 << 10, 256 << 10, 2);
    let broker = TestBroker::start(config);
    let address = broker.address();
    create(&address, "big", 2, &[]);
    let producer = producer(&address);
    let value = |number: usize| format!("{number:06}{}", "z".repeat(1000));
    for number in 0..4000 {
        send(&producer, "big", (number % 2) as i32, "k", &value(number));
    }
    settle(&producer);
    // Old segments are moved together while this goes on; what is read stays the same.
    for _ in 0..3 {
        for partition in 0..2 {
            let read = read_all(&address, "big", partition, "read_committed");
            let expected: Vec<String> = (0..2000)
                .map(|number| value(number * 2 + partition as usize))
                .collect();
            assert_eq!(values(&read), expected);
            assert!(read.iter().map(|read| read.offset).eq(0..2000));
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    eventually("old segments are merged", || {
        let mut files = std::fs::read_dir(folder.path()).unwrap();
        files.any(|entry| {
            let path = entry.unwrap().path();
            path.extension()
                .is_some_and(|extension| extension == "kept")
        })
    });
}

#[test]
fn many_readers_wait_without_keeping_each_other_waiting() {
    let broker = TestBroker::memory();
    let address = broker.address();
    create(&address, "waited-for", 1, &[]);
    let readers: Vec<BaseConsumer> = (0..5)
        .map(|number| {
            let mut config = client(&address);
            config
                .set("group.id", format!("w{number}"))
                .set("fetch.wait.max.ms", "300000")
                .set("isolation.level", "read_committed");
            let reader: BaseConsumer = config.create().unwrap();
            let mut assignment = TopicPartitionList::new();
            assignment
                .add_partition_offset("waited-for", 0, Offset::Beginning)
                .unwrap();
            reader.assign(&assignment).unwrap();
            assert!(reader.poll(Duration::from_millis(300)).is_none());
            reader
        })
        .collect();
    let producer = transactional(&address, "waited", PATIENCE);
    producer.begin_transaction().unwrap();
    send(&producer, "waited-for", 0, "k", "v");
    settle(&producer);
    assert!(
        readers
            .iter()
            .all(|reader| reader.poll(Duration::from_millis(20)).is_none())
    );
    producer.commit_transaction(PATIENCE).unwrap();
    for reader in &readers {
        // Had they not been woken, this would take five minutes.
        let record = reader
            .poll(PATIENCE)
            .expect("the commit wakes the reader")
            .unwrap();
        assert_eq!(record.payload(), Some(&b"v"[..]));
    }
}

#[test]
fn an_offset_beyond_the_end_is_out_of_range() {
    let broker = TestBroker::memory();
    let address = broker.address();
    create(&address, "short", 1, &[]);
    let reader: BaseConsumer = client(&address)
        .set("group.id", "g")
        .set("auto.offset.reset", "error")
        .create()
        .unwrap();
    let mut assignment = TopicPartitionList::new();
    assignment
        .add_partition_offset("short", 0, Offset::Offset(17))
        .unwrap();
    reader.assign(&assignment).unwrap();
    eventually("the reader is told", || {
        match reader.poll(Duration::from_millis(100)) {
            Some(Err(KafkaError::MessageConsumption(code))) => {
                code == RDKafkaErrorCode::AutoOffsetReset
            }
            _ => false,
        }
    });
}
