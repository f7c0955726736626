//! Workflows, pure: a definition (YAML or JSON) is parsed and checked ([`definition`]), compiled
//! into a [`program`], and a run of it is moved on by [`transition`], one input at a time, which
//! returns [`effect`]s. No clock, no I/O, no Kafka: time is an argument.

pub mod definition;
pub mod effect;
pub mod program;
pub mod transition;

pub use program::Workflow;
