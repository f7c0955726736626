//! The first meeting with the brokers. They may be away for as long as they like: a door stands open
//! meanwhile that says so.

use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::InstanceError;
use crate::api::connections::ConnectionLimits;
use crate::api::waiting;
use crate::config::Config;
use crate::topics::{Catalogue, Cluster, ClusterError, Verdict};

/// Between two attempts to reach a broker that is away: from this, doubling, to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);
/// One request to the cluster.
const CLUSTER_TIMEOUT: Duration = Duration::from_secs(10);
/// Requests to the door may take so long once the brokers answer.
const DOOR_GRACE: Duration = Duration::from_secs(1);

/// Waits until the topics are as declared, creating what is missing; answers requests on the
/// listener until then, and gives it back.
pub(super) async fn await_topics(
    listener: TcpListener,
    config: &Config,
    limits: ConnectionLimits,
    catalogue: &Catalogue,
) -> Result<TcpListener, InstanceError> {
    let failed = |source| InstanceError::Listen {
        listen: config.http.listen.clone(),
        source,
    };
    // A second handle on the same socket: no request is refused between the two doors.
    let listener = listener.into_std().map_err(failed)?;
    let door = listener.try_clone().map_err(failed)?;
    let door = TcpListener::from_std(door).map_err(failed)?;
    let (reason, told) = watch::channel(format!("connecting to Kafka at {}", config.kafka.brokers));
    let stop = CancellationToken::new();
    let closes = stop.clone().drop_guard();
    let door = tokio::spawn(waiting::serve(door, told, limits, stop, DOOR_GRACE));
    let outcome = ensure_topics(config, catalogue, &reason).await;
    drop(closes);
    if let Err(error) = door.await {
        tracing::warn!(%error, "the door that said what the instance waits for has failed");
    }
    outcome?;
    TcpListener::from_std(listener).map_err(failed)
}

/// Refuses topics that an instance cannot work with; others that are not as declared are told.
fn accept(verdicts: &[Verdict]) -> Result<(), InstanceError> {
    let mut forbidding = Vec::new();
    for verdict in verdicts {
        match &verdict.fault {
            Some(fault) if fault.forbids_work => forbidding.push(verdict.to_string()),
            Some(_) => tracing::warn!("{verdict}"),
            None => {}
        }
    }
    match forbidding.is_empty() {
        true => Ok(()),
        false => Err(InstanceError::Topics(forbidding.join("\n"))),
    }
}

/// Creates what is missing and refuses what is wrong; waits for a broker that is away.
async fn ensure_topics(
    config: &Config,
    catalogue: &Catalogue,
    reason: &watch::Sender<String>,
) -> Result<(), InstanceError> {
    let cluster = Cluster::new(
        &config.kafka.client_settings().client_config(),
        CLUSTER_TIMEOUT,
    )?;
    let prefix = &config.topics.prefix;
    let mut pause = FIRST_PAUSE;
    loop {
        let outcome = match cluster.create(catalogue, prefix).await {
            Ok(created) => {
                for topic in created {
                    tracing::info!(topic, "created");
                }
                cluster.check(catalogue, prefix).await
            }
            Err(error) => Err(error),
        };
        match outcome {
            Ok(verdicts) => {
                return accept(&verdicts);
            }
            Err(ClusterError::Unreachable { brokers, message }) => {
                tracing::warn!(brokers, error = message, again_in = ?pause, "Kafka is not reachable");
                reason.send_replace(format!("cannot reach Kafka at {brokers}: {message}"));
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
            Err(error) => return Err(error.into()),
        }
    }
}
