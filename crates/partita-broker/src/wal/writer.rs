//! Writes what has gathered; keeps the newest bytes in memory, up to a limit.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use super::Segment;
use super::head::Chunk;

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
    /// Whether bytes are forced to the disk at all.
    syncs: bool,
}

impl LogWriter {
    /// Keeps up to `hot_limit` bytes in memory beside the files.
    pub(crate) fn new(hot_limit: usize, syncs: bool) -> LogWriter {
        LogWriter {
            unwritten: VecDeque::new(),
            unsynced: Vec::new(),
            hot: VecDeque::new(),
            hot_bytes: 0,
            hot_limit,
            syncs,
        }
    }

    /// Writes all chunks in order; after an error the rest is kept for the next call.
    pub(crate) fn write(&mut self, chunks: Vec<Chunk>) -> io::Result<()> {
        self.unwritten.extend(chunks);
        while let Some(chunk) = self.unwritten.front() {
            let is_new = !self
                .unsynced
                .iter()
                .any(|segment| Arc::ptr_eq(segment, &chunk.segment));
            if is_new && self.syncs {
                // Recovery takes a torn end for one only in the last segment: no segment may begin on the disk
                // before the one ahead of it is whole there.
                self.unsynced
                    .iter()
                    .try_for_each(|segment| segment.sync())?;
            }
            chunk.segment.write(chunk.position, chunk.bytes.clone())?;
            if is_new {
                self.unsynced.push(chunk.segment.clone());
            }
            self.keep_hot(chunk.segment.clone(), chunk.bytes.len());
            self.unwritten.pop_front();
        }
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

    /// The segments to force to the disk, so that all that was written is safe.
    pub(crate) fn take_unsynced(&mut self) -> Vec<Arc<Segment>> {
        std::mem::take(&mut self.unsynced)
    }

    /// Gives back what [`LogWriter::take_unsynced`] gave, after a failure.
    pub(crate) fn still_unsynced(&mut self, segments: Vec<Arc<Segment>>) {
        self.unsynced.extend(segments);
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::wal::{SEGMENT_HEADER_BYTES, SegmentKind};

    #[test]
    fn a_segment_is_on_the_disk_before_the_next_begins() {
        for syncs in [true, false] {
            let folder = tempfile::tempdir().unwrap();
            let chunk = |id| Chunk {
                segment: Arc::new(Segment::new(id, SegmentKind::Log, Some(folder.path()))),
                position: SEGMENT_HEADER_BYTES,
                bytes: Bytes::from_static(b"frames"),
            };
            let mut writer = LogWriter::new(1 << 20, syncs);
            let (first, second) = (chunk(1), chunk(2));
            let segments = [first.segment.clone(), second.segment.clone()];
            writer.write(vec![first, second]).unwrap();
            let synced = segments.map(|segment| segment.was_synced());
            assert_eq!(synced, [syncs, false]);
            assert_eq!(writer.take_unsynced().len(), 2);
        }
    }
}
