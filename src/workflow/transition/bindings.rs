//! What expressions see of a run: `input`, `steps`, `run`, `vars`, `error`; and of a signal.

use std::fmt::Write;

use serde::Serialize;

use crate::expr::Bindings;
use crate::model::{Json, RunState, StepState, WaitingSignal};
use crate::workflow::Workflow;

/// A run as the root names of its expressions. Payloads pass through as the text they are.
pub struct RunBindings<'a> {
    pub run: &'a RunState,
    pub workflow: &'a Workflow,
}

impl Bindings for RunBindings<'_> {
    fn lookup(&self, path: &[&str]) -> Option<(Json, usize)> {
        let (&root, rest) = path.split_first()?;
        match root {
            "input" => Some((self.run.input.clone(), 1)),
            "steps" => self.steps(rest).map(|(value, known)| (value, known + 1)),
            "run" => self.of_run(rest).map(|(value, known)| (value, known + 1)),
            "vars" => Some((json_text("{}"), 1)),
            "error" => Some((json(&self.run.error), 1)),
            _ => None,
        }
    }
}

/// A run and a signal that a step may take.
pub(super) struct SignalBindings<'a> {
    pub run: RunBindings<'a>,
    pub signal: &'a WaitingSignal,
}

impl Bindings for SignalBindings<'_> {
    fn lookup(&self, path: &[&str]) -> Option<(Json, usize)> {
        let signal = self.signal;
        match (path.first().copied(), path.get(1).copied()) {
            (Some("signal"), Some("data")) => Some((signal.data.clone(), 2)),
            (Some("signal"), _) => {
                let mut text = format!(
                    r#"{{"name":"{}","data":{}"#,
                    signal.name,
                    signal.data.as_str()
                );
                if let Some(id) = &signal.id {
                    let _ = write!(text, r#","id":"{id}""#);
                }
                text.push('}');
                Some((json_text(&text), 1))
            }
            _ => self.run.lookup(path),
        }
    }
}

impl RunBindings<'_> {
    fn steps(&self, path: &[&str]) -> Option<(Json, usize)> {
        let Some((&id, rest)) = path.split_first() else {
            return Some((self.all_steps(), 0));
        };
        let state = &self.run.steps[*self.workflow.by_id.get(id)?];
        Some(match rest.first().copied() {
            Some("output") => (output(state), 2),
            Some("status") => (json(state.status.name()), 2),
            Some("error") => (json(&state.error), 2),
            Some("attempt") => (json(&state.attempt), 2),
            _ => (json_text(&step_object(state)), 1),
        })
    }

    fn all_steps(&self) -> Json {
        let mut text = String::from("{");
        for (place, (step, state)) in self.workflow.steps.iter().zip(&self.run.steps).enumerate() {
            let comma = if place == 0 { "" } else { "," };
            let _ = write!(text, "{comma}\"{}\":{}", step.id, step_object(state));
        }
        text.push('}');
        json_text(&text)
    }

    fn of_run(&self, path: &[&str]) -> Option<(Json, usize)> {
        let run = self.run;
        Some(match path.first().copied() {
            Some("id") => (json(run.id.as_str()), 1),
            Some("workflow") => (json(run.workflow.as_ref()), 1),
            Some("version") => (json(&run.version), 1),
            Some("tags") => (json(&run.tags), 1),
            Some("started_at") => (json(&run.started_at), 1),
            Some("epoch") => (json(&run.epoch), 1),
            _ => {
                let whole = serde_json::json!({
                    "id": run.id.as_str(),
                    "workflow": run.workflow.as_ref(),
                    "version": run.version,
                    "tags": run.tags,
                    "started_at": run.started_at,
                    "epoch": run.epoch,
                });
                (Json::from(whole), 0)
            }
        })
    }
}

fn output(state: &StepState) -> Json {
    state.output.clone().unwrap_or_else(Json::null)
}

fn step_object(state: &StepState) -> String {
    format!(
        r#"{{"status":"{}","output":{},"error":{},"attempt":{}}}"#,
        state.status.name(),
        output(state).as_str(),
        json(&state.error).as_str(),
        state.attempt
    )
}

fn json<T: Serialize + ?Sized>(value: &T) -> Json {
    Json::from_serialize(value).expect("names, numbers, texts and failures serialise")
}

fn json_text(text: &str) -> Json {
    Json::from_text(text).expect("put together from JSON values")
}
