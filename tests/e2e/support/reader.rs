//! Reads topics as every consumer of results should: `read_committed`.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Header, Headers, Message};
use rdkafka::{Offset, TopicPartitionList};
use serde_json::Value;

/// A topic counts as read when the end of each partition was reached and then nothing came for so long.
const QUIET: Duration = Duration::from_secs(5);
const END_LIMIT: Duration = Duration::from_secs(120);
const METADATA_LIMIT: Duration = Duration::from_secs(60);

/// One record.
pub struct Record {
    pub key: String,
    pub value: Vec<u8>,
    /// Key and value as they are, absent ones included.
    pub raw_key: Option<Vec<u8>>,
    pub raw_value: Option<Vec<u8>>,
    pub headers: BTreeMap<String, String>,
}

impl Record {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.value).expect("the value is JSON")
    }
}

/// All committed records of `topic`, each partition in its order; none where it does not exist.
pub fn read_all(bootstrap: &str, topic: &str) -> Vec<Record> {
    let consumer = from_beginning(bootstrap, topic);
    let partitions = consumer.assignment().expect("an assignment").count();
    let mut at_end = HashSet::new();
    let mut records = vec![];
    let mut last = Instant::now();
    while at_end.len() < partitions || last.elapsed() < QUIET {
        let record = match consumer.poll(Duration::from_millis(100)) {
            None => {
                assert!(
                    last.elapsed() < END_LIMIT,
                    "the end of `{topic}` does not come"
                );
                continue;
            }
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                at_end.insert(partition);
                continue;
            }
            Some(record) => record.expect("the broker is there while results are read"),
        };
        last = Instant::now();
        records.push(Record {
            key: String::from_utf8_lossy(record.key().unwrap_or_default()).into_owned(),
            value: record.payload().unwrap_or_default().to_vec(),
            raw_key: record.key().map(<[u8]>::to_vec),
            raw_value: record.payload().map(<[u8]>::to_vec),
            headers: headers(&record),
        });
    }
    records
}

fn headers(record: &BorrowedMessage<'_>) -> BTreeMap<String, String> {
    let text = |header: Header<'_, &[u8]>| {
        let value = String::from_utf8_lossy(header.value.unwrap_or_default());
        (header.key.to_owned(), value.into_owned())
    };
    let headers = record.headers();
    headers.map_or_else(BTreeMap::new, |headers| headers.iter().map(text).collect())
}

fn from_beginning(bootstrap: &str, topic: &str) -> BaseConsumer {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", bootstrap)
        .set("group.id", "reader")
        .set("isolation.level", "read_committed")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .set("reconnect.backoff.max.ms", "1000")
        .create()
        .expect("a consumer");
    let metadata = consumer
        .fetch_metadata(Some(topic), METADATA_LIMIT)
        .expect("metadata");
    let mut whole = TopicPartitionList::new();
    for partition in metadata
        .topics()
        .iter()
        .flat_map(|topic| topic.partitions())
    {
        whole
            .add_partition_offset(topic, partition.id(), Offset::Beginning)
            .expect("a valid offset");
    }
    consumer.assign(&whole).expect("an assignment");
    consumer
}

/// Follows `events` and counts the runs that ended.
pub struct Follower {
    stop: Arc<AtomicBool>,
    ended: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
}

impl Follower {
    pub fn start(bootstrap: &str) -> Follower {
        let stop = Arc::new(AtomicBool::new(false));
        let ended = Arc::new(AtomicUsize::new(0));
        let consumer = from_beginning(bootstrap, "partita.events");
        let thread = {
            let (stop, ended) = (stop.clone(), ended.clone());
            thread::spawn(move || {
                let mut runs = HashSet::new();
                while !stop.load(Ordering::SeqCst) {
                    // Errors come while the broker is away; the client comes back by itself.
                    let Some(Ok(record)) = consumer.poll(Duration::from_millis(100)) else {
                        continue;
                    };
                    let event: Value = serde_json::from_slice(record.payload().unwrap_or_default())
                        .expect("an event is JSON");
                    if is_end(event["type"].as_str().unwrap_or_default()) {
                        runs.insert(record.key().unwrap_or_default().to_vec());
                        ended.store(runs.len(), Ordering::SeqCst);
                    }
                }
            })
        };
        Follower {
            stop,
            ended,
            thread: Some(thread),
        }
    }

    /// How many runs have ended so far.
    pub fn ended(&self) -> usize {
        self.ended.load(Ordering::SeqCst)
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
            && !thread::panicking()
        {
            panic!("the follower of events panicked");
        }
    }
}

/// Whether an event of this type ends a run.
pub fn is_end(event_type: &str) -> bool {
    matches!(
        event_type,
        "partita.run.completed" | "partita.run.failed" | "partita.run.cancelled"
    )
}
