//! The words everything else is written in: identifiers, values, time, and the records that
//! travel on topics. Pure data: no I/O, no clock, no behaviour beyond what a type means.
//!
//! Reading order: [`json`] (a payload is JSON text that we carry and rarely look into), [`time`],
//! [`ids`], [`failure`] (an error with a class), then the records by direction: [`command`] and
//! [`reply`] come in, each from an [`origin`]; [`task`], [`event`] and [`rule_event`] go out; [`run`] with its
//! [`inbox`] and [`parked`] are what a partition remembers, and [`provenance`] where it came from. [`signal`] is what the intake of events
//! hands to patterns, and [`cloud_event`] the envelope that they may have come in.

pub mod cloud_event;
pub mod command;
pub mod event;
pub mod failure;
pub mod ids;
pub mod inbox;
pub mod json;
pub mod origin;
pub mod parked;
pub mod provenance;
pub mod reply;
pub mod rule_event;
pub mod run;
pub mod signal;
pub mod task;
pub mod time;

pub use command::{Command, Matched, Order, Selected, Signal, Start, Verb};
pub use event::{Event, EventKind};
pub use failure::{Failure, class};
pub use ids::{RunId, SignalId, SignalName, TaskId};
pub use inbox::{Inbox, WaitingSignal};
pub use json::Json;
pub use origin::Origin;
pub use parked::{Parked, ParkedKey};
pub use provenance::{Contributor, Provenance, RecordPlace};
pub use reply::{Reply, ReplyStatus};
pub use run::{RunState, RunStatus, StepState, StepStatus, WatchedKey};
pub use signal::Watch;
pub use task::{CancelTask, Task};
pub use time::{Millis, Timestamp};
