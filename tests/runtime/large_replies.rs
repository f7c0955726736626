//! Answers of agents that find no room fail their attempt, be it the producer or the broker that refuses
//! them: sent again they would find none either.

use std::time::Duration;

use partita::agent::{Agent, Settings};
use partita::model::{Json, RunStatus};
use partita::runtime;
use partita_broker::{Broker, Config};
use tokio_util::sync::CancellationToken;

use crate::intake::support::{LIMIT, create_with};
use crate::world::{self, Registry};

const ONE: &str = r#"
kind: workflow
name: one
version: 1
steps: [{id: only, agent: large, inputs: {bytes: "${input}"}, retry: {max_attempts: 1}}]
"#;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_finds_no_room_fails_its_attempt_and_the_next_is_taken() {
    let broker = Broker::start(Config::memory()).await.expect("a broker");
    let brokers = broker.bootstrap();
    let prefix = "lr.";
    let narrow = [("max.message.bytes", "60000")];
    create_with(&brokers, "lr.replies", world::PARTITIONS, &narrow).await;
    world::create_topics_but(&brokers, prefix, &["large"], &["replies"]).await;
    let config = world::config(&brokers, prefix, "one", None);
    let handle = runtime::start(config, Registry::with(ONE)).expect("an instance");
    world::until_ready(&[&handle]).await;

    let stop = CancellationToken::new();
    let settings = Settings {
        prefix: prefix.to_owned(),
        ..Settings::new(&brokers)
    };
    let agent = Agent::new(settings, "large").handler(|task, _| async move {
        let inputs: serde_json::Value = task.inputs.parse().expect("JSON");
        let bytes = inputs["bytes"].as_u64().expect("a number");
        Ok(Json::from(serde_json::json!("x".repeat(bytes as usize))))
    });
    let agent = tokio::spawn(agent.concurrency(1).run_until(stop.clone()));

    // More than the producer takes, more than the topic has room for, and neither.
    for (id, bytes) in [("a", 3 << 20), ("b", 100_000), ("c", 10)] {
        let command = world::start(id, "one", &bytes.to_string());
        handle.submit(command, None).await.expect("an answer");
    }
    for (id, fails) in [("a", true), ("b", true), ("c", false)] {
        let id = partita::model::RunId::parse(id).expect("an id");
        let run = handle.wait_for_end(&id, Duration::from_secs(180)).await;
        let run = run.expect("the run").expect("known");
        let class = run.error.as_ref().map(|error| error.class.as_str());
        assert_eq!(class, fails.then_some("payload_too_large"), "{run:?}");
        let status = if fails {
            RunStatus::Failed
        } else {
            RunStatus::Completed
        };
        assert_eq!(run.status, status);
    }
    stop.cancel();
    let ended = agent.await.expect("it ends");
    ended.expect("nothing was lost");
    assert!(handle.shutdown(LIMIT).await);
}
