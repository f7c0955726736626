//! What the histories of many runs of one chain of steps must look like, whatever happened to the
//! processes meanwhile. Pure: records in, faults out.

use std::collections::{BTreeMap, HashMap};

use serde_json::Value;

use super::reader::{Record, is_end};

/// What every run should have done.
pub struct Expected<'a> {
    /// Ids of all runs that were started, each with the output it must have.
    pub outputs: BTreeMap<String, Value>,
    /// The steps, in the order in which they depend on one another.
    pub steps: &'a [&'a str],
}

/// The faults found in the records of `events`; none is as it should be.
pub fn faults(expected: &Expected<'_>, events: &[Record]) -> Vec<String> {
    let mut faults = vec![];
    let mut histories: HashMap<&str, Vec<Value>> = HashMap::new();
    for record in events {
        histories
            .entry(&record.key)
            .or_default()
            .push(record.json());
    }
    for (run, output) in &expected.outputs {
        match histories.remove(run.as_str()) {
            None => faults.push(format!("{run}: no event at all")),
            Some(history) => faults.extend(
                history_faults(run, output, expected.steps, &history)
                    .into_iter()
                    .map(|fault| format!("{run}: {fault}")),
            ),
        }
    }
    faults.extend(
        histories
            .keys()
            .map(|run| format!("{run}: nobody started it")),
    );
    faults
}

fn history_faults(run: &str, output: &Value, steps: &[&str], history: &[Value]) -> Vec<String> {
    let mut faults = numbering_faults(run, history);
    let types: Vec<&str> = history
        .iter()
        .map(|event| event["type"].as_str().unwrap_or_default())
        .collect();
    if types.first() != Some(&"partita.run.started") {
        faults.push(format!("begins with {:?}", types.first()));
    }
    let ends: Vec<&&str> = types.iter().filter(|kind| is_end(kind)).collect();
    if ends != [&"partita.run.completed"] || !types.last().is_some_and(|kind| is_end(kind)) {
        faults.push(format!(
            "ends with {ends:?}, its last event being {:?}",
            types.last()
        ));
    } else if let Some(last) = history.last()
        && last["data"]["output"] != *output
    {
        faults.push(format!(
            "output {} instead of {output}",
            last["data"]["output"]
        ));
    }
    faults.extend(step_faults(steps, history));
    faults
}

/// Events are numbered from 1 without a gap, in the order in which they were written.
fn numbering_faults(run: &str, history: &[Value]) -> Vec<String> {
    let mut faults = vec![];
    for (event, wanted) in history.iter().zip(1_u64..) {
        let number = event["sequence"]
            .as_str()
            .and_then(|text| text.parse().ok());
        let id = event["id"].as_str().and_then(|id| id.rsplit_once('/'));
        let id_number = id.and_then(|(_, number)| number.parse().ok());
        if number != Some(wanted) || id_number != Some(wanted) {
            faults.push(format!(
                "event {wanted} is numbered {} with id {}",
                event["sequence"], event["id"]
            ));
            // All later ones would be shifted as well.
            break;
        }
        if id.is_none_or(|(subject, _)| subject != run) || event["subject"] != run {
            faults.push(format!(
                "event {wanted} has id {} and subject {}",
                event["id"], event["subject"]
            ));
        }
    }
    faults
}

/// Each attempt is scheduled once and ended once, each step completes once and in its turn.
fn step_faults(steps: &[&str], history: &[Value]) -> Vec<String> {
    let mut faults = vec![];
    let mut scheduled: BTreeMap<(&str, u64), usize> = BTreeMap::new();
    let mut applied: BTreeMap<(&str, u64), usize> = BTreeMap::new();
    let mut completed: Vec<&str> = vec![];
    for event in history {
        let data = &event["data"];
        let step = data["step_id"].as_str().unwrap_or_default();
        let attempt = (step, data["attempt"].as_u64().unwrap_or_default());
        match event["type"].as_str().unwrap_or_default() {
            "partita.step.scheduled" => *scheduled.entry(attempt).or_default() += 1,
            "partita.step.completed" => {
                *applied.entry(attempt).or_default() += 1;
                completed.push(step);
            }
            "partita.step.retrying" | "partita.step.failed" => {
                *applied.entry(attempt).or_default() += 1;
            }
            _ => {}
        }
    }
    for (what, counts) in [("scheduled", &scheduled), ("applied", &applied)] {
        for ((step, attempt), count) in counts {
            if *count != 1 {
                faults.push(format!(
                    "attempt {attempt} of {step} is {what} {count} times"
                ));
            }
        }
    }
    if scheduled.keys().ne(applied.keys()) {
        faults.push(format!(
            "scheduled {:?} but applied {:?}",
            scheduled.keys(),
            applied.keys()
        ));
    }
    if completed != steps {
        faults.push(format!("steps completed: {completed:?}"));
    }
    faults
}

/// Task ids that occur more than once among the records of a task topic, cancellations aside.
pub fn repeated_tasks(tasks: &[Record]) -> Vec<String> {
    let mut counts: HashMap<String, usize> = HashMap::new();
    for task in tasks
        .iter()
        .map(Record::json)
        .filter(|task| task["type"] != "cancel")
    {
        *counts.entry(task["task_id"].to_string()).or_default() += 1;
    }
    counts.retain(|_, count| *count > 1);
    counts
        .into_iter()
        .map(|(task, count)| format!("{task}: {count} records"))
        .collect()
}
