//! Patterns over event streams, pure: a definition (YAML or JSON) is read and checked by
//! [`syntax`] into an immutable [`Rule`] whose conditions are [`predicate`]s over the fields of
//! [`Event`]s, interned into slots; a [`Matcher`] turns events into [`Outputs`]. No clock, no I/O: time is event time, and the caller moves it
//! on where nothing arrives.

mod event;
pub mod matcher;
mod output;
pub mod predicate;
pub mod replay;
mod rule;
pub mod syntax;

pub use event::{Event, Scalar, Taken};
pub use matcher::Matcher;
pub use output::{Key, Match, Outputs, Overflow, TimedOut};
pub use rule::*;
