//! Streams of server-sent events.

use std::time::Duration;

use futures_util::StreamExt;
use reqwest::{Response, StatusCode};

use crate::support::{Broker, Instance, SOON, TWO_STEPS, until};

async fn stream(one: &Instance, path: &str, last: Option<&str>) -> Response {
    let mut request = one
        .http
        .get(format!("{}{path}", one.url))
        .header("accept", "text/event-stream");
    if let Some(last) = last {
        request = request.header("last-event-id", last);
    }
    request.send().await.expect("an answer")
}

/// Reads until the stream ends or `enough` holds of what came.
async fn told(response: Response, enough: impl Fn(&str) -> bool) -> String {
    let mut text = String::new();
    let mut chunks = response.bytes_stream();
    let reading = async {
        while !enough(&text) {
            let Some(chunk) = chunks.next().await else {
                break;
            };
            text.push_str(std::str::from_utf8(&chunk.expect("the stream goes on")).expect("UTF-8"));
        }
    };
    tokio::time::timeout(SOON, reading)
        .await
        .expect("the stream says something");
    text
}

/// An instance with the run `r`, which waits.
async fn with_a_paused_run(broker: &Broker) -> Instance {
    let one = Instance::alone(broker).await;
    one.apply("two_steps", TWO_STEPS).await;
    one.post("/v1/runs", r#"{"workflow":"two_steps","id":"r"}"#)
        .await;
    one.post("/v1/runs/r:pause", "{}").await;
    one
}

#[tokio::test(flavor = "multi_thread")]
async fn a_history_says_whether_it_is_whole() {
    let broker = Broker::start().await;
    let one = with_a_paused_run(&broker).await;
    let found = async |path: &str| {
        let (_, history) = one.get(path).await;
        let events = history["events"].as_array().expect("events").len();
        (events, history["complete"].clone())
    };
    assert_eq!(found("/v1/runs/r/events").await, (2, true.into()));
    let refused = one
        .http
        .get(format!("{}/v1/runs/r/events", one.url))
        .header("accept", "text/event-stream;q=0, application/json");
    let answer = refused.send().await.expect("an answer");
    assert_eq!(answer.headers()["content-type"], "application/json");
    let (behind, from) = ("?from_sequence=3", "?from_sequence=2");
    let behind = found(&format!("/v1/runs/r/events{behind}")).await;
    assert_eq!(behind, (0, true.into()));
    one.fake.lose_beginnings();
    assert_eq!(found("/v1/runs/r/events").await, (1, false.into()));
    let rest = found(&format!("/v1/runs/r/events{from}")).await;
    assert_eq!(rest, (1, true.into()));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_history_of_a_run_follows_it_to_its_end() {
    let broker = Broker::start().await;
    let one = with_a_paused_run(&broker).await;
    let response = stream(&one, "/v1/runs/r/events", None).await;
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let (text, _) = tokio::join!(
        told(response, |_| false),
        one.post("/v1/runs/r:cancel", "{}")
    );
    let lines = [
        "id: r/1",
        "event: partita.run.started",
        "id: r/2",
        "event: partita.run.paused",
        "id: r/3",
        "event: partita.run.cancelled",
    ];
    let found: Vec<&str> = text
        .lines()
        .filter(|line| line.starts_with("id:") || line.starts_with("event:"))
        .collect();
    for line in lines {
        assert!(found.contains(&line), "{line} is missing in {text}");
    }
    let resumed = told(stream(&one, "/v1/runs/r/events", Some("r/2")).await, |_| {
        false
    })
    .await;
    assert!(
        resumed.contains("id: r/3") && !resumed.contains("id: r/2"),
        "{resumed}"
    );
    assert_eq!(
        stream(&one, "/v1/runs/r/events", Some("q/2"))
            .await
            .status(),
        StatusCode::BAD_REQUEST
    );
    assert_eq!(
        stream(&one, "/v1/runs/unknown/events", None).await.status(),
        StatusCode::NOT_FOUND
    );
    let (_, history) = one.get("/v1/runs/r/events?from_sequence=2").await;
    assert_eq!(history["events"].as_array().unwrap().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn live_events_are_filtered_and_resumed() {
    let broker = Broker::start().await;
    let one = Instance::alone(&broker).await;
    one.apply("two_steps", TWO_STEPS).await;
    let response = stream(
        &one,
        "/v1/events?type=partita.run.paused&workflow=two_steps",
        None,
    )
    .await;
    let act = async {
        one.post("/v1/runs", r#"{"workflow":"two_steps","id":"r"}"#)
            .await;
        one.post("/v1/runs/r:pause", "{}").await;
    };
    let (text, ()) = tokio::join!(told(response, |text| text.contains("\n\n")), act);
    assert!(
        text.contains("event: partita.run.paused") && !text.contains("started"),
        "{text}"
    );
    let id = text
        .lines()
        .find_map(|line| line.strip_prefix("id: "))
        .expect("an id")
        .to_owned();
    one.post("/v1/runs/r:resume", "{}").await;
    let resumed = told(stream(&one, "/v1/events", Some(&id)).await, |text| {
        text.contains("\n\n")
    })
    .await;
    assert!(resumed.contains("event: partita.run.resumed"), "{resumed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_are_bounded_and_end_with_the_server() {
    let broker = Broker::start().await;
    let one = Instance::alone(&broker).await;
    let mut open = Vec::new();
    for _ in 0..4 {
        open.push(stream(&one, "/v1/events", None).await);
    }
    assert_eq!(
        stream(&one, "/v1/events", None).await.status(),
        StatusCode::TOO_MANY_REQUESTS
    );
    open.pop();
    let freed = until("a place is free again", async || {
        stream(&one, "/v1/events", None).await.status() == StatusCode::OK
    });
    tokio::time::timeout(SOON, freed).await.unwrap();
    one.stop();
    for response in open {
        let ended = tokio::time::timeout(SOON, told(response, |_| false)).await;
        assert!(ended.is_ok(), "the stream ends");
    }
    tokio::time::sleep(Duration::from_millis(10)).await;
}
