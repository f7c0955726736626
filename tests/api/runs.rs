//! Starting, showing, steering and listing runs.

use partita::model::TaskId;
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::support::{Broker, Instance, TWO_STEPS, until};

async fn with_workflow() -> (Broker, Instance) {
    let broker = Broker::start().await;
    let one = Instance::alone(&broker).await;
    one.apply("two_steps", TWO_STEPS).await;
    (broker, one)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_is_started_shown_and_answered() {
    let (_broker, one) = with_workflow().await;
    let start =
        r#"{"workflow":"two_steps","id":"r1","input":{"a":1},"tags":{"team":"x"},"priority":3}"#;
    let (status, run) = one.post("/v1/runs", start).await;
    assert_eq!(status, StatusCode::CREATED, "{run}");
    let fields = [
        "id",
        "workflow",
        "version",
        "status",
        "progress",
        "input",
        "output",
        "error",
        "tags",
        "priority",
        "created_at",
        "started_at",
        "ended_at",
        "revision",
        "epoch",
        "waiting_for",
        "signals",
        "provenance",
        "steps",
    ];
    for field in fields {
        assert!(run.get(field).is_some(), "{field} is missing: {run}");
    }
    assert_eq!(run["created_at"], "2026-11-21T00:00:00.000Z");
    assert_eq!(
        (run["status"].as_str(), run["progress"].as_f64()),
        (Some("running"), Some(0.0))
    );
    assert_eq!(run["waiting_for"][0]["task_id"], "r1.first.0.1");
    let step_fields = [
        "id",
        "kind",
        "agent",
        "status",
        "attempt",
        "task_id",
        "scheduled_at",
        "started_at",
        "ended_at",
        "output",
        "error",
    ];
    for field in step_fields {
        assert!(
            run["steps"][1].get(field).is_some(),
            "{field} is missing: {run}"
        );
    }
    assert_eq!(run["steps"][0]["agent"], "tester");
    assert_eq!(run["steps"][1]["task_id"], Value::Null);

    let (status, again) = one.post("/v1/runs", start).await;
    assert_eq!((status, &again), (StatusCode::OK, &run));
    let (status, body) = one
        .post(
            "/v1/runs",
            r#"{"workflow":"two_steps","id":"r1","input":{"a":2}}"#,
        )
        .await;
    assert_eq!(
        (status, body["run_status"].as_str()),
        (StatusCode::CONFLICT, Some("running")),
        "{body}"
    );

    let (status, body) = one
        .post("/v1/tasks/r1.first.0.1:complete", r#"{"output":{"x":1}}"#)
        .await;
    assert_eq!(
        (status, body["run_status"].as_str()),
        (StatusCode::OK, Some("running")),
        "{body}"
    );
    let (status, _) = one
        .post("/v1/tasks/r1.first.0.1:complete", r#"{"output":{"x":1}}"#)
        .await;
    assert_eq!(status, StatusCode::CONFLICT);
    let (status, _) = one.post("/v1/tasks/r1.second.0.7:complete", "{}").await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    let (status, _) = one.post("/v1/tasks/r9.first.0.1:heartbeat", "{}").await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    let (_, run) = one.get("/v1/runs/r1").await;
    assert_eq!(run["progress"], 0.5);
    let (status, _) = one
        .post(
            "/v1/tasks/r1.second.0.1:fail",
            r#"{"error":{"class":"critical_error","message":"no"}}"#,
        )
        .await;
    assert_eq!(status, StatusCode::OK);
    let (_, run) = one.get("/v1/runs/r1").await;
    assert_eq!(
        run["error"],
        json!({"class":"critical_error","message":"no","step":"second","details":null})
    );
    let (status, _) = one.get("/v1/runs/r2").await;
    assert_eq!(status, StatusCode::NOT_FOUND);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_start_can_wait_for_the_end() {
    let (_broker, one) = with_workflow().await;
    let (status, run) = one
        .post(
            "/v1/runs?wait=100ms",
            r#"{"workflow":"two_steps","id":"slow"}"#,
        )
        .await;
    assert_eq!(
        (status, run["status"].as_str()),
        (StatusCode::CREATED, Some("running"))
    );
    let answer = async {
        until("the run is there", async || {
            one.get("/v1/runs/quick").await.0 == StatusCode::OK
        })
        .await;
        one.post("/v1/tasks/quick.first.0.1:complete", "{}").await;
        one.post("/v1/tasks/quick.second.0.1:complete", r#"{"output":5}"#)
            .await
    };
    let start = r#"{"workflow":"two_steps","id":"quick"}"#;
    let ((status, run), _) = tokio::join!(one.post("/v1/runs?wait=60s", start), answer);
    assert_eq!(
        (status, run["status"].as_str(), run["progress"].as_f64()),
        (StatusCode::CREATED, Some("completed"), Some(1.0))
    );
    assert_eq!(run["output"], 5);
    assert_eq!(run["waiting_for"], json!([]));
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_have_their_status() {
    let (_broker, one) = with_workflow().await;
    let (status, body) = one.post("/v1/runs", r#"{"workflow":"nobody"}"#).await;
    assert_eq!(status, StatusCode::NOT_FOUND, "{body}");
    let request = one
        .http
        .post(format!("{}/v1/runs", one.url))
        .header("content-type", "application/json");
    let response = request.body(r#"{"workflow":"busy"}"#).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
    assert_eq!(response.headers()["retry-after"], "1");

    one.post("/v1/runs", r#"{"workflow":"two_steps","id":"r"}"#)
        .await;
    for (verb, status) in [
        ("pause", "paused"),
        ("pause", "paused"),
        ("resume", "running"),
        ("cancel", "cancelled"),
    ] {
        let (code, run) = one
            .post(&format!("/v1/runs/r:{verb}"), r#"{"reason":"because"}"#)
            .await;
        assert_eq!(
            (code, run["status"].as_str()),
            (StatusCode::OK, Some(status)),
            "{verb}"
        );
    }
    let (code, body) = one.post("/v1/runs/r%3Apause", "").await;
    assert_eq!(
        (code, body["run_status"].as_str()),
        (StatusCode::CONFLICT, Some("cancelled")),
        "{body}"
    );
    let (code, body) = one.post("/v1/runs/r:signal", r#"{"name":"go"}"#).await;
    assert_eq!(
        (code, body["run_status"].as_str()),
        (StatusCode::CONFLICT, Some("cancelled")),
        "{body}"
    );
    let (code, _) = one.post("/v1/runs/unknown:cancel", "{}").await;
    assert_eq!(code, StatusCode::NOT_FOUND);
}

#[tokio::test(flavor = "multi_thread")]
async fn signals_are_taken_in_once_or_refused() {
    let (_broker, one) = with_workflow().await;
    one.post("/v1/runs", r#"{"workflow":"two_steps","id":"r"}"#)
        .await;
    let signal = r#"{"name":"go","data":{"by":"ada"},"id":"s-1"}"#;
    let (code, run) = one.post("/v1/runs/r:signal", signal).await;
    assert_eq!(code, StatusCode::OK, "{run}");
    let kept = &run["signals"][0];
    assert_eq!((&kept["name"], &kept["id"]), (&json!("go"), &json!("s-1")));
    assert!(kept["received_at"].is_string(), "{run}");
    let (code, again) = one.post("/v1/runs/r:signal", signal).await;
    assert_eq!((code, &again), (StatusCode::OK, &run));
    let large = format!(r#"{{"name":"go","data":"{}"}}"#, "x".repeat(2_000));
    for (body, status, says) in [
        (r#"{"name":"full"}"#, 429, "100 signals wait"),
        (r#"{}"#, 400, "missing field `name`"),
        (
            r#"{"name":"two words"}"#,
            400,
            "`two words` is no name of a signal",
        ),
        (r#"{"name":"go","id":""}"#, 400, "no id of a signal"),
        (r#"{"name":"go","tags":{}}"#, 400, "unknown field `tags`"),
        (large.as_str(), 413, "the data has 2002 bytes"),
    ] {
        let (code, problem) = one.post("/v1/runs/r:signal", body).await;
        assert_eq!(code.as_u16(), status, "{problem}");
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains(says), "{problem}");
    }
    let (code, _) = one.post("/v1/runs/nobody:signal", signal).await;
    assert_eq!(code, StatusCode::NOT_FOUND);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fresh_id_and_the_trace_of_the_request_go_into_the_start() {
    let (_broker, one) = with_workflow().await;
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let request = one
        .http
        .post(format!("{}/v1/runs", one.url))
        .header("content-type", "application/json");
    let response = request
        .header("traceparent", trace)
        .body(r#"{"workflow":"two_steps"}"#)
        .send()
        .await
        .unwrap();
    let location = response.headers()["location"].to_str().unwrap().to_owned();
    let (_, run) = one.get(&location).await;
    assert_eq!(run["provenance"]["traceparent"], trace);
    assert!(TaskId::parse(run["steps"][0]["task_id"].as_str().unwrap()).is_some());
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_are_listed_newest_first_in_pages() {
    let (_broker, one) = with_workflow().await;
    for number in 1..=5 {
        let tag = if number % 2 == 0 { "even" } else { "odd" };
        let start =
            format!(r#"{{"workflow":"two_steps","id":"r{number}","tags":{{"kind":"{tag}"}}}}"#);
        assert_eq!(one.post("/v1/runs", &start).await.0, StatusCode::CREATED);
    }
    let ids = |page: &Value| -> Vec<String> {
        page["runs"]
            .as_array()
            .unwrap()
            .iter()
            .map(|run| run["id"].as_str().unwrap().to_owned())
            .collect()
    };
    let (_, first) = one.get("/v1/runs?limit=2&workflow=two_steps").await;
    assert_eq!(ids(&first), ["r5", "r4"]);
    let cursor = first["next_cursor"].as_str().unwrap();
    let (_, second) = one.get(&format!("/v1/runs?limit=3&cursor={cursor}")).await;
    assert_eq!(ids(&second), ["r3", "r2", "r1"]);
    assert_eq!(second["next_cursor"], Value::Null);
    let (_, odd) = one.get("/v1/runs?tag=kind:odd&status=running").await;
    assert_eq!(ids(&odd), ["r5", "r3", "r1"]);
    let (_, none) = one.get("/v1/runs?until=2020-01-01T00:00:00Z").await;
    assert_eq!(none, json!({"runs": [], "next_cursor": null}));
    let (_, none) = one.get("/v1/runs?record=prices/0/17").await;
    assert_eq!(none, json!({"runs": [], "next_cursor": null}));
    let (status, problem) = one.get("/v1/runs?record=prices/17").await;
    assert_eq!(status, 400);
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.contains("TOPIC/PARTITION/OFFSET"), "{detail}");
}
