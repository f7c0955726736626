//! Pause, resume, cancel. A verb that already holds changes nothing; an ended run takes none.

use super::Transition;
use super::emit::Details;
use super::reply::{MAX_TEXT_BYTES, cut};
use crate::model::{EventKind, RunStatus, StepStatus};
use crate::workflow::effect::{Outcome, Refusal};

/// What a person may do to a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Steer {
    /// Nothing new is dispatched and no timer fires until the resume; replies are recorded. A run
    /// that has not been admitted yet waits likewise.
    Pause,
    /// First what the replies and signals recorded meanwhile lead to, which may be the run's end,
    /// then the timers that fell due meanwhile. A run that was paused before it was admitted queues
    /// again.
    Resume,
    /// Ends the run at once; open attempts are given up and their agents told.
    Cancel,
}

impl Steer {
    /// The answer where a run of this status needs, or takes, no change; `None` where it changes.
    pub fn without_change(self, status: RunStatus) -> Option<Outcome> {
        let holds = match self {
            Steer::Pause => status == RunStatus::Paused,
            Steer::Resume => matches!(status, RunStatus::Pending | RunStatus::Running),
            Steer::Cancel => status == RunStatus::Cancelled,
        };
        if holds {
            Some(Outcome::AlreadyHolds)
        } else if status.is_ended() {
            Some(Outcome::Refused(Refusal::Status { status }))
        } else {
            None
        }
    }
}

impl Transition<'_> {
    /// `depth` is that of the command.
    pub fn steer(mut self, verb: Steer, reason: Option<&str>, depth: u32) -> Outcome {
        if let Some(outcome) = verb.without_change(self.run.status) {
            return outcome;
        }
        self.run.depth = self.run.depth.max(depth);
        let reason = reason.map(|reason| cut(reason.to_owned(), MAX_TEXT_BYTES));
        let reason = reason.as_deref();
        match verb {
            Steer::Pause => {
                self.set_run_status(RunStatus::Paused);
                self.run_event(EventKind::RunPaused, Details::reason(reason));
            }
            Steer::Resume => self.resume(reason),
            Steer::Cancel => self.cancel_run(reason),
        }
        self.conclude();
        Outcome::Applied
    }

    fn resume(&mut self, reason: Option<&str>) {
        if self.run.started_at.is_none() {
            self.set_run_status(RunStatus::Pending);
            self.run_event(EventKind::RunResumed, Details::reason(reason));
            return;
        }
        self.set_run_status(RunStatus::Running);
        self.run_event(EventKind::RunResumed, Details::reason(reason));
        self.failed = self.first_failed();
        self.deliver_signals();
        self.consider_all();
        self.advance();
        self.fire_due();
    }

    /// Of the steps that failed while the run was paused, the one that did so first; in the order
    /// of the definition where that was in the same millisecond.
    fn first_failed(&self) -> Option<usize> {
        let failed = |step: &usize| self.run.steps[*step].status == StepStatus::Failed;
        (0..self.run.steps.len())
            .filter(failed)
            .min_by_key(|&step| self.run.steps[step].ended_at)
    }
}
