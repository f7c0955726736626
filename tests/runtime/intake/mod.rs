//! The intake against real brokers.
//!
//! - [`exactly_once`]: every encoding, every kind of poison, and kills;
//! - [`changes`]: rules come and go;
//! - [`away`]: what happens while nobody runs, or while a schema registry does not;
//! - [`fenced`]: a session that is lost;
//! - [`letters`]: dead letters that are too large;
//! - [`times`]: event time from a header, and fields that topics call differently;
//! - [`support`]: rules, topics and records, shared by all.

mod away;
mod changes;
mod exactly_once;
mod fenced;
mod letters;
pub mod support;
mod times;
