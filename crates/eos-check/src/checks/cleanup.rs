//! g: compaction keeps the latest value of each key. And what a mock cluster retains.

use std::collections::HashMap;
use std::thread;

use anyhow::Result;
use rdkafka::consumer::Consumer;
use rdkafka::producer::{BaseRecord, Producer};

use crate::client::{Target, TopicSpec, seconds, send, send_numbered};
use crate::figures::{number_of, payload};
use crate::report::Report;

const RECORDS: usize = 20_000;
const KEYS: usize = 100;

const COMPACTED: TopicSpec<'static> = (
    "cmp",
    1,
    &[
        ("cleanup.policy", "compact"),
        ("segment.bytes", "1048576"),
        ("segment.ms", "1000"),
        ("min.cleanable.dirty.ratio", "0.01"),
        ("max.compaction.lag.ms", "1000"),
        ("delete.retention.ms", "100"),
    ],
);

pub async fn compaction(target: &Target, report: &mut Report) -> Result<()> {
    println!("  {:?}", target.create(&[COMPACTED]).await?);
    let topic = target.name("cmp");
    let producer = target.producer()?;
    for number in 0..RECORDS {
        let key = format!("k{}", number % KEYS);
        send(
            &producer,
            BaseRecord::to(&topic)
                .partition(0)
                .key(&key)
                .payload(&payload(number)),
        )?;
    }
    producer.flush(seconds(60))?;
    let (mut intact, mut left) = (true, RECORDS);
    for wait in [0, 10, 30, 45] {
        thread::sleep(seconds(wait));
        let rows = target.read_all(&topic, "read_committed", seconds(2))?;
        let latest: HashMap<&str, usize> = rows
            .iter()
            .map(|row| (row.key.as_str(), number_of(&row.payload)))
            .collect();
        let whole = latest.len() == KEYS && latest.values().all(|number| *number >= RECORDS - KEYS);
        intact &= whole;
        left = rows.len();
        println!(
            "  after +{wait}s: {left} records, {} keys, latest values intact {whole}",
            latest.len()
        );
        if left <= RECORDS / 2 {
            break;
        }
    }
    report.verdict(
        "g compaction",
        intact && left <= RECORDS / 2,
        &format!("{RECORDS} records -> {left}, latest values intact {intact}"),
    );
    Ok(())
}

/// Fills one partition and prints what is kept of it.
pub fn retention(target: &Target) -> Result<()> {
    let producer = target.producer()?;
    let topic = target.name("ret");
    for number in 0..150_000 {
        send_numbered(&producer, &topic, "k", number)?;
    }
    producer.flush(seconds(60))?;
    let consumer = target.consumer("x", "read_committed", "range")?;
    let (low, high) = consumer.fetch_watermarks(&topic, 0, seconds(5))?;
    println!(
        "  retention: produced 150k x 100B to one partition: watermarks low {low} high {high} \
         -> kept {}",
        high - low
    );
    Ok(())
}
