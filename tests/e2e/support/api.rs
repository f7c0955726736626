//! The HTTP API of one instance, for code that is not asynchronous.

use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::runtime::Runtime;

const REQUEST_LIMIT: Duration = Duration::from_secs(20);
/// How long a partition may take from one owner to the next.
const MOVED_WITHIN: Duration = Duration::from_secs(120);

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

    /// As [`Api::get`], again and again while a partition is on its way to another owner: such an
    /// answer says to ask again.
    ///
    /// # Panics
    /// Where there is no other answer in two minutes.
    #[track_caller]
    pub fn settled(&self, path: &str) -> Answer {
        settled(path, || self.get(path))
    }

    /// As [`Api::settled`], for a request that may be repeated.
    ///
    /// # Panics
    /// As [`Api::settled`].
    #[track_caller]
    pub fn post_settled(&self, path: &str, body: &Value) -> Answer {
        settled(path, || self.post(path, body))
    }

    /// None where the server cannot be reached or does not answer.
    pub fn post(&self, path: &str, body: &Value) -> Option<Answer> {
        answer(self.client.post(format!("{}{path}", self.url)).json(body))
    }
}

#[track_caller]
fn settled(path: &str, ask: impl Fn() -> Option<Answer>) -> Answer {
    let began = Instant::now();
    loop {
        let answer = ask();
        let is_settled = |answer: &Answer| !matches!(answer.status, 429 | 502..=504);
        if let Some(answer) = answer.filter(is_settled) {
            return answer;
        }
        assert!(began.elapsed() < MOVED_WITHIN, "{path} is not answered");
        thread::sleep(Duration::from_millis(100));
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
