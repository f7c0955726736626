//! The transactional producers of one session, which take turns.
//!
//! Kafka answers a commit before its markers are written, and refuses the next transaction of the
//! same producer until they are (`CONCURRENT_TRANSACTIONS`); librdkafka then waits 20 ms before it
//! asks again. With one producer, a twentieth of the transactions of a lightly loaded worker met
//! that wait. A producer whose turn comes again some transactions later does not, and as each
//! transaction ends before the next begins, their order stays what it was.

use std::sync::Arc;
use std::thread::{self, ScopedJoinHandle};

use rdkafka::TopicPartitionList;
use rdkafka::consumer::ConsumerGroupMetadata;

use super::letters::LetterBound;
use super::producer::{LARGEST_LETTER, TransactionalProducer};
use super::session::KafkaLogConfig;
use crate::log::{ChangelogPositions, LogError, Outgoing, Topics};

/// Producers of one worker. Each costs a connection to every broker that it writes to, two threads
/// at rest, and an entry in the broker's table of transactional ids.
const PRODUCERS: usize = 3;

/// What the client's own limit counts of a dead letter beyond what we count.
const MARGIN: usize = 4 << 10;

/// See the module.
pub(super) struct TurnsOfProducers {
    producers: Vec<TransactionalProducer>,
    /// Whose transaction is open, or was last.
    turn: usize,
}

impl TurnsOfProducers {
    /// Initialises the sessions of all, which fences every predecessor and ends what it left open. All at
    /// once: each takes some round trips to the brokers, and half a second where one was too early.
    pub(super) fn connect(config: &KafkaLogConfig, topics: &Arc<Topics>) -> Result<Self, LogError> {
        let letters = Arc::new(LetterBound::new(LARGEST_LETTER - MARGIN));
        let connect = &|number: usize| {
            let id = format!("{}-{number}", config.transactional_id);
            TransactionalProducer::connect(config, &id, Arc::clone(topics), Arc::clone(&letters))
        };
        let connected: Vec<_> = thread::scope(|scope| {
            let threads: Vec<_> = (0..PRODUCERS)
                .map(|number| scope.spawn(move || connect(number)))
                .collect();
            threads.into_iter().map(ScopedJoinHandle::join).collect()
        });
        let producers = connected
            .into_iter()
            .map(|outcome| outcome.unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect::<Result<_, _>>()?;
        Ok(Self { producers, turn: 0 })
    }

    fn current(&mut self) -> &mut TransactionalProducer {
        &mut self.producers[self.turn]
    }

    pub(super) fn begin(&mut self) -> Result<(), LogError> {
        self.turn = (self.turn + 1) % self.producers.len();
        self.current().begin()
    }

    pub(super) fn send(&mut self, record: Outgoing<'_>) -> Result<(), LogError> {
        self.current().send(record)
    }

    pub(super) fn settle(&mut self) -> Result<ChangelogPositions, LogError> {
        self.current().settle()
    }

    pub(super) fn send_offsets(
        &mut self,
        positions: &TopicPartitionList,
        group: &ConsumerGroupMetadata,
    ) -> Result<(), LogError> {
        self.current().send_offsets(positions, group)
    }

    pub(super) fn commit(&mut self) -> Result<(), LogError> {
        self.current().commit()
    }

    pub(super) fn abort(&mut self) -> Result<(), LogError> {
        self.current().abort()
    }
}
