//! How one run moves on: `(run, input, now)` → the run changed in place, and effects.
//!
//! A [`Transition`] is made for one input and consumed by it. The way of an input:
//!
//! 1. `begin` makes a run of a start and lets it run; `reply` checks an agent's answer and
//!    applies it; `signals` hands a signal to the step that waits for it, or keeps it; `patterns`
//!    has a step wait for a pattern and takes in what was found; `timers` finds what has fallen due; `verbs` pause, resume and cancel.
//! 2. Each of them ends steps through `outcome`: completed, failed, skipped, or waiting for a
//!    retry, which `decide` chooses from `on_error` and `retry`.
//! 3. `advance` then dispatches the steps whose dependencies have ended, evaluates switches,
//!    and, where no step is left or one has failed, `ending` ends the run.
//! 4. `emit` numbers events and writes tasks; `status` holds the table of legal transitions,
//!    the only place that sets a status; `bindings` lets expressions see the run.
//!
//! What was decided where the contract leaves room:
//! - An attempt's timers are all in the run. Of several that are due in one input, the earliest
//!   acts first; at equal times steps come in the order of the definition, the run's own timeout
//!   last. A reply that arrives before its overdue timer was acted upon still counts.
//! - A run past its deadline dispatches nothing more; its end is due in the same instant.
//! - A failure before a dispatch (`when`, templates, oversized `inputs`) is never tried again,
//!   because rendering again would give the same; `on_error: skip` applies to it.
//! - A switch has one event, `completed`: no task is scheduled for it.
//! - A step that awaits a signal has `waiting` for each attempt, also where the signal is there
//!   already. Signals that came in a pause reach the steps that wait before timers fire.
//! - A step that `on_error` skips keeps its error for those who look; its output is null.

mod advance;
mod begin;
mod bindings;
mod emit;
mod ending;
mod outcome;
mod patterns;
mod reply;
mod signals;
mod status;
mod timers;
mod verbs;

use std::collections::VecDeque;

pub use begin::accept;
pub use bindings::RunBindings;
pub use patterns::match_without_change;
pub use signals::signal_without_change;
pub use status::{is_legal_run_transition, is_legal_step_transition};
pub use verbs::Steer;

use super::Workflow;
use super::effect::Outbox;
use super::program::StepIndex;
use crate::model::{RunState, RunStatus, Timestamp};

/// One input being applied to one run.
pub struct Transition<'a> {
    run: &'a mut RunState,
    workflow: &'a Workflow,
    now: Timestamp,
    /// Of the JSON text of inputs and outputs, in bytes.
    max_payload_bytes: usize,
    outbox: &'a mut Outbox,
    /// Pending steps that a dependency of has ended, to be looked at by `advance`.
    candidates: VecDeque<StepIndex>,
    /// The first step that failed and that nothing handled.
    failed: Option<StepIndex>,
    changed: bool,
}

impl<'a> Transition<'a> {
    /// `workflow` is the version that `run` is pinned to.
    pub fn new(
        run: &'a mut RunState,
        workflow: &'a Workflow,
        max_payload_bytes: usize,
        now: Timestamp,
        outbox: &'a mut Outbox,
    ) -> Self {
        assert_eq!(
            run.steps.len(),
            workflow.steps.len(),
            "run {} has the steps of another version than {}@{}",
            run.id,
            workflow.name,
            workflow.version
        );
        Self {
            run,
            workflow,
            now,
            max_payload_bytes,
            outbox,
            candidates: VecDeque::new(),
            failed: None,
            changed: false,
        }
    }

    /// Closes the transition; true where the run was changed.
    fn conclude(self) -> bool {
        if self.changed {
            self.run.revision += 1;
        }
        self.changed
    }

    fn is_running(&self) -> bool {
        self.run.status == RunStatus::Running
    }

    fn is_past_deadline(&self) -> bool {
        self.run
            .deadline
            .is_some_and(|deadline| deadline <= self.now)
    }
}
