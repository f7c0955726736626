//! DescribeLogDirs: the one data folder, and the bytes of each partition in it.

use std::collections::HashSet;
use std::sync::Arc;

use kafka_protocol::messages::describe_log_dirs_response::{
    DescribeLogDirsPartition, DescribeLogDirsResult, DescribeLogDirsTopic,
};
use kafka_protocol::messages::{DescribeLogDirsRequest, DescribeLogDirsResponse, TopicName};
use kafka_protocol::protocol::StrBytes;

use super::distinct;
use crate::BrokerInner;
use crate::config::Storage;
use crate::net::RequestContext;
use crate::state::{State, Topic};

pub(crate) async fn handle(
    broker: &Arc<BrokerInner>,
    _context: &RequestContext,
    _version: i16,
    request: DescribeLogDirsRequest,
) -> DescribeLogDirsResponse {
    let topics = broker.store.read(|state| match request.topics {
        None => {
            let all = state.topics();
            all.map(|topic| describe(state, topic, |_| true)).collect()
        }
        Some(wanted) => distinct(wanted, |wanted| wanted.topic.clone())
            .into_iter()
            .filter_map(|wanted| {
                let topic = state.topic(&wanted.topic)?;
                let indexes: HashSet<i32> = wanted.partitions.into_iter().collect();
                Some(describe(state, topic, |index| indexes.contains(&index)))
            })
            .collect(),
    });
    let folder = match &broker.config.storage {
        Storage::Memory => "memory".to_owned(),
        Storage::Folder(path) => path.display().to_string(),
    };
    let result = DescribeLogDirsResult::default()
        .with_log_dir(StrBytes::from_string(folder))
        .with_topics(topics);
    DescribeLogDirsResponse::default().with_results(vec![result])
}

fn describe(state: &State, topic: &Topic, is_wanted: impl Fn(i32) -> bool) -> DescribeLogDirsTopic {
    let indexes = (0..topic.partitions.len() as i32).filter(|index| is_wanted(*index));
    let partitions = indexes.map(|index| {
        let bytes = state
            .partition_of(topic, index)
            .map_or(0, |partition| partition.bytes);
        DescribeLogDirsPartition::default()
            .with_partition_index(index)
            .with_partition_size(bytes as i64)
    });
    DescribeLogDirsTopic::default()
        .with_name(TopicName(StrBytes::from_string(topic.name.to_string())))
        .with_partitions(partitions.collect())
}
