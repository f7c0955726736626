//! The broker is away when the instances start. They say so, and once it comes they do their work.

use std::time::Duration;

use crate::support::agent::Worker;
use crate::support::chain;
use crate::support::driver::start_by_records;
use crate::support::installation::{Environment, Installation};
use crate::support::reader::Follower;
use crate::support::wait_for;

const SHORT_TRANSACTIONS: Environment = &[("PARTITA_RUNTIME__TRANSACTION_TIMEOUT", "5s")];
const RUNS: usize = 2000;
const RATE: usize = 200;
const LIMIT: Duration = Duration::from_secs(180);

#[test]
fn a_broker_that_comes_late_is_waited_for() {
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
        let log = instance.last_log_lines();
        assert!(log.contains("Kafka is not reachable"), "{log}");
    }

    installation.broker().restart();
    for instance in &mut installation.instances {
        instance.wait_until_ready();
    }
    installation.apply(chain::WORKFLOW);
    let follower = Follower::start(&bootstrap);
    let worker = Worker::start(&bootstrap);
    start_by_records(&bootstrap, chain::NAME, 0..RUNS, RATE);
    wait_for(LIMIT, "all runs have ended", || follower.ended() >= RUNS);
    worker.stop();
    for instance in &mut installation.instances {
        instance.wait_until_ready();
    }
    chain::check(&installation, RUNS);
}
