//! The HTTP API as the verbs use it: one request, and the error in words with the right exit code.

use std::collections::HashSet;
use std::time::Duration;

use reqwest::{Method, RequestBuilder, Response, StatusCode};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{CliError, tree};

/// A client of one instance's API.
pub struct Api {
    base: String,
    http: reqwest::Client,
}

/// A good answer: its status and its JSON text.
pub struct Answer {
    pub status: StatusCode,
    pub text: String,
    /// What the server warns of, each a sentence.
    pub warnings: Vec<String>,
}

impl Answer {
    /// The text as a tree, in which a payload that no tree holds stands as its text.
    pub fn value(&self) -> Result<Value, CliError> {
        tree::read(&self.text)
            .map_err(|error| CliError::Failed(format!("the server's answer is not JSON: {error}")))
    }

    /// The text as what is expected of it.
    pub fn read<T: DeserializeOwned>(&self) -> Result<T, CliError> {
        serde_json::from_str(&self.text).map_err(|error| {
            CliError::Failed(format!(
                "the server's answer is not what is expected: {error}"
            ))
        })
    }
}

impl Api {
    /// `base` is a URL such as `http://127.0.0.1:8080`.
    pub fn new(base: &str) -> Result<Self, CliError> {
        let http = reqwest::Client::builder()
            .connect_timeout(Duration::from_secs(5))
            .user_agent(concat!("partita/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| CliError::Failed(format!("cannot make an HTTP client: {error}")))?;
        Ok(Self {
            base: base.trim_end_matches('/').to_owned(),
            http,
        })
    }

    pub async fn get(&self, path: &str, query: &[(&str, String)]) -> Result<Answer, CliError> {
        self.finish(
            self.request(Method::GET, path)
                .query(query)
                .timeout(Duration::from_secs(60)),
        )
        .await
    }

    pub async fn post(&self, path: &str, body: &Value) -> Result<Answer, CliError> {
        self.finish(
            self.request(Method::POST, path)
                .json(body)
                .timeout(Duration::from_secs(60)),
        )
        .await
    }

    pub async fn put(&self, path: &str, body: String) -> Result<Answer, CliError> {
        let request = self
            .request(Method::PUT, path)
            .header("content-type", "application/json")
            .body(body);
        self.finish(request.timeout(Duration::from_secs(60))).await
    }

    pub async fn delete(&self, path: &str) -> Result<Answer, CliError> {
        self.finish(
            self.request(Method::DELETE, path)
                .timeout(Duration::from_secs(60)),
        )
        .await
    }

    /// Opens a stream of server-sent events, after the event `last_id` where one is given.
    pub async fn stream(&self, path: &str, last_id: Option<&str>) -> Result<Response, CliError> {
        let mut request = self
            .request(Method::GET, path)
            .header("accept", "text/event-stream");
        if let Some(id) = last_id {
            request = request.header("last-event-id", id);
        }
        let response = request
            .send()
            .await
            .map_err(|error| self.unreachable(&error))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        Err(refusal(status, &response.text().await.unwrap_or_default()))
    }

    fn request(&self, method: Method, path: &str) -> RequestBuilder {
        self.http.request(method, format!("{}{path}", self.base))
    }

    async fn finish(&self, request: RequestBuilder) -> Result<Answer, CliError> {
        let response = request
            .send()
            .await
            .map_err(|error| self.unreachable(&error))?;
        let status = response.status();
        let warnings = response.headers().get_all("warning").iter();
        let warnings = warnings
            .filter_map(|value| warning(value.to_str().ok()?))
            .collect();
        let text = response
            .text()
            .await
            .map_err(|error| self.unreachable(&error))?;
        if status.is_success() {
            Ok(Answer {
                status,
                text,
                warnings,
            })
        } else {
            Err(refusal(status, &text))
        }
    }

    pub fn unreachable(&self, error: &reqwest::Error) -> CliError {
        let base = &self.base;
        if error.is_builder() {
            return CliError::Usage(format!(
                "`{base}` is not a URL; write one such as http://127.0.0.1:8080"
            ));
        }
        if error.is_timeout() {
            return CliError::Unreachable(format!("the API at {base} did not answer in time"));
        }
        let mut cause: &dyn std::error::Error = error;
        while let Some(deeper) = cause.source() {
            cause = deeper;
        }
        CliError::Unreachable(format!(
            "cannot reach the API at {base}: {cause}\nstart an instance with `partita dev` or `partita serve`, or name another with --api"
        ))
    }
}

/// The words of a `Warning` header: `299 - "words"`.
fn warning(header: &str) -> Option<String> {
    let quoted = header.split_once('"')?.1.strip_suffix('"')?;
    Some(quoted.replace("\\\"", "\"").replace("\\\\", "\\"))
}

/// A refusal in words: problem details where the server gave them.
fn refusal(status: StatusCode, body: &str) -> CliError {
    let problem: Value = serde_json::from_str(body).unwrap_or(Value::Null);
    let title = problem.get("title").and_then(Value::as_str);
    let detail = problem.get("detail").and_then(Value::as_str);
    let mut text = match (title, detail) {
        (Some(title), Some(detail)) if !detail.is_empty() => format!("{title}: {detail}"),
        (Some(words), _) | (None, Some(words)) => words.to_owned(),
        (None, None) => format!("the server answered {status}"),
    };
    for violation in problem
        .get("violations")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
    {
        text.push_str(&format!("\n{}", violation_words(violation)));
    }
    match status.as_u16() {
        404 | 409 | 410 | 412 => CliError::NotFoundOrConflict(text),
        429 | 502 | 503 | 504 => CliError::Unreachable(text),
        400..=499 => CliError::Usage(text),
        _ => CliError::Failed(text),
    }
}

/// `file:line:column: message (suggestion)`, as far as the members are there.
pub fn violation_words(violation: &Value) -> String {
    let text = |member: &str| {
        violation
            .get(member)
            .and_then(Value::as_str)
            .filter(|text| !text.is_empty())
    };
    let number = |member: &str| violation.get(member).and_then(Value::as_u64);
    let mut words = String::new();
    if let Some(file) = text("file") {
        words.push_str(file);
        words.push(':');
    }
    if let (Some(line), Some(column)) = (number("line"), number("column")) {
        words.push_str(&format!("{line}:{column}:"));
    }
    if !words.is_empty() {
        words.push(' ');
    }
    if let Some(path) = text("path") {
        words.push_str(&format!("{path}: "));
    }
    words.push_str(text("message").unwrap_or("invalid"));
    if let Some(suggestion) = text("suggestion") {
        words.push_str(&format!(" ({suggestion})"));
    }
    words
}

/// Escapes one segment of a URL's path.
pub fn segment(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~@".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// JSON from a flag: the text itself, `@FILE`, or `-` for stdin.
pub fn json_argument(flag: &str, text: &str) -> Result<Value, CliError> {
    let (source, text) = if text == "-" {
        let text = std::io::read_to_string(std::io::stdin())
            .map_err(|error| CliError::Usage(format!("{flag}: cannot read stdin: {error}")))?;
        ("stdin".to_owned(), text)
    } else if let Some(path) = text.strip_prefix('@') {
        let text = std::fs::read_to_string(path)
            .map_err(|error| CliError::Usage(format!("{flag}: cannot read {path}: {error}")))?;
        (path.to_owned(), text)
    } else {
        (flag.to_owned(), text.to_owned())
    };
    serde_json::from_str(&text)
        .map_err(|error| CliError::Usage(format!("{source}: not JSON: {error}")))
}

/// Refuses a tag that is given twice: only one value of it could count.
pub fn each_tag_once(tags: &[(String, String)]) -> Result<(), CliError> {
    let mut seen = HashSet::new();
    match tags.iter().find(|(key, _)| !seen.insert(key)) {
        None => Ok(()),
        Some((key, _)) => Err(CliError::Usage(format!(
            "--tag: the tag `{key}` is given twice; a run has one value of it"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_carry_detail_and_exit_code() {
        let body = r#"{"title":"Conflict","detail":"run `a` is taken","status":409}"#;
        let error = refusal(StatusCode::CONFLICT, body);
        assert_eq!(
            (error.to_string().as_str(), error.code()),
            ("Conflict: run `a` is taken", 4)
        );
        assert_eq!(refusal(StatusCode::SERVICE_UNAVAILABLE, "busy").code(), 3);
        let body = r#"{"title":"Invalid","violations":[{"file":"a.yaml","line":3,"column":5,"path":"steps[0]","message":"bad","suggestion":"good"}]}"#;
        let error = refusal(StatusCode::UNPROCESSABLE_ENTITY, body);
        assert_eq!(
            (error.to_string().as_str(), error.code()),
            ("Invalid\na.yaml:3:5: steps[0]: bad (good)", 2)
        );
    }

    #[test]
    fn segments_are_escaped() {
        assert_eq!(segment("a/b c@1"), "a%2Fb%20c@1");
    }

    #[test]
    fn json_arguments_name_what_is_wrong() {
        assert_eq!(json_argument("--input", "{\"a\":1}").unwrap()["a"], 1);
        assert!(
            json_argument("--input", "{a")
                .unwrap_err()
                .to_string()
                .starts_with("--input: not JSON")
        );
        assert!(
            json_argument("--input", "@/no/file")
                .unwrap_err()
                .to_string()
                .contains("/no/file")
        );
    }
}
