//! What goes: by size, by age, by request; and what stays while a transaction is open.

use partita_broker::Config;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::producer::{BaseRecord, Producer};
use rdkafka::{Offset, TopicPartitionList};

use crate::support::*;

fn disk_bytes(folder: &std::path::Path) -> u64 {
    std::fs::read_dir(folder)
        .unwrap()
        .filter_map(|entry| Some(entry.ok()?.metadata().ok()?.len()))
        .sum()
}

#[test]
fn a_partition_stays_within_its_size_and_the_disk_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = quick(Config::folder(folder.path()));
    (config.segment_bytes, config.hot_bytes) = (128 << 10, 64 << 10);
    let broker = TestBroker::start(config);
    let address = broker.address();
    create(&address, "a", 1, &[("retention.bytes", "100000")]);
    let client = producer(&address);
    for number in 0..3000 {
        send(
            &client,
            "a",
            0,
            "k",
            &format!("{number}-{}", "r".repeat(1000)),
        );
        if number % 50 == 0 {
            settle(&client);
        }
    }
    settle(&client);
    // The start moves on in steps while the last records arrive: what is read must agree with it when it has settled.
    eventually("the start settles and readers begin there", || {
        let (low, high) = watermarks(&address, "a", 0);
        assert_eq!(high, 3000);
        let read = read_all(&address, "a", 0, "read_committed");
        let begin = read.first().map(|read| read.offset);
        low > 2800 && begin == Some(low) && read.len() as i64 == high - low
    });
    eventually("the files go", || disk_bytes(folder.path()) < 600_000);
}

#[test]
fn old_records_go_and_young_ones_stay() {
    let broker = TestBroker::memory();
    let address = broker.address();
    create(&address, "a", 1, &[("retention.ms", "3600000")]);
    let client = producer(&address);
    let old = BaseRecord::to("a")
        .partition(0)
        .key("k")
        .payload("old")
        .timestamp(1_000);
    client.send(old).map_err(|(error, _)| error).unwrap();
    settle(&client);
    send(&client, "a", 0, "k", "young");
    settle(&client);
    eventually("the old record goes", || {
        watermarks(&address, "a", 0).0 == 1
    });
    assert_eq!(
        values(&read_all(&address, "a", 0, "read_committed")),
        ["young"]
    );
}

#[test]
fn an_open_transaction_is_not_cut_into() {
    let broker = TestBroker::memory();
    let address = broker.address();
    create(&address, "a", 1, &[("retention.bytes", "1")]);
    let client = transactional(&address, "t", PATIENCE);
    client.begin_transaction().unwrap();
    for number in 0..10 {
        send(&client, "a", 0, "k", &number.to_string());
        settle(&client);
    }
    std::thread::sleep(std::time::Duration::from_millis(300));
    assert_eq!(watermarks(&address, "a", 0).0, 0);
    client.commit_transaction(PATIENCE).unwrap();
    eventually("the start moves after the commit", || {
        watermarks(&address, "a", 0).0 > 0
    });
}

#[test]
fn records_are_deleted_on_request_and_stay_deleted() {
    let folder = tempfile::tempdir().unwrap();
    let mut broker = TestBroker::folder(folder.path());
    create(&broker.address(), "a", 1, &[]);
    let client = producer(&broker.address());
    (0..100).for_each(|number| send(&client, "a", 0, "k", &number.to_string()));
    settle(&client);
    let delete = |address: &str, offset| {
        let admin: AdminClient<DefaultClientContext> =
            crate::support::client(address).create().unwrap();
        let mut below = TopicPartitionList::new();
        below.add_partition_offset("a", 0, offset).unwrap();
        block_on(admin.delete_records(&below, &AdminOptions::new())).unwrap()
    };
    delete(&broker.address(), Offset::Offset(42));
    assert_eq!(watermarks(&broker.address(), "a", 0), (42, 100));
    assert_eq!(
        read_all(&broker.address(), "a", 0, "read_committed")
            .first()
            .unwrap()
            .offset,
        42
    );
    broker.restart();
    assert_eq!(watermarks(&broker.address(), "a", 0), (42, 100));
    let refused = delete(&broker.address(), Offset::Offset(101));
    assert!(refused.elements()[0].error().is_err(), "{refused:?}");
    delete(&broker.address(), Offset::End);
    assert_eq!(watermarks(&broker.address(), "a", 0), (100, 100));
}

#[test]
fn a_deleted_topic_is_gone_and_its_name_is_free() {
    let broker = TestBroker::memory();
    let address = broker.address();
    create(&address, "a", 1, &[]);
    let client = producer(&address);
    send(&client, "a", 0, "k", "before");
    settle(&client);
    let admin: AdminClient<DefaultClientContext> =
        crate::support::client(&address).create().unwrap();
    let deleted =
        block_on(admin.delete_topics(&["a", "never-there"], &AdminOptions::new())).unwrap();
    assert!(deleted[0].is_ok() && deleted[1].is_err(), "{deleted:?}");
    create(&address, "a", 1, &[]);
    assert_eq!(read_all(&address, "a", 0, "read_committed"), []);
}
