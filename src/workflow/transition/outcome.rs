//! How a step's attempt, and the step, ends: completed, skipped, failed, or to be tried again.

use super::Transition;
use super::emit::Details;
use crate::model::{EventKind, Failure, Json, Millis, StepStatus, class};
use crate::workflow::program::{Action, Backoff, Step, StepIndex, StepKind};

/// What follows a failed attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    Retry,
    Skip,
    Fail,
}

/// `on_error` first: skip and fail act at once, retry overrules `retry_on`; without it `retry_on`
/// decides. An expression error and what an agent calls not retryable are never tried again.
pub(super) fn decide(step: &Step, failure: &Failure, attempt: u32) -> Decision {
    let action = step.on_error.action(&failure.class);
    let class_is_retried = match action {
        Some(Action::Skip) => return Decision::Skip,
        Some(Action::Fail) => return Decision::Fail,
        Some(Action::Retry) => true,
        None => match &step.retry.retry_on {
            Some(classes) => classes.contains(&failure.class),
            None => failure.class != class::PAYLOAD_TOO_LARGE,
        },
    };
    let may_retry = class_is_retried
        && failure.class != class::EXPRESSION_ERROR
        && failure.retryable != Some(false)
        && attempt < step.retry.max_attempts;
    if may_retry {
        Decision::Retry
    } else {
        Decision::Fail
    }
}

/// The wait after the `attempt`th failed: `initial · multiplier^(attempt−1)`, at most `max`,
/// lengthened by up to 20 % of jitter that is the same for the same run, step and attempt.
pub(super) fn wait_before_retry(backoff: &Backoff, run: &str, step: &str, attempt: u32) -> Millis {
    let exponent = i32::try_from(attempt.saturating_sub(1)).unwrap_or(i32::MAX);
    let grown = backoff.initial.0 as f64 * backoff.multiplier.powi(exponent);
    let wait = grown.min(backoff.max.0 as f64);
    let jitter = wait * 0.2 * unit_hash(run, step, attempt);
    Millis((wait + jitter) as u64)
}

/// From 0 to under 1: FNV-1a over the parts, mixed by the finaliser of SplitMix64. Written out,
/// because it must give the same on every machine and in every release.
fn unit_hash(run: &str, step: &str, attempt: u32) -> f64 {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    let separated = run
        .bytes()
        .chain([0])
        .chain(step.bytes())
        .chain([0])
        .chain(attempt.to_le_bytes());
    for byte in separated {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^= hash >> 31;
    (hash >> 11) as f64 / (1_u64 << 53) as f64
}

impl Transition<'_> {
    pub(super) fn complete_step(&mut self, step: StepIndex, output: Json) {
        self.set_step_status(step, StepStatus::Completed);
        let state = &mut self.run.steps[step];
        state.output = Some(output.clone());
        state.error = None;
        self.step_ended(step);
        self.step_event(EventKind::StepCompleted, step, Details::output(output));
    }

    /// Skipped without having been tried; `reason` is what the event says.
    pub(super) fn skip_step(&mut self, step: StepIndex, reason: &str) {
        self.set_step_status(step, StepStatus::Skipped);
        self.step_ended(step);
        self.step_event(
            EventKind::StepSkipped,
            step,
            Details::text("reason", reason),
        );
    }

    /// The step's open attempt has failed, by its agent's word or by its output.
    pub(super) fn fail_attempt(&mut self, step: StepIndex, failure: Failure) {
        let decision = decide(
            &self.workflow.steps[step],
            &failure,
            self.run.steps[step].attempt,
        );
        self.follow(step, decision, failure, false);
    }

    /// The step's attempt was given up because a timer fell due. An agent that has it is told.
    pub(super) fn time_out_attempt(&mut self, step: StepIndex, message: String) {
        let failure = Failure::new(class::TIMEOUT, message);
        if matches!(self.workflow.steps[step].kind, StepKind::Agent { .. }) {
            self.cancel_task(step, class::TIMEOUT);
        }
        let decision = decide(
            &self.workflow.steps[step],
            &failure,
            self.run.steps[step].attempt,
        );
        self.follow(step, decision, failure, true);
    }

    /// The step failed before its task could be sent: trying again would give the same.
    pub(super) fn fail_undispatched(&mut self, step: StepIndex, failure: Failure) {
        let action = self.workflow.steps[step].on_error.action(&failure.class);
        let decision = match action {
            Some(Action::Skip) => Decision::Skip,
            _ => Decision::Fail,
        };
        self.follow(step, decision, failure, false);
    }

    /// Every event says the status that the step has after all of this.
    fn follow(&mut self, step: StepIndex, decision: Decision, failure: Failure, timed_out: bool) {
        let attempt = self.run.steps[step].attempt;
        let mut details = Details::error(failure.clone());
        let kind = match decision {
            Decision::Retry => {
                let definition = &self.workflow.steps[step];
                let backoff = &definition.retry.backoff;
                let retry_at = self.now
                    + wait_before_retry(backoff, self.run.id.as_str(), &definition.id, attempt);
                details = details.with_text("retry_at", &retry_at.to_string());
                self.set_step_status(step, StepStatus::Waiting);
                self.clear_timers(step);
                self.run.steps[step].retry_at = Some(retry_at);
                EventKind::StepRetrying
            }
            Decision::Skip => {
                details = details.with_text("reason", "on_error");
                self.set_step_status(step, StepStatus::Skipped);
                self.step_ended(step);
                EventKind::StepSkipped
            }
            Decision::Fail => {
                self.set_step_status(step, StepStatus::Failed);
                self.step_ended(step);
                self.failed.get_or_insert(step);
                EventKind::StepFailed
            }
        };
        self.run.steps[step].error = Some(failure.clone());
        if timed_out {
            self.step_event(EventKind::StepTimedOut, step, Details::error(failure));
        }
        self.step_event(kind, step, details);
    }

    /// What every end of a step does: its timers are gone and its dependants are looked at.
    pub(super) fn step_ended(&mut self, step: StepIndex) {
        self.clear_timers(step);
        self.run.steps[step].ended_at = Some(self.now);
        let workflow = self.workflow;
        self.candidates.extend(&workflow.steps[step].dependants);
    }

    /// Nothing falls due for the attempt any more, and no pattern is looked for.
    pub(super) fn clear_timers(&mut self, step: StepIndex) {
        let state = &mut self.run.steps[step];
        state.deadline = None;
        state.heartbeat_due = None;
        state.retry_at = None;
        self.stop_watching(step);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROWING: Backoff = Backoff {
        initial: Millis(1_000),
        multiplier: 2.0,
        max: Millis(60_000),
    };

    #[test]
    fn waits_grow_to_the_maximum_and_jitter_only_lengthens_them() {
        for attempt in 1..40 {
            let plain = 1_000_u64
                .saturating_mul(1 << (attempt - 1).min(20))
                .min(60_000);
            for run in 0..50 {
                let wait = wait_before_retry(&GROWING, &format!("run-{run}"), "step", attempt).0;
                assert!(
                    wait >= plain && wait <= plain + plain / 5,
                    "{wait} after attempt {attempt}"
                );
            }
        }
    }

    #[test]
    fn jitter_is_the_same_again_and_spreads() {
        let wait = |run: &str| wait_before_retry(&GROWING, run, "step", 1).0;
        assert_eq!(wait("a"), wait("a"));
        let distinct: std::collections::BTreeSet<u64> =
            (0..100).map(|run| wait(&format!("run-{run}"))).collect();
        assert!(
            distinct.len() > 50,
            "{} distinct waits of 100",
            distinct.len()
        );
    }

    #[test]
    fn a_multiplier_that_overflows_stays_at_the_maximum() {
        let steep = Backoff {
            multiplier: 1e300,
            ..GROWING
        };
        assert!(wait_before_retry(&steep, "run", "step", 4_000_000_000).0 <= 72_000);
        let at_once = Backoff {
            initial: Millis(0),
            max: Millis(0),
            ..GROWING
        };
        assert_eq!(wait_before_retry(&at_once, "run", "step", 3), Millis(0));
    }
}
