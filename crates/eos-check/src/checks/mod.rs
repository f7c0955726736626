//! The checks, one file per group, in the order in which `phase1` and `phase2` run them.

pub mod topics;

pub mod consume;
pub mod transactions;

pub mod rebalance;
pub mod restart;

pub mod bench;
pub mod cleanup;
