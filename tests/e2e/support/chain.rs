//! The workflow of these tests, five steps in a row that each add one, and what its runs must have
//! left behind.

use std::collections::BTreeMap;

use serde_json::json;

use super::driver::run_id;
use super::installation::Installation;
use super::judge::{Expected, faults, repeated_tasks};
use super::reader::read_all;

pub const NAME: &str = "chain";
pub const STEPS: [&str; 5] = ["one", "two", "three", "four", "five"];

pub const WORKFLOW: &str = r#"
kind: workflow
name: chain
version: 1
retry: {max_attempts: 5, backoff: {initial: 100ms, multiplier: 2, max: 2s}}
steps:
  - {id: one, agent: worker, inputs: {value: "${input.value}"}}
  - {id: two, agent: worker, depends_on: [one], inputs: {value: "${steps.one.output.value}"}}
  - {id: three, agent: worker, depends_on: [two], inputs: {value: "${steps.two.output.value}"}}
  - {id: four, agent: worker, depends_on: [three], inputs: {value: "${steps.three.output.value}"}}
  - {id: five, agent: worker, depends_on: [four], inputs: {value: "${steps.four.output.value}"}}
output: {value: "${steps.five.output.value}"}
"#;

/// Checks runs `0..total`: each ended once and rightly, every attempt was applied once, nothing is
/// among the dead letters, and every instance answers for every run.
#[track_caller]
pub fn check(installation: &Installation, total: usize) {
    let bootstrap = &installation.bootstrap;
    let outputs: BTreeMap<_, _> = (0..total)
        .map(|number| (run_id(number), json!({"value": number + STEPS.len()})))
        .collect();
    let expected = Expected {
        outputs,
        steps: &STEPS,
    };
    let found = faults(&expected, &read_all(bootstrap, "partita.events"));
    assert!(
        found.is_empty(),
        "{} faults, among them:\n{}",
        found.len(),
        first(&found)
    );
    let repeated = repeated_tasks(&read_all(bootstrap, "partita.tasks.worker"));
    assert!(
        repeated.is_empty(),
        "{} tasks came twice:\n{}",
        repeated.len(),
        first(&repeated)
    );
    let dead = read_all(bootstrap, "partita.dead-letter");
    assert!(
        dead.is_empty(),
        "{} dead letters, the first: {}",
        dead.len(),
        String::from_utf8_lossy(&dead[0].value)
    );
    // Whoever owns a run, every instance answers for it.
    for instance in &installation.instances {
        for number in (0..total).step_by(total.div_ceil(50)) {
            let path = format!("/v1/runs/{}", run_id(number));
            let answer = instance.api.settled(&path);
            assert_eq!(answer.body["status"], "completed", "{path}: {answer:?}");
            assert_eq!(
                answer.body["output"]["value"],
                number + STEPS.len(),
                "{path}"
            );
        }
    }
}

fn first(faults: &[String]) -> String {
    faults
        .iter()
        .take(20)
        .cloned()
        .collect::<Vec<_>>()
        .join("\n")
}
