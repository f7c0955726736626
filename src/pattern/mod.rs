//! Patterns over event streams, pure: a definition (YAML or JSON) is read and checked by
//! [`syntax`] into an immutable [`Rule`] whose conditions are [`predicate`]s over the fields of
//! [`Event`]s, interned into slots; a [`Matcher`] turns events into [`Outputs`]. No clock, no I/O:
//! time is event time (milliseconds since 1970), handed in, and the caller moves it on where
//! nothing arrives. A [`trial`] shows what a rule would find in events of the past.
//!
//! Behind windows, changes and anomalies are the numeric pieces: [`aggregate`] summarises values,
//! [`window`] cuts a stream into spans of event time and compares a value with what came before,
//! [`anomaly`] says how far a value lies from what a detector has learned, and [`gauge`] puts the
//! last two under one roof for conditions. Their state is plain data that serialises without loss
//! ([`exact`]).

mod actions;
pub mod aggregate;
pub mod anomaly;
mod awaited;
mod event;
pub mod exact;
mod fields;
pub mod filter;
pub mod gauge;
pub mod having;
pub mod matcher;
mod output;
pub mod predicate;
pub mod route;
mod rule;
pub mod syntax;
pub mod trial;
pub mod window;

pub use awaited::{watched_key, watcher_of};
pub use event::{Event, Recorded, Scalar, Taken};
pub use fields::NoTime;
pub use matcher::Matcher;
pub use output::{Key, Match, Outputs, Overflow, TimedOut};
pub use rule::*;
