//! A cluster within one process, for tests and the simulation: topics with aborted and committed
//! records, transactions that carry offsets, fencing by transactional id and by group generation,
//! rebalances when a session joins, leaves or is expired.
//!
//! [`Cluster`] is the broker's side; [`MemoryLog`] a worker's session with it. Nothing happens by
//! itself and nothing takes time: an expired member or transaction is one that a test expired.

mod cluster;
mod session;

pub use cluster::{Cluster, StoredRecord, TopicKey};
pub use session::MemoryLog;
