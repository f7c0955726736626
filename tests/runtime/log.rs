//! The Kafka log keeps its promises on both brokers.

use std::time::Duration;

use kafka_harness::{EmbeddedBroker, Kafka};
use partita::log::conformance::{
    Setup, a_static_member_keeps_its_place, conforms, markers_are_no_lag,
};
use partita::log::kafka::{ClientSettings, KafkaLog, KafkaLogConfig};
use partita::log::{Log, Lost, OwnershipChange, PollLimits, StageKind};
use partita::model::Millis;
use partita_broker::{Broker, Config};
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use crate::world;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_kafka_log_conforms_on_the_embedded_broker() {
    let broker = Broker::start(Config::memory()).await.expect("a broker");
    kafka_log_conforms(broker.bootstrap()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_kafka_log_conforms_on_apache_kafka() {
    let Some(kafka) = Kafka::start_or_skip("the log against Apache Kafka") else {
        return;
    };
    kafka_log_conforms(kafka.bootstrap()).await;
}

/// Longer than the suite waits for anything.
const NEVER_EXPIRES: Millis = Millis(120_000);
/// Between two reports of librdkafka.
const STATISTICS_EVERY: Duration = Duration::from_secs(2);
/// The least that Apache Kafka allows.
const EXPIRES_SOON: Millis = Millis(6_000);

/// Neither log lines, statistics nor errors of an outage stand before the word that the partitions
/// are lost. A worker whose timers are due does not wait when it polls, and polls rarely while its
/// transactions fail; it must not have to poll once for each of them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_outage_does_not_stand_before_the_loss_of_partitions() {
    const PREFIX: &str = "outage.";
    let mut broker = EmbeddedBroker::start();
    let brokers = broker.bootstrap();
    world::create_topics_with(&brokers, PREFIX, &[], 2).await;
    let mut log = KafkaLog::new(KafkaLogConfig {
        client: ClientSettings::plain(&brokers),
        prefix: PREFIX.to_owned(),
        stage: StageKind::Workflows,
        transactional_id: format!("{PREFIX}worker"),
        transaction_timeout: Millis(10_000),
        session_timeout: EXPIRES_SOON,
        static_membership: false,
    })
    .expect("a log");
    tokio::task::block_in_place(|| {
        log.connect().expect("a connection");
        let assigned = changes_within(&mut log, 600, Duration::from_millis(100));
        assert_eq!(assigned, [OwnershipChange::Assigned(vec![0, 1])]);
        broker.kill9();
        std::thread::sleep(2 * Duration::from(EXPIRES_SOON));
        // Statistics come every two seconds: fewer polls than reports.
        let lost = changes_within(&mut log, 3, Duration::from(EXPIRES_SOON));
        assert_eq!(lost, [OwnershipChange::Revoked(vec![0, 1])]);
    });
}

/// Where retention was faster than we were, the owner begins with what is there, and says what is not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn inputs_that_were_deleted_before_they_were_read_are_told() {
    const PREFIX: &str = "short.";
    let broker = Broker::start(Config::memory()).await.expect("a broker");
    let brokers = broker.bootstrap();
    world::create_topics_with(&brokers, PREFIX, &[], 1).await;
    let mut client = ClientConfig::new();
    client.set("bootstrap.servers", &brokers);
    let producer: ThreadedProducer<DefaultProducerContext> = client.create().expect("a producer");
    for _ in 0..5 {
        let record: BaseRecord<'_, str, str> = BaseRecord::to("short.commands").payload("x");
        producer.send(record).expect("a record");
    }
    producer.flush(Duration::from_secs(60)).expect("deliveries");
    let mut log = KafkaLog::new(KafkaLogConfig {
        client: ClientSettings::plain(&brokers),
        prefix: PREFIX.to_owned(),
        stage: StageKind::Workflows,
        transactional_id: format!("{PREFIX}worker"),
        transaction_timeout: Millis(10_000),
        session_timeout: EXPIRES_SOON,
        static_membership: false,
    })
    .expect("a log");
    tokio::task::block_in_place(|| {
        log.connect().expect("a connection");
        let assigned = changes_within(&mut log, 600, Duration::from_millis(100));
        assert_eq!(assigned, [OwnershipChange::Assigned(vec![0])]);
        assert_eq!(log.committed(0).expect("positions"), [0, 0]);
        log.begin().expect("a transaction");
        log.send_offsets(&[(0, [2, 0])]).expect("offsets");
        log.commit().expect("a commit");
        assert_eq!(log.committed(0).expect("positions"), [2, 0]);
        assert_eq!(log.take_lost(), []);
    });
    let admin: AdminClient<DefaultClientContext> = client.create().expect("an admin client");
    let mut before = TopicPartitionList::new();
    before
        .add_partition_offset("short.commands", 0, Offset::Offset(4))
        .expect("an offset");
    let deleted = admin.delete_records(&before, &AdminOptions::new());
    deleted.await.expect("records are deleted");
    tokio::task::block_in_place(|| {
        assert_eq!(log.committed(0).expect("positions"), [4, 0]);
        let lost = Lost {
            topic: "short.commands".to_owned(),
            partition: 0,
            records: 2,
        };
        assert_eq!(log.take_lost(), [lost]);
        assert_eq!(log.take_lost(), []);
    });
}

/// The first changes that one of so many polls tells of, which do not wait and are so far apart.
fn changes_within(log: &mut KafkaLog, polls: usize, apart: Duration) -> Vec<OwnershipChange> {
    let limits = PollLimits {
        wait: Duration::ZERO,
        records: 100,
        bytes: 1 << 20,
    };
    for _ in 0..polls {
        let mut changes = log.poll(limits, &mut Vec::new()).expect("a poll");
        if let Some(OwnershipChange::Assigned(numbers) | OwnershipChange::Revoked(numbers)) =
            changes.first_mut()
        {
            numbers.sort_unstable();
            return changes;
        }
        std::thread::sleep(apart);
    }
    Vec::new()
}

async fn kafka_log_conforms(brokers: String) {
    run(&brokers, "dynamic.", false, NEVER_EXPIRES, conforms).await;
    run(&brokers, "static.", true, EXPIRES_SOON, conforms).await;
    let keeps = a_static_member_keeps_its_place;
    run(&brokers, "kept.", true, NEVER_EXPIRES, keeps).await;
    let has_no_lag: fn(&Setup<'_>) = |setup| markers_are_no_lag(setup, 2 * STATISTICS_EVERY);
    run(&brokers, "lag.", false, NEVER_EXPIRES, has_no_lag).await;
}

async fn run(
    brokers: &str,
    prefix: &'static str,
    static_membership: bool,
    session_timeout: Millis,
    suite: fn(&Setup<'_>),
) {
    world::create_topics_with(brokers, prefix, &[], 2).await;
    let brokers = brokers.to_owned();
    let work = move || {
        let producer: ThreadedProducer<DefaultProducerContext> = ClientConfig::new()
            .set("bootstrap.servers", &brokers)
            .create()
            .expect("a producer");
        suite(&Setup {
            session: &|id| {
                let config = KafkaLogConfig {
                    client: ClientSettings::plain(&brokers),
                    prefix: prefix.to_owned(),
                    stage: StageKind::Workflows,
                    transactional_id: format!("{prefix}{id}"),
                    transaction_timeout: Millis(10_000),
                    session_timeout,
                    static_membership,
                };
                Box::new(KafkaLog::new(config).expect("a log")) as Box<dyn Log>
            },
            produce: &|partition, value| {
                let topic = format!("{prefix}commands");
                let record = BaseRecord::to(&topic)
                    .partition(partition)
                    .key("k")
                    .payload(value);
                producer
                    .send(record)
                    .map_err(|(error, _)| error)
                    .expect("sending");
                producer.flush(Duration::from_secs(60)).expect("a delivery");
            },
        });
    };
    tokio::task::spawn_blocking(work)
        .await
        .expect("conformance");
}
