//! An agent's answer: checked against the attempt that is open, then applied, or ignored with the
//! reason that is counted.

use super::Transition;
use super::emit::{Details, progress_details};
use crate::model::{EventKind, Failure, Reply, ReplyStatus, RunState, StepStatus, TaskId, class};
use crate::workflow::Workflow;
use crate::workflow::effect::IgnoredReply;
use crate::workflow::program::{StepIndex, StepKind};

/// Of an agent's error message and progress note, and of the reason of a verb, in bytes; what is longer is
/// cut, and says so.
pub(super) const MAX_TEXT_BYTES: usize = 4_096;
/// Of the JSON of an agent's error details, which lie in the run's entry, in bytes.
const MAX_DETAILS_BYTES: usize = 16 << 10;
/// Of an agent's error class, in bytes.
const MAX_CLASS_BYTES: usize = 128;

impl Transition<'_> {
    /// Applies the reply; true where the run was changed.
    ///
    /// # Errors
    /// The reason where it is not of the attempt that is open; nothing is changed then.
    pub fn reply(mut self, reply: Reply) -> Result<bool, IgnoredReply> {
        let step = open_attempt(self.run, self.workflow, &reply)?;
        match reply.status {
            ReplyStatus::Completed { output } => match self.too_large("output", &output) {
                None => self.complete_step(step, output),
                Some(failure) => self.fail_attempt(step, failure),
            },
            ReplyStatus::Failed { error } => {
                let failure = self.bounded(error);
                self.fail_attempt(step, failure);
            }
            ReplyStatus::Progress { progress, note } => {
                self.hear_of(step);
                let is_number = |progress: &f64| progress.is_finite();
                let progress = progress.filter(is_number);
                let progress = progress.map(|progress| progress.clamp(0.0, 1.0));
                if progress.is_some() {
                    self.run.steps[step].progress = progress;
                }
                let note = note.map(|note| cut(note, MAX_TEXT_BYTES));
                let details = progress_details(progress, note.as_deref());
                self.step_event(EventKind::StepProgress, step, details);
            }
            ReplyStatus::Heartbeat => self.hear_of(step),
        }
        self.advance();
        Ok(self.conclude())
    }

    /// The agent is alive: the first word starts the attempt, each renews the heartbeat timeout.
    fn hear_of(&mut self, step: StepIndex) {
        if self.run.steps[step].status == StepStatus::Scheduled {
            self.set_step_status(step, StepStatus::Running);
            self.run.steps[step].started_at = Some(self.now);
            self.step_event(EventKind::StepStarted, step, Details::default());
        }
        if let Some(timeout) = self.workflow.steps[step].heartbeat_timeout {
            self.run.steps[step].heartbeat_due = Some(self.now + timeout);
            self.changed = true;
        }
    }

    /// An agent's error as it is kept: with a class, without a step of the agent's own naming,
    /// and no longer than what we can carry in the run.
    fn bounded(&self, error: Failure) -> Failure {
        let mut message = cut(error.message, MAX_TEXT_BYTES);
        let mut details = error.details;
        let limit = self.max_payload_bytes.min(MAX_DETAILS_BYTES);
        if let Some(too_large) = details.take_if(|details| details.len() > limit) {
            let bytes = too_large.len();
            message.push_str(&format!(
                " [`details` left out: {bytes} bytes of JSON; at most {limit} are kept]"
            ));
        }
        let class = match error.class.is_empty() {
            true => class::ERROR.to_owned(),
            false => cut(error.class, MAX_CLASS_BYTES),
        };
        Failure {
            class,
            message,
            retryable: error.retryable,
            details,
            step: None,
        }
    }
}

/// The step whose open attempt the reply answers. What the reply does not name is not checked.
fn open_attempt(
    run: &RunState,
    workflow: &Workflow,
    reply: &Reply,
) -> Result<StepIndex, IgnoredReply> {
    let of_task = match &reply.task_id {
        None => None,
        Some(text) => Some(task_of_reply(text, reply)?),
    };
    let epoch = reply.epoch.or(of_task.as_ref().map(|task| task.epoch));
    match epoch {
        Some(epoch) if epoch < run.epoch => return Err(IgnoredReply::StaleEpoch),
        Some(epoch) if epoch > run.epoch => return Err(IgnoredReply::Future),
        _ => {}
    }
    let step = *workflow
        .by_id
        .get(reply.step_id.as_str())
        .ok_or(IgnoredReply::UnknownStep)?;
    let state = &run.steps[step];
    let is_task = matches!(workflow.steps[step].kind, StepKind::Agent { .. });
    if state.attempt == 0 || !is_task {
        return Err(match run.status.is_ended() {
            true => IgnoredReply::RunEnded,
            false => IgnoredReply::NotScheduled,
        });
    }
    let attempt = reply.attempt.or(of_task.as_ref().map(|task| task.attempt));
    match attempt {
        Some(attempt) if attempt < state.attempt => return Err(IgnoredReply::StaleAttempt),
        Some(attempt) if attempt > state.attempt => return Err(IgnoredReply::Future),
        _ => {}
    }
    if run.status.is_ended() {
        return Err(IgnoredReply::RunEnded);
    }
    if !state.status.is_open() {
        return Err(IgnoredReply::Duplicate);
    }
    Ok(step)
}

/// A task id must be one of ours and agree with what else the reply says.
fn task_of_reply(text: &str, reply: &Reply) -> Result<TaskId, IgnoredReply> {
    let task = TaskId::parse(text).ok_or(IgnoredReply::WrongTaskId)?;
    let agrees = task.run == reply.run_id
        && task.step == reply.step_id
        && reply.attempt.is_none_or(|attempt| attempt == task.attempt)
        && reply.epoch.is_none_or(|epoch| epoch == task.epoch);
    if agrees {
        Ok(task)
    } else {
        Err(IgnoredReply::WrongTaskId)
    }
}

/// At most `limit` bytes of `text`, with a word on what was cut.
pub(super) fn cut(mut text: String, limit: usize) -> String {
    if text.len() <= limit {
        return text;
    }
    let whole = text.len();
    let end = (0..=limit)
        .rev()
        .find(|&end| text.is_char_boundary(end))
        .unwrap_or(0);
    text.truncate(end);
    text.push_str(&format!("… (cut, {whole} bytes in all)"));
    text
}
