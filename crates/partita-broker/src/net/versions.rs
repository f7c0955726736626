//! The table of what is served: every (API, versions) pair, and nothing that is not in it is answered.

use kafka_protocol::messages::ApiKey;

/// One row: an API and the inclusive range of its versions that this broker serves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Served {
    pub(crate) key: ApiKey,
    pub(crate) min: i16,
    pub(crate) max: i16,
}

const fn served(key: ApiKey, min: i16, max: i16) -> Served {
    Served { key, min, max }
}

/// In the order of the API keys.
pub(crate) const SERVED: &[Served] = &[
    served(ApiKey::Produce, 3, 13),
    served(ApiKey::Fetch, 4, 17),
    served(ApiKey::ListOffsets, 1, 10),
    served(ApiKey::Metadata, 0, 13),
    served(ApiKey::OffsetCommit, 2, 9),
    served(ApiKey::OffsetFetch, 1, 9),
    served(ApiKey::FindCoordinator, 0, 6),
    served(ApiKey::JoinGroup, 0, 9),
    served(ApiKey::Heartbeat, 0, 4),
    served(ApiKey::LeaveGroup, 0, 5),
    served(ApiKey::SyncGroup, 0, 5),
    served(ApiKey::DescribeGroups, 0, 6),
    served(ApiKey::ListGroups, 0, 5),
    served(ApiKey::ApiVersions, 0, 4),
    served(ApiKey::CreateTopics, 2, 7),
    served(ApiKey::DeleteTopics, 1, 6),
    served(ApiKey::DeleteRecords, 0, 2),
    served(ApiKey::InitProducerId, 0, 5),
    served(ApiKey::OffsetForLeaderEpoch, 2, 4),
    served(ApiKey::AddPartitionsToTxn, 0, 5),
    served(ApiKey::AddOffsetsToTxn, 0, 4),
    served(ApiKey::EndTxn, 0, 5),
    served(ApiKey::WriteTxnMarkers, 1, 1),
    served(ApiKey::TxnOffsetCommit, 0, 5),
    served(ApiKey::DescribeConfigs, 1, 4),
    served(ApiKey::AlterConfigs, 0, 2),
    served(ApiKey::DescribeLogDirs, 1, 4),
    served(ApiKey::CreatePartitions, 0, 3),
    served(ApiKey::DeleteGroups, 0, 2),
    served(ApiKey::IncrementalAlterConfigs, 0, 1),
    served(ApiKey::OffsetDelete, 0, 0),
    served(ApiKey::DescribeCluster, 0, 2),
    served(ApiKey::DescribeProducers, 0, 0),
    served(ApiKey::DescribeTransactions, 0, 0),
    served(ApiKey::ListTransactions, 0, 1),
    served(ApiKey::DescribeTopicPartitions, 0, 0),
];

/// The row of an API, when it is served.
pub(crate) fn find(key: i16) -> Option<&'static Served> {
    SERVED.iter().find(|row| row.key as i16 == key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_readme_names_what_is_served() {
        let readme = include_str!("../../README.md");
        let (_, table) = readme.split_once("<!-- versions:").unwrap();
        let rows: Vec<&str> = table
            .lines()
            .filter(|line| line.starts_with("| "))
            .skip(1)
            .collect();
        let served: Vec<String> = SERVED
            .iter()
            .map(|row| format!("| {:?} | {}–{} |", row.key, row.min, row.max))
            .collect();
        assert_eq!(rows, served);
    }

    #[test]
    fn rows_are_in_order_and_within_what_the_codec_knows() {
        assert!(SERVED.is_sorted_by_key(|row| row.key as i16));
        for row in SERVED {
            let known = row.key.valid_versions();
            assert!(
                known.min <= row.min && row.min <= row.max && row.max <= known.max,
                "{row:?}"
            );
        }
    }
}
