//! The files beside the code agree with it and with each other: schemas, topics, examples, the
//! compose file, monitoring.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use partita::telemetry::names::{Kind, METRICS};
use serde_json::Value;

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[track_caller]
fn text(path: &str) -> String {
    fs::read_to_string(repository().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

#[track_caller]
fn yaml(path: &str) -> Value {
    serde_saphyr::from_str(&text(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn files(folder: &str, extension: &str) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(repository().join(folder))
        .unwrap_or_else(|error| panic!("{folder}: {error}"))
        .map(|entry| entry.expect("a readable folder").path())
        .filter(|path| path.extension().is_some_and(|found| found == extension))
        .collect();
    files.sort();
    files
}

#[test]
fn schemas_are_valid_avro() {
    let schemas = files("schemas", "avsc");
    assert!(schemas.len() >= 7, "{schemas:?}");
    for path in schemas {
        let schema = fs::read_to_string(&path).expect("a readable file");
        if let Err(error) = apache_avro::Schema::parse_str(&schema) {
            panic!("{}: {error}", path.display());
        }
    }
}

#[test]
fn topics_name_schemas_that_exist() {
    let file = yaml("topics.yaml");
    let mut named = 0;
    let mut topics = file["topics"].as_array().expect("a list of topics").clone();
    topics.push(file["tasks"].clone());
    for topic in &topics {
        if let Some(schema) = topic["schema"].as_str() {
            named += 1;
            assert!(
                repository().join(schema).is_file(),
                "{} names {schema}",
                topic["name"]
            );
        }
    }
    assert!(named >= 7, "only {named} topics name a schema");
}

#[test]
fn examples_are_valid() {
    let output = Command::new(env!("CARGO_BIN_EXE_partita"))
        .current_dir(repository())
        .args(["validate", "examples/workflows", "examples/rules"])
        .output()
        .expect("partita starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
}

#[test]
fn the_market_example_matches_once() {
    let output = Command::new(env!("CARGO_BIN_EXE_partita"))
        .current_dir(repository())
        .args(["rules", "test", "examples/rules/market_opportunity.yaml"])
        .args([
            "--events",
            "examples/rules/market_opportunity.jsonl",
            "--json",
        ])
        .output()
        .expect("partita starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let shown: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let matches = shown["matches"].as_array().expect("matches");
    assert_eq!(matches.len(), 1, "{shown}");
    let events = serde_json::json!({"drop": [5], "news": [6], "demand": [7]});
    assert_eq!(matches[0]["events"], events, "{shown}");
    let input = &matches[0]["start"]["input"];
    assert_eq!(input["market"]["size"], "large", "{shown}");
    assert_eq!(
        input["drop"][0]["measured"]["drop"]["relative"], -0.16,
        "{shown}"
    );
}

#[test]
fn compose_mounts_files_that_exist() {
    let compose = yaml("docker-compose.yml");
    let mut mounts = 0;
    for (service, definition) in compose["services"].as_object().expect("services") {
        for volume in definition["volumes"].as_array().into_iter().flatten() {
            let (source, _) = volume
                .as_str()
                .and_then(|volume| volume.split_once(':'))
                .expect("volumes in the short form");
            if let Some(path) = source.strip_prefix("./") {
                mounts += 1;
                assert!(
                    repository().join(path).exists(),
                    "{service} mounts {source}"
                );
            } else {
                assert!(
                    !compose["volumes"][source].is_string(),
                    "{service}: {source}"
                );
                let declared = compose["volumes"].as_object().expect("named volumes");
                assert!(
                    declared.contains_key(source),
                    "{service} mounts the unknown {source}"
                );
            }
        }
    }
    assert_eq!(mounts, 4);
}

#[test]
fn compose_sets_variables_that_the_configuration_knows() {
    let compose = yaml("docker-compose.yml");
    let configuration = yaml("config/partita.yaml");
    let mut known = 0;
    for (service, definition) in compose["services"].as_object().expect("services") {
        for name in definition["environment"]
            .as_object()
            .into_iter()
            .flat_map(|map| map.keys())
        {
            let Some(path) = name.strip_prefix("PARTITA_") else {
                continue;
            };
            known += 1;
            let mut node = &configuration;
            for key in path.to_lowercase().split("__") {
                node = node
                    .get(key)
                    .unwrap_or_else(|| panic!("{service} sets {name}: there is no key {key}"));
            }
        }
    }
    assert!(known >= 2, "the instances of the compose file set nothing");
}

#[test]
fn prometheus_scrapes_the_instances_of_the_compose_file() {
    let compose = yaml("docker-compose.yml");
    let prometheus = yaml("config/prometheus.yml");
    let targets = prometheus["scrape_configs"][0]["static_configs"][0]["targets"]
        .as_array()
        .expect("targets");
    for target in targets {
        let (host, port) = target
            .as_str()
            .and_then(|it| it.split_once(':'))
            .expect("host:port");
        assert!(port.parse::<u16>().is_ok(), "{target}");
        assert!(compose["services"].get(host).is_some(), "no service {host}");
    }
    assert_eq!(prometheus["rule_files"][0], "alerts.yml");
}

#[test]
fn one_port_leads_from_the_image_to_prometheus() {
    let dockerfile = text("Dockerfile");
    let line = |beginning: &str| {
        dockerfile
            .lines()
            .find_map(|line| line.trim_start().strip_prefix(beginning))
            .unwrap_or_else(|| panic!("the Dockerfile has no line {beginning}"))
            .trim()
    };
    let port = line("EXPOSE");
    assert!(
        line("CMD [\"serve\"").contains(&format!("\"0.0.0.0:{port}\"")),
        "serve listens elsewhere"
    );
    let health = line("CMD [\"bash\"");
    assert!(
        health.contains(&format!("/dev/tcp/127.0.0.1/{port} ")) && health.contains("GET /livez "),
        "{health}"
    );
    let compose = yaml("docker-compose.yml");
    let mut instances = 0;
    for (service, definition) in compose["services"].as_object().expect("services") {
        let Some(url) = definition["environment"]["PARTITA_HTTP__ADVERTISE"].as_str() else {
            continue;
        };
        instances += 1;
        assert_eq!(url, format!("http://{service}:{port}"));
        let published = definition["ports"][0].as_str().expect("a port");
        assert!(published.ends_with(&format!(":{port}")), "{published}");
    }
    assert_eq!(instances, 2);
    let configuration = yaml("config/prometheus.yml");
    let job = &configuration["scrape_configs"][0];
    assert_eq!(job["metrics_path"], "/metrics");
    for target in job["static_configs"][0]["targets"]
        .as_array()
        .expect("targets")
    {
        let target = target.as_str().expect("host:port");
        assert!(target.ends_with(&format!(":{port}")), "{target}");
    }
}

#[test]
fn alerts_are_whole_and_read_our_metrics() {
    let alerts = yaml("config/alerts.yml");
    let mut names = BTreeSet::new();
    for rule in alerts["groups"][0]["rules"].as_array().expect("rules") {
        let name = rule["alert"].as_str().expect("a name");
        assert!(names.insert(name.to_owned()), "{name} is there twice");
        for part in ["summary", "description"] {
            assert!(
                rule["annotations"][part].is_string(),
                "{name} has no {part}"
            );
        }
        assert!(
            rule["labels"]["severity"].is_string(),
            "{name} has no severity"
        );
        check_expression(name, rule["expr"].as_str().expect("an expression"));
    }
    assert!(!names.is_empty());
}

#[test]
fn the_dashboard_reads_our_metrics_and_all_of_the_promised_ones() {
    let dashboard: Value = serde_json::from_str(&text("config/grafana/dashboards/partita.json"))
        .expect("the dashboard is JSON");
    let mut read = BTreeSet::new();
    let mut ids = BTreeSet::new();
    for panel in dashboard["panels"].as_array().expect("panels") {
        assert!(
            ids.insert(panel["id"].as_u64()),
            "two panels with the id {}",
            panel["id"]
        );
        for target in panel["targets"].as_array().into_iter().flatten() {
            let title = panel["title"].as_str().expect("a title");
            read.extend(check_expression(
                title,
                target["expr"].as_str().expect("an expression"),
            ));
        }
    }
    for promised in [
        "workflow_execution_seconds",
        "workflow_success_total",
        "workflow_failure_total",
        "active_workflows_count",
        "agent_communication_seconds",
        "state_operation_seconds",
        "orchestration_memory_bytes",
        "orchestration_cpu_percent",
        "partita_consumer_lag_records",
        "partita_commit_seconds",
        "partita_batch_records",
        "partita_restore_records_remaining",
        "partita_rebalances_total",
        "partita_dead_letters_total",
        "partita_replies_ignored_total",
        "partita_forwarded_records_total",
        "partita_runs_pending",
    ] {
        assert!(read.contains(promised), "no panel shows {promised}");
    }
}

/// The metrics of ours that a PromQL expression reads; panics where it reads another, or a label
/// that the metric does not have.
#[track_caller]
fn check_expression(place: &str, expression: &str) -> BTreeSet<String> {
    let open = expression.matches(['(', '[', '{']).count();
    assert_eq!(
        open,
        expression.matches([')', ']', '}']).count(),
        "{place}: {expression}"
    );
    let (metrics, labels) = names(expression);
    let mut read = BTreeSet::new();
    let mut allowed = BTreeSet::from(["le", "instance", "job"]);
    for name in metrics.iter().filter(|name| *name != "up") {
        let metric = METRICS
            .iter()
            .find(|metric| match metric.kind {
                Kind::Histogram(_) => name.strip_suffix("_bucket") == Some(metric.name),
                Kind::Counter | Kind::Gauge => metric.name == name,
            })
            .unwrap_or_else(|| panic!("{place} reads {name}, which nobody exports: {expression}"));
        allowed.extend(metric.labels);
        read.insert(metric.name.to_owned());
    }
    for label in &labels {
        assert!(
            allowed.contains(label.as_str()),
            "{place}: no label {label} in {expression}"
        );
    }
    read
}

/// The names of metrics and of labels in a PromQL expression. Metrics are the words that are
/// neither called, nor keywords, nor in the list after `by` or between braces.
fn names(expression: &str) -> (Vec<String>, Vec<String>) {
    let (mut metrics, mut labels) = (vec![], vec![]);
    let mut rest = expression;
    let mut after_by = false;
    while let Some(first) = rest.chars().next() {
        if first == '[' || first == '"' {
            // A range or the value of a label names nothing.
            let end = if first == '[' { ']' } else { '"' };
            let length = rest[1..].find(end).expect("brackets and quotes are closed");
            rest = &rest[length + 2..];
        } else if first == '{' || (first == '(' && after_by) {
            let end = if first == '{' { '}' } else { ')' };
            let (list, tail) = rest[1..].split_once(end).expect("lists are closed");
            labels.extend(list.split(',').map(|item| {
                item.split(['=', '!'])
                    .next()
                    .unwrap_or_default()
                    .trim()
                    .to_owned()
            }));
            rest = tail;
            after_by = false;
        } else if first.is_ascii_digit() {
            // A number, or the span after `offset`.
            rest =
                rest.trim_start_matches(|next: char| next.is_ascii_alphanumeric() || next == '.');
        } else if first.is_ascii_alphabetic() || first == '_' {
            let length = rest
                .find(|next: char| !next.is_ascii_alphanumeric() && next != '_')
                .unwrap_or(rest.len());
            let (word, tail) = rest.split_at(length);
            after_by = word == "by";
            let is_call = tail.starts_with('(') || after_by;
            if !is_call && !matches!(word, "and" | "or" | "unless" | "offset" | "sum") {
                metrics.push(word.to_owned());
            }
            rest = tail;
        } else {
            rest = &rest[first.len_utf8()..];
        }
    }
    (metrics, labels)
}
