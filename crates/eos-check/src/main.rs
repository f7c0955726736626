//! eos-check: one checklist of exactly-once behaviour, run against any broker that speaks the
//! Kafka protocol.
//!
//! ```text
//! eos-check <bootstrap|mock> <phase> [prefix] [n]
//! ```
//!
//! Run `phase1`, then kill or restart the broker, then `phase2` with the same prefix and n.
//! Each check prints a `[PASS]` or `[FAIL]` line; the exit code is 1 when any failed.
//! Letters in the lines name the groups of checks:
//!
//! | letter | phase | what | where |
//! |---|---|---|---|
//! | a | `create`, `phase1` | topics, their configuration | `checks/topics.rs` |
//! | b | `phase1` | produce, consume, commit, resume | `checks/consume.rs` |
//! | c | `phase1` | transactions: aborts, a crash, fencing, the last stable offset | `checks/transactions.rs` |
//! | d | `phase1` | rebalances | `checks/rebalance.rs` |
//! | e | `phase1`, `phase2` | what a restart keeps | `checks/restart.rs` |
//! | f | `bench` | latency and throughput | `checks/bench.rs` |
//! | g | `compact` | compaction | `checks/cleanup.rs` |
//! | h | `steps` | where the time of a transaction goes | `checks/bench.rs` |
//!
//! `retention` fills one partition and prints what is kept; `serve` keeps the mock up.
//! `FETCHWAIT` sets `fetch.wait.max.ms`, `RDDEBUG` librdkafka's debug contexts, and `NOSETTLE`
//! shows what a transaction costs when deliveries are not awaited first.

mod checks;
mod client;
mod figures;
mod report;
mod transform;

use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rdkafka::mocking::MockCluster;

use crate::checks::{bench, cleanup, consume, rebalance, restart, topics, transactions};
use crate::client::Target;
use crate::report::Report;

const USAGE: &str = "usage: eos-check <bootstrap|mock> \
    <create|phase1|phase2|bench|steps|compact|retention|serve> [prefix] [n]";
const DEFAULT_RECORDS: usize = 10_000;
/// How long `serve` keeps the mock cluster up.
const SERVE: Duration = Duration::from_secs(3600);

#[tokio::main]
async fn main() -> Result<ExitCode> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [where_to, phase, rest @ ..] = arguments.as_slice() else {
        bail!(USAGE)
    };
    let mock = if where_to == "mock" {
        Some(MockCluster::new(1)?)
    } else {
        None
    };
    let bootstrap = mock
        .as_ref()
        .map_or(where_to.clone(), MockCluster::bootstrap_servers);
    if mock.is_some() {
        println!("mock at {bootstrap}");
    }
    let records = match rest.get(1) {
        Some(text) => text
            .parse()
            .with_context(|| format!("n is not a number: {text}"))?,
        None => DEFAULT_RECORDS,
    };
    let prefix = rest.first().cloned().unwrap_or_else(|| "t".to_owned());
    let target = Target {
        bootstrap,
        prefix,
        records,
    };
    let mut report = Report::default();
    match phase.as_str() {
        "serve" => thread::sleep(SERVE),
        "create" => topics::create(&target, mock.as_ref(), &mut report).await?,
        "phase1" => before_restart(&target, mock.as_ref(), &mut report).await?,
        "phase2" => after_restart(&target, &mut report)?,
        "bench" => report.step("f", bench::run(&target).await),
        "steps" => report.step("h", bench::parts_of_a_transaction(&target)),
        "compact" => {
            let outcome = cleanup::compaction(&target, &mut report).await;
            report.step("g", outcome);
        }
        "retention" => report.step("ret", cleanup::retention(&target)),
        other => bail!("unknown phase {other}; {USAGE}"),
    }
    Ok(report.exit_code())
}

async fn before_restart(
    target: &Target,
    mock: Option<&MockCluster<'_, rdkafka::producer::DefaultProducerContext>>,
    report: &mut Report,
) -> Result<()> {
    topics::create(target, mock, report).await?;
    let outcome = consume::run(target, report);
    report.step("b", outcome);
    let outcome = transactions::run(target, report);
    report.step("c", outcome);
    let outcome = transactions::last_stable_offset(target, report);
    report.step("c-lso", outcome);
    for (name, strategy) in [("d-range", "range"), ("d-coop", "cooperative-sticky")] {
        let outcome = rebalance::run(target, strategy, report);
        report.step(name, outcome);
    }
    report.step("e-open", restart::leave_transaction_open(target));
    if mock.is_some() {
        report.step("retention", cleanup::retention(target));
        report.step("f", bench::run(target).await);
    }
    Ok(())
}

fn after_restart(target: &Target, report: &mut Report) -> Result<()> {
    restart::list_topics(target)?;
    let outcome = transactions::verify(target, "e", report);
    report.step("e-verify", outcome);
    let outcome = restart::open_transaction_is_gone(target, report);
    report.step("e-open", outcome);
    let outcome = restart::goes_on(target, report);
    report.step("e-continue", outcome);
    Ok(())
}
