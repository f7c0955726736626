//! The runtime against real brokers: the embedded one, and Apache Kafka where Java is there.

mod agent;
mod await_pattern;
mod backtest;
mod definitions;
mod follower;
mod http_agent;
mod intake;
mod joins;
mod large;
mod large_replies;
mod log;
mod originals;
mod panics;
mod replaced;
mod scenarios;
mod signals;
mod world;
