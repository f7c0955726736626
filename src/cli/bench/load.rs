//! The bench's own client: starts runs by records on `commands`, and is the agent that answers
//! their tasks. Both in one process and on one clock, so that spans between them are exact.
//!
//! The agent is a plain Kafka client on one thread: what is measured is the engine, and a slow
//! agent would hide it.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::{BorrowedMessage, Headers as _, Message as _};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer as _, ThreadedProducer};
use rdkafka::types::RDKafkaErrorCode;
use serde::{Deserialize, Serialize};

use super::FETCH_WAIT;
use super::shape::AGENT;
use crate::cli::CliError;
use crate::cli::args::Isolation;
use crate::cli::measure::Samples;
use crate::log::kafka::reader_config;

/// Bytes of text that each step gives as its output.
const OUTPUT_BYTES: usize = 100;
/// A bench in which nothing moves for so long has failed.
const STALLED_AFTER: Duration = Duration::from_secs(30);
/// How long the agent may take to get its partitions.
const AGENT_READY_WITHIN: Duration = Duration::from_secs(60);

/// How fast runs are started.
#[derive(Clone, Copy, Debug)]
pub enum Pace {
    /// So many a second, whatever comes back.
    Rate(f64),
    /// As fast as runs end, with so many under way.
    Window(usize),
}

/// What one drive came to.
#[derive(Debug, Default)]
pub struct Figures {
    pub steps: usize,
    /// Steps answered a second, without the first fifth of them.
    pub steps_per_second: f64,
    pub start_to_task: Samples,
    pub reply_to_task: Samples,
}

/// The clocks of the runs of one drive, by the number in the run id.
struct Clocks {
    base: Instant,
    /// Names this drive's runs: `<name>-<number>`.
    name: String,
    steps: u32,
    /// Nanoseconds since `base`, just before the start was sent; 0: not yet.
    started: Vec<AtomicU64>,
    /// The same, just before the last reply of the run was sent.
    replied: Vec<AtomicU64>,
    answered: Vec<AtomicU32>,
    finished: AtomicUsize,
    answered_in_all: AtomicUsize,
}

impl Clocks {
    fn now(&self) -> u64 {
        u64::try_from(self.base.elapsed().as_nanos())
            .unwrap_or(u64::MAX)
            .max(1)
    }

    fn number_of(&self, run_id: &str) -> Option<usize> {
        let number: usize = run_id
            .strip_prefix(self.name.as_str())?
            .strip_prefix('-')?
            .parse()
            .ok()?;
        (number < self.started.len()).then_some(number)
    }
}

#[derive(Default)]
struct Latencies {
    start_to_task: Samples,
    reply_to_task: Samples,
}

/// What the agent reads of a task.
#[derive(Deserialize)]
struct Task<'a> {
    #[serde(borrow)]
    task_id: &'a str,
    run_id: &'a str,
    step_id: &'a str,
    attempt: u32,
    epoch: u32,
}

#[derive(Serialize)]
struct Reply<'a> {
    task_id: &'a str,
    run_id: &'a str,
    step_id: &'a str,
    attempt: u32,
    epoch: u32,
    status: &'static str,
    output: &'a str,
}

type Producer = ThreadedProducer<DefaultProducerContext>;

/// Starts runs and answers their tasks, for one prefix.
pub struct Load {
    commands: String,
    producer: Producer,
    current: Arc<Mutex<Option<Arc<Clocks>>>>,
    latencies: Arc<Mutex<Latencies>>,
    stop: Arc<AtomicBool>,
    agent: Option<JoinHandle<()>>,
}

impl Load {
    /// Connects, and returns once the agent has its partitions. `tasks.bench` must exist.
    pub async fn start(
        client: &ClientConfig,
        prefix: &str,
        agent: Isolation,
    ) -> Result<Self, CliError> {
        let producer = producer(client)?;
        let current: Arc<Mutex<Option<Arc<Clocks>>>> = Arc::default();
        let latencies: Arc<Mutex<Latencies>> = Arc::default();
        let stop = Arc::new(AtomicBool::new(false));
        let ready = Arc::new(AtomicBool::new(false));
        let group = format!("{prefix}bench-agent");
        let consumer: BaseConsumer = reader_config(client.clone(), &group, FETCH_WAIT)
            // An agent commits what it has answered, as any consumer of a group does.
            .set("enable.auto.commit", "true")
            .set("isolation.level", agent.name())
            .create()
            .map_err(|error| broken("the bench's agent", &error))?;
        consumer
            .subscribe(&[&format!("{prefix}tasks.{AGENT}")])
            .map_err(|error| broken("the bench's agent", &error))?;
        let agent = Agent {
            consumer,
            producer: self::producer(client)?,
            replies: format!("{prefix}replies"),
            current: Arc::clone(&current),
            latencies: Arc::clone(&latencies),
            stop: Arc::clone(&stop),
            ready: Arc::clone(&ready),
            output: "y".repeat(OUTPUT_BYTES),
        };
        let thread = std::thread::Builder::new()
            .name("bench-agent".to_owned())
            .spawn(move || agent.work())
            .map_err(|error| CliError::Failed(format!("cannot start a thread: {error}")))?;
        let load = Self {
            commands: format!("{prefix}commands"),
            producer,
            current,
            latencies,
            stop,
            agent: Some(thread),
        };
        let deadline = Instant::now() + AGENT_READY_WITHIN;
        while !ready.load(Ordering::Acquire) {
            if Instant::now() > deadline {
                return Err(CliError::Unreachable(
                    "the bench's agent got no partitions".to_owned(),
                ));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(load)
    }

    /// Starts `runs` runs of `workflow` and waits until the last task of each is answered.
    pub async fn drive(
        &self,
        name: &str,
        workflow: &str,
        runs: usize,
        steps: usize,
        pace: Pace,
    ) -> Result<Figures, CliError> {
        let clocks = Arc::new(Clocks {
            base: Instant::now(),
            name: name.to_owned(),
            steps: u32::try_from(steps).unwrap_or(u32::MAX),
            started: (0..runs).map(|_| AtomicU64::new(0)).collect(),
            replied: (0..runs).map(|_| AtomicU64::new(0)).collect(),
            answered: (0..runs).map(|_| AtomicU32::new(0)).collect(),
            finished: AtomicUsize::new(0),
            answered_in_all: AtomicUsize::new(0),
        });
        *lock(&self.latencies) = Latencies::default();
        *lock(&self.current) = Some(Arc::clone(&clocks));
        let total = runs * steps;
        let mut warm: Option<(usize, Instant)> = None;
        let mut started = 0;
        let mut last_move = (0, Instant::now());
        loop {
            let finished = clocks.finished.load(Ordering::Acquire);
            let answered = clocks.answered_in_all.load(Ordering::Acquire);
            if warm.is_none() && answered >= total / 5 {
                warm = Some((answered, Instant::now()));
            }
            if finished >= runs {
                break;
            }
            if answered != last_move.0 || started < runs {
                last_move = (answered, Instant::now());
            } else if last_move.1.elapsed() > STALLED_AFTER {
                return Err(CliError::Failed(format!(
                    "the bench stands still: {finished} of {runs} runs ended, {answered} of {total} steps answered"
                )));
            }
            let due = match pace {
                Pace::Rate(rate) => (clocks.base.elapsed().as_secs_f64() * rate) as usize + 1,
                Pace::Window(window) => finished + window,
            };
            while started < due.min(runs) {
                self.send_start(&clocks, workflow, started)?;
                started += 1;
            }
            tokio::time::sleep(Duration::from_micros(500)).await;
        }
        let (warm_steps, warm_at) = warm.unwrap_or((0, clocks.base));
        let measured = warm_at.elapsed().as_secs_f64();
        let latencies = std::mem::take(&mut *lock(&self.latencies));
        Ok(Figures {
            steps: total,
            steps_per_second: if measured > 0.0 {
                (total - warm_steps) as f64 / measured
            } else {
                0.0
            },
            start_to_task: latencies.start_to_task,
            reply_to_task: latencies.reply_to_task,
        })
    }

    /// Starts `runs` runs as fast as the broker takes them and waits for nobody.
    pub fn flood(&self, name: &str, workflow: &str, runs: usize) -> Result<(), CliError> {
        for number in 0..runs {
            self.send(&format!("{name}-{number}"), workflow)?;
        }
        self.producer
            .flush(Duration::from_secs(60))
            .map_err(|error| broken("starting runs", &error))
    }

    fn send_start(&self, clocks: &Clocks, workflow: &str, number: usize) -> Result<(), CliError> {
        clocks.started[number].store(clocks.now(), Ordering::Release);
        self.send(&format!("{}-{number}", clocks.name), workflow)
    }

    fn send(&self, run_id: &str, workflow: &str) -> Result<(), CliError> {
        let body = format!(
            r#"{{"type":"start","run_id":"{run_id}","workflow":"{workflow}","input":{{"value":"{}"}}}}"#,
            "x".repeat(OUTPUT_BYTES)
        );
        send(
            &self.producer,
            BaseRecord::to(&self.commands).key(run_id).payload(&body),
        )
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(agent) = self.agent.take() {
            // A panic of the agent has been printed by then.
            let _ = agent.join();
        }
    }
}

struct Agent {
    consumer: BaseConsumer,
    producer: Producer,
    replies: String,
    current: Arc<Mutex<Option<Arc<Clocks>>>>,
    latencies: Arc<Mutex<Latencies>>,
    stop: Arc<AtomicBool>,
    ready: Arc<AtomicBool>,
    output: String,
}

impl Agent {
    fn work(self) {
        while !self.stop.load(Ordering::Acquire) {
            if !self.ready.load(Ordering::Relaxed)
                && self
                    .consumer
                    .assignment()
                    .is_ok_and(|list| list.count() > 0)
            {
                self.ready.store(true, Ordering::Release);
            }
            match self.consumer.poll(Duration::from_millis(20)) {
                Some(Ok(message)) => self.answer(&message),
                Some(Err(error)) => tracing::warn!(%error, "the bench's agent"),
                None => {}
            }
        }
    }

    fn answer(&self, message: &BorrowedMessage<'_>) {
        let Some(task) = message
            .payload()
            .and_then(|bytes| serde_json::from_slice::<Task<'_>>(bytes).ok())
        else {
            return;
        };
        let Some(clocks) = lock(&self.current).clone() else {
            return;
        };
        let Some(number) = clocks.number_of(task.run_id) else {
            return;
        };
        let entry = clocks.now();
        {
            let mut latencies = lock(&self.latencies);
            let span = |from: u64| Duration::from_nanos(entry.saturating_sub(from));
            match clocks.replied[number].load(Ordering::Acquire) {
                0 => latencies
                    .start_to_task
                    .add(span(clocks.started[number].load(Ordering::Acquire))),
                replied => latencies.reply_to_task.add(span(replied)),
            }
        }
        let reply = Reply {
            task_id: task.task_id,
            run_id: task.run_id,
            step_id: task.step_id,
            attempt: task.attempt,
            epoch: task.epoch,
            status: "completed",
            output: &self.output,
        };
        let body = serde_json::to_vec(&reply).expect("a reply serialises");
        let mut record = BaseRecord::to(&self.replies)
            .key(task.run_id)
            .payload(&body);
        record.partition = reply_partition(message);
        clocks.replied[number].store(clocks.now(), Ordering::Release);
        if let Err(error) = send(&self.producer, record) {
            tracing::error!(%error, "the bench's agent cannot reply");
            return;
        }
        clocks.answered_in_all.fetch_add(1, Ordering::AcqRel);
        if clocks.answered[number].fetch_add(1, Ordering::AcqRel) + 1 == clocks.steps {
            clocks.finished.fetch_add(1, Ordering::AcqRel);
        }
    }
}

/// What the task's header says; without it the partitioner decides and the engine forwards.
fn reply_partition(message: &BorrowedMessage<'_>) -> Option<i32> {
    let header = message
        .headers()?
        .iter()
        .find(|header| header.key == "partita-reply-partition")?;
    std::str::from_utf8(header.value?).ok()?.parse().ok()
}

fn producer(client: &ClientConfig) -> Result<Producer, CliError> {
    client
        .clone()
        .set("linger.ms", "0")
        .set("partitioner", "murmur2_random")
        .set("enable.idempotence", "true")
        .set("queue.buffering.max.messages", "1000000")
        .create()
        .map_err(|error| broken("the bench's producer", &error))
}

/// Sends, and waits where the queue is full.
pub(super) fn send(
    producer: &Producer,
    record: BaseRecord<'_, str, impl rdkafka::message::ToBytes + ?Sized>,
) -> Result<(), CliError> {
    let mut record = record;
    loop {
        match producer.send(record) {
            Ok(()) => return Ok(()),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), back)) => {
                record = back;
                std::thread::sleep(Duration::from_millis(1));
            }
            Err((error, _)) => return Err(broken("producing", &error)),
        }
    }
}

fn broken(what: &str, error: &KafkaError) -> CliError {
    CliError::Unreachable(format!("{what}: {error}"))
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
