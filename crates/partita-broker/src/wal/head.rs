//! Where the log grows: places are given out and bytes gathered here, without I/O.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use rustc_hash::FxHashMap;

use super::{
    EVENT_HEADER_BYTES, FRAME_HEADER_BYTES, Place, SEGMENT_HEADER_BYTES, Segment, SegmentId,
    SegmentKind,
};
use crate::batch;
use crate::state::event::kind;
use crate::state::{Event, PartitionId};

/// Beyond it the last frame of a segment might begin or end where a position cannot point.
const MAX_SEGMENT_BYTES: u32 = 2 << 30;

/// Bytes that go to one position of one segment.
#[derive(Debug, Clone)]
pub(crate) struct Chunk {
    pub(crate) segment: Arc<Segment>,
    pub(crate) position: u32,
    pub(crate) bytes: Bytes,
}

#[derive(Debug)]
pub(crate) struct LogHead {
    /// `None` in memory.
    folder: Option<PathBuf>,
    segment_bytes: u32,
    segments: FxHashMap<SegmentId, Arc<Segment>>,
    current: Arc<Segment>,
    /// Where `gathered` begins.
    position: u32,
    gathered: Vec<u8>,
    full: Vec<Chunk>,
    next_segment: SegmentId,
    /// Bytes given to the writer so far.
    appended: u64,
}

impl LogHead {
    /// A log that goes on at `end`, after the given segments (which include that of `end`, unless it is new).
    pub(crate) fn new(
        folder: Option<PathBuf>,
        segment_bytes: u32,
        segments: Vec<Arc<Segment>>,
        end: Place,
    ) -> LogHead {
        let mut segments: FxHashMap<SegmentId, Arc<Segment>> = segments
            .into_iter()
            .map(|segment| (segment.id, segment))
            .collect();
        let current = segments
            .entry(end.segment)
            .or_insert_with(|| {
                Arc::new(Segment::new(
                    end.segment,
                    SegmentKind::Log,
                    folder.as_deref(),
                ))
            })
            .clone();
        let next_segment = segments
            .keys()
            .max()
            .map_or(end.segment, |last| (*last).max(end.segment))
            + 1;
        LogHead {
            folder,
            segment_bytes: segment_bytes.min(MAX_SEGMENT_BYTES),
            segments,
            current,
            position: end.position,
            gathered: Vec::new(),
            full: Vec::new(),
            next_segment,
            appended: 0,
        }
    }

    pub(crate) fn segment(&self, id: SegmentId) -> Option<&Arc<Segment>> {
        self.segments.get(&id)
    }

    /// The place of the next frame, if it still fits into this segment.
    pub(crate) fn end(&self) -> Place {
        Place {
            segment: self.current.id,
            position: self.position + self.gathered.len() as u32,
        }
    }

    pub(crate) fn append_event(&mut self, at: i64, event: &Event) {
        let begin = self.begin_frame(at, 0);
        event.encode(&mut self.gathered);
        self.finish_frame(begin);
    }

    /// Appends a batch, whose base offset becomes `base_offset`, and returns the place of its bytes.
    pub(crate) fn append_batch(
        &mut self,
        at: i64,
        partition: PartitionId,
        base_offset: i64,
        append_time: bool,
        bytes: &[u8],
    ) -> Place {
        let begin = self.begin_frame(at, bytes.len());
        self.gathered.push(kind::BATCH_APPENDED);
        self.gathered.extend_from_slice(&partition.to_le_bytes());
        let place = self.end();
        let from = self.gathered.len();
        self.gathered.extend_from_slice(bytes);
        batch::set_base_offset(&mut self.gathered[from..], base_offset, 0);
        if append_time {
            batch::set_append_time(&mut self.gathered[from..], at);
        }
        self.finish_frame(begin);
        place
    }

    /// Opens a frame, in a new segment when this one is full; returns where it begins in `gathered`.
    fn begin_frame(&mut self, at: i64, expected: usize) -> usize {
        let end = self.end().position;
        if end > SEGMENT_HEADER_BYTES && end as usize + expected > self.segment_bytes as usize {
            self.roll();
        }
        let begin = self.gathered.len();
        self.gathered
            .reserve(expected + FRAME_HEADER_BYTES + EVENT_HEADER_BYTES + 4);
        self.gathered.extend_from_slice(&[0; FRAME_HEADER_BYTES]);
        self.gathered.extend_from_slice(&at.to_le_bytes());
        begin
    }

    fn finish_frame(&mut self, begin: usize) {
        let (header, payload) = self.gathered[begin..].split_at_mut(FRAME_HEADER_BYTES);
        header[..4].copy_from_slice(&(payload.len() as u32).to_le_bytes());
        header[4..].copy_from_slice(&crc32c::crc32c(payload).to_le_bytes());
    }

    fn roll(&mut self) {
        self.seal();
        self.current = self.add_segment(SegmentKind::Log);
        self.position = SEGMENT_HEADER_BYTES;
    }

    /// A new segment for batches that are moved out of older ones.
    pub(crate) fn add_kept_segment(&mut self) -> Arc<Segment> {
        self.add_segment(SegmentKind::Kept)
    }

    fn add_segment(&mut self, kind: SegmentKind) -> Arc<Segment> {
        let id = self.next_segment;
        self.next_segment += 1;
        let segment = Arc::new(Segment::new(id, kind, self.folder.as_deref()));
        self.segments.insert(id, segment.clone());
        segment
    }

    /// Segments that are complete, with their numbers: nothing will be appended to them.
    pub(crate) fn sealed(&self) -> impl Iterator<Item = &Arc<Segment>> {
        self.segments
            .values()
            .filter(|segment| segment.id != self.current.id)
    }

    #[cfg(test)]
    pub(crate) fn segments(&self) -> impl Iterator<Item = &Arc<Segment>> {
        self.segments.values()
    }

    /// Lets go of a segment that nobody refers to any more.
    pub(crate) fn remove(&mut self, id: SegmentId) -> Option<Arc<Segment>> {
        if id == self.current.id {
            None
        } else {
            self.segments.remove(&id)
        }
    }

    /// Bytes appended since this log was opened.
    pub(crate) fn appended_bytes(&self) -> u64 {
        self.appended + self.gathered.len() as u64
    }

    fn seal(&mut self) {
        if !self.gathered.is_empty() {
            let bytes = Bytes::from(std::mem::take(&mut self.gathered));
            let length = bytes.len() as u32;
            self.full.push(Chunk {
                segment: self.current.clone(),
                position: self.position,
                bytes,
            });
            self.position += length;
            self.appended += u64::from(length);
        }
    }

    /// Hands over what has gathered, in the order in which it must be written.
    pub(crate) fn take(&mut self) -> Vec<Chunk> {
        self.seal();
        std::mem::take(&mut self.full)
    }
}
