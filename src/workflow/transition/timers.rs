//! What has fallen due: attempts without an answer, agents that are silent, waits that are over,
//! and the run's own timeout.

use super::Transition;
use crate::document::duration;
use crate::model::{StepStatus, Timestamp};
use crate::workflow::program::{StepIndex, StepKind};

/// One timer. The order of the variants is the order at equal times.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Timer {
    OfStep(StepIndex, StepTimer),
    RunDeadline,
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum StepTimer {
    Deadline,
    Heartbeat,
    Retry,
}

impl Transition<'_> {
    /// Acts on everything that is due; true where the run was changed.
    pub fn tick(mut self) -> bool {
        self.fire_due();
        self.conclude()
    }

    /// Each timer that is due now acts once, the earliest first. Timers that come about meanwhile
    /// wait for the next input, so this ends.
    pub(super) fn fire_due(&mut self) {
        for (at, timer) in self.due() {
            if !self.is_running() {
                return;
            }
            match timer {
                Timer::RunDeadline => self.time_out_run(),
                Timer::OfStep(step, timer) => self.fire_of_step(step, timer, at),
            }
            self.advance();
        }
    }

    fn due(&self) -> Vec<(Timestamp, Timer)> {
        let mut due = Vec::new();
        if !self.is_running() {
            return due;
        }
        let mut add = |at: Option<Timestamp>, timer: Timer| {
            if let Some(at) = at.filter(|&at| at <= self.now) {
                due.push((at, timer));
            }
        };
        for (step, state) in self.run.steps.iter().enumerate() {
            add(state.deadline, Timer::OfStep(step, StepTimer::Deadline));
            add(
                state.heartbeat_due,
                Timer::OfStep(step, StepTimer::Heartbeat),
            );
            add(state.retry_at, Timer::OfStep(step, StepTimer::Retry));
        }
        add(self.run.deadline, Timer::RunDeadline);
        due.sort_unstable();
        due
    }

    /// An earlier timer of this input may have ended the attempt, and this timer with it.
    fn fire_of_step(&mut self, step: StepIndex, timer: StepTimer, at: Timestamp) {
        let definition = &self.workflow.steps[step];
        let state = &self.run.steps[step];
        let attempt = state.attempt;
        match timer {
            StepTimer::Deadline if state.deadline == Some(at) => {
                let timeout = duration::write(definition.timeout.unwrap_or_default());
                let message = match &definition.kind {
                    StepKind::Await { signal, .. } => {
                        format!("no signal `{signal}` came within {timeout}")
                    }
                    StepKind::AwaitPattern { .. } => {
                        format!("no events made the pattern within {timeout}")
                    }
                    _ => format!("attempt {attempt} exceeded its timeout of {timeout}"),
                };
                self.time_out_attempt(step, message);
            }
            StepTimer::Heartbeat if state.heartbeat_due == Some(at) => {
                let timeout = duration::write(definition.heartbeat_timeout.unwrap_or_default());
                let message = format!(
                    "nothing was heard of attempt {attempt} for {timeout} (heartbeat_timeout)"
                );
                self.time_out_attempt(step, message);
            }
            StepTimer::Retry if state.retry_at == Some(at) => {
                debug_assert_eq!(
                    state.status,
                    StepStatus::Waiting,
                    "only waiting steps have retry_at"
                );
                self.attempt(step);
            }
            StepTimer::Deadline | StepTimer::Heartbeat | StepTimer::Retry => {}
        }
    }
}
