//! Partita: a Kafka-native orchestrator for agent and microservice workflows.
//!
//! A guided tour, in the order in which a record passes: [`log`] polls it, [`codec`] reads it into
//! [`model`]'s words, [`engine`] applies it to its run (moved on by [`workflow`], whose expressions
//! are [`expr`]; [`pattern`] matches rules; both are read by [`document`]), and [`runtime`] commits outputs, changelog and positions in one Kafka transaction,
//! folds the change into its cache and, later, into the [`store`]. [`agents`] do the work, [`api`]
//! is the door, [`instance`] puts one together, and [`cli`] starts it, with [`config`], [`topics`]
//! and [`telemetry`] at hand. `ARCHITECTURE.md` has the map and the reasons.

pub mod agents;
pub mod api;
pub mod cli;
pub mod clock;
pub mod codec;
pub mod config;
pub mod document;
pub mod engine;
pub mod expr;
pub mod instance;
pub mod log;
pub mod model;
pub mod pattern;
pub mod runtime;
pub mod store;
pub mod telemetry;
pub mod topics;
pub mod workflow;

/// Agents written in Rust.
pub use agents::agent;
