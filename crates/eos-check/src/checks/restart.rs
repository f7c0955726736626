//! e: what a broker that was killed or restarted between the two phases must have kept.

use anyhow::Result;
use rdkafka::consumer::Consumer;
use rdkafka::producer::{BaseRecord, Producer};

use crate::client::{Target, seconds, send, send_numbered};
use crate::figures::{duplicates_and_missing, number_of, payload};
use crate::report::Report;
use crate::transform::{Mishaps, Transform};

/// Records below this number belong to the transaction that nobody ended.
const FIRST_COMMITTED: usize = 100;

/// The end of phase 1: a transaction that this process never ends.
pub fn leave_transaction_open(target: &Target) -> Result<()> {
    let producer = target.transactional_producer(&target.name("txopen"))?;
    producer.init_transactions(seconds(20))?;
    producer.begin_transaction()?;
    for number in 0..10 {
        send_numbered(&producer, &target.name("open"), "a", number)?;
    }
    producer.flush(seconds(10))?;
    println!("  left transaction 'txopen' open with 10 records");
    // Dropping it would abort the transaction in good order.
    std::mem::forget(producer);
    Ok(())
}

pub fn list_topics(target: &Target) -> Result<()> {
    let consumer = target.consumer("md", "read_committed", "range")?;
    let metadata = consumer.fetch_metadata(None, seconds(10))?;
    let topics: Vec<String> = metadata
        .topics()
        .iter()
        .map(|topic| format!("{}/{}", topic.name(), topic.partitions().len()))
        .collect();
    println!("  topics after restart: {topics:?}");
    Ok(())
}

/// The open transaction stays invisible, and its id can be taken over.
pub fn open_transaction_is_gone(target: &Target, report: &mut Report) -> Result<()> {
    let topic = target.name("open");
    let committed = target.read_all(&topic, "read_committed", seconds(3))?.len();
    let uncommitted = target
        .read_all(&topic, "read_uncommitted", seconds(3))?
        .len();
    let producer = target.transactional_producer(&target.name("txopen"))?;
    producer.init_transactions(seconds(20))?;
    producer.begin_transaction()?;
    for number in FIRST_COMMITTED..FIRST_COMMITTED + 3 {
        send_numbered(&producer, &topic, "b", number)?;
    }
    producer.commit_transaction(seconds(20))?;
    let after = target.read_all(&topic, "read_committed", seconds(2))?;
    let aborted = after
        .iter()
        .filter(|row| number_of(&row.payload) < FIRST_COMMITTED)
        .count();
    report.verdict(
        "e open txn across restart",
        committed == 0 && after.len() == 3 && aborted == 0,
        &format!(
            "RC after restart {committed} (want 0) RU {uncommitted} (want 10), \
             after re-init+commit RC {} (want 3, of which aborted {aborted})",
            after.len()
        ),
    );
    Ok(())
}

/// The loop of phase 1 goes on where it stood.
pub fn goes_on(target: &Target, report: &mut Report) -> Result<()> {
    const MORE: usize = 1000;
    let out = target.name("out");
    let before = target.read_all(&out, "read_committed", seconds(2))?.len();
    let producer = target.producer()?;
    for number in 0..MORE {
        let key = format!("k{number}");
        let value = payload(target.records + number);
        send(
            &producer,
            BaseRecord::to(&target.name("in")).key(&key).payload(&value),
        )?;
    }
    producer.flush(seconds(20))?;
    let transform = Transform {
        target,
        source: target.name("in"),
        sink: out.clone(),
        changelog: None,
        group: target.name("gtx"),
        transactional_id: target.name("tx1"),
        batch: 100,
    };
    let mishaps = Mishaps {
        abort: &[3],
        crash: None,
    };
    let did = transform.run(MORE, &mishaps, seconds(30))?.committed;
    let after = target.read_all(&out, "read_committed", seconds(2))?;
    let (duplicates, missing) = duplicates_and_missing(&after, target.records + MORE);
    report.verdict(
        "e loop continues after restart",
        did == MORE && duplicates == 0 && missing == 0,
        &format!(
            "did {did}; out {before} -> {} dup {duplicates} missing {missing}",
            after.len()
        ),
    );
    Ok(())
}
