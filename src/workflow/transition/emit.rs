//! Events with their numbers, tasks, and cancellations.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;

use super::Transition;
use crate::model::{
    CancelTask, Event, EventKind, Failure, Json, Provenance, Task, TaskId, Timestamp, WaitingSignal,
};
use crate::workflow::effect::Effect;
use crate::workflow::program::{StepIndex, StepKind};

/// What an event says beyond its kind.
#[derive(Default)]
pub(super) struct Details {
    pub output: Option<Json>,
    pub error: Option<Failure>,
    pub extra: Option<Json>,
}

impl Details {
    pub fn output(output: Json) -> Self {
        Self {
            output: Some(output),
            ..Self::default()
        }
    }

    pub fn error(error: Failure) -> Self {
        Self {
            error: Some(error),
            ..Self::default()
        }
    }

    /// One extra member with a text.
    pub fn text(name: &str, text: &str) -> Self {
        Self {
            extra: Some(object_of_text(name, text)),
            ..Self::default()
        }
    }

    pub fn reason(reason: Option<&str>) -> Self {
        reason.map_or_else(Self::default, |reason| Self::text("reason", reason))
    }

    /// The match that started the run, where one did.
    pub fn provenance(provenance: Option<&Provenance>) -> Self {
        let extra = |provenance: &Provenance| {
            let member = BTreeMap::from([("provenance", provenance)]);
            Json::from_serialize(&member).expect("a provenance is JSON")
        };
        Self {
            extra: provenance.map(extra),
            ..Self::default()
        }
    }

    pub fn with_text(mut self, name: &str, text: &str) -> Self {
        self.extra = Some(object_of_text(name, text));
        self
    }
}

fn object_of_text(name: &str, text: &str) -> Json {
    let quoted = serde_json::to_string(text).expect("a text is JSON");
    Json::from_text(&format!("{{\"{name}\":{quoted}}}")).expect("an object of one text is JSON")
}

/// `{"progress":0.4,"note":"…"}` with what there is of it.
pub(super) fn progress_details(progress: Option<f64>, note: Option<&str>) -> Details {
    let mut text = String::from("{");
    if let Some(progress) = progress {
        let _ = write!(text, "\"progress\":{progress}");
    }
    if let Some(note) = note {
        let comma = if progress.is_some() { "," } else { "" };
        let quoted = serde_json::to_string(note).expect("a text is JSON");
        let _ = write!(text, "{comma}\"note\":{quoted}");
    }
    text.push('}');
    Details {
        extra: Some(Json::from_text(&text).expect("an object of a number and a text is JSON")),
        ..Details::default()
    }
}

/// `{"name":…,"data":…,"id":…}`; the id where there is one.
pub(super) fn signal_details(signal: &WaitingSignal) -> Details {
    let mut text = format!(r#"{{"name":"{}","data":"#, signal.name);
    text.push_str(signal.data.as_str());
    if let Some(id) = &signal.id {
        let _ = write!(text, r#","id":"{id}""#);
    }
    text.push('}');
    Details {
        extra: Some(Json::from_text(&text).expect("names and ids need no escapes")),
        ..Details::default()
    }
}

impl Transition<'_> {
    /// An event of the run, with the status it has now.
    pub(super) fn run_event(&mut self, kind: EventKind, details: Details) {
        let status = self.run.status.name();
        self.event(kind, status, None, details);
    }

    /// An event of a step, with the status and attempt it has now.
    pub(super) fn step_event(&mut self, kind: EventKind, step: StepIndex, details: Details) {
        let state = &self.run.steps[step];
        let named = (self.workflow.steps[step].id.clone(), state.attempt);
        self.event(kind, state.status.name(), Some(named), details);
    }

    fn event(
        &mut self,
        kind: EventKind,
        status: &'static str,
        step: Option<(Arc<str>, u32)>,
        details: Details,
    ) {
        self.run.sequence += 1;
        self.changed = true;
        self.outbox.push(Effect::Event(Event {
            run: self.run.id.clone(),
            sequence: self.run.sequence,
            time: self.now,
            workflow: self.workflow.name.clone(),
            version: self.workflow.version,
            kind,
            status,
            step,
            output: details.output,
            error: details.error,
            extra: details.extra,
            provenance: self.run.provenance.clone(),
            depth: self.run.depth,
        }));
    }

    /// The task of the step's attempt as it stands now.
    pub(super) fn task(
        &mut self,
        step: StepIndex,
        task: Json,
        inputs: Json,
        deadline: Option<Timestamp>,
    ) {
        let effect = Effect::Dispatch {
            task: Task {
                task_id: self.task_id(step),
                run_id: self.run.id.clone(),
                workflow: self.workflow.name.as_ref().to_owned(),
                version: self.workflow.version,
                step_id: self.workflow.steps[step].id.as_ref().to_owned(),
                agent: self.agent(step).to_owned(),
                attempt: self.run.steps[step].attempt,
                epoch: self.run.epoch,
                task,
                inputs,
                deadline,
            },
            traceparent: self.run.traceparent.clone(),
        };
        self.outbox.push(effect);
    }

    /// Tells the agent that the step's open attempt was given up.
    pub(super) fn cancel_task(&mut self, step: StepIndex, reason: &str) {
        let effect = Effect::CancelTask(CancelTask {
            kind: "cancel".to_owned(),
            task_id: self.task_id(step),
            run_id: self.run.id.clone(),
            step_id: self.workflow.steps[step].id.as_ref().to_owned(),
            agent: self.agent(step).to_owned(),
            attempt: self.run.steps[step].attempt,
            epoch: self.run.epoch,
            reason: reason.to_owned(),
        });
        self.outbox.push(effect);
    }

    fn task_id(&self, step: StepIndex) -> String {
        let id = &self.workflow.steps[step].id;
        let mut text = String::with_capacity(self.run.id.as_str().len() + id.len() + 16);
        TaskId::write(
            &mut text,
            &self.run.id,
            id,
            self.run.epoch,
            self.run.steps[step].attempt,
        );
        text
    }

    fn agent(&self, step: StepIndex) -> &str {
        match &self.workflow.steps[step].kind {
            StepKind::Agent { agent, .. } => agent,
            StepKind::Switch { .. } | StepKind::Await { .. } | StepKind::AwaitPattern { .. } => {
                panic!("{} has no tasks", self.workflow.steps[step].id)
            }
        }
    }
}
