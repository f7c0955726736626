//! The one lock: state and log together.
//!
//! A handler reads with [`Store::read`]. It changes with [`Store::write`]: the closure looks at the state, decides, and
//! emits events, all under one lock; each event is applied at once, and the returned [`Durable`] resolves when what
//! was emitted is as safe as the broker's durability mode promises. Nothing is acknowledged before that, and readers
//! see nothing before that.
//!
//! The bytes are written outside the lock, by whoever comes first for all who came meanwhile. With
//! [`Fsync::Always`] a thread of its own writes and syncs, so that no task of the runtime waits for the disk.
//!
//! A write that the disk refuses is tried again. After a sync that failed the store is offline, as a log directory of
//! Apache Kafka would be: it refuses all changes and still answers readers.

mod restore;

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::watch;

use crate::batch::BatchHeader;
use crate::config::{Config, Fsync, Storage};
use crate::state::{Event, PartitionId, State};
use crate::view::View;
use crate::wal::folder::{Folder, new_cluster_id};
use crate::wal::snapshot;
use crate::wal::{LogHead, LogWriter, Place, SEGMENT_HEADER_BYTES, WriteError};
pub use restore::OpenError;
use restore::{Restored, restore};

pub(crate) struct Store {
    shared: Arc<Shared>,
    cluster_id: String,
    committer: Option<JoinHandle<()>>,
    /// Keeps the data folder locked.
    folder: Option<Folder>,
}

struct Shared {
    inner: Mutex<Inner>,
    /// Taken before `inner` where both are.
    writer: Mutex<LogWriter>,
    /// Everything before this place ([`Place::to_bits`]) is durable and visible.
    durable: AtomicU64,
    /// Bytes that the disk refused so far.
    backlog: AtomicUsize,
    /// The sync that failed, after which nothing is written.
    offline: OnceLock<WriteError>,
    progress: watch::Sender<Progress>,
    fsync: Fsync,
    fsync_interval: Duration,
    work: Mutex<bool>,
    work_arrived: Condvar,
    stopping: AtomicBool,
    /// The folder may belong to another broker by now: nothing is written any more.
    closed: AtomicBool,
}

struct Inner {
    state: State,
    log: LogHead,
}

/// How far the commit thread has come.
#[derive(Debug, Clone, Default)]
pub(crate) struct Progress {
    durable: u64,
    /// Up to where the last attempt tried, when it failed.
    failed: Option<(u64, WriteError)>,
}

/// What a closure given to [`Store::write`] works with.
pub(crate) struct Writer<'a> {
    inner: &'a mut Inner,
    /// The instant of everything in this write, in milliseconds since the epoch.
    pub(crate) now: i64,
    is_offline: bool,
    /// Whether there was a change that did not happen, because the store is offline.
    was_refused: bool,
}

impl Writer<'_> {
    pub(crate) fn state(&self) -> &State {
        &self.inner.state
    }

    /// Makes something happen: it is in the log and in the state when this returns.
    pub(crate) fn emit(&mut self, event: Event) {
        if self.is_offline {
            self.was_refused = true;
            return;
        }
        self.inner.log.append_event(self.now, &event);
        self.inner.state.apply(self.now, &event);
    }

    /// Appends a checked batch to a partition and returns its base offset. The partition must exist.
    pub(crate) fn append_batch(
        &mut self,
        partition: PartitionId,
        header: &BatchHeader,
        append_time: bool,
        bytes: &[u8],
    ) -> Option<i64> {
        let base_offset = self.inner.state.partition_by_id(partition)?.log_end;
        if self.is_offline {
            self.was_refused = true;
            return Some(base_offset);
        }
        let place =
            self.inner
                .log
                .append_batch(self.now, partition, base_offset, append_time, bytes);
        let mut header = *header;
        header.base_offset = base_offset;
        if append_time {
            header.stamp(self.now);
        }
        self.inner.state.apply(
            self.now,
            &Event::BatchAppended {
                partition,
                header,
                place,
            },
        );
        Some(base_offset)
    }
}

/// A promise that what was written is durable.
#[must_use = "nothing may be acknowledged before this resolves"]
pub(crate) enum Durable {
    Decided(Result<(), WriteError>),
    From(u64, watch::Receiver<Progress>),
}

impl Durable {
    /// Resolves when all that was written, and all before it, is durable.
    pub(crate) async fn wait(self) -> Result<(), WriteError> {
        match self {
            Durable::Decided(result) => result,
            Durable::From(end, mut progress) => loop {
                {
                    let now = progress.borrow_and_update();
                    if now.durable >= end {
                        return Ok(());
                    }
                    if let Some((tried, error)) = &now.failed
                        && *tried >= end
                    {
                        return Err(error.clone());
                    }
                }
                if progress.changed().await.is_err() {
                    return Err(WriteError::Stopping);
                }
            },
        }
    }
}

impl Store {
    /// Opens memory, or the data folder, and replays what is there. Blocks.
    pub(crate) fn open(config: &Config) -> Result<Store, OpenError> {
        let (folder, mut state, log, unsynced) = match &config.storage {
            Storage::Memory => {
                let first = Place {
                    segment: 1,
                    position: SEGMENT_HEADER_BYTES,
                };
                (
                    None,
                    State::default(),
                    LogHead::new(None, config.segment_bytes, Vec::new(), first),
                    Vec::new(),
                )
            }
            Storage::Folder(path) => {
                let folder = Folder::open(path)?;
                let Restored {
                    state,
                    segments,
                    recent,
                    end,
                } = restore(&folder, config.fsync)?;
                let log = LogHead::new(
                    Some(folder.path.clone()),
                    config.segment_bytes,
                    segments,
                    end,
                );
                (Some(folder), state, log, recent)
            }
        };
        // What was recovered is durable: readers may see all of it.
        let touched = state.take_touched();
        for (view, high, stable) in ends_of(&state, &touched) {
            view.advance(high, stable);
        }
        let hot_limit = if folder.is_some() {
            config.hot_bytes
        } else {
            usize::MAX
        };
        let durable = log.end().to_bits();
        let fsync = if folder.is_some() {
            config.fsync
        } else {
            Fsync::Never
        };
        let shared = Arc::new(Shared {
            inner: Mutex::new(Inner { state, log }),
            writer: Mutex::new(LogWriter::new(hot_limit, fsync != Fsync::Never, unsynced)),
            durable: AtomicU64::new(durable),
            backlog: AtomicUsize::new(0),
            offline: OnceLock::new(),
            progress: watch::Sender::new(Progress {
                durable,
                failed: None,
            }),
            fsync,
            fsync_interval: config.fsync_interval,
            work: Mutex::new(false),
            work_arrived: Condvar::new(),
            stopping: AtomicBool::new(false),
            closed: AtomicBool::new(false),
        });
        let committer = (shared.fsync != Fsync::Never).then(|| {
            let shared = shared.clone();
            std::thread::spawn(move || shared.commit_until_stopped())
        });
        let cluster_id = folder
            .as_ref()
            .map_or_else(new_cluster_id, |folder| folder.cluster_id.clone());
        Ok(Store {
            shared,
            cluster_id,
            committer,
            folder,
        })
    }

    /// Stable for the life of the data folder.
    pub(crate) fn cluster_id(&self) -> &str {
        &self.cluster_id
    }

    /// Looks at the state. The closure runs under the lock: it should be quick.
    pub(crate) fn read<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.shared.lock().state)
    }

    /// Looks at the state and at where the log's segments are.
    pub(crate) fn read_with_log<T>(&self, look: impl FnOnce(&State, &LogHead) -> T) -> T {
        let inner = self.shared.lock();
        look(&inner.state, &inner.log)
    }

    /// Decides and changes, in one piece. The promise also covers everything written before.
    pub(crate) fn write<T>(&self, change: impl FnOnce(&mut Writer<'_>) -> T) -> (T, Durable) {
        let offline = self.shared.offline.get();
        let mut inner = self.shared.lock();
        let mut writer = Writer {
            inner: &mut inner,
            now: now_ms(),
            is_offline: offline.is_some(),
            was_refused: false,
        };
        let result = change(&mut writer);
        let was_refused = writer.was_refused;
        let end = inner.log.end().to_bits();
        drop(inner);
        let is_durable = !was_refused && self.shared.durable.load(Ordering::Acquire) >= end;
        let durable = if is_durable {
            Durable::Decided(Ok(()))
        } else if let Some(error) = offline {
            Durable::Decided(Err(error.clone()))
        } else if self.shared.fsync == Fsync::Always {
            self.shared.call_committer();
            Durable::From(end, self.shared.progress.subscribe())
        } else {
            Durable::Decided(self.shared.write_up_to(end))
        };
        (result, durable)
    }

    /// Bytes that were accepted and that the disk refused so far.
    pub(crate) fn backlog(&self) -> usize {
        self.shared.backlog.load(Ordering::Relaxed)
    }

    /// Whether a sync failed and nothing is written any more.
    pub(crate) fn is_offline(&self) -> bool {
        self.shared.offline.get().is_some()
    }

    /// Writes a checkpoint, after which a restart begins here, and deletes the segments that nobody refers to any
    /// more; returns how many. Blocks, and holds the lock while the state is encoded.
    pub(crate) fn checkpoint(&self) -> Result<usize, WriteError> {
        let mut bytes = snapshot::begin();
        let (place, unused) = {
            let inner = self.shared.lock();
            if self.folder.is_some() {
                inner.state.encode(&mut bytes);
            }
            let place = inner.log.end();
            let used = inner.state.segments_in_use();
            // A segment of the log that begins after the checkpoint is needed for the replay.
            let unused = inner
                .log
                .sealed()
                .map(|segment| segment.id)
                .filter(|id| !used.contains(id))
                .collect::<Vec<_>>();
            (place, unused)
        };
        if let Some(folder) = &self.folder {
            self.shared.write_up_to(place.to_bits())?;
            // Whatever the mode: what the checkpoint stands for is deleted, or not read again.
            self.shared.sync()?;
            snapshot::write(&folder.path, place, bytes).map_err(WriteError::refused)?;
        }
        let removed: Vec<_> = {
            let mut inner = self.shared.lock();
            unused
                .into_iter()
                .filter(|id| *id != place.segment)
                .filter_map(|id| inner.log.remove(id))
                .collect()
        };
        for segment in &removed {
            segment.delete().map_err(WriteError::refused)?;
        }
        Ok(removed.len())
    }

    /// Where entries lie is no event: maintenance moves them with this, and only a checkpoint remembers it.
    pub(crate) fn relocate<T>(&self, change: impl FnOnce(&mut State, &mut LogHead) -> T) -> T {
        let mut inner = self.shared.lock();
        let Inner { state, log } = &mut *inner;
        change(state, log)
    }

    /// Writes what is left, and a checkpoint, so that the next start is quick. Nothing is written after it.
    pub(crate) fn close(&self) -> Result<(), WriteError> {
        self.checkpoint()?;
        // Whoever holds the writer has written; whoever takes it from now on finds the store closed.
        let _writer = self.shared.lock_writer();
        self.shared.closed.store(true, Ordering::Release);
        if let Some(folder) = &self.folder {
            folder.release();
        }
        Ok(())
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::Release);
        self.shared.call_committer();
        if let Some(committer) = self.committer.take() {
            let _ = committer.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_writer(&self) -> MutexGuard<'_, LogWriter> {
        self.writer.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes all that has gathered unless another did so meanwhile, and shows it to readers.
    fn write_up_to(&self, end: u64) -> Result<(), WriteError> {
        let mut writer = self.lock_writer();
        if self.durable.load(Ordering::Acquire) >= end {
            return Ok(());
        }
        if let Some(error) = self.offline.get() {
            return Err(error.clone());
        }
        if self.closed.load(Ordering::Acquire) {
            return Err(WriteError::Stopping);
        }
        let (chunks, touched, ends, reached) = {
            let mut inner = self.lock();
            let chunks = inner.log.take();
            let touched = inner.state.take_touched();
            let ends = ends_of(&inner.state, &touched);
            (chunks, touched, ends, inner.log.end().to_bits())
        };
        let written = writer.write(chunks).and_then(|()| match self.fsync {
            Fsync::Always => writer.sync(),
            Fsync::Interval | Fsync::Never => Ok(()),
        });
        self.backlog
            .store(writer.unwritten_bytes(), Ordering::Relaxed);
        if let Err(error) = written {
            // The ends are shown when the bytes are written at last.
            self.lock().state.touch(touched);
            return Err(self.told(error));
        }
        self.durable.store(reached, Ordering::Release);
        for (view, high, stable) in ends {
            view.advance(high, stable);
        }
        Ok(())
    }

    /// Forces all that was written to the disk.
    fn sync(&self) -> Result<(), WriteError> {
        let mut writer = self.lock_writer();
        let synced = if self.fsync == Fsync::Never {
            // Nobody waits for it, so nobody shall be kept from writing meanwhile.
            let segments = writer.unsynced();
            drop(writer);
            let synced = segments.iter().try_for_each(|segment| segment.sync());
            self.lock_writer().note_synced(&segments, synced)
        } else {
            writer.sync()
        };
        synced.map_err(|error| self.told(error))
    }

    /// Tells an error of the writer, and remembers it if it is for good.
    fn told(&self, error: WriteError) -> WriteError {
        match error {
            WriteError::Offline(_) => {
                self.offline.get_or_init(|| {
                    tracing::error!(%error);
                    error.clone()
                });
            }
            _ => tracing::error!(%error, "what was not written is tried again with the next write"),
        }
        error
    }

    fn call_committer(&self) {
        *self.work.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.work_arrived.notify_one();
    }

    /// The commit thread: for `always` it writes and syncs what has gathered, again and again; for `interval` it
    /// syncs from time to time what others wrote.
    fn commit_until_stopped(&self) {
        while !self.stopping.load(Ordering::Acquire) {
            let always = self.fsync == Fsync::Always;
            {
                let mut work = self.work.lock().unwrap_or_else(PoisonError::into_inner);
                if always {
                    while !*work {
                        work = self
                            .work_arrived
                            .wait(work)
                            .unwrap_or_else(PoisonError::into_inner);
                    }
                } else {
                    let waited = self.work_arrived.wait_timeout(work, self.fsync_interval);
                    work = waited.unwrap_or_else(PoisonError::into_inner).0;
                }
                *work = false;
            }
            if !always {
                if self.sync().is_err() && self.offline.get().is_some() {
                    return;
                }
                continue;
            }
            let tried = self.lock().log.end().to_bits();
            let result = self.write_up_to(tried);
            let failed = result.err().map(|error| (tried, error));
            let retry = failed.is_some() && self.offline.get().is_none();
            self.progress.send_replace(Progress {
                durable: self.durable.load(Ordering::Acquire),
                failed,
            });
            if retry && !self.stopping.load(Ordering::Acquire) {
                std::thread::sleep(Duration::from_millis(100));
                self.call_committer();
            }
        }
    }
}

/// The views of partitions and the ends that they should show.
fn ends_of(state: &State, partitions: &[PartitionId]) -> Vec<(Arc<View>, i64, i64)> {
    let ends = |id: &PartitionId| {
        let partition = state.partition_by_id(*id)?;
        Some((
            partition.view.clone(),
            partition.log_end,
            partition.last_stable(),
        ))
    };
    partitions.iter().filter_map(ends).collect()
}

/// Milliseconds since the epoch.
pub(crate) fn now_ms() -> i64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |elapsed| elapsed.as_millis() as i64)
}

#[cfg(test)]
pub(crate) mod tests;
