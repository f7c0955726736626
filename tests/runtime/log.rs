//! The Kafka log keeps its promises on both brokers.

use std::time::Duration;

use kafka_harness::Kafka;
use partita::log::Log;
use partita::log::conformance::{Setup, a_static_member_keeps_its_place, conforms};
use partita::log::kafka::{ClientSettings, KafkaLog, KafkaLogConfig};
use partita::model::Millis;
use partita_broker::{Broker, Config};
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};

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
/// The least that Apache Kafka allows.
const EXPIRES_SOON: Millis = Millis(6_000);

async fn kafka_log_conforms(brokers: String) {
    run(&brokers, "dynamic.", false, NEVER_EXPIRES, conforms).await;
    run(&brokers, "static.", true, EXPIRES_SOON, conforms).await;
    let keeps = a_static_member_keeps_its_place;
    run(&brokers, "kept.", true, NEVER_EXPIRES, keeps).await;
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
                producer.flush(Duration::from_secs(10)).expect("a delivery");
            },
        });
    };
    tokio::task::spawn_blocking(work)
        .await
        .expect("conformance");
}
