//! Steps that await a pattern of events. What they wait for is told to the patterns' stage, which
//! looks for it and says when it was found; like a reply, that counts in a paused run as well.

use serde_json::Value;

use super::Transition;
use super::emit::Details;
use crate::expr::{ExprError, Template};
use crate::model::signal::awaited_rule;
use crate::model::{
    EventKind, Failure, Json, Matched, RunState, StepStatus, TaskId, Watch, WatchedKey, class,
};
use crate::workflow::effect::{Effect, IgnoredSignal, Outcome, Refusal};
use crate::workflow::program::StepIndex;

/// Of what a step waits for, as JSON: it becomes part of the keys of records.
const MAX_KEY_BYTES: usize = 2_048;

/// What was found for a run that has ended: the answer, and the reason that is counted.
pub fn match_without_change(run: &RunState) -> Option<(IgnoredSignal, Outcome)> {
    let status = run.status;
    status.is_ended().then_some((
        IgnoredSignal::RunEnded,
        Outcome::Refused(Refusal::Status { status }),
    ))
}

impl Transition<'_> {
    /// The pattern was found: the step completes. Of an attempt that does not wait any more it is
    /// ignored.
    pub fn matched(mut self, matched: Matched) -> Outcome {
        let Matched { attempt, output } = matched;
        let is_of_now = |step: StepIndex| {
            let state = &self.run.steps[step];
            let is_attempt = (state.attempt, self.run.epoch) == (attempt.attempt, attempt.epoch);
            is_attempt && self.run.watched(step).is_some()
        };
        let step = self.workflow.by_id.get(&*attempt.step).copied();
        let Some(step) = step.filter(|step| is_of_now(*step)) else {
            self.outbox
                .push(Effect::IgnoredSignal(IgnoredSignal::NotAwaited));
            return Outcome::AlreadyHolds;
        };
        // Whoever found it watches no more.
        self.run.watches.retain(|watch| watch.step != step);
        let output = output.ok_or_else(|| {
            let message = "the events of the pattern are larger than a record can be";
            Failure::new(class::PAYLOAD_TOO_LARGE, message)
        });
        let output = output.and_then(|output| match self.too_large("output", &output) {
            None => Ok(output),
            Some(failure) => Err(failure),
        });
        match output {
            Ok(output) => self.complete_step(step, output),
            Err(failure) => self.fail_attempt(step, failure),
        }
        self.advance();
        self.conclude();
        Outcome::Applied
    }

    /// The step waits for its pattern, as its next attempt. In a run past its deadline nothing
    /// begins: its end is due already.
    pub(super) fn await_pattern(&mut self, step: StepIndex, key: &[Template]) {
        if self.is_past_deadline() {
            return;
        }
        let key = match self.rendered_key(key) {
            Ok(Ok(key)) => key,
            Ok(Err(failure)) => return self.fail_undispatched(step, failure),
            Err(error) => return self.fail_expression(step, "correlate", &error),
        };
        self.set_step_status(step, StepStatus::Waiting);
        self.begin_attempt(step);
        let watch = self.watch(step, key.clone());
        let told = serde_json::json!({"rule": &watch.rule, "key": &key});
        let details = Details {
            extra: Some(Json::from(told)),
            ..Details::default()
        };
        self.step_event(EventKind::StepWaiting, step, details);
        self.outbox.push(Effect::Watch(watch));
        self.run.watches.push(WatchedKey { step, key });
    }

    /// The attempt has ended otherwise than by its pattern.
    pub(super) fn stop_watching(&mut self, step: StepIndex) {
        let watches = &mut self.run.watches;
        let Some(place) = watches.iter().position(|watch| watch.step == step) else {
            return;
        };
        let WatchedKey { key, .. } = watches.remove(place);
        let watch = self.watch(step, key);
        self.outbox.push(Effect::Unwatch(watch));
    }

    fn watch(&self, step: StepIndex, key: Json) -> Watch {
        let id = &self.workflow.steps[step].id;
        Watch {
            rule: awaited_rule(&self.workflow.name, id),
            version: self.workflow.version,
            key,
            attempt: TaskId {
                run: self.run.id.clone(),
                step: id.to_string(),
                epoch: self.run.epoch,
                attempt: self.run.steps[step].attempt,
            },
        }
    }

    /// What the events must have: a list of texts, numbers and booleans.
    fn rendered_key(&self, templates: &[Template]) -> Result<Result<Json, Failure>, ExprError> {
        let mut values = Vec::with_capacity(templates.len());
        for template in templates {
            values.push(
                template
                    .render(&self.bindings())?
                    .parse()
                    .unwrap_or_default(),
            );
        }
        let failed = |message: String| Ok(Err(Failure::new(class::EXPRESSION_ERROR, message)));
        if let Some(number) = values.iter().find(|value| is_beyond_keys(value)) {
            return failed(format!(
                "correlate: no event is found by {number}, a number that fits no 64-bit integer (2^63 and more); \
                 give such ids as text, in the events as well"
            ));
        }
        let is_key = |value: &Value| value.is_string() || value.is_number() || value.is_boolean();
        if !values.iter().all(is_key) {
            let found = Value::Array(values);
            return failed(format!(
                "correlate: events are found by texts, numbers and booleans, not by {found}"
            ));
        }
        let key = Json::from(Value::Array(values));
        match key.len() {
            bytes if bytes > MAX_KEY_BYTES => failed(format!(
                "correlate: the values have {bytes} bytes of JSON; at most {MAX_KEY_BYTES} are allowed"
            )),
            _ => Ok(Ok(key)),
        }
    }
}

/// Whether it is a number that has lost digits where events are read: it would be one with others.
fn is_beyond_keys(value: &Value) -> bool {
    let is_beyond = |number: f64| number.abs() >= -(i64::MIN as f64);
    !value.is_i64() && value.as_f64().is_some_and(is_beyond)
}
