//! The registry while it reads what was applied before it started.

use std::time::{Duration, Instant};

use partita::runtime::DefinitionRegistry;
use partita::runtime::definitions::{Registry, RegistrySettings};
use partita::workflow::definition::Defaults;
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseRecord, Producer};

use crate::intake::support::{LIMIT, broker_with, producer};

const RULES: usize = 2_000;

/// Some of the rules would be worse than none: what the intake reads by them is passed over for the others.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_registry_that_has_not_read_all_yet_has_no_rule_in_force() {
    let (_broker, brokers) = broker_with(&[]).await;
    let producer = producer(&brokers);
    for n in 0..RULES {
        let key = format!("rule/r{n}/1");
        let rule = format!(
            r#"{{"kind":"rule","name":"r{n}","version":1,"match":{{"any":[{{"id":"x","topic":"t"}}]}}}}"#
        );
        let record = BaseRecord::to("p.definitions").key(&key).payload(&rule);
        producer
            .send(record)
            .map_err(|(error, _)| error)
            .expect("sending");
    }
    producer.flush(LIMIT).expect("deliveries");
    let mut client = ClientConfig::new();
    client.set("bootstrap.servers", &brokers);
    let registry = Registry::start(RegistrySettings {
        client,
        prefix: "p.".to_owned(),
        task_partitions: 1,
        replication_factor: 1,
        task_retention: Duration::from_secs(60),
        task_config: Default::default(),
        defaults: Defaults::default(),
    })
    .expect("a registry");
    let seen = tokio::task::block_in_place(|| {
        let deadline = Instant::now() + LIMIT;
        loop {
            assert!(Instant::now() < deadline, "the definitions are not read");
            let in_force = registry.rules().in_force.len();
            if in_force > 0 {
                return in_force;
            }
            std::thread::yield_now();
        }
    });
    assert_eq!(seen, RULES);
}
