//! Signals: the oldest step that waits for one takes it, else it waits for the step.

use super::Transition;
use super::bindings::SignalBindings;
use super::emit::{Details, signal_details};
use crate::model::{EventKind, RunState, Signal, StepStatus, WaitingSignal};
use crate::workflow::effect::{IgnoredSignal, Outcome, Refusal};
use crate::workflow::program::{StepIndex, StepKind};

/// The answer where the run needs, or takes, no change by this signal, and the reason that is
/// counted; `None` where it changes.
pub fn signal_without_change(run: &RunState, signal: &Signal) -> Option<(IgnoredSignal, Outcome)> {
    // Of a signal that was taken before the run ended, the sender may still ask again.
    if signal.id.as_ref().is_some_and(|id| run.inbox.knows(id)) {
        return Some((IgnoredSignal::Duplicate, Outcome::AlreadyHolds));
    }
    let status = run.status;
    status.is_ended().then_some((
        IgnoredSignal::RunEnded,
        Outcome::Refused(Refusal::Status { status }),
    ))
}

impl Transition<'_> {
    /// Takes the signal in: a step that waits completes with its data, else it waits itself. A run
    /// that is not running only keeps it. What [`signal_without_change`] has an answer for must not
    /// come here.
    pub fn signal(mut self, signal: Signal, max_waiting: usize) -> Outcome {
        debug_assert_eq!(signal_without_change(self.run, &signal), None);
        let depth = signal.depth;
        let signal = WaitingSignal {
            name: signal.name,
            data: signal.data.unwrap_or_default(),
            id: signal.id,
            received_at: self.now,
            place: 0,
        };
        let taker = self.taker_of(&signal);
        if taker.is_none() && self.run.inbox.waiting.len() >= max_waiting {
            return Outcome::Refused(Refusal::TooManySignals { limit: max_waiting });
        }
        self.run.depth = self.run.depth.max(depth);
        if let Some(id) = &signal.id {
            self.run.inbox.remember(id.clone());
        }
        self.run_event(EventKind::RunSignalled, signal_details(&signal));
        match taker {
            Some(step) => self.complete_step(step, signal.data),
            None => self.run.inbox.put(signal),
        }
        self.advance();
        self.conclude();
        Outcome::Applied
    }

    /// The step waits for its signal, as its next attempt; one that came before is taken at once.
    /// In a run past its deadline nothing begins: its end is due already.
    pub(super) fn await_signal(&mut self, step: StepIndex) {
        if self.is_past_deadline() {
            return;
        }
        let StepKind::Await { signal, .. } = &self.workflow.steps[step].kind else {
            panic!("{} awaits no signal", self.workflow.steps[step].id);
        };
        self.set_step_status(step, StepStatus::Waiting);
        self.begin_attempt(step);
        self.step_event(
            EventKind::StepWaiting,
            step,
            Details::text("signal", signal.as_str()),
        );
        self.take_from_inbox(step);
    }

    /// What came while the run was paused reaches the steps that wait.
    pub(super) fn deliver_signals(&mut self) {
        for step in self.awaiting() {
            self.take_from_inbox(step);
        }
    }

    fn take_from_inbox(&mut self, step: StepIndex) {
        let waiting = &self.run.inbox.waiting;
        let Some(place) = waiting.iter().position(|signal| self.takes(step, signal)) else {
            return;
        };
        let signal = self.run.inbox.waiting.remove(place);
        self.complete_step(step, signal.data);
    }

    fn taker_of(&self, signal: &WaitingSignal) -> Option<StepIndex> {
        match self.is_running() {
            true => self
                .awaiting()
                .into_iter()
                .find(|&step| self.takes(step, signal)),
            false => None,
        }
    }

    /// Steps that wait for a signal, those that have waited longest first; at equal times in the
    /// order of the definition.
    fn awaiting(&self) -> Vec<StepIndex> {
        let is_awaiting = |step: &StepIndex| {
            matches!(self.workflow.steps[*step].kind, StepKind::Await { .. })
                && self.run.steps[*step].is_awaiting()
        };
        let mut steps: Vec<StepIndex> = (0..self.run.steps.len()).filter(is_awaiting).collect();
        steps.sort_by_key(|&step| self.run.steps[step].scheduled_at);
        steps
    }

    /// A condition that has no answer for a signal, since a field is missing or of another type,
    /// does not hold for it.
    fn takes(&self, step: StepIndex, signal: &WaitingSignal) -> bool {
        let StepKind::Await {
            signal: name,
            condition,
        } = &self.workflow.steps[step].kind
        else {
            return false;
        };
        let bindings = || SignalBindings {
            run: self.bindings(),
            signal,
        };
        *name == signal.name
            && condition
                .as_ref()
                .is_none_or(|condition| condition.eval(&bindings()).unwrap_or(false))
    }
}
