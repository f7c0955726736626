//! Every limit of the broker, with its unit and its default.

use std::path::PathBuf;
use std::time::Duration;

use crate::group::GroupLimits;

/// Where the log lives.
#[derive(Debug, Clone)]
pub enum Storage {
    /// Everything is gone when the broker stops.
    Memory,
    /// A folder of this broker alone; it is created when missing.
    Folder(PathBuf),
}

/// When what was written is forced to the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fsync {
    /// The operating system decides: safe when the process dies, not when the machine does.
    Never,
    /// Every [`Config::fsync_interval`]: a machine that dies loses at most that much.
    Interval,
    /// Before anything is acknowledged; requests that arrive together share one.
    Always,
}

/// The broker's configuration. [`Config::memory`] and [`Config::folder`] give the defaults.
#[derive(Debug, Clone)]
pub struct Config {
    /// `HOST:PORT` to listen on; port 0 picks a free one.
    pub listen: String,
    /// Host and port that clients are told; port 0 means the one listened on.
    pub advertise: Option<(String, u16)>,
    pub storage: Storage,
    pub fsync: Fsync,
    /// With [`Fsync::Interval`]: the time between two.
    pub fsync_interval: Duration,
    /// Size at which a segment of the log ends and the next begins, in bytes; at most 2 GiB.
    pub segment_bytes: u32,
    /// The newest bytes of the log that are kept in memory beside the files, for readers that keep up.
    pub hot_bytes: usize,
    /// Connections open at once; one more is refused.
    pub max_connections: usize,
    /// A connection on which no whole request came and no whole answer left for this long is closed.
    pub connections_max_idle: Duration,
    /// A client that does not take an answer off its connection within this long loses it.
    pub max_answer_time: Duration,
    /// Largest request frame, in bytes; a larger one closes its connection.
    pub max_frame_bytes: usize,
    /// Requests of one connection that may wait for their answer at once; more are left in the socket.
    pub max_requests_in_flight: usize,
    /// Bytes of requests of one connection that may wait for their answer at once, and of answers that wait for their turn.
    pub max_request_bytes_in_flight: usize,
    /// Largest batch of records, in bytes, unless the topic's `max.message.bytes` says otherwise.
    pub message_max_bytes: usize,
    /// Most bytes of records in one fetch response, whatever the client asks for (a single larger batch still passes).
    pub fetch_max_bytes: usize,
    /// Bytes of records in the fetch responses of all connections that are not yet written; at most 4 GiB. While a
    /// response is put together it is in memory twice. A fetch that finds less free gets less, one that finds nothing
    /// waits, and a single larger batch still passes.
    pub max_fetch_bytes_in_flight: usize,
    /// Whether asking for an unknown topic (when the client allows it) creates it.
    pub auto_create_topics: bool,
    /// Partitions of a topic that does not say how many.
    pub default_partitions: i32,
    /// Most partitions in the whole broker.
    pub max_partitions: usize,
    /// Most producers that are remembered to recognise their repeated batches, each once for every partition that it
    /// writes to; beyond that those are forgotten that were silent the longest.
    pub max_producers: usize,
    /// Most transactional ids that are remembered.
    pub max_transactional_ids: usize,
    /// Longest time that a producer may keep a transaction open.
    pub max_transaction_timeout: Duration,
    /// A transactional id that was not used for this long is forgotten.
    pub transactional_id_expiry: Duration,
    /// Time between two rounds of retention by size, compaction and reclaiming.
    pub maintenance_interval: Duration,
    /// Time between two looks for records that are older than their topic's `retention.ms`. It is what a producer of
    /// old timestamps leaves its readers.
    pub retention_check_interval: Duration,
    /// A checkpoint is written at the latest when the log has grown by this many bytes: the most that a restart replays.
    pub checkpoint_bytes: u64,
    /// Segments of the log beyond so many newest ones are sorted by partition and merged, which keeps the index small
    /// and old records quick to read.
    pub log_segments: usize,
    /// Most distinct keys that one pass of compaction looks at; 32 bytes of memory each.
    pub compaction_keys: usize,
    /// Largest metadata beside a committed offset, in bytes.
    pub offset_metadata_max_bytes: usize,
    /// Bytes accepted but not written, while the disk refuses them, beyond which nothing more is accepted.
    pub max_backlog_bytes: usize,
    /// Most bytes that a batch may have when decompressed, where the broker must look inside.
    pub max_decompressed_bytes: usize,
    /// How long the committed offsets of a group without members are kept.
    pub offsets_retention: Duration,
    /// Bounds of consumer groups.
    pub groups: GroupLimits,
}

impl Config {
    /// A broker in memory, on a free port of the loopback.
    pub fn memory() -> Config {
        Config::new(Storage::Memory)
    }

    /// A broker in `folder`, on a free port of the loopback.
    pub fn folder(folder: impl Into<PathBuf>) -> Config {
        Config::new(Storage::Folder(folder.into()))
    }

    /// Size of the segments into which old ones are merged. They are larger, since each is an open file as long as
    /// its records are kept.
    pub(crate) fn kept_segment_bytes(&self) -> u32 {
        const GIB: u32 = 1 << 30;
        let merged = self.segment_bytes.saturating_mul(16).min(GIB);
        merged.max(self.segment_bytes)
    }

    fn new(storage: Storage) -> Config {
        Config {
            listen: "127.0.0.1:0".to_owned(),
            advertise: None,
            storage,
            fsync: Fsync::Never,
            fsync_interval: Duration::from_millis(1000),
            segment_bytes: 64 << 20,
            hot_bytes: 64 << 20,
            max_connections: 4096,
            connections_max_idle: Duration::from_secs(10 * 60),
            max_answer_time: Duration::from_secs(60),
            max_frame_bytes: 100 << 20,
            max_requests_in_flight: 64,
            max_request_bytes_in_flight: 100 << 20,
            message_max_bytes: (1 << 20) + 12,
            fetch_max_bytes: 55 << 20,
            max_fetch_bytes_in_flight: 256 << 20,
            auto_create_topics: true,
            default_partitions: 1,
            max_partitions: 20_000,
            max_producers: 500_000,
            max_transactional_ids: 100_000,
            max_transaction_timeout: Duration::from_secs(15 * 60),
            transactional_id_expiry: Duration::from_secs(7 * 24 * 60 * 60),
            maintenance_interval: Duration::from_millis(1000),
            retention_check_interval: Duration::from_secs(5 * 60),
            checkpoint_bytes: 256 << 20,
            log_segments: 8,
            compaction_keys: 2_000_000,
            offset_metadata_max_bytes: 4096,
            max_backlog_bytes: 256 << 20,
            max_decompressed_bytes: 256 << 20,
            offsets_retention: Duration::from_secs(7 * 24 * 60 * 60),
            groups: GroupLimits::default(),
        }
    }
}
