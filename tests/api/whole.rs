//! The whole way with the real runtime: definitions and starts come in over HTTP, tasks go out to
//! a long poll or to the library, runs end and are looked back at.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use partita::agent::{Agent, Settings};
use partita::agents::{PumpSettings, Pumps, builtin};
use partita::api::{Api, ApiSettings};
use partita::log::kafka::ClientSettings;
use partita::model::Json;
use partita::runtime::definitions::{Registry, RegistrySettings};
use partita::runtime::membership::{MemberSettings, Membership};
use partita::runtime::{self, Handle, RuntimeConfig};
use partita::workflow::definition::Defaults;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::message::{Headers, Message};
use rdkafka::{Offset, TopicPartitionList};
use reqwest::{Client, Method, StatusCode};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::document;
use crate::support::{Broker, PREFIX, SOON, TWO_STEPS, read, until};

struct Whole {
    runtime: Handle,
    registry: Arc<Registry>,
    membership: Arc<Membership>,
    pumps: Arc<Pumps>,
    url: String,
    http: Client,
    stop: CancellationToken,
}

async fn broker() -> Broker {
    let broker = Broker::start().await;
    for topic in ["commands", "replies", "state", "events", "dead-letter"] {
        broker.topic(topic, 4).await;
    }
    broker
}

impl Whole {
    async fn start(broker: &Broker, name: &str) -> Self {
        let settings = ClientSettings::plain(broker.bootstrap());
        let registry = Registry::start(RegistrySettings {
            client: settings.client_config(),
            prefix: PREFIX.to_owned(),
            task_partitions: 2,
            replication_factor: 1,
            task_retention: Duration::from_secs(3_600),
            task_config: Default::default(),
            defaults: Defaults::default(),
        })
        .expect("a registry");
        let mut config = RuntimeConfig::new(settings.clone(), name);
        config.prefix = PREFIX.to_owned();
        let runtime =
            runtime::start(config, Arc::clone(&registry) as _).expect("the runtime starts");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let member = MemberSettings {
            client: settings.client_config(),
            prefix: PREFIX.to_owned(),
            instance: name.to_owned(),
            api: url.clone(),
        };
        let membership = Membership::start(member, Arc::new(runtime.clone())).expect("membership");
        let pumps = Pumps::new(PumpSettings {
            lease: Duration::from_secs(2),
            ..PumpSettings::new(settings.client_config(), PREFIX)
        });
        let api = Api::new(
            ApiSettings::default(),
            Arc::new(runtime.clone()),
            Arc::clone(&registry),
            Arc::clone(&membership),
            Arc::clone(&pumps),
            Arc::new(String::new),
        )
        .expect("an API");
        let stop = CancellationToken::new();
        tokio::spawn(api.serve(listener, stop.clone(), Duration::from_secs(2)));
        let http = Client::builder()
            .no_proxy()
            .timeout(SOON)
            .build()
            .expect("a client");
        Self {
            runtime,
            registry,
            membership,
            pumps,
            url,
            http,
            stop,
        }
    }

    async fn ready(&self) {
        until("the instance is ready and owns something", async || {
            self.ask(Method::GET, "/readyz", None).await.0 == StatusCode::OK
                && !self.runtime.owned().is_empty()
        })
        .await;
    }

    async fn ask(&self, method: Method, path: &str, body: Option<Value>) -> (StatusCode, Value) {
        let mut request = self
            .http
            .request(method.clone(), format!("{}{path}", self.url));
        if let Some(body) = body {
            request = request.json(&body);
        }
        let (status, body) = read(request.send().await.expect("an answer")).await;
        document::check(&method, path, status, &body);
        (status, body)
    }

    async fn post(&self, path: &str, body: Value) -> (StatusCode, Value) {
        self.ask(Method::POST, path, Some(body)).await
    }

    async fn get(&self, path: &str) -> (StatusCode, Value) {
        self.ask(Method::GET, path, None).await
    }

    async fn apply(&self, name: &str, yaml: &str) {
        let url = format!("{}/v1/definitions/workflow/{name}", self.url);
        let request = self
            .http
            .put(url)
            .header("content-type", "application/yaml")
            .body(yaml.to_owned());
        let (status, body) = read(request.send().await.expect("an answer")).await;
        assert!(status.is_success(), "{status} {body}");
    }

    async fn end(self) {
        self.stop.cancel();
        self.pumps.close().await;
        assert!(self.runtime.shutdown(SOON).await, "the workers end");
        self.membership.leave().await;
    }
}

/// Polls and completes one task; its step.
async fn serve_one(one: &Whole) -> String {
    let (status, polled) = one
        .post("/v1/agents/tester/tasks:poll", json!({"wait": "60s"}))
        .await;
    assert_eq!(status, StatusCode::OK, "{polled}");
    let task = &polled["tasks"][0];
    let id = task["task_id"].as_str().expect("a task came");
    let output = json!({"output": {"did": task["step_id"]}});
    let (status, body) = one
        .post(&format!("/v1/tasks/{id}:complete"), output.clone())
        .await;
    assert_eq!(status, StatusCode::OK, "{body}");
    let (status, body) = one.post(&format!("/v1/tasks/{id}:complete"), output).await;
    assert_eq!(status, StatusCode::CONFLICT, "{body}");
    task["step_id"].as_str().expect("a step").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_goes_from_start_to_end_over_http() {
    let broker = broker().await;
    let one = Whole::start(&broker, "one").await;
    one.ready().await;
    one.apply("two_steps", TWO_STEPS).await;
    let start = json!({"workflow": "two_steps", "id": "r1", "input": {"a": 1}});
    let (status, run) = one.post("/v1/runs", start.clone()).await;
    assert_eq!(
        (status, run["status"].as_str()),
        (StatusCode::CREATED, Some("running")),
        "{run}"
    );
    assert_eq!(one.post("/v1/runs", start).await.0, StatusCode::OK);
    let (status, body) = one
        .post("/v1/runs", json!({"workflow": "two_steps", "id": "r1"}))
        .await;
    assert_eq!(
        (status, body["run_status"].as_str()),
        (StatusCode::CONFLICT, Some("running")),
        "{body}"
    );
    assert_eq!(
        one.post("/v1/runs", json!({"workflow": "unknown"})).await.0,
        StatusCode::NOT_FOUND
    );

    let stream = one
        .http
        .get(format!("{}/v1/runs/r1/events", one.url))
        .header("accept", "text/event-stream")
        .send();
    let stream = stream.await.expect("a stream");
    assert_eq!(serve_one(&one).await, "first");
    assert_eq!(serve_one(&one).await, "second");
    let (status, run) = one.get("/v1/runs/r1").await;
    assert_eq!(
        (status, run["status"].as_str()),
        (StatusCode::OK, Some("completed")),
        "{run}"
    );
    assert_eq!(run["output"], json!({"answer": {"did": "second"}}));
    assert_eq!(run["progress"], 1.0);

    let followed = tokio::time::timeout(SOON, stream.text())
        .await
        .expect("the stream ends with the run")
        .expect("text");
    let (_, history) = one.get("/v1/runs/r1/events").await;
    let events = history["events"].as_array().expect("events");
    let sequences: Vec<u64> = events
        .iter()
        .map(|event| event["sequence"].as_str().unwrap().parse().unwrap())
        .collect();
    assert_eq!(sequences, (1..=sequences.len() as u64).collect::<Vec<_>>());
    assert_eq!(events.last().unwrap()["type"], "partita.run.completed");
    assert_eq!(
        followed.matches("\ndata: ").count() + usize::from(followed.starts_with("data: ")),
        events.len(),
        "{followed}"
    );

    let (_, page) = one
        .get("/v1/runs?workflow=two_steps&status=completed")
        .await;
    assert_eq!(page["runs"][0]["id"], "r1", "{page}");
    assert_eq!(one.get("/v1/runs/nobody").await.0, StatusCode::NOT_FOUND);
    assert_eq!(
        one.post("/v1/runs/r1:pause", json!({})).await.0,
        StatusCode::CONFLICT
    );
    assert_eq!(
        one.post("/v1/tasks/nobody.first.0.1:complete", json!({}))
            .await
            .0,
        StatusCode::NOT_FOUND
    );
    one.end().await;
}

/// Before it is on its way; nothing is tried again that can never be.
#[tokio::test(flavor = "multi_thread")]
async fn what_no_record_holds_is_refused_with_the_limit() {
    let broker = broker().await;
    let one = Whole::start(&broker, "one").await;
    one.ready().await;
    one.apply("two_steps", TWO_STEPS).await;
    one.post("/v1/runs", json!({"workflow": "two_steps", "id": "r"}))
        .await;
    let reason = "x".repeat(3 << 20);
    let error = json!({"error": {"class": "error", "message": reason}});
    for (path, body) in [
        ("/v1/runs/r:cancel", json!({"reason": reason})),
        ("/v1/tasks/r.first.0.1:fail", error),
    ] {
        let (status, body) = one.post(path, body).await;
        assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE, "{body}");
        let detail = body["detail"].as_str().expect("words");
        assert!(detail.contains("at most 2097152 are allowed"), "{detail}");
    }
    one.end().await;
}

/// What an agent says over HTTP lies on `replies` with the trace of its request, as what it says over
/// Kafka lies there with the trace of its record.
#[tokio::test(flavor = "multi_thread")]
async fn the_trace_of_an_answer_is_carried_to_its_record() {
    const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let broker = broker().await;
    let one = Whole::start(&broker, "one").await;
    one.ready().await;
    one.apply("two_steps", TWO_STEPS).await;
    one.post("/v1/runs", json!({"workflow": "two_steps", "id": "r"}))
        .await;
    for (verb, body) in [
        ("progress", json!({"progress": 0.5})),
        ("heartbeat", json!({})),
        ("complete", json!({"output": 1})),
    ] {
        let url = format!("{}/v1/tasks/r.first.0.1:{verb}", one.url);
        let said = one.http.post(url).header("traceparent", TRACE).json(&body);
        let (status, body) = read(said.send().await.expect("an answer")).await;
        assert_eq!(status, StatusCode::OK, "{body}");
    }
    let (status, body) = one.post("/v1/tasks/r.second.0.1:fail", json!({})).await;
    assert_eq!(status, StatusCode::OK, "{body}");

    let mut config = broker.client();
    config.set("group.id", "reader");
    let traces = tokio::task::spawn_blocking(move || {
        let consumer: BaseConsumer = config.create().expect("a consumer");
        let mut partitions = TopicPartitionList::new();
        for partition in 0..4 {
            let topic = format!("{PREFIX}replies");
            let added = partitions.add_partition_offset(&topic, partition, Offset::Beginning);
            added.expect("an offset");
        }
        consumer.assign(&partitions).expect("assigned");
        let deadline = std::time::Instant::now() + SOON;
        let mut traces: Vec<Option<String>> = Vec::new();
        while traces.len() < 4 && std::time::Instant::now() < deadline {
            let Some(Ok(message)) = consumer.poll(Duration::from_millis(100)) else {
                continue;
            };
            let headers = message.headers().expect("headers");
            let trace = headers.iter().find(|header| header.key == "traceparent");
            let value = trace.and_then(|header| header.value);
            traces.push(value.map(|value| String::from_utf8_lossy(value).into_owned()));
        }
        traces
    });
    let traces = traces.await.expect("a reader");
    let carried = Some(TRACE.to_owned());
    assert_eq!(traces, [carried.clone(), carried.clone(), carried, None]);
    one.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn runs_are_steered_and_failures_told() {
    let broker = broker().await;
    let one = Whole::start(&broker, "one").await;
    one.ready().await;
    one.apply("two_steps", TWO_STEPS).await;
    one.post("/v1/runs", json!({"workflow": "two_steps", "id": "r"}))
        .await;
    let (status, run) = one
        .post("/v1/runs/r:pause", json!({"reason": "lunch"}))
        .await;
    assert_eq!(
        (status, run["status"].as_str()),
        (StatusCode::OK, Some("paused")),
        "{run}"
    );
    assert_eq!(
        one.post("/v1/runs/r:pause", json!({})).await.0,
        StatusCode::OK
    );
    assert_eq!(
        one.post("/v1/runs/r:resume", json!({})).await.1["status"],
        "running"
    );
    let (status, body) = one
        .post(
            "/v1/tasks/r.first.0.1:fail",
            json!({"error": {"class": "fatal", "message": "no", "retryable": false}}),
        )
        .await;
    assert_eq!(status, StatusCode::OK, "{body}");
    let (_, run) = one.get("/v1/runs/r").await;
    assert_eq!(
        (
            run["status"].as_str(),
            run["error"]["class"].as_str(),
            run["error"]["step"].as_str()
        ),
        (Some("failed"), Some("fatal"), Some("first")),
        "{run}"
    );
    one.post("/v1/runs", json!({"workflow": "two_steps", "id": "c"}))
        .await;
    assert_eq!(
        one.post("/v1/runs/c:cancel", json!({})).await.1["status"],
        "cancelled"
    );
    let (status, _) = one
        .post("/v1/tasks/c.first.0.1:complete", json!({"output": 1}))
        .await;
    assert_eq!(status, StatusCode::CONFLICT);
    let (status, body) = one.post("/v1/runs/c:signal", json!({"name": "go"})).await;
    assert_eq!(status, StatusCode::CONFLICT, "{body}");
    one.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_waits_for_its_signals() {
    let broker = broker().await;
    let one = Whole::start(&broker, "one").await;
    one.ready().await;
    let yaml = "
kind: workflow
name: asks
steps:
  - {id: approval, await: approved, where: signal.data.yes, timeout: 1h}
  - {id: payment, await: paid, depends_on: [approval]}
output: {approval: '${steps.approval.output}', payment: '${steps.payment.output}'}
";
    one.apply("asks", yaml).await;
    let (_, run) = one
        .post("/v1/runs", json!({"workflow": "asks", "id": "r"}))
        .await;
    let waiting = &run["waiting_for"][0];
    assert_eq!(
        (&waiting["kind"], &waiting["signal"], &waiting["step"]),
        (&json!("signal"), &json!("approved"), &json!("approval")),
        "{run}"
    );
    assert!(waiting["since"].is_string() && waiting["until"].is_string());
    let signal = async |name: &str, id: &str, data: Value| {
        let body = json!({"name": name, "id": id, "data": data});
        one.post("/v1/runs/r:signal", body).await
    };
    // Too early, larger than what an entry holds; then one that the condition does not want.
    let early = "x".repeat(10_000);
    let (status, run) = signal("paid", "p-1", json!(early)).await;
    assert_eq!(status, StatusCode::OK, "{run}");
    signal("approved", "a-1", json!({"yes": false})).await;
    signal("approved", "a-1", json!({"yes": false})).await;
    let (_, run) = one.get("/v1/runs/r").await;
    let kept: Vec<_> = run["signals"].as_array().unwrap().iter().collect();
    assert_eq!(kept.len(), 2, "{run}");
    assert_eq!(kept[0]["name"], "paid");
    let (status, run) = signal("approved", "a-2", json!({"yes": true})).await;
    assert_eq!(
        (status, run["status"].as_str()),
        (StatusCode::OK, Some("completed")),
        "{run}"
    );
    let output = json!({"approval": {"yes": true}, "payment": early});
    assert_eq!(run["output"], output);
    // Sent again by somebody who heard no answer; and one that comes too late.
    assert_eq!(
        signal("approved", "a-2", json!({"yes": true})).await.0,
        StatusCode::OK
    );
    assert_eq!(
        signal("approved", "a-3", Value::Null).await.0,
        StatusCode::CONFLICT
    );
    let (_, history) = one.get("/v1/runs/r/events").await;
    let kinds: Vec<&str> = history["events"]
        .as_array()
        .unwrap()
        .iter()
        .map(|event| event["type"].as_str().unwrap())
        .collect();
    assert_eq!(
        kinds,
        [
            "partita.run.started",
            "partita.step.waiting",
            "partita.run.signalled",
            "partita.run.signalled",
            "partita.run.signalled",
            "partita.step.completed",
            "partita.step.waiting",
            "partita.step.completed",
            "partita.run.completed",
        ]
    );
    let told = &history["events"][3]["data"];
    assert_eq!(
        (&told["name"], &told["data"], &told["id"]),
        (&json!("approved"), &json!({"yes": false}), &json!("a-1"))
    );
    one.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn agents_of_the_library_and_two_instances_share_the_work() {
    let broker = broker().await;
    let one = Whole::start(&broker, "one").await;
    let two = Whole::start(&broker, "two").await;
    until("each owns a part", async || {
        !one.runtime.owned().is_empty() && !two.runtime.owned().is_empty()
    })
    .await;
    one.ready().await;
    two.ready().await;
    let workflow = "
kind: workflow
name: mixed
steps:
  - {id: mine, agent: library, inputs: {n: '${input.n}'}}
  - {id: theirs, agent: echo, depends_on: [mine], inputs: {twice: '${steps.mine.output.twice}'}}
output: '${steps.theirs.output.twice}'
";
    one.apply("mixed", workflow).await;
    two.registry
        .caught_up()
        .await
        .expect("the definitions are read");
    let mut settings = Settings::new("");
    settings.client = broker.client();
    settings.prefix = PREFIX.to_owned();
    let stop = CancellationToken::new();
    let library = Agent::new(settings.clone(), "library").handler(|task, _context| async move {
        Ok(Json::from(
            json!({"twice": task.inputs.parse::<Value>().unwrap_or_default()["n"].as_i64().unwrap_or(0) * 2}),
        ))
    });
    let library = tokio::spawn(library.run_until(stop.clone()));
    let echo = tokio::spawn(builtin::run(
        builtin::BuiltIn {
            echo: true,
            http: None,
        },
        settings,
        stop.clone(),
    ));
    let starts = (0..20).map(|n| {
        let to = if n % 2 == 0 { &one } else { &two };
        async move {
            to.post(
                "/v1/runs?wait=60s",
                json!({"workflow": "mixed", "id": format!("m{n}"), "input": {"n": n}}),
            )
            .await
        }
    });
    for (n, (status, run)) in futures_util::future::join_all(starts)
        .await
        .into_iter()
        .enumerate()
    {
        assert_eq!(
            (status, run["status"].as_str(), run["output"].as_u64()),
            (StatusCode::CREATED, Some("completed"), Some(n as u64 * 2)),
            "{run}"
        );
    }
    for instance in [&one, &two] {
        let (_, page) = instance.get("/v1/runs?workflow=mixed").await;
        let ids: BTreeSet<&str> = page["runs"]
            .as_array()
            .unwrap()
            .iter()
            .map(|run| run["id"].as_str().unwrap())
            .collect();
        assert_eq!(ids.len(), 20);
        let (status, run) = instance.get("/v1/runs/m3").await;
        assert_eq!((status, run["output"].as_u64()), (StatusCode::OK, Some(6)));
    }
    stop.cancel();
    library.await.unwrap().expect("the agent ends well");
    echo.await.unwrap();
    two.end().await;
    one.ready().await;
    until("the one that stays owns all", async || {
        one.runtime.owned().len() == 4
    })
    .await;
    assert_eq!(one.get("/v1/runs/m3").await.0, StatusCode::OK);
    one.end().await;
}
