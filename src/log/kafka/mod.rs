//! The log over a real cluster, by rdkafka. One consumer (cooperative) and a few
//! transactional producers in turn for each worker, all on the worker's own thread.
//!
//! [`settings`] says how to reach the cluster; [`ownership`] turns rebalances into lists;
//! [`session`] is the [`super::Log`] itself; [`producer`] its transactional half, of
//! which [`turns`] keeps several and `letters` bounds dead letters; [`restore`] reads changelogs;
//! [`sources`] is the session of the intake, over topics of others, of which [`range`] reads a part
//! once and [`places`] single records again; [`errors`] sorts what librdkafka reports.

mod drain;
pub mod errors;
mod letters;
pub mod ownership;
pub mod places;
pub mod producer;
pub mod range;
pub mod restore;
pub mod session;
pub mod settings;
pub mod sources;
pub mod turns;

pub use session::{KafkaLog, KafkaLogConfig, headers_of};
pub use settings::{
    ClientSettings, READERS_GROUP, Sasl, SaslMechanism, Security, Tls, reader_config,
};
pub use sources::SourceLog;
