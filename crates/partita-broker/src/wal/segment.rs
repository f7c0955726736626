//! One segment: a file or memory, written once from front to back, read anywhere.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use bytes::Bytes;

use super::{SEGMENT_HEADER_BYTES, SegmentId};

const MAGIC: &[u8; 8] = b"PBLOG\0\0\x01";

/// What a segment is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SegmentKind {
    /// A part of the log: frames.
    Log,
    /// Batches moved out of the log.
    Kept,
}

impl SegmentKind {
    pub(crate) fn extension(self) -> &'static str {
        match self {
            SegmentKind::Log => "log",
            SegmentKind::Kept => "kept",
        }
    }

    /// The file of a segment.
    pub(crate) fn path(self, folder: &Path, id: SegmentId) -> PathBuf {
        folder.join(format!("{id:010}.{}", self.extension()))
    }
}

#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) id: SegmentId,
    pub(crate) kind: SegmentKind,
    /// Bytes written so far, header included.
    length: AtomicU32,
    /// `None` in memory.
    path: Option<PathBuf>,
    file: OnceLock<File>,
    /// Whether the folder's list of files was forced to the disk since the file was made.
    entry_synced: AtomicBool,
    /// What is (also) in memory: pieces by their position, in order, without overlap.
    pieces: Mutex<VecDeque<(u32, Bytes)>>,
}

impl Segment {
    /// A segment to be written; its file appears with the first write.
    pub(crate) fn new(id: SegmentId, kind: SegmentKind, folder: Option<&Path>) -> Segment {
        Segment {
            id,
            kind,
            length: AtomicU32::new(SEGMENT_HEADER_BYTES),
            path: folder.map(|folder| kind.path(folder, id)),
            file: OnceLock::new(),
            entry_synced: AtomicBool::new(false),
            pieces: Mutex::default(),
        }
    }

    /// A segment file that is there already.
    pub(crate) fn open(id: SegmentId, kind: SegmentKind, folder: &Path) -> io::Result<Segment> {
        let segment = Segment::new(id, kind, Some(folder));
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(kind.path(folder, id))?;
        let length = u32::try_from(file.metadata()?.len()).map_err(io::Error::other)?;
        segment.length.store(length, Ordering::Release);
        let _ = segment.file.set(file);
        Ok(segment)
    }

    /// The bytes that every segment file begins with.
    pub(crate) fn header(id: SegmentId) -> [u8; SEGMENT_HEADER_BYTES as usize] {
        let mut header = [0; SEGMENT_HEADER_BYTES as usize];
        header[..8].copy_from_slice(MAGIC);
        header[8..12].copy_from_slice(&id.to_le_bytes());
        header
    }

    /// Bytes written so far, header included.
    pub(crate) fn length(&self) -> u32 {
        self.length.load(Ordering::Acquire)
    }

    /// Whether its bytes are in a file, and not only in memory.
    pub(crate) fn has_file(&self) -> bool {
        self.path.is_some()
    }

    fn file(&self, path: &PathBuf) -> io::Result<&File> {
        if let Some(file) = self.file.get() {
            return Ok(file);
        }
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(path)?;
        file.write_all_at(&Segment::header(self.id), 0)?;
        Ok(self.file.get_or_init(|| file))
    }

    /// Writes at a position; writing the same again is harmless. The bytes stay in memory until [`Segment::forget`].
    pub(crate) fn write(&self, position: u32, bytes: Bytes) -> io::Result<()> {
        if let Some(path) = &self.path {
            self.file(path)?.write_all_at(&bytes, u64::from(position))?;
        }
        self.length
            .fetch_max(position + bytes.len() as u32, Ordering::AcqRel);
        self.lock_pieces().push_back((position, bytes));
        Ok(())
    }

    /// Drops the oldest piece from memory; its bytes remain in the file.
    pub(crate) fn forget(&self) {
        self.lock_pieces().pop_front();
    }

    /// The bytes, if all of them are in memory.
    pub(crate) fn cached(&self, position: u32, length: u32) -> Option<Bytes> {
        let pieces = self.lock_pieces();
        let after = pieces.partition_point(|(start, _)| *start <= position);
        let (start, piece) = pieces.get(after.checked_sub(1)?)?;
        let from = (position - start) as usize;
        let to = from + length as usize;
        (to <= piece.len()).then(|| piece.slice(from..to))
    }

    /// Appends bytes from the file to `out`. Blocks.
    pub(crate) fn read_into(
        &self,
        position: u32,
        length: u32,
        out: &mut Vec<u8>,
    ) -> io::Result<()> {
        if let Some(bytes) = self.cached(position, length) {
            out.extend_from_slice(&bytes);
            return Ok(());
        }
        let file = self
            .file
            .get()
            .ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?;
        let begin = out.len();
        out.resize(begin + length as usize, 0);
        file.read_exact_at(&mut out[begin..], u64::from(position))
    }

    /// Forces what was written to the disk, and the first time the file's entry in its folder too.
    pub(crate) fn sync(&self) -> io::Result<()> {
        let (Some(file), Some(path)) = (self.file.get(), &self.path) else {
            return Ok(());
        };
        file.sync_data()?;
        if !self.entry_synced.load(Ordering::Acquire) {
            if let Some(folder) = path.parent() {
                File::open(folder)?.sync_all()?;
            }
            self.entry_synced.store(true, Ordering::Release);
        }
        Ok(())
    }

    #[cfg(test)]
    pub(crate) fn was_synced(&self) -> bool {
        self.entry_synced.load(Ordering::Acquire)
    }

    /// Removes the file. Whoever still reads from it may go on.
    pub(crate) fn delete(&self) -> io::Result<()> {
        let Some(path) = &self.path else {
            return Ok(());
        };
        match std::fs::remove_file(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            deleted => deleted,
        }
    }

    /// Cuts the file off at `length`.
    pub(crate) fn truncate(&self, length: u32) -> io::Result<()> {
        self.file
            .get()
            .map_or(Ok(()), |file| file.set_len(u64::from(length)))
    }

    fn lock_pieces(&self) -> std::sync::MutexGuard<'_, VecDeque<(u32, Bytes)>> {
        self.pieces.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
