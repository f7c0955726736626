//! The local store is a cache: one instance loses its data folder and the other's is overwritten with
//! rubbish, while some runs have ended and others wait. Nothing may be lost.

use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use crate::support::agent::Worker;
use crate::support::chain;
use crate::support::driver::start_by_records;
use crate::support::installation::Installation;
use crate::support::reader::Follower;

const ENDED: usize = 200;
const WAITING: usize = 100;
const RATE: usize = 500;
const LIMIT: Duration = Duration::from_secs(180);

#[test]
fn a_deleted_and_a_corrupted_store_lose_nothing() {
    let _alone = crate::support::alone();
    let what = "that a lost or corrupted store loses nothing, on Apache Kafka";
    let Some(mut installation) = Installation::on_apache_kafka(what, &[]) else {
        return;
    };
    installation.apply(chain::WORKFLOW);
    let bootstrap = installation.bootstrap.clone();
    let follower = Follower::start(&bootstrap);
    let worker = Worker::start(&bootstrap);
    start_by_records(&bootstrap, chain::NAME, 0..ENDED, RATE);
    wait_for(&follower, ENDED);
    worker.stop();
    start_by_records(&bootstrap, chain::NAME, ENDED..ENDED + WAITING, RATE);

    let [deleted, corrupted] = installation.instances.as_mut_slice() else {
        panic!("an installation has two instances");
    };
    // In good order, so that the store holds everything that there is to lose.
    deleted.stop();
    fs::remove_dir_all(deleted.data()).expect("the folder can be deleted");
    corrupted.stop();
    assert!(
        overwrite(&corrupted.data()) > 0,
        "there is no store to corrupt"
    );
    for instance in &mut installation.instances {
        instance.start();
    }
    for instance in &mut installation.instances {
        instance.wait_until_ready();
    }

    let worker = Worker::start(&bootstrap);
    wait_for(&follower, ENDED + WAITING);
    worker.stop();
    chain::check(&installation, ENDED + WAITING);
}

#[track_caller]
fn wait_for(follower: &Follower, runs: usize) {
    let began = Instant::now();
    while follower.ended() < runs {
        assert!(
            began.elapsed() < LIMIT,
            "{} of {runs} runs have ended after {LIMIT:?}",
            follower.ended()
        );
        thread::sleep(Duration::from_millis(20));
    }
}

/// Overwrites the files of the store below `folder` with rubbish; returns how many there were. The
/// file with the instance's name is no part of the store.
fn overwrite(folder: &Path) -> usize {
    let mut files = 0;
    for entry in fs::read_dir(folder).expect("a readable folder") {
        let path = entry.expect("a readable folder").path();
        if path.is_dir() {
            files += overwrite(&path);
        } else if path.file_name().is_some_and(|name| name != "instance") {
            let length = fs::metadata(&path).expect("a file").len().max(64);
            let length = usize::try_from(length).expect("a store of this test is small");
            fs::write(&path, vec![0xA5; length]).expect("a file can be overwritten");
            files += 1;
        }
    }
    files
}
