//! Two instances: each answers for both. Health and metrics.

use partita::api::ApiSettings;
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::support::{Broker, Instance, SOON, TWO_STEPS, until};

/// Ids whose byte sums end in partitions 0 to 3 of the fake.
const IN_PARTITION: [&str; 4] = ["d", "a", "b", "c"];

async fn pair(broker: &Broker) -> (Instance, Instance) {
    pair_with(broker, |_| {}).await
}

async fn pair_with(broker: &Broker, set: impl Fn(&mut ApiSettings)) -> (Instance, Instance) {
    let one = Instance::with(broker, "one", vec![0, 1], |api, _| set(api)).await;
    let two = Instance::with(broker, "two", vec![2, 3], |api, _| set(api)).await;
    one.apply("two_steps", TWO_STEPS).await;
    two.registry.caught_up().await.unwrap();
    until("both have heard of each other", async || {
        one.membership.others().len() == 1 && two.membership.others().len() == 1
    })
    .await;
    (one, two)
}

#[tokio::test(flavor = "multi_thread")]
async fn any_instance_answers_for_any_run() {
    let broker = Broker::start().await;
    let (one, two) = pair(&broker).await;
    for id in IN_PARTITION {
        let start = format!(r#"{{"workflow":"two_steps","id":"{id}"}}"#);
        let (status, run) = one.post("/v1/runs", &start).await;
        assert_eq!(
            (status, run["id"].as_str()),
            (StatusCode::CREATED, Some(id)),
            "{run}"
        );
        let (status, run) = two.get(&format!("/v1/runs/{id}")).await;
        assert_eq!(
            (status, run["status"].as_str()),
            (StatusCode::OK, Some("running"))
        );
        let (status, _) = two
            .post(&format!("/v1/tasks/{id}.first.0.1:complete"), "{}")
            .await;
        assert_eq!(status, StatusCode::OK);
        let (status, body) = one
            .post(&format!("/v1/tasks/{id}.first.0.1:complete"), "{}")
            .await;
        assert_eq!(
            (status, body["instance"].as_str().is_some()),
            (StatusCode::CONFLICT, true),
            "{body}"
        );
        let (status, history) = one.get(&format!("/v1/runs/{id}/events")).await;
        assert_eq!(
            (status, history["events"][0]["type"].as_str()),
            (StatusCode::OK, Some("partita.run.started"))
        );
    }
    for instance in [&one, &two] {
        let (_, page) = instance.get("/v1/runs?limit=3").await;
        assert_eq!(page["runs"].as_array().unwrap().len(), 3, "{page}");
        let (_, rest) = instance
            .get(&format!(
                "/v1/runs?cursor={}",
                page["next_cursor"].as_str().unwrap()
            ))
            .await;
        assert_eq!(
            (rest["runs"].as_array().unwrap().len(), &rest["next_cursor"]),
            (1, &Value::Null),
            "{rest}"
        );
    }
    // A start without an id stays where it is asked for.
    let (_, run) = two.post("/v1/runs", r#"{"workflow":"two_steps"}"#).await;
    assert!(
        two.get(&format!("/v1/runs/{}", run["id"].as_str().unwrap()))
            .await
            .0
            .is_success()
    );
    let (status, body) = one
        .ask(
            reqwest::Method::DELETE,
            "/v1/definitions/workflow/two_steps",
            None,
        )
        .await;
    assert_eq!(status, StatusCode::CONFLICT, "{body}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_between_two_owners_is_waited_for() {
    let broker = Broker::start().await;
    let (one, two) = pair_with(&broker, |api| api.owner_patience = SOON / 2).await;
    two.fake.own(vec![3]);
    let moved = async {
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        one.fake.own(vec![0, 1, 2]);
    };
    let (answered, ()) = tokio::join!(
        two.post("/v1/runs", r#"{"workflow":"two_steps","id":"b"}"#),
        moved
    );
    assert_eq!(answered.0, StatusCode::CREATED, "{}", answered.1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_that_nobody_takes_is_told() {
    let broker = Broker::start().await;
    let (one, two) = pair(&broker).await;
    // The list would have holes, and the runs of partition 3 have no home.
    two.fake.own(vec![2]);
    let request = two
        .http
        .get(format!("{}/v1/runs/c", two.url))
        .send()
        .await
        .unwrap();
    assert_eq!(
        (request.status(), &request.headers()["retry-after"]),
        (StatusCode::SERVICE_UNAVAILABLE, &"1".parse().unwrap())
    );
    until("the others know it", async || {
        one.get("/v1/cluster").await.1["unowned"] == json!([3])
    })
    .await;
    let (status, body) = one.get("/v1/runs").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(
        body["detail"].as_str().unwrap().contains("partition 3"),
        "{body}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_cluster_shows_who_owns_what_until_they_leave() {
    let broker = Broker::start().await;
    let (one, two) = pair(&broker).await;
    let (status, cluster) = one.get("/v1/cluster").await;
    assert_eq!(
        (status, cluster["partitions"].as_u64()),
        (StatusCode::OK, Some(4))
    );
    let names: Vec<&Value> = cluster["instances"]
        .as_array()
        .unwrap()
        .iter()
        .map(|member| &member["instance"])
        .collect();
    assert_eq!(names, ["one", "two"]);
    assert_eq!(cluster["instances"][0]["this"], true);
    assert_eq!(cluster["instances"][1]["partitions"][0]["partition"], 2);
    two.membership.leave().await;
    until("its leave is seen", async || {
        one.membership.others().is_empty()
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn health_metrics_and_the_document_are_served() {
    let broker = Broker::start().await;
    let one = Instance::alone(&broker).await;
    assert_eq!(one.get("/livez").await.0, StatusCode::OK);
    assert_eq!(one.get("/readyz").await.0, StatusCode::OK);
    one.fake.own(vec![]);
    let (status, body) = one.get("/readyz").await;
    assert_eq!(
        (status, &body["reasons"]),
        (
            StatusCode::SERVICE_UNAVAILABLE,
            &json!(["no partition is owned"])
        )
    );
    // Who let us choose the id learns it: a start that is repeated under it is no second run.
    let (status, body) = one.post("/v1/runs", r#"{"workflow":"two_steps"}"#).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{body}");
    assert!(body["run_id"].is_string(), "{body}");
    let metrics = one
        .http
        .get(format!("{}/metrics", one.url))
        .send()
        .await
        .unwrap();
    assert!(
        metrics.headers()["content-type"]
            .to_str()
            .unwrap()
            .starts_with("text/plain")
    );
    assert_eq!(metrics.text().await.unwrap(), "some_total 1\n");
    let (status, document) = one.get("/openapi.json").await;
    assert_eq!(
        (status, document["openapi"].as_str()),
        (StatusCode::OK, Some("3.1.0"))
    );
}
