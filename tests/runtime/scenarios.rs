//! What a runtime must do on any broker.

use std::time::Duration;

use kafka_harness::Kafka;
use partita::engine::Outcome;
use partita::model::{RunId, RunStatus};
use partita::runtime::{self, Readiness, RunFilter, SubmitError};
use partita_broker::{Broker, Config};

use crate::agent::Agent;
use crate::world::{self, Registry};

const FIVE: &str = r#"
kind: workflow
name: five
version: 1
steps:
  - {id: s1, agent: echo}
  - {id: s2, agent: echo, depends_on: [s1], inputs: {before: "${steps.s1.output}"}}
  - {id: s3, agent: echo, depends_on: [s2]}
  - {id: s4, agent: echo, depends_on: [s3]}
  - {id: s5, agent: echo, depends_on: [s4]}
output: {last: "${steps.s5.status}"}
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn runs_end_on_the_embedded_broker() {
    let broker = Broker::start(Config::memory()).await.expect("a broker");
    runs_end(&broker.bootstrap()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn runs_end_on_apache_kafka() {
    let Some(kafka) = Kafka::start_or_skip("the runtime against Apache Kafka") else {
        return;
    };
    runs_end(&kafka.bootstrap()).await;
}

/// As behind a load balancer: whoever is told that an instance is ready can start runs on it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_instance_is_ready_once_it_has_its_share() {
    let mut config = Config::memory();
    config.groups.initial_rebalance_delay_ms = 1_500;
    let broker = Broker::start(config).await.expect("a broker");
    let brokers = broker.bootstrap();
    world::create_topics(&brokers, "t0.", &["echo"]).await;
    let mut config = world::config(&brokers, "t0.", "one", None);
    // More than there are partitions: the share of two of them is nothing.
    config.workers = 6;
    let handle = runtime::start(config, Registry::with(FIVE)).expect("an instance");
    world::until(|| handle.readiness() == Readiness::Ready).await;
    assert_eq!(handle.owned().len(), world::PARTITIONS as usize);
    let start = world::start("run", "five", "{}");
    handle.submit(start, None).await.expect("an answer");
    assert!(handle.shutdown(Duration::from_secs(60)).await);
}

async fn runs_end(brokers: &str) {
    let _ = tracing_subscriber::fmt()
        .with_test_writer()
        .with_env_filter("info")
        .try_init();
    let prefix = "t1.";
    world::create_topics(brokers, prefix, &["echo"]).await;
    let registry = Registry::with(FIVE);
    let folder = tempfile::tempdir().expect("a folder");
    let config = world::config(brokers, prefix, "one", Some(folder.path().to_owned()));
    let handle = runtime::start(config.clone(), registry.clone()).expect("an instance");
    world::until_ready(&[&handle]).await;
    let agent = Agent::start(brokers, prefix, "echo", 2);

    let mut ids = Vec::new();
    for number in 0..40 {
        let id = format!("run-{number}");
        let answered = handle
            .submit(world::start(&id, "five", "{}"), None)
            .await
            .expect("an answer");
        assert_eq!(answered.outcome, Outcome::Started);
        assert_eq!(answered.run.expect("the run").status, RunStatus::Running);
        ids.push(RunId::parse(&id).unwrap());
    }
    for id in &ids {
        let run = handle
            .wait_for_end(id, Duration::from_secs(120))
            .await
            .expect("the run")
            .expect("known");
        assert_eq!(run.status, RunStatus::Completed, "{run:?}");
        assert_eq!(
            run.output.expect("an output").as_str(),
            r#"{"last":"completed"}"#
        );
        let history = handle.history(id, 1).await.expect("a history");
        assert!(history.complete);
        let history = history.events;
        let sequences: Vec<u64> = history.iter().map(|event| event.sequence).collect();
        assert_eq!(
            sequences,
            (1..=12).collect::<Vec<_>>(),
            "dense: {history:#?}"
        );
    }
    let again = handle
        .submit(world::start("run-0", "five", "{}"), None)
        .await
        .expect("an answer");
    assert_eq!(again.outcome, Outcome::AlreadyStarted);
    let page = handle
        .list(&RunFilter::default(), 15, None)
        .expect("a page");
    assert_eq!(page.runs.len(), 15);
    let rest = handle
        .list(&RunFilter::default(), 100, page.next.as_ref())
        .expect("a page");
    assert_eq!((rest.runs.len(), rest.next), (25, None));

    // Everything is still there after a restart, with its store and without.
    assert!(handle.shutdown(Duration::from_secs(60)).await);
    drop(handle);
    for keep_store in [true, false] {
        if !keep_store {
            std::fs::remove_dir_all(folder.path().join("store")).expect("a store");
        }
        let handle = runtime::start(config.clone(), registry.clone()).expect("an instance");
        world::until_ready(&[&handle]).await;
        for id in &ids {
            assert_eq!(
                handle.run(id).expect("owned").expect("known").status,
                RunStatus::Completed
            );
        }
        let fresh = format!("fresh-{keep_store}");
        handle
            .submit(world::start(&fresh, "five", "{}"), None)
            .await
            .expect("an answer");
        let fresh = RunId::parse(&fresh).unwrap();
        let run = handle
            .wait_for_end(&fresh, Duration::from_secs(120))
            .await
            .unwrap()
            .unwrap();
        assert_eq!(run.status, RunStatus::Completed);
        assert!(handle.shutdown(Duration::from_secs(60)).await);
        let gone = handle.run(&fresh);
        assert!(
            matches!(gone, Err(SubmitError::NotOwner { .. })),
            "{gone:?}"
        );
    }
    drop(agent);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn instances_share_on_the_embedded_broker() {
    let broker = Broker::start(Config::memory()).await.expect("a broker");
    instances_share(&broker.bootstrap()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn instances_share_on_apache_kafka() {
    let Some(kafka) = Kafka::start_or_skip("sharing of work on Apache Kafka") else {
        return;
    };
    instances_share(&kafka.bootstrap()).await;
}

/// Partitions move to a second instance and back while runs are under way.
async fn instances_share(brokers: &str) {
    let prefix = "t2.";
    world::create_topics(brokers, prefix, &["echo"]).await;
    let registry = Registry::with(FIVE);
    let first = runtime::start(
        world::config(brokers, prefix, "one", None),
        registry.clone(),
    );
    let first = first.expect("an instance");
    world::until_ready(&[&first]).await;
    let ids: Vec<RunId> = (0..60)
        .map(|number| RunId::parse(&format!("run-{number}")).unwrap())
        .collect();
    for id in &ids {
        first
            .submit(world::start(id.as_str(), "five", "{}"), None)
            .await
            .expect("an answer");
    }
    let second = runtime::start(
        world::config(brokers, prefix, "two", None),
        registry.clone(),
    );
    let second = second.expect("an instance");
    let _agent = Agent::start(brokers, prefix, "echo", 2);
    world::until(|| first.owned().len() == 2 && second.owned().len() == 2).await;
    world::until_ready(&[&first, &second]).await;
    for id in &ids {
        let owner = if first.owns(first.partition_of(id)) {
            &first
        } else {
            &second
        };
        let ended = owner.wait_for_end(id, Duration::from_secs(120)).await;
        assert_eq!(ended.unwrap().expect("known").status, RunStatus::Completed);
    }
    let stranger = ids
        .iter()
        .find(|id| !first.owns(first.partition_of(id)))
        .expect("some are away");
    assert!(matches!(
        first.run(stranger),
        Err(SubmitError::NotOwner { .. })
    ));
    assert!(second.shutdown(Duration::from_secs(60)).await);
    world::until_ready(&[&first]).await;
    for id in &ids {
        let history = first.history(id, 1).await.expect("a history");
        assert!(history.complete);
        let history = history.events;
        let sequences: Vec<u64> = history.iter().map(|event| event.sequence).collect();
        assert_eq!(sequences, (1..=12).collect::<Vec<_>>());
    }
    assert!(first.shutdown(Duration::from_secs(60)).await);
}
