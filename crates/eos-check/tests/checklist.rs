//! The whole checklist, with a `kill -9` of the broker between its two phases: against Apache Kafka
//! and against the embedded broker.

use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use kafka_harness::{Kafka, free_port, spawn_bound};

/// Enough records for every mishap of the checklist: the crash comes in batch 40 of 100.
const RECORDS: &str = "10000";
/// How long the embedded broker may take to listen. It needs milliseconds.
const LISTEN_LIMIT: Duration = Duration::from_secs(60);

/// Runs one phase and returns how many checks passed.
#[track_caller]
fn passes(bootstrap: &str, phase: &str) -> usize {
    let mut command = Command::new(env!("CARGO_BIN_EXE_eos-check"));
    command
        .args([bootstrap, phase, "checklist", RECORDS])
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit());
    let output = spawn_bound(command)
        .and_then(Child::wait_with_output)
        .expect("eos-check runs");
    let lines = String::from_utf8_lossy(&output.stdout);
    println!("--- {phase} against {bootstrap}\n{lines}");
    assert!(output.status.success(), "{phase} failed:\n{lines}");
    lines
        .lines()
        .filter(|line| line.starts_with("[PASS]"))
        .count()
}

/// Rebalances are timed: the checks of two brokers must not starve each other.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    // A test that panicked while it held the lock has left nothing behind it.
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

#[test]
fn apache_kafka_passes_over_a_kill() {
    let _alone = alone();
    let Some(mut kafka) = Kafka::start_or_skip("eos-check against Apache Kafka") else {
        return;
    };
    assert_eq!(passes(&kafka.bootstrap(), "phase1"), 11);
    kafka.kill9();
    kafka.restart();
    assert_eq!(passes(&kafka.bootstrap(), "phase2"), 6);
    assert_eq!(passes(&kafka.bootstrap(), "compact"), 1);
}

#[test]
fn the_embedded_broker_passes_over_a_kill() {
    let _alone = alone();
    let mut broker = Embedded::start();
    assert_eq!(passes(&broker.bootstrap(), "phase1"), 11);
    broker.kill9();
    broker.launch();
    assert_eq!(passes(&broker.bootstrap(), "phase2"), 6);
    assert_eq!(passes(&broker.bootstrap(), "compact"), 1);
}

#[test]
fn a_broker_that_is_not_there_fails_the_checklist() {
    let output = Command::new(env!("CARGO_BIN_EXE_eos-check"))
        .args(["127.0.0.1:1", "compact"])
        .output()
        .expect("eos-check runs");
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stdout).contains("[FAIL] g"));
}

/// The program `partita-broker`, with its data in a temporary folder.
struct Embedded {
    port: u16,
    folder: tempfile::TempDir,
    process: Option<Child>,
}

impl Embedded {
    fn start() -> Embedded {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut broker = Embedded {
            port: free_port(),
            folder,
            process: None,
        };
        broker.launch();
        broker
    }

    fn bootstrap(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    fn launch(&mut self) {
        let mut command = Command::new(broker_program());
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

    fn kill9(&mut self) {
        if let Some(mut process) = self.process.take() {
            process.kill().expect("a child can be killed");
            process.wait().expect("a child can be waited for");
        }
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        self.kill9();
    }
}

/// Cargo puts the programs of one workspace side by side. Testing the workspace builds them all; a
/// test of this crate alone finds the broker as it was last built, or builds it.
fn broker_program() -> PathBuf {
    let program = PathBuf::from(env!("CARGO_BIN_EXE_eos-check")).with_file_name("partita-broker");
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
