//! The jars of Apache Kafka, fetched once by Maven and kept in the workspace's target folder.

use std::fs::{self, File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Why Apache Kafka cannot be had on this machine.
#[derive(Debug, thiserror::Error)]
pub enum Missing {
    /// No Java runtime on the path.
    #[error("`java` does not run here ({0}): install a JDK of version 17 or later")]
    Java(String),
    /// No Maven on the path, and the jars are not there yet.
    #[error("`mvn` does not run here ({0}): install Maven 3.6 or later")]
    Maven(String),
    /// Maven ran and could not fetch the jars.
    #[error("Maven could not fetch Apache Kafka's jars: {0}")]
    Download(String),
}

/// The folder that holds the jars; fetches them first if this pom has not been fetched yet.
///
/// Test binaries that ask at the same time wait for one another, so Maven runs once.
///
/// # Errors
/// [`Missing`] says which part of the machine is not there.
///
/// # Panics
/// When the target folder cannot be written: nothing else would work either.
pub fn jars() -> Result<PathBuf, Missing> {
    answers("java", "-version").map_err(Missing::Java)?;
    let pom = workspace().join("tests/kafka/pom.xml");
    let wanted = fs::read_to_string(&pom)
        .unwrap_or_else(|error| panic!("cannot read {}: {error}", pom.display()));
    let folder = target_folder().join("kafka");
    let libs = folder.join("libs");
    // The pom that was fetched lies beside the jars: another pom means other jars.
    let fetched = folder.join("fetched.xml");
    fs::create_dir_all(&folder)
        .unwrap_or_else(|error| panic!("cannot create {}: {error}", folder.display()));
    let _lock = lock(&folder.join("lock"));
    if fs::read_to_string(&fetched).is_ok_and(|present| present == wanted) {
        return Ok(libs);
    }
    answers("mvn", "-version").map_err(Missing::Maven)?;
    // Left-overs of another pom would come first on the class path.
    let _ = fs::remove_dir_all(&libs);
    copy_dependencies(&pom, &libs)?;
    fs::write(&fetched, wanted)
        .unwrap_or_else(|error| panic!("cannot write {}: {error}", fetched.display()));
    Ok(libs)
}

/// The workspace's target folder: where fetched and generated things belong.
pub fn target_folder() -> PathBuf {
    match std::env::var_os("CARGO_TARGET_DIR") {
        Some(folder) => workspace().join(folder),
        None => workspace().join("target"),
    }
}

pub(crate) fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn copy_dependencies(pom: &Path, libs: &Path) -> Result<(), Missing> {
    let output = Command::new("mvn")
        .args(["--batch-mode", "--quiet", "--file"])
        .arg(pom)
        .arg("dependency:copy-dependencies")
        .arg("-DincludeScope=runtime")
        .arg(format!("-DoutputDirectory={}", libs.display()))
        .stdin(Stdio::null())
        .output()
        .map_err(|error| Missing::Maven(error.to_string()))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stdout);
    let errors: Vec<&str> = said
        .lines()
        .filter(|line| line.contains("ERROR"))
        .take(5)
        .collect();
    Err(Missing::Download(errors.join("; ")))
}

/// Holds an exclusive lock on `path` until the file is dropped.
fn lock(path: &Path) -> File {
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)
        .unwrap_or_else(|error| panic!("cannot open {}: {error}", path.display()));
    file.lock()
        .unwrap_or_else(|error| panic!("cannot lock {}: {error}", path.display()));
    file
}

fn answers(program: &str, question: &str) -> Result<(), String> {
    let output = Command::new(program)
        .arg(question)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| error.to_string())?;
    if output.status.success() {
        Ok(())
    } else {
        Err(format!("{program} {question}: {}", output.status))
    }
}
