//! Compaction: the last of each key stays, tombstones go in time, aborted records go, the end can be reached.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::error::RDKafkaErrorCode;
use rdkafka::producer::{BaseRecord, FutureProducer, FutureRecord, Producer};

use crate::support::*;

/// Compacts whatever there is, at once.
const EAGER: &[(&str, &str)] = &[
    ("cleanup.policy", "compact"),
    ("min.cleanable.dirty.ratio", "0.01"),
    ("segment.ms", "1"),
    ("delete.retention.ms", "100"),
];

fn latest(read: &[Read]) -> BTreeMap<&str, Option<&str>> {
    read.iter()
        .map(|read| (read.key.as_str(), read.value.as_deref()))
        .collect()
}

#[test]
fn the_last_of_each_key_stays_where_it_was() {
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        let folder = tempfile::tempdir().unwrap();
        let mut broker = TestBroker::folder(folder.path());
        create(&broker.address(), "a", 1, EAGER);
        let client: Client = client(&broker.address())
            .set("compression.type", codec)
            .set("linger.ms", "2")
            .create()
            .unwrap();
        for number in 0..3000 {
            send(
                &client,
                "a",
                0,
                &format!("key-{}", number % 30),
                &format!("value-{number}"),
            );
            if number % 100 == 0 {
                settle(&client);
            }
        }
        settle(&client);
        eventually("most records are gone", || {
            read_all(&broker.address(), "a", 0, "read_committed").len() < 300
        });
        let check = |address: &str| {
            let read = read_all(address, "a", 0, "read_committed");
            assert!(
                read.iter()
                    .all(|read| read.value == Some(format!("value-{}", read.offset))),
                "{codec}: offsets stay"
            );
            assert_eq!(latest(&read).len(), 30);
            assert!(
                latest(&read)
                    .values()
                    .all(|value| value.unwrap() >= "value-2970"),
                "{codec}"
            );
            assert_eq!(watermarks(address, "a", 0), (0, 3000));
        };
        check(&broker.address());
        broker.restart();
        check(&broker.address());
    }
}

#[test]
fn tombstones_go_when_their_time_has_come() {
    let broker = TestBroker::memory();
    let address = broker.address();
    create(&address, "a", 1, EAGER);
    let client = producer(&address);
    send(&client, "a", 0, "dead", "value");
    send(&client, "a", 0, "alive", "value");
    settle(&client);
    client
        .send(BaseRecord::<str, str>::to("a").partition(0).key("dead"))
        .map_err(|(error, _)| error)
        .unwrap();
    settle(&client);
    // The last entry always stays, whatever it holds.
    send(&client, "a", 0, "last", "value");
    settle(&client);
    eventually("key and tombstone are gone", || {
        let read = read_all(&address, "a", 0, "read_committed");
        latest(&read).keys().eq(["alive", "last"].iter())
    });
}

#[test]
fn aborted_records_go_and_do_not_count_as_the_last() {
    let broker = TestBroker::memory();
    let address = broker.address();
    create(&address, "a", 1, EAGER);
    let client = transactional(&address, "t", PATIENCE);
    for (value, commit) in [
        ("first", true),
        ("aborted", false),
        ("second", true),
        ("aborted", false),
    ] {
        client.begin_transaction().unwrap();
        for key in 0..10 {
            send(&client, "a", 0, &format!("key-{key}"), value);
        }
        settle(&client);
        if commit {
            client.commit_transaction(PATIENCE)
        } else {
            client.abort_transaction(PATIENCE)
        }
        .unwrap();
    }
    eventually("only committed records are left", || {
        read_all(&address, "a", 0, "read_uncommitted").len() == 10
    });
    for isolation in ["read_committed", "read_uncommitted"] {
        let read = read_all(&address, "a", 0, isolation);
        assert!(
            read.iter()
                .all(|read| read.value.as_deref() == Some("second")),
            "{read:?}"
        );
    }
}

#[test]
fn an_open_transaction_stops_compaction() {
    let broker = TestBroker::memory();
    let address = broker.address();
    create(&address, "a", 1, EAGER);
    let open = transactional(&address, "t", PATIENCE);
    open.begin_transaction().unwrap();
    send(&open, "a", 0, "k", "open");
    settle(&open);
    let other = producer(&address);
    for number in 0..50 {
        send(&other, "a", 0, "k", &number.to_string());
        settle(&other);
    }
    std::thread::sleep(Duration::from_millis(300));
    assert_eq!(read_all(&address, "a", 0, "read_uncommitted").len(), 51);
    open.commit_transaction(PATIENCE).unwrap();
    eventually("then it goes on", || {
        read_all(&address, "a", 0, "read_uncommitted").len() <= 2
    });
}

#[test]
fn a_record_without_a_key_is_refused() {
    let broker = TestBroker::memory();
    create(&broker.address(), "a", 1, EAGER);
    for codec in ["none", "gzip", "snappy", "lz4", "zstd"] {
        let producer: FutureProducer = client(&broker.address())
            .set("compression.type", codec)
            .create()
            .unwrap();
        let keyless = FutureRecord::<(), _>::to("a").payload("no key");
        let error = block_on(producer.send(keyless, PATIENCE)).unwrap_err().0;
        assert_eq!(
            error.rdkafka_error_code(),
            Some(RDKafkaErrorCode::InvalidRecord),
            "{codec}"
        );
    }
}
