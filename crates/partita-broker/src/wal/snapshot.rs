//! The checkpoint file: the state at a place in the log, so that a restart replays only what came after.
//!
//! Little endian: magic (8), place (8), crc32c of the state (4), state.

use std::io;
use std::path::{Path, PathBuf};

use super::Place;
use super::folder::replace;

const MAGIC: &[u8; 8] = b"PBCHK\0\0\x01";
const HEADER_BYTES: usize = 20;

/// Why a checkpoint cannot be used. The log before it may be gone, so there is no going on without it.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error("the checkpoint {path} is damaged: {problem}")]
    Damaged { path: PathBuf, problem: String },
}

pub(crate) fn path(folder: &Path) -> PathBuf {
    folder.join("checkpoint")
}

/// Begins the bytes of a checkpoint; the state is to be appended before [`write`].
pub(crate) fn begin() -> Vec<u8> {
    vec![0; HEADER_BYTES]
}

/// Finishes what [`begin`] began and puts it in the place of the one before.
pub(crate) fn write(folder: &Path, place: Place, mut bytes: Vec<u8>) -> io::Result<()> {
    let crc = crc32c::crc32c(&bytes[HEADER_BYTES..]);
    bytes[..8].copy_from_slice(MAGIC);
    bytes[8..16].copy_from_slice(&place.to_bits().to_le_bytes());
    bytes[16..20].copy_from_slice(&crc.to_le_bytes());
    replace(&path(folder), &bytes)
}

/// The place and the bytes of the state, if there is a checkpoint.
pub(crate) fn read(folder: &Path) -> Result<Option<(Place, Vec<u8>)>, SnapshotError> {
    let path = path(folder);
    let mut bytes = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(SnapshotError::Io { path, source }),
    };
    let damaged = |problem: &str| SnapshotError::Damaged {
        path: path.clone(),
        problem: problem.to_owned(),
    };
    if bytes.len() < HEADER_BYTES || !bytes.starts_with(MAGIC) {
        return Err(damaged("it does not begin as checkpoints do"));
    }
    let place = u64::from_le_bytes(bytes[8..16].try_into().expect("eight bytes"));
    let crc = u32::from_le_bytes(bytes[16..20].try_into().expect("four bytes"));
    if crc32c::crc32c(&bytes[HEADER_BYTES..]) != crc {
        return Err(damaged("the checksum does not match"));
    }
    bytes.drain(..HEADER_BYTES);
    Ok(Some((Place::from_bits(place), bytes)))
}
