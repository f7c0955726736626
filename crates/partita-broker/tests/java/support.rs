//! A broker of its own for each test, and the tools by their short names.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use kafka_harness::{ToolOutput, free_port, tool_with_input};
use rdkafka::ClientConfig;
use rdkafka::producer::{BaseRecord, Producer, ThreadedProducer};
use tempfile::TempDir;

/// How long anything may take on a busy machine before a test gives up.
pub const PATIENCE: Duration = Duration::from_secs(240);

/// Whether the Java clients can be had; if not, says what is not tested.
pub fn has_java(what_is_tested: &str) -> bool {
    match kafka_harness::jars() {
        Ok(_) => true,
        Err(missing) => {
            kafka_harness::missing(what_is_tested, &missing);
            false
        }
    }
}

/// The broker as a process, with its data in a temporary folder.
pub struct Broker {
    process: Child,
    address: String,
    folder: TempDir,
}

impl Broker {
    pub fn start() -> Broker {
        let folder = tempfile::tempdir().expect("a temporary folder");
        // Not one that the kernel gives to others while the broker is away.
        let listen = format!("127.0.0.1:{}", free_port());
        let (process, address) = launch(&folder, &listen);
        Broker {
            process,
            address,
            folder,
        }
    }

    pub fn address(&self) -> &str {
        &self.address
    }

    /// A folder beside the data, for what the test itself keeps.
    pub fn folder(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Kills the broker as `kill -9` does and starts it on the same data and port.
    pub fn kill_and_restart(&mut self) {
        self.kill();
        let address = self.address.clone();
        (self.process, self.address) = launch(&self.folder, &address);
    }

    /// Runs one of Kafka's tools against this broker.
    pub fn run(&self, tool: Tool, arguments: &[&str]) -> ToolOutput {
        self.run_with_input(tool, arguments, "")
    }

    pub fn run_with_input(&self, tool: Tool, arguments: &[&str], input: &str) -> ToolOutput {
        let mut all = vec!["--bootstrap-server", self.address()];
        // The cluster tool wants its verb first.
        let verbs = usize::from(tool == Tool::Cluster);
        all.splice(0..0, arguments[..verbs].iter().copied());
        all.extend(&arguments[verbs..]);
        tool_with_input(tool.class(), &all, input)
    }

    /// The output of a tool that must do what it is asked.
    #[track_caller]
    pub fn ask(&self, tool: Tool, arguments: &[&str]) -> String {
        self.run(tool, arguments).expect_success()
    }

    pub fn client(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", self.address());
        config
    }

    /// Produces to `topic` and waits until all is acknowledged.
    pub fn produce(&self, topic: &str, records: impl IntoIterator<Item = (String, String)>) {
        let producer: ThreadedProducer<_> = self
            .client()
            .set("enable.idempotence", "true")
            .create()
            .expect("a producer");
        for (key, value) in records {
            let record = BaseRecord::to(topic).key(&key).payload(&value);
            producer
                .send(record)
                .map_err(|(error, _)| error)
                .expect("room in the queue");
        }
        producer.flush(PATIENCE).expect("all is acknowledged");
    }

    fn kill(&mut self) {
        // It may have ended on its own; the test shows that elsewhere.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking()
            && let Ok(log) = std::fs::read_to_string(self.folder("broker.log"))
        {
            eprintln!("the broker's log:\n{log}");
        }
    }
}

fn launch(folder: &TempDir, listen: &str) -> (Child, String) {
    let log = File::options()
        .create(true)
        .append(true)
        .open(folder.path().join("broker.log"))
        .expect("the broker's log can be written");
    let mut command = Command::new(env!("CARGO_BIN_EXE_partita-broker"));
    command
        .args(["--listen", listen, "--data"])
        .arg(folder.path().join("data"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log);
    let mut process = kafka_harness::spawn_bound(command).expect("the broker starts");
    let stdout = process.stdout.take().expect("its output is piped");
    let mut address = String::new();
    BufReader::new(stdout)
        .read_line(&mut address)
        .expect("the broker prints its address");
    assert!(!address.is_empty(), "the broker did not start");
    (process, address.trim().to_owned())
}

/// Kafka's tools.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tool {
    ApiVersions,
    Cluster,
    Configs,
    ConsoleConsumer,
    ConsoleProducer,
    ConsumerGroups,
    ConsumerPerformance,
    DeleteRecords,
    GetOffsets,
    Groups,
    LogDirs,
    ProducerPerformance,
    Topics,
    Transactions,
}

impl Tool {
    fn class(self) -> &'static str {
        match self {
            Tool::ApiVersions => "org.apache.kafka.tools.BrokerApiVersionsCommand",
            Tool::Cluster => "org.apache.kafka.tools.ClusterTool",
            Tool::Configs => "kafka.admin.ConfigCommand",
            Tool::ConsoleConsumer => "org.apache.kafka.tools.consumer.ConsoleConsumer",
            Tool::ConsoleProducer => "org.apache.kafka.tools.ConsoleProducer",
            Tool::ConsumerGroups => "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand",
            Tool::ConsumerPerformance => "org.apache.kafka.tools.ConsumerPerformance",
            Tool::DeleteRecords => "org.apache.kafka.tools.DeleteRecordsCommand",
            Tool::GetOffsets => "org.apache.kafka.tools.GetOffsetShell",
            Tool::Groups => "org.apache.kafka.tools.GroupsCommand",
            Tool::LogDirs => "org.apache.kafka.tools.LogDirsCommand",
            Tool::ProducerPerformance => "org.apache.kafka.tools.ProducerPerformance",
            Tool::Topics => "org.apache.kafka.tools.TopicCommand",
            Tool::Transactions => "org.apache.kafka.tools.TransactionsCommand",
        }
    }
}

/// Looks again and again until `done` says yes.
#[track_caller]
pub fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < PATIENCE, "{what}: not after {PATIENCE:?}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Fails with the whole text unless each of `parts` is in it.
#[track_caller]
pub fn assert_has(text: &str, parts: &[&str]) {
    for part in parts {
        assert!(text.contains(part), "no '{part}' in:\n{text}");
    }
}

/// Fails unless the tool refused, and said why in these words.
#[track_caller]
pub fn assert_refused(output: &ToolOutput, parts: &[&str]) {
    assert_has(&format!("{}\n{}", output.stdout, output.stderr), parts);
}

/// Lines as columns of words.
pub fn table(text: &str) -> Vec<Vec<&str>> {
    let lines = text.lines().map(|line| line.split_whitespace().collect());
    lines
        .filter(|words: &Vec<&str>| !words.is_empty())
        .collect()
}
