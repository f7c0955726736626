//! From the files of a data folder to the state: the last checkpoint, and a replay of the log after it.

use std::path::PathBuf;
use std::sync::Arc;

use crate::config::Fsync;
use crate::state::State;
use crate::state::codec::CodecError;
use crate::wal::folder::{Folder, FolderError};
use crate::wal::recovery::{RecoveryError, recover};
use crate::wal::snapshot::{self, SnapshotError};
use crate::wal::{Place, SEGMENT_HEADER_BYTES, Segment, SegmentId, SegmentKind};

/// Why the store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(transparent)]
    Folder(#[from] FolderError),
    #[error(transparent)]
    Recovery(#[from] RecoveryError),
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    #[error("segment {id} is missing in {folder}, and the checkpoint refers to it")]
    MissingSegment { folder: PathBuf, id: SegmentId },
    #[error(
        "the checkpoint is missing in {folder}, and the log does not begin with segment 1: what happened before is known to the checkpoint alone. Bring back the file 'checkpoint', or begin anew in an empty folder"
    )]
    MissingCheckpoint { folder: PathBuf },
}

/// What a data folder holds.
pub(super) struct Restored {
    pub(super) state: State,
    /// All that are in use.
    pub(super) segments: Vec<Arc<Segment>>,
    /// Those of them that were replayed: no checkpoint stands for them yet.
    pub(super) recent: Vec<Arc<Segment>>,
    /// Where the log ends.
    pub(super) end: Place,
}

/// The state at the last checkpoint and all that happened since.
pub(super) fn restore(folder: &Folder, fsync: Fsync) -> Result<Restored, OpenError> {
    let log_ids = folder.segments(SegmentKind::Log)?;
    let kept = folder.segments(SegmentKind::Kept)?;
    let checkpoint = snapshot::read(&folder.path)?;
    let first = log_ids.first().or(kept.first());
    if checkpoint.is_none() && first.is_some_and(|id| *id != 1) {
        return Err(OpenError::MissingCheckpoint {
            folder: folder.path.clone(),
        });
    }
    let (from, mut state) = match checkpoint {
        Some((place, bytes)) => {
            let damaged = |problem: CodecError| SnapshotError::Damaged {
                path: snapshot::path(&folder.path),
                problem: problem.to_string(),
            };
            (place, State::decode(&bytes).map_err(damaged)?)
        }
        None => {
            let first = Place {
                segment: 1,
                position: SEGMENT_HEADER_BYTES,
            };
            (first, State::default())
        }
    };
    // A segment has no file before something is written to it, and none after it has one before.
    let begins = from.position > SEGMENT_HEADER_BYTES || log_ids.last() > Some(&from.segment);
    if begins && !log_ids.contains(&from.segment) {
        return Err(OpenError::MissingSegment {
            folder: folder.path.clone(),
            id: from.segment,
        });
    }
    let used = state.segments_in_use();
    let mut segments = Vec::new();
    let mut left_behind = Vec::new();
    let before = log_ids
        .iter()
        .filter(|id| **id < from.segment)
        .map(|id| (*id, SegmentKind::Log));
    for (id, kind) in before.chain(kept.iter().map(|id| (*id, SegmentKind::Kept))) {
        let path = kind.path(&folder.path, id);
        let io_error = |source| FolderError::Io {
            path: path.clone(),
            source,
        };
        if used.contains(&id) {
            segments.push(Arc::new(
                Segment::open(id, kind, &folder.path).map_err(io_error)?,
            ));
        } else {
            // Left behind by a crash between a checkpoint and the deletion, or before the checkpoint that would count.
            left_behind.push(path);
        }
    }
    let (recent, end) = recover(&folder.path, &log_ids, from, |at, event| {
        state.apply(at, event)
    })?;
    if fsync == Fsync::Always {
        // A process that was killed may have written what it never synced, and here it would be acknowledged.
        recent
            .iter()
            .try_for_each(|segment| segment.sync())
            .map_err(|source| FolderError::Io {
                path: folder.path.clone(),
                source,
            })?;
    }
    segments.extend(recent.iter().cloned());
    if let Some(missing) = used
        .iter()
        .find(|id| !segments.iter().any(|segment| segment.id == **id))
    {
        return Err(OpenError::MissingSegment {
            folder: folder.path.clone(),
            id: *missing,
        });
    }
    // Not before: a folder that is refused is left as it is.
    for path in left_behind {
        std::fs::remove_file(&path).map_err(|source| FolderError::Io { path, source })?;
    }
    Ok(Restored {
        state,
        segments,
        recent,
        end,
    })
}
