//! An instance that is stopped in good order leaves the group: the other owns everything at once, and
//! not only when the session of the one that left would have expired.

use std::thread;
use std::time::Duration;

use crate::support::agent::Worker;
use crate::support::chain;
use crate::support::driver::start_by_records;
use crate::support::installation::{Environment, Installation};
use crate::support::reader::Follower;
use crate::support::wait_for;

/// Twice as long as the test waits: partitions that have moved by then did not wait for it.
const LONG_SESSIONS: Environment = &[("PARTITA_RUNTIME__SESSION_TIMEOUT", "4m")];
const HAND_OVER_LIMIT: Duration = Duration::from_secs(120);
const RUNS: usize = 1000;
const RATE: usize = 100;
const LIMIT: Duration = Duration::from_secs(120);

#[test]
fn apache_kafka_hands_over_at_once() {
    let _alone = crate::support::alone();
    let what = "that an instance leaves the group when it stops, on Apache Kafka";
    if let Some(installation) = Installation::on_apache_kafka(what, LONG_SESSIONS) {
        hand_over(installation);
    }
}

#[test]
fn the_embedded_broker_hands_over_at_once() {
    let _alone = crate::support::alone();
    hand_over(Installation::on_embedded_broker(LONG_SESSIONS));
}

fn hand_over(mut installation: Installation) {
    installation.apply(chain::WORKFLOW);
    let bootstrap = installation.bootstrap.clone();
    let follower = Follower::start(&bootstrap);
    let worker = Worker::start(&bootstrap);
    let starter = thread::spawn(move || start_by_records(&bootstrap, chain::NAME, 0..RUNS, RATE));

    let [staying, leaving] = installation.instances.as_mut_slice() else {
        panic!("an installation has two instances");
    };
    wait_for(LIMIT, "both own partitions", || {
        staying.owned() > 0 && leaving.owned() > 0
    });
    leaving.stop();
    wait_for(
        HAND_OVER_LIMIT,
        "the one that stays owns everything",
        || staying.owned() == staying.partitions(),
    );
    leaving.start();
    leaving.wait_until_ready();

    starter.join().expect("all runs are started");
    wait_for(LIMIT, "all runs have ended", || follower.ended() >= RUNS);
    worker.stop();
    chain::check(&installation, RUNS);
}
