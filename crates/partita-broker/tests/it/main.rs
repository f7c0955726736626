//! The broker as clients see it, driven by librdkafka: in this process for most tests, as a process of its own where it
//! must die.

mod compaction;
mod frames;
mod groups;
mod hogs;
mod membership;
mod records;
mod restart;
mod retention;
mod support;
mod transactions;
