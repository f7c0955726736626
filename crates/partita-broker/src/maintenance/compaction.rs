//! Compaction: of each key, the last record stays.
//!
//! Two passes over a partition. The first reads what was written since the last compaction and notes the last offset of
//! each key; the second reads everything up to there and writes what stays into new segments. Records of aborted
//! transactions go, and with them the markers and the memory of the abort. The last visible entry always stays, so that
//! readers who want to reach the end do reach it, and nothing at or after the last stable offset is touched.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::io;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::rewrite::Rewriter;
use crate::batch::{self, BatchError, BatchHeader};
use crate::config::Config;
use crate::records;
use crate::state::index::{Content, Entry};
use crate::state::partition::Aborted;
use crate::state::settings::TopicSettings;
use crate::state::{Partition, PartitionId};
use crate::store::Store;
use crate::wal::{LogHead, Segment, SegmentId};

/// New bytes after which compaction may begin although the topic's `segment.bytes` would allow more to wait.
const DIRTY_BYTES: u64 = 1 << 20;

struct Job {
    topic: Arc<str>,
    index: i32,
    partition: PartitionId,
    /// All entries that may be touched, and the segments they are in.
    entries: Vec<Entry>,
    segments: FxHashMap<SegmentId, Arc<Segment>>,
    aborted: Vec<Aborted>,
    compacted_to: i64,
    delete_retention_ms: i64,
}

/// Returns whether anything was rewritten.
pub(crate) fn compact_all(store: &Store, config: &Config, now: i64) -> io::Result<bool> {
    let jobs: Vec<Job> = store.read_with_log(|state, log| {
        let compacted = state.topics().filter(|topic| topic.settings.compact);
        let partitions =
            compacted.flat_map(|topic| topic.partitions.iter().map(move |id| (topic, *id)));
        partitions
            .filter_map(|(topic, id)| due(state.partition_by_id(id)?, &topic.settings, log, now))
            .collect()
    });
    let did = !jobs.is_empty();
    for job in jobs {
        job.run(store, config, now)?;
    }
    Ok(did)
}

/// What is to be compacted in a partition, if it is time.
fn due(partition: &Partition, settings: &TopicSettings, log: &LogHead, now: i64) -> Option<Job> {
    let stable = partition.view.last_stable();
    let visible = partition
        .entries
        .partition_point(|entry| entry.last_offset() < stable);
    let settled = &partition.entries[..visible.saturating_sub(1)];
    let young =
        |entry: &Entry| entry.max_timestamp > now.saturating_sub(settings.min_compaction_lag_ms);
    let end = if settings.min_compaction_lag_ms > 0 {
        settled.iter().position(young)
    } else {
        None
    };
    let entries = &settled[..end.unwrap_or(settled.len())];
    let is_dirty = |entry: &&Entry| entry.last_offset() >= partition.compacted_to;
    let bytes = |entry: &Entry| entry.read_bytes() as u64;
    let (total, dirty) = (
        entries.iter().map(bytes).sum::<u64>(),
        entries.iter().filter(is_dirty).map(bytes).sum::<u64>(),
    );
    let age = entries
        .iter()
        .find(is_dirty)
        .map_or(0, |entry| now.saturating_sub(entry.max_timestamp));
    let enough = dirty >= settings.segment_bytes.min(DIRTY_BYTES) || age >= settings.segment_ms;
    let ratio = dirty as f64 / total.max(1) as f64;
    let wanted = dirty > 0
        && ((enough && ratio >= settings.min_cleanable_ratio)
            || age >= settings.max_compaction_lag_ms);
    if !wanted && partition.tombstones_until > now {
        return None;
    }
    let mut segments = FxHashMap::default();
    for entry in entries {
        if let Content::Stored { place, .. } = entry.content() {
            segments.insert(place.segment, log.segment(place.segment)?.clone());
        }
    }
    Some(Job {
        topic: partition.topic.clone(),
        index: partition.index,
        partition: partition.id,
        entries: entries.to_vec(),
        segments,
        aborted: partition.aborted.clone(),
        compacted_to: partition.compacted_to,
        delete_retention_ms: settings.delete_retention_ms,
    })
}

/// The last offset of each key, by a hash of 128 bits with random keys: two keys that collide are not to be expected.
struct LastOffsets {
    hashers: [RandomState; 2],
    offsets: FxHashMap<(u64, u64), i64>,
}

impl LastOffsets {
    fn new() -> LastOffsets {
        LastOffsets {
            hashers: [RandomState::new(), RandomState::new()],
            offsets: FxHashMap::default(),
        }
    }

    fn hash(&self, key: &[u8]) -> (u64, u64) {
        (self.hashers[0].hash_one(key), self.hashers[1].hash_one(key))
    }

    fn note(&mut self, key: &[u8], offset: i64) {
        let hash = self.hash(key);
        self.offsets.insert(hash, offset);
    }

    /// Whether no later record of the key was noted.
    fn is_last(&self, key: &[u8], offset: i64) -> bool {
        self.offsets
            .get(&self.hash(key))
            .is_none_or(|last| offset >= *last)
    }
}

/// What the second pass found.
struct Outcome {
    entries: Vec<Entry>,
    tombstones_until: i64,
}

impl Job {
    fn run(mut self, store: &Store, config: &Config, now: i64) -> io::Result<()> {
        let last = self.note_keys(config)?;
        let (Some(first_entry), Some(last_entry)) = (self.entries.first(), self.entries.last())
        else {
            return Ok(());
        };
        let (from, to, bound) = (
            first_entry.base_offset,
            last_entry.base_offset,
            last_entry.last_offset() + 1,
        );
        let outcome = self.rewrite(store, config, &last, now)?;
        let (before, after) = (
            self.entries.iter().map(Entry::read_bytes).sum::<usize>(),
            outcome.entries.iter().map(Entry::read_bytes).sum::<usize>(),
        );
        tracing::debug!(topic = %self.topic, partition = self.index, bound, before, after, "compacted");
        store.relocate(|state, _| {
            if let Some(partition) = state.partition_mut(self.partition) {
                partition.relocate(from, to, &outcome.entries);
                partition.forget_aborted(bound);
                partition.compacted_to = partition.compacted_to.max(bound);
                partition.tombstones_until = outcome.tombstones_until;
            }
        });
        Ok(())
    }

    /// The first pass. When there are more keys than memory is allowed for, the job ends where they end.
    fn note_keys(&mut self, config: &Config) -> io::Result<LastOffsets> {
        let mut last = LastOffsets::new();
        let mut end = self.entries.len();
        for (number, entry) in self.entries.iter().enumerate() {
            if entry.last_offset() < self.compacted_to {
                continue;
            }
            if last.offsets.len() >= config.compaction_keys {
                end = number;
                break;
            }
            self.for_each_batch(entry, |header, batch| {
                let noted = records::decompress(header, batch, config.max_decompressed_bytes)
                    .and_then(|body| {
                        records::for_each(header, &body, |record| {
                            if let Some(key) = record.key {
                                last.note(key, header.base_offset + i64::from(record.offset_delta));
                            }
                        })
                    });
                self.report(header, noted);
                Ok(())
            })?;
        }
        self.entries.truncate(end);
        Ok(last)
    }

    /// The second pass.
    fn rewrite(
        &self,
        store: &Store,
        config: &Config,
        last: &LastOffsets,
        now: i64,
    ) -> io::Result<Outcome> {
        let mut rewriter = Rewriter::new(store, config.kept_segment_bytes());
        let mut tombstones_until = i64::MAX;
        for entry in &self.entries {
            self.for_each_batch(entry, |header, batch| {
                match self.thin(header, batch, config, last, now) {
                    Ok(Some((kept, until))) => {
                        tombstones_until = tombstones_until.min(until);
                        rewriter.append(&kept, entry.max_timestamp)
                    }
                    Ok(None) => Ok(()),
                    Err(error) => {
                        // What cannot be read is kept as it is: better too much than lost.
                        self.report(header, Err(error));
                        rewriter.append(batch, entry.max_timestamp)
                    }
                }
            })?;
        }
        let entries = rewriter.finish_partition()?;
        rewriter.finish()?;
        Ok(Outcome {
            entries,
            tombstones_until,
        })
    }

    /// What stays of a batch, and until when tombstones in it stay; `None` when nothing does.
    fn thin(
        &self,
        header: &BatchHeader,
        batch: &[u8],
        config: &Config,
        last: &LastOffsets,
        now: i64,
    ) -> Result<Option<(Vec<u8>, i64)>, BatchError> {
        let body = records::decompress(header, batch, config.max_decompressed_bytes)?;
        let expired = header
            .delete_horizon()
            .is_some_and(|horizon| horizon <= now);
        let mut kept = Vec::new();
        let mut tombstones = false;
        records::for_each(header, &body, |record| {
            let offset = header.base_offset + i64::from(record.offset_delta);
            let is_last = record.key.is_some_and(|key| last.is_last(key, offset));
            if is_last && !(record.value.is_none() && expired) {
                tombstones |= record.value.is_none();
                kept.push(record);
            }
        })?;
        if kept.is_empty() {
            return Ok(None);
        }
        let decided = header.delete_horizon();
        let until = if tombstones {
            decided.unwrap_or(now.saturating_add(self.delete_retention_ms))
        } else {
            i64::MAX
        };
        if kept.len() == header.records as usize && (!tombstones || decided.is_some()) {
            return Ok(Some((batch.to_vec(), until)));
        }
        let base_timestamp = if tombstones {
            until
        } else {
            header.base_timestamp
        };
        let mut max_timestamp = i64::MIN;
        let mut body = Vec::new();
        for record in &kept {
            let timestamp = header.base_timestamp.wrapping_add(record.timestamp_delta);
            max_timestamp = max_timestamp.max(timestamp);
            records::encode(record, timestamp.wrapping_sub(base_timestamp), &mut body);
        }
        if header.uses_append_time() {
            max_timestamp = header.max_timestamp;
        }
        let body = records::compress(header, body)
            .map_err(|error| BatchError::Records(error.to_string()))?;
        let count = kept.len() as i32;
        Ok(Some((
            batch::thinned(
                batch,
                base_timestamp,
                tombstones,
                max_timestamp,
                count,
                &body,
            ),
            until,
        )))
    }

    /// Calls `each` with every batch of an entry that holds records which count.
    fn for_each_batch(
        &self,
        entry: &Entry,
        mut each: impl FnMut(&BatchHeader, &[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        let Content::Stored { place, bytes } = entry.content() else {
            return Ok(());
        };
        let segment = self
            .segments
            .get(&place.segment)
            .ok_or_else(|| io::Error::other("a segment is missing"))?;
        let mut stored = Vec::with_capacity(bytes as usize);
        segment.read_into(place.position, bytes, &mut stored)?;
        let mut rest = &stored[..];
        while !rest.is_empty() {
            let header = BatchHeader::parse(rest).map_err(io::Error::other)?;
            let (batch, after) = rest
                .split_at_checked(header.bytes as usize)
                .ok_or_else(|| io::Error::other("a batch is cut short"))?;
            rest = after;
            if !header.is_control() && !self.is_aborted(&header) {
                each(&header, batch)?;
            }
        }
        Ok(())
    }

    fn is_aborted(&self, header: &BatchHeader) -> bool {
        let begin = self
            .aborted
            .partition_point(|aborted| aborted.last_offset < header.base_offset);
        header.is_transactional()
            && self.aborted[begin..].iter().any(|aborted| {
                aborted.producer_id == header.producer_id
                    && aborted.first_offset <= header.base_offset
            })
    }

    fn report(&self, header: &BatchHeader, result: Result<(), BatchError>) {
        if let Err(error) = result {
            tracing::warn!(topic = %self.topic, partition = self.index, offset = header.base_offset, %error, "a batch cannot be compacted");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::state::Event;
    use crate::testing::{Sample, batch};

    #[test]
    fn timestamps_beyond_all_bounds_do_not_stop_it() {
        let config = Config::memory();
        let store = Store::open(&config).expect("memory opens");
        let settings = [("cleanup.policy", "compact"), ("segment.ms", "1")];
        let configs: BTreeMap<String, String> = settings
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into();
        let ((), durable) = store.write(|writer| {
            writer.emit(Event::TopicCreated {
                name: "t".to_owned(),
                id: uuid::Uuid::new_v4(),
                partitions: 1,
                configs,
            });
            for _ in 0..2 {
                let (_, mut bytes) = batch(Sample::plain(3));
                bytes[35..43].copy_from_slice(&i64::MIN.to_be_bytes());
                batch::seal(&mut bytes);
                let header = BatchHeader::check(&bytes).expect("it is in order");
                writer.append_batch(0, &header, false, &bytes);
            }
        });
        drop(durable);
        let did = compact_all(&store, &config, crate::store::now_ms() + 1000);
        assert!(did.expect("it can be rewritten"), "it was time");
    }
}
