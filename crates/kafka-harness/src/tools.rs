//! The Java tools of Apache Kafka (topics, configs, groups, console, performance tools),
//! against any broker.

use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use crate::jars::{Missing, jars, target_folder};
use crate::process::spawn_bound;

/// What a tool said.
#[derive(Debug)]
pub struct ToolOutput {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

impl ToolOutput {
    /// The standard output of a tool that ended well.
    ///
    /// # Panics
    /// With all that the tool said, when it ended badly.
    #[track_caller]
    pub fn expect_success(self) -> String {
        assert!(
            self.status.success(),
            "the tool failed: {}\n--- stdout\n{}\n--- stderr\n{}",
            self.status,
            self.stdout,
            self.stderr
        );
        self.stdout
    }
}

/// How long a tool may take before it is killed. A JVM on a busy machine starts slowly.
const TOOL_LIMIT: Duration = Duration::from_secs(240);

/// Runs the tool `main_class` (for example `org.apache.kafka.tools.TopicCommand`) to its end.
///
/// A tool that runs longer than four minutes is killed, and its status shows it.
///
/// # Panics
/// When the jars are missing (ask [`jars`] first, or start a [`crate::Kafka`]) or Java does
/// not start.
#[track_caller]
pub fn tool(main_class: &str, arguments: &[&str]) -> ToolOutput {
    tool_with_input(main_class, arguments, "")
}

/// As [`tool`], with `input` on the tool's standard input.
///
/// # Panics
/// As [`tool`].
#[track_caller]
pub fn tool_with_input(main_class: &str, arguments: &[&str], input: &str) -> ToolOutput {
    let mut command = java().unwrap_or_else(|missing| panic!("{main_class}: {missing}"));
    // A tool lives for a second or two: the optimising compiler would only cost.
    command
        .args([
            "-Xmx256m",
            "-XX:TieredStopAtLevel=1",
            "-XX:+UseSerialGC",
            main_class,
        ])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child =
        spawn_bound(command).unwrap_or_else(|error| panic!("cannot run {main_class}: {error}"));
    let stdout = drain(child.stdout.take());
    let stderr = drain(child.stderr.take());
    let mut stdin = child.stdin.take().expect("standard input was piped");
    let input = input.to_owned();
    // A tool that does not read its input must not block the one who feeds it.
    let feeder = thread::spawn(move || stdin.write_all(input.as_bytes()));
    let status = wait_at_most(&mut child, TOOL_LIMIT);
    // A tool may close its input early; what it made of that shows in its output.
    let _ = feeder.join();
    ToolOutput {
        status,
        stdout: stdout.join().expect("standard output is drained"),
        stderr: stderr.join().expect("standard error is drained"),
    }
}

/// A `java` command with Kafka's jars on its class path and logging set up: add JVM options, a
/// main class (or a single source file) and its arguments, and spawn it.
///
/// # Errors
/// [`Missing`] where the jars cannot be had.
pub fn java() -> Result<Command, Missing> {
    let class_path = jars()?.join("*");
    let mut command = Command::new("java");
    command.arg("-cp").arg(class_path).arg(format!(
        "-Dlog4j2.configurationFile={}",
        log_configuration("warn", "stderr").display()
    ));
    Ok(command)
}

/// A log4j configuration that writes messages of `level` and above to `stream`
/// (`stdout` or `stderr`).
pub(crate) fn log_configuration(level: &str, stream: &str) -> PathBuf {
    static ONCE: OnceLock<()> = OnceLock::new();
    let folder = target_folder().join("kafka");
    ONCE.get_or_init(|| {
        for (level, stream) in [("warn", "stderr"), ("info", "stdout")] {
            write_log_configuration(&log_configuration_path(&folder, level), level, stream);
        }
    });
    let path = log_configuration_path(&folder, level);
    debug_assert!(
        path.exists(),
        "unknown logging configuration {level} to {stream}"
    );
    path
}

fn log_configuration_path(folder: &Path, level: &str) -> PathBuf {
    folder.join(format!("log4j2-{level}.properties"))
}

fn write_log_configuration(path: &Path, level: &str, stream: &str) {
    let target = if stream == "stdout" {
        "SYSTEM_OUT"
    } else {
        "SYSTEM_ERR"
    };
    let text = format!(
        "status = error\n\
         appender.console.type = Console\n\
         appender.console.name = console\n\
         appender.console.target = {target}\n\
         appender.console.layout.type = PatternLayout\n\
         appender.console.layout.pattern = %d{{HH:mm:ss.SSS}} %-5p %m (%c{{1}})%n\n\
         rootLogger.level = {level}\n\
         rootLogger.appenderRef.console.ref = console\n"
    );
    // Several test processes may do this at once: a rename leaves no half-written file.
    let draft = path.with_extension(format!("draft-{}", std::process::id()));
    fs::write(&draft, text)
        .and_then(|()| fs::rename(&draft, path))
        .unwrap_or_else(|error| panic!("cannot write {}: {error}", path.display()));
}

/// Waits for a child to end and kills it after `limit`.
pub(crate) fn wait_at_most(child: &mut Child, limit: Duration) -> ExitStatus {
    let start = Instant::now();
    loop {
        if let Some(status) = child.try_wait().expect("a child of ours can be waited for") {
            return status;
        }
        if start.elapsed() > limit {
            // It may have ended in between; then there is nothing to kill.
            let _ = child.kill();
            return child.wait().expect("a child of ours can be waited for");
        }
        thread::sleep(Duration::from_millis(20));
    }
}

fn drain(stream: Option<impl Read + Send + 'static>) -> thread::JoinHandle<String> {
    let mut stream = stream.expect("the stream was piped");
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let read: io::Result<usize> = stream.read_to_end(&mut bytes);
        read.expect("a pipe can be read to its end");
        String::from_utf8_lossy(&bytes).into_owned()
    })
}
