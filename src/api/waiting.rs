//! What listens while the brokers are away: alive (a restart would help nothing), not ready, and able
//! to say why. Every route but `/livez` answers as `/readyz` does.

use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::middleware::from_fn;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::connections::{self, ConnectionLimits};
use super::problem::Problem;
use super::{cluster, name_the_instance};

/// Serves until `stop` is cancelled, telling the reason as it stands at each request; requests under
/// way then are finished, at most for `grace`.
pub async fn serve(
    listener: TcpListener,
    reason: watch::Receiver<String>,
    limits: ConnectionLimits,
    stop: CancellationToken,
    grace: Duration,
) {
    let router = Router::new()
        .route("/livez", get(cluster::livez))
        .fallback(not_ready)
        .layer(from_fn(name_the_instance))
        .with_state(reason);
    connections::serve(listener, router, limits, stop, grace).await;
}

async fn not_ready(State(reason): State<watch::Receiver<String>>) -> Problem {
    Problem::not_ready(vec![reason.borrow().clone()])
}
