//! One schedule: what happens, in which order, as its seed decides.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};

use partita::log::ErrorClass;
use partita::model::Millis;

use crate::check;
use crate::faulty::{Fault, Point, Sabotage};
use crate::world::{WORKFLOWS, World};

const ACTIONS: usize = 260;

/// Rounds within which everything ends once faults have healed. A round moves the clock by a
/// second, so that backoffs and timeouts fall due.
const HEALED_ROUNDS: usize = 150;

/// What schedules have seen, so that none of it goes missing unnoticed.
#[derive(Debug, Default)]
pub struct Seen {
    struck: BTreeSet<(Point, &'static str)>,
    pub runs: usize,
    pub events: usize,
    /// By steps.
    pub signals: usize,
    pub store_losses: usize,
    pub expired_members: usize,
    pub expired_transactions: usize,
}

impl Seen {
    pub fn add(&mut self, other: &Seen) {
        self.struck.extend(&other.struck);
        self.runs += other.runs;
        self.events += other.events;
        self.signals += other.signals;
        self.store_losses += other.store_losses;
        self.expired_members += other.expired_members;
        self.expired_transactions += other.expired_transactions;
    }

    /// Whether every fault struck at every point of a transaction, and all else happened.
    pub fn is_thorough(&self) -> bool {
        let kinds = ["crash", "abortable", "fatal"];
        let struck = |point: Point, kind: &'static str| {
            let cannot_be = (point, kind) == (Point::AfterCommit, "abortable");
            cannot_be || self.struck.contains(&(point, kind))
        };
        let all = Point::ALL
            .iter()
            .all(|point| kinds.iter().all(|kind| struck(*point, kind)));
        all && self.signals > 0
            && self.store_losses > 0
            && self.expired_members > 0
            && self.expired_transactions > 0
    }
}

pub fn run(seed: u64, sabotage: Sabotage) -> Result<(), String> {
    run_counted(seed, sabotage).map(|_| ())
}

/// Runs a schedule; a panic of the code under test is a violation like any other.
pub fn run_counted(seed: u64, sabotage: Sabotage) -> Result<Seen, String> {
    let outcome = catch_unwind(AssertUnwindSafe(|| Schedule::new(seed, sabotage).run()));
    outcome.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
        Err(format!("a panic: {}", text.unwrap_or_default()))
    })
}

fn number_of(run: &str) -> usize {
    run["run-".len()..].parse().expect("a number")
}

fn workflow_of(run: &str) -> &'static str {
    WORKFLOWS[number_of(run) % WORKFLOWS.len()]
}

struct Schedule {
    world: World,
    seen: Seen,
    uncommitted_agent: bool,
    runs: usize,
}

impl Schedule {
    fn new(seed: u64, sabotage: Sabotage) -> Self {
        let instances = 1 + (seed % 2) as usize;
        let mut world = World::new(seed, sabotage, instances);
        let uncommitted_agent = world.random.percent(30);
        Self {
            world,
            seen: Seen::default(),
            uncommitted_agent,
            runs: 0,
        }
    }

    fn run(mut self) -> Result<Seen, String> {
        for _ in 0..ACTIONS {
            self.act()?;
        }
        self.heal();
        self.finish()?;
        let events = check::all(&self.world)?;
        self.seen.runs = self.world.started.len();
        self.seen.events = events;
        self.seen.signals = check::signals_taken(&self.world)?;
        Ok(self.seen)
    }

    fn act(&mut self) -> Result<(), String> {
        let number = self.world.random.below(self.world.instances.len());
        match self.world.random.below(100) {
            0..37 => self.world.step(number),
            37..39 => self.signal(),
            39 => self.world.select_some(),
            40..48 => self.start(),
            48..66 => {
                self.world.learn_tasks(self.uncommitted_agent);
                self.world.answer_some();
            }
            66..69 => self.verb(),
            69..71 => self.world.poison(),
            71..79 => {
                let span = Millis(1 + self.world.random.below(1_500) as u64);
                self.world.now = self.world.now + span;
            }
            79..86 => self.arm(number),
            86..91 => self.world.write_behind(number),
            91 => self.world.kill(number),
            92 => self.lose_store(number),
            93 => self.expire_member(number),
            94 => {
                self.seen.expired_transactions += 1;
                self.world
                    .cluster
                    .expire_transaction(&format!("worker-{number}"));
            }
            95 => check::stores(&self.world)?,
            _ => self.boot_if_dead(number),
        }
        Ok(())
    }

    fn start(&mut self) {
        let again = self.world.random.percent(25);
        let run = match self
            .world
            .random
            .pick(&self.world.started)
            .filter(|_| again)
        {
            Some(run) => run.clone(),
            None => {
                self.runs += 1;
                format!("run-{}", self.runs)
            }
        };
        // The same run is started the same way each time.
        let number = number_of(&run);
        let workflow = workflow_of(&run);
        let input = if number.is_multiple_of(5) {
            "i".repeat(5_000)
        } else {
            "i".to_owned()
        };
        let body = serde_json::json!({
            "type": "start", "run_id": run, "workflow": workflow, "input": input,
            "priority": number % 3, "tags": {"third": (number % 3).to_string()},
        });
        self.world.command(&run, &body);
        if !self.world.started.contains(&run) {
            self.world.started.push(run);
        }
    }

    fn verb(&mut self) {
        let Some(run) = self.world.random.pick(&self.world.started).cloned() else {
            return;
        };
        let verb = ["pause", "resume", "resume", "cancel"][self.world.random.below(4)];
        self.world
            .command(&run, &serde_json::json!({"type": verb, "run_id": run}));
    }

    fn signal(&mut self) {
        if let Some(run) = self.world.random.pick(&self.world.started).cloned() {
            self.world.signal(&run);
        }
    }

    fn arm(&mut self, number: usize) {
        let point = Point::ALL[self.world.random.below(Point::ALL.len())];
        let fault = match self.world.random.below(3) {
            0 => Fault::Crash,
            // What has committed cannot be aborted: no broker says so.
            1 if point != Point::AfterCommit => Fault::Error(ErrorClass::Abortable),
            _ => Fault::Error(ErrorClass::Fatal),
        };
        let mut plan = self.world.instances[number].plan.lock().unwrap();
        plan.armed = vec![(point, fault)];
        if point == Point::BeforeAbort {
            // An abort is reached only through another error.
            plan.armed
                .push((Point::AfterSend, Fault::Error(ErrorClass::Abortable)));
        }
        drop(plan);
        self.collect_struck(number);
    }

    fn collect_struck(&mut self, number: usize) {
        let mut plan = self.world.instances[number].plan.lock().unwrap();
        for (point, fault) in plan.struck.drain(..) {
            let kind = match fault {
                Fault::Crash => "crash",
                Fault::Error(ErrorClass::Fatal) => "fatal",
                Fault::Error(_) => "abortable",
            };
            self.seen.struck.insert((point, kind));
        }
    }

    fn lose_store(&mut self, number: usize) {
        if self.world.instances[number].worker.is_none() {
            self.seen.store_losses += 1;
            self.world.instances[number].disk.lose_all();
        }
    }

    /// The group takes a member for dead, be it or be it not.
    fn expire_member(&mut self, number: usize) {
        self.seen.expired_members += 1;
        self.world.expire_member(number);
    }

    fn boot_if_dead(&mut self, number: usize) {
        if self.world.instances[number].worker.is_none() {
            self.collect_struck(number);
            self.world.expire_dead(number);
            self.world.boot(number);
        }
    }

    fn heal(&mut self) {
        for number in 0..self.world.instances.len() {
            self.collect_struck(number);
            self.boot_if_dead(number);
            self.world.instances[number]
                .plan
                .lock()
                .unwrap()
                .armed
                .clear();
        }
    }

    /// Steps and answers until nothing moves any more and all runs have ended.
    fn finish(&mut self) -> Result<(), String> {
        for round in 0..HEALED_ROUNDS {
            if round % 20 == 0 {
                for run in self.world.started.clone() {
                    self.world
                        .command(&run, &serde_json::json!({"type": "resume", "run_id": run}));
                    if workflow_of(&run) == "signalled" {
                        self.world.signal(&run);
                        self.world.signal(&run);
                    }
                }
            }
            for _ in 0..4 {
                for number in 0..self.world.instances.len() {
                    self.world.step(number);
                    self.world.write_behind(number);
                }
                self.world.answer_all();
            }
            self.world.now = self.world.now + Millis(1_000);
            if round % 20 == 19 && check::all_ended(&self.world)? {
                return Ok(());
            }
        }
        check::all_ended(&self.world)?;
        Err(format!(
            "I7: after {HEALED_ROUNDS} s without faults: {}",
            check::unfinished(&self.world)?
        ))
    }
}
