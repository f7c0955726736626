//! c: transactions with aborts and a crash, the fencing of a zombie, and the last stable offset.

use std::collections::HashSet;
use std::time::Instant;

use anyhow::Result;
use rdkafka::consumer::Consumer;
use rdkafka::producer::Producer;
use rdkafka::{Offset, TopicPartitionList};

use crate::client::{Target, seconds, send_numbered};
use crate::figures::{duplicates_and_missing, percentile};
use crate::report::Report;
use crate::transform::{Mishaps, Transform};

/// Moves all records through a loop that aborts now and then, crashes once and goes on.
pub fn run(target: &Target, report: &mut Report) -> Result<()> {
    let transform = Transform {
        target,
        source: target.name("in"),
        sink: target.name("out"),
        changelog: Some(target.name("chg")),
        group: target.name("gtx"),
        transactional_id: target.name("tx1"),
        batch: 100,
    };
    let began = Instant::now();
    let mishaps = Mishaps {
        abort: &[10, 11, 25],
        crash: Some(40),
    };
    let mut first = transform.run(target.records, &mishaps, seconds(120))?;
    let first_took = began.elapsed();
    let mishaps = Mishaps {
        abort: &[5],
        crash: None,
    };
    let mut second = transform.run(target.records - first.committed, &mishaps, seconds(120))?;
    println!(
        "  first half {} msgs {:.2}s (batch p50 {:.2}ms), after crash {} msgs in {:.2}s incl. join \
         (batch of 100: p50 {:.2}ms p99 {:.2}ms)",
        first.committed,
        first_took.as_secs_f64(),
        percentile(&mut first.latencies, 0.5),
        second.committed,
        (began.elapsed() - first_took).as_secs_f64(),
        percentile(&mut second.latencies, 0.5),
        percentile(&mut second.latencies, 0.99),
    );
    if let Some(zombie) = first.zombie {
        let outcome = zombie.commit_transaction(seconds(10));
        let detail = format!("old producer commit -> {outcome:?}");
        report.verdict("c zombie fenced", outcome.is_err(), &detail);
    }
    verify(target, "c", report)
}

/// What [`run`] left behind: every record exactly once, and the group's offsets at the end.
pub fn verify(target: &Target, tag: &str, report: &mut Report) -> Result<()> {
    let wanted = target.records;
    let committed = target.read_all(&target.name("out"), "read_committed", seconds(3))?;
    let (duplicates, missing) = duplicates_and_missing(&committed, wanted);
    report.verdict(
        &format!("{tag} exactly-once read_committed 'out'"),
        duplicates == 0 && missing == 0,
        &format!(
            "{} records, dup {duplicates}, missing {missing}",
            committed.len()
        ),
    );
    let changelog = target.read_all(&target.name("chg"), "read_committed", seconds(3))?;
    let (duplicates, missing) = duplicates_and_missing(&changelog, wanted);
    let keys: HashSet<&str> = changelog.iter().map(|row| row.key.as_str()).collect();
    report.verdict(
        &format!("{tag} exactly-once read_committed 'chg'(compact topic)"),
        duplicates == 0 && keys.len() == wanted.min(1000),
        &format!(
            "{} records, dup {duplicates}, superseded-by-compaction {missing}",
            changelog.len()
        ),
    );
    let uncommitted = target.read_all(&target.name("out"), "read_uncommitted", seconds(3))?;
    let (duplicates, _) = duplicates_and_missing(&uncommitted, wanted);
    report.verdict(
        &format!("{tag} read_uncommitted sees aborted"),
        uncommitted.len() > wanted,
        &format!("{} records (dup {duplicates})", uncommitted.len()),
    );
    let (committed, end) = positions(target)?;
    report.verdict(
        &format!("{tag} group offsets == end"),
        committed == end && usize::try_from(committed).is_ok_and(|sum| sum >= wanted),
        &format!("committed sum {committed} hwm sum {end}"),
    );
    Ok(())
}

/// The group's committed offsets and the ends of the input's partitions, each summed up.
fn positions(target: &Target) -> Result<(i64, i64)> {
    let topic = target.name("in");
    let consumer = target.consumer(&target.name("gtx"), "read_committed", "range")?;
    let mut partitions = TopicPartitionList::new();
    for partition in 0..4 {
        partitions.add_partition(&topic, partition);
    }
    let (mut committed, mut end) = (0, 0);
    for element in consumer
        .committed_offsets(partitions, seconds(10))?
        .elements()
    {
        if let Offset::Offset(offset) = element.offset() {
            committed += offset;
        }
        end += consumer
            .fetch_watermarks(&topic, element.partition(), seconds(10))?
            .1;
    }
    Ok((committed, end))
}

/// An open transaction hides what others wrote after it, until it ends.
pub fn last_stable_offset(target: &Target, report: &mut Report) -> Result<()> {
    let topic = target.name("lso");
    let transactional = target.transactional_producer(&target.name("txlso"))?;
    transactional.init_transactions(seconds(20))?;
    let plain = target.producer()?;
    transactional.begin_transaction()?;
    for number in 0..10 {
        send_numbered(&transactional, &topic, "a", number)?;
    }
    transactional.flush(seconds(10))?;
    for number in 100..105 {
        send_numbered(&plain, &topic, "b", number)?;
    }
    plain.flush(seconds(10))?;
    let open = target.read_all(&topic, "read_committed", seconds(2))?.len();
    let uncommitted = target
        .read_all(&topic, "read_uncommitted", seconds(2))?
        .len();
    transactional.abort_transaction(seconds(20))?;
    let after = target.read_all(&topic, "read_committed", seconds(2))?.len();
    report.verdict(
        "c LSO (open txn hides later records)",
        open == 0 && uncommitted == 15 && after == 5,
        &format!(
            "RC while open {open} (want 0), RU while open {uncommitted} (want 15), \
             RC after abort {after} (want 5)"
        ),
    );
    Ok(())
}
