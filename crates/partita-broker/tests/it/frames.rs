//! Clients that break the protocol lose their connection, and nobody else notices.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use partita_broker::Config;

use crate::support::*;

/// Whether the broker closes the connection (rather than answer or wait).
fn is_closed(mut stream: TcpStream) -> bool {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Ok(_) => answer.is_empty(),
        Err(error) => error.kind() != std::io::ErrorKind::WouldBlock,
    }
}

fn frame(body: &[u8]) -> Vec<u8> {
    let mut frame = (body.len() as i32).to_be_bytes().to_vec();
    frame.extend_from_slice(body);
    frame
}

#[test]
fn malformed_frames_close_their_connection_and_harm_nothing_else() {
    let broker = TestBroker::memory();
    let address = broker.address();
    create(&address, "a", 1, &[]);
    let bystander = producer(&address);
    send(&bystander, "a", 0, "k", "before");
    settle(&bystander);
    let header = |api: i16, version: i16, rest: &[u8]| {
        let mut body = [api.to_be_bytes(), version.to_be_bytes()].concat();
        body.extend([0, 0, 0, 1, 0, 1, b'c']);
        body.extend_from_slice(rest);
        frame(&body)
    };
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("a negative length", (-1i32).to_be_bytes().to_vec()),
        ("an enormous length", i32::MAX.to_be_bytes().to_vec()),
        ("an empty frame", frame(&[])),
        ("half a header", frame(&[0, 3, 0])),
        ("an unknown api", header(999, 0, &[])),
        ("a version of tomorrow", header(3, 99, &[])),
        ("a negative version", header(3, -5, &[])),
        ("a body cut short", header(3, 1, &[0, 0, 0, 5, 0, 3])),
        (
            "an array of two billion topics",
            header(3, 1, &[0x7f, 0xff, 0xff, 0xff]),
        ),
        (
            "a compact array of four billion",
            header(3, 9, &[0, 0xff, 0xff, 0xff, 0xff, 0x0f]),
        ),
        (
            "a client id beyond the frame",
            frame(&[0, 3, 0, 1, 0, 0, 0, 1, 0x7f, 0xff]),
        ),
        (
            "text that is none",
            header(3, 1, &[0, 0, 0, 1, 0, 2, 0xff, 0xfe]),
        ),
        (
            "something else altogether",
            b"GET / HTTP/1.1\r\nHost: example.org\r\n\r\n".to_vec(),
        ),
    ];
    for (what, bytes) in cases {
        let mut stream = TcpStream::connect(&address).unwrap();
        stream.write_all(&bytes).unwrap();
        assert!(is_closed(stream), "{what}");
        send(&bystander, "a", 0, "k", what);
        settle(&bystander);
    }
    assert_eq!(read_all(&address, "a", 0, "read_committed").len(), 14);
}

#[test]
fn a_newer_client_is_told_what_is_served() {
    let broker = TestBroker::memory();
    let mut stream = TcpStream::connect(broker.address()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
        .write_all(&frame(&[0, 18, 0, 99, 0, 0, 0, 7, 0xff, 0xff, 0]))
        .unwrap();
    let mut answer = [0; 10];
    stream.read_exact(&mut answer).unwrap();
    // The correlation id, then the error "unsupported version" in the oldest format.
    assert_eq!(answer[4..], [0, 0, 0, 7, 0, 35]);
}

#[test]
fn slow_frames_and_pipelined_frames_are_answered_in_order() {
    let broker = TestBroker::memory();
    let mut stream = TcpStream::connect(broker.address()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    let requests: Vec<u8> = (0..50u8)
        .flat_map(|id| frame(&[0, 18, 0, 0, 0, 0, 0, id, 0xff, 0xff]))
        .collect();
    for (number, piece) in requests.chunks(7).enumerate() {
        stream.write_all(piece).unwrap();
        if number % 10 == 0 {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
    for id in 0..50u8 {
        let mut length = [0; 4];
        stream.read_exact(&mut length).unwrap();
        let mut answer = vec![0; i32::from_be_bytes(length) as usize];
        stream.read_exact(&mut answer).unwrap();
        assert_eq!(answer[..4], [0, 0, 0, id]);
    }
}

#[test]
fn connections_beyond_the_limit_are_refused_and_places_are_given_back() {
    let mut config = Config::memory();
    config.max_connections = 3;
    let broker = TestBroker::start(config);
    let ask = |stream: &mut TcpStream| -> bool {
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let asked = stream.write_all(&frame(&[0, 18, 0, 0, 0, 0, 0, 1, 0xff, 0xff]));
        asked.is_ok() && stream.read_exact(&mut [0; 8]).is_ok()
    };
    let mut open: Vec<TcpStream> = (0..3)
        .map(|_| TcpStream::connect(broker.address()).unwrap())
        .collect();
    assert!(open.iter_mut().all(ask));
    assert!(!ask(&mut TcpStream::connect(broker.address()).unwrap()));
    open.pop();
    eventually("a place is free again", || {
        ask(&mut TcpStream::connect(broker.address()).unwrap())
    });
}
