//! `GET /v1/cluster`, health and metrics.

use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use super::Api;
use super::incoming::Incoming;
use super::problem::Problem;
use super::runs::json_response;
use crate::runtime::Readiness;
use crate::runtime::membership::Member;

/// Age after which a member's lag says little: shown, so that people can tell.
#[derive(Serialize)]
struct MemberView {
    /// Whether it is the instance that answers.
    this: bool,
    #[serde(flatten)]
    member: Member,
}

#[derive(Serialize)]
struct ClusterView {
    /// Partitions of the installation; 0 as long as no broker has told.
    partitions: i32,
    /// Partitions that no instance claims.
    unowned: Vec<i32>,
    instances: Vec<MemberView>,
}

/// `GET /v1/cluster`.
pub async fn cluster(State(api): State<Api>, request: Incoming) -> Result<Response, Problem> {
    request.query(&[], &[])?;
    let partitions = api.runs().partitions();
    let members = api.membership().cluster();
    let claimed = |partition: &i32| {
        members
            .iter()
            .any(|member| member.partitions.iter().any(|p| p.partition == *partition))
    };
    let unowned = (0..partitions)
        .filter(|partition| !claimed(partition))
        .collect();
    let instances = members
        .into_iter()
        .enumerate()
        .map(|(place, member)| MemberView {
            this: place == 0,
            member,
        })
        .collect();
    let view = ClusterView {
        partitions,
        unowned,
        instances,
    };
    Ok(json_response(
        StatusCode::OK,
        serde_json::to_string(&view).expect("a cluster serialises"),
    ))
}

/// `GET /livez`: the process serves requests.
pub async fn livez() -> Response {
    json_response(StatusCode::OK, r#"{"status":"alive"}"#)
}

/// `GET /readyz`: 200 once everything is restored, else 503 with reasons.
pub async fn readyz(State(api): State<Api>) -> Result<Response, Problem> {
    let mut reasons = match api.runs().readiness() {
        Readiness::Ready => Vec::new(),
        Readiness::NotReady { reasons } => reasons,
    };
    if !api.definitions().restored() {
        reasons.push("the definitions have not been read yet".to_owned());
    }
    if !api.membership().restored() {
        reasons.push("the other instances have not been heard of yet".to_owned());
    }
    if api.closing().is_cancelled() {
        reasons.push("this instance is shutting down".to_owned());
    }
    if reasons.is_empty() {
        return Ok(json_response(StatusCode::OK, r#"{"status":"ready"}"#));
    }
    Err(Problem::not_ready(reasons))
}

/// `GET /metrics`, in the text format of Prometheus.
pub async fn metrics(State(api): State<Api>) -> Result<Response, Problem> {
    let render = std::sync::Arc::clone(&api.0.render_metrics);
    // Rendering drains histograms and may take a while with many series: not on a worker of tokio.
    let rendered = tokio::time::timeout(
        Duration::from_secs(10),
        tokio::task::spawn_blocking(move || render()),
    )
    .await;
    let Ok(Ok(text)) = rendered else {
        return Err(Problem::unavailable(
            "the metrics could not be rendered in time",
        ));
    };
    let mut response = text.into_response();
    let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    Ok(response)
}
