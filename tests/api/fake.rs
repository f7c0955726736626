//! A runtime that answers at once and applies just enough of the rules for the API to be seen
//! through: one open step at a time, in the order of the definition.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use futures_util::future::BoxFuture;
use partita::api::door::Runs;
use partita::engine::{Definitions, IgnoredReply, Outcome, Refusal};
use partita::model::{
    Command, Inbox, Reply, ReplyStatus, RunId, RunState, RunStatus, Signal, Start, StepState,
    StepStatus, Timestamp, WaitingSignal,
};
use partita::runtime::definitions::Registry;
use partita::runtime::membership::Ownership;
use partita::runtime::patterns::stats::RuleStats;
use partita::runtime::{
    Answered, EventsTail, History, HistoryEvent, ListCursor, LiveEvent, PartitionInfo, Readiness,
    RunFilter, RunPage, SubmitError,
};
use tokio::sync::{broadcast, mpsc, watch};

/// Partitions of the fake installation.
pub const PARTITIONS: i32 = 4;

#[derive(Default)]
struct State {
    runs: BTreeMap<RunId, RunState>,
    events: Vec<HistoryEvent>,
}

pub struct Fake {
    registry: Arc<Registry>,
    owned: watch::Sender<Vec<i32>>,
    state: Mutex<State>,
    told: broadcast::Sender<HistoryEvent>,
    clock: std::sync::atomic::AtomicI64,
    /// A run whose start is on its way: no list shows it before its workflow is deleted.
    pub on_its_way: Mutex<Option<RunId>>,
    /// What the rules have done here.
    pub rules: Mutex<Vec<RuleStats>>,
}

impl Fake {
    pub fn new(registry: Arc<Registry>, owned: Vec<i32>) -> Arc<Self> {
        Arc::new(Self {
            registry,
            owned: watch::Sender::new(owned),
            state: Mutex::default(),
            told: broadcast::Sender::new(64),
            clock: std::sync::atomic::AtomicI64::new(1_795_219_200_000),
            on_its_way: Mutex::default(),
            rules: Mutex::default(),
        })
    }

    /// The first event of every run is gone, as when its retention is over.
    pub fn lose_beginnings(&self) {
        self.state().events.retain(|event| event.sequence > 1);
    }

    /// Partitions move away or arrive; their runs do not.
    pub fn own(&self, owned: Vec<i32>) {
        self.owned.send_replace(owned);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn is_on_its_way(&self, run: &RunState) -> bool {
        let is_applied = self.registry.workflow(&run.workflow, Some(run.version));
        is_applied.is_some() && self.on_its_way.lock().unwrap().as_ref() == Some(&run.id)
    }

    fn now(&self) -> Timestamp {
        Timestamp(
            self.clock
                .fetch_add(1, std::sync::atomic::Ordering::Relaxed),
        )
    }

    fn check(&self, id: &RunId) -> Result<(), SubmitError> {
        let partition = self.partition_of(id);
        if self.owns(partition) {
            Ok(())
        } else {
            Err(SubmitError::NotOwner { partition })
        }
    }

    fn tell(&self, state: &mut State, run: &mut RunState, kind: &str) {
        run.sequence += 1;
        run.revision += 1;
        let partition = self.partition_of(&run.id);
        let offset = state
            .events
            .iter()
            .filter(|event| event.partition == partition)
            .count();
        let event = HistoryEvent {
            run: run.id.clone(),
            partition,
            offset: i64::try_from(offset).unwrap(),
            json: format!(
                r#"{{"specversion":"1.0","id":"{id}/{sequence}","source":"/fake","type":"{kind}","subject":"{id}","sequence":"{sequence:010}","time":"2026-11-21T00:00:00.000Z","data":{{"workflow":"{workflow}"}}}}"#,
                id = run.id,
                sequence = run.sequence,
                workflow = run.workflow,
            ),
            sequence: run.sequence,
            kind: kind.to_owned(),
        };
        state.events.push(event.clone());
        let _ = self.told.send(event);
    }

    fn start(&self, start: Start, traceparent: Option<String>) -> Result<Answered, SubmitError> {
        if start.workflow == "busy" {
            return Err(SubmitError::Overloaded {
                what: "runs are pending",
            });
        }
        let mut state = self.state();
        if let Some(run) = state.runs.get(&start.run_id) {
            let same =
                *run.workflow == start.workflow && run.input == start.input.unwrap_or_default();
            let outcome = if same {
                Outcome::AlreadyStarted
            } else {
                Outcome::Refused(Refusal::Conflict { status: run.status })
            };
            return Ok(Answered {
                outcome,
                run: Some(run.clone()),
            });
        }
        let Some(workflow) = self.registry.workflow(&start.workflow, start.version) else {
            let refusal = Refusal::UnknownWorkflow {
                workflow: start.workflow,
                version: start.version,
            };
            return Ok(Answered {
                outcome: Outcome::Refused(refusal),
                run: None,
            });
        };
        let now = self.now();
        let mut run = RunState {
            id: start.run_id.clone(),
            workflow: Arc::clone(&workflow.name),
            version: workflow.version,
            status: RunStatus::Running,
            requested_version: start.version,
            input: start.input.unwrap_or_default(),
            tags: start.tags,
            priority: start.priority,
            created_at: now,
            started_at: Some(now),
            ended_at: None,
            deadline: None,
            output: None,
            error: None,
            revision: 0,
            epoch: 0,
            sequence: 0,
            traceparent,
            inbox: Inbox::default(),
            watches: Vec::new(),
            provenance: start.provenance.map(Arc::new),
            depth: 0,
            steps: vec![StepState::default(); workflow.steps.len()],
        };
        self.tell(&mut state, &mut run, "partita.run.started");
        schedule(&mut run, 0, now);
        state.runs.insert(run.id.clone(), run.clone());
        Ok(Answered {
            outcome: Outcome::Started,
            run: Some(run),
        })
    }

    /// A signal `full` finds too many before it; of an id no second one is told.
    fn signal(&self, signal: &Signal) -> Answered {
        let mut state = self.state();
        let Some(mut run) = state.runs.get(&signal.run_id).cloned() else {
            return Answered {
                outcome: Outcome::Refused(Refusal::UnknownRun),
                run: None,
            };
        };
        let outcome = if signal.id.as_ref().is_some_and(|id| run.inbox.knows(id)) {
            Outcome::AlreadyHolds
        } else if run.status.is_ended() {
            Outcome::Refused(Refusal::Status { status: run.status })
        } else if signal.name.as_str() == "full" {
            Outcome::Refused(Refusal::TooManySignals { limit: 100 })
        } else {
            run.inbox.put(WaitingSignal {
                name: signal.name.clone(),
                data: signal.data.clone().unwrap_or_default(),
                id: signal.id.clone(),
                received_at: self.now(),
                place: 0,
            });
            self.tell(&mut state, &mut run, "partita.run.signalled");
            Outcome::Applied
        };
        state.runs.insert(signal.run_id.clone(), run.clone());
        Answered {
            outcome,
            run: Some(run),
        }
    }

    fn steer(&self, id: &RunId, to: RunStatus, kind: &str) -> Answered {
        let mut state = self.state();
        let Some(mut run) = state.runs.get(id).cloned() else {
            return Answered {
                outcome: Outcome::Refused(Refusal::UnknownRun),
                run: None,
            };
        };
        let outcome = if run.status == to {
            Outcome::AlreadyHolds
        } else if run.status.is_ended() {
            Outcome::Refused(Refusal::Status { status: run.status })
        } else {
            run.status = to;
            run.ended_at = to.is_ended().then(|| self.now());
            self.tell(&mut state, &mut run, kind);
            Outcome::Applied
        };
        state.runs.insert(id.clone(), run.clone());
        Answered {
            outcome,
            run: Some(run),
        }
    }

    fn reply(&self, reply: Reply) -> Answered {
        let mut state = self.state();
        let Some(mut run) = state.runs.get(&reply.run_id).cloned() else {
            return Answered {
                outcome: Outcome::Refused(Refusal::UnknownRun),
                run: None,
            };
        };
        let ignored = |reason, run| Answered {
            outcome: Outcome::Refused(Refusal::TaskNotOpen(reason)),
            run: Some(run),
        };
        let workflow = self
            .registry
            .workflow(&run.workflow, Some(run.version))
            .expect("the run pins it");
        let Some(step) = workflow.by_id.get(reply.step_id.as_str()).copied() else {
            return ignored(IgnoredReply::UnknownStep, run);
        };
        if run.steps[step].attempt < reply.attempt.unwrap_or(1) {
            return ignored(IgnoredReply::Future, run);
        }
        if !run.steps[step].status.is_open() {
            return ignored(IgnoredReply::Duplicate, run);
        }
        let now = self.now();
        match reply.status {
            ReplyStatus::Progress { .. } | ReplyStatus::Heartbeat => {
                run.steps[step].status = StepStatus::Running
            }
            ReplyStatus::Completed { output } => {
                run.steps[step].status = StepStatus::Completed;
                run.steps[step].output = Some(output.clone());
                if step + 1 < run.steps.len() {
                    schedule(&mut run, step + 1, now);
                } else {
                    run.status = RunStatus::Completed;
                    run.output = Some(output);
                    run.ended_at = Some(now);
                    self.tell(&mut state, &mut run, "partita.run.completed");
                }
            }
            ReplyStatus::Failed { error } => {
                run.steps[step].status = StepStatus::Failed;
                run.status = RunStatus::Failed;
                run.error = Some(error.at_step(&reply.step_id));
                run.ended_at = Some(now);
                self.tell(&mut state, &mut run, "partita.run.failed");
            }
        }
        state.runs.insert(run.id.clone(), run.clone());
        Answered {
            outcome: Outcome::Applied,
            run: Some(run),
        }
    }
}

fn schedule(run: &mut RunState, step: usize, now: Timestamp) {
    run.steps[step].status = StepStatus::Scheduled;
    run.steps[step].attempt = 1;
    run.steps[step].scheduled_at = Some(now);
}

impl Ownership for Fake {
    fn owned(&self) -> Vec<PartitionInfo> {
        let info = |partition: &i32| PartitionInfo {
            partition: *partition,
            lag: 0,
            restored: true,
            live_runs: 0,
            pending: 0,
        };
        self.owned.borrow().iter().map(info).collect()
    }

    fn owns(&self, partition: i32) -> bool {
        self.owned.borrow().contains(&partition)
    }

    fn watch_owned(&self) -> watch::Receiver<Vec<i32>> {
        self.owned.subscribe()
    }
}

impl Runs for Fake {
    fn submit(
        &self,
        command: Command,
        traceparent: Option<String>,
    ) -> BoxFuture<'_, Result<Answered, SubmitError>> {
        Box::pin(async move {
            self.check(command.run_id())?;
            Ok(match command {
                Command::Start(start) => return self.start(start, traceparent),
                Command::Pause(verb) => {
                    self.steer(&verb.run_id, RunStatus::Paused, "partita.run.paused")
                }
                Command::Resume(verb) => {
                    self.steer(&verb.run_id, RunStatus::Running, "partita.run.resumed")
                }
                Command::Cancel(verb) => {
                    self.steer(&verb.run_id, RunStatus::Cancelled, "partita.run.cancelled")
                }
                Command::Signal(signal) => self.signal(&signal),
                Command::Match(_) => panic!("no client sends a match"),
            })
        })
    }

    fn answer(
        &self,
        reply: Reply,
        _: Option<String>,
    ) -> BoxFuture<'_, Result<Answered, SubmitError>> {
        Box::pin(async move {
            self.check(&reply.run_id)?;
            Ok(self.reply(reply))
        })
    }

    fn run(&self, id: &RunId) -> Result<Option<RunState>, SubmitError> {
        self.check(id)?;
        Ok(self.state().runs.get(id).cloned())
    }

    fn wait_for_end(
        &self,
        id: RunId,
        at_most: Duration,
    ) -> BoxFuture<'_, Result<Option<RunState>, SubmitError>> {
        Box::pin(async move {
            let deadline = tokio::time::Instant::now() + at_most;
            loop {
                let run = self.run(&id)?;
                if run.as_ref().is_none_or(|run| run.status.is_ended())
                    || tokio::time::Instant::now() >= deadline
                {
                    return Ok(run);
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        })
    }

    fn list(
        &self,
        filter: &RunFilter,
        limit: usize,
        after: Option<&ListCursor>,
    ) -> Result<RunPage, SubmitError> {
        let mut runs: Vec<RunState> = self
            .state()
            .runs
            .values()
            .filter(|run| fits(run, filter) && !self.is_on_its_way(run))
            .cloned()
            .collect();
        let place = |run: &RunState| ListCursor {
            created_at: run.created_at,
            run: run.id.clone(),
        };
        runs.sort_by_key(|run| std::cmp::Reverse(place(run)));
        runs.retain(|run| after.is_none_or(|after| place(run) < *after));
        let more = runs.len() > limit;
        runs.truncate(limit);
        let next = runs.last().filter(|_| more).map(place);
        Ok(RunPage { runs, next })
    }

    fn history(
        &self,
        id: RunId,
        from_sequence: u64,
    ) -> BoxFuture<'_, Result<History, SubmitError>> {
        Box::pin(async move {
            self.check(&id)?;
            let state = self.state();
            let wanted = |event: &&HistoryEvent| event.run == id && event.sequence >= from_sequence;
            let events = state.events.iter().filter(wanted).cloned().collect();
            let last = state.runs.get(&id).map_or(0, |run| run.sequence);
            Ok(History::of(
                events,
                (last + 1).saturating_sub(from_sequence),
            ))
        })
    }

    fn follow(
        &self,
        id: RunId,
        from_sequence: u64,
    ) -> BoxFuture<'_, Result<mpsc::Receiver<HistoryEvent>, SubmitError>> {
        Box::pin(async move {
            let mut told = self.told.subscribe();
            let past = self.history(id.clone(), from_sequence).await?;
            let (sender, receiver) = mpsc::channel(64);
            tokio::spawn(async move {
                let mut next = from_sequence;
                let mut past = past.events.into_iter();
                loop {
                    let event = match past.next() {
                        Some(event) => event,
                        None => match told.recv().await {
                            Ok(event) => event,
                            Err(_) => return,
                        },
                    };
                    if event.run != id || event.sequence < next {
                        continue;
                    }
                    next = event.sequence + 1;
                    let last = event.kind == "partita.run.completed"
                        || event.kind == "partita.run.cancelled";
                    if sender.send(event).await.is_err() || last {
                        return;
                    }
                }
            });
            Ok(receiver)
        })
    }

    fn events_tail(
        &self,
        positions: BTreeMap<i32, i64>,
    ) -> BoxFuture<'_, Result<EventsTail, SubmitError>> {
        Box::pin(async move {
            let mut told = self.told.subscribe();
            let (from, missed) = {
                let state = self.state();
                let end = |partition| {
                    state
                        .events
                        .iter()
                        .filter(|event| event.partition == partition)
                        .count()
                };
                let now = |partition| i64::try_from(end(partition)).unwrap();
                let start = |partition: i32| {
                    positions
                        .get(&partition)
                        .copied()
                        .unwrap_or_else(|| now(partition))
                };
                let from: BTreeMap<i32, i64> = (0..PARTITIONS)
                    .map(|partition| (partition, start(partition)))
                    .collect();
                let wanted = |event: &&HistoryEvent| event.offset >= from[&event.partition];
                let missed: Vec<HistoryEvent> =
                    state.events.iter().filter(wanted).cloned().collect();
                (from, missed)
            };
            let (sender, receiver) = mpsc::channel(64);
            tokio::spawn(async move {
                for event in missed {
                    if sender.send(live(event)).await.is_err() {
                        return;
                    }
                }
                while let Ok(event) = told.recv().await {
                    if sender.send(live(event)).await.is_err() {
                        return;
                    }
                }
            });
            Ok(EventsTail {
                from,
                events: receiver,
            })
        })
    }

    fn partition_of(&self, id: &RunId) -> i32 {
        let sum: i32 = id.as_str().bytes().map(i32::from).sum();
        sum % PARTITIONS
    }

    fn partitions(&self) -> i32 {
        PARTITIONS
    }

    fn rule_stats(&self) -> Vec<RuleStats> {
        self.rules.lock().unwrap().clone()
    }

    fn readiness(&self) -> Readiness {
        if self.owned.borrow().is_empty() {
            Readiness::NotReady {
                reasons: vec!["no partition is owned".to_owned()],
            }
        } else {
            Readiness::Ready
        }
    }
}

fn live(event: HistoryEvent) -> LiveEvent {
    LiveEvent {
        partition: event.partition,
        offset: event.offset,
        json: event.json,
        kind: event.kind,
    }
}

fn fits(run: &RunState, filter: &RunFilter) -> bool {
    filter
        .workflow
        .as_deref()
        .is_none_or(|workflow| *run.workflow == *workflow)
        && filter.status.is_none_or(|status| run.status == status)
        && filter
            .tags
            .iter()
            .all(|(key, value)| run.tags.get(key) == Some(value))
        && filter.since.is_none_or(|since| run.created_at >= since)
        && filter.until.is_none_or(|until| run.created_at < until)
        && filter.record.as_ref().is_none_or(|record| {
            let provenance = run.provenance.as_deref();
            provenance.is_some_and(|provenance| provenance.names(record))
        })
}
