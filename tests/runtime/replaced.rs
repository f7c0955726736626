//! Two instances under one name, each of whose workers is a static member of its group.

use std::time::{Duration, Instant};

use kafka_harness::Kafka;
use partita::runtime::{self, Handle, Readiness};
use partita_broker::{Broker, Config};

use crate::world::{self, PARTITIONS, Registry};

const JOB: &str = "{kind: workflow, name: job, version: 1, steps: [{id: a, agent: hand}]}";
/// Longer than any pause between two tries of a worker.
const WATCHED: Duration = Duration::from_secs(8);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_two_of_a_name_gives_way_on_the_embedded_broker() {
    let broker = Broker::start(Config::memory()).await.expect("a broker");
    one_of_two_of_a_name_gives_way(&broker.bootstrap()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_two_of_a_name_gives_way_on_apache_kafka() {
    let Some(kafka) = Kafka::start_or_skip("two instances of a name on Apache Kafka") else {
        return;
    };
    one_of_two_of_a_name_gives_way(&kafka.bootstrap()).await;
}

/// The younger of them has the work; the elder says what has happened and leaves it alone, else the
/// two would fence each other for as long as both run.
async fn one_of_two_of_a_name_gives_way(brokers: &str) {
    world::create_topics(brokers, "twin.", &["hand"]).await;
    let registry = Registry::with(JOB);
    let instance = || {
        let mut config = world::config(brokers, "twin.", "one", None);
        config.static_membership = true;
        runtime::start(config, registry.clone()).expect("an instance")
    };
    let elder = instance();
    world::until_ready(&[&elder]).await;
    let younger = instance();
    world::until(|| reasons(&elder).contains("took its place")).await;
    world::until(|| elder.owned().is_empty()).await;
    world::until_ready(&[&younger]).await;

    let since = Instant::now();
    for number in 0.. {
        let id = format!("job-{number}");
        let started = younger.submit(world::start(&id, "job", "null"), None).await;
        started.unwrap_or_else(|error| panic!("{id}: {error}"));
        assert_eq!(younger.readiness(), Readiness::Ready);
        assert_eq!(younger.owned().len(), PARTITIONS as usize);
        if since.elapsed() > WATCHED {
            break;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(reasons(&elder).contains("restart this one"));
    for instance in [younger, elder] {
        instance.shutdown(Duration::from_secs(60)).await;
    }
}

fn reasons(instance: &Handle) -> String {
    match instance.readiness() {
        Readiness::Ready => String::new(),
        Readiness::NotReady { reasons } => reasons.join("; "),
    }
}
