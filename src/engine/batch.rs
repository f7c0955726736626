//! The inputs of one transaction, applied one by one.

use super::overlay::{Overlay, Place};
use super::parking::Parking;
use super::{
    Changes, Definitions, Effect, EngineConfig, Finished, IgnoredReply, Input, Origin, Outcome,
    Parked, ParkedKey, Refusal, StateView,
};
use crate::model::{
    Command, Failure, Json, Matched, Reply, RunId, RunState, RunStatus, Signal, Start, Timestamp,
    Verb,
};
use crate::workflow::Workflow;
use crate::workflow::effect::Outbox;
use crate::workflow::transition::{self, Steer, Transition};

/// What the tags of a start are called where there is too much of them.
pub const TAGS: &str = "mapping of tags";

/// Inputs applied over committed state, and nothing committed yet. Dropping it undoes all.
pub struct Batch<'a> {
    pub(super) config: &'a EngineConfig,
    pub(super) view: &'a dyn StateView,
    pub(super) overlay: Overlay<'a>,
    definitions: &'a dyn Definitions,
    parking: Parking,
    pub(super) outbox: Outbox,
    inputs: usize,
    /// Whether runs wait for a place; `None`: not looked yet.
    pub(super) has_queue: Option<bool>,
}

impl<'a> Batch<'a> {
    pub(super) fn new(
        config: &'a EngineConfig,
        definitions: &'a dyn Definitions,
        view: &'a dyn StateView,
    ) -> Self {
        Self {
            config,
            view,
            overlay: Overlay::new(view, definitions),
            definitions,
            parking: Parking::default(),
            outbox: Outbox::default(),
            inputs: 0,
            has_queue: None,
        }
    }

    /// Applies one input and returns its number, from 0, by which its effects are told
    /// ([`super::Emitted::input`]). `origin` makes the record that the input came from; it is
    /// called for a reply that has to be kept aside and for nothing else.
    pub fn apply(
        &mut self,
        input: Input,
        origin: impl FnOnce() -> Origin,
        now: Timestamp,
    ) -> usize {
        let number = self.inputs;
        self.inputs += 1;
        self.outbox.input = Some(number);
        match input {
            Input::Command {
                command,
                traceparent,
                caller_waits,
            } => {
                self.command(command, traceparent, caller_waits, now);
            }
            Input::Selected(selected) => self.selected(selected, now),
            Input::Reply(reply) => {
                let outcome = self.reply(reply, origin, now);
                self.outbox.push(Effect::Answer(outcome));
            }
            Input::Tick(run) => self.tick(&run, now),
            Input::Unpark(key) => self.unpark(&key, now),
        }
        number
    }

    /// Admits runs that wait for a place, and gives out everything that the batch came to.
    pub fn finish(mut self, now: Timestamp) -> Finished {
        self.outbox.input = None;
        self.admit(now);
        Finished {
            changes: Changes {
                runs: self.overlay.into_changed(),
                parked: self.parking.into_changes(),
            },
            effects: self.outbox.emitted,
        }
    }

    fn command(
        &mut self,
        command: Command,
        traceparent: Option<String>,
        caller_waits: bool,
        now: Timestamp,
    ) {
        let run = command.run_id().clone();
        let outcome = self.carry_out(command, traceparent, now);
        if let Outcome::Refused(refusal) = &outcome
            && refusal.is_dead_letter()
            && !caller_waits
        {
            self.dead_letter(refusal.failure(), &run, None);
        }
        self.outbox.push(Effect::Answer(outcome));
    }

    pub(super) fn carry_out(
        &mut self,
        command: Command,
        traceparent: Option<String>,
        now: Timestamp,
    ) -> Outcome {
        match command {
            Command::Start(start) => self.start(start, traceparent, now),
            Command::Pause(verb) => self.steer(Steer::Pause, &verb, now),
            Command::Resume(verb) => self.steer(Steer::Resume, &verb, now),
            Command::Cancel(verb) => self.steer(Steer::Cancel, &verb, now),
            Command::Signal(signal) => self.signal(signal, now),
            Command::Match(matched) => self.matched(matched, now),
        }
    }

    fn start(&mut self, start: Start, traceparent: Option<String>, now: Timestamp) -> Outcome {
        if let Some(place) = self.overlay.find(&start.run_id) {
            let run = self.overlay.run(place);
            return match is_same_start(run, &start) {
                true => Outcome::AlreadyStarted,
                false => Outcome::Refused(Refusal::Conflict { status: run.status }),
            };
        }
        let Some(workflow) = self.definitions.workflow(&start.workflow, start.version) else {
            return Outcome::Refused(Refusal::UnknownWorkflow {
                workflow: start.workflow,
                version: start.version,
            });
        };
        let checked = self
            .check_size(TAGS, start.tags_json().as_ref())
            .and_then(|()| self.check_input(&workflow, start.input.as_ref()));
        if let Err(refusal) = checked {
            return Outcome::Refused(refusal);
        }
        let run = transition::accept(start, &workflow, traceparent, now);
        let may_begin = self.may_begin();
        let place = self.overlay.insert(run, workflow.clone());
        match may_begin {
            true => self.begin(place, &workflow, now),
            false => self.has_queue = Some(true),
        }
        Outcome::Started
    }

    fn check_input(&self, workflow: &Workflow, input: Option<&Json>) -> Result<(), Refusal> {
        self.check_size("input", input)?;
        let Some(schema) = &workflow.input_schema else {
            return Ok(());
        };
        let invalid = |message: String| Refusal::InputInvalid { message };
        let value = match input {
            None => serde_json::Value::Null,
            Some(input) => input.parse().map_err(|error| invalid(error.to_string()))?,
        };
        schema.0.validate(&value).map_err(|error| {
            let at = error.instance_path().to_string();
            let place = if at.is_empty() {
                String::new()
            } else {
                format!("{at}: ")
            };
            invalid(format!("{place}{error}"))
        })
    }

    pub(super) fn check_size(
        &self,
        what: &'static str,
        payload: Option<&Json>,
    ) -> Result<(), Refusal> {
        let limit = self.config.max_payload_bytes;
        match payload.map_or(0, Json::len) {
            bytes if bytes > limit => Err(Refusal::PayloadTooLarge { what, bytes, limit }),
            _ => Ok(()),
        }
    }

    /// The pending run gets a place: it begins, and meets the replies that came before it.
    pub(super) fn begin(&mut self, place: Place, workflow: &Workflow, now: Timestamp) {
        self.transition(place, workflow, now).begin();
        self.overlay.settle(place);
        let run = self.overlay.run(place).id.clone();
        for parked in self.parking.take_all(self.view, &run) {
            self.reply_to(place, workflow, parked.reply, now);
        }
    }

    fn steer(&mut self, steer: Steer, verb: &Verb, now: Timestamp) -> Outcome {
        let Some(place) = self.overlay.find(&verb.run_id) else {
            return Outcome::Refused(Refusal::UnknownRun);
        };
        // An ended run answers even where its definition is gone.
        if let Some(outcome) = steer.without_change(self.overlay.run(place).status) {
            return outcome;
        }
        let Some(workflow) = self.overlay.workflow(place) else {
            return Outcome::Refused(self.unknown_workflow(place));
        };
        let transition = self.transition(place, &workflow, now);
        let outcome = transition.steer(steer, verb.reason.as_deref(), verb.depth);
        self.overlay.settle(place);
        if self.overlay.run(place).status == RunStatus::Pending {
            self.has_queue = Some(true);
        }
        outcome
    }

    fn signal(&mut self, signal: Signal, now: Timestamp) -> Outcome {
        let Some(place) = self.overlay.find(&signal.run_id) else {
            return Outcome::Refused(Refusal::UnknownRun);
        };
        if let Err(refusal) = self.check_size("data", signal.data.as_ref()) {
            return Outcome::Refused(refusal);
        }
        // An ended run answers even where its definition is gone.
        if let Some((reason, outcome)) =
            transition::signal_without_change(self.overlay.run(place), &signal)
        {
            self.outbox.push(Effect::IgnoredSignal(reason));
            return outcome;
        }
        let Some(workflow) = self.overlay.workflow(place) else {
            return Outcome::Refused(self.unknown_workflow(place));
        };
        let limit = self.config.max_signals_per_run;
        let outcome = self.transition(place, &workflow, now).signal(signal, limit);
        self.overlay.settle(place);
        outcome
    }

    fn matched(&mut self, matched: Matched, now: Timestamp) -> Outcome {
        let Some(place) = self.overlay.find(&matched.attempt.run) else {
            return Outcome::Refused(Refusal::UnknownRun);
        };
        // An ended run answers even where its definition is gone.
        if let Some((reason, outcome)) = transition::match_without_change(self.overlay.run(place)) {
            self.outbox.push(Effect::IgnoredSignal(reason));
            return outcome;
        }
        let Some(workflow) = self.overlay.workflow(place) else {
            return Outcome::Refused(self.unknown_workflow(place));
        };
        let outcome = self.transition(place, &workflow, now).matched(matched);
        self.overlay.settle(place);
        outcome
    }

    fn reply(&mut self, reply: Reply, origin: impl FnOnce() -> Origin, now: Timestamp) -> Outcome {
        let Some(place) = self.overlay.find(&reply.run_id) else {
            self.park(reply, origin(), Refusal::UnknownRun, now);
            return Outcome::Refused(Refusal::UnknownRun);
        };
        let Some(workflow) = self.overlay.workflow(place) else {
            return self.reply_without_workflow(place, reply, origin, now);
        };
        self.reply_to(place, &workflow, reply, now)
    }

    fn reply_to(
        &mut self,
        place: Place,
        workflow: &Workflow,
        reply: Reply,
        now: Timestamp,
    ) -> Outcome {
        let result = self.transition(place, workflow, now).reply(reply);
        self.overlay.settle(place);
        match result {
            Ok(_) => Outcome::Applied,
            Err(reason) => self.ignore(reason),
        }
    }

    fn ignore(&mut self, reason: IgnoredReply) -> Outcome {
        self.outbox.push(Effect::Ignored(reason));
        Outcome::Refused(Refusal::TaskNotOpen(reason))
    }

    /// The version that a live run is pinned to is not to be found: the reply waits for it as
    /// others wait for their run.
    fn reply_without_workflow(
        &mut self,
        place: Place,
        reply: Reply,
        origin: impl FnOnce() -> Origin,
        now: Timestamp,
    ) -> Outcome {
        if self.overlay.run(place).status.is_ended() {
            return self.ignore(IgnoredReply::RunEnded);
        }
        let refusal = self.unknown_workflow(place);
        self.park(reply, origin(), refusal.clone(), now);
        Outcome::Refused(refusal)
    }

    fn park(&mut self, reply: Reply, origin: Origin, why: Refusal, now: Timestamp) {
        let run = reply.run_id.clone();
        let parked = Parked {
            reply,
            due: now + self.config.park_for,
            origin,
        };
        let limit = self.config.max_parked_per_run;
        if !self.parking.park(self.view, parked, limit) {
            self.dead_letter(why.failure(), &run, None);
        }
    }

    /// A parked reply has waited long enough: applied where its run is there by now, else dead.
    fn unpark(&mut self, key: &ParkedKey, now: Timestamp) {
        let Some(parked) = self.parking.take(self.view, key) else {
            return;
        };
        let refusal = match self.overlay.find(&key.run) {
            None => Refusal::UnknownRun,
            Some(place) => match self.overlay.workflow(place) {
                None => self.unknown_workflow(place),
                Some(workflow) => {
                    // Whoever sent it was answered when it was parked.
                    self.reply_to(place, &workflow, parked.reply, now);
                    return;
                }
            },
        };
        self.dead_letter(refusal.failure(), &key.run, Some(parked.origin));
    }

    fn tick(&mut self, run: &RunId, now: Timestamp) {
        let Some(place) = self.overlay.find(run) else {
            return;
        };
        if self
            .overlay
            .run(place)
            .next_due()
            .is_none_or(|due| due > now)
        {
            return;
        }
        let Some(workflow) = self.overlay.workflow(place) else {
            let until = now + self.config.park_for;
            return self.outbox.push(Effect::Held {
                run: run.clone(),
                until,
            });
        };
        self.transition(place, &workflow, now).tick();
        self.overlay.settle(place);
    }

    fn transition<'b>(
        &'b mut self,
        place: Place,
        workflow: &'b Workflow,
        now: Timestamp,
    ) -> Transition<'b> {
        let limit = self.config.max_payload_bytes;
        Transition::new(
            self.overlay.run_mut(place),
            workflow,
            limit,
            now,
            &mut self.outbox,
        )
    }

    fn unknown_workflow(&self, place: Place) -> Refusal {
        let run = self.overlay.run(place);
        Refusal::UnknownWorkflow {
            workflow: run.workflow.as_ref().to_owned(),
            version: Some(run.version),
        }
    }

    fn dead_letter(&mut self, failure: Failure, run: &RunId, origin: Option<Origin>) {
        let run = Some(run.as_str().to_owned());
        self.outbox.push(Effect::DeadLetter {
            failure,
            run,
            origin,
        });
    }
}

/// The same workflow, requested version, input, tags and priority; absence equals the default.
fn is_same_start(run: &RunState, start: &Start) -> bool {
    let same_input = match &start.input {
        None => run.input.is_null(),
        Some(input) => *input == run.input,
    };
    run.workflow.as_ref() == start.workflow
        && run.requested_version == start.version
        && run.tags == start.tags
        && run.priority == start.priority
        && same_input
}
