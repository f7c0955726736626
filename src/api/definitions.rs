//! `/v1/definitions`: definitions go in and come out as themselves, YAML or JSON by content type.

use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::Value;

use super::Api;
use super::incoming::{Incoming, Segments, wrong_type};
use super::list::any_live_run_pins;
use super::problem::Problem;
use super::runs::json_response;
use crate::runtime::definitions::{Applied, Change, Stored};
use crate::runtime::kinds::Kind;

const YAML: &str = "application/yaml";
const YAML_TYPES: [&str; 4] = [YAML, "application/x-yaml", "text/yaml", "text/x-yaml"];

fn known_kind(name: &str) -> Result<Kind, Problem> {
    Kind::of(name).ok_or_else(|| {
        let names: Vec<_> = Kind::ALL.iter().map(|kind| kind.name()).collect();
        Problem::not_found(format!(
            "there is no kind `{name}`; kinds are {}",
            names.join(", ")
        ))
    })
}

/// `<name>` or `<name>@<version>`.
pub(super) fn name_and_version(segment: &str) -> Result<(&str, Option<u32>), Problem> {
    let Some((name, version)) = segment.rsplit_once('@') else {
        return Ok((segment, None));
    };
    let version = version.parse().ok().filter(|version| *version > 0);
    let wrong = || {
        Problem::bad_request(format!(
            "`{segment}` names no version: write NAME@VERSION with a number from 1"
        ))
    };
    version
        .map(|version| (name, Some(version)))
        .ok_or_else(wrong)
}

/// `GET /v1/definitions/{kind}`: all versions, by name, the highest first.
pub async fn list(
    State(api): State<Api>,
    Segments(kind): Segments<String>,
    request: Incoming,
) -> Result<Response, Problem> {
    let kind = known_kind(&kind)?;
    request.query(&[], &[])?;
    let all = api.definitions().list(kind);
    let texts: Vec<&str> = all
        .iter()
        .map(|stored| stored.definition.source.as_str())
        .collect();
    Ok(answer(
        &request,
        StatusCode::OK,
        format!(r#"{{"definitions":[{}]}}"#, texts.join(",")),
    ))
}

/// `GET /v1/definitions/{kind}/{name}[@{version}]`: without a version the highest.
pub async fn show(
    State(api): State<Api>,
    Segments((kind, segment)): Segments<(String, String)>,
    request: Incoming,
) -> Result<Response, Problem> {
    let kind = known_kind(&kind)?;
    request.query(&[], &[])?;
    let (name, version) = name_and_version(&segment)?;
    let stored = api
        .definitions()
        .get(kind, name, version)
        .ok_or_else(|| unknown(kind, &segment))?;
    Ok(definition(&request, StatusCode::OK, &stored))
}

fn unknown(kind: Kind, segment: &str) -> Problem {
    let kind = kind.name();
    Problem::not_found(format!("no {kind} `{segment}` is applied"))
}

/// `PUT /v1/definitions/{kind}/{name}[@{version}][?dry_run=true]`: 201 where it is new, 200 where
/// the same was there, 409 where the version is there with other content. What is odd and no fault
/// comes as `Warning` headers.
pub async fn apply(
    State(api): State<Api>,
    Segments((kind, segment)): Segments<(String, String)>,
    request: Incoming,
) -> Result<Response, Problem> {
    let kind = known_kind(&kind)?;
    let (name, version) = name_and_version(&segment)?;
    let mut dry_run = false;
    for (_, value) in request.query(&["dry_run"], &[])? {
        let wrong = || Problem::bad_request(format!("`dry_run` is `{value}`; write true or false"));
        dry_run = value.parse().map_err(|_| wrong())?;
    }
    let text = body_text(&request)?;
    let [parsed] = api
        .definitions()
        .check(text, None)?
        .try_into()
        .map_err(|found: Vec<_>| several(found.len()))?;
    let fits = parsed.kind() == kind
        && parsed.name.as_ref() == name
        && version.is_none_or(|version| parsed.version == version);
    if !fits {
        return Err(Problem::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "definition-elsewhere",
            "The definition is not the one that the URL names",
            format!(
                "the URL names {} `{segment}` and the body holds {} `{}@{}`",
                kind.name(),
                parsed.kind().name(),
                parsed.name,
                parsed.version
            ),
        ));
    }
    let [only] = api
        .definitions()
        .apply(text, None, dry_run)
        .await?
        .try_into()
        .map_err(|found: Vec<_>| several(found.len()))?;
    let status = match only.change {
        Change::Created if !dry_run => StatusCode::CREATED,
        Change::Created | Change::Unchanged => StatusCode::OK,
    };
    let mut response = definition(&request, status, &only.stored);
    warn(&mut response, &only);
    Ok(response)
}

/// Warnings travel beside the definition, as those of the Kubernetes API do.
fn warn(response: &mut Response, applied: &Applied) {
    for warning in &applied.warnings {
        let quoted = warning.replace('\\', "\\\\").replace('"', "\\\"");
        if let Ok(value) = HeaderValue::from_str(&format!("299 - \"{quoted}\"")) {
            response.headers_mut().append(header::WARNING, value);
        }
    }
}

fn several(found: usize) -> Problem {
    Problem::bad_request(format!(
        "the body holds {found} definitions; this route takes one, so send them one by one"
    ))
}

fn body_text(request: &Incoming) -> Result<&str, Problem> {
    let kind = request.content_type();
    let accepted = kind
        .as_deref()
        .is_some_and(|kind| kind == "application/json" || YAML_TYPES.contains(&kind));
    if !accepted {
        return Err(wrong_type(
            kind.as_deref(),
            "application/yaml or application/json",
        ));
    }
    std::str::from_utf8(&request.body).map_err(|error| {
        Problem::bad_request(format!(
            "the body is not UTF-8 from byte {} on",
            error.valid_up_to()
        ))
    })
}

/// `DELETE /v1/definitions/{kind}/{name}[@{version}]`: without a version all of them; 409 while
/// runs that have not ended pin one.
pub async fn delete(
    State(api): State<Api>,
    Segments((kind, segment)): Segments<(String, String)>,
    request: Incoming,
) -> Result<Response, Problem> {
    let kind = known_kind(&kind)?;
    request.query(&[], &[])?;
    let (name, version) = name_and_version(&segment)?;
    api.definitions().caught_up().await?;
    let mut meant = api.definitions().list(kind);
    meant.retain(|stored| {
        let found = &stored.definition;
        found.name.as_ref() == name && version.is_none_or(|version| found.version == version)
    });
    if meant.is_empty() {
        return Err(unknown(kind, &segment));
    }
    let versions: Vec<u32> = meant
        .iter()
        .map(|stored| stored.definition.version)
        .collect();
    check_unused(&api, kind, name, &versions).await?;
    for &version in &versions {
        api.definitions().delete(kind, name, version).await?;
    }
    // A start that was on its way while the runs were looked at may have been carried out since.
    if let Err(problem) = check_unused(&api, kind, name, &versions).await {
        for stored in &meant {
            api.definitions().put_back(stored).await?;
        }
        return Err(problem);
    }
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Whether no run that has not ended needs one of these versions, over all instances.
async fn check_unused(api: &Api, kind: Kind, name: &str, versions: &[u32]) -> Result<(), Problem> {
    if kind != Kind::Workflow {
        return Ok(());
    }
    let Some(run) = any_live_run_pins(api, name, versions).await? else {
        return Ok(());
    };
    Err(Problem::new(
        StatusCode::CONFLICT,
        "definition-in-use",
        "Runs that have not ended need the definition",
        format!(
            "run `{run}` needs workflow `{name}`; delete it once such runs have ended or are cancelled"
        ),
    )
    .with("run_id", run))
}

fn definition(request: &Incoming, status: StatusCode, stored: &Stored) -> Response {
    answer(
        request,
        status,
        stored.definition.source.as_str().to_owned(),
    )
}

/// JSON text as it is, or as YAML where the caller asks for that.
fn answer(request: &Incoming, status: StatusCode, json: String) -> Response {
    let accept = request
        .headers
        .get(header::ACCEPT)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    if !YAML_TYPES.iter().any(|yaml| accept.contains(yaml)) {
        return json_response(status, json);
    }
    let tree: Value = serde_json::from_str(&json).expect("definitions are kept as valid JSON");
    match serde_saphyr::to_string(&tree) {
        Ok(yaml) => {
            let mut response = (status, yaml).into_response();
            response
                .headers_mut()
                .insert(header::CONTENT_TYPE, HeaderValue::from_static(YAML));
            response
        }
        Err(error) => {
            Problem::unavailable(format!("the definition cannot be written as YAML: {error}"))
                .into_response()
        }
    }
}
