//! What the loop of a [`super::worker::Worker`] asks of a stage: the workflows', and the patterns'.

use std::collections::BTreeMap;
use std::time::Duration;

use super::recovery::Pace;
use crate::log::{ChangelogReader, Log, LogError, Positions, Record, RestoreProgress};
use crate::model::Timestamp;

/// Changelog records that one step reads, so that other partitions are not kept waiting.
pub(super) const RECORDS_PER_STEP: usize = 5_000;

/// One stage: what its partitions are, and what a batch does to them.
pub trait Stage: Send {
    /// What is known of one owned partition.
    type Partition: Send;

    /// The session stands; the stage's topics have so many partitions.
    fn connected(&mut self, partitions: i32);

    /// Why nothing goes on; `None`: it does.
    fn set_trouble(&self, trouble: Option<String>);

    /// Opens a partition, or takes up `known` again after a lost session or an abort; `None` while
    /// another worker of this instance has not given it up yet.
    fn open(
        &mut self,
        number: i32,
        cluster: &str,
        known: Option<Self::Partition>,
    ) -> Option<Self::Partition>;

    /// An empty partition in place of `old`, to be read from the beginning of its changelog.
    fn open_empty(&mut self, number: i32, cluster: &str, old: Self::Partition) -> Self::Partition;

    /// The changelog is to be read from here on.
    fn changelog_offset(&self, partition: &Self::Partition) -> i64;

    /// The restore of a partition begins.
    fn restoring(&mut self, number: i32, partition: &Self::Partition);

    /// Takes a piece of the changelog in.
    fn replay(
        &mut self,
        number: i32,
        partition: &mut Self::Partition,
        changelog: &mut dyn ChangelogReader,
    ) -> Result<RestoreProgress, LogError>;

    /// The changelog was read to its end: the partition is to work from now on.
    ///
    /// # Errors
    /// It cannot yet, and is to be opened again.
    fn restored(
        &mut self,
        number: i32,
        partition: &mut Self::Partition,
        now: Timestamp,
    ) -> Result<(), LogError>;

    /// When there is something to do in a partition though no record comes.
    fn next_due(&self, partition: &Self::Partition) -> Option<Timestamp>;

    /// Turns records, sorted by partition, and what is due at `now`, of that as much as `pace` allows, into one
    /// transaction, or several; how many inputs there were.
    fn transact(
        &mut self,
        log: &mut dyn Log,
        owned: &mut Owned<Self::Partition>,
        records: &[Record],
        now: Timestamp,
        pace: &mut Pace,
    ) -> Result<usize, LogError>;

    /// The transaction was given up: whether the partition is still as it was before, or has to be
    /// restored.
    fn survives_abort(&self, partition: &Self::Partition) -> bool;

    /// The session is lost: nobody knows how its last transaction ended.
    fn session_lost(&mut self, number: i32, partition: &Self::Partition);

    /// The partition is another's now.
    fn give_up(&mut self, number: i32, partition: Option<Self::Partition>);

    /// The worker panicked: what is known of the partition is not to be used again.
    fn forsake(&mut self, number: i32) {
        self.give_up(number, None);
    }

    /// Tells how far behind the partition is, by input.
    fn observe(&self, number: i32, partition: &Self::Partition, behind: [u64; 2]);
}

/// The partitions of a worker.
pub type Owned<P> = BTreeMap<i32, OwnedPartition<P>>;

/// A partition and how far it is.
pub struct OwnedPartition<P> {
    pub partition: Option<P>,
    pub phase: Phase,
    /// Next offsets to read, as committed.
    pub positions: Positions,
}

impl<P> Default for OwnedPartition<P> {
    fn default() -> Self {
        Self {
            partition: None,
            phase: Phase::Opening,
            positions: Positions::default(),
        }
    }
}

impl<P> OwnedPartition<P> {
    /// The partition, where it is restored.
    pub fn working(&self) -> Option<&P> {
        let is_working = matches!(self.phase, Phase::Working);
        self.partition.as_ref().filter(|_| is_working)
    }

    /// As [`OwnedPartition::working`], to be changed.
    pub fn working_mut(&mut self) -> Option<&mut P> {
        let is_working = matches!(self.phase, Phase::Working);
        self.partition.as_mut().filter(|_| is_working)
    }
}

/// How far a partition is.
pub enum Phase {
    /// Another worker of this instance has not given it up yet.
    Held,
    /// To be opened, or read again after a lost session.
    Opening,
    Restoring(Restoring),
    Working,
}

/// A restore under way.
pub struct Restoring {
    pub reader: Box<dyn ChangelogReader>,
    /// Where the input begins afterwards.
    pub positions: Positions,
}

/// What a step of a worker came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stepped {
    /// Something moved; so many inputs were applied.
    Worked(usize),
    /// Nothing was there to do.
    Idle,
    /// Something failed; try again after this.
    Failed { retry_after: Duration },
}
