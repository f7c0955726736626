//! An installation for one test: an embedded broker in memory, its topics, and instances with a
//! fake runtime, each with the real API on a port of its own.

use std::sync::Arc;
use std::time::Duration;

use partita::agents::{PumpSettings, Pumps};
use partita::api::connections::ConnectionLimits;
use partita::api::{Api, ApiSettings};
use partita::runtime::definitions::{Registry, RegistrySettings};
use partita::runtime::membership::{MemberSettings, Membership};
use partita::workflow::definition::Defaults;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::producer::{FutureProducer, FutureRecord};
use reqwest::{Client, Method, Response, StatusCode};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::document;
use crate::fake::{Fake, PARTITIONS};

/// Every wait of a test ends by then.
pub const SOON: Duration = Duration::from_secs(90);

pub const PREFIX: &str = "test.";

pub const TWO_STEPS: &str = "
kind: workflow
name: two_steps
steps:
  - {id: first, agent: tester, task: {do: one}}
  - {id: second, agent: tester, depends_on: [first]}
output: {answer: '${steps.second.output}'}
";

pub struct Broker {
    broker: partita_broker::Broker,
}

impl Broker {
    pub async fn start() -> Self {
        let mut config = partita_broker::Config::memory();
        config.listen = "127.0.0.1:0".to_owned();
        let broker = partita_broker::Broker::start(config)
            .await
            .expect("the broker starts");
        let started = Self { broker };
        started.topic("definitions", 1).await;
        started.topic("agents", 1).await;
        started
    }

    pub fn bootstrap(&self) -> String {
        self.broker.bootstrap()
    }

    pub fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", self.broker.bootstrap());
        config
    }

    pub async fn topic(&self, name: &str, partitions: i32) {
        let admin: AdminClient<_> = self.client().create().expect("an admin client");
        let name = format!("{PREFIX}{name}");
        let topic = NewTopic::new(&name, partitions, TopicReplication::Fixed(1));
        let results = admin
            .create_topics([&topic], &AdminOptions::new())
            .await
            .expect("the broker answers");
        assert!(results.iter().all(Result::is_ok), "{results:?}");
    }

    pub async fn produce(&self, topic: &str, key: &str, value: Option<&str>) {
        let producer: FutureProducer = self.client().create().expect("a producer");
        let topic = format!("{PREFIX}{topic}");
        let mut record: FutureRecord<'_, str, str> = FutureRecord::to(&topic).key(key);
        if let Some(value) = value {
            record = record.payload(value);
        }
        producer
            .send(record, SOON)
            .await
            .expect("the record is delivered");
    }
}

/// One instance: the real doors before a fake runtime.
pub struct Instance {
    pub fake: Arc<Fake>,
    pub registry: Arc<Registry>,
    pub membership: Arc<Membership>,
    pub pumps: Arc<Pumps>,
    pub url: String,
    pub http: Client,
    stop: CancellationToken,
}

impl Instance {
    /// Owns all partitions.
    pub async fn alone(broker: &Broker) -> Self {
        Self::owning(broker, "one", (0..PARTITIONS).collect()).await
    }

    pub async fn owning(broker: &Broker, name: &str, owned: Vec<i32>) -> Self {
        Self::with(broker, name, owned, |_, _| {}).await
    }

    /// Owns these partitions, under settings that are not those of the other tests: impatient ones,
    /// for which a lease and a search for an owner end after two seconds.
    pub async fn with(
        broker: &Broker,
        name: &str,
        owned: Vec<i32>,
        set: impl FnOnce(&mut ApiSettings, &mut PumpSettings),
    ) -> Self {
        let registry = Registry::start(RegistrySettings {
            client: broker.client(),
            prefix: PREFIX.to_owned(),
            task_partitions: 2,
            replication_factor: 1,
            task_retention: Duration::from_secs(3_600),
            task_config: Default::default(),
            defaults: Defaults::default(),
        })
        .expect("a registry");
        let fake = Fake::new(Arc::clone(&registry), owned);
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let member = MemberSettings {
            client: broker.client(),
            prefix: PREFIX.to_owned(),
            instance: name.to_owned(),
            api: url.clone(),
        };
        let membership = Membership::start(member, Arc::clone(&fake) as _).expect("membership");
        let mut of_pumps = PumpSettings {
            lease: Duration::from_secs(2),
            ..PumpSettings::new(broker.client(), PREFIX)
        };
        let mut settings = ApiSettings {
            max_body_bytes: 16 << 10,
            max_payload_bytes: 1 << 10,
            owner_patience: Duration::from_secs(2),
            max_streams: 4,
            connections: ConnectionLimits::default(),
        };
        set(&mut settings, &mut of_pumps);
        let pumps = Pumps::new(of_pumps);
        let render = Arc::new(|| "some_total 1\n".to_owned());
        let api = Api::new(
            settings,
            Arc::clone(&fake) as _,
            Arc::clone(&registry),
            Arc::clone(&membership),
            Arc::clone(&pumps),
            render,
        )
        .expect("an API");
        let stop = CancellationToken::new();
        tokio::spawn(api.serve(listener, stop.clone(), Duration::from_secs(2)));
        let http = Client::builder()
            .no_proxy()
            .timeout(SOON)
            .build()
            .expect("a client");
        let instance = Self {
            fake,
            registry,
            membership,
            pumps,
            url,
            http,
            stop,
        };
        until("the topics are read", async || {
            instance.registry.restored() && instance.membership.restored()
        })
        .await;
        instance
    }

    pub async fn ask(&self, method: Method, path: &str, body: Option<&str>) -> (StatusCode, Value) {
        let mut request = self
            .http
            .request(method.clone(), format!("{}{path}", self.url));
        if let Some(body) = body {
            request = request
                .header("content-type", "application/json")
                .body(body.to_owned());
        }
        let (status, body) = read(request.send().await.expect("an answer")).await;
        document::check(&method, path, status, &body);
        (status, body)
    }

    pub async fn get(&self, path: &str) -> (StatusCode, Value) {
        self.ask(Method::GET, path, None).await
    }

    pub async fn post(&self, path: &str, body: &str) -> (StatusCode, Value) {
        self.ask(Method::POST, path, Some(body)).await
    }

    /// Applies YAML; panics where that is refused.
    pub async fn apply(&self, name: &str, yaml: &str) {
        let url = format!("{}/v1/definitions/workflow/{name}", self.url);
        let request = self
            .http
            .put(url)
            .header("content-type", "application/yaml")
            .body(yaml.to_owned());
        let (status, body) = read(request.send().await.expect("an answer")).await;
        assert!(status.is_success(), "{status} {body}");
    }

    /// Ends the HTTP server, as a shutdown does.
    pub fn stop(&self) {
        self.stop.cancel();
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// Status and JSON body; an empty body is null.
pub async fn read(response: Response) -> (StatusCode, Value) {
    let status = response.status();
    let text = response.text().await.expect("a body");
    let body = if text.is_empty() {
        Value::Null
    } else {
        serde_json::from_str(&text).expect("the body is JSON")
    };
    (status, body)
}

/// Waits until `holds`; panics with `what` where it does not within [`SOON`].
pub async fn until(what: &str, holds: impl AsyncFn() -> bool) {
    let deadline = tokio::time::Instant::now() + SOON;
    while !holds().await {
        assert!(
            tokio::time::Instant::now() < deadline,
            "it did not come to it that {what}"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// A task record of the fake's run `run`.
pub fn task_record(run: &str, step: &str, attempt: u32) -> String {
    format!(
        r#"{{"task_id":"{run}.{step}.0.{attempt}","run_id":"{run}","workflow":"two_steps","version":1,"step_id":"{step}","agent":"tester","attempt":{attempt},"epoch":0,"task":{{"do":"one"}},"inputs":{{}},"deadline":null}}"#
    )
}
