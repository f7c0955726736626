//! The agents of `examples/agents/python`: by themselves against a broker, and as the three agents
//! of `strategic_planning`.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::OnceLock;
use std::thread;
use std::time::{Duration, Instant};

use kafka_harness::{Kafka, missing, process::signal, spawn_bound, target_folder};
use serde_json::json;

use crate::support::installation::Installation;

/// How long the script of checks, or a run, may take.
const LIMIT: Duration = Duration::from_secs(180);

#[test]
fn they_keep_the_contract_of_agents() {
    let what = "the Python agents against Apache Kafka";
    let Some(python) = python_or_skip(what) else {
        return;
    };
    let Some(kafka) = Kafka::start_or_skip(what) else {
        return;
    };
    let mut command = Command::new(python);
    command
        .arg(repository().join("tests/python/check_agent.py"))
        .arg(kafka.bootstrap());
    let mut script = spawn_bound(command).expect("Python starts");
    let began = Instant::now();
    let status = loop {
        if let Some(status) = script.try_wait().expect("a child can be waited for") {
            break status;
        }
        if began.elapsed() > LIMIT {
            script.kill().expect("a child can be killed");
            script.wait().expect("a child can be waited for");
            panic!("the checks are not done after {LIMIT:?}");
        }
        thread::sleep(Duration::from_millis(50));
    };
    assert!(
        status.success(),
        "check_agent.py: {status}; its last line of `ok` says how far it came"
    );
}

#[test]
fn they_carry_strategic_planning_to_its_end() {
    let Some(python) = python_or_skip("strategic_planning with Python agents") else {
        return;
    };
    let _alone = crate::support::alone();
    let installation = Installation::on_embedded_broker(&[]);
    let workflow = repository().join("examples/workflows/strategic_planning.yaml");
    installation.apply(&std::fs::read_to_string(workflow).expect("the example is there"));
    let agents = ["cmo_agent", "cfo_agent", "ceo_agent"]
        .map(|agent| start_agent(&python, agent, &installation.bootstrap));

    let start = json!({"workflow": "strategic_planning", "id": "plan-1"});
    let api = &installation.instances[1].api;
    let started = api.post_settled("/v1/runs", &start);
    // 200: the partition moved to the second instance meanwhile, and the repeated request found the
    // run that it had itself started.
    assert!(matches!(started.status, 200 | 201), "{started:?}");
    let began = Instant::now();
    let run = loop {
        let answer = api.settled("/v1/runs/plan-1");
        let status = answer.body["status"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        if matches!(status.as_str(), "completed" | "failed" | "cancelled") {
            break answer.body;
        }
        assert!(began.elapsed() < LIMIT, "still {status}: {}", answer.body);
        thread::sleep(Duration::from_millis(50));
    };
    assert_eq!(run["status"], "completed", "{run}");
    assert_eq!(
        run["output"],
        json!({"decision": {"decision": "expand", "by": "ceo_agent"}})
    );
    assert_eq!(run["progress"], 1.0);
    for mut agent in agents {
        signal(&agent, libc::SIGTERM);
        assert!(agent.wait().expect("a child can be waited for").success());
    }
}

fn start_agent(python: &Path, agent: &str, bootstrap: &str) -> Child {
    let mut command = Command::new(python);
    command
        .arg(repository().join("examples/agents/python/agent.py"))
        .args([agent, "--brokers", bootstrap])
        .stdin(Stdio::null());
    spawn_bound(command).expect("Python starts")
}

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A Python with the agents' requirements, in an environment under the target folder.
fn python_or_skip(what_it_would_have_tested: &str) -> Option<PathBuf> {
    static PYTHON: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    match PYTHON.get_or_init(install) {
        Ok(python) => Some(python.clone()),
        Err(why) => {
            missing(what_it_would_have_tested, why);
            None
        }
    }
}

fn install() -> Result<PathBuf, String> {
    let environment = target_folder().join("python/venv");
    let python = environment.join("bin/python");
    let requirements = repository().join("examples/agents/python/requirements.txt");
    if !python.exists() {
        let folder = environment.to_string_lossy().into_owned();
        run("python3", &["-m", "venv", &folder])?;
    }
    let python_name = python.to_string_lossy().into_owned();
    let file = requirements.to_string_lossy().into_owned();
    // Quick where it was done before.
    run(
        &python_name,
        &["-m", "pip", "install", "--quiet", "--requirement", &file],
    )?;
    Ok(python)
}

fn run(program: &str, arguments: &[&str]) -> Result<(), String> {
    let said =
        |error: &dyn std::fmt::Display| format!("{program} {}: {error}", arguments.join(" "));
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| said(&error))?;
    if output.status.success() {
        Ok(())
    } else {
        Err(said(&String::from_utf8_lossy(&output.stderr)))
    }
}
