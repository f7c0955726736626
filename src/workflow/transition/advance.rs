//! Moving on: steps whose dependencies have ended are skipped, decided or dispatched, until
//! nothing more can happen without an answer from outside; then the run may end.

use super::Transition;
use super::bindings::RunBindings;
use super::emit::Details;
use crate::expr::ExprError;
use crate::model::{EventKind, Failure, Json, StepStatus, class};
use crate::workflow::program::{Case, StepIndex, StepKind};

impl Transition<'_> {
    /// Has `advance` look at every step: at the begin and at a resume.
    pub(super) fn consider_all(&mut self) {
        self.candidates.extend(0..self.workflow.steps.len());
    }

    /// Works through the candidates, and through those that their ends bring up; ends the run
    /// where a step has failed or none is left. Does nothing while the run is not running.
    pub(super) fn advance(&mut self) {
        if !self.is_running() {
            return;
        }
        while self.failed.is_none() {
            let Some(step) = self.candidates.pop_front() else {
                break;
            };
            if self.is_ready(step) {
                self.take_up(step);
            }
        }
        if let Some(step) = self.failed {
            self.fail_run_at(step);
        } else if self.run.steps.iter().all(|step| step.status.is_ended()) {
            self.complete_run();
        }
    }

    /// Pending, and everything it depends on has completed or was skipped.
    fn is_ready(&self, step: StepIndex) -> bool {
        let status = |step: StepIndex| self.run.steps[step].status;
        status(step) == StepStatus::Pending
            && self.workflow.steps[step]
                .depends_on
                .iter()
                .all(|&on| matches!(status(on), StepStatus::Completed | StepStatus::Skipped))
    }

    /// A ready step: its `when` decides whether it is skipped, else it does what its kind does.
    fn take_up(&mut self, step: StepIndex) {
        let workflow = self.workflow;
        let definition = &workflow.steps[step];
        if self.is_in_no_branch(step) {
            return self.skip_step(step, "branch_not_taken");
        }
        let wanted = match &definition.when {
            None => Ok(true),
            Some(when) => when.eval(&self.bindings()),
        };
        match wanted {
            Err(error) => return self.fail_expression(step, "when", &error),
            Ok(false) => return self.skip_step(step, "when"),
            Ok(true) => {}
        }
        self.attempt(step);
    }

    /// Whether the step is in branches of switches alone that were skipped: those took none.
    fn is_in_no_branch(&self, step: StepIndex) -> bool {
        let guards = &self.workflow.steps[step].guarded_by;
        let is_skipped = |switch: StepIndex| self.run.steps[switch].status == StepStatus::Skipped;
        !guards.is_empty() && guards.iter().all(|(by, _)| is_skipped(*by))
    }

    /// Does what the step's kind does, for the first time or again.
    pub(super) fn attempt(&mut self, step: StepIndex) {
        let workflow = self.workflow;
        match &workflow.steps[step].kind {
            StepKind::Agent { .. } => self.dispatch(step),
            StepKind::Switch { cases, .. } => self.choose(step, cases),
            StepKind::Await { .. } => self.await_signal(step),
            StepKind::AwaitPattern { key } => self.await_pattern(step, key),
        }
    }

    /// Renders the step's task and sends it as the next attempt. A run past its deadline sends
    /// nothing: its end is due already.
    fn dispatch(&mut self, step: StepIndex) {
        if self.is_past_deadline() {
            return;
        }
        let workflow = self.workflow;
        let definition = &workflow.steps[step];
        let StepKind::Agent { task, inputs, .. } = &definition.kind else {
            panic!("{} is never dispatched", definition.id);
        };
        let task = match task.render(&self.bindings()) {
            Ok(task) => task,
            Err(error) => return self.fail_expression(step, "task", &error),
        };
        if let Some(failure) = self.too_large("task", &task) {
            return self.fail_undispatched(step, failure);
        }
        let inputs = match inputs.render(&self.bindings()) {
            Ok(inputs) => inputs,
            Err(error) => return self.fail_expression(step, "inputs", &error),
        };
        if let Some(failure) = self.too_large("inputs", &inputs) {
            return self.fail_undispatched(step, failure);
        }
        self.set_step_status(step, StepStatus::Scheduled);
        self.begin_attempt(step);
        let deadline = self.run.steps[step].deadline;
        self.step_event(EventKind::StepScheduled, step, Details::default());
        self.task(step, task, inputs, deadline);
    }

    /// Counts the attempt and sets its timers.
    pub(super) fn begin_attempt(&mut self, step: StepIndex) {
        let definition = &self.workflow.steps[step];
        let now = self.now;
        let state = &mut self.run.steps[step];
        state.attempt += 1;
        state.scheduled_at = Some(now);
        state.started_at = None;
        state.retry_at = None;
        state.progress = None;
        state.deadline = definition.timeout.map(|timeout| now + timeout);
        state.heartbeat_due = definition.heartbeat_timeout.map(|timeout| now + timeout);
    }

    /// A switch takes the first branch whose condition holds; the steps of the others are skipped.
    fn choose(&mut self, step: StepIndex, cases: &[Case]) {
        let mut taken = cases.len();
        for (place, case) in cases.iter().enumerate() {
            match case.when.eval(&self.bindings()) {
                Err(error) => return self.fail_expression(step, "switch", &error),
                Ok(false) => {}
                Ok(true) => {
                    taken = place;
                    break;
                }
            }
        }
        self.run.steps[step].started_at = Some(self.now);
        self.complete_step(step, branch_output(cases, taken));
        self.skip_branches_not_taken(step, taken);
    }

    fn skip_branches_not_taken(&mut self, switch: StepIndex, taken: usize) {
        let workflow = self.workflow;
        for &dependant in &workflow.steps[switch].dependants {
            let guards = &workflow.steps[dependant].guarded_by;
            let mut of_this = guards.iter().filter(|(by, _)| *by == switch).peekable();
            let is_guarded = of_this.peek().is_some();
            let is_taken = of_this.any(|&(_, branch)| branch == taken);
            let is_pending = self.run.steps[dependant].status == StepStatus::Pending;
            if is_guarded && !is_taken && is_pending {
                self.skip_step(dependant, "branch_not_taken");
            }
        }
    }

    pub(super) fn fail_expression(&mut self, step: StepIndex, place: &str, error: &ExprError) {
        let failure = Failure::new(class::EXPRESSION_ERROR, format!("{place}: {error}"));
        self.fail_undispatched(step, failure);
    }

    /// The failure for a value over the limit; `None` where it fits.
    pub(super) fn too_large(&self, what: &str, value: &Json) -> Option<Failure> {
        let limit = self.max_payload_bytes;
        (value.len() > limit).then(|| {
            let message = format!(
                "`{what}` is {} bytes of JSON; at most {limit} are allowed (max_payload_bytes)",
                value.len()
            );
            Failure::new(class::PAYLOAD_TOO_LARGE, message)
        })
    }

    pub(super) fn bindings(&self) -> RunBindings<'_> {
        RunBindings {
            run: self.run,
            workflow: self.workflow,
        }
    }
}

/// `{"branch": …}`: the case's name, else its place; `"default"` where no case holds.
fn branch_output(cases: &[Case], taken: usize) -> Json {
    let branch = match cases.get(taken) {
        None => serde_json::Value::from("default"),
        Some(case) => match &case.name {
            Some(name) => serde_json::Value::from(name.as_str()),
            None => serde_json::Value::from(taken),
        },
    };
    Json::from(serde_json::json!({ "branch": branch }))
}
