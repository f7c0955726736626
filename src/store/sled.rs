//! Stores on disk: one sled database for an instance, one tree for each partition.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::{Store, StoreChange, StoreError, Stores};

/// Keys that are no entries begin with this byte, which no entry's key does.
const RESERVED: u8 = 0;
const OFFSET_KEY: &[u8] = b"\0offset";
const FORMAT_KEY: &[u8] = b"\0format";

/// Version of the layout; a database with a higher one is put aside.
const FORMAT: u8 = 1;

/// sled's own default is a gigabyte.
const PAGE_CACHE_BYTES: u64 = 16 << 20;

/// How long a database whose lock is held is waited for, and the pause between two tries.
const LOCK_WAIT: Duration = Duration::from_secs(5);
const LOCK_RETRY: Duration = Duration::from_millis(20);

/// The database of one instance.
pub struct SledStores {
    database: sled::Db,
    prefix: String,
}

impl SledStores {
    /// Opens `folder`, creating it where it is missing. What cannot be opened (sled errors or
    /// panics, or the layout is of a later version) is renamed to `….broken-<seconds>` and a new
    /// database takes its place: the changelog has everything. Waits up to five seconds for a
    /// database that is still held; after that it is an error.
    pub fn open(folder: &Path, prefix: &str) -> Result<Self, StoreError> {
        let database = match open_when_free(folder) {
            Ok(database) => database,
            Err(reason) if is_locked(&reason) => {
                return Err(StoreError::new(
                    "opening the store",
                    "another process uses it",
                ));
            }
            Err(reason) => {
                let aside = quarantine(folder)?;
                tracing::warn!(
                    folder = %folder.display(), aside = %aside.display(), reason,
                    "the store cannot be opened; it is put aside and rebuilt from the changelog"
                );
                open_database(folder)
                    .map_err(|reason| StoreError::new("opening the store", reason))?
            }
        };
        Ok(Self {
            database,
            prefix: prefix.to_owned(),
        })
    }
}

/// sled gives its lock back on a thread of its own, some time after the last handle is dropped,
/// and a process that is being replaced holds it until it has ended: so a lock that is held is
/// waited for before it counts as another's.
fn open_when_free(folder: &Path) -> Result<sled::Db, String> {
    let deadline = Instant::now() + LOCK_WAIT;
    loop {
        match open_database(folder) {
            Err(reason) if is_locked(&reason) && Instant::now() < deadline => {
                std::thread::sleep(LOCK_RETRY);
            }
            result => return result,
        }
    }
}

fn is_locked(reason: &str) -> bool {
    reason.contains("acquire lock")
}

fn open_database(folder: &Path) -> Result<sled::Db, String> {
    let open = || {
        let config = sled::Config::new()
            .path(folder)
            .cache_capacity(PAGE_CACHE_BYTES)
            .flush_every_ms(Some(500))
            .mode(sled::Mode::HighThroughput);
        let database = config.open().map_err(|error| error.to_string())?;
        match database
            .get(FORMAT_KEY)
            .map_err(|error| error.to_string())?
            .as_deref()
        {
            None => {
                database
                    .insert(FORMAT_KEY, &[FORMAT])
                    .map_err(|error| error.to_string())?;
            }
            Some([known]) if *known <= FORMAT => {}
            Some(other) => return Err(format!("its layout is {other:?}, newer than {FORMAT}")),
        }
        Ok(database)
    };
    catch_unwind(AssertUnwindSafe(open)).unwrap_or_else(|_| Err("sled panicked".to_owned()))
}

fn quarantine(folder: &Path) -> Result<PathBuf, StoreError> {
    let seconds = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs();
    let mut name = folder.file_name().unwrap_or_default().to_os_string();
    name.push(format!(".broken-{seconds}"));
    let aside = folder.with_file_name(name);
    std::fs::rename(folder, &aside)
        .map_err(|error| StoreError::new("putting a broken store aside", error))?;
    Ok(aside)
}

impl Stores for SledStores {
    fn open(&self, cluster: &str, partition: i32) -> Result<Arc<dyn Store>, StoreError> {
        let name = format!("{cluster}/{}/{partition}", self.prefix);
        let open = || self.database.open_tree(&name);
        let tree = catch_unwind(AssertUnwindSafe(open))
            .map_err(|_| StoreError::new("opening a partition's store", "sled panicked"))?
            .map_err(|error| StoreError::new("opening a partition's store", error))?;
        Ok(Arc::new(SledStore(tree)))
    }
}

struct SledStore(sled::Tree);

/// sled reports some corruption by panicking; to us that is an error like another.
fn guarded<T>(
    doing: &'static str,
    work: impl FnOnce() -> Result<T, sled::Error>,
) -> Result<T, StoreError> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(result) => result.map_err(|error| StoreError::new(doing, error)),
        Err(_) => Err(StoreError::new(doing, "sled panicked")),
    }
}

impl Store for SledStore {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        let found = guarded("reading an entry", || self.0.get(key))?;
        Ok(found.map(|value| value.to_vec()))
    }

    fn offset(&self) -> Result<i64, StoreError> {
        let found = guarded("reading the offset", || self.0.get(OFFSET_KEY))?;
        match found.as_deref().map(<[u8; 8]>::try_from) {
            None => Ok(0),
            Some(Ok(bytes)) => Ok(i64::from_be_bytes(bytes)),
            Some(Err(_)) => Err(StoreError::new(
                "reading the offset",
                "it has a strange length",
            )),
        }
    }

    fn apply(&self, changes: &[StoreChange], next_offset: i64) -> Result<(), StoreError> {
        let mut batch = sled::Batch::default();
        for (key, value) in changes {
            match value {
                Some(value) => batch.insert(key.as_slice(), &value[..]),
                None => batch.remove(key.as_slice()),
            }
        }
        batch.insert(OFFSET_KEY, &next_offset.to_be_bytes());
        guarded("writing entries", || self.0.apply_batch(batch))
    }

    fn scan(
        &self,
        after: Option<&[u8]>,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StoreError> {
        use std::ops::Bound;
        let start = after.map_or(Bound::Excluded(&[RESERVED, u8::MAX][..]), Bound::Excluded);
        let mut entries = self.0.range::<&[u8], _>((start, Bound::Unbounded));
        loop {
            match guarded("reading entries", || entries.next().transpose())? {
                Some((key, value)) if visit(&key, &value) => {}
                _ => return Ok(()),
            }
        }
    }

    fn clear(&self) -> Result<(), StoreError> {
        guarded("clearing a partition's store", || self.0.clear())
    }
}
