mod disk;

use std::collections::BTreeMap;
use std::path::Path;

use proptest::prelude::*;
use uuid::Uuid;

use super::*;
use crate::state::event::OffsetEntry;
use crate::state::offsets::Committed;
use crate::testing::{Sample, batch};
use crate::wal::SegmentKind;

/// Something to do to a store; numbers are taken modulo what is there.
#[derive(Debug, Clone)]
enum Step {
    CreateTopic {
        partitions: i32,
    },
    DeleteTopic {
        topic: usize,
    },
    AddPartition {
        topic: usize,
    },
    Append {
        partition: usize,
        records: i32,
    },
    AppendOwned {
        partition: usize,
        producer: i64,
        records: i32,
    },
    Initialise {
        name: usize,
    },
    AppendInTransaction {
        name: usize,
        partition: usize,
        records: i32,
    },
    CommitOffsets {
        group: usize,
        offset: i64,
    },
    PendingOffsets {
        name: usize,
        group: usize,
        offset: i64,
    },
    End {
        name: usize,
        committed: bool,
    },
    MoveStart {
        partition: usize,
        offset: i64,
    },
    Checkpoint,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        2 => (1..4i32).prop_map(|partitions| Step::CreateTopic { partitions }),
        1 => any::<usize>().prop_map(|topic| Step::DeleteTopic { topic }),
        1 => any::<usize>().prop_map(|topic| Step::AddPartition { topic }),
        8 => (any::<usize>(), 1..5i32).prop_map(|(partition, records)| Step::Append { partition, records }),
        8 => (any::<usize>(), 100..103i64, 1..5i32)
            .prop_map(|(partition, producer, records)| Step::AppendOwned { partition, producer, records }),
        3 => (0..3usize).prop_map(|name| Step::Initialise { name }),
        8 => (0..3usize, any::<usize>(), 1..5i32)
            .prop_map(|(name, partition, records)| Step::AppendInTransaction { name, partition, records }),
        2 => (0..3usize, 0..100i64).prop_map(|(group, offset)| Step::CommitOffsets { group, offset }),
        2 => (0..3usize, 0..3usize, 0..100i64)
            .prop_map(|(name, group, offset)| Step::PendingOffsets { name, group, offset }),
        4 => (0..3usize, any::<bool>()).prop_map(|(name, committed)| Step::End { name, committed }),
        2 => (any::<usize>(), 0..20i64).prop_map(|(partition, offset)| Step::MoveStart { partition, offset }),
        1 => Just(Step::Checkpoint),
    ]
}

fn config(folder: &Path) -> Config {
    let mut config = Config::folder(folder);
    config.segment_bytes = 2000;
    config
}

/// Writes at most one frame, like a crash sees it. Returns whether anything was done.
fn perform(store: &Store, step: &Step, number: usize) -> bool {
    if let Step::Checkpoint = step {
        store.checkpoint().unwrap();
        return true;
    }
    let (done, durable) = store.write(|writer| perform_in(writer, step, number).is_some());
    let Durable::Decided(result) = durable else {
        panic!("this store does not sync")
    };
    result.unwrap();
    done
}

fn perform_in(writer: &mut Writer<'_>, step: &Step, number: usize) -> Option<()> {
    let state = writer.state();
    let topics: Vec<String> = state.topics().map(|topic| topic.name.to_string()).collect();
    let mut partitions: Vec<PartitionId> =
        state.partitions().map(|partition| partition.id).collect();
    partitions.sort_unstable();
    let topic = |index: usize| topics.get(index % topics.len().max(1)).cloned();
    let partition = |index: usize| partitions.get(index % partitions.len().max(1)).copied();
    let transactional_id = |name: usize| format!("t{name}");
    let offsets = |offset: i64| {
        let committed = Committed {
            offset,
            leader_epoch: -1,
            metadata: "m".to_owned(),
        };
        vec![OffsetEntry {
            topic: "topic-0".to_owned(),
            partition: 0,
            committed,
        }]
    };
    match *step {
        Step::CreateTopic { partitions } => writer.emit(Event::TopicCreated {
            name: format!("topic-{number}"),
            id: Uuid::from_u128(number as u128),
            partitions,
            configs: BTreeMap::from([("cleanup.policy".to_owned(), "compact".to_owned())]),
        }),
        Step::DeleteTopic { topic: index } => writer.emit(Event::TopicDeleted {
            name: topic(index)?,
        }),
        Step::AddPartition { topic: index } => {
            let name = topic(index)?;
            let total = state.topic(&name)?.partitions.len() as i32 + 1;
            writer.emit(Event::PartitionsAdded { name, total });
        }
        Step::Append {
            partition: index,
            records,
        } => append(writer, partition(index)?, Sample::plain(records))?,
        Step::AppendOwned {
            partition: index,
            producer,
            records,
        } => {
            let id = partition(index)?;
            append(writer, id, owned(state, id, producer, 0, records, false))?;
        }
        Step::Initialise { name } => {
            let before = state.transaction(&transactional_id(name));
            if before.is_some_and(|transaction| transaction.is_open()) {
                return None;
            }
            let (producer_id, epoch) = before.map_or((name as i64, 0), |before| {
                (before.producer_id, before.epoch + 1)
            });
            let transactional_id = transactional_id(name);
            writer.emit(Event::TransactionalProducer {
                transactional_id,
                producer_id,
                epoch,
                timeout_ms: 1000,
                renews: None,
            });
        }
        Step::AppendInTransaction {
            name,
            partition: index,
            records,
        } => {
            let id = partition(index)?;
            let transaction = state.transaction(&transactional_id(name))?;
            if transaction.holds(id) {
                let sample = owned(
                    state,
                    id,
                    transaction.producer_id,
                    transaction.epoch,
                    records,
                    true,
                );
                append(writer, id, sample)?;
            } else {
                let transactional_id = transactional_id(name);
                writer.emit(Event::PartitionsJoined {
                    transactional_id,
                    partitions: vec![id],
                });
            }
        }
        Step::CommitOffsets { group, offset } => {
            writer.emit(Event::OffsetsCommitted {
                group: format!("g{group}"),
                offsets: offsets(offset),
            });
        }
        Step::PendingOffsets {
            name,
            group,
            offset,
        } => {
            state.transaction(&transactional_id(name))?;
            let (transactional_id, group) = (transactional_id(name), format!("g{group}"));
            writer.emit(Event::OffsetsPending {
                transactional_id,
                group,
                offsets: offsets(offset),
            });
        }
        Step::End { name, committed } => {
            let transactional_id = transactional_id(name);
            let epoch = state
                .transaction(&transactional_id)
                .filter(|transaction| transaction.is_open())?
                .epoch;
            writer.emit(Event::TransactionEnded {
                transactional_id,
                committed,
                epoch,
            });
        }
        Step::MoveStart {
            partition: index,
            offset,
        } => {
            let id = partition(index)?;
            let offset = offset.min(state.partition_by_id(id)?.last_stable());
            writer.emit(Event::LogStartMoved {
                partition: id,
                offset,
            });
        }
        Step::Checkpoint => unreachable!("it is no write"),
    }
    Some(())
}

fn append(writer: &mut Writer<'_>, partition: PartitionId, sample: Sample) -> Option<()> {
    let (header, bytes) = batch(sample);
    writer
        .append_batch(partition, &header, false, &bytes)
        .map(drop)
}

/// The next batch of a producer in a partition.
fn owned(
    state: &State,
    id: PartitionId,
    producer_id: i64,
    epoch: i16,
    records: i32,
    transactional: bool,
) -> Sample {
    let known = state
        .partition_by_id(id)
        .and_then(|partition| partition.producers.get(&producer_id));
    let same_epoch = known.filter(|producer| producer.epoch == epoch);
    let sequence = same_epoch
        .and_then(|producer| producer.batches.back())
        .map_or(0, |batch| batch.last_sequence + 1);
    Sample {
        producer_id,
        epoch,
        sequence,
        records,
        transactional,
    }
}

fn bytes_of(store: &Store) -> Vec<u8> {
    store.read(|state| {
        let mut bytes = Vec::new();
        state.encode(&mut bytes);
        bytes
    })
}

/// What readers see must follow from the state alone once everything is durable.
fn check_views(store: &Store) {
    store.read(|state| {
        for partition in state.partitions() {
            let shown = (
                partition.view.high_watermark(),
                partition.view.last_stable(),
            );
            assert_eq!(shown, (partition.log_end, partition.last_stable()));
            let sorted = partition
                .entries
                .windows(2)
                .all(|pair| pair[0].last_offset() < pair[1].base_offset);
            assert!(sorted && partition.log_start <= partition.last_stable());
        }
    });
}

/// Copies the files of a folder.
pub(crate) fn copy(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        std::fs::copy(&path, to.join(path.file_name().unwrap())).unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn a_replay_gives_the_state_that_was_live(steps in proptest::collection::vec(step(), 1..120)) {
        let folder = tempfile::tempdir().unwrap();
        let mut store = Store::open(&config(folder.path())).unwrap();
        for (number, step) in steps.iter().enumerate() {
            perform(&store, step, number);
            if number % 40 == 39 {
                let live = bytes_of(&store);
                drop(store);
                store = Store::open(&config(folder.path())).unwrap();
                prop_assert!(bytes_of(&store) == live, "after {number} steps");
            }
        }
        let live = bytes_of(&store);
        check_views(&store);
        drop(store);
        let store = Store::open(&config(folder.path())).unwrap();
        prop_assert!(bytes_of(&store) == live);
        check_views(&store);
    }

    #[test]
    fn a_log_cut_anywhere_recovers_to_what_was_whole(
        steps in proptest::collection::vec(step(), 1..60),
        cuts in proptest::collection::vec((any::<prop::sample::Index>(), any::<bool>()), 1..8),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(&config(folder.path())).unwrap();
        // The state after each frame, by the end of the frame; a checkpoint cannot be cut behind.
        let mut history = vec![(store.read_with_log(|_, log| log.end()), bytes_of(&store))];
        for (number, step) in steps.iter().enumerate().filter(|(_, step)| !matches!(step, Step::Checkpoint)) {
            if perform(&store, step, number) {
                history.push((store.read_with_log(|_, log| log.end()), bytes_of(&store)));
            }
        }
        drop(store);
        let last = history.last().unwrap().0.segment;
        let name = SegmentKind::Log.path(Path::new(""), last);
        prop_assume!(folder.path().join(&name).exists());
        for (cut, flip) in cuts {
            let copied = tempfile::tempdir().unwrap();
            copy(folder.path(), copied.path());
            let path = copied.path().join(&name);
            let mut bytes = std::fs::read(&path).unwrap();
            let header = SEGMENT_HEADER_BYTES as usize;
            let at = if flip && bytes.len() > header { header + cut.index(bytes.len() - header) } else { cut.index(bytes.len()) };
            if flip && bytes.len() > header { bytes[at] ^= 0x40 } else { bytes.truncate(at) }
            std::fs::write(&path, &bytes).unwrap();
            let whole = |end: &Place| end.segment < last || end.position as usize <= at;
            let expected = &history.iter().rev().find(|(end, _)| whole(end)).unwrap_or(&history[0]).1;
            let recovered = Store::open(&config(copied.path())).unwrap();
            prop_assert!(bytes_of(&recovered) == *expected, "cut at {at} of segment {last}");
            check_views(&recovered);
            // And it goes on from there.
            let created = perform(&recovered, &Step::CreateTopic { partitions: 1 }, 10_000);
            let live = bytes_of(&recovered);
            drop(recovered);
            let reopened = Store::open(&config(copied.path())).unwrap();
            prop_assert!(created && bytes_of(&reopened) == live);
        }
    }
}

#[test]
fn always_acknowledges_only_what_is_synced_and_readers_see_it_then() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(folder.path());
    config.fsync = Fsync::Always;
    let store = Store::open(&config).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    for number in 0..20 {
        let (done, durable) =
            store.write(|writer| perform_in(writer, &Step::CreateTopic { partitions: 1 }, number));
        let (appended, later) = store.write(|writer| {
            perform_in(
                writer,
                &Step::Append {
                    partition: number,
                    records: 3,
                },
                0,
            )
        });
        assert!(done.is_some() && appended.is_some());
        runtime.block_on(later.wait()).unwrap();
        check_views(&store);
        // What was written before is durable as well.
        assert!(store.shared.durable.load(Ordering::Acquire) > 0);
        runtime.block_on(durable.wait()).unwrap();
    }
}

#[test]
fn a_whole_frame_of_an_unknown_kind_is_told_and_nothing_is_cut_off() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&config(folder.path())).unwrap();
    assert!(perform(&store, &Step::CreateTopic { partitions: 1 }, 0));
    let end = store.read_with_log(|_, log| log.end());
    drop(store);
    let path = SegmentKind::Log.path(folder.path(), end.segment);
    let mut bytes = std::fs::read(&path).unwrap();
    // An instant, a kind of tomorrow and a body.
    let payload = [&[0; 8][..], &[200, 1, 2, 3]].concat();
    bytes.extend((payload.len() as u32).to_le_bytes());
    bytes.extend(crc32c::crc32c(&payload).to_le_bytes());
    bytes.extend(payload);
    std::fs::write(&path, &bytes).unwrap();
    let Err(error) = Store::open(&config(folder.path())) else {
        panic!("it opens what it cannot read");
    };
    assert!(error.to_string().contains("unknown event 200"), "{error}");
    assert_eq!(std::fs::read(&path).unwrap(), bytes);
}
