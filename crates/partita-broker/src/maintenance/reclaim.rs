//! Moves what is still wanted out of old segments, so that the segments can go.
//!
//! A segment is taken when less than half of it is wanted, or when it belongs to the log and is not among its newest.
//! Its batches are then sorted by partition and merged into larger entries, with the markers between them written out:
//! the index shrinks, and whoever reads a partition from the beginning reads long stretches.

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

/// Entries of one partition that follow one another and are to be moved.
struct Run {
    partition: PartitionId,
    entries: Vec<Entry>,
}

/// Returns whether anything was moved.
pub(crate) fn reclaim(store: &Store, config: &Config) -> io::Result<bool> {
    let mut moved = false;
    for _ in 0..SEGMENTS_A_ROUND {
        let Some((segment, runs)) = store.read_with_log(|state, log| choose(state, log, config))
        else {
            break;
        };
        moved = true;
        let mut rewriter = Rewriter::new(store, config.segment_bytes);
        let mut fresh = Vec::with_capacity(runs.len());
        for run in &runs {
            for entry in &run.entries {
                rewriter.append(&read(entry, &segment)?, false)?;
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
            segment = segment.id,
            runs = runs.len(),
            "moved what is wanted out of a segment"
        );
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

fn read(entry: &Entry, segment: &Segment) -> io::Result<Vec<u8>> {
    match entry.content() {
        Content::Stored { place, bytes } => {
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

/// The segment that most deserves it, with what is to be moved out of it.
fn choose(state: &State, log: &LogHead, config: &Config) -> Option<(Arc<Segment>, Vec<Run>)> {
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
    let segment = candidates.min_by_key(|segment| segment.id)?.clone();
    let runs = state
        .partitions()
        .flat_map(|partition| runs(partition, segment.id))
        .collect();
    Some((segment, runs))
}

/// How many entries are decided and visible, and so may be moved and merged.
fn movable(partition: &Partition) -> usize {
    let stable = partition.view.last_stable();
    partition
        .entries
        .partition_point(|entry| entry.last_offset() < stable)
}

/// Stretches of entries that lie in the segment, together with the markers between them.
fn runs(partition: &Partition, segment: SegmentId) -> Vec<Run> {
    let mut runs: Vec<Run> = Vec::new();
    let mut markers: Vec<Entry> = Vec::new();
    let mut open = false;
    for entry in &partition.entries[..movable(partition)] {
        match entry.content() {
            Content::Stored { place, .. } if place.segment == segment => {
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
