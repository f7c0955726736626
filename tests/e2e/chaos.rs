//! Ten thousand runs of five steps, while one instance after the other is killed with -9 and
//! restarted, and the agent answers a tenth of its tasks twice. Each run must end exactly once,
//! each attempt must be applied exactly once, and the histories must be dense.

use std::thread;
use std::time::{Duration, Instant};

use crate::support::agent::Worker;
use crate::support::chain::{self, STEPS};
use crate::support::driver::{start_by_records, start_over_http};
use crate::support::installation::{Environment, Installation};
use crate::support::reader::Follower;

/// Runs that are started by records on `commands`; a hundredth more over HTTP.
const RUNS: usize = 10_000;
/// Starts in a second: slow enough that every kill meets runs in all their steps.
const RATE: usize = 200;
/// With fewer kills the test would show little.
const FEWEST_KILLS: usize = 4;
/// Within this time all runs must have ended.
const LIMIT: Duration = Duration::from_secs(600);

/// A killed instance is back long before the group gives it up: with static members it goes on at
/// once. Without, this would be a test of the session timeout.
const AT_ONCE: Environment = &[("PARTITA_RUNTIME__STATIC_MEMBERSHIP", "true")];

#[test]
fn apache_kafka_and_two_instances_that_are_killed() {
    let _alone = crate::support::alone();
    let what = "exactly-once on Apache Kafka while instances are killed with -9";
    if let Some(installation) = Installation::on_apache_kafka(what, AT_ONCE) {
        survive(installation);
    }
}

#[test]
fn the_embedded_broker_and_two_instances_that_are_killed() {
    let _alone = crate::support::alone();
    survive(Installation::on_embedded_broker(AT_ONCE));
}

fn survive(mut installation: Installation) {
    let runs = std::env::var("PARTITA_CHAOS_RUNS").map_or(RUNS, |text| {
        text.parse().expect("PARTITA_CHAOS_RUNS is a number")
    });
    let total = runs + runs / 100;
    installation.apply(chain::WORKFLOW);
    let bootstrap = installation.bootstrap.clone();
    let follower = Follower::start(&bootstrap);
    let worker = Worker::start(&bootstrap);
    let began = Instant::now();

    let starters = [
        thread::spawn({
            let bootstrap = bootstrap.clone();
            move || start_by_records(&bootstrap, chain::NAME, 0..runs, RATE)
        }),
        thread::spawn({
            let apis: Vec<_> = installation
                .instances
                .iter()
                .map(|one| one.api.clone())
                .collect();
            move || start_over_http(&apis, chain::NAME, runs..total)
        }),
    ];
    let kills = kill_until(&mut installation, || follower.ended(), total, began);
    let took = began.elapsed();
    for starter in starters {
        starter.join().expect("all runs are started");
    }
    drop(follower);
    let duplicates = worker.stop();
    println!(
        "{}: {total} runs of {} steps in {:.1} s, {kills} kills, {duplicates} replies sent twice",
        installation.broker_name(),
        STEPS.len(),
        took.as_secs_f64()
    );
    assert!(kills >= FEWEST_KILLS, "only {kills} kills");
    assert!(
        duplicates * 20 > total * STEPS.len(),
        "only {duplicates} replies were sent twice"
    );
    chain::check(&installation, total);
}

/// Kills the instances in turn until `total` runs have ended; each is ready again before the next
/// one dies. Returns how many it killed.
pub fn kill_until(
    installation: &mut Installation,
    ended: impl Fn() -> usize,
    total: usize,
    began: Instant,
) -> usize {
    let mut kills = 0;
    loop {
        // Never the same rhythm: kills should meet a transaction at every point of it. And not before
        // the group could forget the one killed before, or nobody owned anything for long.
        let next = Instant::now() + Duration::from_millis(5000 + (kills as u64 * 617) % 2000);
        while Instant::now() < next {
            let so_far = ended();
            if so_far >= total {
                return kills;
            }
            assert!(
                began.elapsed() < LIMIT,
                "after {LIMIT:?} and {kills} kills only {so_far} of {total} runs have ended"
            );
            thread::sleep(Duration::from_millis(50));
        }
        let victim = kills % installation.instances.len();
        installation.instances[victim].kill9();
        kills += 1;
        println!(
            "kill {kills} after {:.1} s: {} of {total} runs have ended",
            began.elapsed().as_secs_f64(),
            ended()
        );
        thread::sleep(Duration::from_millis(500));
        installation.instances[victim].start();
        installation.instances[victim].wait_until_ready();
    }
}
