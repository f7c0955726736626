//! A Kafka that asks for TLS and a password: an instance configured as `config/partita.yaml` says runs
//! a workflow over it, and a wrong password is told as what it is.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use kafka_harness::{Kafka, Secured};
use serde_json::json;
use tempfile::TempDir;

use crate::support::installation::{Environment, Instance, command, partita};
use crate::support::wait_for;

const PASSWORD: &str = "PARTITA_KAFKA__SECURITY__PASSWORD";
const RIGHT: Environment = &[(PASSWORD, Secured::PASSWORD)];
const WRONG: Environment = &[(PASSWORD, "a-guess")];
const LIMIT: Duration = Duration::from_secs(120);

const WORKFLOW: &str = r#"
kind: workflow
name: secret
version: 1
steps:
  - {id: say, agent: echo, inputs: {word: "${input.word}"}}
output: {word: "${steps.say.output.word}"}
"#;

#[test]
fn apache_kafka_with_tls_and_passwords() {
    let _alone = crate::support::alone();
    let what = "TLS and SASL with Apache Kafka";
    let Some((_kafka, secured)) = Kafka::start_secured_or_skip(what) else {
        return;
    };
    let folder = TempDir::new().expect("a temporary folder");
    let workflow = folder.path().join("secret.yaml");
    fs::write(&workflow, WORKFLOW).expect("the temporary folder can be written");
    for mechanism in ["plain", "scram-sha-512"] {
        let file = configuration(&secured, mechanism, folder.path());
        runs(mechanism, &file, folder.path(), &workflow);
        refuses(mechanism, &file, folder.path());
    }
}

/// As `config/partita.yaml` documents it, the password left to the environment.
fn configuration(secured: &Secured, mechanism: &str, folder: &Path) -> PathBuf {
    let file = folder.join(format!("{mechanism}.yaml"));
    let ca_file = secured.ca_file().to_string_lossy();
    let text = json!({
        "kafka": {
            "brokers": secured.bootstrap(),
            "security": {
                "tls": true, "ca_file": ca_file,
                "sasl_mechanism": mechanism, "username": Secured::USER,
            },
        },
        "topics": {"prefix": format!("{mechanism}.")},
    });
    // JSON is YAML.
    fs::write(&file, text.to_string()).expect("the temporary folder can be written");
    file
}

fn runs(mechanism: &str, file: &Path, folder: &Path, workflow: &Path) {
    let mut instance = Instance::configured(mechanism, file, folder, RIGHT);
    instance.start();
    instance.wait_until_ready();
    partita(&[
        "apply",
        &workflow.to_string_lossy(),
        "--api",
        &instance.api.url,
    ]);
    let start = json!({"workflow": "secret", "id": "one", "input": {"word": mechanism}});
    instance.api.post_settled("/v1/runs", &start);
    wait_for(LIMIT, "the run has ended", || {
        instance.api.settled("/v1/runs/one").body["ended_at"].is_string()
    });
    let run = instance.api.settled("/v1/runs/one").body;
    assert_eq!(run["status"], "completed", "{run}");
    assert_eq!(run["output"]["word"], mechanism, "{run}");
    instance.stop();
}

fn refuses(mechanism: &str, file: &Path, folder: &Path) {
    let doctor = command(folder)
        .args(["--config", &file.to_string_lossy(), "doctor", "--json"])
        .envs(WRONG.iter().copied())
        .output()
        .expect("partita starts");
    assert_eq!(doctor.status.code(), Some(1));
    let said = String::from_utf8_lossy(&doctor.stdout);
    assert!(said.contains("SASL authentication error"), "{said}");
    assert!(said.contains("correct kafka.security"), "{said}");
    assert!(!said.contains("a-guess"), "{said}");

    let name = format!("{mechanism}-wrong");
    let mut instance = Instance::configured(&name, file, folder, WRONG);
    instance.start();
    wait_for(LIMIT, "the log says that the password is wrong", || {
        instance
            .last_log_lines()
            .contains("SASL authentication error")
    });
    wait_for(LIMIT, "not ready, and for this reason", || {
        instance.api.get("/readyz").is_some_and(|ready| {
            let reason = ready.body["detail"].as_str().unwrap_or_default();
            ready.status == 503 && reason.contains("SASL authentication error")
        })
    });
    instance.kill9();
}
