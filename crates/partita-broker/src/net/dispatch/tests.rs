use std::collections::BTreeSet;
use std::time::Duration;

use proptest::test_runner::{RngAlgorithm, TestRng};

use super::*;
use crate::net::shape::tests::random_body;
use crate::net::versions::SERVED;
use crate::testing::{Sample, batch, topic_created};
use crate::{Broker, Config};

/// Requests of each kind and version; enough that every branch of an answer is met.
const REQUESTS: usize = 60;

/// The encoder refuses a field that the version lacks, so whatever a handler answers must encode in each version.
#[tokio::test]
async fn every_served_version_is_answered() {
    let mut config = Config::memory();
    config.max_partitions = 1000;
    let broker = Broker::start(config).await.unwrap();
    let context = Arc::new(RequestContext {
        client_id: "test".to_owned(),
        client_host: "/127.0.0.1".to_owned(),
    });
    for name in ["x", "xx"] {
        let ((), durable) = broker.inner.store.write(|writer| {
            writer.emit(topic_created(name, 2));
            let id = writer.state().partition(name, 1).unwrap().id;
            let (header, bytes) = batch(Sample::plain(3));
            writer.append_batch(id, &header, false, &bytes).unwrap();
        });
        durable.wait().await.unwrap();
    }
    let mut random = TestRng::deterministic_rng(RngAlgorithm::ChaCha);
    let mut refused = BTreeSet::new();
    for row in SERVED {
        for version in row.min..=row.max {
            for _ in 0..REQUESTS {
                let body = random_body(row.key, version, &mut random).into();
                let request = Request {
                    api: row.key,
                    version,
                    correlation_id: 7,
                    client_id: None,
                    body,
                };
                let answer = answer(
                    broker.inner.clone(),
                    context.clone(),
                    request,
                    Turn::default(),
                );
                // Some wait for others by their nature; what they answer in the end others have answered too.
                let Ok(answer) = tokio::time::timeout(Duration::from_millis(2), answer).await
                else {
                    continue;
                };
                match answer {
                    Ok(None) => {}
                    Ok(Some(Answer { frame, .. })) => {
                        assert_eq!(
                            frame.len() - 4,
                            i32::from_be_bytes(frame[..4].try_into().unwrap()) as usize
                        );
                        assert_eq!(frame[4..8], [0, 0, 0, 7]);
                    }
                    Err(RequestError::Unanswered { .. }) => {}
                    Err(error) => drop(refused.insert(error.to_string())),
                }
            }
        }
    }
    assert!(refused.is_empty(), "{refused:#?}");
    broker.shutdown().await;
}

#[test]
fn headers_that_are_none_are_refused() {
    let parse = |bytes: &'static [u8]| {
        Request::parse(Bytes::from_static(bytes))
            .err()
            .map(|error| error.to_string())
    };
    assert_eq!(
        parse(&[]).unwrap(),
        "the frame is too short for a request header"
    );
    assert_eq!(
        parse(&[3, 0xe7, 0, 0, 0, 0, 0, 1]).unwrap(),
        "api 999 is not served"
    );
    assert!(
        parse(&[0, 3, 0, 99, 0, 0, 0, 1])
            .unwrap()
            .starts_with("version 99")
    );
    assert!(
        parse(&[0, 3, 0, 1, 0, 0, 0, 1, 0, 9, b'x'])
            .unwrap()
            .contains("does not decode")
    );
}

/// A produce request of version 3 that wants no answer, with this batch for partition 0 of a topic.
fn unacknowledged(topic: &str, batch: &[u8]) -> Request {
    let mut body = BytesMut::new();
    body.put_i16(-1);
    body.put_i16(0);
    body.put_i32(1000);
    body.put_i32(1);
    body.put_i16(topic.len() as i16);
    body.put_slice(topic.as_bytes());
    body.put_i32(1);
    body.put_i32(0);
    body.put_i32(batch.len() as i32);
    body.put_slice(batch);
    Request {
        api: ApiKey::Produce,
        version: 3,
        correlation_id: 7,
        client_id: None,
        body: body.freeze(),
    }
}

#[tokio::test]
async fn what_wants_no_answer_and_is_refused_costs_the_connection() {
    let broker = Broker::start(Config::memory()).await.unwrap();
    let ((), durable) = broker.inner.store.write(|writer| {
        writer.emit(topic_created("t", 1));
    });
    durable.wait().await.unwrap();
    let context = Arc::new(RequestContext {
        client_id: "test".to_owned(),
        client_host: "/127.0.0.1".to_owned(),
    });
    let send = async |topic, batch: &[u8]| {
        let request = unacknowledged(topic, batch);
        let (inner, context) = (broker.inner.clone(), context.clone());
        answer(inner, context, request, Turn::default()).await
    };
    let (_, bytes) = batch(Sample::plain(3));
    assert!(matches!(send("t", &bytes).await, Ok(None)));
    for (topic, batch) in [("t", &b"damaged"[..]), ("absent", &bytes)] {
        let error = send(topic, batch).await.err().unwrap().to_string();
        assert!(
            error.contains(&format!("partition 0 of '{topic}'")),
            "{error}"
        );
    }
}
