//! What is malformed is told, where and what would be right, as a problem.

use reqwest::{Method, StatusCode};
use serde_json::Value;

use crate::support::{Broker, Instance, read};

fn problem(answer: &(StatusCode, Value), status: u16, in_detail: &str) {
    let (got, body) = answer;
    assert_eq!(got.as_u16(), status, "{body}");
    assert_eq!(body["status"], status, "{body}");
    for member in ["type", "title", "detail", "instance"] {
        assert!(body[member].is_string(), "{member} is missing: {body}");
    }
    assert!(
        body["detail"].as_str().unwrap().contains(in_detail),
        "{body}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_requests_are_problems() {
    let broker = Broker::start().await;
    let one = Instance::alone(&broker).await;
    let answer = one
        .post("/v1/runs", r#"{"workflow":"w","surprise":1}"#)
        .await;
    problem(&answer, 400, "surprise");
    assert_eq!(answer.1["line"], 1);
    assert_eq!(answer.1["instance"], "/v1/runs");
    problem(
        &one.post("/v1/runs", "{\n \"workflow\": }").await,
        400,
        "line 2 column 14",
    );
    problem(
        &one.post("/v1/runs", r#"{"input":1}"#).await,
        400,
        "workflow",
    );
    problem(
        &one.post("/v1/runs", r#"{"workflow":"w","id":"a/b"}"#).await,
        400,
        "A-Z a-z 0-9",
    );
    for way in [".", ".."] {
        let start = format!(r#"{{"workflow":"w","id":"{way}"}}"#);
        let answer = one.post("/v1/runs", &start).await;
        problem(&answer, 400, "in the path of a URL it is a way, not a name");
    }
    problem(
        &one.post("/v1/runs?wait=soon", r#"{"workflow":"w"}"#).await,
        400,
        "wait",
    );
    problem(
        &one.post("/v1/runs?what=1", r#"{"workflow":"w"}"#).await,
        400,
        "known are wait",
    );
    problem(
        &one.get("/v1/runs?status=happy").await,
        400,
        "pending, running",
    );
    problem(&one.get("/v1/runs?limit=0").await, 400, "limit");
    problem(&one.get("/v1/runs?cursor=zz").await, 400, "cursor");
    problem(
        &one.get("/v1/runs?tag=k:1&tag=j:1&tag=k:2").await,
        400,
        "the tag `k` is given twice",
    );
    problem(&one.get("/v1/runs?since=yesterday").await, 400, "RFC 3339");
    problem(&one.get("/v1/runs/a%20b").await, 400, "run id");
    problem(&one.get("/v1/nothing").await, 404, "/v1/nothing");
    problem(
        &one.post("/v1/runs/a:dance", "{}").await,
        404,
        "pause, resume, cancel, signal",
    );
    problem(
        &one.post("/v1/agents/a/tasks:grab", "{}").await,
        404,
        "tasks:poll",
    );
    problem(
        &one.post("/v1/agents/a%20b/tasks:poll", "{}").await,
        400,
        "agent's name",
    );
    problem(
        &one.post("/v1/agents/a/tasks:poll", r#"{"max":0}"#).await,
        400,
        "max",
    );
    problem(
        &one.post("/v1/tasks/nonsense:complete", "{}").await,
        404,
        "nonsense",
    );
    problem(&one.get("/v1/definitions/policy").await, 404, "workflow");
    problem(
        &one.get("/v1/events?type=partita.run.danced").await,
        400,
        "partita.run.started",
    );
    problem(
        &one.ask(Method::DELETE, "/v1/runs", None).await,
        405,
        "DELETE",
    );
    problem(&one.post("/v1/runs/some-run", "{}").await, 405, "verb");
    problem(
        &one.post("/v1/runs", r#"{"workflow":"w","version":0}"#)
            .await,
        400,
        "nonzero",
    );
    problem(&one.get("/v1/runs/%ff").await, 400, "UTF-8");
    problem(
        &one.post("/v1/runs", r#"["w"]"#).await,
        400,
        "must be a JSON object",
    );
    problem(&one.post("/v1/runs", "[").await, 400, "not JSON");
    problem(
        &one.get("/v1/runs?limit=1&limit=2").await,
        400,
        "`limit` is given twice",
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_last_event_id_that_nothing_can_follow_is_refused() {
    let broker = Broker::start().await;
    let one = Instance::alone(&broker).await;
    let request = one
        .http
        .get(format!("{}/v1/runs/r/events", one.url))
        .header("last-event-id", format!("r/{}", u64::MAX));
    let answer = read(request.send().await.expect("an answer")).await;
    problem(&answer, 400, "Last-Event-ID");
}

#[tokio::test(flavor = "multi_thread")]
async fn types_and_sizes_of_bodies_are_checked() {
    let broker = Broker::start().await;
    let one = Instance::alone(&broker).await;
    let send = async |kind: &str, body: String| {
        let request = one
            .http
            .post(format!("{}/v1/runs", one.url))
            .header("content-type", kind)
            .body(body);
        let response = request.send().await.unwrap();
        assert_eq!(
            response.headers()["content-type"],
            "application/problem+json"
        );
        read(response).await
    };
    let start = r#"{"workflow":"w"}"#.to_owned();
    problem(
        &send("application/x-www-form-urlencoded", start.clone()).await,
        415,
        "send application/json",
    );
    problem(
        &send("application/cloudevents+json; charset=utf-8", start).await,
        404,
        "no workflow `w`",
    );
    let large = |bytes: usize| format!(r#"{{"workflow":"w","input":"{}"}}"#, "x".repeat(bytes));
    problem(
        &send("application/json", large(2_000)).await,
        413,
        "2002 bytes of JSON; at most 1024",
    );
    problem(
        &send("application/json", large(20_000)).await,
        413,
        "more than 16384 bytes",
    );
    let tags = format!(
        r#"{{"workflow":"w","tags":{{"a":"{}"}}}}"#,
        "x".repeat(2_000)
    );
    problem(
        &send("application/json", tags).await,
        413,
        "the mapping of tags has 2008 bytes of JSON; at most 1024",
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_method_names_the_right_ones() {
    let broker = Broker::start().await;
    let one = Instance::alone(&broker).await;
    let response = one
        .http
        .put(format!("{}/v1/runs", one.url))
        .send()
        .await
        .unwrap();
    assert_eq!(response.status(), 405);
    let allowed = response.headers()["allow"].to_str().unwrap().to_owned();
    assert!(
        allowed.contains("GET") && allowed.contains("POST"),
        "{allowed}"
    );
}
