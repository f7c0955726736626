//! Rules come and go while the intake runs.

use std::time::Duration;

use partita_broker::{Broker, Config};
use rdkafka::producer::Producer;

use super::support::{
    LIMIT, Rules, all_of, click, create, create_declared, intake, producer, send, signals,
    until_anchored, until_signals,
};

/// Rules come and go while the intake runs; a rule that comes back goes on where it was.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_intake_follows_its_rules() {
    let broker = Broker::start(Config::memory()).await.expect("a broker");
    let brokers = broker.bootstrap();
    create_declared(&brokers).await;
    create(&brokers, "a", 2).await;
    create(&brokers, "b", 1).await;
    let rules = Rules::of("");
    let intake = intake(&brokers, rules.clone(), None, None);
    let producer = producer(&brokers);
    let send = |topic: &str, partitions: usize, n: usize| {
        send(&producer, topic, partitions, n, &click(n));
        producer.flush(LIMIT).expect("a delivery");
    };
    send("a", 2, 0);
    rules.set(&all_of("a"));
    until_anchored(&brokers, &[("a", 2)]).await;
    send("a", 2, 1);
    send("b", 1, 2);
    until_signals(&brokers, 1).await;

    rules.set(&format!("{}\n---\n{}", all_of("a"), all_of("b")));
    until_anchored(&brokers, &[("b", 1)]).await;
    send("a", 2, 3);
    send("b", 1, 4);
    until_signals(&brokers, 3).await;

    rules.set(&all_of("b"));
    send("b", 1, 5);
    until_signals(&brokers, 4).await;
    // Both rebalances of the smaller subscription lie between this record and the next look.
    tokio::time::sleep(Duration::from_secs(1)).await;
    send("a", 2, 6);
    rules.set(&format!("{}\n---\n{}", all_of("a"), all_of("b")));
    send("a", 2, 7);
    until_signals(&brokers, 6).await;
    let (found, twice) = signals(&brokers);
    let expected = [
        "of_a a 1", "of_a a 3", "of_a a 6", "of_a a 7", "of_b b 4", "of_b b 5",
    ];
    assert_eq!(found, expected.map(str::to_owned).into());
    assert!(twice.is_empty(), "{twice:?}");
    intake.stop();
    let deadline = tokio::time::Instant::now() + LIMIT;
    assert!(intake.until_finished(deadline).await);
}
