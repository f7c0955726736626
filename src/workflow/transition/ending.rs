//! The ends of a run. What is still under way is cancelled at once and its agents are told.

use super::Transition;
use super::emit::Details;
use crate::document::duration;
use crate::model::{EventKind, Failure, Json, RunStatus, StepStatus, class};
use crate::workflow::program::StepIndex;

const RUN_FAILED: &str = "run_failed";

impl Transition<'_> {
    /// All steps have ended well: the run completes with its output, or fails where that cannot
    /// be rendered or is too large.
    pub(super) fn complete_run(&mut self) {
        let output = match &self.workflow.output {
            None => Json::null(),
            Some(template) => match template.render(&self.bindings()) {
                Ok(output) => output,
                Err(error) => {
                    let message = format!("output: {error}");
                    return self
                        .fail_run(Failure::new(class::EXPRESSION_ERROR, message), RUN_FAILED);
                }
            },
        };
        if let Some(failure) = self.too_large("output", &output) {
            return self.fail_run(failure, RUN_FAILED);
        }
        self.end_run(RunStatus::Completed);
        self.run.output = Some(output.clone());
        self.run_event(EventKind::RunCompleted, Details::output(output));
    }

    /// A failed step that nothing handled fails the run.
    pub(super) fn fail_run_at(&mut self, step: StepIndex) {
        let cause = self.run.steps[step].error.as_ref();
        let (class, message) =
            cause.map_or((class::ERROR, ""), |cause| (&cause.class, &cause.message));
        let failure = Failure::new(class, message).at_step(&self.workflow.steps[step].id);
        self.fail_run(failure, RUN_FAILED);
    }

    /// Fails the run because its own timeout has passed; no step is to blame.
    pub(super) fn time_out_run(&mut self) {
        let timeout = duration::write(self.workflow.timeout.unwrap_or_default());
        let message = format!("the run exceeded its timeout of {timeout}");
        self.fail_run(Failure::new(class::TIMEOUT, message), class::TIMEOUT);
    }

    /// `reason` is what the agents of open attempts and the steps' events are told.
    fn fail_run(&mut self, failure: Failure, reason: &str) {
        self.cancel_unended_steps(reason);
        self.end_run(RunStatus::Failed);
        self.run.error = Some(failure.clone());
        self.run_event(EventKind::RunFailed, Details::error(failure));
    }

    /// Cancels the run on request.
    pub(super) fn cancel_run(&mut self, reason: Option<&str>) {
        self.cancel_unended_steps(class::CANCELLED);
        self.end_run(RunStatus::Cancelled);
        let failure = Failure::new(class::CANCELLED, reason.unwrap_or("cancelled on request"));
        self.run.error = Some(failure.clone());
        let mut details = Details::reason(reason);
        details.error = Some(failure);
        self.run_event(EventKind::RunCancelled, details);
    }

    /// One `cancelled` for each step that has not ended, in the order of the definition.
    fn cancel_unended_steps(&mut self, reason: &str) {
        for step in 0..self.run.steps.len() {
            let status = self.run.steps[step].status;
            if status.is_ended() {
                continue;
            }
            if status.is_open() {
                self.cancel_task(step, reason);
            }
            self.set_step_status(step, StepStatus::Cancelled);
            self.clear_timers(step);
            self.run.steps[step].ended_at = Some(self.now);
            self.step_event(
                EventKind::StepCancelled,
                step,
                Details::text("reason", reason),
            );
        }
    }

    /// An ended run has no timers, no signals that wait and nothing left to look at.
    fn end_run(&mut self, status: RunStatus) {
        self.set_run_status(status);
        self.run.ended_at = Some(self.now);
        self.run.deadline = None;
        self.run.inbox.waiting.clear();
        self.candidates.clear();
    }
}
