//! The binary from the outside: exit codes, what goes to stdout and what to stderr, and a whole
//! life of definitions and runs against `partita dev`.

mod dev;
mod measured;
mod odd;
mod offline;
mod provenance;
mod replaced;
mod server;
mod waiting;

use std::process::{Command, Output, Stdio};

/// The binary with these arguments, far from any configuration of this machine.
pub fn partita(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_partita"));
    command
        .args(arguments)
        .stdin(Stdio::null())
        .current_dir(std::env::temp_dir());
    for name in ["KAFKA_BROKERS", "PARTITA_API", "RUST_LOG"] {
        command.env_remove(name);
    }
    command
}

/// What a finished command came to.
pub struct Ended {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

pub fn run(arguments: &[&str]) -> Ended {
    ended(partita(arguments).output().expect("the binary runs"))
}

pub fn ended(output: Output) -> Ended {
    Ended {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8(output.stdout).expect("UTF-8"),
        stderr: String::from_utf8(output.stderr).expect("UTF-8"),
    }
}

impl Ended {
    /// Asserts the exit code and shows everything where it is another.
    pub fn code(self, expected: i32) -> Self {
        assert_eq!(
            self.code, expected,
            "stdout:\n{}\nstderr:\n{}",
            self.stdout, self.stderr
        );
        self
    }

    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.stdout)
            .unwrap_or_else(|error| panic!("{error}: {}", self.stdout))
    }
}

/// A folder with these files.
pub fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
    let folder = tempfile::tempdir().expect("a temporary folder");
    for (name, text) in files {
        std::fs::write(folder.path().join(name), text).expect("a file");
    }
    folder
}
