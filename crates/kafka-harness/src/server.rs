//! One node of Apache Kafka in KRaft mode, broker and controller in one process.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::jars::{Missing, jars};
use crate::process::{signal, spawn_bound};
use crate::secured::Secured;
use crate::tools::{self, java, log_configuration, wait_at_most};

/// How long a node may take to answer. Two seconds on an idle machine; test machines are not.
const START_LIMIT: Duration = Duration::from_secs(180);
/// How long a node may take to shut down before it is killed.
const STOP_LIMIT: Duration = Duration::from_secs(30);
const LAST_LOG_LINES: usize = 30;

/// Several nodes beside one another on a small machine.
const SMALL_HEAP: &[&str] = &[
    "-Xms256m",
    "-Xmx512m",
    "-XX:+UseG1GC",
    "-XX:MaxGCPauseMillis=20",
];
/// What Kafka's own start scripts give a broker.
const AS_SHIPPED: &[&str] = &[
    "-Xms1G",
    "-Xmx1G",
    "-server",
    "-XX:+UseG1GC",
    "-XX:MaxGCPauseMillis=20",
    "-XX:InitiatingHeapOccupancyPercent=35",
    "-XX:+ExplicitGCInvokesConcurrent",
    "-Djava.awt.headless=true",
];

/// A running node. Its data lives in a temporary folder that goes away with it.
pub struct Kafka {
    folder: TempDir,
    ports: Ports,
    /// Options of its Java machine.
    java: &'static [&'static str],
    process: Option<Child>,
}

#[derive(Clone, Copy)]
struct Ports {
    broker: u16,
    controller: u16,
}

impl Kafka {
    /// The folder with Kafka's jars; see [`jars`](crate::jars()).
    ///
    /// # Errors
    /// [`Missing`] where they cannot be had.
    pub fn jars() -> Result<PathBuf, Missing> {
        jars()
    }

    /// Starts a node and waits until it answers.
    ///
    /// # Errors
    /// [`Missing`] where this machine has no Kafka to start.
    ///
    /// # Panics
    /// With the end of Kafka's log, when it is there and does not start.
    pub fn start() -> Result<Kafka, Missing> {
        Kafka::start_with(&[])
    }

    /// As [`Kafka::start`], with broker properties added or replaced.
    ///
    /// # Errors
    /// As [`Kafka::start`].
    ///
    /// # Panics
    /// As [`Kafka::start`].
    pub fn start_with(properties: &[(&str, &str)]) -> Result<Kafka, Missing> {
        let mut kafka = Kafka::prepare()?;
        kafka.write_properties(properties);
        kafka.format(&[]);
        kafka.launch();
        Ok(kafka)
    }

    /// As [`Kafka::start_or_skip`], with a second listener that asks for TLS and a password.
    ///
    /// # Panics
    /// As [`Kafka::start_or_skip`], and where `keytool`, a part of every JDK, does not work.
    pub fn start_secured_or_skip(what_it_would_have_tested: &str) -> Option<(Kafka, Secured)> {
        let mut kafka = match Kafka::prepare() {
            Ok(kafka) => kafka,
            Err(why) => {
                crate::missing(what_it_would_have_tested, &why);
                return None;
            }
        };
        let secured = Secured::new(kafka.folder.path(), free_port());
        let mut properties = secured.properties();
        let secure = format!(",SECURE://127.0.0.1:{}", secured.port());
        for key in ["listeners", "advertised.listeners"] {
            properties.push((
                key.to_owned(),
                kafka.default_properties()[key].clone() + &secure,
            ));
        }
        let properties: Vec<(&str, &str)> = properties
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str()))
            .collect();
        kafka.write_properties(&properties);
        kafka.format(&["--add-scram", &Secured::scram_user()]);
        kafka.launch();
        Some((kafka, secured))
    }

    /// As [`Kafka::start`], with the heap and the options for Java that Kafka's own start scripts
    /// give a broker: for measurements. Tests run several nodes, with a smaller heap.
    ///
    /// # Errors
    /// As [`Kafka::start`].
    ///
    /// # Panics
    /// As [`Kafka::start`].
    pub fn start_as_shipped() -> Result<Kafka, Missing> {
        let mut kafka = Kafka::prepare()?;
        kafka.java = AS_SHIPPED;
        kafka.write_properties(&[]);
        kafka.format(&[]);
        kafka.launch();
        Ok(kafka)
    }

    fn prepare() -> Result<Kafka, Missing> {
        jars()?;
        let folder = tempfile::Builder::new()
            .prefix("kafka-")
            .tempdir()
            .expect("a temporary folder");
        Ok(Kafka {
            folder,
            ports: Ports::free(),
            java: SMALL_HEAP,
            process: None,
        })
    }

    /// As [`Kafka::start`]; where there is no Kafka, says so ([`missing`](crate::missing)) and
    /// yields none.
    ///
    /// # Panics
    /// As [`Kafka::start`], and where Kafka is missing while `CI` is set.
    pub fn start_or_skip(what_it_would_have_tested: &str) -> Option<Kafka> {
        match Kafka::start() {
            Ok(kafka) => Some(kafka),
            Err(why) => {
                crate::missing(what_it_would_have_tested, &why);
                None
            }
        }
    }

    /// What clients connect to, `127.0.0.1:PORT`; the same over restarts.
    pub fn bootstrap(&self) -> String {
        format!("127.0.0.1:{}", self.ports.broker)
    }

    /// The process id while the node runs.
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Child::id)
    }

    /// The file that collects what the node says, over all restarts.
    pub fn log(&self) -> PathBuf {
        self.folder.path().join("kafka.log")
    }

    /// Shuts the node down in good order (`SIGTERM`); it is killed after 30 s.
    pub fn stop(&mut self) {
        if let Some(mut process) = self.process.take() {
            signal(&process, libc::SIGTERM);
            wait_at_most(&mut process, STOP_LIMIT);
        }
    }

    /// Kills the node where it stands (`SIGKILL`).
    pub fn kill9(&mut self) {
        if let Some(mut process) = self.process.take() {
            signal(&process, libc::SIGKILL);
            process.wait().expect("a child of ours can be waited for");
        }
    }

    /// Starts the node again on the same ports with the same data, and waits until it answers;
    /// a node that runs is stopped first.
    ///
    /// # Panics
    /// When it does not come back.
    pub fn restart(&mut self) {
        self.stop();
        self.launch();
    }

    /// Runs one of Kafka's tools; see [`tool`](crate::tool).
    #[track_caller]
    pub fn tool(main_class: &str, arguments: &[&str]) -> tools::ToolOutput {
        tools::tool(main_class, arguments)
    }

    fn properties_file(&self) -> PathBuf {
        self.folder.path().join("server.properties")
    }

    fn write_properties(&self, overrides: &[(&str, &str)]) {
        let mut properties = self.default_properties();
        for (key, value) in overrides {
            properties.insert((*key).to_owned(), (*value).to_owned());
        }
        let text: String = properties
            .iter()
            .map(|(key, value)| format!("{key}={value}\n"))
            .collect();
        fs::write(self.properties_file(), text).expect("the temporary folder can be written");
    }

    fn default_properties(&self) -> BTreeMap<String, String> {
        let Ports { broker, controller } = self.ports;
        let addresses = [
            (
                "listeners",
                format!("PLAINTEXT://127.0.0.1:{broker},CONTROLLER://127.0.0.1:{controller}"),
            ),
            (
                "advertised.listeners",
                format!("PLAINTEXT://127.0.0.1:{broker}"),
            ),
            (
                "controller.quorum.bootstrap.servers",
                format!("127.0.0.1:{controller}"),
            ),
            (
                "log.dirs",
                self.folder.path().join("data").display().to_string(),
            ),
        ];
        let constants = [
            ("process.roles", "broker,controller"),
            ("node.id", "1"),
            ("controller.listener.names", "CONTROLLER"),
            // A single node holds every internal topic alone, and few partitions start fast.
            ("offsets.topic.replication.factor", "1"),
            ("offsets.topic.num.partitions", "4"),
            ("transaction.state.log.replication.factor", "1"),
            ("transaction.state.log.min.isr", "1"),
            ("transaction.state.log.num.partitions", "4"),
            ("share.coordinator.state.topic.replication.factor", "1"),
            ("share.coordinator.state.topic.min.isr", "1"),
            ("share.coordinator.state.topic.num.partitions", "1"),
            // The default waits three seconds for more members of a new group.
            ("group.initial.rebalance.delay.ms", "0"),
            // A topic nobody declared is a mistake that a test should see.
            ("auto.create.topics.enable", "false"),
            // The default takes a quarter of this small heap, and looks every 15 seconds.
            ("log.cleaner.dedupe.buffer.size", "16777216"),
            ("log.cleaner.backoff.ms", "1000"),
        ];
        addresses
            .into_iter()
            .chain(constants.map(|(key, value)| (key, value.to_owned())))
            .map(|(key, value)| (key.to_owned(), value))
            .collect()
    }

    fn format(&self, more: &[&str]) {
        let properties = self.properties_file();
        let properties = properties.to_string_lossy();
        // Any 16 bytes in URL-safe base64 name a cluster; one node needs no unique name.
        let mut arguments = vec![
            "format",
            "--standalone",
            "--cluster-id",
            "AAAAAAAAAAAAAAAAAAAAAQ",
            "--config",
            &properties,
        ];
        arguments.extend(more);
        tools::tool("kafka.tools.StorageTool", &arguments).expect_success();
    }

    fn launch(&mut self) {
        let mut command = java().expect("the jars were there when the node was made");
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.log())
            .expect("the temporary folder can be written");
        let already_said = log.metadata().expect("the log is a file").len();
        command
            .args(self.java)
            // The later of two settings of one property counts.
            .arg(format!(
                "-Dlog4j2.configurationFile={}",
                log_configuration("info", "stdout").display()
            ))
            .arg("kafka.Kafka")
            .arg(self.properties_file())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a file handle can be cloned"))
            .stderr(log);
        self.process = Some(spawn_bound(command).expect("java starts"));
        self.wait_until_it_answers(already_said);
    }

    fn wait_until_it_answers(&mut self, already_said: u64) {
        let start = Instant::now();
        let process = self.process.as_mut().expect("the node was just launched");
        loop {
            // The port opens before the broker is unfenced; only the log tells both.
            let said = tail(&self.folder.path().join("kafka.log"), already_said);
            if said.contains("Kafka Server started") && answers(self.ports.broker) {
                return;
            }
            let ended = process
                .try_wait()
                .expect("a child of ours can be waited for");
            if ended.is_some() || start.elapsed() > START_LIMIT {
                let why = ended.map_or("no answer in time".to_owned(), |status| status.to_string());
                panic!("Kafka did not start ({why}):\n{}", last_lines(&said));
            }
            thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Kafka {
    fn drop(&mut self) {
        if thread::panicking() && self.process.is_some() {
            eprintln!(
                "the end of Kafka's log:\n{}",
                last_lines(&tail(&self.log(), 0))
            );
        }
        // Its data goes with it, so an orderly shutdown would only cost time.
        self.kill9();
    }
}

impl Ports {
    fn free() -> Ports {
        Ports {
            broker: free_port(),
            controller: free_port(),
        }
    }
}

/// A port of the loopback that nothing listens on now.
///
/// It lies below the range from which the kernel takes ports of outgoing connections: while a
/// server is down its clients keep connecting, and one of them could otherwise be given the very
/// port, even connect to itself, and the restarted server would find it taken.
///
/// # Panics
/// When all of 12,000 ports are taken.
pub fn free_port() -> u16 {
    const FIRST: u16 = 20_000;
    const COUNT: u16 = 12_000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Several test processes look at the same time: each begins elsewhere.
    let begin = std::process::id().wrapping_mul(2_654_435_761) % u32::from(COUNT);
    for _ in 0..COUNT {
        let step = u32::from(NEXT.fetch_add(1, Ordering::Relaxed));
        let offset = u16::try_from((begin + step) % u32::from(COUNT)).expect("below COUNT");
        let port = FIRST + offset;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no free port between {FIRST} and {}", FIRST + COUNT);
}

/// Whether the broker answers an ApiVersions request (version 0, which every broker knows).
fn answers(port: u16) -> bool {
    const REQUEST: [u8; 14] = [0, 0, 0, 10, 0, 18, 0, 0, 0, 0, 0, 1, 0, 0];
    let limit = Some(Duration::from_secs(2));
    let exchange = || -> std::io::Result<[u8; 10]> {
        let mut stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_read_timeout(limit)?;
        stream.set_write_timeout(limit)?;
        stream.write_all(&REQUEST)?;
        let mut answer = [0; 10];
        stream.read_exact(&mut answer)?;
        Ok(answer)
    };
    // Length, correlation id, error code.
    exchange().is_ok_and(|answer| answer[4..8] == [0, 0, 0, 1] && answer[8..10] == [0, 0])
}

fn tail(path: &Path, from: u64) -> String {
    let mut bytes = Vec::new();
    // A log that cannot be read has nothing to tell yet.
    let _ = File::open(path).and_then(|mut file| {
        file.seek(SeekFrom::Start(from))?;
        file.read_to_end(&mut bytes)
    });
    String::from_utf8_lossy(&bytes).into_owned()
}

fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LAST_LOG_LINES)..].join("\n")
}
