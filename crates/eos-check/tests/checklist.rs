//! The whole checklist, with a `kill -9` of the broker between its two phases: against Apache Kafka
//! and against the embedded broker.

use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

use kafka_harness::{EmbeddedBroker, Kafka, spawn_bound};

/// Enough records for every mishap of the checklist: the crash comes in batch 40 of 100.
const RECORDS: &str = "10000";

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
    let mut broker = EmbeddedBroker::start();
    assert_eq!(passes(&broker.bootstrap(), "phase1"), 11);
    broker.kill9();
    broker.restart();
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
