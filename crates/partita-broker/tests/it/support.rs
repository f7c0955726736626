//! Brokers to test, and the few verbs that the tests are made of.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use kafka_harness::free_port;
use partita_broker::{Broker, Config};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::FromClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};
use tokio::runtime::Runtime;

pub type Client = ThreadedProducer<DefaultProducerContext>;

/// Longer than anything here takes on a slow machine; only a failure lasts so long.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A broker in this process, on a runtime of its own.
pub struct TestBroker {
    runtime: Runtime,
    broker: Option<Broker>,
    config: Config,
}

impl TestBroker {
    pub fn start(config: Config) -> TestBroker {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .unwrap();
        let broker = runtime.block_on(Broker::start(config.clone())).unwrap();
        TestBroker {
            runtime,
            broker: Some(broker),
            config,
        }
    }

    pub fn memory() -> TestBroker {
        TestBroker::start(quick(Config::memory()))
    }

    pub fn folder(path: &Path) -> TestBroker {
        TestBroker::start(quick(Config::folder(path)))
    }

    pub fn address(&self) -> String {
        self.broker.as_ref().unwrap().bootstrap()
    }

    /// Stops in order and starts again on the same data.
    pub fn restart(&mut self) {
        self.runtime
            .block_on(self.broker.take().unwrap().shutdown());
        self.broker = Some(
            self.runtime
                .block_on(Broker::start(self.config.clone()))
                .unwrap(),
        );
    }

    pub fn stop(mut self) {
        self.runtime
            .block_on(self.broker.take().unwrap().shutdown());
    }
}

/// Goes round often, so that tests need not wait for maintenance.
pub fn quick(mut config: Config) -> Config {
    config.maintenance_interval = Duration::from_millis(50);
    config.retention_check_interval = Duration::from_millis(50);
    config
}

/// The broker as a process, to be killed.
pub struct Process {
    child: Child,
    pub address: String,
}

impl Process {
    /// One that can come back on the same address. The kernel gives a port that it chose itself
    /// to whoever connects while the broker is away; this one it does not.
    pub fn start(data: &Path, more: &[&str]) -> Process {
        Process::start_on(data, &format!("127.0.0.1:{}", free_port()), more)
    }

    pub fn start_on(data: &Path, listen: &str, more: &[&str]) -> Process {
        let mut child = Command::new(env!("CARGO_BIN_EXE_partita-broker"))
            .args(["--listen", listen, "--data"])
            .arg(data)
            .args(more)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut address = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut address)
            .unwrap();
        assert!(!address.is_empty(), "the broker did not start");
        Process {
            child,
            address: address.trim().to_owned(),
        }
    }

    /// SIGKILL: no chance to write anything more.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn client(address: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", address)
        .set("broker.address.family", "v4")
        .set_log_level(rdkafka::config::RDKafkaLogLevel::Error);
    config
}

pub fn producer(address: &str) -> Client {
    let mut config = client(address);
    config
        .set("enable.idempotence", "true")
        .set("linger.ms", "0")
        .set("message.timeout.ms", "60000");
    Client::from_config(&config).unwrap()
}

/// A transactional producer, initialised.
pub fn transactional(address: &str, id: &str, timeout: Duration) -> Client {
    let mut config = client(address);
    config
        .set("transactional.id", id)
        .set("linger.ms", "0")
        .set("transaction.timeout.ms", timeout.as_millis().to_string())
        .set("message.timeout.ms", timeout.as_millis().to_string());
    let producer = Client::from_config(&config).unwrap();
    producer.init_transactions(PATIENCE).unwrap();
    producer
}

pub fn consumer(address: &str, group: &str, isolation: &str) -> BaseConsumer {
    let mut config = client(address);
    config
        .set("group.id", group)
        .set("isolation.level", isolation)
        .set("auto.offset.reset", "earliest")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .set("session.timeout.ms", "6000")
        .set("heartbeat.interval.ms", "300")
        .set("fetch.wait.max.ms", "50");
    BaseConsumer::from_config(&config).unwrap()
}

pub fn create(address: &str, topic: &str, partitions: i32, settings: &[(&str, &str)]) {
    let admin: AdminClient<DefaultClientContext> = client(address).create().unwrap();
    let mut wanted = NewTopic::new(topic, partitions, TopicReplication::Fixed(1));
    for (name, value) in settings {
        wanted = wanted.set(name, value);
    }
    let results = block_on(admin.create_topics(&[wanted], &AdminOptions::new())).unwrap();
    for result in results {
        result.unwrap();
    }
}

pub fn block_on<F: Future>(future: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap()
        .block_on(future)
}

/// Sends without waiting.
pub fn send(producer: &Client, topic: &str, partition: i32, key: &str, value: &str) {
    let record = BaseRecord::to(topic)
        .partition(partition)
        .key(key)
        .payload(value);
    producer.send(record).map_err(|(error, _)| error).unwrap();
}

/// Waits until all that was sent is delivered.
pub fn settle(producer: &Client) {
    let begin = Instant::now();
    while producer.in_flight_count() > 0 {
        assert!(begin.elapsed() < PATIENCE, "records are not delivered");
        std::thread::sleep(Duration::from_millis(1));
    }
}

pub fn watermarks(address: &str, topic: &str, partition: i32) -> (i64, i64) {
    consumer(address, "watermarks", "read_uncommitted")
        .fetch_watermarks(topic, partition, PATIENCE)
        .unwrap()
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Read {
    pub offset: i64,
    pub key: String,
    /// `None` for a tombstone.
    pub value: Option<String>,
}

/// Everything in a partition from its beginning up to its end.
pub fn read_all(address: &str, topic: &str, partition: i32, isolation: &str) -> Vec<Read> {
    let consumer = consumer(address, "read-all", isolation);
    let mut assignment = TopicPartitionList::new();
    assignment
        .add_partition_offset(topic, partition, Offset::Beginning)
        .unwrap();
    consumer.assign(&assignment).unwrap();
    let begin = Instant::now();
    let mut read = Vec::new();
    loop {
        assert!(
            begin.elapsed() < PATIENCE,
            "the end of {topic} is not reached: {} records so far",
            read.len()
        );
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(record)) => read.push(Read {
                offset: record.offset(),
                key: String::from_utf8_lossy(record.key().unwrap_or_default()).into_owned(),
                value: record
                    .payload()
                    .map(|value| String::from_utf8_lossy(value).into_owned()),
            }),
            Some(Err(rdkafka::error::KafkaError::PartitionEOF(_))) => return read,
            Some(Err(error)) => panic!("reading {topic}: {error}"),
            None => {}
        }
    }
}

/// The values alone.
pub fn values(read: &[Read]) -> Vec<&str> {
    read.iter()
        .filter_map(|read| read.value.as_deref())
        .collect()
}

/// Tries again until it holds.
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !holds() {
        assert!(
            begin.elapsed() < PATIENCE,
            "not within {PATIENCE:?}: {what}"
        );
        std::thread::sleep(Duration::from_millis(50));
    }
}
