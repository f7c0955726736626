//! One file per API, or per small family. Each has `handle(broker, context, version, request) -> response`:
//! it reads the request, asks the store, and writes the response; what can go wrong is an error code in it.

pub(crate) mod api_versions;
pub(crate) mod configs;
pub(crate) mod create_partitions;
pub(crate) mod create_topics;
pub(crate) mod delete_groups;
pub(crate) mod delete_records;
pub(crate) mod delete_topics;
pub(crate) mod describe_cluster;
pub(crate) mod describe_groups;
pub(crate) mod describe_log_dirs;
pub(crate) mod describe_producers;
pub(crate) mod describe_topic_partitions;
pub(crate) mod describe_transactions;
#[cfg(test)]
mod every_version;
#[cfg(test)]
mod failed_writes;
pub(crate) mod fetch;
pub(crate) mod find_coordinator;
pub(crate) mod heartbeat;
pub(crate) mod join_group;
pub(crate) mod leave_group;
pub(crate) mod list_groups;
pub(crate) mod list_offsets;
pub(crate) mod list_transactions;
pub(crate) mod metadata;
pub(crate) mod offset_commit;
pub(crate) mod offset_delete;
pub(crate) mod offset_fetch;
pub(crate) mod offset_for_leader_epoch;
pub(crate) mod produce;
#[cfg(test)]
mod repeated;
pub(crate) mod sync_group;
pub(crate) mod transactions;

use std::collections::HashSet;
use std::hash::Hash;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::TopicName;
use uuid::Uuid;

use crate::state::{State, Topic};

/// A topic by its id, or by its name where the request has no id.
pub(crate) fn find_topic<'s>(
    state: &'s State,
    name: &TopicName,
    id: Uuid,
) -> Result<&'s Topic, ResponseError> {
    if id.is_nil() {
        state
            .topic(name)
            .ok_or(ResponseError::UnknownTopicOrPartition)
    } else {
        state.topic_by_id(id).ok_or(ResponseError::UnknownTopicId)
    }
}

/// The names that a request has more than once.
pub(crate) fn named_twice<'r>(
    names: impl Iterator<Item = &'r TopicName>,
) -> HashSet<&'r TopicName> {
    let mut seen = HashSet::new();
    names.filter(|name| !seen.insert(*name)).collect()
}

/// The first of all that have the same key. What a request names again is answered once: an answer may be a thousand
/// times as long as the name, and a frame has room for a million names.
pub(crate) fn distinct<T, K: Hash + Eq>(items: Vec<T>, key: impl Fn(&T) -> K) -> Vec<T> {
    let mut seen = HashSet::with_capacity(items.len());
    items
        .into_iter()
        .filter(|item| seen.insert(key(item)))
        .collect()
}

/// This broker is the only leader there has ever been: its epoch is 0, and a client that knows a later one is wrong.
pub(crate) fn check_leader_epoch(epoch: i32) -> Result<(), ResponseError> {
    if epoch > 0 {
        Err(ResponseError::UnknownLeaderEpoch)
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use kafka_protocol::protocol::StrBytes;

    use super::*;

    #[test]
    fn names_that_come_again_are_found_and_others_are_not() {
        let names =
            ["a", "b", "a", "c", "a", "c"].map(|name| TopicName(StrBytes::from_static_str(name)));
        let twice = named_twice(names.iter());
        assert_eq!(twice, HashSet::from([&names[0], &names[3]]));
    }
}
