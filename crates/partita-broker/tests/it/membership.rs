//! What a client sees of static membership and of offsets that a transaction holds.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rdkafka::client::ClientContext;
use rdkafka::config::FromClientConfigAndContext;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext, Rebalance};
use rdkafka::error::KafkaError;
use rdkafka::producer::Producer;
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{Offset, TopicPartitionList};

use crate::support::*;

/// Counts how often partitions were assigned.
#[derive(Clone, Default)]
struct Assignments(Arc<AtomicUsize>);

impl ClientContext for Assignments {}

impl ConsumerContext for Assignments {
    fn post_rebalance(&self, _consumer: &BaseConsumer<Assignments>, rebalance: &Rebalance<'_>) {
        if matches!(rebalance, Rebalance::Assign(_)) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }
}

fn member(address: &str, instance: &str) -> (BaseConsumer<Assignments>, Assignments) {
    let mut config = client(address);
    config
        .set("group.id", "static")
        .set("group.instance.id", instance)
        .set("session.timeout.ms", "45000")
        .set("heartbeat.interval.ms", "100");
    let assignments = Assignments::default();
    let member = BaseConsumer::from_config_and_context(&config, assignments.clone()).unwrap();
    member.subscribe(&["in"]).unwrap();
    (member, assignments)
}

fn owned(member: &BaseConsumer<Assignments>) -> Vec<i32> {
    member.poll(Duration::from_millis(20));
    let assignment = member.assignment().unwrap();
    let elements = assignment.elements();
    elements.iter().map(|element| element.partition()).collect()
}

#[test]
fn a_static_member_restarts_without_disturbing_the_others() {
    let broker = TestBroker::memory();
    let address = broker.address();
    create(&address, "in", 4, &[]);
    let (first, assignments) = member(&address, "first");
    let (second, _) = member(&address, "second");
    eventually("both have half", || {
        (owned(&first).len(), owned(&second).len()) == (2, 2)
    });
    let before = assignments.0.load(Ordering::SeqCst);
    let (kept, had) = (owned(&first), owned(&second));
    drop(second);
    let (second, _) = member(&address, "second");
    eventually("the second has its partitions again", || {
        assert_eq!(owned(&first), kept);
        owned(&second) == had
    });
    assert_eq!(assignments.0.load(Ordering::SeqCst), before);
}

#[test]
fn of_two_members_with_one_instance_id_the_earlier_is_fenced() {
    let broker = TestBroker::memory();
    let address = broker.address();
    create(&address, "in", 1, &[]);
    let (earlier, _) = member(&address, "one");
    eventually("it has the partition", || owned(&earlier) == [0]);
    let (later, _) = member(&address, "one");
    eventually("it took the partition over", || owned(&later) == [0]);
    eventually("the earlier one is told", || {
        // The event says the same as the fatal error below.
        drop(earlier.poll(Duration::from_millis(20)));
        let fatal = earlier.client().fatal_error();
        fatal.is_some_and(|(code, _)| code == RDKafkaErrorCode::FencedInstanceId)
    });
}

#[test]
fn offsets_that_a_transaction_holds_are_not_told_until_it_ends() {
    let broker = TestBroker::memory();
    let address = broker.address();
    create(&address, "in", 1, &[]);
    let reader = consumer(&address, "readers", "read_committed");
    let mut offsets = TopicPartitionList::new();
    offsets
        .add_partition_offset("in", 0, Offset::Offset(7))
        .unwrap();
    let writer = transactional(&address, "writer", PATIENCE);
    writer.begin_transaction().unwrap();
    let group = reader.group_metadata().unwrap();
    writer
        .send_offsets_to_transaction(&offsets, &group, PATIENCE)
        .unwrap();
    let committed = |wait| {
        let mut wanted = TopicPartitionList::new();
        wanted.add_partition("in", 0);
        let found = reader.committed_offsets(wanted, wait)?;
        Ok::<_, KafkaError>(found.elements()[0].offset())
    };
    // The client keeps asking for as long as the transaction is open.
    committed(Duration::from_millis(500)).expect_err("nothing is decided yet");
    writer.commit_transaction(PATIENCE).unwrap();
    assert_eq!(committed(PATIENCE).unwrap(), Offset::Offset(7));
}
