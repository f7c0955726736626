//! Consumer groups as clients see them.

use std::time::Duration;

use rdkafka::config::FromClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::{Message, Offset, TopicPartitionList};

use crate::support::*;

fn member(address: &str, strategy: &str) -> BaseConsumer {
    let mut config = client(address);
    config
        .set("group.id", format!("g-{strategy}"))
        .set("partition.assignment.strategy", strategy)
        .set("auto.offset.reset", "earliest")
        // What is committed is what a test commits, however long it takes.
        .set("enable.auto.commit", "false")
        .set("session.timeout.ms", "6000")
        .set("heartbeat.interval.ms", "200");
    let member = BaseConsumer::from_config(&config).unwrap();
    member.subscribe(&["in"]).unwrap();
    member
}

#[test]
fn partitions_are_shared_and_taken_over() {
    let broker = TestBroker::memory();
    let address = broker.address();
    create(&address, "in", 4, &[]);
    for strategy in ["range", "roundrobin", "cooperative-sticky"] {
        let count = |member: &BaseConsumer| {
            member.poll(Duration::from_millis(20));
            member.assignment().unwrap().count()
        };
        let first = member(&address, strategy);
        eventually("the first has all", || count(&first) == 4);
        let second = member(&address, strategy);
        eventually("both have half", || {
            (count(&first), count(&second)) == (2, 2)
        });
        std::thread::scope(|scope| {
            scope.spawn(move || drop(second));
            eventually("the first has all again", || count(&first) == 4);
        });
    }
}

#[test]
fn committed_offsets_survive_a_restart_and_members_come_back() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Process::start(folder.path(), &[]);
    let address = broker.address.clone();
    create(&address, "in", 1, &[]);
    let source = producer(&address);
    (0..10).for_each(|number| send(&source, "in", 0, "k", &number.to_string()));
    settle(&source);
    let reader = member(&address, "range");
    let read_up_to = |reader: &BaseConsumer, end: i64| {
        let mut read = Vec::new();
        eventually("records arrive", || {
            if let Some(Ok(record)) = reader.poll(Duration::from_millis(50)) {
                read.push(record.offset());
            }
            read.last() == Some(&(end - 1))
        });
        read
    };
    assert!(read_up_to(&reader, 10).into_iter().eq(0..10));
    let mut offsets = TopicPartitionList::new();
    offsets
        .add_partition_offset("in", 0, Offset::Offset(10))
        .unwrap();
    reader.commit(&offsets, CommitMode::Sync).unwrap();
    broker.kill();
    let _broker = Process::start_on(folder.path(), &address, &[]);
    // The same member goes on: it joins again by itself. What it was given before it learnt that it must
    // comes once more.
    let source = producer(&address);
    (10..15).for_each(|number| send(&source, "in", 0, "k", &number.to_string()));
    settle(&source);
    let mut read = read_up_to(&reader, 15);
    assert_eq!(read[0], 10);
    read.sort_unstable();
    read.dedup();
    assert!(read.into_iter().eq(10..15));
    let mut wanted = TopicPartitionList::new();
    wanted.add_partition("in", 0);
    let other = consumer(&address, "g-range", "read_committed");
    assert_eq!(
        other
            .committed_offsets(wanted, PATIENCE)
            .unwrap()
            .elements()[0]
            .offset(),
        Offset::Offset(10)
    );
    // Before the broker: a member that closes wants to take its leave.
    drop((reader, other));
}
