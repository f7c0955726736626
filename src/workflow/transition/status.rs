//! The legal transitions, and the only two functions that set a status. Anything else is a bug in
//! this program, never in its input, and panics with the state and what was tried.

use super::Transition;
use crate::model::{RunStatus, StepStatus};
use crate::workflow::program::StepIndex;

/// Whether a run may go from one status to another.
pub fn is_legal_run_transition(from: RunStatus, to: RunStatus) -> bool {
    use RunStatus::{Cancelled, Completed, Failed, Paused, Pending, Running};
    match from {
        Pending => matches!(to, Running | Paused | Cancelled),
        Running => matches!(to, Paused | Completed | Failed | Cancelled),
        // Back to pending: it was paused before it had been admitted.
        Paused => matches!(to, Running | Pending | Cancelled),
        Completed | Failed | Cancelled => false,
    }
}

/// Whether a step may go from one status to another.
pub fn is_legal_step_transition(from: StepStatus, to: StepStatus) -> bool {
    use StepStatus::{
        Cancelled, Compensated, Compensating, Completed, Failed, Pending, Running, Scheduled,
        Skipped, Waiting,
    };
    match from {
        // Completed: a switch. Waiting: for a signal. Failed: an expression or the size of its
        // inputs.
        Pending => matches!(
            to,
            Scheduled | Waiting | Completed | Failed | Skipped | Cancelled
        ),
        Scheduled => matches!(
            to,
            Running | Waiting | Completed | Failed | Skipped | Cancelled
        ),
        Running => matches!(to, Waiting | Completed | Failed | Skipped | Cancelled),
        // Waiting again: for a signal after a wait for the retry, or the other way round.
        Waiting => matches!(
            to,
            Scheduled | Waiting | Completed | Failed | Skipped | Cancelled
        ),
        // Nothing compensates yet.
        Completed | Failed | Skipped | Cancelled | Compensating | Compensated => false,
    }
}

impl Transition<'_> {
    pub(super) fn set_run_status(&mut self, to: RunStatus) {
        let from = self.run.status;
        assert!(
            is_legal_run_transition(from, to),
            "illegal transition of run {}: {} → {}",
            self.run.id,
            from.name(),
            to.name()
        );
        self.run.status = to;
        self.changed = true;
    }

    pub(super) fn set_step_status(&mut self, step: StepIndex, to: StepStatus) {
        let from = self.run.steps[step].status;
        assert!(
            is_legal_step_transition(from, to),
            "illegal transition of step {} of run {}: {} → {}",
            self.workflow.steps[step].id,
            self.run.id,
            from.name(),
            to.name()
        );
        self.run.steps[step].status = to;
        self.changed = true;
    }
}
