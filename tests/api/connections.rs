//! What a client may hold of the listener, seen from a plain socket.

use std::time::Duration;

use partita::api::connections::ConnectionLimits;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::fake::PARTITIONS;
use crate::support::{Broker, Instance, SOON, until};

const GET: &str = "GET /livez HTTP/1.1\r\nhost: x\r\n\r\n";

async fn bounded(broker: &Broker, limits: ConnectionLimits) -> Instance {
    let all = (0..PARTITIONS).collect();
    Instance::with(broker, "one", all, |api, _| api.connections = limits).await
}

async fn connected(one: &Instance) -> TcpStream {
    let address = one.url.trim_start_matches("http://");
    TcpStream::connect(address).await.expect("a connection")
}

/// Whether a request is served. One that finds no place may be closed before it is told so.
async fn answers(stream: &mut TcpStream) -> bool {
    let mut first = [0; 12];
    stream.write_all(GET.as_bytes()).await.is_ok()
        && stream.read_exact(&mut first).await.is_ok()
        && &first == b"HTTP/1.1 200"
}

/// Everything that comes until the server closes.
async fn rest(stream: &mut TcpStream) -> String {
    let mut text = String::new();
    tokio::time::timeout(SOON, stream.read_to_string(&mut text))
        .await
        .expect("the server closes")
        .expect("what comes is text");
    text
}

/// The next answer on a connection that stays open.
async fn next(stream: &mut TcpStream) -> String {
    let mut text = String::new();
    let mut byte = [0];
    while !text.ends_with('}') {
        let read = tokio::time::timeout(SOON, stream.read(&mut byte))
            .await
            .expect("an answer comes")
            .expect("the connection holds");
        assert_eq!(read, 1, "the server closed after {text:?}");
        text.push(char::from(byte[0]));
    }
    text
}

fn problem(text: &str, status: u16, in_detail: &str) {
    assert!(text.starts_with(&format!("HTTP/1.1 {status} ")), "{text}");
    let (head, body) = text.split_once("\r\n\r\n").expect("a head and a body");
    assert!(head.contains("application/problem+json"), "{text}");
    let body: serde_json::Value = serde_json::from_str(body).expect("a problem");
    assert_eq!(body["status"], status, "{text}");
    assert!(
        body["detail"].as_str().unwrap().contains(in_detail),
        "{text}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_too_many_is_told_so_and_a_place_comes_free_again() {
    let broker = Broker::start().await;
    let limits = ConnectionLimits {
        max_connections: 2,
        ..ConnectionLimits::default()
    };
    let one = bounded(&broker, limits).await;
    let mut held = Vec::new();
    for _ in 0..2 {
        let mut stream = connected(&one).await;
        stream.write_all(GET.as_bytes()).await.unwrap();
        assert!(next(&mut stream).await.starts_with("HTTP/1.1 200"));
        held.push(stream);
    }
    let mut third = connected(&one).await;
    third.write_all(GET.as_bytes()).await.unwrap();
    let told = rest(&mut third).await;
    problem(&told, 503, "2 connections at a time");
    assert!(told.contains("\r\nretry-after: 1\r\n"), "{told}");
    // The clients of other houses understand it too.
    let answer = one.http.get(format!("{}/livez", one.url)).send().await;
    assert_eq!(answer.expect("an answer").status(), 503);
    held.clear();
    until("a place is free again", async || {
        let mut stream = connected(&one).await;
        answers(&mut stream).await
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_trickles_is_told_so_and_the_place_is_free() {
    let broker = Broker::start().await;
    let limits = ConnectionLimits {
        max_connections: 1,
        header_timeout: Duration::from_secs(2),
        ..ConnectionLimits::default()
    };
    let one = bounded(&broker, limits).await;
    let mut slow = connected(&one).await;
    slow.write_all(b"GET /livez HTTP/1.1\r\nx-one: 1\r\n")
        .await
        .unwrap();
    problem(&rest(&mut slow).await, 408, "did not come within 2 s");
    drop(slow);
    // Who says nothing at all hears nothing, and is closed too.
    until("the place is free", async || {
        let mut silent = connected(&one).await;
        rest(&mut silent).await.is_empty()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_trickles_is_told_so() {
    let broker = Broker::start().await;
    let limits = ConnectionLimits {
        body_timeout: Duration::from_millis(300),
        ..ConnectionLimits::default()
    };
    let one = bounded(&broker, limits).await;
    let mut slow = connected(&one).await;
    slow.write_all(
        b"POST /v1/runs HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{\"wor",
    )
    .await
    .unwrap();
    problem(&rest(&mut slow).await, 408, "the body of the request");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_connection_is_closed_but_not_while_its_answer_is_made() {
    let broker = Broker::start().await;
    let limits = ConnectionLimits {
        header_timeout: Duration::from_secs(1),
        idle_timeout: Duration::from_secs(1),
        ..ConnectionLimits::default()
    };
    broker.topic("tasks.idle", 1).await;
    let one = bounded(&broker, limits).await;
    let mut stream = connected(&one).await;
    let poll = r#"{"wait":"3s"}"#;
    let request = format!(
        "POST /v1/agents/idle/tasks:poll HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{poll}",
        poll.len()
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let told = rest(&mut stream).await;
    assert!(told.ends_with(r#"{"tasks":[]}"#), "{told}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_takes_nothing_of_a_long_answer_is_cut_off() {
    let broker = Broker::start().await;
    let limits = ConnectionLimits {
        max_connections: 1,
        send_timeout: Duration::from_millis(300),
        ..ConnectionLimits::default()
    };
    let one = bounded(&broker, limits).await;
    let mut deaf = connected(&one).await;
    // More answers than the buffers of both ends hold, and nobody reads them.
    let document = "GET /openapi.json HTTP/1.1\r\nhost: x\r\n\r\n".repeat(2_000);
    let sending = async {
        // Fails once the server has had enough.
        let _ = deaf.write_all(document.as_bytes()).await;
        std::future::pending::<()>().await
    };
    let another_gets_in = until("the place is free", async || {
        let mut stream = connected(&one).await;
        answers(&mut stream).await
    });
    tokio::select! {
        () = sending => {}
        () = another_gets_in => {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_is_too_large_is_431() {
    let broker = Broker::start().await;
    let one = bounded(&broker, ConnectionLimits::default()).await;
    let mut stream = connected(&one).await;
    let large = format!(
        "GET /livez HTTP/1.1\r\nhost: x\r\nx-large: {}\r\n\r\n",
        "a".repeat(1 << 20)
    );
    // The server may close before it has read everything.
    let _ = stream.write_all(large.as_bytes()).await;
    let mut first = [0; 12];
    stream.read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"HTTP/1.1 431");
}
