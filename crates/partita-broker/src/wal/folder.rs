//! The data folder: a lock so that one broker at a time uses it, and the cluster's id.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use super::{SegmentId, SegmentKind};

/// Why a folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    #[error("{path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error("{0} is in use by another broker")]
    InUse(PathBuf),
    #[error(
        "{path} was written by another version of this broker: format {found}, this one reads {}",
        Folder::FORMAT
    )]
    Format { path: PathBuf, found: String },
}

#[derive(Debug)]
pub(crate) struct Folder {
    pub(crate) path: PathBuf,
    pub(crate) cluster_id: String,
    /// Held, and thereby locked, until the end.
    lock: File,
}

impl Folder {
    const FORMAT: &'static str = "1";

    /// Opens or creates the folder and locks it.
    pub(crate) fn open(path: &Path) -> Result<Folder, FolderError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| FolderError::Io { path, source }
        };
        fs::create_dir_all(path).map_err(failed(path))?;
        let lock_path = path.join("lock");
        let lock = File::create(&lock_path).map_err(failed(&lock_path))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(FolderError::InUse(path.to_owned())),
            Err(TryLockError::Error(source)) => {
                return Err(FolderError::Io {
                    path: lock_path,
                    source,
                });
            }
        }
        let identity = path.join("identity");
        let cluster_id = match fs::read_to_string(&identity) {
            Ok(text) => match text.split_whitespace().collect::<Vec<_>>().as_slice() {
                [format, cluster_id] if *format == Folder::FORMAT => (*cluster_id).to_owned(),
                other => {
                    let found = other.first().unwrap_or(&"none").to_string();
                    return Err(FolderError::Format {
                        path: identity,
                        found,
                    });
                }
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let cluster_id = new_cluster_id();
                replace(
                    &identity,
                    format!("{} {cluster_id}\n", Folder::FORMAT).as_bytes(),
                )
                .map_err(failed(&identity))?;
                cluster_id
            }
            Err(source) => {
                return Err(FolderError::Io {
                    path: identity,
                    source,
                });
            }
        };
        Ok(Folder {
            path: path.to_owned(),
            cluster_id,
            lock,
        })
    }

    /// Lets another broker use the folder.
    pub(crate) fn release(&self) {
        // Closing the file would do it too, whatever this says.
        let _ = self.lock.unlock();
    }

    /// The numbers of the segments of a kind, oldest first.
    pub(crate) fn segments(&self, kind: SegmentKind) -> Result<Vec<SegmentId>, FolderError> {
        let failed = |source| FolderError::Io {
            path: self.path.clone(),
            source,
        };
        let mut found = Vec::new();
        for entry in fs::read_dir(&self.path).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            if path
                .extension()
                .is_some_and(|found| found == kind.extension())
            {
                let id: Option<SegmentId> = path
                    .file_stem()
                    .and_then(|stem| stem.to_str()?.parse().ok());
                found.extend(id);
            }
        }
        found.sort_unstable();
        Ok(found)
    }
}

/// A random id of 22 characters.
pub(crate) fn new_cluster_id() -> String {
    uuid::Uuid::new_v4().simple().to_string()[..22].to_owned()
}

/// Writes a file so that it is there whole, or as it was before.
pub(crate) fn replace(path: &Path, contents: &[u8]) -> io::Result<()> {
    use std::io::Write;
    let draft = path.with_extension("new");
    let mut file = File::create(&draft)?;
    file.write_all(contents)?;
    file.sync_all()?;
    fs::rename(&draft, path)?;
    path.parent()
        .map_or(Ok(()), |folder| File::open(folder)?.sync_all())
}
