//! A single-node broker that speaks the Kafka protocol, to embed in a program or to run by itself.
//!
//! The way of a request, room by room:
//!
//! 1. [`net`] accepts connections, cuts the byte stream into bounded frames, checks each header against
//!    the table of served versions and answers the requests of one connection in the order they came.
//! 2. [`handlers`] holds one small file per API: it reads the request, asks the store, writes the response.
//! 3. [`store`] owns the one lock: handlers read the state through it and change it by emitting events.
//! 4. [`state`] is the event-sourced machine: a closed set of events and what each does to topics,
//!    partitions, producers, transactions and committed offsets. It does no I/O.
//!
//! 5. [`wal`] is the log of those events, in segments on disk or in memory; [`reader`] gets batches back out of it.
//! 6. [`group`] decides who is a member of which consumer group and when groups rebalance, just as purely;
//!    [`groups`] puts it behind a lock, gives it the time, and lets requests wait for its answers.
//! 7. [`maintenance`] is what happens without being asked: retention, compaction, checkpoints, timeouts.
//!
//! A restart is a replay of the events since the last checkpoint. Group membership is of the moment: after a restart
//! members join again.

mod batch;
pub mod config;
mod group;
mod groups;
mod handlers;
mod maintenance;
mod net;
mod reader;
mod records;
mod state;
mod store;
#[cfg(test)]
mod testing;
mod view;
mod wal;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;

pub use config::Config;
pub use group::GroupLimits;
use groups::Groups;
use maintenance::Maintenance;
use net::AnswerMemory;
use store::Store;

/// Why a broker did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("cannot listen on {listen}: {source}")]
    Listen {
        listen: String,
        #[source]
        source: std::io::Error,
    },
    #[error("the start was interrupted: {0}")]
    Interrupted(String),
    #[error("cannot open the data folder: {0}")]
    Store(#[from] store::OpenError),
}

/// What every handler can reach.
pub(crate) struct BrokerInner {
    pub(crate) config: Config,
    /// Where clients are told to connect: what `advertise` says, else the address listened on.
    pub(crate) advertised_host: String,
    pub(crate) advertised_port: u16,
    pub(crate) store: Store,
    pub(crate) groups: Arc<Groups>,
    pub(crate) answer_memory: AnswerMemory,
    /// Places for those who look inside batches on behalf of a client.
    pub(crate) searches: Arc<Semaphore>,
    /// Held by who looks inside a compressed batch that is being produced.
    pub(crate) inspection: Mutex<()>,
}

/// Searches by time that are at work at once: each may have a batch decompressed in memory.
const MAX_SEARCHES: usize = 4;

/// The only node there is; its id appears wherever the protocol wants a broker, leader or replica.
pub(crate) const NODE_ID: i32 = 1;

/// A running broker. Dropping it without [`Broker::shutdown`] stops it too, without waiting.
pub struct Broker {
    address: SocketAddr,
    inner: Arc<BrokerInner>,
    stop: watch::Sender<bool>,
    listener: Option<JoinHandle<()>>,
    maintenance: Option<Maintenance>,
}

impl Broker {
    /// Opens the data folder (or memory), replays what it holds, and listens.
    ///
    /// Runs on the caller's tokio runtime, which needs its I/O and time drivers.
    pub async fn start(config: Config) -> Result<Broker, StartError> {
        let listen_error = |source| StartError::Listen {
            listen: config.listen.clone(),
            source,
        };
        let socket = TcpListener::bind(&config.listen)
            .await
            .map_err(listen_error)?;
        let address = socket.local_addr().map_err(listen_error)?;
        let (advertised_host, advertised_port) = match &config.advertise {
            Some((host, port)) => (
                host.clone(),
                if *port == 0 { address.port() } else { *port },
            ),
            None if address.ip().is_unspecified() => ("127.0.0.1".to_owned(), address.port()),
            None => (address.ip().to_string(), address.port()),
        };
        // Opening may read a lot: not on a thread that others wait for.
        let (config, store) =
            tokio::task::spawn_blocking(move || Store::open(&config).map(|store| (config, store)))
                .await
                .map_err(|error| StartError::Interrupted(error.to_string()))??;
        let inner = Arc::new(BrokerInner {
            groups: Arc::new(Groups::new(config.groups.clone())),
            answer_memory: AnswerMemory::new(config.max_fetch_bytes_in_flight),
            searches: Arc::new(Semaphore::new(MAX_SEARCHES)),
            inspection: Mutex::new(()),
            config,
            advertised_host,
            advertised_port,
            store,
        });
        let (stop, stopped) = watch::channel(false);
        tokio::spawn(groups::keep_time(inner.groups.clone(), stopped.clone()));
        let listener = tokio::spawn(net::listen(socket, inner.clone(), stopped));
        tokio::spawn(maintenance::transactions::watch(Arc::downgrade(&inner)));
        tokio::spawn(maintenance::offsets::watch(Arc::downgrade(&inner)));
        let maintenance = Some(Maintenance::start(inner.clone()));
        tracing::info!(%address, "broker listening");
        Ok(Broker {
            address,
            inner,
            stop,
            listener: Some(listener),
            maintenance,
        })
    }

    /// The address listened on, with the real port where 0 was asked for.
    pub fn addr(&self) -> SocketAddr {
        self.address
    }

    /// What to give to a client as `bootstrap.servers`.
    pub fn bootstrap(&self) -> String {
        format!(
            "{}:{}",
            self.inner.advertised_host, self.inner.advertised_port
        )
    }

    /// Stops accepting, closes every connection, and writes a checkpoint so that the next start is quick.
    pub async fn shutdown(mut self) {
        self.stop.send_replace(true);
        if let Some(listener) = self.listener.take() {
            let _ = listener.await;
        }
        let (inner, maintenance) = (self.inner.clone(), self.maintenance.take());
        let closing = tokio::task::spawn_blocking(move || {
            drop(maintenance);
            inner.store.close()
        });
        match closing.await {
            Ok(Ok(())) => tracing::info!("broker stopped"),
            Ok(Err(error)) => {
                tracing::error!(%error, "the broker stopped, but could not write everything")
            }
            Err(error) => tracing::error!(%error, "the broker stopped, but not in order"),
        }
    }
}
