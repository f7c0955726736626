//! A reply that waits for its run.

use super::{Origin, Reply, RunId, Timestamp};

/// A reply whose run is not known (yet): an agent that reads uncommitted may answer before the
/// start is committed again after a crash. It waits a few seconds, then is a dead letter.
#[derive(Clone, Debug, PartialEq)]
pub struct Parked {
    pub reply: Reply,
    pub due: Timestamp,
    /// The original record, for the dead letter.
    pub origin: Origin,
}

/// Names a parked reply: its run and where it came from.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ParkedKey {
    pub run: RunId,
    /// Offset on `replies` of this partition.
    pub offset: i64,
}
