//! What must hold of every effect and of every run, read from the outside.

use std::collections::BTreeMap;

use partita::engine::{Effect, Emitted, Input, Outcome};
use partita::model::{Event, EventKind, RunId, RunState, RunStatus, StepStatus, Timestamp};
use partita::workflow::Workflow;
use partita::workflow::program::StepKind;
use partita::workflow::transition::{is_legal_run_transition, is_legal_step_transition};

/// What an input is about.
pub struct Cause {
    run: RunId,
    /// Of a reply that names its attempt.
    attempt: Option<(String, u32)>,
}

impl Cause {
    pub fn of(input: &Input) -> Self {
        let run = match input {
            Input::Command { command, .. } => command.run_id(),
            Input::Selected(_) => panic!("these inputs name their runs"),
            Input::Reply(reply) => &reply.run_id,
            Input::Tick(run) => run,
            Input::Unpark(key) => &key.run,
        };
        let attempt = match input {
            Input::Reply(reply) => reply
                .attempt
                .map(|attempt| (reply.step_id.clone(), attempt)),
            _ => None,
        };
        Self {
            run: run.clone(),
            attempt,
        }
    }

    /// A reply has results for the attempt that it names and for no other.
    fn check(&self, event: &Event) {
        let (Some((step, attempt)), Some((of_step, of_attempt))) = (&self.attempt, &event.step)
        else {
            return;
        };
        let is_result = matches!(
            event.kind,
            EventKind::StepCompleted | EventKind::StepRetrying | EventKind::StepProgress
        );
        if is_result && step.as_str() == of_step.as_ref() {
            assert_eq!(attempt, of_attempt, "I4: a result of another attempt");
        }
    }
}

/// What is known of one attempt of one step from the effects alone. Attempt 0: before the first.
#[derive(Default, Debug)]
pub struct AttemptLog {
    dispatched: u32,
    /// It waited for a signal instead.
    waited: u32,
    /// Completed, failed, retrying, skipped: how the attempt ended.
    results: u32,
    timed_out: u32,
    cancelled: u32,
    cancel_tasks: u32,
}

/// A run as its history tells it.
pub struct Told {
    status: RunStatus,
    steps: BTreeMap<String, StepStatus>,
    sequence: u64,
    ends: u32,
}

/// Reads every effect and checks what must hold of them.
#[derive(Default)]
pub struct Auditor {
    runs: BTreeMap<RunId, Told>,
    attempts: BTreeMap<(RunId, String, u32), AttemptLog>,
    started: BTreeMap<RunId, u32>,
}

impl Auditor {
    pub fn read(&mut self, emitted: &[Emitted], causes: &[Cause]) {
        for Emitted { input, effect } in emitted {
            match effect {
                Effect::Event(event) => {
                    self.event(event);
                    if let Some(input) = input {
                        causes[*input].check(event);
                    }
                }
                Effect::Dispatch { task, .. } => {
                    let told = &self.runs[&task.run_id];
                    assert_eq!(
                        told.status,
                        RunStatus::Running,
                        "dispatched in a run that is not running"
                    );
                    let log = self.attempts.entry((
                        task.run_id.clone(),
                        task.step_id.clone(),
                        task.attempt,
                    ));
                    log.or_default().dispatched += 1;
                }
                Effect::CancelTask(cancel) => {
                    let key = (
                        cancel.run_id.clone(),
                        cancel.step_id.clone(),
                        cancel.attempt,
                    );
                    self.attempts.entry(key).or_default().cancel_tasks += 1;
                }
                Effect::Answer(Outcome::Started) => {
                    let run = causes[input.expect("an answer has its input")].run.clone();
                    *self.started.entry(run).or_default() += 1;
                }
                _ => {}
            }
        }
    }

    fn event(&mut self, event: &Event) {
        let told = self.runs.entry(event.run.clone()).or_insert_with(|| Told {
            status: RunStatus::Pending,
            steps: BTreeMap::new(),
            sequence: 0,
            ends: 0,
        });
        told.sequence += 1;
        assert_eq!(event.sequence, told.sequence, "I2: numbered densely");
        assert_eq!(told.ends, 0, "nothing comes after the end of a run");
        told.ends += u32::from(event.kind.is_terminal());
        let Some((step, attempt)) = &event.step else {
            let to = RunStatus::ALL
                .into_iter()
                .find(|status| status.name() == event.status);
            let to = to.expect("a run's event has a run's status");
            assert!(
                told.status == to || is_legal_run_transition(told.status, to),
                "I6: {:?} to {to:?}",
                told.status
            );
            told.status = to;
            return;
        };
        let to = StepStatus::ALL
            .into_iter()
            .find(|status| status.name() == event.status);
        let to = to.expect("a step's event has a step's status");
        let from = told
            .steps
            .insert(step.to_string(), to)
            .unwrap_or(StepStatus::Pending);
        assert!(
            from == to || is_legal_step_transition(from, to),
            "I6: {step} {from:?} to {to:?}"
        );
        let log = self
            .attempts
            .entry((event.run.clone(), step.to_string(), *attempt))
            .or_default();
        match event.kind {
            EventKind::StepCompleted
            | EventKind::StepFailed
            | EventKind::StepRetrying
            | EventKind::StepSkipped => log.results += 1,
            EventKind::StepWaiting => log.waited += 1,
            EventKind::StepTimedOut => log.timed_out += 1,
            EventKind::StepCancelled => log.cancelled += 1,
            _ => {}
        }
        assert!(log.results <= 1, "I4: two results of {step}/{attempt}");
    }

    /// What must hold when everything has ended.
    pub fn close(&self, committed: &BTreeMap<RunId, RunState>) {
        for (id, starts) in &self.started {
            assert_eq!(*starts, 1, "I1: {id} was acknowledged as new once");
            assert!(
                committed.contains_key(id),
                "I1: an acknowledged start is a run"
            );
        }
        assert_eq!(
            self.started.len(),
            committed.len(),
            "I1: a run has an acknowledged start"
        );
        for run in committed.values() {
            self.close_run(run);
        }
        for (key, log) in self
            .attempts
            .iter()
            .filter(|((_, _, attempt), _)| *attempt > 0)
        {
            let begun = log.dispatched + log.waited;
            assert_eq!(begun, 1, "{key:?} was dispatched once, or waited: {log:?}");
            let given_up = log.timed_out > 0 || (log.cancelled > 0 && log.results == 0);
            let given_up = given_up && log.dispatched == 1;
            assert_eq!(log.cancel_tasks, u32::from(given_up), "{key:?} {log:?}");
            assert!(
                log.results + log.cancelled >= 1,
                "{key:?} has no end: {log:?}"
            );
        }
    }

    fn close_run(&self, run: &RunState) {
        let told = &self.runs[&run.id];
        assert!(run.status.is_ended(), "I7: {} has ended", run.id);
        assert_eq!(told.ends, 1, "one end");
        assert_eq!(told.status, run.status, "the history folds to the state");
        assert_eq!(told.sequence, run.sequence);
        for (place, step) in run.steps.iter().enumerate() {
            assert_eq!(
                told.steps[&format!("s{place}")],
                step.status,
                "the history folds to the state"
            );
            assert!(
                step.deadline.is_none() && step.heartbeat_due.is_none() && step.retry_at.is_none()
            );
            assert!(step.status.is_ended() && step.ended_at.is_some());
        }
        assert!(run.deadline.is_none() && run.ended_at.is_some());
        assert!(run.inbox.waiting.is_empty() && run.watches.is_empty());
        assert_eq!(run.output.is_some(), run.status == RunStatus::Completed);
        assert_eq!(run.error.is_some(), run.status != RunStatus::Completed);
    }
}

/// In a run that is running, every step that could be taken up was, and the run goes on.
pub fn nothing_lies_about(run: &RunState, workflow: &Workflow, now: Timestamp) {
    if run.status != RunStatus::Running || run.deadline.is_some_and(|deadline| deadline <= now) {
        return;
    }
    for (step, state) in workflow.steps.iter().zip(&run.steps) {
        if let StepKind::Await { signal, .. } = &step.kind {
            let is_there = run.inbox.waiting.iter().any(|it| it.name == *signal);
            assert!(
                !(state.is_awaiting() && is_there),
                "{} of {} waits for what is there",
                step.id,
                run.id
            );
        }
        let waits = step
            .depends_on
            .iter()
            .any(|&on| !run.steps[on].status.is_ended());
        assert!(
            state.status != StepStatus::Pending || waits,
            "{} of {} lies about",
            step.id,
            run.id
        );
    }
    assert!(
        run.steps.iter().any(|step| !step.status.is_ended()),
        "{} has no end",
        run.id
    );
}
