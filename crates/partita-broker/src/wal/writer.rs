//! Writes what has gathered; keeps the newest bytes in memory, up to a limit.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use super::Segment;
use super::head::Chunk;

/// Error numbers: the system, or the process, has no file descriptor left.
const ENFILE: i32 = 23;
const EMFILE: i32 = 24;

/// Why something written is not durable.
#[derive(Debug, Clone, thiserror::Error)]
pub(crate) enum WriteError {
    /// It is tried again with the next write.
    #[error("the log cannot be written: {0}")]
    Refused(Arc<str>),
    /// The kernel may have dropped what it could not bring to the disk: a later sync that succeeds would prove nothing.
    #[error(
        "the log could not be forced to the disk ({0}): nothing more is written until the broker is restarted"
    )]
    Offline(Arc<str>),
    #[error("the broker is stopping")]
    Stopping,
}

impl WriteError {
    pub(crate) fn refused(error: io::Error) -> WriteError {
        WriteError::Refused(error.to_string().into())
    }
}

/// The one that writes; whoever holds it writes for all who wait.
#[derive(Debug)]
pub(crate) struct LogWriter {
    /// Taken from the head but not written yet: a write failed and shall be tried again.
    unwritten: VecDeque<Chunk>,
    /// Segments with bytes that were not forced to the disk.
    unsynced: Vec<Arc<Segment>>,
    /// Pieces in memory, oldest first, with their lengths.
    hot: VecDeque<(Arc<Segment>, usize)>,
    hot_bytes: usize,
    hot_limit: usize,
    /// Whether bytes are forced to the disk as they are written, and not only for a checkpoint.
    syncs: bool,
    /// The sync that failed, after which nothing is written.
    offline: Option<WriteError>,
}

impl LogWriter {
    /// Keeps up to `hot_limit` bytes in memory beside the files. `unsynced` was written by an earlier process.
    pub(crate) fn new(hot_limit: usize, syncs: bool, unsynced: Vec<Arc<Segment>>) -> LogWriter {
        LogWriter {
            unwritten: VecDeque::new(),
            unsynced,
            hot: VecDeque::new(),
            hot_bytes: 0,
            hot_limit,
            syncs,
            offline: None,
        }
    }

    /// Writes all chunks in order; after an error the rest is kept for the next call.
    pub(crate) fn write(&mut self, chunks: Vec<Chunk>) -> Result<(), WriteError> {
        self.unwritten.extend(chunks);
        while let Some(chunk) = self.unwritten.front().cloned() {
            let is_new = !self
                .unsynced
                .iter()
                .any(|segment| Arc::ptr_eq(segment, &chunk.segment));
            if is_new && self.syncs {
                // Recovery takes a torn end for one only in the last segment: no segment may begin on the disk
                // before the one ahead of it is whole there.
                self.sync()?;
            }
            // What is tried again overwrites what an earlier attempt wrote in part.
            let Chunk {
                segment,
                position,
                bytes,
            } = chunk;
            let length = bytes.len();
            segment
                .write(position, bytes)
                .map_err(WriteError::refused)?;
            // What is in memory alone is never synced, and is not to be kept from being freed.
            if is_new && segment.has_file() {
                self.unsynced.push(segment.clone());
            }
            self.keep_hot(segment, length);
            self.unwritten.pop_front();
        }
        Ok(())
    }

    /// Forces all that was written to the disk. After a failure it fails for ever.
    pub(crate) fn sync(&mut self) -> Result<(), WriteError> {
        let synced = self.unsynced.iter().try_for_each(|segment| segment.sync());
        self.note_synced(&self.unsynced(), synced)?;
        self.unsynced.clear();
        Ok(())
    }

    /// The segments with bytes that were not forced to the disk, in the order of the log.
    pub(crate) fn unsynced(&self) -> Vec<Arc<Segment>> {
        self.unsynced.clone()
    }

    /// What came of syncing these, while others may have written on to the last of them.
    pub(crate) fn note_synced(
        &mut self,
        segments: &[Arc<Segment>],
        synced: io::Result<()>,
    ) -> Result<(), WriteError> {
        if let Err(error) = synced {
            // No descriptor was left to open the folder with: no sync was tried, so none failed.
            if matches!(error.raw_os_error(), Some(ENFILE | EMFILE)) {
                return Err(WriteError::refused(error));
            }
            self.offline
                .get_or_insert(WriteError::Offline(error.to_string().into()));
        }
        if let Some(error) = &self.offline {
            return Err(error.clone());
        }
        let sealed = &segments[..segments.len().saturating_sub(1)];
        self.unsynced
            .retain(|segment| !sealed.iter().any(|synced| Arc::ptr_eq(segment, synced)));
        Ok(())
    }

    fn keep_hot(&mut self, segment: Arc<Segment>, bytes: usize) {
        if self.hot_limit == usize::MAX {
            return;
        }
        self.hot.push_back((segment, bytes));
        self.hot_bytes += bytes;
        while self.hot_bytes > self.hot_limit {
            let Some((segment, bytes)) = self.hot.pop_front() else {
                break;
            };
            segment.forget();
            self.hot_bytes -= bytes;
        }
    }

    /// Bytes that an earlier write failed to write and that were not made up for.
    pub(crate) fn unwritten_bytes(&self) -> usize {
        self.unwritten.iter().map(|chunk| chunk.bytes.len()).sum()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::wal::{SEGMENT_HEADER_BYTES, SegmentKind};

    #[test]
    fn what_is_in_memory_alone_is_freed_when_nobody_refers_to_it() {
        let mut writer = LogWriter::new(usize::MAX, false, Vec::new());
        let segment = Arc::new(Segment::new(1, SegmentKind::Log, None));
        let chunk = Chunk {
            segment: segment.clone(),
            position: SEGMENT_HEADER_BYTES,
            bytes: Bytes::from_static(b"frames"),
        };
        writer.write(vec![chunk]).unwrap();
        assert_eq!(Arc::strong_count(&segment), 1);
    }

    #[test]
    fn a_sync_that_could_not_be_tried_is_tried_again() {
        let mut writer = LogWriter::new(1 << 20, true, Vec::new());
        let mut note = |number| {
            let error = io::Error::from_raw_os_error(number);
            writer.note_synced(&[], Err(error)).unwrap_err()
        };
        assert!(matches!(note(EMFILE), WriteError::Refused(_)));
        assert!(matches!(note(5), WriteError::Offline(_)));
        assert!(matches!(note(EMFILE), WriteError::Refused(_)));
        assert!(writer.sync().is_err(), "one was tried and failed");
    }

    #[test]
    fn a_segment_is_on_the_disk_before_the_next_begins() {
        for syncs in [true, false] {
            let folder = tempfile::tempdir().unwrap();
            let chunk = |id| Chunk {
                segment: Arc::new(Segment::new(id, SegmentKind::Log, Some(folder.path()))),
                position: SEGMENT_HEADER_BYTES,
                bytes: Bytes::from_static(b"frames"),
            };
            let mut writer = LogWriter::new(1 << 20, syncs, Vec::new());
            let (first, second) = (chunk(1), chunk(2));
            let segments = [first.segment.clone(), second.segment.clone()];
            writer.write(vec![first, second]).unwrap();
            let synced = segments.each_ref().map(|segment| segment.was_synced());
            assert_eq!(synced, [syncs, false]);
            writer.sync().unwrap();
            assert!(segments.iter().all(|segment| segment.was_synced()));
        }
    }
}
