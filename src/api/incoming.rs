//! A request as the handlers read it: target, headers and a bounded body, with strict readers for
//! path, query and JSON. Whatever is wrong comes back as a problem that says where.

use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{FromRequest, FromRequestParts, Path, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use serde::de::{DeserializeOwned, IgnoredAny};

use super::Api;
use super::problem::Problem;
use crate::document::duration;
use crate::model::RunId;

/// Marks a request that another instance passed on: it is answered here or not at all, so that
/// no request travels in a circle.
pub const FORWARDED: &str = "partita-forwarded";

/// One request, its body read whole.
#[derive(Clone, Debug)]
pub struct Incoming {
    pub method: Method,
    pub uri: Uri,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl FromRequest<Api> for Incoming {
    type Rejection = Problem;

    async fn from_request(request: Request, api: &Api) -> Result<Self, Problem> {
        let (parts, body) = request.into_parts();
        let limit = api.settings().max_body_bytes;
        let within = api.settings().connections.body_timeout;
        let read = tokio::time::timeout(within, axum::body::to_bytes(body, limit));
        let body = read.await.map_err(|_| {
            Problem::too_slow(format!(
                "the body of the request did not come within {} s",
                within.as_secs_f64()
            ))
        })?;
        let body = body.map_err(|error| {
            // axum tells a body over the limit from a connection that broke by its source alone.
            let over = std::error::Error::source(&error)
                .is_some_and(|source| source.to_string().contains("limit"));
            if over {
                Problem::too_large(format!("the body has more than {limit} bytes"))
            } else {
                Problem::bad_request(format!("the body ended early: {error}"))
            }
        })?;
        Ok(Self {
            method: parts.method,
            uri: parts.uri,
            headers: parts.headers,
            body,
        })
    }
}

/// The variable segments of the path, decoded; what cannot be decoded is a problem as any other.
pub struct Segments<T>(pub T);

impl<T, S> FromRequestParts<S> for Segments<T>
where
    T: DeserializeOwned + Send,
    S: Send + Sync,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match Path::from_request_parts(parts, state).await {
            Ok(Path(segments)) => Ok(Self(segments)),
            Err(error) => Err(Problem::bad_request(format!(
                "the path cannot be read: {}",
                error.body_text()
            ))),
        }
    }
}

impl Incoming {
    pub fn forwarded(&self) -> bool {
        self.headers.contains_key(FORWARDED)
    }

    /// The W3C `traceparent` of the request, where it has one of the right form.
    pub fn traceparent(&self) -> Option<String> {
        let text = self.headers.get("traceparent")?.to_str().ok()?;
        let parts: Vec<&str> = text.split('-').collect();
        let lengths: Vec<usize> = parts.iter().map(|part| part.len()).collect();
        let hex = text
            .bytes()
            .all(|byte| byte == b'-' || byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
        let right = hex && lengths == [2, 32, 16, 2] && parts[0] != "ff";
        // An id of zeroes only names no trace.
        let names = |id: &str| id.bytes().any(|byte| byte != b'0');
        (right && names(parts[1]) && names(parts[2])).then(|| text.to_owned())
    }

    /// Whether the caller asks for a stream of server-sent events.
    pub fn wants_events(&self) -> bool {
        let accept = self.headers.get_all(header::ACCEPT).iter();
        accept
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .any(|range| media_type(range) == "text/event-stream" && !is_refused(range))
    }

    /// The media type of the body, in lower case and without parameters.
    pub fn content_type(&self) -> Option<String> {
        self.headers
            .get(header::CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .map(media_type)
    }

    /// The body as JSON; an empty body counts as `{}`. Unknown fields are the type's to refuse.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, Problem> {
        if self.body.is_empty() {
            return read_json(b"{}");
        }
        match self.content_type().as_deref() {
            Some(kind) if kind == "application/json" || kind.ends_with("+json") => {
                read_json(&self.body)
            }
            other => Err(wrong_type(other, "application/json")),
        }
    }

    /// The query's parameters in order. A name that is neither among `once` nor among `many` is
    /// refused, and so is one of `once` that is there twice.
    pub fn query(&self, once: &[&str], many: &[&str]) -> Result<Vec<(String, String)>, Problem> {
        let Some(query) = self.uri.query().filter(|query| !query.is_empty()) else {
            return Ok(Vec::new());
        };
        let url = reqwest::Url::parse(&format!("http://query/?{query}"))
            .map_err(|error| Problem::bad_request(format!("the query cannot be read: {error}")))?;
        let pairs: Vec<(String, String)> = url.query_pairs().into_owned().collect();
        for (place, (name, _)) in pairs.iter().enumerate() {
            if many.contains(&name.as_str()) {
                continue;
            }
            if !once.contains(&name.as_str()) {
                let known = [once, many].concat();
                let allowed = if known.is_empty() {
                    "none is".to_owned()
                } else {
                    format!("known are {}", known.join(", "))
                };
                return Err(Problem::bad_request(format!(
                    "unknown query parameter `{name}`; {allowed}"
                )));
            }
            if pairs[..place].iter().any(|(earlier, _)| earlier == name) {
                return Err(Problem::bad_request(format!(
                    "the query parameter `{name}` is given twice; give it once"
                )));
            }
        }
        Ok(pairs)
    }
}

fn media_type(text: &str) -> String {
    text.split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase()
}

/// Whether a range of media types has `q=0`: none of these.
fn is_refused(range: &str) -> bool {
    let parameters = range.split(';').skip(1);
    let quality = parameters
        .filter_map(|parameter| parameter.split_once('='))
        .find(|(name, _)| name.trim().eq_ignore_ascii_case("q"));
    quality.is_some_and(|(_, value)| value.trim().parse() == Ok(0.0))
}

/// 415 with what would be right.
pub fn wrong_type(given: Option<&str>, wanted: &str) -> Problem {
    let given = given.map_or("no Content-Type".to_owned(), |given| {
        format!("Content-Type `{given}`")
    });
    Problem::new(
        StatusCode::UNSUPPORTED_MEDIA_TYPE,
        "unsupported-media-type",
        "The body has the wrong type",
        format!("the body came with {given}; send {wanted}"),
    )
}

fn read_json<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    let problem = |error: serde_json::Error| {
        let what = match error.classify() {
            serde_json::error::Category::Data => "the body is not what is expected here",
            _ => "the body is not JSON",
        };
        Problem::bad_request(format!("{what}: {error}"))
            .with("line", error.line())
            .with("column", error.column())
    };
    // A list would be taken for the fields in their order, which nobody has promised.
    if !body.trim_ascii_start().starts_with(b"{") {
        serde_json::from_slice::<IgnoredAny>(body).map_err(problem)?;
        return Err(Problem::bad_request(
            "the body is not what is expected here: it must be a JSON object, `{…}`",
        ));
    }
    serde_json::from_slice(body).map_err(problem)
}

/// Splits a last path segment `<name>:<verb>` at its last colon.
pub fn split_verb(segment: &str) -> (&str, Option<&str>) {
    match segment.rsplit_once(':') {
        Some((name, verb)) => (name, Some(verb)),
        None => (segment, None),
    }
}

pub fn run_id(text: &str) -> Result<RunId, Problem> {
    RunId::parse(text).map_err(|error| Problem::bad_request(error.to_string()))
}

/// A span such as `500ms`, `30s` or `1h30m`; a bare number is seconds.
fn span(text: &str) -> Option<Duration> {
    match text.parse::<f64>() {
        Ok(seconds) => Duration::try_from_secs_f64(seconds).ok(),
        Err(_) => duration::parse(text).ok().map(Duration::from),
    }
}

/// The span that the parameter `name` gives (`500ms`, `30s`, a bare number of seconds), cut to
/// `at_most`.
pub fn span_parameter(name: &str, text: &str, at_most: Duration) -> Result<Duration, Problem> {
    let wrong = || {
        Problem::bad_request(format!(
            "`{name}` is `{text}`; write a span such as 500ms, 30s or 2m"
        ))
    };
    Ok(span(text).ok_or_else(wrong)?.min(at_most))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_are_read_as_people_write_them() {
        assert_eq!(span("500ms"), Some(Duration::from_millis(500)));
        assert_eq!(span("30s"), Some(Duration::from_secs(30)));
        assert_eq!(span("1.5"), Some(Duration::from_millis(1500)));
        assert_eq!(span("2m"), Some(Duration::from_secs(120)));
        for wrong in [
            "",
            "s",
            "-1s",
            "3 s",
            "1.2.3s",
            "99999999999999999999999h",
            "NaN",
            "inf",
        ] {
            assert_eq!(span(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_quality_of_nothing_refuses() {
        for range in ["a/b;q=0", "a/b; Q = 0.000", "a/b;x=1;q=0."] {
            assert!(is_refused(range), "{range}");
        }
        for range in ["a/b", "a/b;q=0.001", "a/b;q=1", "a/b;x=0", "a/b;q="] {
            assert!(!is_refused(range), "{range}");
        }
    }

    #[test]
    fn a_verb_is_what_follows_the_last_colon() {
        assert_eq!(split_verb("run-1:pause"), ("run-1", Some("pause")));
        assert_eq!(split_verb("run-1"), ("run-1", None));
        assert_eq!(split_verb("a:b:c"), ("a:b", Some("c")));
    }
}
