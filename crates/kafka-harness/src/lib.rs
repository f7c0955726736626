//! Brokers for tests: Apache Kafka, and the embedded broker as a process.
//!
//! ```no_run
//! use kafka_harness::Kafka;
//!
//! let Some(mut kafka) = Kafka::start_or_skip("topics survive a crash") else { return };
//! println!("clients connect to {}", kafka.bootstrap());
//! kafka.kill9();
//! kafka.restart();
//! ```
//!
//! In the order in which a test meets them:
//!
//! - [`jars`](mod@jars): Maven copies the jars named in `tests/kafka/pom.xml` to
//!   `target/kafka/libs`, once for the whole workspace.
//! - [`server`]: [`Kafka`], one KRaft node in a temporary folder on free ports.
//! - [`embedded`]: [`EmbeddedBroker`], the program `partita-broker`.
//! - [`secured`]: a listener of it with TLS and SASL, and a certificate made for it.
//! - [`tools`]: the Java command line tools, against any broker.
//! - [`process`]: children that cannot outlive the test process.
//!
//! Where Java or Maven is absent a test says so with [`missing`] and returns; under
//! `CI` that is a failure, because a check that silently did not run is worse than none.

pub mod embedded;
pub mod jars;
pub mod process;
pub mod secured;
pub mod server;
pub mod tools;

pub use embedded::EmbeddedBroker;
pub use jars::{Missing, jars, target_folder};
pub use process::spawn_bound;
pub use secured::Secured;
pub use server::{Kafka, free_port};
pub use tools::{ToolOutput, java, tool, tool_with_input};

use std::fmt::Display;
use std::io::Write;

/// Says loudly that a test did not run, and what it would have shown.
///
/// The line goes straight to the process's standard error, past the capture of the test
/// runner, so that a passing run shows it too.
///
/// # Panics
/// When the environment variable `CI` is set and not empty.
pub fn missing(what_it_would_have_tested: &str, why: &dyn Display) {
    let line =
        format!("\n!!! SKIPPED, NOT TESTED: {what_it_would_have_tested}\n!!! because {why}\n\n");
    // Nothing sensible is left to do when even standard error is closed.
    let _ = std::io::stderr().write_all(line.as_bytes());
    if std::env::var_os("CI").is_some_and(|value| !value.is_empty()) {
        panic!("CI never skips: {what_it_would_have_tested}: {why}");
    }
}
