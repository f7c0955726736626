//! Apache Kafka's own Java clients and tools against this broker.
//!
//! The jars are fetched by Maven once; where Java or Maven is missing each test says loudly what it did not test, and
//! fails where the environment variable `CI` is set.
//!
//! - `topics`: kafka-topics, kafka-configs, kafka-get-offsets, kafka-delete-records, kafka-log-dirs, kafka-cluster
//! - `groups`: kafka-consumer-groups and kafka-groups, with members and without
//! - `transactions`: kafka-transactions
//! - `performance`: the console and performance tools with every codec
//! - `streams`: a Kafka Streams application under `exactly_once_v2`, killed again and again

mod groups;
mod performance;
mod streams;
mod support;
mod topics;
mod transactions;
