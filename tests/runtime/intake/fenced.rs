//! Sessions that are lost, and what is left behind by those who lost theirs for good.

use std::sync::Arc;
use std::time::{Duration, Instant};

use partita::log::StageKind;
use partita::log::kafka::{ClientSettings, KafkaLogConfig, SourceLog};
use partita::model::{Millis, Timestamp};
use partita::runtime::intake::IntakeConfig;
use partita::runtime::intake::schemas::{KnownSchemas, SchemaSettings};
use partita::runtime::intake::worker::{IntakeWorker, Stepped};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::{BaseProducer, Producer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use super::support::{
    BASE, LIMIT, Rules, all_of, broker_with, click, intake, producer, send, signals, stop,
    until_signals,
};

const BATCH: usize = 100;
const RECORDS: usize = 10 * BATCH;
const SESSIONS_LOST: usize = 3;
const ID: &str = "p.intake.one.0";

/// One that is moved on by hand.
fn worker(brokers: &str, rules: Arc<Rules>) -> IntakeWorker {
    let client = ClientSettings::plain(brokers);
    let config = IntakeConfig {
        prefix: "p.".to_owned(),
        batch_records: BATCH,
        ..IntakeConfig::new(client.clone(), "one")
    };
    let log = SourceLog::new(KafkaLogConfig {
        client,
        prefix: config.prefix.clone(),
        stage: StageKind::Patterns,
        transactional_id: ID.to_owned(),
        transaction_timeout: Millis(60_000),
        session_timeout: Millis(60_000),
        static_membership: false,
    });
    let schemas = KnownSchemas::new(SchemaSettings::default()).expect("schemas");
    IntakeWorker::new(&config, 0, log.expect("clients"), rules, Arc::new(schemas))
}

/// Another takes the producers' names, as a second instance in the same folder would.
fn fence(brokers: &str) {
    for number in 0..3 {
        let producer: BaseProducer = ClientConfig::new()
            .set("bootstrap.servers", brokers)
            .set("transactional.id", format!("{ID}-{number}"))
            .create()
            .expect("a producer");
        producer.init_transactions(LIMIT).expect("a session");
    }
}

/// What was fetched when the session was lost lies behind the position that a new one begins at: taken
/// then, it would take the place of what is read again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lost_session_skips_nothing_and_takes_nothing_twice() {
    let (_broker, brokers) = broker_with(&[("fenced", 1)]).await;
    let producer = producer(&brokers);
    for n in 0..RECORDS {
        send(&producer, "fenced", 1, n, &click(n));
    }
    producer.flush(LIMIT).expect("deliveries");
    let rules = Rules::applied_at(&all_of("fenced"), Some(Timestamp(BASE)));
    let mut worker = worker(&brokers, rules);
    let (mut lost, mut taken) = (0, 0);
    let deadline = Instant::now() + LIMIT;
    tokio::task::block_in_place(|| {
        loop {
            assert!(
                Instant::now() < deadline,
                "{taken} taken, {lost} sessions lost"
            );
            match worker.step(Duration::from_millis(10)) {
                Stepped::Worked(records) => taken += records,
                Stepped::Failed { .. } => {}
                Stepped::Idle if taken < RECORDS || signals(&brokers).0.len() < RECORDS => {}
                Stepped::Idle => break,
            }
            if lost < SESSIONS_LOST && taken >= (2 * lost + 1) * BATCH {
                fence(&brokers);
                lost += 1;
            }
        }
    });
    assert_eq!(lost, SESSIONS_LOST);
    assert_eq!(signals(&brokers).1, [""; 0]);
    worker.leave();
}

/// Where an owner died within a commit, nobody can say where its partitions begin until its transaction
/// ends; what its successor reads already goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_that_stays_open_holds_up_no_other_partition() {
    let (_broker, brokers) = broker_with(&[("read", 1), ("undecided", 2)]).await;
    let rules = Rules::applied_at(&all_of("read"), Some(Timestamp(BASE)));
    let intake = intake(&brokers, rules.clone(), None, None);
    let producer = producer(&brokers);
    send(&producer, "read", 1, 0, &click(0));
    until_signals(&brokers, 1).await;

    let dead = tokio::task::block_in_place(|| leave_open(&brokers, "undecided"));
    rules.set(&format!("{}\n---\n{}", all_of("read"), all_of("undecided")));
    for n in 0..20 {
        send(&producer, "undecided", 2, n, &click(n));
    }
    // Those of its second partition: nothing stands before them.
    until_signals(&brokers, 11).await;
    for n in 1..20 {
        send(&producer, "read", 1, n, &click(n));
        until_signals(&brokers, 11 + n).await;
    }
    tokio::task::block_in_place(|| dead.abort_transaction(LIMIT)).expect("an abort");
    until_signals(&brokers, 40).await;
    assert_eq!(signals(&brokers).1, [""; 0]);
    stop(intake).await;
}

/// A transaction that moves the group's position in the first partition of a topic, and does not end.
fn leave_open(brokers: &str, topic: &str) -> BaseProducer {
    let mut client = ClientConfig::new();
    client.set("bootstrap.servers", brokers);
    let member: BaseConsumer = client
        .clone()
        .set("group.id", "p.intake")
        .create()
        .expect("a consumer");
    let group = member.group_metadata().expect("of the group");
    let dead: BaseProducer = client
        .set("transactional.id", "p.intake.dead.0-0")
        .set("transaction.timeout.ms", "600000")
        .create()
        .expect("a producer");
    dead.init_transactions(LIMIT).expect("a session");
    dead.begin_transaction().expect("a transaction");
    let mut positions = TopicPartitionList::new();
    positions
        .add_partition_offset(topic, 0, Offset::Offset(5))
        .expect("an offset");
    dead.send_offsets_to_transaction(&positions, &group, LIMIT)
        .expect("offsets");
    dead
}
