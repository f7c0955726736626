//! The built-in agent `http`, from the task on its topic to the reply, with a real HTTP server on the
//! other side.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use axum::Router;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::{get, post};
use kafka_harness::free_port;
use partita::agents::{HttpSettings, agent, builtin};
use partita_broker::{Broker, Config};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Header, Message, OwnedHeaders};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};
use rdkafka::{Offset, TopicPartitionList};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::world;

const PREFIX: &str = "h.";
const MAX_RESPONSE_BYTES: usize = 1000;
const PATIENCE: Duration = Duration::from_secs(180);

/// What becomes of a request that the server leaves without an answer.
#[derive(Debug, PartialEq)]
enum Hanging {
    Arrived,
    GivenUp,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_http_agent_against_a_server() {
    let broker = Broker::start(Config::memory()).await.expect("a broker");
    let bench = Bench::start(&broker.bootstrap()).await;
    let (url, mut hanging) = serve().await;
    // Not one that the kernel gives to the brokers of other tests.
    let closed = free_port();

    let ok = bench.call(
        "ok",
        json!({"method": "POST", "url": format!("{url}/echo")}),
    );
    let ok = ok.await;
    assert_eq!(ok["status"], "completed", "{ok}");
    assert_eq!(ok["output"]["status"], 200);
    assert_eq!(
        ok["output"]["body"],
        json!({"got": {"n": 1}, "key": "ok", "type": "application/json"}),
        "the inputs are the body, the task id the idempotency key"
    );

    // What comes of each: the error's class, and whether a later attempt is worth it.
    let table = [
        (
            format!("{url}/status/400"),
            "validation_error",
            json!(false),
        ),
        (
            format!("{url}/status/404"),
            "validation_error",
            json!(false),
        ),
        (format!("{url}/status/408"), "timeout", Value::Null),
        (
            format!("{url}/status/429"),
            "agent_unavailable",
            Value::Null,
        ),
        (
            format!("{url}/status/500"),
            "agent_unavailable",
            Value::Null,
        ),
        (
            format!("{url}/status/503"),
            "agent_unavailable",
            Value::Null,
        ),
        (format!("{url}/status/504"), "timeout", Value::Null),
        (format!("{url}/large"), "payload_too_large", Value::Null),
        (format!("{url}/endless"), "payload_too_large", Value::Null),
        (
            format!("http://127.0.0.1:{closed}/"),
            "connection_error",
            Value::Null,
        ),
        (
            "http://localhost/".to_owned(),
            "validation_error",
            json!(false),
        ),
        ("nonsense".to_owned(), "validation_error", json!(false)),
    ];
    for (number, (target, class, retryable)) in table.iter().enumerate() {
        let reply = bench
            .call(&format!("task-{number}"), json!({"url": target}))
            .await;
        assert_eq!(reply["status"], "failed", "{target}: {reply}");
        assert_eq!(reply["error"]["class"], *class, "{target}: {reply}");
        assert_eq!(reply["error"]["retryable"], *retryable, "{target}: {reply}");
        let message = reply["error"]["message"].as_str().unwrap_or_default();
        assert!(!message.is_empty(), "{target}: {reply}");
    }

    let slow = json!({"url": format!("{url}/hang"), "timeout": "2s"});
    let reply = bench.call("slow", slow).await;
    assert_eq!(reply["error"]["class"], "timeout", "{reply}");
    assert_eq!(within(hanging.recv()).await, Some(Hanging::Arrived));
    assert_eq!(within(hanging.recv()).await, Some(Hanging::GivenUp));

    // A task that is given up: its request ends, and nothing is said about it any more.
    bench.send(&task("unwanted", json!({"url": format!("{url}/hang")})));
    assert_eq!(within(hanging.recv()).await, Some(Hanging::Arrived));
    bench.send(&json!({
        "type": "cancel", "task_id": "unwanted", "run_id": "r", "step_id": "s", "agent": "http",
        "attempt": 1, "epoch": 0, "reason": "cancelled",
    }));
    assert_eq!(within(hanging.recv()).await, Some(Hanging::GivenUp));
    let after = bench
        .call("after", json!({"url": format!("{url}/status/200")}))
        .await;
    assert_eq!(after["status"], "completed", "{after}");
    assert!(!bench.replies().contains_key("unwanted"));
    bench.stop().await;
}

async fn within<T>(what: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, what)
        .await
        .expect("it happens in time")
}

fn task(id: &str, task: Value) -> Value {
    json!({
        "task_id": id, "run_id": "r", "workflow": "w", "version": 1, "step_id": "s",
        "agent": "http", "attempt": 1, "epoch": 0, "task": task, "inputs": {"n": 1},
        "deadline": null,
    })
}

/// The agent, and the engine's side of its topics.
struct Bench {
    brokers: String,
    producer: ThreadedProducer<DefaultProducerContext>,
    stop: CancellationToken,
    agent: tokio::task::JoinHandle<()>,
}

impl Bench {
    async fn start(brokers: &str) -> Bench {
        world::create_topics(brokers, PREFIX, &["http"]).await;
        let stop = CancellationToken::new();
        let built_in = builtin::BuiltIn {
            echo: false,
            http: Some(HttpSettings {
                allow: vec!["127.0.0.1".to_owned()],
                max_response_bytes: MAX_RESPONSE_BYTES,
                timeout: PATIENCE,
            }),
        };
        let settings = agent::Settings {
            prefix: PREFIX.to_owned(),
            ..agent::Settings::new(brokers)
        };
        let agent = tokio::spawn(builtin::run(built_in, settings, stop.clone()));
        let producer = ClientConfig::new()
            .set("bootstrap.servers", brokers)
            .create()
            .expect("a producer");
        Bench {
            brokers: brokers.to_owned(),
            producer,
            stop,
            agent,
        }
    }

    async fn stop(self) {
        self.stop.cancel();
        within(self.agent).await.expect("the agent ends");
    }

    fn send(&self, body: &Value) {
        let headers = OwnedHeaders::new()
            .insert(Header {
                key: "partita-reply-topic",
                value: Some("h.replies"),
            })
            .insert(Header {
                key: "partita-reply-partition",
                value: Some("0"),
            });
        let body = body.to_string();
        let record = BaseRecord::to("h.tasks.http")
            .partition(0)
            .key("r")
            .payload(&body)
            .headers(headers);
        self.producer
            .send(record)
            .map_err(|(error, _)| error)
            .expect("sending");
        self.producer.flush(PATIENCE).expect("a delivery");
    }

    /// Has the agent do this, and waits for its reply.
    async fn call(&self, id: &str, what: Value) -> Value {
        self.send(&task(id, what));
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(reply) = self.replies().remove(id) {
                return reply;
            }
            assert!(Instant::now() < deadline, "no reply to {id}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// All replies so far, by task.
    fn replies(&self) -> BTreeMap<String, Value> {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", &self.brokers)
            .set("group.id", "none")
            .set("enable.auto.commit", "false")
            .set("enable.partition.eof", "true")
            .set("fetch.wait.max.ms", "10")
            .create()
            .expect("a consumer");
        let mut whole = TopicPartitionList::new();
        whole
            .add_partition_offset("h.replies", 0, Offset::Beginning)
            .expect("an offset");
        consumer.assign(&whole).expect("an assignment");
        let mut replies = BTreeMap::new();
        // The end of the partition comes as an error.
        while let Some(Ok(record)) = consumer.poll(PATIENCE) {
            let reply: Value =
                serde_json::from_slice(record.payload().unwrap_or_default()).expect("JSON");
            replies.insert(reply["task_id"].as_str().expect("an id").to_owned(), reply);
        }
        replies
    }
}

/// Tells when it is dropped: the client of its request has gone.
struct Guard(mpsc::UnboundedSender<Hanging>);

impl Drop for Guard {
    fn drop(&mut self) {
        // Nobody listens any more at the end of the test.
        let _ = self.0.send(Hanging::GivenUp);
    }
}

async fn serve() -> (String, mpsc::UnboundedReceiver<Hanging>) {
    let (sender, receiver) = mpsc::unbounded_channel();
    let echo = |headers: HeaderMap, body: axum::Json<Value>| async move {
        let header = |name: &str| headers[name].to_str().expect("text").to_owned();
        axum::Json(json!({
            "got": body.0, "key": header("idempotency-key"), "type": header("content-type"),
        }))
    };
    let status = |axum::extract::Path(code): axum::extract::Path<u16>| async move {
        (StatusCode::from_u16(code).expect("a status"), "said so")
    };
    let hang = move || {
        let guard = Guard(sender.clone());
        async move {
            guard.0.send(Hanging::Arrived).expect("the test listens");
            std::future::pending::<()>().await;
            drop(guard);
        }
    };
    // Without a length that would give it away.
    let endless = || async {
        let chunks = futures_util::stream::repeat_with(|| Ok::<_, std::io::Error>("x".repeat(100)));
        axum::body::Body::from_stream(chunks)
    };
    let router = Router::new()
        .route("/echo", post(echo))
        .route("/status/{code}", get(status))
        .route("/hang", get(hang))
        .route(
            "/large",
            get(|| async { "x".repeat(MAX_RESPONSE_BYTES + 1) }),
        )
        .route("/endless", get(endless));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    tokio::spawn(async move { axum::serve(listener, router).await });
    (url, receiver)
}
