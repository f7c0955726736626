//! DescribeTopicPartitions: topics and their partitions in the order of their names, a page at a time.

use std::collections::BTreeSet;
use std::sync::Arc;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::describe_topic_partitions_response::{
    Cursor, DescribeTopicPartitionsResponsePartition, DescribeTopicPartitionsResponseTopic,
};
use kafka_protocol::messages::{
    BrokerId, DescribeTopicPartitionsRequest, DescribeTopicPartitionsResponse, TopicName,
};
use kafka_protocol::protocol::StrBytes;

use crate::net::RequestContext;
use crate::state::{State, Topic};
use crate::{BrokerInner, NODE_ID};

/// The most partitions in one page, whatever is asked for.
const PAGE: i32 = 2000;

pub(crate) async fn handle(
    broker: &Arc<BrokerInner>,
    _context: &RequestContext,
    _version: i16,
    request: DescribeTopicPartitionsRequest,
) -> DescribeTopicPartitionsResponse {
    let (from, first) = match &request.cursor {
        None => ("", 0),
        Some(cursor) => match usize::try_from(cursor.partition_index) {
            Ok(index) => (cursor.topic_name.as_str(), index),
            Err(_) => {
                let refused = refuse(&cursor.topic_name, ResponseError::InvalidRequest);
                return DescribeTopicPartitionsResponse::default().with_topics(vec![refused]);
            }
        },
    };
    let limit = request.response_partition_limit.clamp(1, PAGE) as usize;
    broker.store.read(|state| {
        let names: BTreeSet<&str> = if request.topics.is_empty() {
            state.topics().map(|topic| &*topic.name).collect()
        } else {
            let asked = request.topics.iter();
            asked.map(|topic| topic.name.as_str()).collect()
        };
        page(state, names.range(from..).copied(), from, first, limit)
    })
}

/// Describes topics until `limit` partitions are on the page; the one called `from` only from partition `first` on.
fn page<'n>(
    state: &State,
    names: impl Iterator<Item = &'n str>,
    from: &str,
    first: usize,
    limit: usize,
) -> DescribeTopicPartitionsResponse {
    let mut topics = Vec::new();
    let mut left = limit;
    for name in names {
        let Some(topic) = state.topic(name) else {
            let error = match crate::state::topic::check_name(name) {
                Ok(()) => ResponseError::UnknownTopicOrPartition,
                Err(_) => ResponseError::InvalidTopicException,
            };
            topics.push(refuse(name, error));
            continue;
        };
        let count = topic.partitions.len();
        let begin = if name == from { first.min(count) } else { 0 };
        let end = count.min(begin.saturating_add(left));
        // A page that is full ends before the next topic, not after its name.
        if left > 0 {
            topics.push(describe(topic, begin..end));
        }
        if end < count {
            let next = Cursor::default()
                .with_topic_name(text(name))
                .with_partition_index(end as i32);
            return DescribeTopicPartitionsResponse::default()
                .with_topics(topics)
                .with_next_cursor(Some(next));
        }
        left -= end - begin;
    }
    DescribeTopicPartitionsResponse::default().with_topics(topics)
}

fn describe(
    topic: &Topic,
    indexes: std::ops::Range<usize>,
) -> DescribeTopicPartitionsResponseTopic {
    let partitions = indexes.map(|index| {
        DescribeTopicPartitionsResponsePartition::default()
            .with_partition_index(index as i32)
            .with_leader_id(BrokerId(NODE_ID))
            .with_leader_epoch(0)
            .with_replica_nodes(vec![BrokerId(NODE_ID)])
            .with_isr_nodes(vec![BrokerId(NODE_ID)])
            // Clients expect lists here, though the protocol allows null.
            .with_eligible_leader_replicas(Some(Vec::new()))
            .with_last_known_elr(Some(Vec::new()))
    });
    DescribeTopicPartitionsResponseTopic::default()
        .with_name(Some(text(&topic.name)))
        .with_topic_id(topic.id)
        .with_partitions(partitions.collect())
}

fn refuse(name: &str, error: ResponseError) -> DescribeTopicPartitionsResponseTopic {
    DescribeTopicPartitionsResponseTopic::default()
        .with_error_code(error.code())
        .with_name(Some(text(name)))
}

fn text(name: &str) -> TopicName {
    TopicName(StrBytes::from_string(name.to_owned()))
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::describe_topic_partitions_request as request;

    use super::*;
    use crate::testing::topic_created;
    use crate::{Broker, Config};

    /// What a page says of each topic: its name, its error, and its partitions; then where the next page begins.
    type Page = (Vec<(String, i16, Vec<i32>)>, Option<(String, i32)>);

    async fn ask(broker: &Broker, names: &[&str], limit: i32, cursor: Option<(&str, i32)>) -> Page {
        let topic = |name: &&str| request::TopicRequest::default().with_name(text(name));
        let cursor = cursor.map(|(name, index)| {
            request::Cursor::default()
                .with_topic_name(text(name))
                .with_partition_index(index)
        });
        let request = DescribeTopicPartitionsRequest::default()
            .with_topics(names.iter().map(topic).collect())
            .with_response_partition_limit(limit)
            .with_cursor(cursor);
        let context = RequestContext {
            client_id: String::new(),
            client_host: String::new(),
        };
        let response = handle(&broker.inner, &context, 0, request).await;
        let topics = response.topics.into_iter().map(|topic| {
            let indexes = topic.partitions.iter().map(|row| row.partition_index);
            let name = topic.name.expect("it has a name").to_string();
            (name, topic.error_code, indexes.collect())
        });
        let next = response
            .next_cursor
            .map(|cursor| (cursor.topic_name.to_string(), cursor.partition_index));
        (topics.collect(), next)
    }

    /// A broker with the topics `a`, `b` and `c` of 1, 3 and 2 partitions.
    async fn broker() -> Broker {
        let broker = Broker::start(Config::memory()).await.expect("starts");
        let ((), durable) = broker.inner.store.write(|writer| {
            for (name, partitions) in [("c", 2), ("a", 1), ("b", 3)] {
                writer.emit(topic_created(name, partitions));
            }
        });
        durable.wait().await.expect("memory takes it");
        broker
    }

    #[tokio::test]
    async fn pages_together_hold_every_partition_once() {
        let broker = broker().await;
        let whole = [("a", 0), ("b", 0), ("b", 1), ("b", 2), ("c", 0), ("c", 1)];
        for limit in 1..=7 {
            let mut found = Vec::new();
            let mut cursor: Option<(String, i32)> = None;
            loop {
                let from = cursor.as_ref().map(|(name, index)| (name.as_str(), *index));
                let (topics, next) = ask(&broker, &[], limit, from).await;
                let before = found.len();
                for (name, error, indexes) in topics {
                    assert_eq!(error, 0);
                    found.extend(indexes.into_iter().map(|index| (name.clone(), index)));
                }
                assert!((1..=limit as usize).contains(&(found.len() - before)));
                cursor = next;
                if cursor.is_none() {
                    break;
                }
            }
            let found: Vec<_> = found
                .iter()
                .map(|(name, index)| (&**name, *index))
                .collect();
            assert_eq!(found, whole, "{limit} a page");
        }
    }

    #[tokio::test]
    async fn topics_are_found_by_name_and_what_is_wrong_is_said() {
        let broker = broker().await;
        let (topics, next) = ask(&broker, &["c", "absent", "a", "c", "no/name"], 100, None).await;
        let row = |name: &str, error, indexes: &[i32]| (name.to_owned(), error, indexes.to_vec());
        let expected = [
            row("a", 0, &[0]),
            row("absent", 3, &[]),
            row("c", 0, &[0, 1]),
            row("no/name", 17, &[]),
        ];
        assert_eq!((&topics[..], next), (&expected[..], None));
        let (topics, next) = ask(&broker, &["a", "c"], 0, Some(("c", 1))).await;
        assert_eq!((&topics[..], next), (&[row("c", 0, &[1])][..], None));
        let (topics, _) = ask(&broker, &[], 100, Some(("b", -1))).await;
        assert_eq!(topics, [row("b", 42, &[])]);
        // The topic was deleted between two pages, or has fewer partitions than the cursor says.
        let (topics, _) = ask(&broker, &[], 100, Some(("bb", 7))).await;
        assert_eq!(topics, [row("c", 0, &[0, 1])]);
        let (topics, _) = ask(&broker, &["b"], 100, Some(("b", i32::MAX))).await;
        assert_eq!(topics, [row("b", 0, &[])]);
    }
}
