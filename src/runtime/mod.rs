//! The runtime: workers that own partitions and move their runs on, exactly once.
//!
//! [`handle`] is the door for the rest of the house; [`supervisor`](self) runs the threads behind
//! it. Data passes through [`worker`]: it polls its log, restores what it was assigned
//! (`restore`), and turns a batch into one transaction (`transaction`, `send`). What is committed
//! is folded into a [`partition`]: a [`cache`] of encoded runs (in `slots`) with the queues of what is
//! due and an index of their `tags`, and behind it the store, which is written later. [`shared`] is what
//! API threads see of it; `list` and `history` look back, `submit` brings their records in, `sweep`
//! removes what is long over.
//!
//! [`intake`] is the stage before: events of users' topics become signals for [`patterns`], which start
//! runs; [`tables`] are the topics that rules join. Both stages that keep state are driven by one loop: [`worker`] over a `stage`.
//!
//! [`backtest`] tries rules over what lies in their topics already, [`replay`] over a file of events.
//!
//! [`definitions`] (what workflows and rules there are, and which `rules` are in force; [`kinds`] reads them) and [`membership`] (who
//! owns which partition) stand
//! beside the workers; each reads a small compacted topic whole, by a [`follower`].

mod applied;
mod awaited;
pub mod backtest;
pub mod cache;
mod dead_letter;
pub mod definitions;
pub mod follower;
pub mod handle;
mod history;
pub mod intake;
pub mod kinds;
mod list;
pub mod membership;
mod meters;
pub mod partition;
pub mod patterns;
mod recovery;
pub mod replay;
mod rules;
mod send;
pub mod shared;
mod slots;
mod stage;
mod submit;
mod supervisor;
mod sweep;
pub mod tables;
mod tags;
mod task_topics;
mod transaction;
pub mod unreadable;
pub mod worker;
mod workflows;

pub use handle::{
    Answered, DefinitionRegistry, Handle, ListCursor, PartitionInfo, Readiness, RunFilter, RunPage,
    RuntimeConfig, StartError, SubmitError, start,
};
pub use history::{EventsTail, History, HistoryEvent, LiveEvent};
pub use rules::{Draining, RuleSet};
pub use submit::LARGEST_RECORD;
pub use supervisor::REST_ROUND;
