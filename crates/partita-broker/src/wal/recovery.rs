//! Reads the log back: every whole frame, in order, up to a torn end, which is cut off.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{
    EVENT_HEADER_BYTES, FRAME_HEADER_BYTES, MAX_PAYLOAD_BYTES, Place, SEGMENT_HEADER_BYTES,
    Segment, SegmentId, SegmentKind,
};
use crate::batch::{BatchError, BatchHeader};
use crate::state::Event;
use crate::state::codec::CodecError;
use crate::state::event::kind;

/// Why the log cannot be replayed.
#[derive(Debug, thiserror::Error)]
pub enum RecoveryError {
    #[error("{path}: {source}")]
    Io {
        path: PathBuf,
        source: std::io::Error,
    },
    #[error(
        "{path} is damaged at byte {position}, or was written by a newer version of this broker: {problem}"
    )]
    Damaged {
        path: PathBuf,
        position: usize,
        problem: String,
    },
    #[error("{path} is not a segment of this log")]
    NotASegment { path: PathBuf },
    #[error(
        "{path} has {bytes} bytes, and the checkpoint stands for {expected}: the rest is lost. Bring back the whole file, or the whole folder as it was at one moment"
    )]
    Short {
        path: PathBuf,
        bytes: usize,
        expected: u32,
    },
}

/// What is wrong with a frame.
#[derive(Debug, thiserror::Error)]
enum FrameError {
    #[error("the frame is cut short")]
    Short,
    #[error("the checksum does not match")]
    Checksum,
    #[error("the event does not decode: {0}")]
    Event(#[from] CodecError),
    #[error("the batch does not decode: {0}")]
    Batch(#[from] BatchError),
}

impl FrameError {
    /// Whether a write that did not come to its end leaves this behind.
    fn is_torn(&self) -> bool {
        matches!(self, FrameError::Short | FrameError::Checksum)
    }
}

/// Feeds every event from `from` on to `replay`, and returns the segments read and where the log ends.
///
/// A frame that is cut short or does not match its checksum ends the log if it is in the last segment: it was never
/// acknowledged. Anywhere else it is an error, and so is everywhere a frame that is whole but says what this broker does
/// not know: another version wrote it, and nothing is cut off.
pub(crate) fn recover(
    folder: &Path,
    ids: &[SegmentId],
    from: Place,
    mut replay: impl FnMut(i64, &Event),
) -> Result<(Vec<Arc<Segment>>, Place), RecoveryError> {
    let mut segments = Vec::new();
    let mut end = from;
    let to_read: Vec<SegmentId> = ids
        .iter()
        .copied()
        .filter(|id| *id >= from.segment)
        .collect();
    for (index, id) in to_read.iter().enumerate() {
        let path = SegmentKind::Log.path(folder, *id);
        let failed = |source| RecoveryError::Io {
            path: path.clone(),
            source,
        };
        let bytes = fs::read(&path).map_err(failed)?;
        let segment = Segment::open(*id, SegmentKind::Log, folder).map_err(failed)?;
        let last = index + 1 == to_read.len();
        let is_short = bytes.len() < from.position as usize;
        if *id == from.segment && is_short && from.position > SEGMENT_HEADER_BYTES {
            return Err(RecoveryError::Short {
                path,
                bytes: bytes.len(),
                expected: from.position,
            });
        }
        let header = Segment::header(*id);
        if !bytes.starts_with(&header) {
            // A file whose header was not even written whole can only be the newest.
            if last && bytes.len() < header.len() && header.starts_with(&bytes) {
                fs::remove_file(&path).map_err(failed)?;
                end = Place {
                    segment: *id,
                    position: SEGMENT_HEADER_BYTES,
                };
                break;
            }
            return Err(RecoveryError::NotASegment { path });
        }
        let begin = if *id == from.segment {
            from.position.max(SEGMENT_HEADER_BYTES)
        } else {
            SEGMENT_HEADER_BYTES
        };
        let mut position = begin as usize;
        while position < bytes.len() {
            let place = Place {
                segment: *id,
                position: position as u32,
            };
            match read_frame(&bytes[position..], place) {
                Ok((at, event, length)) => {
                    replay(at, &event);
                    position += length;
                }
                Err(problem) if last && problem.is_torn() => {
                    let lost = bytes.len() - position;
                    tracing::warn!(segment = id, position, lost, %problem, "cutting off the torn end of the log");
                    segment.truncate(position as u32).map_err(failed)?;
                    break;
                }
                Err(problem) => {
                    return Err(RecoveryError::Damaged {
                        path,
                        position,
                        problem: problem.to_string(),
                    });
                }
            }
        }
        end = Place {
            segment: *id,
            position: position as u32,
        };
        segments.push(Arc::new(segment));
    }
    Ok((segments, end))
}

/// Reads the frame at the start of `bytes`, which lies at `place`: its instant, its event, and its length.
fn read_frame(bytes: &[u8], place: Place) -> Result<(i64, Event, usize), FrameError> {
    let header = bytes
        .first_chunk::<FRAME_HEADER_BYTES>()
        .ok_or(FrameError::Short)?;
    let length = u32::from_le_bytes(header[..4].try_into().expect("four bytes")) as usize;
    let crc = u32::from_le_bytes(header[4..].try_into().expect("four bytes"));
    if !(EVENT_HEADER_BYTES..=MAX_PAYLOAD_BYTES).contains(&length) {
        return Err(FrameError::Checksum);
    }
    let payload = bytes
        .get(FRAME_HEADER_BYTES..FRAME_HEADER_BYTES + length)
        .ok_or(FrameError::Short)?;
    if crc32c::crc32c(payload) != crc {
        return Err(FrameError::Checksum);
    }
    let at = i64::from_le_bytes(payload[..8].try_into().expect("eight bytes"));
    let event = if payload[8] == kind::BATCH_APPENDED {
        let body = &payload[EVENT_HEADER_BYTES..];
        let partition = body
            .first_chunk::<4>()
            .ok_or(CodecError::Short("a partition's number"))?;
        let position = place.position + (FRAME_HEADER_BYTES + EVENT_HEADER_BYTES + 4) as u32;
        Event::BatchAppended {
            partition: u32::from_le_bytes(*partition),
            header: BatchHeader::parse(&body[4..])?,
            place: Place {
                segment: place.segment,
                position,
            },
        }
    } else {
        Event::decode(&payload[8..])?
    };
    Ok((at, event, FRAME_HEADER_BYTES + length))
}
