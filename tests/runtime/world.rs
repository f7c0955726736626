//! A broker, topics, definitions and an instance.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use partita::engine::Definitions;
use partita::log::LogError;
use partita::log::kafka::ClientSettings;
use partita::model::{Command, Json, Millis, RunId, Start};
use partita::runtime::{DefinitionRegistry, Handle, Readiness, RuntimeConfig};
use partita::workflow::Workflow;
use partita::workflow::definition;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;

/// Definitions that a test applies by hand.
#[derive(Default)]
pub struct Registry(Mutex<HashMap<String, Arc<Workflow>>>);

impl Registry {
    pub fn with(yaml: &str) -> Arc<Self> {
        let registry = Self::default();
        let defaults = definition::Defaults::default();
        for definition in definition::parse(yaml, None, &defaults).expect("valid definitions") {
            let workflow = Arc::clone(&definition.workflow);
            registry
                .0
                .lock()
                .unwrap()
                .insert(workflow.name.to_string(), workflow);
        }
        Arc::new(registry)
    }
}

impl Definitions for Registry {
    fn workflow(&self, name: &str, version: Option<u32>) -> Option<Arc<Workflow>> {
        let found = self.0.lock().unwrap().get(name).cloned();
        found.filter(|workflow| version.is_none_or(|version| version == workflow.version))
    }
}

impl DefinitionRegistry for Registry {
    fn catch_up(&self) -> Result<(), LogError> {
        Ok(())
    }
}

pub const PARTITIONS: i32 = 4;

pub async fn create_topics(brokers: &str, prefix: &str, agents: &[&str]) {
    create_topics_with(brokers, prefix, agents, PARTITIONS).await;
}

pub async fn create_topics_with(brokers: &str, prefix: &str, agents: &[&str], partitions: i32) {
    create_some(brokers, prefix, agents, partitions, &[]).await;
}

/// As [`create_topics`], without those that the test makes itself.
pub async fn create_topics_but(brokers: &str, prefix: &str, agents: &[&str], made: &[&str]) {
    create_some(brokers, prefix, agents, PARTITIONS, made).await;
}

async fn create_some(brokers: &str, prefix: &str, agents: &[&str], partitions: i32, made: &[&str]) {
    let admin: AdminClient<DefaultClientContext> = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .create()
        .expect("an admin client");
    let mut names: Vec<String> = ["commands", "replies", "state", "events", "dead-letter"]
        .iter()
        .filter(|name| !made.contains(name))
        .map(|name| format!("{prefix}{name}"))
        .collect();
    names.extend(agents.iter().map(|agent| format!("{prefix}tasks.{agent}")));
    let topics: Vec<NewTopic<'_>> = names
        .iter()
        .map(|name| NewTopic::new(name, partitions, TopicReplication::Fixed(1)))
        .collect();
    for created in admin
        .create_topics(&topics, &AdminOptions::new())
        .await
        .expect("creating topics")
    {
        created.expect("a topic");
    }
}

pub fn config(
    brokers: &str,
    prefix: &str,
    instance: &str,
    folder: Option<PathBuf>,
) -> RuntimeConfig {
    let mut config = RuntimeConfig::new(ClientSettings::plain(brokers), instance);
    config.prefix = prefix.to_owned();
    config.session_timeout = Millis(6_000);
    config.write_behind = Millis(100);
    config.data_dir = folder;
    config
}

pub fn start(run: &str, workflow: &str, input: &str) -> Command {
    Command::Start(Start {
        run_id: RunId::parse(run).expect("a run id"),
        workflow: workflow.to_owned(),
        version: None,
        input: Some(Json::from_text(input).expect("JSON")),
        tags: Default::default(),
        priority: 0,
        provenance: None,
    })
}

/// Waits until the instances together own everything and are ready.
pub async fn until_ready(handles: &[&Handle]) {
    let deadline = Instant::now() + Duration::from_secs(180);
    loop {
        let owned: usize = handles.iter().map(|handle| handle.owned().len()).sum();
        let ready = handles
            .iter()
            .all(|handle| handle.readiness() == Readiness::Ready);
        if ready && owned == PARTITIONS as usize {
            return;
        }
        let states: Vec<_> = handles
            .iter()
            .map(|handle| (handle.readiness(), handle.owned()))
            .collect();
        assert!(Instant::now() < deadline, "not ready: {states:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Waits until it holds.
pub async fn until(mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(180);
    while !holds() {
        assert!(Instant::now() < deadline, "it never comes to that");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
