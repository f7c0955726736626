//! Writes batches anew, behind one another, and makes the index entries for them.

use std::io;
use std::sync::Arc;

use bytes::Bytes;

use crate::batch::BatchHeader;
use crate::state::index::{Entry, Stamp};
use crate::store::Store;
use crate::wal::{Place, SEGMENT_HEADER_BYTES, Segment};

/// Batches of one partition that lie behind one another share an index entry up to this many bytes.
const ENTRY_BYTES: usize = 256 << 10;

/// The most that the last offset of an entry can lie behind its first.
const ENTRY_OFFSETS: i64 = u32::MAX as i64;

/// Fills segments with batches, one partition after the other.
pub(super) struct Rewriter<'s> {
    store: &'s Store,
    segment_bytes: u32,
    segment: Option<Arc<Segment>>,
    /// Segments that nobody refers to yet.
    made: Vec<Arc<Segment>>,
    position: u32,
    /// Batches of the entry that is being made.
    open: Vec<u8>,
    span: Option<Span>,
    entries: Vec<Entry>,
}

#[derive(Clone, Copy)]
struct Span {
    first: i64,
    last: i64,
    stamp: Stamp,
}

impl<'s> Rewriter<'s> {
    pub(super) fn new(store: &'s Store, segment_bytes: u32) -> Rewriter<'s> {
        Rewriter {
            store,
            segment_bytes,
            segment: None,
            made: Vec::new(),
            position: 0,
            open: Vec::new(),
            span: None,
            entries: Vec::new(),
        }
    }

    /// Appends whole batches, which lie behind one another in `bytes` and were written at `at` or before.
    pub(super) fn append(&mut self, bytes: &[u8], at: i64) -> io::Result<()> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let header = BatchHeader::parse(rest).map_err(io::Error::other)?;
            let (batch, after) = rest
                .split_at_checked(header.bytes as usize)
                .ok_or_else(|| io::Error::other("a batch in the log is cut short"))?;
            rest = after;
            let is_too_long = self.open.len() + batch.len() > ENTRY_BYTES;
            let is_too_wide = |span: &Span| header.last_offset() - span.first > ENTRY_OFFSETS;
            if is_too_long || self.span.as_ref().is_some_and(is_too_wide) {
                self.close_entry()?;
            }
            self.open.extend_from_slice(batch);
            let (first, last, stamp) = (
                header.base_offset,
                header.last_offset(),
                Stamp::of(&header, at),
            );
            self.span = Some(match self.span.take() {
                None => Span { first, last, stamp },
                Some(span) => Span {
                    first: span.first,
                    last,
                    stamp: span.stamp.max(stamp),
                },
            });
        }
        Ok(())
    }

    /// Ends a partition: the entries for all that was appended since the last call.
    pub(super) fn finish_partition(&mut self) -> io::Result<Vec<Entry>> {
        self.close_entry()?;
        Ok(std::mem::take(&mut self.entries))
    }

    /// Ends the work: everything is in its file and on the disk, whatever the broker's mode is. What it replaces was
    /// perhaps written long ago and will be deleted.
    pub(super) fn finish(mut self) -> io::Result<()> {
        self.close_entry()?;
        self.sync_segment()?;
        self.made.clear();
        Ok(())
    }

    fn close_entry(&mut self) -> io::Result<()> {
        let Some(span) = self.span.take() else {
            return Ok(());
        };
        let bytes = Bytes::from(std::mem::take(&mut self.open));
        let length = bytes.len() as u32;
        let end = u64::from(self.position) + u64::from(length);
        if self.segment.is_some() && end > u64::from(self.segment_bytes) {
            self.sync_segment()?;
            self.segment = None;
        }
        let segment = match &self.segment {
            Some(segment) => segment,
            None => {
                self.position = SEGMENT_HEADER_BYTES;
                let fresh = self.store.relocate(|_, log| log.add_kept_segment());
                self.made.push(fresh.clone());
                self.segment.insert(fresh)
            }
        };
        segment.write(self.position, bytes)?;
        if segment.has_file() {
            segment.forget();
        }
        let place = Place {
            segment: segment.id,
            position: self.position,
        };
        self.entries.push(Entry::stored(
            span.first, span.last, span.stamp, place, length,
        ));
        self.position += length;
        Ok(())
    }

    fn sync_segment(&self) -> io::Result<()> {
        match &self.segment {
            Some(segment) => segment.sync(),
            None => Ok(()),
        }
    }
}

impl Drop for Rewriter<'_> {
    /// What was not finished goes at once: a full disk may not take the checkpoint that would let it go.
    fn drop(&mut self) {
        for segment in self.made.drain(..) {
            self.store.relocate(|_, log| log.remove(segment.id));
            if let Err(error) = segment.delete() {
                tracing::warn!(%error, segment = segment.id, "cannot delete a segment that nobody needs");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch::set_base_offset;
    use crate::config::Config;
    use crate::testing::{Sample, batch};

    #[test]
    fn what_was_not_finished_leaves_no_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut config = Config::folder(folder.path());
        config.segment_bytes = 1_000;
        let store = Store::open(&config).expect("it opens");
        let kept = || {
            let files = std::fs::read_dir(folder.path()).expect("a folder");
            let names = files.map(|file| file.expect("a file").file_name());
            names
                .filter(|name| name.to_string_lossy().contains("kept"))
                .count()
        };
        for finishes in [false, true] {
            let mut rewriter = Rewriter::new(&store, config.segment_bytes);
            for _ in 0..10 {
                let (_, bytes) = batch(Sample::plain(300));
                rewriter.append(&bytes, 0).expect("it is written");
                rewriter.close_entry().expect("it is written");
            }
            assert!(kept() > 1);
            match finishes {
                true => rewriter.finish().expect("it is written"),
                false => drop(rewriter),
            }
            assert_eq!(kept() > 0, finishes);
        }
    }

    #[test]
    fn batches_too_far_apart_for_one_entry_get_two() {
        let config = Config::memory();
        let store = Store::open(&config).expect("memory opens");
        let mut rewriter = Rewriter::new(&store, config.segment_bytes);
        let offsets = [0, 10, 5_000_000_000, 5_000_000_010];
        for offset in offsets {
            let (_, mut bytes) = batch(Sample::plain(3));
            set_base_offset(&mut bytes, offset, 0);
            rewriter.append(&bytes, 0).expect("memory takes it");
        }
        let entries = rewriter.finish_partition().expect("memory takes it");
        let spans: Vec<_> = entries
            .iter()
            .map(|entry| (entry.base_offset, entry.last_offset()))
            .collect();
        assert_eq!(spans, [(0, 12), (5_000_000_000, 5_000_000_012)]);
    }
}
