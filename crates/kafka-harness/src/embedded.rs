//! The program `partita-broker` as a process that can be killed.

use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use tempfile::TempDir;

use crate::process::spawn_bound;
use crate::server::free_port;

/// How long the broker may take to listen. It needs milliseconds.
const LISTEN_LIMIT: Duration = Duration::from_secs(60);

/// A broker on one port, with its data in a temporary folder that goes away with it.
pub struct EmbeddedBroker {
    port: u16,
    folder: TempDir,
    process: Option<Child>,
}

impl EmbeddedBroker {
    /// Starts one and waits until it listens.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start() -> EmbeddedBroker {
        let mut broker = EmbeddedBroker::away();
        broker.restart();
        broker
    }

    /// One that is away until [`EmbeddedBroker::restart`]: only its port is known.
    ///
    /// # Panics
    /// Where no temporary folder can be made.
    pub fn away() -> EmbeddedBroker {
        EmbeddedBroker {
            port: free_port(),
            folder: TempDir::new().expect("a temporary folder"),
            process: None,
        }
    }

    /// What clients connect to, `127.0.0.1:PORT`; the same over restarts.
    pub fn bootstrap(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Starts it on the same port with the same data, and waits until it listens; one that runs
    /// is killed first.
    ///
    /// # Panics
    /// When it does not come back.
    pub fn restart(&mut self) {
        self.kill9();
        let mut command = Command::new(program());
        command
            .args(["--listen", &self.bootstrap(), "--data"])
            .arg(self.folder.path())
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        self.process = Some(spawn_bound(command).expect("the broker starts"));
        let began = Instant::now();
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            assert!(began.elapsed() < LISTEN_LIMIT, "the broker does not listen");
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Kills it where it stands (`SIGKILL`).
    pub fn kill9(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().expect("a child can be killed");
            process.wait().expect("a child can be waited for");
        }
    }
}

impl Drop for EmbeddedBroker {
    fn drop(&mut self) {
        self.kill9();
    }
}

/// Cargo puts the programs of one workspace side by side, above the tests. Testing the workspace
/// builds them all; with one test alone (`cargo test --test e2e`) the broker may be missing or older than
/// its sources, and is built here as the workspace builds it.
fn program() -> PathBuf {
    let test = std::env::current_exe().expect("a test knows its own program");
    let folder = test.parent().and_then(Path::parent);
    let folder = folder.expect("target/<profile>/deps");
    let program = folder.join("partita-broker");
    let built = modified(&program);
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("../partita-broker/src");
    if built.is_none() || built < newest(&sources) {
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "--workspace", "--bin", "partita-broker"]);
        if folder.ends_with("release") {
            build.arg("--release");
        }
        let status = build.status().expect("cargo runs");
        assert!(status.success(), "the broker does not build");
    }
    program
}

fn modified(file: &Path) -> Option<SystemTime> {
    file.metadata().and_then(|found| found.modified()).ok()
}

/// When the youngest file in a folder, however deep, was changed.
fn newest(folder: &Path) -> Option<SystemTime> {
    let entries = std::fs::read_dir(folder).expect("the sources are there");
    let paths = entries.map(|entry| entry.expect("a folder can be listed").path());
    let times = paths.map(|path| match path.is_dir() {
        true => newest(&path),
        false => modified(&path),
    });
    times.max().flatten()
}
