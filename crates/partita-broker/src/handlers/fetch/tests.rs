use kafka_protocol::messages::TopicName;
use kafka_protocol::messages::fetch_request::FetchTopic;
use kafka_protocol::protocol::StrBytes;

use super::*;
use crate::state::Event;
use crate::testing::{Sample, batch, topic_created};
use crate::{Broker, Config};

/// Bytes of records, last stable offset and error that a reader from offset 3 is told.
async fn fetch(broker: &Broker, committed_only: bool) -> (usize, i64, i16) {
    let partition = FetchPartition::default()
        .with_fetch_offset(3)
        .with_partition_max_bytes(1 << 20);
    let topic = FetchTopic::default()
        .with_topic(TopicName(StrBytes::from_static_str("t")))
        .with_partitions(vec![partition]);
    let request = FetchRequest::default()
        .with_max_bytes(1 << 20)
        .with_isolation_level(i8::from(committed_only))
        .with_topics(vec![topic]);
    let (mut response, _held) = handle(&broker.inner, request, &Turn::default()).await;
    let row = response.responses.remove(0).partitions.remove(0);
    let bytes = row.records.unwrap_or_default().len();
    (bytes, row.last_stable_offset, row.error_code)
}

/// A broker with a topic of 40 batches, and the bytes of one.
async fn filled(max_fetch_bytes_in_flight: impl Fn(usize) -> usize) -> (Broker, usize) {
    let (header, bytes) = batch(Sample::plain(10));
    let mut config = Config::memory();
    config.max_fetch_bytes_in_flight = max_fetch_bytes_in_flight(bytes.len());
    let broker = Broker::start(config).await.expect("starts");
    let ((), durable) = broker.inner.store.write(|writer| {
        writer.emit(topic_created("t", 1));
        for _ in 0..40 {
            writer.append_batch(0, &header, false, &bytes);
        }
    });
    durable.wait().await.expect("memory takes it");
    (broker, bytes.len())
}

fn everything() -> FetchRequest {
    let partition = FetchPartition::default().with_partition_max_bytes(1 << 20);
    let topic = FetchTopic::default()
        .with_topic(TopicName(StrBytes::from_static_str("t")))
        .with_partitions(vec![partition]);
    FetchRequest::default()
        .with_max_bytes(1 << 20)
        .with_topics(vec![topic])
}

fn bytes_of(response: &FetchResponse) -> usize {
    let row = &response.responses[0].partitions[0];
    assert_eq!(row.error_code, 0);
    row.records.as_ref().map_or(0, Bytes::len)
}

#[tokio::test]
async fn answers_not_yet_written_hold_no_more_than_there_may_be() {
    let (broker, one) = filled(|one| 20 * one).await;
    let mut answers = Vec::new();
    let mut bytes = 0;
    loop {
        let turn = Turn::default();
        let next = handle(&broker.inner, everything(), &turn);
        tokio::pin!(next);
        let answer = tokio::select! {
            biased;
            answer = &mut next => answer,
            () = tokio::task::yield_now() => {
                // It waits. One place is enough for it.
                answers.pop();
                let (response, _held) = next.await;
                assert_eq!(bytes_of(&response), one);
                break;
            }
        };
        bytes += bytes_of(&answer.0);
        assert!(bytes <= 20 * one, "{bytes} of {}", 20 * one);
        answers.push(answer);
    }
    assert!(answers.len() > 5, "the first leave something to others");
    assert!(bytes >= 19 * one, "all of it is used: {bytes}");
}

#[tokio::test]
async fn a_batch_larger_than_all_the_memory_is_read_alone() {
    let (broker, one) = filled(|one| one / 2).await;
    let turn = Turn::default();
    let (first, held) = handle(&broker.inner, everything(), &turn).await;
    assert_eq!(bytes_of(&first), one);
    let second = handle(&broker.inner, everything(), &turn);
    tokio::pin!(second);
    tokio::select! {
        biased;
        _ = &mut second => panic!("there is room for one"),
        () = tokio::task::yield_now() => {}
    }
    drop(held);
    assert_eq!(bytes_of(&second.await.0), one);
}

#[tokio::test]
async fn a_batch_deleted_in_part_stays_hidden_while_it_is_undecided() {
    let broker = Broker::start(Config::memory()).await.expect("starts");
    let (header, bytes) = batch(Sample {
        producer_id: 5,
        epoch: 0,
        sequence: 0,
        records: 5,
        transactional: true,
    });
    let ((), durable) = broker.inner.store.write(|writer| {
        writer.emit(topic_created("t", 1));
        writer.emit(Event::TransactionalProducer {
            transactional_id: "transfer".to_owned(),
            producer_id: 5,
            epoch: 0,
            timeout_ms: 600_000,
            renews: None,
        });
        writer.emit(Event::PartitionsJoined {
            transactional_id: "transfer".to_owned(),
            partitions: vec![0],
        });
        writer.append_batch(0, &header, false, &bytes);
        writer.emit(Event::LogStartMoved {
            partition: 0,
            offset: 3,
        });
    });
    durable.wait().await.expect("memory takes it");
    assert_eq!(fetch(&broker, true).await, (0, 3, 0));
    assert_eq!(fetch(&broker, false).await, (bytes.len(), 3, 0));
    let ((), durable) = broker.inner.store.write(|writer| {
        writer.emit(Event::TransactionEnded {
            transactional_id: "transfer".to_owned(),
            committed: true,
            epoch: 0,
        });
    });
    durable.wait().await.expect("memory takes it");
    let (all, stable, error) = fetch(&broker, true).await;
    assert!(all > bytes.len(), "the batch and its marker: {all}");
    assert_eq!((stable, error), (6, 0));
}

/// A fetch from `offset` of partition 0 of `t`.
fn from(offset: i64, max_bytes: i32) -> FetchRequest {
    let mut request = everything();
    let wanted = &mut request.topics[0].partitions[0];
    (wanted.fetch_offset, wanted.partition_max_bytes) = (offset, max_bytes);
    request
}

#[tokio::test]
async fn a_reader_of_small_pieces_passes_merged_batches() {
    const BATCHES: i64 = 5000;
    let (header, bytes) = batch(Sample::plain(10));
    let mut config = Config::memory();
    (config.segment_bytes, config.log_segments) = (1 << 20, 0);
    let broker = Broker::start(config).await.expect("starts");
    let store = &broker.inner.store;
    let ((), durable) = store.write(|writer| {
        writer.emit(topic_created("t", 1));
        for _ in 0..BATCHES {
            writer.append_batch(0, &header, false, &bytes);
        }
    });
    durable.wait().await.expect("memory takes it");
    let moved = crate::maintenance::reclaim::reclaim(store, &broker.inner.config);
    assert!(moved.expect("memory takes it"));
    let entries = store.read(|state| state.partition_by_id(0).map(|p| p.entries.len()));
    assert!(entries < Some(BATCHES as usize), "they are merged");
    let (mut offset, mut answers) = (0, 0);
    while offset < 10 * BATCHES {
        let (response, _held) = handle(&broker.inner, from(offset, 1), &Turn::default()).await;
        let length = bytes_of(&response);
        assert!(length <= 256 << 10, "{length}");
        offset += 10 * (length / bytes.len()) as i64;
        answers += 1;
    }
    assert!(answers < BATCHES);
}

#[tokio::test]
async fn a_partition_named_again_is_answered_once() {
    let (broker, one) = filled(|one| 1000 * one).await;
    let mut request = everything();
    let topic = &mut request.topics[0];
    topic.partitions = vec![topic.partitions[0].clone(); 100];
    request.topics = vec![request.topics[0].clone(); 100];
    let (response, _held) = handle(&broker.inner, request, &Turn::default()).await;
    let topics = response.responses.iter();
    let rows: Vec<_> = topics.flat_map(|topic| &topic.partitions).collect();
    assert_eq!(rows.len(), 1);
    assert_eq!(rows[0].records.as_ref().map(Bytes::len), Some(40 * one));
}

#[tokio::test]
async fn who_waits_at_a_topic_that_is_made_anew_gets_what_comes_to_the_new_one() {
    let broker = Broker::start(Config::memory()).await.expect("starts");
    let write = async |events: Vec<Event>| {
        let ((), durable) = broker.inner.store.write(|writer| {
            events.into_iter().for_each(|event| writer.emit(event));
        });
        durable.wait().await.expect("memory takes it");
    };
    write(vec![topic_created("t", 1)]).await;
    let request = everything().with_min_bytes(1).with_max_wait_ms(i32::MAX);
    let turn = Turn::default();
    let waiting = handle(&broker.inner, request, &turn);
    tokio::pin!(waiting);
    let name = "t".to_owned();
    let (header, bytes) = batch(Sample::plain(10));
    let mut made_anew = false;
    for round in 0..20 {
        tokio::select! {
            biased;
            (response, _) = &mut waiting => {
                assert!(made_anew && bytes_of(&response) == bytes.len());
                return;
            }
            () = tokio::task::yield_now() => {}
        }
        match round {
            0 => {
                let name = name.clone();
                write(vec![Event::TopicDeleted { name }, topic_created("t", 1)]).await;
            }
            5 => {
                made_anew = true;
                let (_, durable) = broker
                    .inner
                    .store
                    .write(|writer| writer.append_batch(1, &header, false, &bytes));
                durable.wait().await.expect("memory takes it");
            }
            _ => {}
        }
    }
    panic!("nobody wakes it");
}
