//! Clients that take the broker's memory and give nothing back: they lose their connection, and the others go on.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use partita_broker::Config;

use crate::support::*;

/// A value of 100 KB that does not compress to nothing.
fn large(number: usize) -> String {
    format!("{number}-").repeat(100_000 / (number.to_string().len() + 1))
}

/// A fetch from the beginning of partition 0 that takes all it can get, and waits for `min_bytes` as long as it takes.
fn fetch(correlation_id: u8, topic: &str, min_bytes: i32) -> Vec<u8> {
    let mut body = vec![0, 1, 0, 4, 0, 0, 0, correlation_id, 0xff, 0xff];
    for number in [-1, i32::MAX, min_bytes, i32::MAX] {
        body.extend(number.to_be_bytes());
    }
    // Isolation, one topic, its name, one partition: 0, from offset 0.
    body.extend([0, 0, 0, 0, 1, 0, topic.len() as u8]);
    body.extend(topic.as_bytes());
    body.extend([0, 0, 0, 1, 0, 0, 0, 0]);
    body.extend(0i64.to_be_bytes());
    body.extend(i32::MAX.to_be_bytes());
    let mut frame = (body.len() as i32).to_be_bytes().to_vec();
    frame.extend(body);
    frame
}

/// The correlation id of the next answer, and its bytes.
fn next_answer(stream: &mut TcpStream) -> (u8, usize) {
    let mut length = [0; 4];
    stream.read_exact(&mut length).unwrap();
    let mut answer = vec![0; i32::from_be_bytes(length) as usize];
    stream.read_exact(&mut answer).unwrap();
    (answer[3], answer.len())
}

/// Whether the broker gives the connection up though there is much that it would send.
fn is_given_up(mut stream: TcpStream) {
    eventually("the connection is closed", || {
        stream.write_all(&[0]).is_err()
    });
}

/// A topic of one partition with 40 batches of 100 KB.
fn fill(address: &str, topic: &str) {
    create(address, topic, 1, &[]);
    let producer = producer(address);
    for number in 0..40 {
        send(&producer, topic, 0, "k", &large(number));
        settle(&producer);
    }
}

#[test]
fn a_connection_that_is_silent_is_closed_and_one_that_is_not_stays() {
    let mut config = Config::memory();
    config.connections_max_idle = Duration::from_secs(3);
    let broker = TestBroker::start(config);
    let mut talker = TcpStream::connect(broker.address()).unwrap();
    talker.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut silent = TcpStream::connect(broker.address()).unwrap();
    silent.set_nonblocking(true).unwrap();
    let mut rounds = 0;
    eventually("the silent one is closed", || {
        // Asked every 50 ms: had it been silent for three seconds in between, the test would be at fault.
        talker
            .write_all(&[0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 7, 0xff, 0xff])
            .unwrap();
        assert_eq!(next_answer(&mut talker).0, 7);
        rounds += 1;
        matches!(silent.read(&mut [0; 8]), Ok(0))
    });
    assert!(rounds > 1);
}

#[test]
fn a_frame_that_is_begun_has_its_time_however_slowly_it_comes() {
    let mut config = Config::memory();
    config.connections_max_idle = Duration::from_millis(300);
    let broker = TestBroker::start(config);
    let mut stream = TcpStream::connect(broker.address()).unwrap();
    stream.write_all(&[0, 1, 0, 0]).unwrap();
    // A byte every 50 ms.
    is_given_up(stream);
}

#[test]
fn a_client_that_does_not_take_its_answers_is_given_up() {
    let mut config = Config::memory();
    config.max_answer_time = Duration::from_millis(300);
    let broker = TestBroker::start(config);
    let address = broker.address();
    fill(&address, "a");
    let mut stream = TcpStream::connect(&address).unwrap();
    for _ in 0..30 {
        stream.write_all(&fetch(1, "a", 0)).unwrap();
    }
    is_given_up(stream);
}

#[test]
fn those_who_read_get_on_beside_those_who_do_not() {
    let mut config = Config::memory();
    config.max_answer_time = Duration::from_secs(1);
    config.max_fetch_bytes_in_flight = 1 << 20;
    let broker = TestBroker::start(config);
    let address = broker.address();
    fill(&address, "a");
    let hogs: Vec<TcpStream> = (0..20)
        .map(|_| {
            let mut stream = TcpStream::connect(&address).unwrap();
            for _ in 0..60 {
                stream.write_all(&fetch(1, "a", 0)).unwrap();
            }
            stream
        })
        .collect();
    for _ in 0..3 {
        let read = read_all(&address, "a", 0, "read_committed");
        assert_eq!(read.len(), 40);
        let whole = (0..40).all(|number| read[number].value.as_deref() == Some(&large(number)));
        assert!(whole);
    }
    drop(hogs);
}

#[test]
fn a_fetch_that_waits_for_records_is_not_locked_out_by_the_next_one() {
    let mut config = Config::memory();
    // Less than a batch: whoever has any of it has all of it.
    config.max_fetch_bytes_in_flight = 1;
    let broker = TestBroker::start(config);
    let address = broker.address();
    fill(&address, "full");
    create(&address, "empty", 1, &[]);
    let mut stream = TcpStream::connect(&address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(&fetch(1, "empty", 1)).unwrap();
    stream.write_all(&fetch(2, "full", 1)).unwrap();
    // Another connection is answered meanwhile.
    assert_eq!(read_all(&address, "full", 0, "read_committed").len(), 40);
    let producer = producer(&address);
    send(&producer, "empty", 0, "k", "v");
    settle(&producer);
    assert_eq!(next_answer(&mut stream).0, 1);
    let (second, bytes) = next_answer(&mut stream);
    assert_eq!(second, 2);
    assert!(
        (100_000..200_000).contains(&bytes),
        "one batch and no more: {bytes}"
    );
}
