//! a: topics are created, and say how they were configured.

use anyhow::Result;
use rdkafka::admin::{AdminClient, AdminOptions, ResourceSpecifier};
use rdkafka::client::DefaultClientContext;
use rdkafka::mocking::MockCluster;
use rdkafka::producer::DefaultProducerContext;

use crate::client::{Target, TopicSpec, seconds};
use crate::report::Report;

const TOPICS: [TopicSpec<'static>; 9] = [
    ("in", 4, &[]),
    ("out", 4, &[]),
    ("chg", 4, &[("cleanup.policy", "compact")]),
    ("lso", 1, &[]),
    ("open", 1, &[]),
    ("bench", 4, &[]),
    ("benchout", 4, &[]),
    ("lsrc", 1, &[]),
    ("lout", 1, &[]),
];

/// Creates what all later checks use.
pub async fn create(
    target: &Target,
    mock: Option<&MockCluster<'_, DefaultProducerContext>>,
    report: &mut Report,
) -> Result<()> {
    const NAME: &str = "a admin create_topics";
    match target.create(&TOPICS).await {
        Ok(lines) => {
            let errors: Vec<_> = lines
                .iter()
                .filter(|line| line.starts_with("ERR"))
                .collect();
            let detail = format!("{} topics, errors {errors:?}", lines.len());
            report.verdict(NAME, errors.is_empty(), &detail);
        }
        Err(error) => {
            report.verdict(NAME, false, &error.to_string());
            if let Some(mock) = mock {
                create_on_mock(target, mock)?;
            }
        }
    }
    describe(target, report).await
}

/// librdkafka's mock knows no CreateTopics request.
fn create_on_mock(target: &Target, mock: &MockCluster<'_, DefaultProducerContext>) -> Result<()> {
    for (name, partitions, _) in TOPICS {
        mock.create_topic(&target.name(name), partitions, 1)?;
    }
    mock.create_topic(&target.name("ret"), 1, 1)?;
    Ok(())
}

async fn describe(target: &Target, report: &mut Report) -> Result<()> {
    const NAME: &str = "a describe_configs compact";
    let admin: AdminClient<DefaultClientContext> = target.settings().create()?;
    let topic = target.name("chg");
    let options = AdminOptions::new().request_timeout(Some(seconds(5)));
    let answers = admin
        .describe_configs([&ResourceSpecifier::Topic(&topic)], &options)
        .await;
    match answers.map(|answers| answers.into_iter().next()) {
        Ok(Some(Ok(resource))) => {
            let policy = resource
                .get("cleanup.policy")
                .and_then(|entry| entry.value.clone());
            let detail = format!(
                "{} entries, cleanup.policy={policy:?}",
                resource.entries.len()
            );
            report.verdict(NAME, policy.as_deref() == Some("compact"), &detail);
        }
        Ok(Some(Err(error))) => report.verdict(NAME, false, &format!("{error:?}")),
        Ok(None) => report.verdict(NAME, false, "an answer about no resource"),
        Err(error) => report.verdict(NAME, false, &error.to_string()),
    }
    Ok(())
}
