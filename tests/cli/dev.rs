//! A whole life against `partita dev`: ports, definitions, runs, history, shutdown.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use partita::telemetry::names::{Kind, METRICS};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use serde_json::{Value, json};

use crate::{Ended, folder, partita, run};

const WORKFLOW: &str = "kind: workflow\nname: hello\nsteps:\n\
  - {id: a, agent: echo, inputs: {value: \"${input.value}\"}}\n\
  - {id: b, agent: echo, depends_on: [a], inputs: {value: \"${steps.a.output.value}\"}}\n\
output: {value: \"${steps.b.output.value}\"}\n";
const FAILING: &str = "kind: workflow\nname: failing\nsteps:\n\
  - {id: a, agent: echo, task: {fail: {class: critical_error, message: no, retryable: false}}}\n";
/// A workflow whose agent does not exist: its runs wait.
const WAITING: &str = "kind: workflow\nname: waiting\nsteps:\n  - {id: a, agent: nobody}\n";
const READY_WITHIN: Duration = Duration::from_secs(180);
const STOPPED_WITHIN: Duration = Duration::from_secs(120);

pub struct Dev {
    child: Child,
    pub api: String,
    pub kafka: String,
}

impl Dev {
    fn start(arguments: &[&str]) -> Self {
        Self::start_with(arguments, &[])
    }

    /// With these variables in its environment.
    pub fn start_with(arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        let mut all = vec!["dev", "--kafka-port", "0", "--http-port", "0", "-o", "json"];
        all.extend(arguments);
        let mut child = partita(&all)
            .envs(variables.iter().copied())
            .stdout(Stdio::piped())
            .spawn()
            .expect("dev starts");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("piped"))
            .read_line(&mut line)
            .expect("a first line");
        let ports: Value =
            serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"));
        let text = |member: &str| ports[member].as_str().expect("a port").to_owned();
        let dev = Self {
            child,
            api: text("api"),
            kafka: text("kafka"),
        };
        let deadline = Instant::now() + READY_WITHIN;
        while !exchange(&dev.api, "/readyz").is_some_and(|(head, _)| is_ok(&head)) {
            assert!(Instant::now() < deadline, "dev did not become ready");
            std::thread::sleep(Duration::from_millis(100));
        }
        dev
    }

    pub fn run(&self, arguments: &[&str]) -> Ended {
        let mut all = vec!["--api", self.api.as_str(), "--kafka", self.kafka.as_str()];
        all.extend(arguments);
        run(&all)
    }

    /// Ctrl-C, and the exit code that follows.
    pub fn interrupt(mut self) -> Option<i32> {
        let id = libc::pid_t::try_from(self.child.id()).expect("a process id");
        // SAFETY: the child has not been waited for, so its id is still its own.
        unsafe { libc::kill(id, libc::SIGINT) };
        let deadline = Instant::now() + STOPPED_WITHIN;
        loop {
            if let Some(status) = self.child.try_wait().expect("the child can be asked") {
                return status.code();
            }
            assert!(Instant::now() < deadline, "dev did not stop");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

/// The body of a GET that is answered.
pub fn get(api: &str, path: &str) -> String {
    let (head, body) = exchange(api, path).expect("an answer");
    assert!(is_ok(&head), "{head}");
    body
}

fn is_ok(head: &str) -> bool {
    head.starts_with("HTTP/1.1 200 ")
}

/// Head and body of the answer to a GET, asked for as plainly as can be; none where nobody answers.
fn exchange(api: &str, path: &str) -> Option<(String, String)> {
    let address = api.trim_start_matches("http://");
    let mut stream = TcpStream::connect(address).ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    Some((head.to_owned(), body.to_owned()))
}

impl Drop for Dev {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn definitions_runs_and_history_from_the_command_line() {
    let files = folder(&[
        ("hello.yaml", WORKFLOW),
        ("failing.yaml", FAILING),
        ("waiting.yaml", WAITING),
    ]);
    let path = files.path().to_str().unwrap();
    let dev = Dev::start(&["--memory"]);

    // Definitions: dry run, created, unchanged, conflict.
    assert!(
        dev.run(&["apply", path, "--dry-run"])
            .code(0)
            .stdout
            .contains("workflow hello@1: created (dry run)")
    );
    dev.run(&["get", "workflow", "hello"]).code(4);
    assert!(
        dev.run(&["apply", path])
            .code(0)
            .stdout
            .contains("workflow hello@1: created")
    );
    assert!(
        dev.run(&["apply", path])
            .code(0)
            .stdout
            .contains("workflow hello@1: unchanged")
    );
    std::fs::write(
        files.path().join("hello.yaml"),
        WORKFLOW
            .replace("id: b", "id: c")
            .replace("steps.b", "steps.c"),
    )
    .unwrap();
    dev.run(&["apply", path]).code(4);
    assert!(
        dev.run(&["get", "workflows"])
            .code(0)
            .stdout
            .contains("hello")
    );
    assert!(
        dev.run(&["get", "workflow", "hello@1"])
            .code(0)
            .stdout
            .contains("name: hello")
    );

    // A run to its end; the same start again is the same run, another one is a conflict.
    let start = [
        "run",
        "hello",
        "--id",
        "one",
        "--input",
        r#"{"value": 7}"#,
        "--tag",
        "k=v",
        "--wait",
        "60s",
        "--json",
    ];
    let told = dev.run(&start).code(0).json();
    assert_eq!(
        (&told["status"], &told["output"]["value"]),
        (&"completed".into(), &7.into())
    );
    dev.run(&start).code(0);
    dev.run(&["run", "hello", "--id", "one", "--input", "{}"])
        .code(4);
    dev.run(&["run", "unknown"]).code(4);
    let shown = dev.run(&["status", "one"]).code(0).stdout;
    assert!(shown.contains("status    completed"), "{shown}");
    let listed = dev
        .run(&["list", "--workflow", "hello", "--tag", "k=v", "--json"])
        .code(0)
        .json();
    assert_eq!(listed["runs"].as_array().unwrap().len(), 1);

    // History, as a table, as a document, followed.
    let shown = dev.run(&["history", "one"]).code(0).stdout;
    assert!(
        shown.contains("run.started") && shown.contains("run.completed"),
        "{shown}"
    );
    let told = dev.run(&["history", "one", "--json"]).code(0).json();
    let sequences: Vec<_> = told["events"]
        .as_array()
        .unwrap()
        .iter()
        .map(|event| event["sequence"].as_str().unwrap().parse::<u64>().unwrap())
        .collect();
    assert_eq!(sequences, (1..=sequences.len() as u64).collect::<Vec<_>>());
    let followed = dev
        .run(&["history", "one", "--follow", "--json"])
        .code(0)
        .stdout;
    assert_eq!(followed.lines().count(), sequences.len());

    // A run that fails.
    let ended = dev.run(&["run", "failing", "--watch"]).code(1);
    assert!(ended.stderr.contains("critical_error"), "{}", ended.stderr);

    // Steering.
    dev.run(&["run", "waiting", "--id", "two"]).code(0);
    for (verb, status) in [
        ("pause", "paused"),
        ("resume", "running"),
        ("cancel", "cancelled"),
    ] {
        let shown = dev.run(&[verb, "two", "--reason", "a test"]).code(0).stdout;
        assert_eq!(shown, format!("two  {status}\n"));
    }
    dev.run(&["resume", "two"]).code(4);
    dev.run(&["pause", "nobody"]).code(4);

    // What is measured is what is declared, label by label.
    let metrics = get(&dev.api, "/metrics");
    let mut seen = 0;
    for line in metrics
        .lines()
        .filter(|line| line.contains(' ') && !line.starts_with('#'))
    {
        let (series, _) = line.rsplit_once(' ').expect("a series and its value");
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        let metric = METRICS
            .iter()
            .find(|metric| match metric.kind {
                Kind::Histogram(_) => ["_bucket", "_sum", "_count"]
                    .iter()
                    .any(|end| name.strip_suffix(end) == Some(metric.name)),
                Kind::Counter | Kind::Gauge => metric.name == name,
            })
            .unwrap_or_else(|| panic!("{name} is declared nowhere"));
        let labels: Vec<&str> = labels
            .trim_end_matches('}')
            .split("\",")
            .filter_map(|label| label.split_once('='))
            .map(|(label, _)| label)
            .filter(|label| *label != "le")
            .collect();
        assert_eq!(labels, metric.labels, "{series}");
        seen += 1;
    }
    assert!(seen > 50, "{metrics}");

    // The installation is whole, and nothing of it is in the way of leaving.
    dev.run(&["topics", "check"]).code(0);
    assert!(
        dev.run(&["topics", "list", "--json"]).code(0).json()["topics"]
            .as_array()
            .unwrap()
            .len()
            > 7
    );
    dev.run(&["doctor"]).code(0);
    dev.run(&["delete", "workflow", "failing@1"]).code(0);
    dev.run(&["get", "workflow", "failing@1"]).code(4);
    assert_eq!(dev.interrupt(), Some(130));
}

#[test]
fn load_applies_and_applies_again_on_change() {
    let files = folder(&[("hello.yaml", WORKFLOW)]);
    let dev = Dev::start(&["--memory", "--load", files.path().to_str().unwrap()]);
    let appears = |name: &str| {
        let deadline = Instant::now() + READY_WITHIN;
        while dev.run(&["get", "workflow", name]).code != 0 {
            assert!(Instant::now() < deadline, "{name} was not loaded");
            std::thread::sleep(Duration::from_millis(100));
        }
    };
    appears("hello@1");
    std::fs::write(
        files.path().join("hello.yaml"),
        WORKFLOW.replace("name: hello", "name: hello\nversion: 2"),
    )
    .unwrap();
    appears("hello@2");
}

#[test]
fn a_path_that_is_not_there_is_told() {
    let mut child = partita(&[
        "dev",
        "--memory",
        "--kafka-port",
        "0",
        "--http-port",
        "0",
        "--load",
        "/no/such/folder",
    ])
    .stdout(Stdio::null())
    .stderr(Stdio::piped())
    .spawn()
    .expect("dev starts");
    let lines = BufReader::new(child.stderr.take().expect("piped")).lines();
    // The log ends with the process, which a hang would not: the runner's own limit ends that.
    let told = lines
        .map_while(Result::ok)
        .find(|line| line.contains("/no/such/folder"));
    let _ = child.kill();
    let _ = child.wait();
    let told = told.expect("dev names the path");
    assert!(told.contains("there is no such file or folder"), "{told}");
}

#[test]
fn a_folder_keeps_everything_between_two_lives() {
    let files = folder(&[("hello.yaml", WORKFLOW)]);
    let data = folder(&[]);
    let folder = data.path().to_str().unwrap();
    let dev = Dev::start(&["--data", folder]);
    dev.run(&["apply", files.path().to_str().unwrap()]).code(0);
    dev.run(&[
        "run",
        "hello",
        "--id",
        "kept",
        "--input",
        r#"{"value": 1}"#,
        "--wait",
        "60s",
    ])
    .code(0);
    assert_eq!(dev.interrupt(), Some(130));

    let dev = Dev::start(&["--data", folder]);
    let deadline = Instant::now() + READY_WITHIN;
    while dev.run(&["status", "kept"]).code != 0 {
        assert!(Instant::now() < deadline, "the run was not restored");
        std::thread::sleep(Duration::from_millis(100));
    }
    dev.run(&[
        "run",
        "hello",
        "--id",
        "new",
        "--input",
        r#"{"value": 2}"#,
        "--wait",
        "60s",
    ])
    .code(0);
}

const LOUD: &str = "kind: rule\nname: loud\ncorrelate: {by: [at]}\nmatch: {any: [{id: a, topic: alarms, where: \"event.level > 3\"}]}\n";

/// A topic of two partitions at the broker.
fn create_topic(brokers: &str, topic: &str) {
    let admin: AdminClient<DefaultClientContext> = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .create()
        .expect("an admin client");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let topic = NewTopic::new(topic, 2, TopicReplication::Fixed(1));
    let created = runtime.block_on(admin.create_topics([&topic], &AdminOptions::new()));
    created.expect("an answer").remove(0).expect("a topic");
}

fn produce(producer: &BaseProducer, partition: i32, value: &str) {
    let record: BaseRecord<'_, (), str> = BaseRecord::to("alarms").partition(partition);
    assert!(
        producer.send(record.payload(value)).is_ok(),
        "there is room"
    );
    producer.flush(READY_WITHIN).expect("deliveries");
}

#[test]
fn rules_are_tried_over_their_topics_and_counted_while_they_are_in_force() {
    let dev = Dev::start(&["--memory"]);
    let folder = folder(&[
        ("loud.yaml", LOUD),
        ("louder.yaml", &LOUD.replace("> 3", "> 8")),
        ("lost.yaml", &LOUD.replace("alarms", "nowhere")),
    ]);
    let path = |name: &str| folder.path().join(name).display().to_string();
    create_topic(&dev.kafka, "alarms");
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", &dev.kafka)
        .create()
        .expect("a producer");
    for (partition, value) in [
        (0, "{\"at\":\"x\",\"level\":2}"),
        (1, "{\"at\":\"y\",\"level\":5}"),
        (1, "no event"),
        (1, "{\"at\":\"z\",\"level\":9}"),
    ] {
        produce(&producer, partition, value);
    }
    dev.run(&["apply", &path("loud.yaml")]).code(0);

    let backtest = ["rules", "backtest", "loud", "--from", "-1h", "--json"];
    let louder = path("louder.yaml");
    let found = dev.run(&[&backtest[..], &["--against", &louder]].concat());
    let found = found.code(0).json();
    let places: Vec<&Value> = found["matches"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|found| &found["events"]["a"])
        .collect();
    assert_eq!(places, [&json!(["alarms/1/0"]), &json!(["alarms/1/2"])]);
    assert_eq!(found["diff"]["unchanged"], 1, "{found}");
    assert_eq!(found["diff"]["added"][0]["key"], json!({"at": "y"}));
    assert_eq!(
        (&found["records"], &found["unreadable"]["count"]),
        (&json!(4), &json!(1))
    );
    assert_eq!(found["unreadable"]["first"][0]["record"], "alarms/1/1");
    let ranges = json!([
        {"topic": "alarms", "partition": 0, "from": 0, "end": 1},
        {"topic": "alarms", "partition": 1, "from": 0, "end": 3},
    ]);
    assert_eq!(found["ranges"], ranges);

    let table = dev.run(&[
        "rules",
        "backtest",
        &path("loud.yaml"),
        "--from",
        "earliest",
    ]);
    let table = table.code(0);
    assert!(
        table.stdout.contains("[\"alarms/1/2\"]"),
        "{}",
        table.stdout
    );
    assert!(
        table.stderr.contains("2 matches, 0 late events")
            && table
                .stderr
                .contains("4 records in 2 partitions, 1 unreadable")
            && table.stderr.contains("alarms/1/1: malformed: "),
        "{}",
        table.stderr
    );
    let unknown = dev
        .run(&["rules", "backtest", "quiet", "--from", "-1h"])
        .code(4);
    assert!(
        unknown.stderr.contains("no rule `quiet`"),
        "{}",
        unknown.stderr
    );
    let unknown = dev
        .run(&["rules", "backtest", "loud@7", "--from", "-1h"])
        .code(4);
    assert!(unknown.stderr.contains("loud@7"), "{}", unknown.stderr);
    let lost = dev.run(&["rules", "backtest", &path("lost.yaml"), "--from", "-1h"]);
    let lost = lost.code(4);
    assert!(
        lost.stderr.contains("no topic `nowhere`"),
        "{}",
        lost.stderr
    );
    let turned = ["rules", "backtest", "loud", "--from", "-1h", "--to", "-2h"];
    dev.run(&turned).code(2);

    // What comes before the instance reads the topic is none of the rule's business.
    let deadline = Instant::now() + READY_WITHIN;
    let stats = loop {
        produce(&producer, 0, "{\"at\":\"x\",\"level\":7}");
        let found = dev
            .run(&["rules", "stats", "loud", "--json"])
            .code(0)
            .json();
        if found["rules"][0]["matches"].as_u64() > Some(0) {
            break found;
        }
        assert!(Instant::now() < deadline, "nothing is counted: {found}");
        std::thread::sleep(Duration::from_millis(100));
    };
    let rule = &stats["rules"][0];
    assert_eq!(
        (&rule["rule"], &rule["version"], &rule["state"]),
        (&json!("loud"), &json!(1), &json!("live"))
    );
    // An event waits until time has come to it.
    assert!(
        rule["events"].as_u64() >= rule["matches"].as_u64(),
        "{stats}"
    );
    assert_eq!(rule["acted"], 0, "it starts nothing");
    assert!(rule["last_match_at"].is_string(), "{stats}");
    assert_eq!(stats["instances"].as_array().map(Vec::len), Some(1));
    let table = dev.run(&["rules", "stats"]).code(0);
    assert!(
        table.stdout.contains("loud@1  live") && table.stderr.contains("counted by instance"),
        "{}{}",
        table.stdout,
        table.stderr
    );
    let unknown = dev.run(&["rules", "stats", "quiet"]).code(4);
    assert!(
        unknown.stderr.contains("no rule `quiet`"),
        "{}",
        unknown.stderr
    );
    assert_eq!(dev.interrupt(), Some(130));
}
