//! The market example: a rule over three topics, a burst of events, one match, one run.

use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::producer::{FutureProducer, FutureRecord};
use serde_json::Value;

use crate::cli::CliError;
use crate::cli::anchored::until_anchored;
use crate::cli::client::Api;
use crate::log::LogError;
use crate::log::kafka::ClientSettings;
use crate::log::kafka::session::{admin, create_topic};

/// The rule and its workflow, of `examples/rules`.
pub const RULE: (&str, &str) = (
    "market_opportunity.yaml",
    include_str!("../../../examples/rules/market_opportunity.yaml"),
);
const EVENTS: &str = include_str!("../../../examples/rules/market_opportunity.jsonl");
const WORKFLOW: &str = "strategic_acquisition_analysis";
/// What the rule reads, and what it joins.
const TOPICS: [&str; 3] = ["demand", "news", "stock.prices"];
const TABLE: &str = "market_data";
const METRIC: &str = "partita_pattern_matches_total{rule=\"market_opportunity@1\"}";

/// Later than every window of the example: nothing is waited for any more.
const LATER: &str = r#"{"occurred_at":"2026-01-05T12:00:00Z"}"#;
const FOUND_WITHIN: Duration = Duration::from_secs(60);
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// What came of it.
pub struct Market {
    pub events: usize,
    pub matches: u64,
    /// Runs that the rule started, as the API shows them.
    pub runs: Vec<Value>,
}

/// Makes the topics of the example. Before the rule is applied: it then begins at their ends.
///
/// # Errors
/// The broker refuses.
pub async fn make_topics(settings: &ClientSettings) -> Result<(), CliError> {
    let failed = |error: LogError| CliError::Failed(format!("the market example: {error}"));
    let admin = admin(settings).map_err(failed)?;
    for topic in TOPICS.into_iter().chain([TABLE]) {
        create_topic(&admin, topic, 1, None).await.map_err(failed)?;
    }
    Ok(())
}

/// Sends the events of the example and waits for the run that they start to end.
///
/// # Errors
/// The broker or the API does not answer, or no run ends in time.
pub async fn play(settings: &ClientSettings, prefix: &str, api: &Api) -> Result<Market, CliError> {
    let failed =
        |error: &dyn std::fmt::Display| CliError::Failed(format!("the market example: {error}"));
    let places = TOPICS.map(|topic| (topic.to_owned(), 0));
    until_anchored(settings, prefix, &places)
        .await
        .map_err(|error| failed(&error))?;
    let mut records: Vec<(String, Option<String>, String)> = Vec::new();
    for line in EVENTS.lines() {
        let record: Value = serde_json::from_str(line).map_err(|error| failed(&error))?;
        let text = |name: &str| record[name].as_str().map(str::to_owned);
        let topic = text("topic").unwrap_or_default();
        records.push((topic, text("key"), record["payload"].to_string()));
    }
    let is_event = |topic: &str| TOPICS.contains(&topic);
    let events = records.iter().filter(|(topic, ..)| is_event(topic)).count();
    for topic in TOPICS {
        records.push((topic.to_owned(), None, LATER.to_owned()));
    }
    let config: ClientConfig = settings.client_config();
    let producer: FutureProducer = config.create().map_err(|error| failed(&error))?;
    for (topic, key, payload) in &records {
        let mut record = FutureRecord::to(topic).payload(payload);
        if let Some(key) = key {
            record = record.key(key);
        }
        let sent = producer.send(record, FOUND_WITHIN).await;
        sent.map_err(|(error, _)| failed(&error))?;
    }
    let runs = ended_runs(api).await?;
    let metrics = api.get("/metrics", &[]).await?.text;
    let matches = metrics.lines().find_map(|line| line.strip_prefix(METRIC));
    let matches = matches.and_then(|count| count.trim().parse().ok());
    Ok(Market {
        events,
        matches: matches.unwrap_or(0),
        runs,
    })
}

/// The runs of the example's workflow, once there are some and all have ended.
async fn ended_runs(api: &Api) -> Result<Vec<Value>, CliError> {
    let deadline = Instant::now() + FOUND_WITHIN;
    loop {
        let query = [("workflow", WORKFLOW.to_owned())];
        let page = api.get("/v1/runs", &query).await?.value()?;
        let runs = page["runs"].as_array().cloned().unwrap_or_default();
        let has_ended = |run: &Value| !run["ended_at"].is_null();
        if !runs.is_empty() && runs.iter().all(has_ended) {
            return Ok(runs);
        }
        if Instant::now() > deadline {
            let shown = runs.len();
            return Err(CliError::Failed(format!(
                "the market example: {shown} runs were started, and not all ended in time"
            )));
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}
