//! The header of a record batch (format version 2), read and patched in place; batches travel as they came.
//!
//! Layout, big endian: base offset (8), length of the rest (4), leader epoch (4), magic (1), crc32c of what follows (4),
//! attributes (2), last offset delta (4), base timestamp (8), max timestamp (8), producer id (8), producer epoch (2),
//! base sequence (4), number of records (4), records.

/// Bytes before the records.
pub(crate) const HEADER_BYTES: usize = 61;
/// Bytes that the length field does not count.
const PREFIX_BYTES: usize = 12;
/// Where the bytes begin that the checksum covers.
const CHECKED_FROM: usize = 21;

const COMPRESSION_MASK: i16 = 0x07;
const LOG_APPEND_TIME: i16 = 0x08;
const TRANSACTIONAL: i16 = 0x10;
const CONTROL: i16 = 0x20;
/// The base timestamp says until when tombstones in the batch are kept.
const DELETE_HORIZON: i16 = 0x40;

/// What the broker needs to know of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BatchHeader {
    pub(crate) base_offset: i64,
    /// Bytes of the whole batch, header included.
    pub(crate) bytes: u32,
    pub(crate) attributes: i16,
    pub(crate) last_offset_delta: i32,
    pub(crate) base_timestamp: i64,
    pub(crate) max_timestamp: i64,
    /// -1 for a producer that is not idempotent.
    pub(crate) producer_id: i64,
    pub(crate) producer_epoch: i16,
    pub(crate) base_sequence: i32,
    pub(crate) records: i32,
}

/// Why a batch is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BatchError {
    #[error("a batch has at least {HEADER_BYTES} bytes; {0} are left")]
    Short(usize),
    #[error("the batch says it has {said} bytes; {left} are left")]
    Length { said: i64, left: usize },
    #[error("record format {0} is not served, only 2")]
    Magic(i8),
    #[error("the checksum does not match")]
    Checksum,
    #[error("the batch says it has {records} records up to offset delta {delta}")]
    Count { records: i32, delta: i32 },
    #[error("unknown compression {0}")]
    Compression(i16),
    #[error("clients do not write control batches")]
    Control,
    #[error("sequence {sequence} and epoch {epoch} do not fit producer id {producer}")]
    Producer {
        producer: i64,
        epoch: i16,
        sequence: i32,
    },
    #[error("the records do not decode: {0}")]
    Records(String),
}

fn i16_at(bytes: &[u8], at: usize) -> i16 {
    i16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn i32_at(bytes: &[u8], at: usize) -> i32 {
    i32::from_be_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn i64_at(bytes: &[u8], at: usize) -> i64 {
    i64::from_be_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

impl BatchHeader {
    /// Reads the header of the batch at the start of `bytes`, which may go on after it.
    pub(crate) fn parse(bytes: &[u8]) -> Result<BatchHeader, BatchError> {
        if bytes.len() < HEADER_BYTES {
            return Err(BatchError::Short(bytes.len()));
        }
        let magic = bytes[16] as i8;
        if magic != 2 {
            return Err(BatchError::Magic(magic));
        }
        let said = i64::from(i32_at(bytes, 8)) + PREFIX_BYTES as i64;
        if said < HEADER_BYTES as i64 {
            return Err(BatchError::Length {
                said,
                left: bytes.len(),
            });
        }
        Ok(BatchHeader {
            base_offset: i64_at(bytes, 0),
            bytes: said as u32,
            attributes: i16_at(bytes, 21),
            last_offset_delta: i32_at(bytes, 23),
            base_timestamp: i64_at(bytes, 27),
            max_timestamp: i64_at(bytes, 35),
            producer_id: i64_at(bytes, 43),
            producer_epoch: i16_at(bytes, 51),
            base_sequence: i32_at(bytes, 53),
            records: i32_at(bytes, 57),
        })
    }

    /// Reads and checks a batch that a client sent: complete, of the right checksum, with offsets from 0 on without gaps.
    pub(crate) fn check(bytes: &[u8]) -> Result<BatchHeader, BatchError> {
        let header = BatchHeader::parse(bytes)?;
        if header.bytes as usize > bytes.len() {
            return Err(BatchError::Length {
                said: i64::from(header.bytes),
                left: bytes.len(),
            });
        }
        let crc = i32_at(bytes, 17) as u32;
        if crc32c::crc32c(&bytes[CHECKED_FROM..header.bytes as usize]) != crc {
            return Err(BatchError::Checksum);
        }
        if header.records < 1 || header.last_offset_delta != header.records - 1 {
            return Err(BatchError::Count {
                records: header.records,
                delta: header.last_offset_delta,
            });
        }
        if header.attributes & COMPRESSION_MASK > 4 {
            return Err(BatchError::Compression(
                header.attributes & COMPRESSION_MASK,
            ));
        }
        if header.is_control() {
            return Err(BatchError::Control);
        }
        let sequenced = header.producer_epoch >= 0 && header.base_sequence >= 0;
        if (header.producer_id >= 0) != sequenced || (header.is_transactional() && !sequenced) {
            return Err(BatchError::Producer {
                producer: header.producer_id,
                epoch: header.producer_epoch,
                sequence: header.base_sequence,
            });
        }
        Ok(header)
    }

    pub(crate) fn last_offset(&self) -> i64 {
        self.base_offset + i64::from(self.last_offset_delta)
    }

    /// The sequence number of the last record; sequences wrap from the largest i32 to 0.
    pub(crate) fn last_sequence(&self) -> i32 {
        add_sequence(self.base_sequence, self.last_offset_delta)
    }

    pub(crate) fn is_transactional(&self) -> bool {
        self.attributes & TRANSACTIONAL != 0
    }

    pub(crate) fn is_control(&self) -> bool {
        self.attributes & CONTROL != 0
    }

    /// 0 none, 1 gzip, 2 snappy, 3 lz4, 4 zstd.
    pub(crate) fn compression(&self) -> i16 {
        self.attributes & COMPRESSION_MASK
    }

    /// Until when tombstones in this batch are kept, once compaction has decided it.
    pub(crate) fn delete_horizon(&self) -> Option<i64> {
        (self.attributes & DELETE_HORIZON != 0).then_some(self.base_timestamp)
    }

    /// What [`set_append_time`] does to the bytes.
    pub(crate) fn stamp(&mut self, now: i64) {
        self.attributes |= LOG_APPEND_TIME;
        self.max_timestamp = now;
    }

    pub(crate) fn uses_append_time(&self) -> bool {
        self.attributes & LOG_APPEND_TIME != 0
    }
}

/// `sequence + delta`, wrapping as producers do.
pub(crate) fn add_sequence(sequence: i32, delta: i32) -> i32 {
    let sum = i64::from(sequence) + i64::from(delta);
    if sum > i64::from(i32::MAX) {
        (sum - i64::from(i32::MAX) - 1) as i32
    } else {
        sum as i32
    }
}

/// Gives a batch its place in a partition. Both fields lie outside the checksum.
pub(crate) fn set_base_offset(batch: &mut [u8], base_offset: i64, leader_epoch: i32) {
    batch[..8].copy_from_slice(&base_offset.to_be_bytes());
    batch[12..16].copy_from_slice(&leader_epoch.to_be_bytes());
}

/// Stamps a batch with the broker's own time, for topics that want it.
pub(crate) fn set_append_time(batch: &mut [u8], now: i64) {
    let attributes = i16_at(batch, 21) | LOG_APPEND_TIME;
    batch[21..23].copy_from_slice(&attributes.to_be_bytes());
    batch[35..43].copy_from_slice(&now.to_be_bytes());
    seal(batch);
}

/// A batch of some of the records of another: the same offsets, producer and sequences, with `body` for records.
///
/// `base_timestamp` is what the records' timestamps count from, and with `horizon` also the instant until which
/// tombstones among them are kept.
pub(crate) fn thinned(
    original: &[u8],
    base_timestamp: i64,
    horizon: bool,
    max_timestamp: i64,
    records: i32,
    body: &[u8],
) -> Vec<u8> {
    let mut batch = Vec::with_capacity(HEADER_BYTES + body.len());
    batch.extend_from_slice(&original[..HEADER_BYTES]);
    let attributes =
        i16_at(original, 21) & !DELETE_HORIZON | if horizon { DELETE_HORIZON } else { 0 };
    batch[21..23].copy_from_slice(&attributes.to_be_bytes());
    batch[27..35].copy_from_slice(&base_timestamp.to_be_bytes());
    batch[35..43].copy_from_slice(&max_timestamp.to_be_bytes());
    batch[57..61].copy_from_slice(&records.to_be_bytes());
    batch.extend_from_slice(body);
    seal(&mut batch);
    batch
}

/// Computes length and checksum of a finished batch.
pub(crate) fn seal(batch: &mut [u8]) {
    let length = (batch.len() - PREFIX_BYTES) as i32;
    batch[8..12].copy_from_slice(&length.to_be_bytes());
    let crc = crc32c::crc32c(&batch[CHECKED_FROM..]);
    batch[17..21].copy_from_slice(&crc.to_be_bytes());
}

/// Bytes of a transaction marker as a batch.
pub(crate) const MARKER_BYTES: usize = HEADER_BYTES + 17;

/// The control batch that tells readers how a transaction ended.
pub(crate) fn marker(
    offset: i64,
    timestamp: i64,
    producer_id: i64,
    producer_epoch: i16,
    committed: bool,
) -> [u8; MARKER_BYTES] {
    let mut batch = [0u8; MARKER_BYTES];
    batch[..8].copy_from_slice(&offset.to_be_bytes());
    batch[16] = 2;
    batch[21..23].copy_from_slice(&(TRANSACTIONAL | CONTROL).to_be_bytes());
    batch[27..35].copy_from_slice(&timestamp.to_be_bytes());
    batch[35..43].copy_from_slice(&timestamp.to_be_bytes());
    batch[43..51].copy_from_slice(&producer_id.to_be_bytes());
    batch[51..53].copy_from_slice(&producer_epoch.to_be_bytes());
    batch[53..57].copy_from_slice(&(-1i32).to_be_bytes());
    batch[57..61].copy_from_slice(&1i32.to_be_bytes());
    // One record: length, attributes, timestamp and offset deltas, then key (version 0, type) and value
    // (version 0, coordinator epoch 0), no headers. Lengths are zigzag varints.
    let kind = u8::from(committed);
    let record = [
        16 << 1,
        0,
        0,
        0,
        4 << 1,
        0,
        0,
        0,
        kind,
        6 << 1,
        0,
        0,
        0,
        0,
        0,
        0,
        0,
    ];
    batch[HEADER_BYTES..].copy_from_slice(&record);
    seal(&mut batch);
    batch
}

#[cfg(test)]
mod tests {
    use kafka_protocol::records::RecordBatchDecoder;

    use super::*;

    #[test]
    fn a_marker_is_what_clients_expect() {
        for committed in [false, true] {
            let bytes = marker(42, 1_000, 7, 3, committed);
            let header = BatchHeader::parse(&bytes).unwrap();
            assert_eq!(header.bytes as usize, MARKER_BYTES);
            assert!(header.is_control() && header.is_transactional());
            let set =
                RecordBatchDecoder::decode(&mut bytes::Bytes::copy_from_slice(&bytes)).unwrap();
            let [record] = set.records.as_slice() else {
                panic!("one record")
            };
            assert!(record.control);
            assert_eq!(
                (record.offset, record.producer_id, record.producer_epoch),
                (42, 7, 3)
            );
            assert_eq!(
                record.key.as_deref(),
                Some(&[0, 0, 0, u8::from(committed)][..])
            );
        }
    }

    #[test]
    fn sequences_wrap_to_zero() {
        assert_eq!(add_sequence(5, 3), 8);
        assert_eq!(add_sequence(i32::MAX, 0), i32::MAX);
        assert_eq!(add_sequence(i32::MAX, 1), 0);
        assert_eq!(add_sequence(i32::MAX - 1, 5), 3);
    }

    #[test]
    fn damage_is_noticed() {
        let mut bytes = marker(0, 0, -1, -1, true).to_vec();
        bytes[70] ^= 1;
        assert_eq!(BatchHeader::check(&bytes), Err(BatchError::Checksum));
        assert_eq!(BatchHeader::check(&bytes[..40]), Err(BatchError::Short(40)));
    }
}
