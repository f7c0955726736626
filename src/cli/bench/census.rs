//! How many records, of how many bytes, a step costs: counted on the topics themselves, as any
//! other client sees them, and not claimed.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::{Headers as _, Message as _};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};

use super::FETCH_WAIT;
use super::shape::AGENT;
use crate::cli::CliError;
use crate::log::kafka::reader_config;

/// The count ends here, wherever it is: enough records for a mean.
const WITHIN: Duration = Duration::from_secs(30);
/// Topics with no further record for so long have been read to their end.
const QUIET: Duration = Duration::from_millis(1_500);

/// Records of one topic.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Count {
    pub records: u64,
    /// Keys, values and headers.
    pub bytes: u64,
}

impl std::ops::Add for Count {
    type Output = Count;
    fn add(self, other: Count) -> Count {
        Count {
            records: self.records + other.records,
            bytes: self.bytes + other.bytes,
        }
    }
}

impl Count {
    pub fn mean_bytes(self) -> usize {
        usize::try_from(self.bytes.checked_div(self.records).unwrap_or(0)).unwrap_or(usize::MAX)
    }
}

/// Counts the committed records of the topics that the engine writes, from these positions on.
pub fn count(
    client: &ClientConfig,
    prefix: &str,
    from: &Positions,
) -> Result<BTreeMap<&'static str, Count>, CliError> {
    let failed = |error: KafkaError| CliError::Unreachable(format!("counting records: {error}"));
    let consumer = consumer(client, prefix).map_err(failed)?;
    let mut list = TopicPartitionList::new();
    for ((topic, partition), offset) in &from.0 {
        list.add_partition_offset(topic, *partition, Offset::Offset(*offset))
            .map_err(failed)?;
    }
    consumer.assign(&list).map_err(failed)?;
    let mut counts: BTreeMap<&'static str, Count> = names()
        .into_iter()
        .map(|name| (name, Count::default()))
        .collect();
    let (deadline, mut last) = (Instant::now() + WITHIN, Instant::now());
    while Instant::now() < deadline && last.elapsed() < QUIET {
        let Some(message) = consumer.poll(Duration::from_millis(50)) else {
            continue;
        };
        let message = message.map_err(failed)?;
        last = Instant::now();
        let name = message.topic().strip_prefix(prefix).unwrap_or_default();
        let Some((_, count)) = counts.iter_mut().find(|(known, _)| topic_of(known) == name) else {
            continue;
        };
        let headers = message.headers().map_or(0, |headers| {
            headers
                .iter()
                .map(|header| header.key.len() + header.value.map_or(0, <[u8]>::len))
                .sum::<usize>()
        });
        count.records += 1;
        count.bytes += (message.key_len() + message.payload_len() + headers) as u64;
    }
    Ok(counts)
}

/// Ends of partitions at one moment.
pub struct Positions(BTreeMap<(String, i32), i64>);

/// Where the topics that the engine writes end now.
pub fn ends(client: &ClientConfig, prefix: &str) -> Result<Positions, CliError> {
    let failed = |error: KafkaError| CliError::Unreachable(format!("counting records: {error}"));
    let consumer = consumer(client, prefix).map_err(failed)?;
    let within = Duration::from_secs(10);
    let mut ends = BTreeMap::new();
    for name in names() {
        let topic = format!("{prefix}{}", topic_of(name));
        let metadata = consumer
            .fetch_metadata(Some(&topic), within)
            .map_err(failed)?;
        for partition in metadata
            .topics()
            .iter()
            .flat_map(|topic| topic.partitions())
        {
            let (_, end) = consumer
                .fetch_watermarks(&topic, partition.id(), within)
                .map_err(failed)?;
            ends.insert((topic.clone(), partition.id()), end);
        }
    }
    Ok(Positions(ends))
}

fn names() -> [&'static str; 3] {
    ["events", "state", "tasks"]
}

fn topic_of(name: &str) -> String {
    if name == "tasks" {
        format!("tasks.{AGENT}")
    } else {
        name.to_owned()
    }
}

fn consumer(client: &ClientConfig, prefix: &str) -> Result<BaseConsumer, KafkaError> {
    let group = format!("{prefix}bench-census");
    reader_config(client.clone(), &group, FETCH_WAIT).create()
}
