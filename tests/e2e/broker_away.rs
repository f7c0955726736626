//! The broker is away: when the instances start, and in the middle of their work. They say so, and
//! once it is back they go on where they were, whole and without a loss.

use std::thread;
use std::time::Duration;

use crate::support::agent::Worker;
use crate::support::chain;
use crate::support::driver::start_by_records;
use crate::support::installation::{Environment, Installation};
use crate::support::reader::Follower;
use crate::support::wait_for;

/// Shorter than the long outage: the transactions that it meets are given up by all sides.
const SHORT_TRANSACTIONS: Environment = &[("PARTITA_RUNTIME__TRANSACTION_TIMEOUT", "5s")];
/// Longer than transactions, and than the session timeout of these tests, which is 6 s.
const LONG: Duration = Duration::from_secs(20);
const AT_ONCE: Duration = Duration::ZERO;
const RUNS: usize = 2000;
const RATE: usize = 200;
const LIMIT: Duration = Duration::from_secs(180);

#[test]
fn a_broker_that_comes_late_and_goes_away_for_long() {
    let _alone = crate::support::alone();
    let mut installation = Installation::without_its_broker(SHORT_TRANSACTIONS);
    let bootstrap = installation.bootstrap.clone();
    for instance in &installation.instances {
        let says_why = || {
            let alive = instance
                .api
                .get("/livez")
                .is_some_and(|it| it.status == 200);
            let ready = instance.api.get("/readyz");
            let reason = ready.is_some_and(|it| {
                let reason = it.body["reasons"][0].as_str().unwrap_or_default();
                it.status == 503 && reason.contains(&bootstrap) && reason.contains("refused")
            });
            alive && reason
        };
        wait_for(LIMIT, "alive, not ready, and for this reason", says_why);
        wait_for(LIMIT, "the log says so", || {
            instance.last_log_lines().contains("Kafka is not reachable")
        });
    }
    installation.restart_broker();
    survive(installation, LONG);
}

#[test]
fn a_broker_that_is_killed_and_back_at_once() {
    let _alone = crate::support::alone();
    let mut installation = Installation::without_its_broker(SHORT_TRANSACTIONS);
    installation.restart_broker();
    let mut installation = survive(installation, AT_ONCE);

    // Nothing is in flight any more, so nothing fails. It is told all the same.
    installation.kill_broker();
    let bootstrap = installation.bootstrap.clone();
    for instance in &installation.instances {
        wait_for(LIMIT, "not ready, and for this reason", || {
            instance.api.get("/readyz").is_some_and(|it| {
                let reason = it.body["reasons"][0].as_str().unwrap_or_default();
                it.status == 503 && reason.contains(&bootstrap) && reason.contains("refused")
            })
        });
    }
    installation.restart_broker();
    for instance in &mut installation.instances {
        instance.wait_until_ready();
    }
}

#[test]
fn apache_kafka_that_goes_away_for_long() {
    let _alone = crate::support::alone();
    let what = "that nothing is lost while Apache Kafka is away";
    if let Some(installation) = Installation::on_apache_kafka(what, SHORT_TRANSACTIONS) {
        survive(installation, LONG);
    }
}

/// Kills the broker in the middle of two thousand runs and starts it again after `away`.
fn survive(mut installation: Installation, away: Duration) -> Installation {
    for instance in &mut installation.instances {
        instance.wait_until_ready();
    }
    installation.apply(chain::WORKFLOW);
    let bootstrap = installation.bootstrap.clone();
    let follower = Follower::start(&bootstrap);
    let worker = Worker::start(&bootstrap);
    let starter = thread::spawn(move || start_by_records(&bootstrap, chain::NAME, 0..RUNS, RATE));
    wait_for(LIMIT, "a tenth of the runs has ended", || {
        follower.ended() > RUNS / 10
    });

    installation.kill_broker();
    thread::sleep(away);
    installation.restart_broker();

    starter.join().expect("all runs are started");
    wait_for(LIMIT, "all runs have ended", || follower.ended() >= RUNS);
    worker.stop();
    for instance in &mut installation.instances {
        instance.wait_until_ready();
    }
    chain::check(&installation, RUNS);
    installation
}
