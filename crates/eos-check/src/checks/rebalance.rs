//! d: a second member takes half of the partitions, and gives them back when it leaves.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use rdkafka::consumer::{BaseConsumer, Consumer};

use crate::client::{Target, seconds};
use crate::report::Report;

const LIMIT: Duration = seconds(20);

pub fn run(target: &Target, strategy: &str, report: &mut Report) -> Result<()> {
    let group = target.name(&format!("gr-{strategy}"));
    let topic = target.name("in");
    let member = || -> Result<BaseConsumer> {
        let consumer = target.consumer(&group, "read_committed", strategy)?;
        consumer.subscribe(&[&topic])?;
        Ok(consumer)
    };
    let first = member()?;
    let joined = poll_until(&[&first], || assigned(&first) == 4);
    let alone = assigned(&first);

    let second = member()?;
    let members = [&first, &second];
    let shared = poll_until(&members, || assigned(&first) == 2 && assigned(&second) == 2);
    let halves = (assigned(&first), assigned(&second));

    let left = leave(&first, second);
    let again = assigned(&first);
    report.verdict(
        &format!("d rebalance {strategy}"),
        alone == 4 && halves == (2, 2) && again == 4,
        &format!(
            "alone {alone} in {:.1}s; two members {}+{} in {:.1}s; after leave {again} in {:.1}s",
            joined.as_secs_f64(),
            halves.0,
            halves.1,
            shared.as_secs_f64(),
            left.as_secs_f64()
        ),
    );
    Ok(())
}

/// Closes `leaver` while `stayer` keeps polling, as it would in a process of its own: under the
/// cooperative protocol neither gets on without the other. Returns how long it took until the
/// stayer had everything.
fn leave(stayer: &BaseConsumer, leaver: BaseConsumer) -> Duration {
    let gone = AtomicBool::new(false);
    thread::scope(|scope| {
        let waiting = scope.spawn(|| {
            poll_until(&[stayer], || {
                gone.load(Ordering::SeqCst) && assigned(stayer) == 4
            })
        });
        drop(leaver);
        gone.store(true, Ordering::SeqCst);
        waiting.join().expect("polling does not panic")
    })
}

fn poll_until(members: &[&BaseConsumer], reached: impl Fn() -> bool) -> Duration {
    let began = Instant::now();
    while !reached() && began.elapsed() < LIMIT {
        for member in members {
            // What it reads does not matter here.
            drop(member.poll(Duration::from_millis(20)));
        }
    }
    began.elapsed()
}

fn assigned(consumer: &BaseConsumer) -> usize {
    consumer
        .assignment()
        .map_or(0, |assignment| assignment.count())
}
