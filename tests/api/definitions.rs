//! The registry, over HTTP and by itself.

use std::time::Duration;

use kafka_harness::Kafka;
use partita::model::RunId;
use partita::runtime::DefinitionRegistry as _;
use partita::runtime::definitions::{Registry, RegistryError, RegistrySettings};
use partita::runtime::kinds::Kind;
use partita::workflow::definition::Defaults;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::consumer::{BaseConsumer, Consumer};
use reqwest::{Method, StatusCode};

use crate::fake::PARTITIONS;
use crate::support::{Broker, Instance, PREFIX, SOON, TWO_STEPS, read, until};

async fn put(one: &Instance, path: &str, yaml: &str) -> (StatusCode, serde_json::Value) {
    let request = one
        .http
        .put(format!("{}{path}", one.url))
        .header("content-type", "application/yaml")
        .body(yaml.to_owned());
    read(request.send().await.unwrap()).await
}

fn naming(name: &str, agents: &[&str]) -> String {
    let step = |(place, agent): (usize, &&str)| format!("{{id: s{place}, agent: {agent}}}");
    let steps: Vec<String> = agents.iter().enumerate().map(step).collect();
    format!(
        "{{kind: workflow, name: {name}, steps: [{}]}}",
        steps.join(", ")
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn agents_whose_topics_are_one_to_kafka_are_refused() {
    let broker = Broker::start().await;
    let one = Instance::alone(&broker).await;
    let both = naming("both", &["mail.out", "mail.out", "mail_out"]);
    let (status, body) = put(&one, "/v1/definitions/workflow/both", &both).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{body}");
    let violations = body["violations"].as_array().expect("violations");
    assert_eq!(violations.len(), 1, "{body}");
    assert_eq!(violations[0]["path"], "steps[2].agent");
    let message = violations[0]["message"].as_str().expect("words");
    assert!(
        message.contains("`mail_out`") && message.contains("`mail.out` on line 1"),
        "{message}"
    );

    let first = naming("first", &["mail.out"]);
    let path = "/v1/definitions/workflow/first";
    assert_eq!(put(&one, path, &first).await.0, StatusCode::CREATED);
    assert_eq!(put(&one, path, &first).await.0, StatusCode::OK);
    let second = naming("second", &["hand", "mail_out"]);
    for query in ["?dry_run=true", ""] {
        let path = format!("/v1/definitions/workflow/second{query}");
        let (status, body) = put(&one, &path, &second).await;
        assert_eq!(status, StatusCode::CONFLICT, "{body}");
        let detail = body["detail"].as_str().expect("words");
        for words in [
            "`mail_out`",
            "`mail.out` of workflow first@1",
            "another name",
        ] {
            assert!(detail.contains(words), "{detail}");
        }
    }
    let again = naming("again", &["mail.out"]);
    let path = "/v1/definitions/workflow/again";
    assert_eq!(put(&one, path, &again).await.0, StatusCode::CREATED);
}

/// The topic of an agent outlives the definitions that name it.
#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_is_there_refuses_an_agent_on_apache_kafka() {
    let Some(kafka) = Kafka::start_or_skip("topics of agents whose names Kafka takes for one")
    else {
        return;
    };
    let mut client = rdkafka::ClientConfig::new();
    client.set("bootstrap.servers", kafka.bootstrap());
    let admin: AdminClient<_> = client.create().expect("an admin client");
    let names = ["definitions", "tasks.mail.out"].map(|name| format!("{PREFIX}{name}"));
    let topics = names
        .each_ref()
        .map(|name| NewTopic::new(name, 1, TopicReplication::Fixed(1)));
    let made = admin.create_topics(&topics, &AdminOptions::new()).await;
    assert!(made.expect("answers").iter().all(Result::is_ok));
    let registry = Registry::start(RegistrySettings {
        client,
        prefix: PREFIX.to_owned(),
        task_partitions: 1,
        replication_factor: 1,
        task_retention: Duration::from_secs(60),
        task_config: Default::default(),
        defaults: Defaults::default(),
    })
    .expect("a registry");
    until("the topic is read", async || registry.restored()).await;
    let refused = registry
        .apply(&naming("w", &["mail_out"]), None, false)
        .await;
    let RegistryError::Collision { agent, other } = refused.expect_err("a refusal") else {
        panic!("another refusal");
    };
    assert_eq!(agent, "mail_out");
    assert_eq!(other, format!("the topic `{PREFIX}tasks.mail.out`"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_definition_that_no_record_holds_is_refused_with_the_limit() {
    let broker = Broker::start().await;
    let all = (0..PARTITIONS).collect();
    let one = Instance::with(&broker, "one", all, |settings, _| {
        settings.max_body_bytes = 4 << 20;
    })
    .await;
    let path = "/v1/definitions/workflow/large";
    let of_size = |bytes: usize| {
        let text = "x".repeat(bytes);
        format!(
            "{{kind: workflow, name: large, steps: [{{id: a, agent: hand, task: {{text: {text}}}}}]}}"
        )
    };
    for query in ["?dry_run=true", ""] {
        let path = format!("{path}{query}");
        let (status, body) = put(&one, &path, &of_size(1_000_000)).await;
        assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE, "{body}");
        let detail = body["detail"].as_str().expect("words");
        let named = ["workflow large@1", "at most 983040 are allowed"];
        assert!(named.iter().all(|words| detail.contains(words)), "{detail}");
    }
    let (status, body) = put(&one, path, &of_size(980_000)).await;
    assert_eq!(status, StatusCode::CREATED, "{body}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_definition_is_applied_once_and_an_applied_version_never_changes() {
    let broker = Broker::start().await;
    let one = Instance::alone(&broker).await;
    let path = "/v1/definitions/workflow/two_steps";
    let (status, body) = put(&one, &format!("{path}?dry_run=true"), TWO_STEPS).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    assert_eq!(one.get(path).await.0, StatusCode::NOT_FOUND);
    let (status, created) = put(&one, path, TWO_STEPS).await;
    assert_eq!(status, StatusCode::CREATED, "{created}");
    assert_eq!(
        (created["name"].as_str(), created["version"].as_u64()),
        (Some("two_steps"), Some(1)),
        "{created}"
    );
    // What comes out goes in again and changes nothing.
    let (status, _) = one.ask(Method::PUT, path, Some(&created.to_string())).await;
    assert_eq!(status, StatusCode::OK);
    let changed = TWO_STEPS.replace("do: one", "do: other");
    let (status, body) = put(&one, path, &changed).await;
    assert_eq!(status, StatusCode::CONFLICT, "{body}");
    assert!(
        body["detail"]
            .as_str()
            .unwrap()
            .contains("raise `version` to 2"),
        "{body}"
    );
    let second = changed.replace("name: two_steps", "name: two_steps\nversion: 2");
    assert_eq!(
        put(&one, &format!("{path}@2"), &second).await.0,
        StatusCode::CREATED
    );
    assert_eq!(
        put(&one, &format!("{path}@3"), &second).await.0,
        StatusCode::UNPROCESSABLE_ENTITY
    );

    assert_eq!(one.get(path).await.1["version"], 2);
    assert_eq!(one.get(&format!("{path}@1")).await.1, created);
    let (_, all) = one.get("/v1/definitions/workflow").await;
    let versions: Vec<u64> = all["definitions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["version"].as_u64().unwrap())
        .collect();
    assert_eq!(versions, [2, 1]);
    let yaml = one
        .http
        .get(format!("{}{path}@1", one.url))
        .header("accept", "application/yaml")
        .send()
        .await
        .unwrap();
    assert_eq!(yaml.headers()["content-type"], "application/yaml");
    let yaml = yaml.text().await.unwrap();
    assert_eq!(put(&one, path, &yaml).await.0, StatusCode::OK, "{yaml}");

    let consumer: BaseConsumer = broker.client().create().unwrap();
    let metadata = consumer
        .fetch_metadata(Some(&format!("{PREFIX}tasks.tester")), SOON)
        .unwrap();
    assert_eq!(metadata.topics()[0].partitions().len(), 2);
}

const TAKEOVER: &str = "kind: rule
name: takeover
topic: auth
correlate: {by: [user]}
match: {count: {id: fails, where: \"event.kind == 'fail'\", at_least: 3, within: 10m}}
start: {workflow: two_steps, input: {user: \"${key.user}\"}}
";

#[tokio::test(flavor = "multi_thread")]
async fn a_rule_is_applied_as_a_workflow_is() {
    let broker = Broker::start().await;
    let one = Instance::alone(&broker).await;
    let path = "/v1/definitions/rule/takeover";
    assert_eq!(
        put(&one, &format!("{path}?dry_run=true"), TAKEOVER).await.0,
        StatusCode::OK
    );
    assert_eq!(one.get(path).await.0, StatusCode::NOT_FOUND);
    let send = |text: &str| {
        one.http
            .put(format!("{}{path}", one.url))
            .header("content-type", "application/yaml")
            .body(text.to_owned())
            .send()
    };
    // The workflow is not there: a warning, and the rule is applied.
    let answer = send(TAKEOVER).await.unwrap();
    assert_eq!(answer.status(), StatusCode::CREATED);
    let warning = answer.headers()["warning"].to_str().unwrap().to_owned();
    assert!(
        warning.starts_with("299 - \"") && warning.contains("workflow `two_steps`"),
        "{warning}"
    );
    let created: serde_json::Value = answer.json().await.unwrap();
    assert_eq!(
        (&created["kind"], &created["version"]),
        (&"rule".into(), &1.into())
    );
    one.apply("two_steps", TWO_STEPS).await;
    let again = send(&created.to_string()).await.unwrap();
    assert_eq!(again.status(), StatusCode::OK);
    assert!(again.headers().get("warning").is_none());
    let changed = TAKEOVER.replace("at_least: 3", "at_least: 4");
    let (status, body) = put(&one, path, &changed).await;
    assert_eq!(status, StatusCode::CONFLICT, "{body}");
    let first = one.registry.rules();
    assert_eq!((first.in_force.len(), first.in_force[0].version), (1, 1));
    let second = format!("version: 2\nenabled: false\n{changed}");
    assert_eq!(put(&one, path, &second).await.0, StatusCode::CREATED);
    let later = one.registry.rules();
    assert!(later.in_force.is_empty() && later.generation > first.generation);
    assert!(one.registry.rule("takeover", 1).is_some());

    assert_eq!(one.get(path).await.1["version"], 2);
    let (_, all) = one.get("/v1/definitions/rule").await;
    assert_eq!(all["definitions"].as_array().unwrap().len(), 2, "{all}");
    let (_, workflows) = one.get("/v1/definitions/workflow").await;
    assert_eq!(workflows["definitions"].as_array().unwrap().len(), 1);
    let delete = async |version: u32| {
        let path = format!("{path}@{version}");
        one.ask(Method::DELETE, &path, None).await.0
    };
    assert_eq!(delete(2).await, StatusCode::NO_CONTENT);
    assert_eq!(
        one.registry.rules().in_force.len(),
        1,
        "the version before is in force again"
    );
    assert_eq!(delete(2).await, StatusCode::NOT_FOUND);

    // Another instance reads them all back.
    let two = Instance::owning(&broker, "two", vec![]).await;
    until("the other instance knows the rule", async || {
        two.registry.rules().in_force.len() == 1
    })
    .await;
    let (status, body) = put(&one, "/v1/definitions/rule/x", "kind: rule\nname: x\n").await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{body}");
    assert_eq!(
        body["violations"][0]["message"], "a rule needs a `match`",
        "{body}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn several_definitions_in_one_body_are_refused_and_none_is_applied() {
    let broker = Broker::start().await;
    let one = Instance::alone(&broker).await;
    let path = "/v1/definitions/workflow/two_steps";
    let second = TWO_STEPS.replace("name: two_steps", "name: two_steps\nversion: 2");
    let (status, body) = put(&one, path, &format!("{TWO_STEPS}---\n{second}")).await;
    assert_eq!(status, StatusCode::BAD_REQUEST, "{body}");
    assert!(
        body["detail"].as_str().unwrap().contains("2 definitions"),
        "{body}"
    );
    assert_eq!(one.get(path).await.0, StatusCode::NOT_FOUND);
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_come_with_their_places() {
    let broker = Broker::start().await;
    let one = Instance::alone(&broker).await;
    let path = "/v1/definitions/workflow/two_steps";
    let (status, body) = put(
        &one,
        path,
        &TWO_STEPS.replace("depends_on: [first]", "depends_on: [frist]"),
    )
    .await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    let violation = &body["violations"][0];
    assert_eq!(violation["line"], 6, "{body}");
    assert!(
        violation["message"].as_str().unwrap().contains("frist"),
        "{body}"
    );
    let request = one
        .http
        .put(format!("{}{path}", one.url))
        .header("content-type", "text/plain")
        .body(TWO_STEPS);
    assert_eq!(
        request.send().await.unwrap().status(),
        StatusCode::UNSUPPORTED_MEDIA_TYPE
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_definition_that_runs_need_is_not_deleted() {
    let broker = Broker::start().await;
    let one = Instance::alone(&broker).await;
    one.apply("two_steps", TWO_STEPS).await;
    one.post("/v1/runs", r#"{"workflow":"two_steps","id":"r"}"#)
        .await;
    let path = "/v1/definitions/workflow/two_steps@1";
    let (status, body) = one.ask(Method::DELETE, path, None).await;
    assert_eq!(
        (status, body["run_id"].as_str()),
        (StatusCode::CONFLICT, Some("r")),
        "{body}"
    );
    one.post("/v1/runs/r:cancel", "{}").await;
    assert_eq!(
        one.ask(Method::DELETE, path, None).await.0,
        StatusCode::NO_CONTENT
    );
    assert_eq!(
        one.ask(Method::DELETE, path, None).await.0,
        StatusCode::NOT_FOUND
    );
    assert_eq!(
        one.get("/v1/runs/r").await.1["steps"][0]["id"],
        serde_json::Value::Null
    );
}

/// Nobody knows of the run while the runs are looked at; without its definition it would wait for ever.
#[tokio::test(flavor = "multi_thread")]
async fn a_definition_is_put_back_for_a_start_that_was_on_its_way() {
    let broker = Broker::start().await;
    let one = Instance::alone(&broker).await;
    one.apply("two_steps", TWO_STEPS).await;
    let path = "/v1/definitions/workflow/two_steps@1";
    let before = one.get(path).await;
    one.post("/v1/runs", r#"{"workflow":"two_steps","id":"r"}"#)
        .await;
    *one.fake.on_its_way.lock().unwrap() = Some(RunId::parse("r").unwrap());
    let (status, body) = one.ask(Method::DELETE, path, None).await;
    assert_eq!(
        (status, body["run_id"].as_str()),
        (StatusCode::CONFLICT, Some("r")),
        "{body}"
    );
    assert_eq!(one.get(path).await, before);
    one.post("/v1/runs/r:cancel", "{}").await;
    let (status, body) = one.ask(Method::DELETE, path, None).await;
    assert_eq!(status, StatusCode::NO_CONTENT, "{body}");
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_share_definitions_and_skip_what_they_cannot_read() {
    let broker = Broker::start().await;
    broker.produce("definitions", "nonsense", Some("{}")).await;
    broker
        .produce("definitions", "workflow/broken/1", Some("{not json"))
        .await;
    broker
        .produce(
            "definitions",
            "workflow/other/1",
            Some(r#"{"kind":"workflow","name":"mine","steps":[{"id":"a","agent":"x"}]}"#),
        )
        .await;
    let one = Instance::owning(&broker, "one", vec![0, 1]).await;
    let two = Instance::owning(&broker, "two", vec![2, 3]).await;
    one.apply("two_steps", TWO_STEPS).await;
    two.registry.caught_up().await.unwrap();
    assert!(
        two.registry
            .get(Kind::Workflow, "two_steps", Some(1))
            .is_some()
    );
    assert_eq!(two.registry.list(Kind::Workflow).len(), 1);
    // After a deletion that is the topic's last record, a newcomer still gets to the end.
    assert!(
        one.registry
            .delete(Kind::Workflow, "two_steps", 1)
            .await
            .unwrap()
    );
    let three = Instance::owning(&broker, "three", vec![]).await;
    until("the deletion is seen everywhere", async || {
        [&two, &three]
            .iter()
            .all(|instance| instance.registry.list(Kind::Workflow).is_empty())
    })
    .await;
}
