//! Transactions: all or nothing, fencing, timeouts, offsets.

use std::time::Duration;

use rdkafka::consumer::{CommitMode, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::producer::Producer;
use rdkafka::{Offset, TopicPartitionList};

use crate::support::*;

#[test]
fn an_abort_hides_and_a_commit_shows_in_all_partitions_at_once() {
    let broker = TestBroker::memory();
    let address = broker.address();
    create(&address, "a", 3, &[]);
    let producer = transactional(&address, "t", PATIENCE);
    for round in 0..4 {
        producer.begin_transaction().unwrap();
        for partition in 0..3 {
            (0..5).for_each(|number| {
                send(&producer, "a", partition, "k", &format!("{round}-{number}"))
            });
        }
        settle(&producer);
        if round % 2 == 0 {
            producer.abort_transaction(PATIENCE).unwrap();
        } else {
            producer.commit_transaction(PATIENCE).unwrap();
        }
    }
    for partition in 0..3 {
        let committed = read_all(&address, "a", partition, "read_committed");
        let expected: Vec<String> = [1, 3]
            .iter()
            .flat_map(|round| (0..5).map(move |number| format!("{round}-{number}")))
            .collect();
        assert_eq!(values(&committed), expected);
        assert_eq!(
            read_all(&address, "a", partition, "read_uncommitted").len(),
            20
        );
        // 4 transactions of 5 records and a marker each.
        assert_eq!(watermarks(&address, "a", partition), (0, 24));
    }
}

#[test]
fn an_open_transaction_holds_back_what_comes_after_it() {
    let broker = TestBroker::memory();
    let address = broker.address();
    create(&address, "a", 1, &[]);
    let slow = transactional(&address, "slow", PATIENCE);
    slow.begin_transaction().unwrap();
    send(&slow, "a", 0, "k", "slow");
    settle(&slow);
    let other = producer(&address);
    send(&other, "a", 0, "k", "other");
    settle(&other);
    assert_eq!(read_all(&address, "a", 0, "read_committed"), []);
    slow.commit_transaction(PATIENCE).unwrap();
    assert_eq!(
        values(&read_all(&address, "a", 0, "read_committed")),
        ["slow", "other"]
    );
}

#[test]
fn a_new_producer_fences_the_old_and_aborts_what_it_left() {
    let broker = TestBroker::memory();
    let address = broker.address();
    create(&address, "a", 1, &[]);
    let old = transactional(&address, "t", PATIENCE);
    old.begin_transaction().unwrap();
    send(&old, "a", 0, "k", "old");
    settle(&old);
    let new = transactional(&address, "t", PATIENCE);
    new.begin_transaction().unwrap();
    send(&new, "a", 0, "k", "new");
    settle(&new);
    let Err(KafkaError::Transaction(error)) = old.commit_transaction(PATIENCE) else {
        panic!("the old one is fenced")
    };
    assert!(error.is_fatal(), "{error}");
    new.commit_transaction(PATIENCE).unwrap();
    assert_eq!(
        values(&read_all(&address, "a", 0, "read_committed")),
        ["new"]
    );
}

#[test]
fn a_transaction_that_takes_too_long_is_aborted() {
    let broker = TestBroker::memory();
    let address = broker.address();
    create(&address, "a", 1, &[]);
    let slow = transactional(&address, "slow", Duration::from_millis(1000));
    slow.begin_transaction().unwrap();
    send(&slow, "a", 0, "k", "slow");
    settle(&slow);
    let other = producer(&address);
    send(&other, "a", 0, "k", "other");
    settle(&other);
    eventually("the abort shows what came after", || {
        values(&read_all(&address, "a", 0, "read_committed")) == ["other"]
    });
    assert!(slow.commit_transaction(PATIENCE).is_err());
}

#[test]
fn offsets_count_with_the_commit_and_not_with_the_abort() {
    let broker = TestBroker::memory();
    let address = broker.address();
    create(&address, "in", 1, &[]);
    let source = producer(&address);
    (0..10).for_each(|number| send(&source, "in", 0, "k", &number.to_string()));
    settle(&source);
    let reader = consumer(&address, "g", "read_committed");
    reader.subscribe(&["in"]).unwrap();
    let committed = || {
        let mut wanted = TopicPartitionList::new();
        wanted.add_partition("in", 0);
        reader
            .committed_offsets(wanted, PATIENCE)
            .unwrap()
            .elements()[0]
            .offset()
    };
    eventually("the reader has its partition", || {
        reader.poll(Duration::from_millis(50));
        reader.assignment().unwrap().count() == 1
    });
    let producer = transactional(&address, "t", PATIENCE);
    for (offset, commit, expected) in [(3, true, 3), (7, false, 3), (9, true, 9)] {
        producer.begin_transaction().unwrap();
        send(&producer, "out", 0, "k", "v");
        settle(&producer);
        let mut offsets = TopicPartitionList::new();
        offsets
            .add_partition_offset("in", 0, Offset::Offset(offset))
            .unwrap();
        producer
            .send_offsets_to_transaction(&offsets, &reader.group_metadata().unwrap(), PATIENCE)
            .unwrap();
        if commit {
            producer.commit_transaction(PATIENCE)
        } else {
            producer.abort_transaction(PATIENCE)
        }
        .unwrap();
        assert_eq!(committed(), Offset::Offset(expected));
    }
    let mut offsets = TopicPartitionList::new();
    offsets
        .add_partition_offset("in", 0, Offset::Offset(10))
        .unwrap();
    reader.commit(&offsets, CommitMode::Sync).unwrap();
    assert_eq!(committed(), Offset::Offset(10));
}

#[test]
fn a_member_that_lost_its_place_cannot_commit_in_a_transaction() {
    let broker = TestBroker::memory();
    let address = broker.address();
    create(&address, "in", 1, &[]);
    let reader = consumer(&address, "g", "read_committed");
    reader.subscribe(&["in"]).unwrap();
    eventually("the reader has its partition", || {
        reader.poll(Duration::from_millis(50));
        reader.assignment().unwrap().count() == 1
    });
    let stale = reader.group_metadata().unwrap();
    drop(reader);
    let producer = transactional(&address, "t", PATIENCE);
    producer.begin_transaction().unwrap();
    send(&producer, "out", 0, "k", "v");
    settle(&producer);
    let mut offsets = TopicPartitionList::new();
    offsets
        .add_partition_offset("in", 0, Offset::Offset(1))
        .unwrap();
    assert!(
        producer
            .send_offsets_to_transaction(&offsets, &stale, PATIENCE)
            .is_err()
    );
    producer.abort_transaction(PATIENCE).unwrap();
}
