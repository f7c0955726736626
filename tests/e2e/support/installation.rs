//! A broker, and instances of Partita on it, each a process of its own.

use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use kafka_harness::{EmbeddedBroker, Kafka, free_port, process::signal, spawn_bound};
use serde_json::Value;
use tempfile::TempDir;

use super::api::Api;

/// How long an instance may take until it is ready. Seconds, but test machines are busy.
const READY_LIMIT: Duration = Duration::from_secs(120);
const STOP_LIMIT: Duration = Duration::from_secs(60);
const LAST_LOG_LINES: usize = 40;

/// Where the records live.
enum Broker {
    Apache(Kafka),
    /// The first instance is `partita dev` and carries it.
    OfInstance,
    Alone(EmbeddedBroker),
}

/// Variables of the environment: configuration that a test wants different.
pub type Environment = &'static [(&'static str, &'static str)];

/// A broker and two instances. All of it goes away with the value.
pub struct Installation {
    pub bootstrap: String,
    pub instances: Vec<Instance>,
    broker: Broker,
    folder: TempDir,
}

/// One process of `partita serve` or `partita dev`, which keeps its ports and its data over kills.
pub struct Instance {
    pub name: String,
    pub api: Api,
    arguments: Vec<String>,
    environment: Environment,
    folder: PathBuf,
    process: Option<Child>,
}

impl Installation {
    /// Apache Kafka with two instances; none, and a loud word, where there is no Kafka.
    pub fn on_apache_kafka(
        what_it_would_have_tested: &str,
        environment: Environment,
    ) -> Option<Installation> {
        let kafka = Kafka::start_or_skip(what_it_would_have_tested)?;
        let bootstrap = kafka.bootstrap();
        let folder = TempDir::new().expect("a temporary folder");
        partita(&["topics", "create", "--kafka", &bootstrap]);
        let instances = ["a", "b"].map(|name| Instance::serve(name, &bootstrap, folder.path()));
        let mut installation =
            Installation::new(Broker::Apache(kafka), bootstrap, instances, folder);
        installation.launch(environment);
        Some(installation)
    }

    /// `partita dev`, and one more instance on the broker that it carries.
    pub fn on_embedded_broker(environment: Environment) -> Installation {
        let folder = TempDir::new().expect("a temporary folder");
        let port = free_port();
        let bootstrap = format!("127.0.0.1:{port}");
        let instances = [
            Instance::dev("a", port, folder.path()),
            Instance::serve("b", &bootstrap, folder.path()),
        ];
        let mut installation = Installation::new(Broker::OfInstance, bootstrap, instances, folder);
        installation.launch(environment);
        installation
    }

    /// Two instances, started while the embedded broker, a process of its own, is still away.
    pub fn without_its_broker(environment: Environment) -> Installation {
        let broker = EmbeddedBroker::away();
        let bootstrap = broker.bootstrap();
        let folder = TempDir::new().expect("a temporary folder");
        let instances = ["a", "b"].map(|name| Instance::serve(name, &bootstrap, folder.path()));
        let mut installation =
            Installation::new(Broker::Alone(broker), bootstrap, instances, folder);
        for instance in &mut installation.instances {
            instance.environment = environment;
            instance.start();
        }
        installation
    }

    /// Kills the broker, which must be a process of its own, with -9.
    pub fn kill_broker(&mut self) {
        match &mut self.broker {
            Broker::Apache(kafka) => kafka.kill9(),
            Broker::Alone(broker) => broker.kill9(),
            Broker::OfInstance => panic!("the broker of this installation is an instance's"),
        }
    }

    /// Starts the broker with what it knew before, and waits until it listens.
    pub fn restart_broker(&mut self) {
        match &mut self.broker {
            Broker::Apache(kafka) => kafka.restart(),
            Broker::Alone(broker) => broker.restart(),
            Broker::OfInstance => panic!("the broker of this installation is an instance's"),
        }
    }

    fn new(
        broker: Broker,
        bootstrap: String,
        instances: [Instance; 2],
        folder: TempDir,
    ) -> Installation {
        Installation {
            bootstrap,
            instances: instances.into(),
            broker,
            folder,
        }
    }

    fn launch(&mut self, environment: Environment) {
        for instance in &mut self.instances {
            instance.environment = environment;
            instance.start();
            instance.wait_until_ready();
        }
    }

    /// Applies definitions given as YAML.
    pub fn apply(&self, yaml: &str) {
        let file = self.folder.path().join("definitions.yaml");
        fs::write(&file, yaml).expect("the temporary folder can be written");
        let file = file.to_string_lossy();
        partita(&["apply", &file, "--api", &self.instances[0].api.url]);
    }

    /// A name for the output of tests.
    pub fn broker_name(&self) -> &'static str {
        match self.broker {
            Broker::Apache(_) => "Apache Kafka",
            Broker::OfInstance | Broker::Alone(_) => "the embedded broker",
        }
    }
}

impl Instance {
    fn serve(name: &str, bootstrap: &str, folder: &Path) -> Instance {
        let http = free_port();
        let listen = format!("127.0.0.1:{http}");
        Instance::new(name, http, folder, |data| {
            [
                "serve", "--kafka", bootstrap, "--http", &listen, "--data", data,
            ]
            .map(str::to_owned)
            .into()
        })
    }

    /// `serve` with a configuration file, on a broker that the file names.
    pub fn configured(
        name: &str,
        file: &Path,
        folder: &Path,
        environment: Environment,
    ) -> Instance {
        let http = free_port();
        let listen = format!("127.0.0.1:{http}");
        let file = file.to_string_lossy();
        let mut instance = Instance::new(name, http, folder, |data| {
            [
                "--config", &*file, "serve", "--http", &listen, "--data", data,
            ]
            .map(str::to_owned)
            .into()
        });
        instance.environment = environment;
        instance
    }

    fn dev(name: &str, kafka_port: u16, folder: &Path) -> Instance {
        let http = free_port();
        let (kafka_port, http_port) = (kafka_port.to_string(), http.to_string());
        Instance::new(name, http, folder, |data| {
            [
                "dev",
                "--kafka-port",
                &kafka_port,
                "--http-port",
                &http_port,
                "--data",
                data,
            ]
            .map(str::to_owned)
            .into()
        })
    }

    fn new(
        name: &str,
        http: u16,
        folder: &Path,
        arguments: impl FnOnce(&str) -> Vec<String>,
    ) -> Instance {
        let folder = folder.join(name);
        fs::create_dir_all(&folder).expect("the temporary folder can be written");
        let data = folder.join("data");
        Instance {
            name: name.to_owned(),
            api: Api::new(&format!("http://127.0.0.1:{http}")),
            arguments: arguments(&data.to_string_lossy()),
            environment: &[],
            folder,
            process: None,
        }
    }

    /// The folder with the instance's data; of `dev`, the broker's too.
    pub fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    pub fn start(&mut self) {
        assert!(
            self.process.is_none(),
            "instance {} runs already",
            self.name
        );
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.log())
            .expect("the temporary folder can be written");
        let mut command = command(&self.folder);
        command
            .args(&self.arguments)
            .envs(self.environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a file handle can be cloned"))
            .stderr(log);
        self.process = Some(spawn_bound(command).expect("partita starts"));
    }

    pub fn wait_until_ready(&mut self) {
        let began = Instant::now();
        while self
            .api
            .get("/readyz")
            .is_none_or(|answer| answer.status != 200)
        {
            let process = self.process.as_mut().expect("a started instance");
            if let Some(status) = process.try_wait().expect("a child can be waited for") {
                panic!(
                    "instance {} ended ({status}):\n{}",
                    self.name,
                    self.last_log_lines()
                );
            }
            assert!(
                began.elapsed() < READY_LIMIT,
                "instance {} is not ready after {READY_LIMIT:?}:\n{}",
                self.name,
                self.last_log_lines()
            );
            thread::sleep(Duration::from_millis(50));
        }
    }

    /// How many partitions it says that it owns; none while it does not answer.
    pub fn owned(&self) -> usize {
        let cluster = self.cluster();
        let this = cluster["instances"].as_array().and_then(|instances| {
            let mut instances = instances.iter();
            instances.find(|instance| instance["this"] == true)
        });
        let owned = this.and_then(|this| this["partitions"].as_array());
        owned.map_or(0, Vec::len)
    }

    /// How many partitions there are.
    pub fn partitions(&self) -> usize {
        let count = self.cluster()["partitions"].as_u64();
        count.map_or(0, |count| usize::try_from(count).expect("few partitions"))
    }

    fn cluster(&self) -> Value {
        let answer = self.api.get("/v1/cluster");
        answer.map_or(Value::Null, |answer| answer.body)
    }

    /// `kill -9`, in the middle of whatever it does.
    pub fn kill9(&mut self) {
        if let Some(mut process) = self.process.take() {
            signal(&process, libc::SIGKILL);
            process.wait().expect("a child can be waited for");
        }
    }

    /// SIGTERM, and a wait for the orderly end.
    pub fn stop(&mut self) {
        let mut process = self.process.take().expect("a started instance");
        signal(&process, libc::SIGTERM);
        let began = Instant::now();
        loop {
            if let Some(status) = process.try_wait().expect("a child can be waited for") {
                assert!(
                    status.success(),
                    "{}: {status}\n{}",
                    self.name,
                    self.last_log_lines()
                );
                return;
            }
            if began.elapsed() > STOP_LIMIT {
                signal(&process, libc::SIGKILL);
                process.wait().expect("a child can be waited for");
                panic!("{} did not stop in {STOP_LIMIT:?}", self.name);
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    fn log(&self) -> PathBuf {
        self.folder.join("log")
    }

    pub fn last_log_lines(&self) -> String {
        let log = fs::read(self.log()).unwrap_or_default();
        let text = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(LAST_LOG_LINES)..].join("\n")
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!(
                "--- the log of {} ends:\n{}",
                self.name,
                self.last_log_lines()
            );
        }
        self.kill9();
    }
}

/// Runs a verb of the program to its end.
///
/// # Panics
/// With what it said, when it fails.
#[track_caller]
pub fn partita(arguments: &[&str]) -> Output {
    let output = command(Path::new(env!("CARGO_TARGET_TMPDIR")))
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .expect("partita starts");
    assert!(
        output.status.success(),
        "partita {arguments:?}: {}\n{}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output
}

/// The program, in a folder without a configuration file.
pub fn command(folder: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_partita"));
    command
        .current_dir(folder)
        .env_remove("KAFKA_BROKERS")
        .env_remove("PARTITA_API")
        // The shortest allowed: a killed instance's partitions move on soon.
        .env("PARTITA_RUNTIME__SESSION_TIMEOUT", "6s");
    command
}
