//! What a match does: the commands that start a run and steer others.

use serde_json::{Value, json};

use crate::expr::ExprError;
use crate::model::{Failure, Json, Provenance, RunId, class};
use crate::pattern::{Match, Rule, Verb};

/// Names of runs are derived within this space of names.
const SPACE: uuid::Uuid = uuid::uuid!("6f9a2c1e-0d5b-5a43-9c77-2b8d4e6f1a30");

/// Longest part of a rule's name in the id of a run, in bytes; the rest of the id is 33.
const NAME_IN_ID: usize = 200;

/// Bits of a position that are the offset; those above are the source's partition.
const OFFSET_BITS: u32 = 48;

/// Where an event came from, as one number: what [`crate::pattern::Event::position`] is here. The
/// topic follows from the condition that took the event.
pub(in crate::runtime) fn position(partition: i32, offset: i64) -> u64 {
    let offset = offset.cast_unsigned() & ((1 << OFFSET_BITS) - 1);
    u64::from(partition.cast_unsigned()) << OFFSET_BITS | offset
}

/// Partition and offset of a position.
pub(in crate::runtime) fn place(position: u64) -> (i32, i64) {
    let partition = (position >> OFFSET_BITS) as i32;
    let offset = position & ((1 << OFFSET_BITS) - 1);
    (partition, offset.cast_signed())
}

/// Names a match by its rule, its key and the records that made it: the id of the run that it starts,
/// so that a match which is found again starts nothing again.
pub(super) fn run_id(rule: &Rule, key: &str, found: &Match) -> RunId {
    let mut name = format!("{}/{key}", rule.id()).into_bytes();
    for (step, taken) in &found.events {
        name.extend_from_slice(&step.to_be_bytes());
        name.extend_from_slice(rule.topic_of(*step).as_bytes());
        name.push(0);
        name.extend_from_slice(&taken.position.to_be_bytes());
    }
    // Windows that close one after the other may have their last event in common.
    name.extend_from_slice(&found.at.0.to_be_bytes());
    let hash = uuid::Uuid::new_v5(&SPACE, &name);
    let rule: String = rule
        .name
        .chars()
        .filter(|char| char.is_ascii_alphanumeric() || "-._~".contains(*char))
        .take(NAME_IN_ID)
        .collect();
    RunId::parse(&format!("{rule}-{}", hash.simple())).expect("these characters make a run id")
}

/// Of a command besides input or data, in bytes: tags, names, a reason and the provenance.
const MAX_REST_BYTES: usize = 256 << 10;

/// The command that starts a run.
pub(super) const START: &str = "start";

/// A command to runs.
pub(super) enum Order {
    /// To one run.
    Run(RunId, Vec<u8>),
    /// To the runs of every partition that it selects.
    All(Vec<u8>),
}

/// The commands that a match gives, as they are written to `commands`, each with what it is called.
/// `run` names the match; `joined` are the values of the rule's enrichments.
///
/// # Errors
/// Where an expression of the rule has no value for this match, gives no run's id, or gives more than
/// `max_payload_bytes` of JSON as input or data.
pub(super) fn orders(
    rule: &Rule,
    run: &RunId,
    found: &Match,
    joined: &[Json],
    provenance: &Provenance,
    max_payload_bytes: usize,
) -> Result<Vec<(&'static str, Order)>, Failure> {
    let failed = |error: ExprError| Failure::new(class::EXPRESSION_ERROR, error.to_string());
    let fitting = |command: &Value| fitting(command, max_payload_bytes);
    let mut orders = Vec::new();
    if let Some(start) = &rule.start {
        let mut command = start.request(rule, found, joined).map_err(failed)?;
        // Null: its route drops the match.
        if !command.is_null() {
            command["type"] = START.into();
            command["run_id"] = json!(run.as_str());
            command["provenance"] = json!(provenance);
            orders.push((START, Order::Run(run.clone(), fitting(&command)?)));
        }
    }
    for (place, steer) in rule.steers.iter().enumerate() {
        let mut command = steer.request(rule, found, joined).map_err(failed)?;
        command["depth"] = provenance.depth.into();
        if matches!(steer.verb, Verb::Signal { .. }) {
            // A signal that a run has is not taken again.
            command["id"] = format!("{run}.{place}").into();
        }
        let order = match command.get("run_id").and_then(Value::as_str) {
            Some(id) => {
                let run = RunId::parse(id);
                let run =
                    run.map_err(|error| Failure::new(class::EXPRESSION_ERROR, error.to_string()))?;
                Order::Run(run, fitting(&command)?)
            }
            None => Order::All(fitting(&command)?),
        };
        orders.push((steer.verb.name(), order));
    }
    Ok(orders)
}

/// The record of a command, if it is not too large for the run that it is for, nor for brokers.
fn fitting(command: &Value, max_payload_bytes: usize) -> Result<Vec<u8>, Failure> {
    let too_large = |what: &str, bytes: usize, limit: usize| {
        let message = format!(
            "the {what} has {bytes} bytes of JSON; at most {limit} are allowed (max_payload_bytes)"
        );
        Failure::new(class::PAYLOAD_TOO_LARGE, message)
    };
    for what in ["input", "data"] {
        let bytes = command.get(what).map_or(0, |value| value.to_string().len());
        if bytes > max_payload_bytes {
            return Err(too_large(what, bytes, max_payload_bytes));
        }
    }
    let record = serde_json::to_vec(command).expect("a JSON tree always serialises");
    let limit = max_payload_bytes + MAX_REST_BYTES;
    match record.len() > limit {
        true => Err(too_large("command", record.len(), limit)),
        false => Ok(record),
    }
}

/// Whether the rule acts for this key: its canary has a part of all keys, chosen by their hash.
pub(super) fn is_acting(rule: &Rule, key: &str) -> bool {
    let Some(canary) = rule.canary else {
        return true;
    };
    // 10,000 shares of a hundredth of a per cent.
    let share = uuid::Uuid::new_v5(&SPACE, key.as_bytes()).as_u128() % 10_000;
    (share as f64) < canary.percent * 100.0
}
