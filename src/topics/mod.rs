//! The topics of an installation: declared in `topics.yaml` ([`catalogue`]), created and compared
//! with a cluster ([`cluster`]).

pub mod catalogue;
pub mod cluster;

pub use catalogue::{Catalogue, Cleanup, TopicSpec, TopicsFileError};
pub use cluster::{Cluster, ClusterError, Found, Verdict, faults};
