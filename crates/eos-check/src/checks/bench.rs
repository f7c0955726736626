//! f and h: latency and throughput, printed, never judged.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::{BaseRecord, FutureProducer, FutureRecord, Producer};
use rdkafka::{Message, Offset, TopicPartitionList};

use crate::client::{Target, seconds, send, send_numbered, settle};
use crate::figures::{now_microseconds, payload, percentile};
use crate::transform::{Mishaps, Transform};

pub async fn run(target: &Target) -> Result<()> {
    sequential(target).await?;
    pipelined(target)?;
    transactions(target)?;
    end_to_end(target)
}

/// One record at a time, each acknowledged before the next.
async fn sequential(target: &Target) -> Result<()> {
    const WARM_UP: usize = 20;
    let mut settings = target.settings();
    settings
        .set("acks", "all")
        .set("enable.idempotence", "true")
        .set("linger.ms", "0");
    let producer: FutureProducer = settings.create()?;
    let topic = target.name("bench");
    let mut latencies = vec![];
    for number in 0..1000 {
        let value = payload(number);
        let record = FutureRecord::to(&topic).key("k").payload(&value);
        let began = Instant::now();
        producer
            .send(record, seconds(10))
            .await
            .map_err(|(error, _)| error)?;
        if number > WARM_UP {
            latencies.push(began.elapsed().as_secs_f64() * 1e3);
        }
    }
    println!(
        "  [f1] sequential produce acks=all 100B: p50 {:.2}ms p99 {:.2}ms",
        percentile(&mut latencies, 0.5),
        percentile(&mut latencies, 0.99)
    );
    Ok(())
}

/// As many records in flight as the client allows.
fn pipelined(target: &Target) -> Result<()> {
    const RECORDS: u32 = 50_000;
    let producer = target.producer()?;
    let topic = target.name("bench");
    let began = Instant::now();
    for number in 0..RECORDS {
        let key = format!("k{number}");
        let value = payload(number as usize);
        send(&producer, BaseRecord::to(&topic).key(&key).payload(&value))?;
    }
    producer.flush(seconds(120))?;
    println!(
        "  [f2] pipelined produce {RECORDS}: {:.0} msg/s (unsent {})",
        f64::from(RECORDS) / began.elapsed().as_secs_f64(),
        producer.in_flight_count()
    );
    Ok(())
}

/// The loop of `transform.rs`, at batches of several sizes.
fn transactions(target: &Target) -> Result<()> {
    for (batch, records) in [(1000, 20_000), (100, 10_000), (10, 1000), (1, 200)] {
        let transform = Transform {
            target,
            source: target.name("bench"),
            sink: target.name("benchout"),
            changelog: None,
            group: target.name(&format!("gb{batch}")),
            transactional_id: target.name(&format!("txb{batch}")),
            batch,
        };
        let began = Instant::now();
        let mut done = transform.run(records, &Mishaps::default(), seconds(60))?;
        let milliseconds: f64 = done.latencies.iter().sum();
        #[expect(clippy::cast_precision_loss, reason = "some thousands of records")]
        let rate = done.committed as f64 / (milliseconds / 1e3);
        println!(
            "  [f3] txn loop batch={batch}: {} msgs, txn p50 {:.2}ms p99 {:.2}ms, {rate:.0} msg/s \
             (txn time only), wall {:.1}s",
            done.committed,
            percentile(&mut done.latencies, 0.5),
            percentile(&mut done.latencies, 0.99),
            began.elapsed().as_secs_f64()
        );
    }
    Ok(())
}

/// From a source through a transactional loop to a `read_committed` sink, one record every
/// 10 ms, each carrying the time at which it was sent.
fn end_to_end(target: &Target) -> Result<()> {
    const RECORDS: usize = 1000;
    const COLD: usize = 100;
    let (source, sink) = (target.name("lsrc"), target.name("lout"));
    let (ready, stop) = (AtomicBool::new(false), AtomicBool::new(false));
    let latencies = thread::scope(|scope| -> Result<Vec<f64>> {
        let reader = scope.spawn(|| read_latencies(target, &sink, RECORDS));
        let relay = scope.spawn(|| relay(target, &source, &sink, &ready, &stop));
        let sent = send_timestamps(target, &source, RECORDS, &ready);
        let latencies = reader.join().expect("the reader does not panic");
        stop.store(true, Ordering::SeqCst);
        relay.join().expect("the relay does not panic")?;
        sent?;
        latencies
    })?;
    let mut warm: Vec<f64> = latencies.iter().skip(COLD).copied().collect();
    println!(
        "  [f4] same without the first {COLD} (cold start): p50 {:.1}ms p99 {:.1}ms max {:.1}ms",
        percentile(&mut warm, 0.5),
        percentile(&mut warm, 0.99),
        percentile(&mut warm, 1.0)
    );
    let mut all = latencies;
    println!(
        "  [f4] e2e src->txn loop->read_committed sink @100 msg/s: n {} p50 {:.1}ms p99 {:.1}ms \
         max {:.1}ms",
        all.len(),
        percentile(&mut all, 0.5),
        percentile(&mut all, 0.99),
        percentile(&mut all, 1.0)
    );
    Ok(())
}

fn send_timestamps(target: &Target, topic: &str, records: usize, ready: &AtomicBool) -> Result<()> {
    let producer = target.producer()?;
    let began = Instant::now();
    while !ready.load(Ordering::SeqCst) && began.elapsed() < seconds(20) {
        thread::sleep(Duration::from_millis(50));
    }
    let padding = "y".repeat(84);
    for _ in 0..records {
        let value = format!("{:016}{padding}", now_microseconds());
        send(
            &producer,
            BaseRecord::<(), _>::to(topic).partition(0).payload(&value),
        )?;
        thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

fn read_latencies(target: &Target, topic: &str, records: usize) -> Result<Vec<f64>> {
    let consumer = target.consumer(&target.name("gsink"), "read_committed", "range")?;
    let mut whole = TopicPartitionList::new();
    whole.add_partition_offset(topic, 0, Offset::Beginning)?;
    consumer.assign(&whole)?;
    let mut latencies = vec![];
    let began = Instant::now();
    while latencies.len() < records && began.elapsed() < seconds(60) {
        let Some(Ok(message)) = consumer.poll(Duration::from_millis(50)) else {
            continue;
        };
        let arrived = now_microseconds();
        let digits = message.payload().and_then(|value| value.get(..16));
        let sent: u128 =
            std::str::from_utf8(digits.context("a record without a time")?)?.parse()?;
        #[expect(clippy::cast_precision_loss, reason = "microseconds of seconds")]
        latencies.push(arrived.saturating_sub(sent) as f64 / 1e3);
    }
    Ok(latencies)
}

fn relay(
    target: &Target,
    source: &str,
    sink: &str,
    ready: &AtomicBool,
    stop: &AtomicBool,
) -> Result<()> {
    const MOST: usize = 500;
    let producer = target.transactional_producer(&target.name("txlat"))?;
    producer.init_transactions(seconds(20))?;
    let consumer = target.subscriber(&target.name("glat"), source)?;
    await_assignment(&consumer)?;
    ready.store(true, Ordering::SeqCst);
    while !stop.load(Ordering::SeqCst) {
        let mut batch: Vec<(i32, i64, Vec<u8>)> = vec![];
        let mut patience = Duration::from_millis(50);
        while batch.len() < MOST {
            let Some(polled) = consumer.poll(patience) else {
                break;
            };
            let message = polled?;
            let value = message.payload().unwrap_or_default().to_vec();
            batch.push((message.partition(), message.offset(), value));
            // Only the first record is waited for; the rest is what is there already.
            patience = Duration::ZERO;
        }
        if batch.is_empty() {
            continue;
        }
        producer.begin_transaction()?;
        let mut next: BTreeMap<i32, i64> = BTreeMap::new();
        for (partition, offset, value) in &batch {
            next.insert(*partition, offset + 1);
            send(
                &producer,
                BaseRecord::<(), _>::to(sink).partition(0).payload(value),
            )?;
        }
        let mut offsets = TopicPartitionList::new();
        for (partition, offset) in next {
            offsets.add_partition_offset(source, partition, Offset::Offset(offset))?;
        }
        settle(&producer);
        let membership = consumer
            .group_metadata()
            .ok_or_else(|| anyhow!("no group metadata"))?;
        producer.send_offsets_to_transaction(&offsets, &membership, seconds(20))?;
        producer.commit_transaction(seconds(20))?;
    }
    Ok(())
}

fn await_assignment(consumer: &BaseConsumer) -> Result<()> {
    let began = Instant::now();
    while consumer.assignment()?.count() == 0 && began.elapsed() < seconds(20) {
        // Nothing has been sent yet that could be lost here.
        drop(consumer.poll(Duration::from_millis(20)));
    }
    Ok(())
}

/// h: a hundred transactions of one record, each part of them timed by itself.
pub fn parts_of_a_transaction(target: &Target) -> Result<()> {
    const PARTS: [&str; 4] = ["begin+send+settle", "send_offsets", "commit", "total"];
    let producer = target.transactional_producer(&target.name("txsteps"))?;
    producer.init_transactions(seconds(20))?;
    let source = target.name("in");
    let sink = target.name("out");
    let consumer = target.subscriber(&target.name("gsteps"), &source)?;
    await_assignment(&consumer)?;
    let mut times: [Vec<f64>; 4] = Default::default();
    for number in 0..100_u16 {
        let mut marks = vec![Instant::now()];
        producer.begin_transaction()?;
        send_numbered(&producer, &sink, "s", usize::from(number))?;
        let mut offsets = TopicPartitionList::new();
        offsets.add_partition_offset(&source, 0, Offset::Offset(i64::from(number)))?;
        settle(&producer);
        marks.push(Instant::now());
        let membership = consumer.group_metadata().context("no group metadata")?;
        producer.send_offsets_to_transaction(&offsets, &membership, seconds(20))?;
        marks.push(Instant::now());
        producer.commit_transaction(seconds(20))?;
        marks.push(Instant::now());
        for (part, pair) in marks.windows(2).enumerate() {
            times[part].push((pair[1] - pair[0]).as_secs_f64() * 1e3);
        }
        times[3].push(marks[0].elapsed().as_secs_f64() * 1e3);
    }
    for (name, times) in PARTS.iter().zip(&mut times) {
        println!(
            "  [h] {name}: p50 {:.2}ms p99 {:.2}ms",
            percentile(times, 0.5),
            percentile(times, 0.99)
        );
    }
    Ok(())
}
