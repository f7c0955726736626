//! b: an idempotent producer, a group that commits, and a second member that goes on from there.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::Result;
use rdkafka::consumer::{CommitMode, Consumer};
use rdkafka::producer::{BaseRecord, Producer};
use rdkafka::{Message, Offset, TopicPartitionList};

use crate::client::{Row, Target, seconds, send};
use crate::figures::{duplicates_and_missing, payload};
use crate::report::Report;

pub fn run(target: &Target, report: &mut Report) -> Result<()> {
    let topic = target.name("in");
    let group = target.name("g1");
    fill(target, &topic)?;
    let mut seen = vec![];
    let rounds = [target.records * 4 / 10, target.records];
    for (round, wanted) in rounds.into_iter().enumerate() {
        read_and_commit(target, &topic, &group, round, wanted, &mut seen)?;
    }
    let redelivered = count_left(target, &topic, &group)?;
    let (duplicates, missing) = duplicates_and_missing(&seen, target.records);
    report.verdict(
        "b produce/consume/commit/resume",
        duplicates == 0 && missing == 0 && redelivered == 0,
        &format!(
            "got {} dup {duplicates} missing {missing} redelivered-after-commit {redelivered}",
            seen.len()
        ),
    );
    Ok(())
}

fn fill(target: &Target, topic: &str) -> Result<()> {
    let producer = target.producer()?;
    let began = Instant::now();
    for number in 0..target.records {
        let key = format!("k{}", number % 1000);
        send(
            &producer,
            BaseRecord::to(topic).key(&key).payload(&payload(number)),
        )?;
    }
    producer.flush(seconds(60))?;
    println!(
        "  produced {} idempotent acks=all in {:.3}s",
        target.records,
        began.elapsed().as_secs_f64()
    );
    Ok(())
}

fn read_and_commit(
    target: &Target,
    topic: &str,
    group: &str,
    round: usize,
    wanted: usize,
    seen: &mut Vec<Row>,
) -> Result<()> {
    let consumer = target.subscriber(group, topic)?;
    let mut next: BTreeMap<i32, i64> = BTreeMap::new();
    let began = Instant::now();
    let mut first = None;
    while seen.len() < wanted && began.elapsed() < seconds(60) {
        let Some(polled) = consumer.poll(Duration::from_millis(100)) else {
            continue;
        };
        let message = polled?;
        first.get_or_insert(began.elapsed());
        next.insert(message.partition(), message.offset() + 1);
        seen.push(Row {
            key: String::new(),
            payload: String::from_utf8_lossy(message.payload().unwrap_or_default()).into_owned(),
        });
    }
    let mut offsets = TopicPartitionList::new();
    for (partition, offset) in next {
        offsets.add_partition_offset(topic, partition, Offset::Offset(offset))?;
    }
    consumer.commit(&offsets, CommitMode::Sync)?;
    println!(
        "  round {round}: have {} first msg after {first:?} total {:.2}s",
        seen.len(),
        began.elapsed().as_secs_f64()
    );
    Ok(())
}

/// How many records a member that joins after the last commit still gets.
fn count_left(target: &Target, topic: &str, group: &str) -> Result<usize> {
    let consumer = target.subscriber(group, topic)?;
    let began = Instant::now();
    let mut left = 0;
    while began.elapsed() < seconds(5) {
        if let Some(Ok(_)) = consumer.poll(Duration::from_millis(100)) {
            left += 1;
        }
    }
    Ok(left)
}
