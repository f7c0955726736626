//! The beginning of a run: a start becomes a pending run; when there is a place it begins.

use std::sync::Arc;

use super::Transition;
use super::emit::Details;
use crate::model::{EventKind, Inbox, Json, RunState, RunStatus, Start, StepState, Timestamp};
use crate::workflow::Workflow;

/// The run that an accepted start makes, pending. Its revision is 1; it has no event yet.
pub fn accept(
    start: Start,
    workflow: &Workflow,
    traceparent: Option<String>,
    now: Timestamp,
) -> RunState {
    RunState {
        id: start.run_id,
        workflow: workflow.name.clone(),
        version: workflow.version,
        status: RunStatus::Pending,
        requested_version: start.version,
        input: start.input.unwrap_or_else(Json::null),
        tags: start.tags,
        priority: start.priority,
        created_at: now,
        started_at: None,
        ended_at: None,
        deadline: None,
        output: None,
        error: None,
        revision: 1,
        epoch: 0,
        sequence: 0,
        traceparent,
        steps: vec![StepState::default(); workflow.steps.len()],
        inbox: Inbox::default(),
        watches: Vec::new(),
        depth: start.provenance.as_ref().map_or(0, |from| from.depth),
        provenance: start.provenance.map(Arc::new),
    }
}

impl Transition<'_> {
    /// A pending run begins: its timeout counts from now and its first steps are dispatched.
    pub fn begin(mut self) {
        self.set_run_status(RunStatus::Running);
        self.run.started_at = Some(self.now);
        self.run.deadline = self.workflow.timeout.map(|timeout| self.now + timeout);
        let details = Details::provenance(self.run.provenance.as_deref());
        self.run_event(EventKind::RunStarted, details);
        self.consider_all();
        self.advance();
        self.conclude();
    }
}
