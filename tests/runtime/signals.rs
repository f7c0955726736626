//! Signals and orders by tag over a broker: a copy in each partition, carried out in portions.

use std::time::Duration;

use kafka_harness::Kafka;
use partita::engine::Outcome;
use partita::model::{
    Command, Json, Order, RunId, RunStatus, Selected, Signal, SignalId, SignalName,
};
use partita::runtime;
use partita_broker::{Broker, Config};
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};

use crate::world::{self, PARTITIONS, Registry};

const ASKS: &str = r#"
kind: workflow
name: asks
version: 1
steps:
  - {id: first, await: go}
  - {id: second, await: go, depends_on: [first]}
output: ["${steps.first.output}", "${steps.second.output}"]
"#;

/// More than one portion in each partition.
const RUNS: usize = 60;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn signals_reach_their_runs_on_the_embedded_broker() {
    let broker = Broker::start(Config::memory()).await.expect("a broker");
    signals_reach_their_runs(&broker.bootstrap()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn signals_reach_their_runs_on_apache_kafka() {
    let Some(kafka) = Kafka::start_or_skip("signals on Apache Kafka") else {
        return;
    };
    signals_reach_their_runs(&kafka.bootstrap()).await;
}

fn signal(data: u32, id: &str) -> Order {
    Order::Signal {
        name: SignalName::parse("go").expect("a name"),
        data: Some(Json::from_serialize(&data).expect("JSON")),
        id: Some(SignalId::parse(id).expect("an id")),
    }
}

/// Produces the order to every partition.
fn select(brokers: &str, prefix: &str, order: Order) {
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .create()
        .expect("a producer");
    let selected = Selected {
        tags: [("team".to_owned(), "red".to_owned())].into(),
        workflow: None,
        order,
        after: None,
        depth: 0,
    };
    let body = serde_json::to_vec(&selected).expect("JSON");
    let topic = format!("{prefix}commands");
    for partition in 0..PARTITIONS {
        let record: BaseRecord<'_, (), _> =
            BaseRecord::to(&topic).partition(partition).payload(&body);
        producer.send(record).expect("it fits");
    }
    producer
        .flush(Duration::from_secs(30))
        .expect("it is delivered");
}

async fn signals_reach_their_runs(brokers: &str) {
    let prefix = "t5.";
    world::create_topics(brokers, prefix, &[]).await;
    let registry = Registry::with(ASKS);
    let mut config = world::config(brokers, prefix, "one", None);
    config.batch_records = 5;
    let handle = runtime::start(config, registry).expect("an instance");
    world::until_ready(&[&handle]).await;
    let ids: Vec<RunId> = (0..RUNS)
        .map(|number| RunId::parse(&format!("run-{number}")).expect("an id"))
        .collect();
    for id in &ids {
        let mut command = world::start(id.as_str(), "asks", "{}");
        if let Command::Start(start) = &mut command {
            start.tags = [("team".to_owned(), "red".to_owned())].into();
        }
        handle.submit(command, None).await.expect("an answer");
    }
    let blue = world::start("blue", "asks", "{}");
    handle.submit(blue, None).await.expect("an answer");

    // Twice, as by somebody who was not sure of the first time.
    select(brokers, prefix, signal(1, "s-1"));
    select(brokers, prefix, signal(1, "s-1"));
    select(brokers, prefix, signal(2, "s-2"));
    for id in &ids {
        let run = handle.wait_for_end(id, Duration::from_secs(180)).await;
        let run = run.expect("the run").expect("known");
        assert_eq!(run.status, RunStatus::Completed, "{run:?}");
        assert_eq!(run.output.expect("an output").as_str(), "[1,2]");
    }
    let blue = RunId::parse("blue").expect("an id");
    let told = Signal {
        run_id: blue.clone(),
        name: SignalName::parse("go").expect("a name"),
        data: None,
        id: Some(SignalId::parse("s-1").expect("an id")),
        depth: 0,
    };
    for outcome in [Outcome::Applied, Outcome::AlreadyHolds] {
        let command = Command::Signal(told.clone());
        let answered = handle.submit(command, None).await.expect("an answer");
        assert_eq!(answered.outcome, outcome);
        let run = answered.run.expect("the run");
        assert_eq!(run.status, RunStatus::Running);
        assert!(!run.steps[0].is_awaiting() && run.steps[1].is_awaiting());
    }
    assert!(handle.shutdown(Duration::from_secs(60)).await);
}
