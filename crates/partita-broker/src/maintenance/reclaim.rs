//! Moves what is still wanted out of old segments, so that the segments can go.
//!
//! A segment is taken when less than half of it is wanted, or when it belongs to the log and is not among its newest.
//! Its batches are then sorted by partition and merged into larger entries, with the markers between them written out:
//! the index shrinks, and whoever reads a partition from the beginning reads long stretches.
//!
//! Where many small segments were made in that way, or by compaction, they are put together: each is an open file.

use std::io;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::rewrite::Rewriter;
use crate::batch;
use crate::config::Config;
use crate::state::index::{Content, Entry};
use crate::state::{Partition, PartitionId, State};
use crate::store::Store;
use crate::wal::{LogHead, Segment, SegmentId, SegmentKind};

/// Segments taken in one round: bounds what a round costs.
const SEGMENTS_A_ROUND: usize = 4;

/// So many kept segments that are less than half full are put together.
const MERGED_SEGMENTS: usize = 16;

/// Segments that are to be emptied, and what is to be moved out of them.
struct Job {
    segments: FxHashMap<SegmentId, Arc<Segment>>,
    runs: Vec<Run>,
}

/// Entries of one partition that follow one another and are to be moved.
struct Run {
    partition: PartitionId,
    entries: Vec<Entry>,
}

/// Returns whether anything was moved.
pub(crate) fn reclaim(store: &Store, config: &Config) -> io::Result<bool> {
    let mut moved = false;
    for _ in 0..SEGMENTS_A_ROUND {
        let Some(Job { segments, runs }) =
            store.read_with_log(|state, log| choose(state, log, config))
        else {
            break;
        };
        moved = true;
        let mut rewriter = Rewriter::new(store, config.kept_segment_bytes());
        let mut fresh = Vec::with_capacity(runs.len());
        for run in &runs {
            for entry in &run.entries {
                rewriter.append(&read(entry, &segments)?, entry.max_timestamp)?;
            }
            fresh.push(rewriter.finish_partition()?);
        }
        rewriter.finish()?;
        store.relocate(|state, _| {
            for (run, fresh) in runs.iter().zip(&fresh) {
                let (Some(first), Some(last)) = (run.entries.first(), run.entries.last()) else {
                    continue;
                };
                if let Some(partition) = state.partition_mut(run.partition) {
                    partition.relocate(first.base_offset, last.base_offset, fresh);
                }
            }
        });
        tracing::debug!(
            segments = ?segments.keys(),
            runs = runs.len(),
            "moved what is wanted out of segments"
        );
        if segments.len() > 1 {
            // They go with the checkpoint after this round, and not much more space is needed than they have.
            break;
        }
    }
    Ok(moved)
}

/// Whether there is a segment that nobody refers to.
pub(crate) fn has_unused(store: &Store) -> bool {
    store.read_with_log(|state, log| {
        if log.sealed().next().is_none() {
            return false;
        }
        let used = state.segments_in_use();
        log.sealed().any(|segment| !used.contains(&segment.id))
    })
}

fn read(entry: &Entry, segments: &FxHashMap<SegmentId, Arc<Segment>>) -> io::Result<Vec<u8>> {
    match entry.content() {
        Content::Stored { place, bytes } => {
            let segment = segments
                .get(&place.segment)
                .ok_or_else(|| io::Error::other("a segment is missing"))?;
            let mut out = Vec::with_capacity(bytes as usize);
            segment.read_into(place.position, bytes, &mut out)?;
            Ok(out)
        }
        Content::Marker(marker) => {
            let (offset, at) = (entry.base_offset, entry.max_timestamp);
            Ok(batch::marker(
                offset,
                at,
                marker.producer_id,
                marker.epoch,
                marker.committed,
            )
            .to_vec())
        }
    }
}

/// The segments that most deserve it, with what is to be moved out of them.
fn choose(state: &State, log: &LogHead, config: &Config) -> Option<Job> {
    log.sealed().next()?;
    let mut wanted: FxHashMap<SegmentId, u64> = FxHashMap::default();
    for partition in state.partitions() {
        let movable = movable(partition);
        for entry in &partition.entries[..movable] {
            if let Content::Stored { place, bytes } = entry.content() {
                *wanted.entry(place.segment).or_default() += u64::from(bytes);
            }
        }
    }
    let mut log_segments: Vec<SegmentId> = log
        .sealed()
        .filter(|segment| segment.kind == SegmentKind::Log)
        .map(|segment| segment.id)
        .collect();
    log_segments.sort_unstable();
    let old = log_segments.len().saturating_sub(config.log_segments);
    let is_old = |id: SegmentId| log_segments[..old].contains(&id);
    let candidates = log.sealed().filter(|segment| {
        let bytes = wanted.get(&segment.id).copied().unwrap_or(0);
        bytes > 0 && (is_old(segment.id) || bytes * 2 < u64::from(segment.length()))
    });
    let chosen = match candidates.min_by_key(|segment| segment.id) {
        Some(segment) => vec![segment],
        None => smallest(log, &wanted, config)?,
    };
    let segments = chosen.into_iter().map(|s| (s.id, s.clone())).collect();
    let runs = state
        .partitions()
        .flat_map(|partition| runs(partition, &segments))
        .collect();
    Some(Job { segments, runs })
}

/// The smallest of the kept segments, if there are many that are less than half full.
fn smallest<'l>(
    log: &'l LogHead,
    wanted: &FxHashMap<SegmentId, u64>,
    config: &Config,
) -> Option<Vec<&'l Arc<Segment>>> {
    let is_small = |segment: &&Arc<Segment>| {
        segment.kind == SegmentKind::Kept
            && segment.has_file()
            && segment.length() < config.kept_segment_bytes() / 2
            && wanted.contains_key(&segment.id)
    };
    let mut small: Vec<_> = log.sealed().filter(is_small).collect();
    if small.len() < MERGED_SEGMENTS {
        return None;
    }
    small.sort_unstable_by_key(|segment| segment.length());
    small.truncate(MERGED_SEGMENTS);
    // As many as fill one segment: two always do not, for each is less than half of it.
    let mut bytes = 0;
    small.retain(|segment| {
        bytes += u64::from(segment.length());
        bytes <= u64::from(config.kept_segment_bytes())
    });
    Some(small)
}

/// How many entries are decided and visible, and so may be moved and merged.
fn movable(partition: &Partition) -> usize {
    let stable = partition.view.last_stable();
    partition
        .entries
        .partition_point(|entry| entry.last_offset() < stable)
}

/// Stretches of entries that lie in the segments, together with the markers between them.
fn runs(partition: &Partition, segments: &FxHashMap<SegmentId, Arc<Segment>>) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    let mut markers: Vec<Entry> = Vec::new();
    let mut open = false;
    for entry in &partition.entries[..movable(partition)] {
        match entry.content() {
            Content::Stored { place, .. } if segments.contains_key(&place.segment) => {
                if !open {
                    runs.push(Run {
                        partition: partition.id,
                        entries: Vec::new(),
                    });
                    open = true;
                }
                if let Some(run) = runs.last_mut() {
                    run.entries.append(&mut markers);
                    run.entries.push(*entry);
                }
            }
            Content::Marker(_) if open => markers.push(*entry),
            Content::Marker(_) => {}
            Content::Stored { .. } => {
                open = false;
                markers.clear();
            }
        }
    }
    // Markers after the last batch go along: what follows them lies in a newer segment.
    if open && let Some(run) = runs.last_mut() {
        run.entries.append(&mut markers);
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reader::{Piece, gather};
    use crate::state::Event;
    use crate::testing::{Sample, batch, topic_created};

    #[test]
    fn what_little_is_left_of_many_segments_is_put_together() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut config = Config::folder(folder.path());
        config.segment_bytes = 10_000;
        let store = Store::open(&config).expect("it opens");
        let write = |events: Vec<Event>| {
            let ((), durable) = store.write(|writer| {
                events.into_iter().for_each(|event| writer.emit(event));
            });
            drop(durable);
        };
        write(vec![topic_created("t", 2)]);
        let (small, large) = (batch(Sample::plain(2)), batch(Sample::plain(400)));
        for number in 1..=100 {
            let (_, durable) = store.write(|writer| {
                writer.append_batch(0, &small.0, false, &small.1);
                writer.append_batch(1, &large.0, false, &large.1)
            });
            drop(durable);
            write(vec![Event::LogStartMoved {
                partition: 1,
                offset: number * 400,
            }]);
            reclaim(&store, &config).expect("it is written");
            store.checkpoint().expect("it is written");
        }
        store.read_with_log(|state, log| {
            let kept = log.sealed().filter(|s| s.kind == SegmentKind::Kept);
            assert!(kept.count() < 2 * MERGED_SEGMENTS);
            let partition = state.partition_by_id(0).expect("it was created");
            let mut read = Vec::new();
            for entry in &partition.entries {
                let piece = Piece::of(entry, log).expect("its segment is there");
                let bytes = gather(vec![piece], 0).expect("it can be read");
                let mut rest = &bytes[..];
                while let Ok(header) = batch::BatchHeader::parse(rest) {
                    read.push(header.base_offset);
                    rest = &rest[header.bytes as usize..];
                }
            }
            assert_eq!(read, (0..200).step_by(2).collect::<Vec<_>>());
        });
    }
}
