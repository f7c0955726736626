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

/// The transaction commits `offset` for partition 0 of `t`.
fn pending(offset: i64) -> Event {
    let committed = Committed {
        offset,
        leader_epoch: -1,
        metadata: String::new(),
    };
    Event::OffsetsPending {
        transactional_id: "transfer".to_owned(),
        group: "g".to_owned(),
        offsets: vec![OffsetEntry {
            topic: "t".to_owned(),
            partition: 0,
            committed,
        }],
    }
}

#[test]
fn a_transaction_holds_one_offset_for_a_partition_however_often_it_commits() {
    let mut state = created();
    for offset in 0..100 {
        state.apply(3, &pending(offset));
    }
    let group = state.group("g").expect("it has offsets");
    assert_eq!(group.pending[&PRODUCER].len(), 1);
    state.apply(
        4,
        &Event::TransactionEnded {
            transactional_id: "transfer".to_owned(),
            committed: true,
            epoch: 0,
        },
    );
    let group = state.group("g").expect("it has offsets");
    assert_eq!(
        group.get("t", 0).map(|committed| committed.offset),
        Some(99)
    );
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
