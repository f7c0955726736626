//! Dead letters find room in their topic.

use partita_broker::{Broker, Config};
use rdkafka::producer::Producer;

use super::support::{
    LIMIT, Rules, Sent, all_of, broker_with, click, create, create_with, intake, producer,
    read_all, send, until_anchored, until_signals,
};

/// A record as large as the broker takes it has room as a dead letter, where it gets more headers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_largest_record_of_all_finds_room_as_a_dead_letter() {
    let (_broker, brokers) = broker_with(&[("a", 1)]).await;
    let intake = intake(&brokers, Rules::of(&all_of("a")), None, None);
    until_anchored(&brokers, &[("a", 1)]).await;
    let producer = producer(&brokers);
    let poison = Sent {
        value: vec![0xff; 1_048_400],
        ..Sent::default()
    };
    send(&producer, "a", 1, 0, &poison);
    send(&producer, "a", 1, 1, &click(1));
    producer.flush(LIMIT).expect("deliveries");
    until_signals(&brokers, 1).await;
    let dead = read_all(&brokers, "p.dead-letter");
    assert_eq!(dead.len(), 1);
    assert!(dead[0].2 == poison.value, "the value is another");
    drop(intake);
}

/// A letter that its topic does not take stops nothing: what fits of it is sent, and it says so. Those
/// that fit one by one are whole, though not in one batch.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_a_letter_that_is_too_large_for_its_topic_the_beginning_is_kept() {
    const SMALL: usize = 150;
    let broker = Broker::start(Config::memory()).await.expect("a broker");
    let brokers = broker.bootstrap();
    create(&brokers, "p.signals", 8).await;
    let narrow = [("max.message.bytes", "20000")];
    create_with(&brokers, "p.dead-letter", 1, &narrow).await;
    create(&brokers, "a", 1).await;
    let intake = intake(&brokers, Rules::of(&all_of("a")), None, None);
    until_anchored(&brokers, &[("a", 1)]).await;
    let producer = producer(&brokers);
    let poison = |bytes: usize| Sent {
        value: vec![0xff; bytes],
        ..Sent::default()
    };
    send(&producer, "a", 1, 0, &poison(100_000));
    for n in 1..=SMALL {
        send(&producer, "a", 1, n, &poison(100));
    }
    send(&producer, "a", 1, SMALL + 1, &click(SMALL + 1));
    producer.flush(LIMIT).expect("deliveries");
    until_signals(&brokers, 1).await;
    let dead = read_all(&brokers, "p.dead-letter");
    assert_eq!(dead.len(), 1 + SMALL);
    let (_, key, value, headers) = &dead[0];
    assert_eq!(key, b"k0");
    assert!(value.len() > 2_000 && value.len() < 20_000);
    assert!(value.iter().all(|byte| *byte == 0xff));
    assert_eq!(headers["partita-error-truncated-value"], "100000");
    assert_eq!(headers["partita-error-topic"], "a");
    assert_eq!(headers["partita-error-offset"], "0");
    for (_, _, value, headers) in &dead[1..] {
        assert_eq!(value.len(), 100);
        assert!(!headers.contains_key("partita-error-truncated-value"));
    }
    drop(intake);
}
