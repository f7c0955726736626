use std::path::PathBuf;

use super::*;

const DOCUMENTED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/config/partita.yaml");

fn file_of(text: &str) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("partita.yaml");
    std::fs::write(&path, text).unwrap();
    (folder, path)
}

fn load_text(text: &str) -> Result<Config, ConfigError> {
    let (_folder, path) = file_of(text);
    load(Some(&path), [], &[])
}

fn faults_of(text: &str) -> Vec<String> {
    let faults = load_text(text).unwrap_err().faults;
    faults
        .into_iter()
        .map(|fault| {
            let place = fault
                .origin
                .rsplit('/')
                .next()
                .unwrap_or_default()
                .to_owned();
            format!("{place}: {}", fault.message)
        })
        .collect()
}

fn variable(name: &str, value: &str) -> (String, String) {
    (name.to_owned(), value.to_owned())
}

/// Every path of a tree, groups included.
fn paths(tree: &Value, above: &str, into: &mut Vec<String>) {
    for (key, value) in tree.as_object().into_iter().flatten() {
        let path = if above.is_empty() {
            key.clone()
        } else {
            format!("{above}.{key}")
        };
        into.push(path.clone());
        paths(value, &path, into);
    }
}

#[test]
fn the_documented_file_names_every_key_and_its_default() {
    let text = std::fs::read_to_string(DOCUMENTED).unwrap();
    let documented: Value = serde_saphyr::from_str(&text).unwrap();
    let defaults = serde_json::to_value(Config::default()).unwrap();
    let (mut written, mut known) = (Vec::new(), Vec::new());
    paths(&documented, "", &mut written);
    paths(&defaults, "", &mut known);
    written.sort();
    known.sort();
    assert_eq!(
        written, known,
        "config/partita.yaml and the settings must have the same keys"
    );
    assert_eq!(
        load(Some(DOCUMENTED.as_ref()), [], &[]).unwrap(),
        Config::default()
    );
}

#[test]
fn the_documented_file_explains_each_key_and_states_its_bounds() {
    let text = std::fs::read_to_string(DOCUMENTED).unwrap();
    let mut stack: Vec<&str> = Vec::new();
    let mut comment = String::new();
    let mut stated = std::collections::BTreeMap::new();
    for line in text.lines() {
        let trimmed = line.trim_start();
        if let Some(words) = trimmed.strip_prefix('#') {
            comment.push_str(words);
            continue;
        }
        if let Some((key, value)) = trimmed.split_once(':') {
            stack.truncate((line.len() - trimmed.len()) / 2);
            stack.push(key);
            if !value.trim().is_empty() {
                assert!(!comment.is_empty(), "`{}` has no comment", stack.join("."));
            }
            stated.insert(stack.join("."), std::mem::take(&mut comment));
        }
        comment.clear();
    }
    for bound in bounds::BOUNDS {
        let words = format!("Bounds: {}.", bound.range.words());
        let comment = stated
            .get(bound.path)
            .unwrap_or_else(|| panic!("`{}` is not in the file", bound.path));
        assert!(
            comment.contains(&words),
            "`{}` should say `{words}`, says `{comment}`",
            bound.path
        );
    }
}

#[test]
fn later_layers_win() {
    let (_folder, path) = file_of("kafka: {brokers: 'a:1'}\nruntime: {workers: 3}\nhttp:\n");
    let config = load(Some(&path), [], &[]).unwrap();
    assert_eq!(
        (config.kafka.brokers.as_str(), config.runtime.workers),
        ("a:1", 3)
    );

    let environment = [
        variable("KAFKA_BROKERS", "b:2,c:3"),
        variable("PARTITA_RUNTIME__WORKERS", "4"),
        variable("PARTITA_TOPICS__PARTITIONS", "12"),
        variable("PARTITA_AGENTS__ECHO__ENABLED", "false"),
        variable("PARTITA_AGENTS__HTTP__ALLOW", "a.example, *.b.example"),
        variable("PARTITA_RUNTIME__RETENTION", "12h"),
        variable("PARTITA_KAFKA__SECURITY__PASSWORD", "12345"),
        variable("PARTITA_PORT", "tcp://10.0.0.1:80"),
    ];
    let config = load(Some(&path), environment.clone(), &[]).unwrap();
    assert_eq!(
        (config.kafka.brokers.as_str(), config.runtime.workers),
        ("b:2,c:3", 4)
    );
    assert_eq!(config.topics.partitions, Some(12));
    assert_eq!(config.runtime.retention, Span::seconds(43_200));
    assert!(!config.agents.echo.enabled);
    assert_eq!(config.agents.http.allow, ["a.example", "*.b.example"]);
    assert_eq!(config.kafka.security.password, Some(Secret::new("12345")));
    assert!(!format!("{config:?}").contains("12345"));

    let flags = [Override::new("kafka.brokers", "--kafka", "d:4")];
    assert_eq!(
        load(Some(&path), environment, &flags)
            .unwrap()
            .kafka
            .brokers,
        "d:4"
    );
}

#[test]
fn a_key_that_is_null_is_not_set() {
    let text = "kafka: {brokers: null, properties: {debug: null, linger.ms: '5'}}\nruntime: {workers: ~}\nhttp:\ntopics: {file: null}\n";
    let config = load_text(text).unwrap();
    let mut expected = Config::default();
    let properties = &mut expected.kafka.properties;
    properties.insert("linger.ms".to_owned(), "5".to_owned());
    assert_eq!(config, expected);
    let variables = [variable("PARTITA_RUNTIME__WORKERS", "4")];
    let (_folder, path) = file_of(text);
    assert_eq!(
        load(Some(&path), variables, &[]).unwrap().runtime.workers,
        4
    );
    assert_eq!(
        faults_of("kafka: {broker: null}\n"),
        ["partita.yaml:1:9: unknown key `kafka.broker`; did you mean `brokers`?"]
    );
}

#[test]
fn unknown_keys_are_named_with_their_place_and_the_nearest_key() {
    assert_eq!(
        faults_of("kafka:\n  brokers: a:1\n  client: x\nruntime:\n  batch_record: 5\nzzz: 1\n"),
        [
            "partita.yaml:3:3: unknown key `kafka.client`; did you mean `client_id`?",
            "partita.yaml:5:3: unknown key `runtime.batch_record`; did you mean `batch_records`?",
            "partita.yaml:6:1: unknown key `zzz`; known here: agents, client, events, http, kafka, rules, runtime, schema_registry, store, telemetry, topics",
        ]
    );
    let error = load(None, [variable("PARTITA_RUNTIME__WORKER", "2")], &[]).unwrap_err();
    assert_eq!(
        error.to_string(),
        "environment variable PARTITA_RUNTIME__WORKER: unknown key `runtime.worker`; did you mean `workers`?"
    );
}

#[test]
fn wrong_types_and_values_out_of_bounds_say_where() {
    let faults = faults_of("runtime:\n  workers: many\n");
    assert_eq!(faults.len(), 1, "{faults:?}");
    assert!(
        faults[0] == "partita.yaml:2:3: `runtime.workers` is `many`; write a whole number",
        "{faults:?}"
    );
    for (text, expected) in [
        (
            "http:\n  idle_timeout: 5\n",
            "partita.yaml:2:3: `http.idle_timeout` is 5; write a span of time, such as 500ms, 30s, 5m, 2h or 7d",
        ),
        (
            "kafka:\n  security: {tls: [1]}\n",
            "partita.yaml:2:14: `kafka.security.tls` is a list; write true or false",
        ),
        (
            "kafka: [",
            "partita.yaml:1:8: not readable as YAML: unclosed bracket '['",
        ),
    ] {
        assert_eq!(faults_of(text), [expected]);
    }

    assert_eq!(
        faults_of("runtime:\n  workers: 0\n"),
        ["partita.yaml:2:3: `runtime.workers` is 0; allowed: 1 to 64"]
    );
    assert_eq!(
        faults_of("runtime:\n  session_timeout: 1s\nhttp:\n  listen: localhost\n"),
        [
            "partita.yaml:2:3: `runtime.session_timeout` is 1s; allowed: 6s to 5m",
            "partita.yaml:4:3: `http.listen` is `localhost`; write IP:PORT, such as 0.0.0.0:8080",
        ]
    );
    let error = load(None, [variable("KAFKA_BROKERS", "nowhere")], &[]).unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("environment variable KAFKA_BROKERS: `kafka.brokers` holds `nowhere`"),
        "{error}"
    );
}

#[test]
fn what_is_not_yaml_is_told_with_its_place() {
    let faults = faults_of("kafka:\n  brokers: [a\n");
    assert_eq!(faults.len(), 1);
    assert!(faults[0].starts_with("partita.yaml:"), "{faults:?}");
    let error = load(Some("/no/such/file.yaml".as_ref()), [], &[]).unwrap_err();
    assert!(
        error.to_string().contains("there is no such file"),
        "{error}"
    );
}

#[test]
fn security_settings_must_be_whole() {
    let faults =
        faults_of("kafka:\n  security:\n    sasl_mechanism: scram-sha-256\n    key_file: k.pem\n");
    assert_eq!(faults.len(), 2, "{faults:?}");
    assert!(
        load_text("kafka: {security: {sasl_mechanism: plain, username: u, password: p}}").is_ok()
    );
}
