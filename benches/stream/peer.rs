//! Another engine on the same stream, for the ratio to it in the same sitting: a program that takes a pattern,
//! a window and a number of keys, and prints a line such as
//! `RES esper-p1 W=0 K=1 ok ev/s=6800000 ev/cpus=6700000 … m@100k=5077 …`.

use std::process::{Command, Stdio};

/// What another engine reached.
pub struct Reached {
    /// Events a second of processor time, of all its threads.
    pub rate: f64,
    /// Matches in the first 100,000 events; `None`: it did not come so far.
    pub early: Option<usize>,
}

/// Runs `command` with the cell's words behind it.
///
/// # Panics
/// Where it cannot be run. A cell that the engine does not have, or does not get through, is `None`.
pub fn reached(command: &str, pattern: &str, w: u64, keys: u64) -> Option<Reached> {
    let mut words = command.split_whitespace();
    let program = words.next().expect("a program to run beside");
    let output = Command::new(program)
        .args(words)
        .args([pattern, &w.to_string(), &keys.to_string()])
        .stderr(Stdio::null())
        .output()
        .unwrap_or_else(|error| panic!("cannot run {program}: {error}"));
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().find(|line| line.starts_with("RES "))?;
    let value = |name: &str| {
        let mut words = line.split_whitespace();
        words.find_map(|word| word.strip_prefix(name)?.strip_prefix('='))
    };
    Some(Reached {
        rate: value("ev/cpus")?.parse().ok()?,
        early: value("m@100k").and_then(|count| count.parse().ok()),
    })
}
