//! The index of a partition: where its batches lie, 32 bytes for each.

use crate::batch::BatchHeader;
use crate::wal::Place;

const MARKER: u32 = 1 << 31;
const COMMITTED: u32 = 1 << 16;
/// Beside the length of a batch, which is at most [`crate::wal::MAX_PAYLOAD_BYTES`].
const UNSTAMPED: u32 = 1 << 30;

/// One stretch of offsets: a batch in the log, several batches that lie behind one another, or a transaction marker
/// (which has no bytes in the log; it is made anew for every reader).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) base_offset: i64,
    /// What age goes by, in milliseconds since the epoch: see [`Stamp`].
    pub(crate) max_timestamp: i64,
    /// A [`Place`], or the producer id of a marker.
    reference: u64,
    last_offset_delta: u32,
    /// Length in bytes, or what a marker says.
    length: u32,
}

/// What the age of a stretch goes by, in milliseconds since the epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stamp {
    /// The greatest timestamp of its records.
    Records(i64),
    /// Its records have none, and this is when it was written.
    Written(i64),
}

impl Stamp {
    /// Of a batch that was written at `at`.
    pub(crate) fn of(header: &BatchHeader, at: i64) -> Stamp {
        if header.max_timestamp < 0 {
            Stamp::Written(at)
        } else {
            Stamp::Records(header.max_timestamp)
        }
    }

    /// Of two stretches together.
    pub(crate) fn max(self, other: Stamp) -> Stamp {
        match (self, other) {
            (Stamp::Records(one), Stamp::Records(two)) => Stamp::Records(one.max(two)),
            (Stamp::Written(one), Stamp::Written(two)) => Stamp::Written(one.max(two)),
            (records @ Stamp::Records(_), _) | (_, records) => records,
        }
    }
}

/// What a transaction marker says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Marker {
    pub(crate) producer_id: i64,
    pub(crate) epoch: i16,
    pub(crate) committed: bool,
}

/// What an [`Entry`] stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Content {
    /// `bytes` at `place`.
    Stored {
        place: Place,
        bytes: u32,
    },
    Marker(Marker),
}

impl Entry {
    /// A batch that was written at `at`.
    pub(crate) fn batch(header: &BatchHeader, base_offset: i64, place: Place, at: i64) -> Entry {
        Entry::stored(
            base_offset,
            base_offset + i64::from(header.last_offset_delta),
            Stamp::of(header, at),
            place,
            header.bytes,
        )
    }

    /// Bytes that hold all batches from `base_offset` to `last_offset`, whole.
    pub(crate) fn stored(
        base_offset: i64,
        last_offset: i64,
        stamp: Stamp,
        place: Place,
        bytes: u32,
    ) -> Entry {
        debug_assert!(
            bytes & (MARKER | UNSTAMPED) == 0
                && (base_offset..=base_offset + i64::from(u32::MAX)).contains(&last_offset)
        );
        let (max_timestamp, unstamped) = match stamp {
            Stamp::Records(newest) => (newest, 0),
            Stamp::Written(at) => (at, UNSTAMPED),
        };
        Entry {
            base_offset,
            max_timestamp,
            reference: place.to_bits(),
            last_offset_delta: (last_offset - base_offset) as u32,
            length: bytes | unstamped,
        }
    }

    pub(crate) fn marker(offset: i64, timestamp: i64, marker: Marker) -> Entry {
        let committed = if marker.committed { COMMITTED } else { 0 };
        Entry {
            base_offset: offset,
            max_timestamp: timestamp,
            reference: marker.producer_id as u64,
            last_offset_delta: 0,
            length: MARKER | committed | u32::from(marker.epoch as u16),
        }
    }

    pub(crate) fn last_offset(&self) -> i64 {
        self.base_offset + i64::from(self.last_offset_delta)
    }

    /// The greatest timestamp of its records, unless they have none.
    pub(crate) fn newest_record(&self) -> Option<i64> {
        let is_unstamped = self.length & MARKER == 0 && self.length & UNSTAMPED != 0;
        (!is_unstamped).then_some(self.max_timestamp)
    }

    pub(crate) fn content(&self) -> Content {
        if self.length & MARKER == 0 {
            return Content::Stored {
                place: Place::from_bits(self.reference),
                bytes: self.length & !UNSTAMPED,
            };
        }
        Content::Marker(Marker {
            producer_id: self.reference as i64,
            epoch: self.length as u16 as i16,
            committed: self.length & COMMITTED != 0,
        })
    }

    /// Bytes that a reader gets for it.
    pub(crate) fn read_bytes(&self) -> usize {
        match self.content() {
            Content::Stored { bytes, .. } => bytes as usize,
            Content::Marker(_) => crate::batch::MARKER_BYTES,
        }
    }

    /// For checkpoints.
    pub(crate) fn to_words(self) -> [u64; 4] {
        let lengths = u64::from(self.last_offset_delta) << 32 | u64::from(self.length);
        [
            self.base_offset as u64,
            self.max_timestamp as u64,
            self.reference,
            lengths,
        ]
    }

    pub(crate) fn from_words([base, timestamp, reference, lengths]: [u64; 4]) -> Entry {
        Entry {
            base_offset: base as i64,
            max_timestamp: timestamp as i64,
            reference,
            last_offset_delta: (lengths >> 32) as u32,
            length: lengths as u32,
        }
    }
}
