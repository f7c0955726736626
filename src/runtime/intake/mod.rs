//! The intake: events of users' topics become signals for the patterns, exactly once.
//!
//! Each [`worker`] has its consumer (all are one group), its producers and a thread. What it reads is
//! decoded ([`crate::codec::event`]), shown to the rules that may want it
//! ([`crate::pattern::filter`]), and written to `signals` once for each rule that does (`batch`),
//! with how far event time has come at its source (`watermarks`) and with what could not be read as
//! dead letters: all in the transaction that moves the offsets. [`schemas`] knows how others write
//! Avro; a partition whose schema cannot be had for now waits alone (`hold`). The stage keeps no state:
//! what it needs to go on is in the group's offsets.

mod batch;
mod gaps;
mod hold;
pub mod schemas;
mod topics;
mod watermarks;
pub mod worker;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::DefinitionRegistry;
use super::supervisor::{Driven, keep_driving, pause};
use crate::codec::event::Schemas;
use crate::log::StageKind;
use crate::log::kafka::{ClientSettings, KafkaLogConfig, SourceLog};
use crate::model::Millis;
use worker::{IntakeWorker, Stepped};

/// A worker that has nothing to do looks up so often.
const IDLE_WAIT: Duration = Duration::from_millis(50);

/// Between two reports of how far behind a worker is.
const OBSERVE_EVERY: Duration = Duration::from_secs(1);

/// Settings of the intake of one instance.
#[derive(Clone, Debug)]
pub struct IntakeConfig {
    pub client: ClientSettings,
    /// Prefix of all topics, group ids and transactional ids, such as `partita.`.
    pub prefix: String,
    /// Names this instance, as [`RuntimeConfig::instance`](super::RuntimeConfig) does.
    pub instance: String,
    /// Threads, at least 1.
    pub workers: usize,
    /// Records of one transaction, at most.
    pub batch_records: usize,
    /// Bytes of the input of one transaction, at most; the first record is always accepted.
    pub batch_bytes: usize,
    /// Of an event's JSON; a larger one is a dead letter.
    pub max_payload_bytes: usize,
    pub transaction_timeout: Millis,
    pub session_timeout: Millis,
    /// Whether a worker's place in the group outlives it for `session_timeout`.
    pub static_membership: bool,
}

impl IntakeConfig {
    /// The documented defaults, for `instance` on the cluster behind `client`.
    pub fn new(client: ClientSettings, instance: impl Into<String>) -> Self {
        Self {
            client,
            prefix: "partita.".to_owned(),
            instance: instance.into(),
            workers: 1,
            batch_records: 20_000,
            batch_bytes: 8 << 20,
            max_payload_bytes: 256 << 10,
            transaction_timeout: Millis(10_000),
            session_timeout: Millis(10_000),
            static_membership: false,
        }
    }

    /// The session of worker `number`.
    fn log(&self, number: usize) -> KafkaLogConfig {
        KafkaLogConfig {
            client: self.client.clone(),
            prefix: self.prefix.clone(),
            // The stage that it writes for.
            stage: StageKind::Patterns,
            transactional_id: format!("{}intake.{}.{number}", self.prefix, self.instance),
            transaction_timeout: self.transaction_timeout,
            session_timeout: self.session_timeout,
            static_membership: self.static_membership,
        }
    }
}

/// Why the intake does not start. A broker that is away is no reason: workers wait for it.
#[derive(Debug, thiserror::Error)]
pub enum IntakeError {
    #[error("cannot make a Kafka client: {0}")]
    Client(String),
    #[error("cannot start a thread: {0}")]
    Thread(String),
}

/// The running threads. Dropping it asks them to stop.
pub struct Intake {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<()>>,
}

impl Intake {
    /// Starts the workers. As long as there are no rules they reach for nothing.
    ///
    /// # Errors
    /// See [`IntakeError`].
    pub fn start(
        config: &IntakeConfig,
        rules: &Arc<dyn DefinitionRegistry>,
        schemas: &Arc<dyn Schemas + Send + Sync>,
    ) -> Result<Self, IntakeError> {
        let mut intake = Self {
            stop: Arc::new(AtomicBool::new(false)),
            threads: Vec::new(),
        };
        for number in 0..config.workers.max(1) {
            let (config, rules, schemas) = (config.clone(), rules.clone(), schemas.clone());
            let make = move || {
                let log = SourceLog::new(config.log(number))
                    .map_err(|error| IntakeError::Client(error.to_string()))?;
                let (rules, schemas) = (rules.clone(), schemas.clone());
                Ok::<_, IntakeError>(IntakeWorker::new(&config, number, log, rules, schemas))
            };
            let worker = make()?;
            let stop = intake.stop.clone();
            let thread = std::thread::Builder::new()
                .name(format!("partita-intake-{number}"))
                .spawn(move || keep_driving(worker, make, &stop));
            intake
                .threads
                .push(thread.map_err(|error| IntakeError::Thread(error.to_string()))?);
        }
        Ok(intake)
    }

    /// Asks all threads to finish their transaction and leave the group.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Release);
    }

    /// Waits until all threads have finished; `false` where they had not by `deadline`.
    pub async fn until_finished(&self, deadline: tokio::time::Instant) -> bool {
        loop {
            if self.threads.iter().all(JoinHandle::is_finished) {
                return true;
            }
            if tokio::time::Instant::now() >= deadline {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Drop for Intake {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Driven for IntakeWorker {
    fn drive(&mut self, stop: &AtomicBool) {
        let mut observed = Instant::now();
        while !stop.load(Ordering::Acquire) {
            if let Stepped::Failed { retry_after } = self.step(IDLE_WAIT) {
                pause(retry_after, stop);
            }
            if observed.elapsed() >= OBSERVE_EVERY {
                observed = Instant::now();
                self.observe();
            }
        }
        self.leave();
    }

    /// Its session goes with it: what was not committed is read again.
    fn forsake(self, _reason: String) {}
}
