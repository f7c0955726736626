//! The `http` agent: a task is a request, its output the response. Only hosts that the
//! configuration names are called, redirects are not followed, and responses are bounded.

use std::collections::BTreeMap;
use std::time::Duration;

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, StatusCode, Url};
use serde::Deserialize;
use serde_json::{Value, json};

use super::agent::Context;
use super::builtin::read_task;
use crate::document::duration;
use crate::model::{Failure, Json, Task, class};

/// What the agent may do.
#[derive(Clone, Debug)]
pub struct HttpSettings {
    /// Hosts that may be called: `example.org`, `example.org:8443`, or `*.example.org` for those
    /// below it. Without a port any port is allowed. Empty: none.
    pub allow: Vec<String>,
    /// Of a response's body; a larger one fails the task with `payload_too_large`.
    pub max_response_bytes: usize,
    /// For one request, where the task names no shorter one.
    pub timeout: Duration,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct HttpTask {
    #[serde(default)]
    method: Option<String>,
    url: String,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    /// Text is sent as it is, anything else as JSON; without it the task's inputs are sent where
    /// the method takes a body.
    #[serde(default)]
    body: Option<Value>,
    #[serde(default)]
    timeout: Option<String>,
}

/// Calls services for tasks.
pub struct Caller {
    settings: HttpSettings,
    client: reqwest::Client,
}

impl Caller {
    pub fn new(settings: HttpSettings) -> Result<Self, reqwest::Error> {
        let client = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(Duration::from_secs(10))
            .user_agent(concat!("partita/", env!("CARGO_PKG_VERSION")))
            .build()?;
        Ok(Self { settings, client })
    }

    /// One request. The output is `{"status","headers","body"}`; a status other than 2xx is a
    /// failure whose class retries can go by, with the same in `details`.
    pub async fn call(&self, task: &Task, context: &Context) -> Result<Json, Failure> {
        let wanted: HttpTask = read_task(&task.task)?;
        let request = self.request(task, context, wanted)?;
        tokio::select! {
            called = self.send(request) => called,
            () = context.cancelled().cancelled() => Err(Failure::new(class::CANCELLED, "the task was given up")),
        }
    }

    fn request(
        &self,
        task: &Task,
        context: &Context,
        wanted: HttpTask,
    ) -> Result<reqwest::RequestBuilder, Failure> {
        let method = wanted
            .method
            .as_deref()
            .unwrap_or("GET")
            .to_ascii_uppercase();
        let method = Method::from_bytes(method.as_bytes())
            .map_err(|_| invalid(format!("`{method}` is no method")))?;
        let url = Url::parse(&wanted.url)
            .map_err(|error| invalid(format!("`{}` is no URL: {error}", wanted.url)))?;
        self.allowed(&url)?;
        let mut timeout = self.settings.timeout;
        if let Some(text) = &wanted.timeout {
            let given =
                duration::parse(text).map_err(|error| invalid(format!("task.timeout: {error}")))?;
            timeout = timeout.min(given.into());
        }
        let mut headers = HeaderMap::new();
        headers.insert("idempotency-key", header_value("task_id", &task.task_id)?);
        if let Some(traceparent) = context.traceparent() {
            headers.insert("traceparent", header_value("traceparent", traceparent)?);
        }
        for (name, value) in &wanted.headers {
            let key = HeaderName::from_bytes(name.as_bytes())
                .map_err(|_| invalid(format!("`{name}` is no header name")))?;
            headers.insert(key, header_value(name, value)?);
        }
        let takes_body = !matches!(
            method,
            Method::GET | Method::HEAD | Method::DELETE | Method::OPTIONS
        );
        let typed = headers.contains_key("content-type");
        let mut request = self
            .client
            .request(method, url)
            .timeout(timeout)
            .headers(headers);
        request = match wanted.body {
            Some(Value::String(text)) => request.body(text),
            Some(other) if typed => request.body(other.to_string()),
            Some(other) => request.json(&other),
            None if takes_body && typed => request.body(task.inputs.as_str().to_owned()),
            None if takes_body => request
                .header("content-type", "application/json")
                .body(task.inputs.as_str().to_owned()),
            None => request,
        };
        Ok(request)
    }

    fn allowed(&self, url: &Url) -> Result<(), Failure> {
        if !matches!(url.scheme(), "http" | "https") {
            return Err(invalid(format!(
                "`{}` is neither http nor https",
                url.scheme()
            )));
        }
        let host = url.host_str().unwrap_or_default();
        let port = url.port_or_known_default().unwrap_or_default();
        let allows = |entry: &String| {
            let (name, wanted_port) = match entry.rsplit_once(':') {
                Some((name, digits))
                    if !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()) =>
                {
                    (name, digits.parse::<u16>().ok())
                }
                _ => (entry.as_str(), None),
            };
            let host_fits = match name.strip_prefix("*.") {
                Some(parent) => host
                    .strip_suffix(parent)
                    .is_some_and(|rest| rest.ends_with('.') && rest.len() > 1),
                None => name.eq_ignore_ascii_case(host),
            };
            host_fits && wanted_port.is_none_or(|wanted| wanted == port)
        };
        if self.settings.allow.iter().any(allows) {
            return Ok(());
        }
        Err(invalid(format!(
            "`{host}:{port}` is not among the hosts that the configuration allows the http agent"
        )))
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Result<Json, Failure> {
        let mut response = request.send().await.map_err(|error| failed(&error))?;
        let status = response.status();
        let headers: BTreeMap<String, String> = response
            .headers()
            .iter()
            .map(|(name, value)| {
                (
                    name.to_string(),
                    String::from_utf8_lossy(value.as_bytes()).into_owned(),
                )
            })
            .collect();
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(|error| failed(&error))? {
            if body.len() + chunk.len() > self.settings.max_response_bytes {
                return Err(Failure::new(
                    class::PAYLOAD_TOO_LARGE,
                    format!(
                        "the response has more than {} bytes",
                        self.settings.max_response_bytes
                    ),
                ));
            }
            body.extend_from_slice(&chunk);
        }
        let is_json = headers
            .get("content-type")
            .is_some_and(|kind| kind.contains("json"));
        let text = String::from_utf8_lossy(&body).into_owned();
        let body = if is_json {
            serde_json::from_str(&text).unwrap_or(Value::String(text))
        } else {
            Value::String(text)
        };
        let output =
            Json::from(json!({"status": status.as_u16(), "headers": headers, "body": body}));
        if status.is_success() {
            Ok(output)
        } else {
            Err(refused(status, output))
        }
    }
}

fn invalid(message: String) -> Failure {
    let mut failure = Failure::new(class::VALIDATION_ERROR, message);
    failure.retryable = Some(false);
    failure
}

fn header_value(name: &str, value: &str) -> Result<HeaderValue, Failure> {
    HeaderValue::from_str(value).map_err(|_| {
        invalid(format!(
            "the value of header `{name}` holds characters that no header may"
        ))
    })
}

fn failed(error: &reqwest::Error) -> Failure {
    let class = if error.is_timeout() {
        class::TIMEOUT
    } else {
        class::CONNECTION_ERROR
    };
    let mut message = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        message = format!("{message}: {cause}");
        source = cause.source();
    }
    Failure::new(class, message)
}

/// Status to class: what a later attempt may mend is retryable, what the request itself got wrong
/// is not.
fn refused(status: StatusCode, response: Json) -> Failure {
    let class = match status.as_u16() {
        408 | 504 => class::TIMEOUT,
        429 | 500..=599 => class::AGENT_UNAVAILABLE,
        _ => class::VALIDATION_ERROR,
    };
    let mut failure = Failure::new(class, format!("the service answered {status}"));
    failure.retryable = (class == class::VALIDATION_ERROR).then_some(false);
    failure.details = Some(response);
    failure
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(allow: &[&str]) -> Caller {
        let allow = allow.iter().map(|entry| (*entry).to_owned()).collect();
        Caller::new(HttpSettings {
            allow,
            max_response_bytes: 100,
            timeout: Duration::from_secs(1),
        })
        .unwrap()
    }

    #[test]
    fn only_named_hosts_are_called() {
        let caller = caller(&["example.org", "*.inner.net", "local:8080"]);
        let allowed = |url: &str| caller.allowed(&Url::parse(url).unwrap()).is_ok();
        assert!(allowed("https://example.org/a"));
        assert!(allowed("http://example.org:81/a"));
        assert!(allowed("http://a.inner.net"));
        assert!(allowed("http://local:8080/"));
        for refused in [
            "http://inner.net",
            "http://evil-inner.net",
            "http://local:8081/",
            "ftp://example.org/",
            "http://example.org.evil.com/",
            "http://example.org@evil.com/",
        ] {
            assert!(!allowed(refused), "{refused}");
        }
    }

    #[test]
    fn a_status_becomes_a_class() {
        let class_of =
            |status: u16| refused(StatusCode::from_u16(status).unwrap(), Json::null()).class;
        assert_eq!(class_of(504), "timeout");
        assert_eq!(class_of(429), "agent_unavailable");
        assert_eq!(class_of(503), "agent_unavailable");
        assert_eq!(class_of(404), "validation_error");
        assert_eq!(class_of(302), "validation_error");
    }
}
