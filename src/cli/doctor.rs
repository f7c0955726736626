//! `doctor`: is everything in place? One line for each check, with what to do where it is not.

use std::path::Path;
use std::time::Duration;

use serde_json::json;

use super::client::Api;
use super::{CliError, Context};
use crate::topics::{Catalogue, Cluster};

/// One request to the broker.
const BROKER_TIMEOUT: Duration = Duration::from_secs(5);

struct Check {
    what: &'static str,
    /// What was found, for people.
    found: String,
    /// What to do; `None`: it is good.
    remedy: Option<String>,
}

impl Check {
    fn good(what: &'static str, found: impl Into<String>) -> Self {
        Self {
            what,
            found: found.into(),
            remedy: None,
        }
    }

    fn bad(what: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            what,
            found: found.into(),
            remedy: Some(remedy.into()),
        }
    }
}

pub async fn doctor(context: &Context) -> Result<(), CliError> {
    // The configuration was read before any verb runs: a faulty one never comes here.
    let mut checks = vec![Check::good("configuration", "is whole")];
    checks.extend(kafka(context).await);
    checks.push(api(context).await);
    checks.push(data_dir(&context.config.store.data_dir));
    let output = &context.output;
    let good = checks.iter().all(|check| check.remedy.is_none());
    if output.is_table() {
        let row = |check: &Check| {
            let word = if check.remedy.is_some() {
                "fault"
            } else {
                "ok"
            };
            vec![
                check.what.to_owned(),
                word.to_owned(),
                check.found.clone(),
                check.remedy.clone().unwrap_or_default(),
            ]
        };
        output.table(
            &["CHECK", "RESULT", "FOUND", "REMEDY"],
            &checks.iter().map(row).collect::<Vec<_>>(),
        );
    } else {
        let checks: Vec<_> = checks
            .iter()
            .map(|check| json!({"check": check.what, "ok": check.remedy.is_none(), "found": check.found, "remedy": check.remedy}))
            .collect();
        output.document(&json!({"ok": good, "checks": checks}));
    }
    if good {
        Ok(())
    } else {
        Err(CliError::Failed("not everything is in place".to_owned()))
    }
}

async fn kafka(context: &Context) -> Vec<Check> {
    let brokers = &context.config.kafka.brokers;
    let remedy = "start Kafka, or name it with --kafka or KAFKA_BROKERS; without one, `partita dev` carries its own";
    let catalogue = match Catalogue::load(&context.config.topics) {
        Ok(catalogue) => catalogue,
        Err(error) => {
            return vec![Check::bad(
                "topics.yaml",
                error.to_string(),
                "correct the file",
            )];
        }
    };
    let cluster = match Cluster::new(
        &context.config.kafka.client_settings().client_config(),
        BROKER_TIMEOUT,
    ) {
        Ok(cluster) => cluster,
        Err(error) => {
            return vec![Check::bad(
                "kafka",
                error.to_string(),
                "correct kafka.security and kafka.properties",
            )];
        }
    };
    let verdicts = match cluster
        .check(&catalogue, &context.config.topics.prefix)
        .await
    {
        Ok(verdicts) => verdicts,
        Err(error) => {
            let error = error.to_string();
            let remedy = security_remedy(&error).unwrap_or(remedy);
            return vec![Check::bad("kafka", error, remedy)];
        }
    };
    let mut checks = vec![Check::good("kafka", format!("answers at {brokers}"))];
    let faults: Vec<_> = verdicts
        .iter()
        .filter_map(|verdict| Some((&verdict.topic, verdict.fault.as_ref()?)))
        .collect();
    if faults.is_empty() {
        checks.push(Check::good(
            "topics",
            format!("all {} are as declared", verdicts.len()),
        ));
    }
    checks.extend(faults.into_iter().map(|(topic, fault)| {
        Check::bad("topics", format!("{topic}: {}", fault.what), fault.remedy)
    }));
    checks
}

/// What to correct where brokers answer and turn us away: librdkafka says why in words alone.
fn security_remedy(error: &str) -> Option<&'static str> {
    if error.contains("SASL") {
        Some("correct kafka.security.sasl_mechanism, username and password")
    } else if error.contains("SSL") || error.contains("certificate") {
        Some(
            "correct kafka.security.tls and ca_file, and name the brokers as their certificate does",
        )
    } else {
        None
    }
}

async fn api(context: &Context) -> Check {
    let url = &context.config.client.api;
    let remedy = "start an instance with `partita serve` or `partita dev`, or name one with --api";
    let ready = match Api::new(url) {
        Ok(api) => api.get("/readyz", &[]).await,
        Err(error) => Err(error),
    };
    match ready {
        Ok(_) => Check::good("api", format!("is ready at {url}")),
        Err(error) => Check::bad(
            "api",
            error.to_string().lines().next().unwrap_or_default(),
            remedy,
        ),
    }
}

fn data_dir(folder: &Path) -> Check {
    let shown = folder.display();
    if !folder.exists() {
        return Check::good(
            "data folder",
            format!("{shown} is not there yet and will be made"),
        );
    }
    let probe = folder.join(".partita-doctor");
    match std::fs::write(&probe, b"").and_then(|()| std::fs::remove_file(&probe)) {
        Ok(()) => Check::good("data folder", format!("{shown} can be written")),
        Err(error) => Check::bad(
            "data folder",
            format!("{shown}: {error}"),
            "choose another with --data or store.data_dir",
        ),
    }
}
