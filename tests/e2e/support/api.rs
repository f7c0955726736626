//! The HTTP API of one instance, for code that is not asynchronous.

use std::sync::OnceLock;
use std::time::Duration;

use serde_json::Value;
use tokio::runtime::Runtime;

const REQUEST_LIMIT: Duration = Duration::from_secs(20);

/// The API at one address.
#[derive(Clone)]
pub struct Api {
    pub url: String,
    client: reqwest::Client,
}

/// An answer; its body is null where it is not JSON.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub body: Value,
}

impl Api {
    pub fn new(url: &str) -> Api {
        let client = reqwest::Client::builder()
            .timeout(REQUEST_LIMIT)
            .build()
            .expect("an HTTP client");
        Api {
            url: url.to_owned(),
            client,
        }
    }

    /// None where the server cannot be reached or does not answer.
    pub fn get(&self, path: &str) -> Option<Answer> {
        answer(self.client.get(format!("{}{path}", self.url)))
    }

    /// None where the server cannot be reached or does not answer.
    pub fn post(&self, path: &str, body: &Value) -> Option<Answer> {
        answer(self.client.post(format!("{}{path}", self.url)).json(body))
    }
}

fn answer(request: reqwest::RequestBuilder) -> Option<Answer> {
    runtime().block_on(async {
        let response = request.send().await.ok()?;
        let status = response.status().as_u16();
        let body = response.bytes().await.ok()?;
        Some(Answer {
            status,
            body: serde_json::from_slice(&body).unwrap_or(Value::Null),
        })
    })
}

fn runtime() -> &'static Runtime {
    static RUNTIME: OnceLock<Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime for HTTP")
    })
}
