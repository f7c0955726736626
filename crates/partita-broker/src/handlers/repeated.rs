//! A request that names one thing a thousand times is answered as if it had named it once: a frame has room for a
//! million names, and the answer to each may be as long as a topic has partitions.

use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_log_dirs_request::DescribableLogDirTopic;
use kafka_protocol::messages::describe_producers_request::TopicRequest;
use kafka_protocol::messages::metadata_request::MetadataRequestTopic;
use kafka_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopics,
};
use kafka_protocol::messages::*;
use kafka_protocol::protocol::StrBytes;

use super::{
    configs, describe_groups, describe_log_dirs, describe_producers, describe_transactions,
    metadata, offset_fetch,
};
use crate::net::RequestContext;
use crate::testing::topic_created;
use crate::{Broker, Config};

const TIMES: usize = 1000;

fn name() -> TopicName {
    TopicName(StrBytes::from_static_str("t"))
}

#[tokio::test]
async fn what_is_named_again_and_again_is_answered_once() {
    let broker = Broker::start(Config::memory()).await.expect("starts");
    let ((), durable) = broker.inner.store.write(|writer| {
        writer.emit(topic_created("t", 3));
    });
    durable.wait().await.expect("memory takes it");
    let (inner, context) = (
        &broker.inner,
        &RequestContext {
            client_id: String::new(),
            client_host: String::new(),
        },
    );

    let topic = MetadataRequestTopic::default().with_name(Some(name()));
    let request = MetadataRequest::default().with_topics(Some(vec![topic; TIMES]));
    let answer = metadata::handle(inner, context, 12, request).await;
    assert_eq!(answer.topics.len(), 1);

    let group = GroupId(StrBytes::from_static_str("g"));
    let request = DescribeGroupsRequest::default().with_groups(vec![group.clone(); TIMES]);
    let answer = describe_groups::handle(inner, context, 5, request).await;
    assert_eq!(answer.groups.len(), 1);

    let topic = OffsetFetchRequestTopics::default()
        .with_name(name())
        .with_partition_indexes(vec![2; TIMES]);
    let asked = OffsetFetchRequestGroup::default()
        .with_group_id(group)
        .with_topics(Some(vec![topic; 2]));
    let request = OffsetFetchRequest::default().with_groups(vec![asked; TIMES]);
    let answer = offset_fetch::handle(inner, context, 8, request).await;
    assert_eq!(answer.groups.len(), 1);
    assert_eq!(answer.groups[0].topics.len(), 1);
    assert_eq!(answer.groups[0].topics[0].partitions.len(), 1);

    let resource = DescribeConfigsResource::default()
        .with_resource_type(2)
        .with_resource_name(StrBytes::from_static_str("t"));
    let request = DescribeConfigsRequest::default().with_resources(vec![resource; TIMES]);
    let answer = configs::describe::handle(inner, context, 4, request).await;
    assert_eq!(answer.results.len(), 1);

    let topic = TopicRequest::default()
        .with_name(name())
        .with_partition_indexes(vec![2; TIMES]);
    let request = DescribeProducersRequest::default().with_topics(vec![topic; TIMES]);
    let answer = describe_producers::handle(inner, context, 0, request).await;
    assert_eq!(answer.topics.len(), 1);
    assert_eq!(answer.topics[0].partitions.len(), 1);

    let topic = DescribableLogDirTopic::default()
        .with_topic(name())
        .with_partitions(vec![2; TIMES]);
    let request = DescribeLogDirsRequest::default().with_topics(Some(vec![topic; TIMES]));
    let answer = describe_log_dirs::handle(inner, context, 4, request).await;
    assert_eq!(answer.results[0].topics.len(), 1);

    let id = TransactionalId(StrBytes::from_static_str("transfer"));
    let request = DescribeTransactionsRequest::default().with_transactional_ids(vec![id; TIMES]);
    let answer = describe_transactions::handle(inner, context, 0, request).await;
    assert_eq!(answer.transaction_states.len(), 1);
}
