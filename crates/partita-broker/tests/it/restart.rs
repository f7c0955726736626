//! What survives: an orderly stop, kill -9 in the middle of everything, a torn end of the log.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use partita_broker::{Broker, Config};
use rdkafka::producer::{FutureProducer, FutureRecord, Producer};

use crate::support::*;

#[test]
fn everything_is_there_after_an_orderly_restart() {
    let folder = tempfile::tempdir().unwrap();
    let mut broker = TestBroker::folder(folder.path());
    create(&broker.address(), "a", 2, &[("retention.ms", "1000000000")]);
    for round in 1..4 {
        let client = producer(&broker.address());
        (0..100).for_each(|number| send(&client, "a", number % 2, "k", &number.to_string()));
        settle(&client);
        let transaction = transactional(&broker.address(), "t", PATIENCE);
        transaction.begin_transaction().unwrap();
        send(&transaction, "a", 0, "k", "aborted");
        settle(&transaction);
        transaction.abort_transaction(PATIENCE).unwrap();
        broker.restart();
        for partition in 0..2 {
            let read = read_all(&broker.address(), "a", partition, "read_committed");
            assert_eq!(read.len(), round * 50, "partition {partition}");
            assert!(!values(&read).contains(&"aborted"));
        }
    }
}

#[test]
fn a_killed_broker_has_every_record_that_it_acknowledged() {
    for fsync in ["never", "always"] {
        let folder = tempfile::tempdir().unwrap();
        let mut broker = Process::start(folder.path(), &["--fsync", fsync]);
        let address = broker.address.clone();
        create(&address, "a", 4, &[]);
        let stop = Arc::new(AtomicBool::new(false));
        let acknowledged = Arc::new(AtomicUsize::new(0));
        let writer = {
            let (address, stop, acknowledged) =
                (address.clone(), stop.clone(), acknowledged.clone());
            std::thread::spawn(move || {
                let mut config = client(&address);
                config
                    .set("enable.idempotence", "true")
                    .set("linger.ms", "0")
                    .set("reconnect.backoff.max.ms", "100");
                let producer: FutureProducer =
                    config.set("message.timeout.ms", "60000").create().unwrap();
                block_on(async {
                    let mut number = 0;
                    while !stop.load(Ordering::Acquire) {
                        let values: Vec<String> = (number..number + 20)
                            .map(|value: usize| value.to_string())
                            .collect();
                        let sent: Vec<_> = values
                            .iter()
                            .map(|value| {
                                let partition = value.parse::<i32>().unwrap() % 4;
                                let record = FutureRecord::to("a")
                                    .partition(partition)
                                    .key("k")
                                    .payload(value);
                                producer
                                    .send_result(record)
                                    .map_err(|(error, _)| error)
                                    .unwrap()
                            })
                            .collect();
                        for delivery in sent {
                            delivery.await.unwrap().unwrap();
                        }
                        number += 20;
                        acknowledged.store(number, Ordering::Release);
                    }
                });
            })
        };
        for round in 1..5 {
            let target = acknowledged.load(Ordering::Acquire) + 200;
            eventually("records are acknowledged", || {
                acknowledged.load(Ordering::Acquire) >= target
            });
            broker.kill();
            broker = Process::start_on(folder.path(), &address, &["--fsync", fsync]);
            eprintln!("killed and restarted {round} times");
        }
        stop.store(true, Ordering::Release);
        writer.join().unwrap();
        let total = acknowledged.load(Ordering::Acquire);
        let mut all: Vec<usize> = (0..4)
            .flat_map(|partition| read_all(&address, "a", partition, "read_committed"))
            .map(|read| read.value.unwrap().parse().unwrap())
            .collect();
        all.sort_unstable();
        // Each once: the producer is idempotent across the restarts too.
        assert!(
            all.iter().copied().eq(0..total),
            "{fsync}: {} records for {total}",
            all.len()
        );
    }
}

#[test]
fn a_transaction_that_was_open_when_the_broker_died_can_be_aborted_by_its_heir() {
    let folder = tempfile::tempdir().unwrap();
    let broker = Process::start(folder.path(), &[]);
    let address = broker.address.clone();
    create(&address, "a", 1, &[]);
    let lost = transactional(&address, "t", PATIENCE);
    lost.begin_transaction().unwrap();
    send(&lost, "a", 0, "k", "lost");
    settle(&lost);
    broker.kill();
    drop(lost);
    let _broker = Process::start_on(folder.path(), &address, &[]);
    assert_eq!(read_all(&address, "a", 0, "read_committed"), []);
    let heir = transactional(&address, "t", PATIENCE);
    heir.begin_transaction().unwrap();
    send(&heir, "a", 0, "k", "heir");
    settle(&heir);
    heir.commit_transaction(PATIENCE).unwrap();
    assert_eq!(
        values(&read_all(&address, "a", 0, "read_committed")),
        ["heir"]
    );
}

#[test]
fn a_torn_end_is_cut_off_and_the_rest_is_there() {
    let folder = tempfile::tempdir().unwrap();
    for round in 1..4 {
        let broker = Process::start(folder.path(), &[]);
        let address = broker.address.clone();
        let client = producer(&address);
        send(&client, "a", 0, "k", &round.to_string());
        settle(&client);
        let read = read_all(&address, "a", 0, "read_committed");
        assert_eq!(
            values(&read),
            (1..=round)
                .map(|round| round.to_string())
                .collect::<Vec<_>>()
        );
        broker.kill();
        let newest = newest_segment(folder.path());
        // The beginning of a frame, as a crash in the middle of a write leaves it.
        OpenOptions::new()
            .append(true)
            .open(newest)
            .unwrap()
            .write_all(&[200, 0, 0, 0, 1, 2, 3, 4, 5])
            .unwrap();
    }
}

fn newest_segment(folder: &std::path::Path) -> PathBuf {
    let files = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    files
        .filter(|path| path.extension().is_some_and(|extension| extension == "log"))
        .max()
        .unwrap()
}

#[test]
fn small_segments_and_frequent_checkpoints_change_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = quick(Config::folder(folder.path()));
    (
        config.segment_bytes,
        config.checkpoint_bytes,
        config.log_segments,
    ) = (32 << 10, 16 << 10, 2);
    config.maintenance_interval = Duration::from_millis(5);
    let mut broker = TestBroker::start(config);
    create(&broker.address(), "a", 2, &[]);
    let mut expected = Vec::new();
    for round in 0..5 {
        let client = transactional(&broker.address(), "t", PATIENCE);
        for transaction in 0..10 {
            client.begin_transaction().unwrap();
            for number in 0..20 {
                let value = format!("{round}-{transaction}-{number}-{}", "v".repeat(100));
                send(&client, "a", number % 2, "k", &value);
                if transaction % 3 > 0 && number % 2 == 0 {
                    expected.push(value);
                }
            }
            settle(&client);
            if transaction % 3 > 0 {
                client.commit_transaction(PATIENCE).unwrap();
            } else {
                client.abort_transaction(PATIENCE).unwrap();
            }
        }
        broker.restart();
        assert_eq!(
            values(&read_all(&broker.address(), "a", 0, "read_committed")),
            expected
        );
    }
}

#[test]
fn one_broker_at_a_time_uses_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    let broker = TestBroker::folder(folder.path());
    let Err(error) = block_on(Broker::start(Config::folder(folder.path()))) else {
        panic!("two brokers, one folder")
    };
    assert!(
        error.to_string().contains("in use by another broker"),
        "{error}"
    );
    broker.stop();
    TestBroker::folder(folder.path()).stop();
}
