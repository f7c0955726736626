//! The pure core, tested as a whole: [`world`] stands in for a partition (committed state, time,
//! timers), [`tables`] runs the scripts of `tests/workflows`, [`properties`] random ones, and
//! [`speed`] says on request what a step costs.

mod properties;
mod speed;
mod tables;
mod world;
