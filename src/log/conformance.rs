//! What every log does for a worker, whatever it is made of: one suite, run on the memory log here
//! and on real brokers by the tests of the runtime.

use std::time::{Duration, Instant};

use super::{Log, Outgoing, OwnershipChange, PollLimits, Positions, Record, Source, Target};

/// How long anything may take. Real groups need seconds to agree.
const PATIENCE: Duration = Duration::from_secs(60);

/// A cluster with empty topics of two partitions, for one run of the suite.
pub struct Setup<'a> {
    /// A session under this transactional id.
    pub session: &'a dyn Fn(&str) -> Box<dyn Log>,
    /// Produces a command outside any transaction.
    pub produce: &'a dyn Fn(i32, &str),
}

fn limits(wait: Duration) -> PollLimits {
    PollLimits {
        wait,
        records: 100,
        bytes: 1 << 20,
    }
}

/// Polls until `done`; collects records and notes ownership.
fn poll_until(
    log: &mut dyn Log,
    owned: &mut Vec<i32>,
    mut done: impl FnMut(&[i32], &[Record]) -> bool,
) -> Vec<Record> {
    let deadline = Instant::now() + PATIENCE;
    let mut records = Vec::new();
    loop {
        let changes = log
            .poll(limits(Duration::from_millis(50)), &mut records)
            .expect("a poll");
        for change in changes {
            match change {
                OwnershipChange::Assigned(partitions) => owned.extend(partitions),
                OwnershipChange::Revoked(partitions) => {
                    owned.retain(|own| !partitions.contains(own))
                }
            }
        }
        if done(owned, &records) {
            return records;
        }
        assert!(
            Instant::now() < deadline,
            "owned {owned:?}, got {records:?}"
        );
    }
}

/// Reads the changelog of partition 0 as a new owner would.
fn restored(log: &mut dyn Log, from: i64) -> Vec<String> {
    let deadline = Instant::now() + PATIENCE;
    log.committed(0).expect("committed positions");
    let mut reader = log.changelog(0, from).expect("a changelog");
    let mut values = Vec::new();
    loop {
        let progress = reader.read(10, &mut |record| {
            values
                .push(String::from_utf8(record.value.unwrap_or_default().to_vec()).expect("text"));
        });
        if progress.expect("a read").done {
            return values;
        }
        assert!(Instant::now() < deadline, "the changelog does not end");
    }
}

fn write(log: &mut dyn Log, value: &str, positions: &[(i32, Positions)]) {
    log.begin().expect("a transaction");
    let record = Outgoing {
        target: Target::State(0),
        key: Some(b"k"),
        value: Some(value.as_bytes()),
        headers: &[("h", b"x")],
    };
    log.send(record).expect("sending");
    let changelog = log.settle().expect("deliveries");
    assert_eq!(
        changelog.len(),
        1,
        "the changelog's position is told: {changelog:?}"
    );
    log.send_offsets(positions).expect("positions");
}

/// What a static member keeps when it leaves: its successor under the same id owns everything again,
/// long before the session of the one that left expires. Panics where it does not.
pub fn a_static_member_keeps_its_place(setup: &Setup<'_>) {
    for _life in 0..2 {
        let mut log = (setup.session)("one");
        log.connect().expect("a connection");
        let mut owned = Vec::new();
        poll_until(log.as_mut(), &mut owned, |owned, _| owned.len() == 2);
        log.leave();
    }
}

/// Where all is read, nothing waits, though a transaction left its marker behind the last record. Panics
/// where the log says otherwise after it has been polled for so long: brokers' ends are told now and then.
pub fn markers_are_no_lag(setup: &Setup<'_>, polled_for: Duration) {
    let mut log = (setup.session)("one");
    log.connect().expect("a connection");
    let mut owned = Vec::new();
    poll_until(log.as_mut(), &mut owned, |owned, _| owned.len() == 2);
    log.start(0, [0, 0]).expect("a start");
    log.begin().expect("a transaction");
    let handed_on = Outgoing {
        target: Target::Input(Source::Commands, 0),
        key: Some(b"k"),
        value: Some(b"a"),
        headers: &[],
    };
    log.send(handed_on).expect("sending");
    log.settle().expect("deliveries");
    log.send_offsets(&[(0, [0, 0])]).expect("positions");
    log.commit().expect("a commit");
    let got = poll_until(log.as_mut(), &mut owned, |_, records| !records.is_empty());
    let read = [got[0].offset + 1, 0];
    let since = Instant::now();
    poll_until(log.as_mut(), &mut owned, |_, _| {
        since.elapsed() >= polled_for
    });
    let mut lag = log.lag(0, read);
    while lag != [0, 0] && since.elapsed() < PATIENCE {
        poll_until(log.as_mut(), &mut owned, |_, _| true);
        lag = log.lag(0, read);
    }
    assert_eq!(lag, [0, 0]);
    log.leave();
}

/// Runs the suite; panics where the log does not conform. It waits for a minute at most, so with a
/// longer session timeout only a log that leaves its group at once conforms.
pub fn conforms(setup: &Setup<'_>) {
    let mut first = (setup.session)("one");
    first.connect().expect("a connection");
    assert_eq!(first.partitions(), 2);
    let mut owned = Vec::new();
    poll_until(first.as_mut(), &mut owned, |owned, _| owned.len() == 2);
    assert_eq!(
        first.committed(0).expect("positions"),
        [0, 0],
        "nothing is committed yet"
    );

    // Records come from where the partition is started, and come again after going back.
    for value in ["a", "b", "c"] {
        (setup.produce)(0, value);
    }
    first.start(0, [0, 0]).expect("a start");
    first.start(1, [0, 0]).expect("a start");
    let got = poll_until(first.as_mut(), &mut owned, |_, records| records.len() >= 3);
    let values = |records: &[Record]| -> Vec<Vec<u8>> {
        records
            .iter()
            .map(|record| record.value.clone().unwrap_or_default())
            .collect()
    };
    assert_eq!(values(&got), [b"a", b"b", b"c"]);
    assert!(
        got.iter()
            .all(|record| record.source == Source::Commands && record.partition == 0)
    );
    let offsets: Vec<i64> = got.iter().map(|record| record.offset).collect();
    assert!(offsets.is_sorted() && offsets[0] < offsets[2]);

    // An abort leaves nothing: no changelog, no positions.
    write(first.as_mut(), "aborted", &[(0, [offsets[2] + 1, 0])]);
    first.abort().expect("an abort");
    assert_eq!(
        first.committed(0).expect("positions"),
        [0, 0],
        "an abort moves no positions"
    );
    first.start(0, [0, 0]).expect("going back");
    let again = poll_until(first.as_mut(), &mut owned, |_, records| records.len() >= 3);
    assert_eq!(values(&again), [b"a", b"b", b"c"]);
    assert_eq!(restored(first.as_mut(), 0), Vec::<String>::new());

    // A commit leaves everything.
    write(first.as_mut(), "committed", &[(0, [offsets[1] + 1, 0])]);
    first.commit().expect("a commit");
    assert_eq!(first.committed(0).expect("positions"), [offsets[1] + 1, 0]);
    assert_eq!(restored(first.as_mut(), 0), ["committed"]);

    // A younger session of the same id fences the older, and ends what it left open.
    write(first.as_mut(), "fenced", &[(0, [offsets[2] + 1, 0])]);
    let mut younger = (setup.session)("one");
    younger.connect().expect("a connection");
    let late = first.commit().expect_err("the older session is fenced");
    assert_eq!(late.class, super::ErrorClass::Fatal, "{late}");
    assert_eq!(restored(younger.as_mut(), 0), ["committed"]);

    first.leave();

    // Two members share, and what one leaves the other gets: at once from a dynamic member, when its
    // session has expired from a static one.
    let mut second = (setup.session)("two");
    second.connect().expect("a connection");
    owned.clear();
    let mut theirs = Vec::new();
    let deadline = Instant::now() + PATIENCE;
    while !(owned.len() == 1 && theirs.len() == 1) {
        poll_until(second.as_mut(), &mut owned, |_, _| true);
        poll_until(younger.as_mut(), &mut theirs, |_, _| true);
        assert!(
            Instant::now() < deadline,
            "they do not share: {owned:?}, {theirs:?}"
        );
    }
    assert_ne!(owned, theirs);
    second.leave();
    poll_until(younger.as_mut(), &mut theirs, |owned, _| owned.len() == 2);
    younger.leave();
}

#[cfg(test)]
mod tests {
    use super::super::memory::{Cluster, MemoryLog, TopicKey};
    use super::*;

    #[test]
    fn the_memory_log_conforms() {
        let cluster = Cluster::new(2);
        conforms(&Setup {
            session: &|id| Box::new(MemoryLog::new(cluster.clone(), id)),
            produce: &|partition, value| {
                let topic = TopicKey::Input(Source::Commands);
                cluster.produce(
                    topic,
                    partition,
                    Some(b"k"),
                    Some(value.as_bytes()),
                    Vec::new(),
                );
            },
        });
    }
}
