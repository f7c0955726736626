//! A topic that is followed before it is there, and records that its reader cannot bear.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use partita::runtime::follower::Follower;
use partita_broker::{Broker, Config};
use rdkafka::ClientConfig;
use rdkafka::producer::Producer;

use crate::intake::support::{LIMIT, Sent, create, key_of, producer, send};

#[tokio::test(flavor = "multi_thread")]
async fn whoever_asks_before_the_topic_is_open_waits_for_it() {
    let broker = Broker::start(Config::memory()).await.expect("a broker");
    let brokers = broker.bootstrap();
    let mut client = ClientConfig::new();
    client.set("bootstrap.servers", &brokers);
    let follower = Follower::start(&client, "later".to_owned(), |_| {}).expect("a thread");
    let begun = Instant::now();
    let missing = follower.caught_up(Duration::from_millis(300)).await;
    assert!(missing.is_err(), "there is no such topic");
    assert!(begun.elapsed() >= Duration::from_millis(300), "it waits");
    let ((), caught_up) = tokio::join!(
        create(&brokers, "later", 2),
        follower.caught_up(Duration::from_secs(60))
    );
    caught_up.expect("the topic is there now");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_record_whose_reader_panics_is_passed_over() {
    let broker = Broker::start(Config::memory()).await.expect("a broker");
    let brokers = broker.bootstrap();
    create(&brokers, "some", 1).await;
    let producer = producer(&brokers);
    for n in 0..3 {
        send(&producer, "some", 1, n, &Sent::default());
    }
    producer.flush(LIMIT).expect("deliveries");
    let mut client = ClientConfig::new();
    client.set("bootstrap.servers", &brokers);
    let seen: Arc<Mutex<Vec<i64>>> = Arc::default();
    let of_reader = seen.clone();
    let follower = Follower::start(&client, "some".to_owned(), move |entry| {
        assert_ne!(entry.key, key_of(1), "on purpose");
        of_reader.lock().unwrap().push(entry.offset);
    });
    let follower = follower.expect("a thread");
    follower.caught_up(LIMIT).await.expect("all of it is read");
    assert_eq!(*seen.lock().unwrap(), [0, 2]);
}
