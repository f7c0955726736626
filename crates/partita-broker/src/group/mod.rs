//! The coordinator of consumer groups: the classic group protocol as a pure machine.
//!
//! Nothing here knows sockets, tasks or clocks. Every entry point takes `now` (milliseconds on
//! any clock that never runs backwards) and returns what to answer: at once as a value, or as
//! [`Delivery`]s to tickets that earlier callers left behind. So a rebalance that spans five
//! minutes is tested in microseconds, and a random history can be replayed.
//!
//! The way of a rebalance:
//!
//! 1. [`Coordinator::join`] parks the caller's ticket in its member (`join.rs`). The first join
//!    of an empty group, a newcomer, a departure or a changed subscription starts a rebalance.
//! 2. When every member has joined, or the rebalance timeout passes, `rebalance.rs` starts the
//!    next generation: it elects a leader, selects the protocol and answers all parked joins.
//! 3. [`Coordinator::sync`] parks members until the leader's sync brings the assignment
//!    (`sync.rs`); then all are answered and the group is stable.
//! 4. [`Coordinator::heartbeat`], [`Coordinator::leave`] (`membership.rs`) and
//!    [`Coordinator::expire`] (`expiry.rs`) keep it stable, or start over at 2.
//!
//! [`Coordinator::check_commit`] (`commit.rs`) says who may commit offsets; the offsets
//! themselves are not here but in the broker's log, and so outlive a restart. Groups do not:
//! after a restart members are told that they are unknown, and join again. Member ids are
//! unique, hence a member of a lost generation is never taken for one of a new generation.
//!
//! Assignments and subscriptions are opaque bytes; eager and cooperative rebalancing differ
//! only in what clients do with them. The one exception is `subscription.rs`, which reads the
//! topics of a subscription, because offsets of a topic in use must not be deleted.

mod commit;
mod coordinator;
mod describe;
mod error;
mod expiry;
mod join;
mod member;
mod membership;
mod messages;
mod rebalance;
mod state;
mod subscription;
mod sync;
#[cfg(test)]
mod tests;

pub use commit::CommitClaim;
pub use coordinator::{Coordinator, GroupLimits};
pub use describe::{GroupDescription, GroupListing, MemberDescription};
pub use error::GroupError;
pub use messages::{
    Delivery, HeartbeatRequest, JoinRefusal, JoinRequest, Joined, LeaveOutcome, LeavingMember,
    Protocol, Reply, SyncRequest, Synced,
};
pub use state::GroupState;
