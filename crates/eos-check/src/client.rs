//! Clients of the broker under test, set up alike for every check.

use std::env;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::config::{FromClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::ToBytes;
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
use rdkafka::{ClientConfig, Message, Offset, TopicPartitionList};

use crate::figures::{now_microseconds, payload};

pub type Sender = ThreadedProducer<DefaultProducerContext>;

/// A topic to create: name without prefix, partitions, configuration.
pub type TopicSpec<'a> = (&'a str, i32, &'a [(&'a str, &'a str)]);

/// One record as it was read.
pub struct Row {
    pub key: String,
    pub payload: String,
}

/// The broker under test, and what distinguishes this run of the checklist on it.
pub struct Target {
    pub bootstrap: String,
    /// Begins the names of all topics, groups and transactional ids.
    pub prefix: String,
    /// How many records the large checks move.
    pub records: usize,
}

/// A number of seconds as a duration.
pub const fn seconds(count: u64) -> Duration {
    Duration::from_secs(count)
}

/// A record that does not fit the producer's queue hands itself back with the error; only the
/// error is of interest.
pub fn send<K, P>(producer: &Sender, record: BaseRecord<'_, K, P>) -> Result<()>
where
    K: ToBytes + ?Sized,
    P: ToBytes + ?Sized,
{
    producer.send(record).map_err(|(error, _)| error)?;
    Ok(())
}

/// Sends the numbered payload `number` to partition 0 of `topic`.
pub fn send_numbered(producer: &Sender, topic: &str, key: &str, number: usize) -> Result<()> {
    send(
        producer,
        BaseRecord::to(topic)
            .partition(0)
            .key(key)
            .payload(&payload(number)),
    )
}

/// Waits until nothing is in flight.
///
/// `flush()`, and with it `commit_transaction()`, polls in slices of 100 ms while anything is
/// in flight; waiting here first removes that floor. `NOSETTLE` shows the naive behaviour.
pub fn settle(producer: &Sender) {
    if env::var_os("NOSETTLE").is_some() {
        return;
    }
    while producer.in_flight_count() > 0 {
        thread::sleep(Duration::from_micros(100));
    }
}

impl Target {
    /// `suffix` with the prefix of this run.
    pub fn name(&self, suffix: &str) -> String {
        format!("{}-{suffix}", self.prefix)
    }

    pub fn settings(&self) -> ClientConfig {
        let mut settings = ClientConfig::new();
        settings
            .set("bootstrap.servers", &self.bootstrap)
            .set("broker.address.family", "v4");
        if let Ok(contexts) = env::var("RDDEBUG") {
            settings.set("debug", contexts);
            settings.set_log_level(RDKafkaLogLevel::Debug);
        }
        settings
    }

    pub fn producer(&self) -> Result<Sender> {
        Ok(Sender::from_config(&self.producer_settings())?)
    }

    /// A transactional producer that has not called `init_transactions` yet.
    pub fn transactional_producer(&self, transactional_id: &str) -> Result<Sender> {
        let mut settings = self.producer_settings();
        settings
            .set("transactional.id", transactional_id)
            .set("transaction.timeout.ms", "30000");
        Ok(Sender::from_config(&settings)?)
    }

    fn producer_settings(&self) -> ClientConfig {
        let mut settings = self.settings();
        settings
            .set("acks", "all")
            .set("enable.idempotence", "true")
            .set("linger.ms", "0")
            .set("message.timeout.ms", "30000")
            .set("queue.buffering.max.messages", "1000000");
        settings
    }

    pub fn consumer(&self, group: &str, isolation: &str, strategy: &str) -> Result<BaseConsumer> {
        let fetch_wait = env::var("FETCHWAIT").unwrap_or_else(|_| "50".to_owned());
        let mut settings = self.settings();
        settings
            .set("group.id", group)
            .set("enable.auto.commit", "false")
            .set("auto.offset.reset", "earliest")
            .set("isolation.level", isolation)
            .set("session.timeout.ms", "6000")
            .set("heartbeat.interval.ms", "500")
            .set("partition.assignment.strategy", strategy)
            .set("fetch.wait.max.ms", fetch_wait)
            .set("enable.partition.eof", "false");
        Ok(BaseConsumer::from_config(&settings)?)
    }

    /// A `read_committed` consumer that is subscribed to one topic.
    pub fn subscriber(&self, group: &str, topic: &str) -> Result<BaseConsumer> {
        let consumer = self.consumer(group, "read_committed", "range")?;
        consumer.subscribe(&[topic])?;
        Ok(consumer)
    }

    /// Reads a whole topic from its beginning, until nothing came for `quiet`.
    pub fn read_all(&self, topic: &str, isolation: &str, quiet: Duration) -> Result<Vec<Row>> {
        let group = format!("{}-ro-{}", self.prefix, now_microseconds());
        let consumer = self.consumer(&group, isolation, "range")?;
        let metadata = consumer.fetch_metadata(Some(topic), seconds(10))?;
        let topic_metadata = metadata
            .topics()
            .first()
            .context("metadata names no topic")?;
        let mut whole = TopicPartitionList::new();
        for partition in topic_metadata.partitions() {
            whole.add_partition_offset(topic, partition.id(), Offset::Beginning)?;
        }
        consumer.assign(&whole)?;
        let mut rows = vec![];
        let mut last = Instant::now();
        while last.elapsed() < quiet {
            match consumer.poll(Duration::from_millis(100)) {
                Some(Ok(message)) => {
                    last = Instant::now();
                    rows.push(Row {
                        key: text(message.key()),
                        payload: text(message.payload()),
                    });
                }
                Some(Err(error)) => eprintln!("    reading {topic}: {error}"),
                None => {}
            }
        }
        Ok(rows)
    }

    /// Creates topics; one line each, `ok NAME` or `ERR NAME why`.
    pub async fn create(&self, topics: &[TopicSpec<'_>]) -> Result<Vec<String>> {
        let admin: AdminClient<DefaultClientContext> = self.settings().create()?;
        let names: Vec<String> = topics.iter().map(|topic| self.name(topic.0)).collect();
        let wanted: Vec<NewTopic> = topics
            .iter()
            .zip(&names)
            .map(|((_, partitions, configuration), name)| {
                let topic = NewTopic::new(name, *partitions, TopicReplication::Fixed(1));
                configuration
                    .iter()
                    .fold(topic, |topic, (key, value)| topic.set(key, value))
            })
            .collect();
        let limit = Some(seconds(10));
        let options = AdminOptions::new()
            .operation_timeout(limit)
            .request_timeout(limit);
        let outcomes = admin.create_topics(&wanted, &options).await?;
        Ok(outcomes
            .into_iter()
            .map(|outcome| match outcome {
                Ok(topic) => format!("ok {topic}"),
                Err((topic, error)) => format!("ERR {topic} {error}"),
            })
            .collect())
    }
}

fn text(bytes: Option<&[u8]>) -> String {
    String::from_utf8_lossy(bytes.unwrap_or_default()).into_owned()
}
