//! The program `partita-broker` as a process that can be killed.

use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

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
/// builds them all; a test of one crate alone finds the broker as it was last built, or builds it.
fn program() -> PathBuf {
    let test = std::env::current_exe().expect("a test knows its own program");
    let folder = test.parent().and_then(std::path::Path::parent);
    let program = folder
        .expect("target/<profile>/deps")
        .join("partita-broker");
    if !program.exists() {
        let status = Command::new(env!("CARGO"))
            .args([
                "build",
                "--package",
                "partita-broker",
                "--bin",
                "partita-broker",
            ])
            .status()
            .expect("cargo runs");
        assert!(status.success(), "the broker does not build");
    }
    program
}
