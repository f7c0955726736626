//! The records inside a batch: decompressed (up to a limit) and read one by one, for the few who must look inside.

use std::io::{self, Read, Write};

use crate::batch::{BatchError, BatchHeader, HEADER_BYTES};

/// What a snappy stream of Java's begins with, before two version numbers.
const STREAM_MAGIC: &[u8] = b"\x82SNAPPY\0";

/// One record, borrowed from the decompressed bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Record<'a> {
    pub(crate) offset_delta: i32,
    pub(crate) timestamp_delta: i64,
    pub(crate) key: Option<&'a [u8]>,
    /// `None` for a tombstone.
    pub(crate) value: Option<&'a [u8]>,
    /// Everything after the offset delta: key, value and headers as they are encoded.
    pub(crate) tail: &'a [u8],
}

/// Whether every record of a batch has a key. The records must lie at offsets 0, 1, …: compaction goes by them.
pub(crate) fn all_have_keys(
    header: &BatchHeader,
    batch: &[u8],
    limit: usize,
) -> Result<bool, BatchError> {
    let body = decompress(header, batch, limit)?;
    let mut keyed = true;
    for_each_dense(header, &body, |record| keyed &= record.key.is_some())?;
    Ok(keyed)
}

/// Whether a batch that is not compressed holds the records that its header says, at offsets 0, 1, … Others are
/// believed: the broker does not decompress what it only passes on.
pub(crate) fn check_count(header: &BatchHeader, batch: &[u8]) -> Result<(), BatchError> {
    if header.compression() != 0 {
        return Ok(());
    }
    let body = batch
        .get(HEADER_BYTES..header.bytes as usize)
        .ok_or(BatchError::Short(batch.len()))?;
    for_each_dense(header, body, |_| {})
}

/// As [`for_each`]; the records must lie at offsets without gaps.
fn for_each_dense<'a>(
    header: &BatchHeader,
    body: &'a [u8],
    mut each: impl FnMut(Record<'a>),
) -> Result<(), BatchError> {
    let mut expected = 0;
    let mut dense = true;
    for_each(header, body, |record| {
        dense &= record.offset_delta == expected;
        expected += 1;
        each(record);
    })?;
    if dense {
        Ok(())
    } else {
        Err(BatchError::Records("their offsets have gaps".to_owned()))
    }
}

/// The decompressed bytes of the records of a batch, at most `limit` of them.
pub(crate) fn decompress<'a>(
    header: &BatchHeader,
    batch: &'a [u8],
    limit: usize,
) -> Result<std::borrow::Cow<'a, [u8]>, BatchError> {
    let body = batch
        .get(HEADER_BYTES..header.bytes as usize)
        .ok_or(BatchError::Short(batch.len()))?;
    let failed = |error: io::Error| BatchError::Records(error.to_string());
    let mut out = Vec::new();
    let take = limit as u64 + 1;
    match header.compression() {
        0 => return Ok(body.into()),
        1 => flate2::read::MultiGzDecoder::new(body)
            .take(take)
            .read_to_end(&mut out)
            .map_err(failed)?,
        2 => unsnap(body, limit, &mut out)?,
        3 => lz4::Decoder::new(body)
            .map_err(failed)?
            .take(take)
            .read_to_end(&mut out)
            .map_err(failed)?,
        4 => zstd::stream::read::Decoder::new(body)
            .map_err(failed)?
            .take(take)
            .read_to_end(&mut out)
            .map_err(failed)?,
        other => return Err(BatchError::Compression(other)),
    };
    if out.len() > limit {
        return Err(BatchError::Records(format!(
            "they are larger than {limit} bytes when decompressed"
        )));
    }
    Ok(out.into())
}

/// Snappy comes bare, or in the blocks that Java's stream writes: a header of 16 bytes, then length and block, repeated.
fn unsnap(body: &[u8], limit: usize, out: &mut Vec<u8>) -> Result<usize, BatchError> {
    let failed = |error: snap::Error| BatchError::Records(error.to_string());
    let mut block = |bytes: &[u8]| -> Result<(), BatchError> {
        let length = snap::raw::decompress_len(bytes).map_err(failed)?;
        if out.len() + length > limit {
            return Err(BatchError::Records(format!(
                "they are larger than {limit} bytes when decompressed"
            )));
        }
        out.extend(
            snap::raw::Decoder::new()
                .decompress_vec(bytes)
                .map_err(failed)?,
        );
        Ok(())
    };
    if !body.starts_with(STREAM_MAGIC) {
        block(body)?;
        return Ok(out.len());
    }
    let mut rest = body
        .get(16..)
        .ok_or_else(|| BatchError::Records("a snappy stream without its header".to_owned()))?;
    while let Some((length, after)) = rest.split_first_chunk::<4>() {
        let length = u32::from_be_bytes(*length) as usize;
        block(
            after
                .get(..length)
                .ok_or_else(|| BatchError::Records("a snappy block is cut short".to_owned()))?,
        )?;
        rest = &after[length..];
    }
    Ok(out.len())
}

/// Calls `each` with every record, in order. The count must be what the header says.
pub(crate) fn for_each<'a>(
    header: &BatchHeader,
    body: &'a [u8],
    mut each: impl FnMut(Record<'a>),
) -> Result<(), BatchError> {
    let mut rest = body;
    for number in 0..header.records {
        let record = next(&mut rest)
            .ok_or_else(|| BatchError::Records(format!("record {number} is cut short")))?;
        each(record);
    }
    if rest.is_empty() {
        Ok(())
    } else {
        Err(BatchError::Records(format!(
            "{} bytes are left over",
            rest.len()
        )))
    }
}

fn next<'a>(rest: &mut &'a [u8]) -> Option<Record<'a>> {
    let length = usize::try_from(varint(rest)?).ok()?;
    let mut body = rest.get(..length)?;
    *rest = &rest[length..];
    body = body.get(1..)?;
    let timestamp_delta = varint(&mut body)?;
    let offset_delta = i32::try_from(varint(&mut body)?).ok()?;
    let tail = body;
    let key = field(&mut body)?;
    let value = field(&mut body)?;
    Some(Record {
        offset_delta,
        timestamp_delta,
        key,
        value,
        tail,
    })
}

/// A length and so many bytes; the outer `None` is damage, the inner one null.
fn field<'a>(body: &mut &'a [u8]) -> Option<Option<&'a [u8]>> {
    let length = varint(body)?;
    if length < 0 {
        return Some(None);
    }
    let (head, rest) = body.split_at_checked(usize::try_from(length).ok()?)?;
    *body = rest;
    Some(Some(head))
}

/// A zigzag varint of at most 64 bits.
fn varint(bytes: &mut &[u8]) -> Option<i64> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some((value >> 1) as i64 ^ -((value & 1) as i64));
        }
    }
    None
}

/// Appends a record as it stands in a batch.
pub(crate) fn encode(record: &Record<'_>, timestamp_delta: i64, out: &mut Vec<u8>) {
    let mut head = Vec::with_capacity(16);
    head.push(0);
    put_varint(timestamp_delta, &mut head);
    put_varint(i64::from(record.offset_delta), &mut head);
    put_varint((head.len() + record.tail.len()) as i64, out);
    out.extend_from_slice(&head);
    out.extend_from_slice(record.tail);
}

fn put_varint(value: i64, out: &mut Vec<u8>) {
    let mut rest = (value << 1 ^ value >> 63) as u64;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}

/// Compresses the records of a batch in the way that `header` says.
pub(crate) fn compress(header: &BatchHeader, body: Vec<u8>) -> io::Result<Vec<u8>> {
    match header.compression() {
        1 => {
            let mut encoder =
                flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
            encoder.write_all(&body)?;
            encoder.finish()
        }
        2 => snap::raw::Encoder::new()
            .compress_vec(&body)
            .map(framed)
            .map_err(io::Error::other),
        3 => {
            let mut encoder = lz4::EncoderBuilder::new()
                .block_mode(lz4::BlockMode::Independent)
                .build(Vec::new())?;
            encoder.write_all(&body)?;
            let (out, result) = encoder.finish();
            result.map(|()| out)
        }
        4 => zstd::stream::encode_all(&body[..], 0),
        _ => Ok(body),
    }
}

/// One block in the stream that Java's snappy reads.
fn framed(block: Vec<u8>) -> Vec<u8> {
    let mut out = Vec::with_capacity(block.len() + 20);
    out.extend_from_slice(STREAM_MAGIC);
    out.extend_from_slice(&1u32.to_be_bytes());
    out.extend_from_slice(&1u32.to_be_bytes());
    out.extend_from_slice(&(block.len() as u32).to_be_bytes());
    out.extend_from_slice(&block);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::batch;
    use crate::testing::{self, Sample};

    /// The batch with its records compressed by `codec`.
    fn compressed(original: &[u8], codec: i16) -> Vec<u8> {
        let mut head = original.to_vec();
        head[22] = codec as u8;
        let header = BatchHeader::parse(&head).unwrap();
        let body = compress(&header, original[HEADER_BYTES..].to_vec()).unwrap();
        let records = header.records;
        batch::thinned(
            &head,
            header.base_timestamp,
            false,
            header.max_timestamp,
            records,
            &body,
        )
    }

    #[test]
    fn what_is_compressed_comes_back_and_no_more_than_the_limit() {
        let (_, original) = testing::batch(Sample::plain(100));
        for codec in 0..5 {
            let bytes = compressed(&original, codec);
            let header = BatchHeader::check(&bytes).unwrap();
            let body = decompress(&header, &bytes, 1 << 20).unwrap();
            assert_eq!(*body, original[HEADER_BYTES..], "codec {codec}");
            assert_eq!(all_have_keys(&header, &bytes, 1 << 20), Ok(true));
            if codec > 0 {
                let refused = decompress(&header, &bytes, 100).unwrap_err().to_string();
                assert!(refused.contains("larger than 100 bytes"), "{refused}");
            }
        }
    }

    #[test]
    fn a_batch_holds_the_records_that_it_counts() {
        let (header, mut bytes) = testing::batch(Sample::plain(3));
        assert_eq!(check_count(&header, &bytes), Ok(()));
        for claimed in [2, 4, i32::MAX] {
            bytes[23..27].copy_from_slice(&(claimed - 1).to_be_bytes());
            bytes[57..61].copy_from_slice(&claimed.to_be_bytes());
            batch::seal(&mut bytes);
            let header = BatchHeader::check(&bytes).unwrap();
            assert!(check_count(&header, &bytes).is_err(), "{claimed} claimed");
        }
    }

    #[test]
    fn records_that_are_looked_at_must_lie_at_offsets_without_gaps() {
        let (_, mut original) = testing::batch(Sample::plain(3));
        // After length, attributes and timestamp of the first record: its offset delta becomes 4.
        original[HEADER_BYTES + 3] = 8;
        let bytes = compressed(&original, 1);
        let header = BatchHeader::check(&bytes).unwrap();
        let refused = all_have_keys(&header, &bytes, 1 << 20);
        assert!(refused.is_err(), "{refused:?}");
    }

    #[test]
    fn records_written_anew_read_as_before() {
        let (header, bytes) = testing::batch(Sample::plain(5));
        let mut again = Vec::new();
        for_each(&header, &bytes[HEADER_BYTES..], |record| {
            encode(&record, record.timestamp_delta, &mut again);
        })
        .unwrap();
        assert_eq!(again, bytes[HEADER_BYTES..]);
    }

    #[test]
    fn numbers_of_any_size_come_back() {
        for value in [0, -1, 1, 63, 64, -64, -65, 300, i64::MAX, i64::MIN] {
            let mut bytes = Vec::new();
            put_varint(value, &mut bytes);
            let mut rest = &bytes[..];
            assert_eq!(varint(&mut rest), Some(value));
            assert!(rest.is_empty());
        }
    }
}
