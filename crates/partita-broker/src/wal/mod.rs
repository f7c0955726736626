//! The write-ahead log: one sequence of frames, in segments, for everything that happens in the broker.
//!
//! The way of a frame: [`head`] gives it its place and keeps its bytes (under the store's lock, without I/O);
//! [`writer`] takes what has gathered and writes it with one call per segment (outside that lock); [`segment`] holds
//! the bytes, in a file or in memory, the most recent ones in memory in any case, for readers; [`recovery`] reads all
//! frames back at a restart and cuts off a torn tail, beginning where the last checkpoint was made ([`snapshot`]).
//! [`folder`] is the data folder: one broker at a time.
//!
//! Batches that are still wanted when most of their segment is not are moved to segments of another kind ("kept"),
//! which hold nothing but batches and are no part of the sequence.
//!
//! A frame is, little endian: length of the payload (4), crc32c of the payload (4), payload. A payload is the instant
//! in milliseconds since the epoch (8), the kind of event (1), and the event's body.

pub(crate) mod folder;
pub(crate) mod head;
pub(crate) mod recovery;
pub(crate) mod segment;
pub(crate) mod snapshot;
pub(crate) mod writer;

pub(crate) use head::LogHead;
pub(crate) use segment::{Segment, SegmentKind};
pub(crate) use writer::{LogWriter, WriteError};

/// Number of a segment: counts up, never reused.
pub(crate) type SegmentId = u32;

/// Bytes at the start of a segment file: its magic and its number.
pub(crate) const SEGMENT_HEADER_BYTES: u32 = 16;
/// Length and checksum.
pub(crate) const FRAME_HEADER_BYTES: usize = 8;
/// Instant and kind.
pub(crate) const EVENT_HEADER_BYTES: usize = 9;
/// Largest payload that is believed to be one; more is damage.
pub(crate) const MAX_PAYLOAD_BYTES: usize = 1 << 30;

/// A position in the log. Places order as they were written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) segment: SegmentId,
    /// In bytes from the start of the segment.
    pub(crate) position: u32,
}

impl Place {
    pub(crate) fn to_bits(self) -> u64 {
        u64::from(self.segment) << 32 | u64::from(self.position)
    }

    pub(crate) fn from_bits(bits: u64) -> Place {
        Place {
            segment: (bits >> 32) as u32,
            position: bits as u32,
        }
    }
}
