use super::event::OffsetEntry;
use super::offsets::Committed;
use super::*;
use crate::testing::{Sample, batch, topic_created};
use crate::wal::Place;

const PRODUCER: i64 = 5;

fn created() -> State {
    let mut state = State::default();
    state.apply(1, &topic_created("t", 1));
    state.apply(
        2,
        &Event::TransactionalProducer {
            transactional_id: "transfer".to_owned(),
            producer_id: PRODUCER,
            epoch: 0,
            timeout_ms: 60_000,
            renews: None,
        },
    );
    state
}

fn offset_of_partition(offset: i64) -> Vec<OffsetEntry> {
    let committed = Committed {
        offset,
        leader_epoch: -1,
        metadata: String::new(),
    };
    vec![OffsetEntry {
        topic: "t".to_owned(),
        partition: 0,
        committed,
    }]
}

/// The transaction will commit `offset` for partition 0 of `t`.
fn pending(transactional_id: &str, offset: i64) -> Event {
    Event::OffsetsPending {
        transactional_id: transactional_id.to_owned(),
        group: "g".to_owned(),
        offsets: offset_of_partition(offset),
    }
}

fn ended(transactional_id: &str, committed: bool) -> Event {
    Event::TransactionEnded {
        transactional_id: transactional_id.to_owned(),
        committed,
        epoch: 0,
    }
}

/// What the group has committed for partition 0 of `t`.
fn committed(state: &State) -> Option<i64> {
    let committed = state.group("g")?.get("t", 0)?;
    Some(committed.offset)
}

#[test]
fn a_transaction_holds_one_offset_for_a_partition_however_often_it_commits() {
    let mut state = created();
    for offset in 0..100 {
        state.apply(3, &pending("transfer", offset));
    }
    let group = state.group("g").expect("it has offsets");
    assert_eq!(group.pending["t"][&0].len(), 1);
    state.apply(4, &ended("transfer", true));
    assert_eq!(committed(&state), Some(99));
}

#[test]
fn an_offset_that_came_later_stays_when_a_transaction_ends() {
    let by_member = |offset| Event::OffsetsCommitted {
        group: "g".to_owned(),
        offsets: offset_of_partition(offset),
    };
    let other = Event::TransactionalProducer {
        transactional_id: "other".to_owned(),
        producer_id: PRODUCER - 1,
        epoch: 0,
        timeout_ms: 60_000,
        renews: None,
    };
    let (one, two) = (
        |offset| pending("transfer", offset),
        |offset| pending("other", offset),
    );
    let (end_one, end_two) = (ended("transfer", true), ended("other", true));
    let cases = [
        (vec![by_member(7), one(5), end_one.clone()], 5),
        (vec![one(5), by_member(7), end_one.clone()], 7),
        (vec![one(5), by_member(7), one(6), end_one.clone()], 6),
        (vec![one(1), two(2), end_one.clone(), end_two.clone()], 2),
        (vec![one(1), two(2), end_two.clone(), end_one.clone()], 2),
        (vec![one(1), two(2), one(3), end_one.clone(), end_two], 3),
        (vec![one(1), two(2), ended("other", false), end_one], 1),
    ];
    for (number, (events, expected)) in cases.into_iter().enumerate() {
        for restored_after in 0..events.len() {
            let mut state = created();
            state.apply(3, &other);
            for (position, event) in events.iter().enumerate() {
                state.apply(4, event);
                if position == restored_after {
                    let mut bytes = Vec::new();
                    state.encode(&mut bytes);
                    state = State::decode(&bytes).expect("it was encoded");
                }
            }
            assert_eq!(committed(&state), Some(expected), "case {number}");
        }
    }
}

#[test]
fn readers_of_committed_data_end_nowhere_below_the_start() {
    let mut state = created();
    let (header, _) = batch(Sample {
        producer_id: PRODUCER,
        epoch: 0,
        sequence: 0,
        records: 4,
        transactional: true,
    });
    let place = Place {
        segment: 1,
        position: 16,
    };
    state.apply(
        3,
        &Event::BatchAppended {
            partition: 0,
            header,
            place,
        },
    );
    assert_eq!(state.partition_by_id(0).expect("exists").last_stable(), 0);
    state.take_touched();
    state.apply(
        4,
        &Event::LogStartMoved {
            partition: 0,
            offset: 3,
        },
    );
    assert_eq!(state.partition_by_id(0).expect("exists").last_stable(), 3);
    assert_eq!(state.take_touched(), [0], "readers are told");
}
