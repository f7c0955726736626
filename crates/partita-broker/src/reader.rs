//! From index entries to the bytes that a reader gets.

use std::io;
use std::sync::Arc;

use bytes::Bytes;

use crate::batch::{self, BatchHeader};
use crate::state::index::{Content, Entry};
use crate::wal::{LogHead, Segment};

/// Something to send, found under the lock and read without it.
pub(crate) enum Piece {
    Stored {
        segment: Arc<Segment>,
        position: u32,
        length: u32,
        /// The bytes, when they are in memory.
        cached: Option<Bytes>,
    },
    Marker([u8; batch::MARKER_BYTES]),
}

impl Piece {
    /// `None` when the log has lost the segment.
    pub(crate) fn of(entry: &Entry, log: &LogHead) -> Option<Piece> {
        Some(match entry.content() {
            Content::Stored { place, bytes } => {
                let segment = log.segment(place.segment)?.clone();
                let cached = segment.cached(place.position, bytes);
                Piece::Stored {
                    segment,
                    position: place.position,
                    length: bytes,
                    cached,
                }
            }
            Content::Marker(marker) => Piece::Marker(batch::marker(
                entry.base_offset,
                entry.max_timestamp,
                marker.producer_id,
                marker.epoch,
                marker.committed,
            )),
        })
    }

    pub(crate) fn bytes(&self) -> usize {
        match self {
            Piece::Stored { length, .. } => *length as usize,
            Piece::Marker(bytes) => bytes.len(),
        }
    }

    /// Whether reading it needs no disk.
    pub(crate) fn is_in_memory(&self) -> bool {
        !matches!(self, Piece::Stored { cached: None, .. })
    }
}

/// Reads the pieces into one stretch of bytes, without the batches that end before `from`. May block.
pub(crate) fn gather(mut pieces: Vec<Piece>, from: i64) -> io::Result<Bytes> {
    if let [
        Piece::Stored {
            cached: Some(bytes),
            ..
        },
    ] = pieces.as_mut_slice()
    {
        return Ok(without_earlier(std::mem::take(bytes), from));
    }
    let mut out = Vec::with_capacity(pieces.iter().map(Piece::bytes).sum());
    for piece in pieces {
        match piece {
            Piece::Stored {
                cached: Some(bytes),
                ..
            } => out.extend_from_slice(&bytes),
            Piece::Stored {
                segment,
                position,
                length,
                cached: None,
            } => segment.read_into(position, length, &mut out)?,
            Piece::Marker(bytes) => out.extend_from_slice(&bytes),
        }
    }
    Ok(without_earlier(Bytes::from(out), from))
}

/// A piece may hold several batches; those before the one with `from` in it are dropped.
fn without_earlier(bytes: Bytes, from: i64) -> Bytes {
    let mut begin = 0;
    while let Ok(header) = BatchHeader::parse(&bytes[begin..])
        && header.last_offset() < from
        && begin + (header.bytes as usize) < bytes.len()
    {
        begin += header.bytes as usize;
    }
    bytes.slice(begin..)
}
