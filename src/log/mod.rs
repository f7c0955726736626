//! The log: what a worker needs of Kafka, and no more. One [`Log`] is one worker's session: a
//! consumer in the group of a stage ([`StageKind`]) and a transactional producer.
//!
//! Data passes in this order: `poll` brings records and changes of ownership; a partition that
//! was assigned is restored through [`Log::changelog`] and only then started with
//! [`Log::start`]; a batch is written by `begin`, `send`…, `settle`, `send_offsets`, `commit`.
//! That order is law: offsets that are sent while deliveries are still under way cost 100 ms a
//! transaction on Apache Kafka, and a commit with deliveries under way costs as much again.
//!
//! [`kafka`] is the real thing; [`memory`] keeps the same promises (isolation, aborts, fencing,
//! offsets inside the transaction, rebalances) within one process. [`partitioner`] says where a
//! run lives.

pub mod conformance;
pub mod kafka;
pub mod memory;
pub mod partitioner;

use std::time::Duration;

/// An input of a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Source {
    Commands,
    Replies,
    Signals,
}

impl Source {
    /// The inputs of the workflows' stage.
    pub const BOTH: [Source; 2] = [Source::Commands, Source::Replies];

    /// Its place among the inputs of its stage.
    pub fn index(self) -> usize {
        match self {
            Source::Commands | Source::Signals => 0,
            Source::Replies => 1,
        }
    }
}

/// A stage that keeps state by partition: which topics it reads, and which is its changelog.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StageKind {
    #[default]
    Workflows,
    Patterns,
}

impl StageKind {
    /// What its consumer group is called, after the prefix.
    pub fn name(self) -> &'static str {
        match self {
            StageKind::Workflows => "workflows",
            StageKind::Patterns => "patterns",
        }
    }

    /// At most two. The group shares out the first; the same partition of the other goes with it.
    pub fn inputs(self) -> &'static [Source] {
        match self {
            StageKind::Workflows => &Source::BOTH,
            StageKind::Patterns => &[Source::Signals],
        }
    }
}

/// Full names of the topics of one installation.
#[derive(Clone, Debug)]
pub struct Topics {
    pub commands: String,
    pub replies: String,
    pub state: String,
    pub events: String,
    pub signals: String,
    pub pattern_state: String,
    pub dead_letter: String,
    task_prefix: String,
}

impl Topics {
    pub fn new(prefix: &str) -> Self {
        let name = |topic: &str| format!("{prefix}{topic}");
        Self {
            commands: name("commands"),
            replies: name("replies"),
            state: name("state"),
            events: name("events"),
            signals: name("signals"),
            pattern_state: name("pattern-state"),
            dead_letter: name("dead-letter"),
            task_prefix: name("tasks."),
        }
    }

    pub fn of(&self, source: Source) -> &str {
        match source {
            Source::Commands => &self.commands,
            Source::Replies => &self.replies,
            Source::Signals => &self.signals,
        }
    }

    /// The changelog of a stage.
    pub fn changelog(&self, stage: StageKind) -> &str {
        match stage {
            StageKind::Workflows => &self.state,
            StageKind::Patterns => &self.pattern_state,
        }
    }

    /// The topics that must agree on the number of partitions for a stage to work.
    pub fn co_partitioned(&self, stage: StageKind) -> Vec<&str> {
        match stage {
            StageKind::Workflows => vec![&self.commands, &self.replies, &self.state, &self.events],
            StageKind::Patterns => vec![&self.signals, &self.pattern_state],
        }
    }

    /// The topic that tasks for `agent` go to.
    pub fn tasks(&self, agent: &str) -> String {
        format!("{}{agent}", self.task_prefix)
    }
}

/// A record that came in.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    pub source: Source,
    pub partition: i32,
    pub offset: i64,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<(String, Vec<u8>)>,
}

impl Record {
    /// The first header of that name.
    pub fn header(&self, name: &str) -> Option<&[u8]> {
        let found = self.headers.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_slice())
    }

    /// Bytes of key and value.
    pub fn size(&self) -> usize {
        let length = |bytes: &Option<Vec<u8>>| bytes.as_ref().map_or(0, Vec::len);
        length(&self.key) + length(&self.value)
    }
}

/// Where a record goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target<'a> {
    /// An input of another partition: a record that was in the wrong one.
    Input(Source, i32),
    /// `commands`; the key, a run's id, decides on the partition.
    Command,
    /// The changelog of the stage.
    State(i32),
    /// `events`, in the partition that belongs to this run's.
    Events(i32),
    /// `tasks.<agent>`; the key decides on the partition.
    Tasks(&'a str),
    /// `signals`, in the partition of a rule's key.
    Signals(i32),
    /// `signals`; the key, a rule's, decides on the partition.
    Signal,
    /// `dead-letter`; the key decides on the partition.
    DeadLetter,
}

/// A record to send.
#[derive(Clone, Copy, Debug)]
pub struct Outgoing<'a> {
    pub target: Target<'a>,
    pub key: Option<&'a [u8]>,
    /// `None`: a tombstone.
    pub value: Option<&'a [u8]>,
    pub headers: &'a [(&'a str, &'a [u8])],
}

/// A partition came or went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum OwnershipChange {
    /// To be restored and started. Empty: a rebalance ended and brought this member nothing.
    Assigned(Vec<i32>),
    /// Not ours any more: what is not committed of them never will be.
    Revoked(Vec<i32>),
}

/// The next offsets to read of a partition's inputs, by [`Source::index`].
pub type Positions = [i64; 2];

/// How much one `poll` may bring. The first record is always accepted.
#[derive(Clone, Copy, Debug)]
pub struct PollLimits {
    pub wait: Duration,
    pub records: usize,
    pub bytes: usize,
}

/// What an error asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorClass {
    /// Nothing was changed: try again later.
    Retriable,
    /// The transaction is lost, the session is not: abort, rewind.
    Abortable,
    /// The session is lost, and perhaps nobody knows how the transaction ended: make a new one
    /// and read everything again.
    Fatal,
    /// Another took this member's place in its group under the same name, and has its work: a new session
    /// would take it back, and the two would go on like that.
    Replaced,
}

#[derive(Clone, Debug, thiserror::Error)]
#[error("{doing}: {reason}")]
pub struct LogError {
    pub class: ErrorClass,
    /// What was being done, as in "committing the transaction".
    pub doing: &'static str,
    pub reason: String,
}

/// Records of an input that the cluster deleted before they were read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    pub topic: String,
    pub partition: i32,
    /// Offsets passed over: at most so many records.
    pub records: u64,
}

/// Where a partition's state was written in a settled transaction: the next offset of its
/// changelog.
pub type ChangelogPositions = Vec<(i32, i64)>;

/// One worker's session with the cluster.
pub trait Log: Send {
    /// Connects (or connects anew after a fatal error): the producer's session is initialised,
    /// which ends an open transaction of its predecessor. Keeps the consumer.
    fn connect(&mut self) -> Result<(), LogError>;

    /// Names the cluster, so that a store that belongs to another one is not taken for ours.
    /// Known once connected.
    fn cluster(&self) -> &str;

    /// Partitions of the stage's inputs and of its changelog. Known once connected.
    fn partitions(&self) -> i32;

    /// Appends what is ready to `records`, waiting at most `limits.wait` for the first; returns
    /// changes of ownership, which came before every record appended.
    fn poll(
        &mut self,
        limits: PollLimits,
        records: &mut Vec<Record>,
    ) -> Result<Vec<OwnershipChange>, LogError>;

    /// Where an owner of the partition has to begin: committed offsets that no open transaction
    /// can change any more.
    fn committed(&mut self, partition: i32) -> Result<Positions, LogError>;

    /// What [`Log::committed`] passed over since this was asked last: committed offsets whose records
    /// are not there any more.
    fn take_lost(&mut self) -> Vec<Lost> {
        Vec::new()
    }

    /// Reads the committed changelog of the partition from this offset up to where it ends now.
    /// To be called after [`Log::committed`].
    fn changelog(
        &mut self,
        partition: i32,
        from: i64,
    ) -> Result<Box<dyn ChangelogReader>, LogError>;

    /// Delivers the partition's records from here on. For a partition already started: goes back
    /// to these positions.
    fn start(&mut self, partition: i32, from: Positions) -> Result<(), LogError>;

    fn begin(&mut self) -> Result<(), LogError>;
    fn send(&mut self, record: Outgoing<'_>) -> Result<(), LogError>;
    /// Waits until every record sent is acknowledged.
    fn settle(&mut self) -> Result<ChangelogPositions, LogError>;
    /// The next offsets to read become part of the transaction.
    fn send_offsets(&mut self, positions: &[(i32, Positions)]) -> Result<(), LogError>;
    fn commit(&mut self) -> Result<(), LogError>;
    fn abort(&mut self) -> Result<(), LogError>;

    /// Records of the partition that are known to wait from these positions on, by
    /// [`Source::index`].
    fn lag(&self, partition: i32, positions: Positions) -> [u64; 2];

    /// Why no broker has been connected for some seconds; `None` while one is, and before that is
    /// known.
    fn outage(&self) -> Option<String>;

    /// Ends the session. A dynamic member leaves the group, so that others take over at once. A
    /// static one keeps its place until its session expires: whoever comes back under the same id
    /// before that goes on at once, and nobody else does.
    fn leave(&mut self);
}

/// A committed record of the changelog; `value: None` is a tombstone.
pub struct ChangelogRecord<'a> {
    pub offset: i64,
    pub key: &'a [u8],
    pub value: Option<&'a [u8]>,
}

/// How far a restore has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RestoreProgress {
    /// Everything up to this offset (exclusive) has been visited.
    pub position: i64,
    /// Offsets that are left, about.
    pub remaining: u64,
    pub done: bool,
}

/// Reads one partition's changelog, piece by piece.
pub trait ChangelogReader: Send {
    /// Where it reads from. Less than what was asked for: that offset lies beyond the end, so it
    /// belongs to another life of the topic, and everything is read anew.
    fn position(&self) -> i64;

    /// Visits up to `limit` records; waits a little where none is ready.
    fn read(
        &mut self,
        limit: usize,
        visit: &mut dyn FnMut(ChangelogRecord<'_>),
    ) -> Result<RestoreProgress, LogError>;
}
