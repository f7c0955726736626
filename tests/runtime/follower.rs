//! A topic that is followed before it is there.

use std::time::{Duration, Instant};

use partita::runtime::follower::Follower;
use partita_broker::{Broker, Config};
use rdkafka::ClientConfig;

use crate::intake::support::create;

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
