//! The document against what the server does: every answer that a test of this suite asks for is
//! held to it ([`check`]), and every path and method of it is tried.

use std::sync::LazyLock;

use partita::api::documented_routes;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::{Broker, Instance};

static DOCUMENT: LazyLock<Value> = LazyLock::new(|| {
    serde_saphyr::from_str(include_str!("../../src/api/openapi.yaml")).expect("it is YAML")
});

/// Panics where the answer is none that the document has for the request.
#[track_caller]
pub fn check(method: &Method, path: &str, status: StatusCode, body: &Value) {
    let path = path.split('?').next().unwrap_or_default();
    let path = &path.replace("%3A", ":");
    let documented = DOCUMENT["paths"].as_object().expect("paths");
    let operation = documented
        .iter()
        .find(|(template, _)| matches(template, path))
        .and_then(|(_, item)| item.get(method.as_str().to_lowercase()));
    let Some(operation) = operation else {
        // No such route, or not this method: the same shape for all of them.
        assert!(
            [404, 405].contains(&status.as_u16()),
            "{method} {path}: {status}, and the document does not have it"
        );
        return valid(&json!({"$ref": "#/components/schemas/Problem"}), body);
    };
    let code = status.as_u16().to_string();
    let mut response = operation["responses"].get(&code).unwrap_or_else(|| {
        panic!("{method} {path} answers {status}, which is not documented: {body}")
    });
    if let Some(target) = response["$ref"].as_str() {
        let pointer = target.trim_start_matches('#');
        response = DOCUMENT
            .pointer(pointer)
            .expect("references lead somewhere");
    }
    let kind = if status.is_success() {
        "application/json"
    } else {
        "application/problem+json"
    };
    if let Some(schema) = response["content"][kind].get("schema") {
        valid(schema, body);
    }
}

#[track_caller]
fn valid(schema: &Value, body: &Value) {
    let mut whole = schema.clone();
    whole["components"] = DOCUMENT["components"].clone();
    let validator = jsonschema::validator_for(&whole).expect("the schema is one");
    let faults: Vec<String> = validator
        .iter_errors(body)
        .map(|fault| format!("{}: {fault}", fault.instance_path()))
        .collect();
    assert!(faults.is_empty(), "{faults:#?} in {body:#}");
}

/// Whether a path is of the template: `{…}` stands for a segment, or what comes before a colon.
fn matches(template: &str, path: &str) -> bool {
    let (templates, segments): (Vec<_>, Vec<_>) =
        (template.split('/').collect(), path.split('/').collect());
    templates.len() == segments.len()
        && templates.iter().zip(segments).all(|(template, segment)| {
            match template.split_once('}') {
                Some((_, "")) => !segment.contains(':'),
                Some((_, verb)) => segment.ends_with(verb),
                None => *template == segment,
            }
        })
}

#[tokio::test(flavor = "multi_thread")]
async fn every_documented_route_is_served_and_no_other_method_of_it() {
    let broker = Broker::start().await;
    let one = Instance::alone(&broker).await;
    for (template, methods) in documented_routes() {
        let path = template
            .replace("{kind}", "workflow")
            .replace("{task_id}", "r.s.0.1")
            .replace(['{', '}'], "");
        for method in ["get", "post", "put", "delete", "patch"] {
            let asked = Method::from_bytes(method.to_uppercase().as_bytes()).expect("a method");
            let request = one
                .http
                .request(asked, format!("{}{path}", one.url))
                .header("content-type", "application/json")
                .body(if template.contains("poll") {
                    r#"{"wait":0}"#
                } else {
                    ""
                });
            // Only the head: one of them is a stream without an end.
            let answer = request.send().await.expect("an answer");
            let is_there = answer.status() != StatusCode::METHOD_NOT_ALLOWED;
            assert_eq!(
                is_there,
                methods.contains(&method),
                "{method} {path}: {}",
                answer.status()
            );
            if is_there && answer.status() == StatusCode::NOT_FOUND {
                let said = answer.text().await.expect("a problem");
                assert!(
                    !said.contains("there is no route"),
                    "{method} {path}: {said}"
                );
            }
        }
    }
}
