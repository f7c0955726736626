//! A rule that changes while it has begun something.

use serde_json::{Value, json};

use crate::dev::Dev;
use crate::folder;
use crate::provenance::{found, runs};

const WORKFLOWS: &str = "
{kind: workflow, name: job, steps: [{id: a, agent: echo}]}
---
{kind: workflow, name: alarm, steps: [{id: a, agent: echo}]}
";

/// Three jobs in a row, and an alarm that says which version of the rule gave it.
fn rule(version: u32) -> String {
    format!(
        r#"
kind: rule
name: thrice
version: {version}
topic: partita.events
time: {{out_of_order: 1s, allowed_lateness: 5m, idle_after: 1s}}
match: {{count: {{id: job, type: partita.run.completed, where: "event.workflow == 'job'", at_least: 3, within: 5m}}}}
emit: {{after_match: skip_past_last}}
start: {{workflow: alarm, input: {{version: {version}}}}}
"#
    )
}

#[test]
fn a_match_that_a_version_has_begun_is_found_after_another_took_its_place() {
    let names = ["workflows.yaml", "1.yaml", "2.yaml"];
    let texts = [WORKFLOWS.to_owned(), rule(1), rule(2)];
    let files: Vec<(&str, &str)> = names
        .into_iter()
        .zip(texts.iter().map(|it| &**it))
        .collect();
    let folder = folder(&files);
    let apply = |dev: &Dev, name: &str| {
        let file = folder.path().join(name);
        dev.run(&["apply", file.to_str().unwrap()]).code(0);
    };
    let dev = Dev::start_with(&["--memory"], &[]);
    apply(&dev, "workflows.yaml");
    apply(&dev, "1.yaml");
    let job = || dev.run(&["run", "job", "--wait"]).code(0);
    let stats = |version: u32| -> Option<Value> {
        let stats = dev
            .run(&["rules", "stats", "thrice", "--json"])
            .code(0)
            .json();
        let rules = stats["rules"].as_array().expect("a list").clone();
        rules.into_iter().find(|rule| rule["version"] == version)
    };
    let alarms = |count: usize| {
        found("an alarm", || {
            let alarms = runs(&dev, &["--workflow", "alarm"]);
            (alarms.len() >= count).then_some(alarms)
        })
    };
    let partials = |version: u32, count: u64| {
        found("partial matches", || {
            stats(version).filter(|rule| rule["partials"] == count)
        })
    };

    job();
    job();
    partials(1, 2);
    apply(&dev, "2.yaml");
    let draining = found("the second version", || {
        stats(2)
            .and_then(|_| stats(1))
            .filter(|rule| rule["state"] == "draining")
    });
    assert_eq!(draining["partials"], 2, "{draining}");
    job();
    let first = alarms(1);
    assert_eq!(first[0]["input"], json!({"version": 1}));
    let records = first[0]["provenance"]["events"].as_array();
    assert_eq!(
        records.map(Vec::len),
        Some(3),
        "two of before and one of after"
    );
    // The third of the first is the first of the second.
    partials(2, 1);
    job();
    job();
    let both = alarms(2);
    let mut versions: Vec<&Value> = both.iter().map(|run| &run["input"]["version"]).collect();
    versions.sort_by_key(|version| version.as_u64());
    assert_eq!(versions, [1, 2]);
    found("the end of the first version", || {
        stats(1).is_none().then_some(())
    });
}
