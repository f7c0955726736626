//! Accepts connections, up to a limit, and closes them all at shutdown.

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::connection;
use crate::BrokerInner;

/// Serves `socket` until `stopped` changes or its sender is gone.
pub(crate) async fn listen(
    socket: TcpListener,
    broker: Arc<BrokerInner>,
    mut stopped: watch::Receiver<bool>,
) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = socket.accept() => match accepted {
                Ok((stream, peer)) => {
                    while connections.try_join_next().is_some() {}
                    if connections.len() >= broker.config.max_connections {
                        tracing::warn!(%peer, limit = broker.config.max_connections, "refusing a connection: too many are open");
                        continue;
                    }
                    let broker = broker.clone();
                    connections.spawn(async move { connection::serve(stream, peer, broker).await });
                }
                Err(error) => {
                    // Out of file descriptors, most likely: wait for some to be given back.
                    tracing::error!(%error, "accepting a connection failed");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            },
            _ = stopped.changed() => break,
        }
    }
    connections.shutdown().await;
}
