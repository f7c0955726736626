//! The API's document: written by hand as YAML, served as JSON. A test holds it against the
//! routes.

use std::sync::LazyLock;

use axum::http::StatusCode;
use axum::response::Response;
use serde_json::Value;

use super::runs::json_response;

static DOCUMENT: LazyLock<String> = LazyLock::new(|| tree().to_string());

fn tree() -> Value {
    let mut tree: Value =
        serde_saphyr::from_str(include_str!("openapi.yaml")).expect("the document is valid YAML");
    tree["info"]["version"] = Value::from(env!("CARGO_PKG_VERSION"));
    tree
}

/// `GET /openapi.json`.
pub async fn document() -> Response {
    json_response(StatusCode::OK, DOCUMENT.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn the_document_names_every_route_and_no_other() {
        let tree = tree();
        let paths = tree["paths"].as_object().expect("paths is an object");
        let documented: BTreeMap<&str, Vec<&str>> = paths
            .iter()
            .map(|(path, item)| {
                let mut methods: Vec<&str> = item
                    .as_object()
                    .unwrap()
                    .keys()
                    .map(String::as_str)
                    .filter(|key| *key != "parameters")
                    .collect();
                methods.sort_unstable();
                (path.as_str(), methods)
            })
            .collect();
        let routed: BTreeMap<&str, Vec<&str>> = super::super::documented_routes()
            .into_iter()
            .map(|(path, methods)| (path, methods.to_vec()))
            .collect();
        assert_eq!(documented, routed);
    }

    #[test]
    fn every_reference_leads_somewhere() {
        fn references(value: &Value, found: &mut Vec<String>) {
            match value {
                Value::Object(members) => {
                    for (key, value) in members {
                        match value.as_str().filter(|_| key == "$ref") {
                            Some(target) => found.push(target.to_owned()),
                            None => references(value, found),
                        }
                    }
                }
                Value::Array(items) => items.iter().for_each(|item| references(item, found)),
                _ => {}
            }
        }
        let tree = tree();
        let mut found = Vec::new();
        references(&tree, &mut found);
        assert!(!found.is_empty());
        for reference in found {
            let pointer = reference
                .strip_prefix('#')
                .expect("references stay in the document");
            assert!(tree.pointer(pointer).is_some(), "{reference} leads nowhere");
        }
    }
}
