//! `topics create | check | list`.

use std::time::Duration;

use serde_json::json;

use super::args::{TopicsAction, TopicsArgs};
use super::{CliError, Context};
use crate::config::Span;
use crate::topics::{Catalogue, Cluster, ClusterError, TopicsFileError, Verdict, faults};

/// How long one request to the cluster may take.
const TIMEOUT: Duration = Duration::from_secs(10);

impl From<ClusterError> for CliError {
    fn from(error: ClusterError) -> Self {
        match error {
            ClusterError::Unreachable { .. } => CliError::Unreachable(format!(
                "{error}\nname the brokers with --kafka or KAFKA_BROKERS"
            )),
            ClusterError::Client(_) => CliError::Usage(error.to_string()),
            ClusterError::Refused { .. } | ClusterError::Unseen { .. } => {
                CliError::Failed(error.to_string())
            }
        }
    }
}

impl From<TopicsFileError> for CliError {
    fn from(error: TopicsFileError) -> Self {
        CliError::Usage(error.to_string())
    }
}

pub async fn topics(context: &Context, args: TopicsArgs) -> Result<(), CliError> {
    let settings = &context.config.topics;
    let catalogue = Catalogue::load(settings)?;
    let cluster = Cluster::new(
        &context.config.kafka.client_settings().client_config(),
        TIMEOUT,
    )?;
    let prefix = &settings.prefix;
    match args.action {
        TopicsAction::Create => {
            let created = cluster.create(&catalogue, prefix).await?;
            print_created(context, &catalogue, &created);
            // The installation must be whole now, or the operator hears of it.
            let faults = faults(&cluster.check(&catalogue, prefix).await?);
            refuse(&faults, &faults.join("\n"))
        }
        TopicsAction::Check => {
            let verdicts = cluster.check(&catalogue, prefix).await?;
            print_verdicts(context, &verdicts);
            refuse(&faults(&verdicts), "the cluster is not as topics.yaml says")
        }
        TopicsAction::List => list(context, &cluster).await,
    }
}

fn refuse(faults: &[String], words: &str) -> Result<(), CliError> {
    if faults.is_empty() {
        Ok(())
    } else {
        Err(CliError::Failed(words.to_owned()))
    }
}

fn print_created(context: &Context, catalogue: &Catalogue, created: &[String]) {
    let output = &context.output;
    if !output.is_table() {
        return output.document(&json!({"created": created}));
    }
    let word = |name: &String| {
        if created.contains(name) {
            "created"
        } else {
            "unchanged"
        }
    };
    let rows: Vec<_> = catalogue
        .topics
        .iter()
        .map(|topic| vec![topic.name.clone(), word(&topic.name).to_owned()])
        .collect();
    output.table(&["TOPIC", "RESULT"], &rows);
}

fn print_verdicts(context: &Context, verdicts: &[Verdict]) {
    let output = &context.output;
    if !output.is_table() {
        let topics: Vec<_> = verdicts
            .iter()
            .map(|verdict| json!({"topic": verdict.topic, "fault": verdict.fault.as_ref().map(ToString::to_string)}))
            .collect();
        let good = verdicts.iter().all(|verdict| verdict.fault.is_none());
        return output.document(&json!({"ok": good, "topics": topics}));
    }
    let row = |verdict: &Verdict| {
        let (word, words) = verdict
            .fault
            .as_ref()
            .map_or(("ok", "-".to_owned()), |fault| ("fault", fault.to_string()));
        vec![verdict.topic.clone(), word.to_owned(), words]
    };
    output.table(
        &["TOPIC", "RESULT", "FAULT"],
        &verdicts.iter().map(row).collect::<Vec<_>>(),
    );
}

async fn list(context: &Context, cluster: &Cluster) -> Result<(), CliError> {
    let found = cluster.topics(&context.config.topics.prefix).await?;
    let output = &context.output;
    if output.is_table() {
        let rows: Vec<_> = found
            .values()
            .map(|topic| {
                let retention = match topic.retention_ms {
                    Some(millis) if topic.cleanup.as_deref() == Some("delete") => {
                        u64::try_from(millis)
                            .map_or_else(|_| "for ever".to_owned(), |n| Span::millis(n).to_string())
                    }
                    _ => "-".to_owned(),
                };
                vec![
                    topic.name.clone(),
                    topic.partitions.to_string(),
                    topic.replication_factor.to_string(),
                    topic.cleanup.clone().unwrap_or_else(|| "-".to_owned()),
                    retention,
                ]
            })
            .collect();
        output.table(
            &["TOPIC", "PARTITIONS", "COPIES", "CLEANUP", "RETENTION"],
            &rows,
        );
    } else {
        let topics: Vec<_> = found
            .values()
            .map(|topic| {
                json!({
                    "name": topic.name,
                    "partitions": topic.partitions,
                    "replication_factor": topic.replication_factor,
                    "cleanup_policy": topic.cleanup,
                    "retention_ms": topic.retention_ms,
                })
            })
            .collect();
        output.document(&json!({"topics": topics}));
    }
    Ok(())
}
