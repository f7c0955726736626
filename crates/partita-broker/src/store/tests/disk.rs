//! A disk that refuses, forgets, or was robbed of files.

use super::*;

/// Has a topic created and waits until it is durable or refused.
fn try_to_create(store: &Store, number: usize) -> Result<(), WriteError> {
    let (_, durable) =
        store.write(|writer| perform_in(writer, &Step::CreateTopic { partitions: 1 }, number));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    runtime.block_on(durable.wait())
}

#[test]
fn a_sync_that_succeeds_after_one_that_failed_is_not_believed() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let mut config = config(&data);
    // No sync but those below.
    (config.fsync, config.fsync_interval) = (Fsync::Interval, Duration::from_secs(3600));
    let store = Store::open(&config).unwrap();
    try_to_create(&store, 0).unwrap();
    let known = bytes_of(&store);
    // The first sync of a segment includes its folder's list of files, which is away.
    let away = folder.path().join("away");
    std::fs::rename(&data, &away).unwrap();
    assert!(store.shared.sync().is_err());
    std::fs::rename(&away, &data).unwrap();
    let appended = || store.read_with_log(|_, log| log.appended_bytes());
    let before = appended();
    for number in 1..4 {
        let error = try_to_create(&store, number).unwrap_err().to_string();
        assert!(error.contains("restarted"), "{error}");
    }
    assert!(store.shared.sync().is_err() && store.checkpoint().is_err());
    assert!(store.is_offline() && store.close().is_err());
    // What is refused is not remembered, and what was known is still told.
    assert_eq!((appended(), bytes_of(&store) == known), (before, true));
    check_views(&store);
    drop(store);
    let store = Store::open(&config).unwrap();
    assert!(bytes_of(&store) == known);
    try_to_create(&store, 4).unwrap();
}

#[test]
fn whoever_waits_for_a_sync_is_told_that_it_failed() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(folder.path());
    (config.fsync, config.segment_bytes) = (Fsync::Always, 1);
    let store = Store::open(&config).unwrap();
    try_to_create(&store, 0).unwrap();
    // What takes all that is written and cannot be synced.
    let second = SegmentKind::Log.path(folder.path(), 2);
    std::os::unix::fs::symlink("/dev/null", second).unwrap();
    for number in 1..4 {
        let error = try_to_create(&store, number).unwrap_err().to_string();
        assert!(error.contains("restarted"), "{error}");
    }
    assert!(store.is_offline());
}

#[test]
fn a_checkpoint_stands_for_nothing_that_could_be_lost() {
    let folder = tempfile::tempdir().unwrap();
    let mut config = config(folder.path());
    (config.fsync, config.log_segments) = (Fsync::Never, 1);
    let fill = |store: &Store| {
        for number in 0..40 {
            let step = Step::Append {
                partition: 0,
                records: 3,
            };
            perform(store, &step, number);
        }
    };
    let are_synced = |store: &Store, kind: SegmentKind| {
        store.read_with_log(|_, log| {
            let mut all = log.segments().filter(|segment| segment.kind == kind);
            assert!(log.segments().any(|segment| segment.kind == kind));
            all.all(|segment| segment.was_synced())
        })
    };
    let store = Store::open(&config).unwrap();
    perform(&store, &Step::CreateTopic { partitions: 1 }, 0);
    fill(&store);
    assert!(!are_synced(&store, SegmentKind::Log));
    // What an earlier process wrote is written, and no more than that.
    drop(store);
    let store = Store::open(&config).unwrap();
    assert!(!are_synced(&store, SegmentKind::Log));
    fill(&store);
    assert!(crate::maintenance::reclaim::reclaim(&store, &config).unwrap());
    store.checkpoint().unwrap();
    assert!(are_synced(&store, SegmentKind::Log) && are_synced(&store, SegmentKind::Kept));
}

#[test]
fn a_disk_that_refuses_loses_nothing_once_it_accepts_again() {
    let folder = tempfile::tempdir().unwrap();
    let data = folder.path().join("data");
    let store = Store::open(&config(&data)).unwrap();
    assert!(perform(&store, &Step::CreateTopic { partitions: 1 }, 0));
    // New segments cannot be created while the folder is away; the open one still can be written.
    let away = folder.path().join("away");
    std::fs::rename(&data, &away).unwrap();
    let mut refused = 0;
    for _ in 0..60 {
        let ((), durable) = store.write(|writer| {
            append(writer, 0, Sample::plain(2)).unwrap();
        });
        let Durable::Decided(result) = durable else {
            panic!("this store does not sync")
        };
        refused += usize::from(result.is_err());
    }
    assert!(refused > 0);
    let shown = store.read(|state| state.partition_by_id(0).unwrap().view.high_watermark());
    assert_eq!(
        shown,
        (60 - refused as i64) * 2,
        "readers see what is written and no more"
    );
    std::fs::rename(&away, &data).unwrap();
    assert!(perform(
        &store,
        &Step::Append {
            partition: 0,
            records: 1
        },
        0
    ));
    check_views(&store);
    let live = bytes_of(&store);
    drop(store);
    assert!(bytes_of(&Store::open(&config(&data)).unwrap()) == live);
}
/// Why a folder is not opened, in words.
fn refusal(config: &Config) -> String {
    match Store::open(config) {
        Ok(_) => panic!("it opens what is not whole"),
        Err(error) => error.to_string(),
    }
}

#[test]
fn a_folder_that_lacks_what_others_stand_on_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let config = config(folder.path());
    let store = Store::open(&config).unwrap();
    perform(&store, &Step::CreateTopic { partitions: 1 }, 0);
    for _ in 0..40 {
        let step = Step::MoveStart {
            partition: 0,
            offset: i64::MAX,
        };
        let append = Step::Append {
            partition: 0,
            records: 5,
        };
        perform(&store, &append, 0);
        perform(&store, &step, 0);
    }
    assert!(
        store.checkpoint().unwrap() > 0,
        "the log's begin is deleted"
    );
    let end = store.read_with_log(|_, log| log.end());
    drop(store);
    let (log, checkpoint) = (
        SegmentKind::Log.path(folder.path(), end.segment),
        folder.path().join("checkpoint"),
    );

    let whole = std::fs::read(&log).unwrap();
    for length in [0, 10, 16, whole.len() - 1] {
        std::fs::write(&log, &whole[..length]).unwrap();
        let told = refusal(&config);
        let expected = format!(
            "has {length} bytes, and the checkpoint stands for {}",
            whole.len()
        );
        assert!(told.contains(&expected), "{told}");
        assert_eq!(std::fs::read(&log).unwrap().len(), length);
    }
    std::fs::remove_file(&log).unwrap();
    let told = refusal(&config);
    let expected = format!("segment {} is missing", end.segment);
    assert!(told.contains(&expected), "{told}");
    std::fs::write(&log, &whole).unwrap();

    let away = folder.path().join("away");
    std::fs::rename(&checkpoint, &away).unwrap();
    let told = refusal(&config);
    assert!(told.contains("checkpoint is missing"), "{told}");
    std::fs::rename(&away, &checkpoint).unwrap();
    Store::open(&config).unwrap();
}
