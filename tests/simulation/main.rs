//! Simulation: the real worker over a log with real transaction semantics, in one thread, with a
//! clock that is turned by hand. A schedule is drawn from a seed: starts (repeated, and into wrong
//! partitions), agents that answer twice, late, out of order and for attempts given up, verbs,
//! poison, crashes and lost answers at every step of a transaction, rebalances, expired members
//! and transactions, stores that lag or are lost. Then faults heal, everything is answered, and
//! the invariants I1 to I7 of the design are checked on what the topics hold (`check`).
//!
//! A failure prints its seed; `PARTITA_SIMULATION_SEED=<seed>` runs that schedule alone, and
//! `PARTITA_SIMULATION_SCHEDULES=<n>` changes how many are run.
//!
//! That the checks can fail is shown by breaking the rules on purpose (`faulty::Sabotage`); each
//! of these makes the simulation fail:
//!
//! - positions committed outside the transaction: after a crash before the commit a record counts
//!   as done and nothing came of it (I7: its run never ends);
//! - the changelog written outside the transaction: after an abort the restored state is ahead of
//!   the events (I2, I3);
//! - restoring from what is not committed: the same from the other side;
//! - not going back after an abort: the records of the aborted batch are lost (I1, I7);
//! - beginning to work before the changelog is read to its end: events are numbered twice (I2);
//! - the store written ahead of Kafka, before the commit: after an abort or a crash it holds what
//!   never happened (I5).
//!
//! Schedule 0 or 1 catches each of them. Two more were made by hand in the worker itself
//! (`runtime/transaction.rs`), for no log can make them, and both were caught by schedule 1, after
//! a quarter of a second: folding the changes into the partition before `commit` (I5: a store that
//! is not its changelog), and there writing the store, first what it lacks and then the open
//! transaction's changes with their offset (I5, likewise).

mod await_pattern;
mod check;
mod faulty;
mod large;
mod originals;
mod patterns;
mod random;
mod retention;
mod schedule;
mod selected;
mod stores;
#[path = "../patterns/tables.rs"]
mod tables;
mod two_workers;
mod world;

use faulty::Sabotage;

const SCHEDULES: u64 = 1_200;

/// Sabotage shows within so many schedules, or the checks are worth nothing.
const SCHEDULES_UNTIL_CAUGHT: u64 = 400;

fn number_from(name: &str) -> Option<u64> {
    std::env::var(name)
        .ok()
        .map(|text| text.parse().expect("a number"))
}

#[test]
fn every_schedule_keeps_the_invariants() {
    if let Some(seed) = number_from("PARTITA_SIMULATION_SEED") {
        return schedule::run(seed, Sabotage::None).expect("the invariants");
    }
    let schedules = number_from("PARTITA_SIMULATION_SCHEDULES").unwrap_or(SCHEDULES);
    let mut seen = schedule::Seen::default();
    for seed in 0..schedules {
        match schedule::run_counted(seed, Sabotage::None) {
            Ok(of_schedule) => seen.add(&of_schedule),
            Err(violation) => panic!("PARTITA_SIMULATION_SEED={seed}: {violation}"),
        }
    }
    println!("{schedules} schedules: {seen:?}");
    assert!(
        seen.is_thorough(),
        "the schedules leave something out: {seen:?}"
    );
}

fn is_caught(sabotage: Sabotage) {
    for seed in 0..SCHEDULES_UNTIL_CAUGHT {
        if let Err(violation) = schedule::run(seed, sabotage) {
            println!("{sabotage:?} is caught by schedule {seed}: {violation}");
            return;
        }
    }
    panic!("{sabotage:?} goes unnoticed");
}

#[test]
fn positions_outside_the_transaction_are_caught() {
    is_caught(Sabotage::PositionsOutside);
}

#[test]
fn a_changelog_outside_the_transaction_is_caught() {
    is_caught(Sabotage::ChangelogOutside);
}

#[test]
fn restoring_what_is_not_committed_is_caught() {
    is_caught(Sabotage::RestoreUncommitted);
}

#[test]
fn not_going_back_after_an_abort_is_caught() {
    is_caught(Sabotage::NoWayBack);
}

#[test]
fn a_store_ahead_of_kafka_is_caught() {
    is_caught(Sabotage::StoreAhead);
}

#[test]
fn working_before_the_restore_is_done_is_caught() {
    is_caught(Sabotage::RestoreTooShort);
}
