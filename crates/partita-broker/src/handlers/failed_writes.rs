//! What the disk refuses is told in every version, also in those whose answers have no error for the whole.

use kafka_protocol::ResponseError;
use kafka_protocol::messages::add_partitions_to_txn_request::{
    AddPartitionsToTxnTopic, AddPartitionsToTxnTransaction,
};
use kafka_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};
use kafka_protocol::messages::*;
use kafka_protocol::protocol::StrBytes;

use super::{offset_fetch, transactions::add_partitions};
use crate::net::{RequestContext, versions};
use crate::state::Event;
use crate::testing::topic_created;
use crate::{Broker, Config};

/// The errors that a client of this version finds where it asked to add one partition.
fn errors_of_added(version: i16, response: AddPartitionsToTxnResponse) -> Vec<i16> {
    if version >= 4 {
        return vec![response.error_code];
    }
    let topics = response.results_by_topic_v3_and_below.iter();
    let rows = topics.flat_map(|topic| &topic.results_by_partition);
    rows.map(|row| row.partition_error_code).collect()
}

/// The errors that a client of this version finds where it asked for the offset of one partition.
fn errors_of_fetched(version: i16, response: OffsetFetchResponse) -> Vec<i16> {
    match version {
        8.. => {
            let groups = response.groups.iter();
            groups.map(|group| group.error_code).collect()
        }
        2..8 => vec![response.error_code],
        _ => {
            let rows = response.topics.iter().flat_map(|topic| &topic.partitions);
            rows.map(|row| row.error_code).collect()
        }
    }
}

#[tokio::test]
async fn what_the_disk_refuses_is_told_in_every_version() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("data");
    // Each event begins a segment, and none can while the folder is away.
    let mut config = Config::folder(&data);
    config.segment_bytes = 1;
    let broker = Broker::start(config).await.expect("starts");
    let ((), durable) = broker.inner.store.write(|writer| {
        writer.emit(topic_created("t", 1));
        writer.emit(Event::TransactionalProducer {
            transactional_id: "transfer".to_owned(),
            producer_id: 5,
            epoch: 0,
            timeout_ms: 600_000,
            renews: None,
        });
    });
    durable.wait().await.expect("it is written");
    std::fs::rename(&data, folder.path().join("away")).expect("it goes");

    let (inner, context) = (
        &broker.inner,
        &RequestContext {
            client_id: String::new(),
            client_host: String::new(),
        },
    );
    let (id, name) = (
        TransactionalId(StrBytes::from_static_str("transfer")),
        TopicName(StrBytes::from_static_str("t")),
    );
    let unavailable = vec![ResponseError::CoordinatorNotAvailable.code()];
    let row = versions::find(ApiKey::AddPartitionsToTxn as i16).expect("it is served");
    for version in row.min..=row.max {
        let topics = vec![
            AddPartitionsToTxnTopic::default()
                .with_name(name.clone())
                .with_partitions(vec![0]),
        ];
        let request = if version < 4 {
            AddPartitionsToTxnRequest::default()
                .with_v3_and_below_transactional_id(id.clone())
                .with_v3_and_below_producer_id(ProducerId(5))
                .with_v3_and_below_topics(topics)
        } else {
            let transaction = AddPartitionsToTxnTransaction::default()
                .with_transactional_id(id.clone())
                .with_producer_id(ProducerId(5))
                .with_topics(topics);
            AddPartitionsToTxnRequest::default().with_transactions(vec![transaction])
        };
        let response = add_partitions::handle(inner, context, version, request).await;
        assert_eq!(errors_of_added(version, response), unavailable, "{version}");
    }

    let row = versions::find(ApiKey::OffsetFetch as i16).expect("it is served");
    let group = GroupId(StrBytes::from_static_str("g"));
    for version in row.min..=row.max {
        let request = if version < 8 {
            let topic = OffsetFetchRequestTopic::default()
                .with_name(name.clone())
                .with_partition_indexes(vec![0]);
            OffsetFetchRequest::default()
                .with_group_id(group.clone())
                .with_topics(Some(vec![topic]))
        } else {
            let topic = OffsetFetchRequestTopics::default()
                .with_name(name.clone())
                .with_partition_indexes(vec![0]);
            let asked = OffsetFetchRequestGroup::default()
                .with_group_id(group.clone())
                .with_topics(Some(vec![topic]));
            OffsetFetchRequest::default().with_groups(vec![asked])
        };
        let response = offset_fetch::handle(inner, context, version, request).await;
        let errors = errors_of_fetched(version, response);
        assert_eq!(errors, unavailable, "{version}");
    }
}
