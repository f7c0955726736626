//! The whole program from outside: the binary `partita` as separate processes, on Apache Kafka and
//! on the broker it carries, driven by plain Kafka clients and over HTTP.
//!
//! - [`await_pattern`]: runs wait for events while instances are killed.
//! - [`bad_input`]: records that cannot be read or are too large; topics of the wrong shape.
//! - [`broker_away`]: the broker comes late, and goes away for long in the middle of the work.
//! - [`chaos`]: thousands of runs while instances (and the embedded broker) are killed.
//! - [`leaving`]: an instance is stopped in good order and the other takes over at once.
//! - [`python_agents`]: the agents of `examples/agents/python`.
//! - [`rules`]: a million events through rules while instances are killed; [`reference`] says what
//!   they must find.
//! - [`lost_store`]: the local cache is deleted and corrupted between runs.
//! - [`secured`]: TLS and SASL, right and wrong passwords.
//! - [`support`]: processes, clients and the judge of histories, shared by all.

mod await_pattern;
mod bad_input;
mod broker_away;
mod chaos;
mod leaving;
mod lost_store;
mod python_agents;
// That of the tests of patterns.
#[path = "../patterns/reference/mod.rs"]
mod reference;
mod rules;
mod secured;
mod support;
