//! A worker that panics over a record.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use partita::engine::Definitions;
use partita::log::LogError;
use partita::model::{RunId, RunStatus};
use partita::runtime::{self, DefinitionRegistry, Handle, Readiness};
use partita::workflow::Workflow;
use partita_broker::{Broker, Config};

use crate::world::{self, Registry};

const JOB: &str = "{kind: workflow, name: job, version: 1, steps: [{id: a, agent: hand}]}";

/// Definitions, one of which makes whoever asks for it panic as long as it is told to.
struct Trap {
    registry: Arc<Registry>,
    is_set: AtomicBool,
}

impl Definitions for Trap {
    fn workflow(&self, name: &str, version: Option<u32>) -> Option<Arc<Workflow>> {
        if self.is_set.load(Ordering::Acquire) {
            panic!("the trap was set");
        }
        self.registry.workflow(name, version)
    }
}

impl DefinitionRegistry for Trap {
    fn catch_up(&self) -> Result<(), LogError> {
        Ok(())
    }
}

/// It says so, begins anew with what is committed, and what it panicked over is done once it can be.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_that_panics_is_told_of_and_replaced() {
    let broker = Broker::start(Config::memory()).await.expect("a broker");
    let brokers = broker.bootstrap();
    world::create_topics(&brokers, "panic.", &["hand"]).await;
    let trap = Arc::new(Trap {
        registry: Registry::with(JOB),
        is_set: AtomicBool::new(false),
    });
    let folder = tempfile::tempdir().expect("a folder");
    let mut config = world::config(&brokers, "panic.", "one", Some(folder.path().to_owned()));
    config.workers = 2;
    let instance = runtime::start(config, trap.clone()).expect("an instance");
    world::until_ready(&[&instance]).await;
    let before = world::start("before", "job", "1");
    instance.submit(before, None).await.expect("an answer");

    trap.is_set.store(true, Ordering::Release);
    let asking = {
        let instance = instance.clone();
        let poison = world::start("poison", "job", "2");
        tokio::spawn(async move { instance.submit(poison, None).await })
    };
    world::until(|| reasons(&instance).contains("panicked")).await;
    assert!(reasons(&instance).contains("the trap was set"));
    let answered = asking.await.expect("a task");
    assert!(answered.is_err(), "nothing was committed: {answered:?}");

    trap.is_set.store(false, Ordering::Release);
    world::until_ready(&[&instance]).await;
    for id in ["before", "poison"] {
        let id = RunId::parse(id).expect("a run id");
        world::until(|| matches!(instance.run(&id), Ok(Some(_)))).await;
        let run = instance.run(&id).expect("owned").expect("known");
        assert_eq!(run.status, RunStatus::Running);
        let history = instance.history(&id, 1).await.expect("a history");
        assert!(history.complete);
        let history = history.events;
        let sequences: Vec<u64> = history.iter().map(|event| event.sequence).collect();
        assert_eq!(sequences, [1, 2], "{history:#?}");
    }
    assert!(instance.shutdown(Duration::from_secs(60)).await);
}

fn reasons(instance: &Handle) -> String {
    match instance.readiness() {
        Readiness::Ready => String::new(),
        Readiness::NotReady { reasons } => reasons.join("; "),
    }
}
