//! Every version of every group and admin API, up to the bytes of the response: the encoder refuses a field that a
//! version lacks, so each answer is made with as much in it as there can be.

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::alter_configs_request as alter;
use kafka_protocol::messages::create_partitions_request::CreatePartitionsTopic;
use kafka_protocol::messages::create_topics_request::CreatableTopic;
use kafka_protocol::messages::delete_groups_response::DeletableGroupResult;
use kafka_protocol::messages::describe_configs_request::DescribeConfigsResource;
use kafka_protocol::messages::describe_log_dirs_request::DescribableLogDirTopic;
use kafka_protocol::messages::describe_producers_request::TopicRequest;
use kafka_protocol::messages::incremental_alter_configs_request as incremental;
use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;
use kafka_protocol::messages::leave_group_request::MemberIdentity;
use kafka_protocol::messages::offset_commit_request::{
    OffsetCommitRequestPartition, OffsetCommitRequestTopic,
};
use kafka_protocol::messages::offset_delete_request::{
    OffsetDeleteRequestPartition, OffsetDeleteRequestTopic,
};
use kafka_protocol::messages::offset_fetch_request::{
    OffsetFetchRequestGroup, OffsetFetchRequestTopic, OffsetFetchRequestTopics,
};
use kafka_protocol::messages::sync_group_request::SyncGroupRequestAssignment;
use kafka_protocol::messages::*;
use kafka_protocol::protocol::{Encodable, StrBytes};

use super::{
    configs, create_partitions, create_topics, delete_groups, describe_cluster, describe_groups,
    describe_log_dirs, describe_producers, describe_transactions, heartbeat, join_group,
    leave_group, list_groups, list_transactions, offset_commit, offset_delete, offset_fetch,
    sync_group, transactions,
};
use crate::net::{RequestContext, versions};
use crate::{Broker, Config};

struct Client {
    broker: Broker,
    context: RequestContext,
}

/// Has a handler answer (a copy of) a request, and encodes the answer.
macro_rules! ask {
    ($client:expr, $handler:path, $version:expr, $request:expr) => {
        encoded(
            $version,
            $handler(
                &$client.broker.inner,
                &$client.context,
                $version,
                $request.clone(),
            )
            .await,
        )
    };
}

#[track_caller]
fn encoded<S: Encodable>(version: i16, response: S) -> S {
    let mut bytes = BytesMut::new();
    if let Err(error) = response.encode(&mut bytes, version) {
        panic!("version {version} does not encode: {error}");
    }
    response
}

impl Client {
    /// A broker in memory with the topic `t` of two partitions.
    async fn start() -> Client {
        let broker = Broker::start(Config::memory()).await.expect("starts");
        let context = RequestContext {
            client_id: "client".to_owned(),
            client_host: "/127.0.0.1".to_owned(),
        };
        let client = Client { broker, context };
        let topic = CreatableTopic::default()
            .with_name(topic("t"))
            .with_num_partitions(2)
            .with_replication_factor(1);
        let request = CreateTopicsRequest::default().with_topics(vec![topic]);
        let response: CreateTopicsResponse = ask!(client, create_topics::handle, 7, request);
        assert_eq!(response.topics[0].error_code, 0);
        client
    }

    /// Joins a group as its only member (a static one where the version knows them), in as many rounds as it takes.
    async fn join(&self, name: &str, version: i16) -> JoinGroupResponse {
        let protocol = JoinGroupRequestProtocol::default()
            .with_name(text("range"))
            .with_metadata(subscription());
        let mut request = JoinGroupRequest::default()
            .with_group_id(group(name))
            .with_session_timeout_ms(30_000)
            .with_protocol_type(text("consumer"))
            .with_protocols(vec![protocol]);
        if version >= 1 {
            request.rebalance_timeout_ms = 30_000;
        }
        if version >= 5 {
            request.group_instance_id = Some(text("instance"));
        }
        let mut response: JoinGroupResponse = ask!(self, join_group::handle, version, request);
        // From version 4 on a dynamic member is given its id first.
        if response.error_code == 79 {
            assert_eq!(version, 4);
            request.member_id = response.member_id;
            response = ask!(self, join_group::handle, version, request);
        }
        response
    }

    async fn sync(
        &self,
        name: &str,
        version: i16,
        joined: &JoinGroupResponse,
    ) -> SyncGroupResponse {
        let assignment = SyncGroupRequestAssignment::default()
            .with_member_id(joined.member_id.clone())
            .with_assignment(Bytes::from_static(b"all"));
        let mut request = SyncGroupRequest::default()
            .with_group_id(group(name))
            .with_generation_id(joined.generation_id)
            .with_member_id(joined.member_id.clone())
            .with_assignments(vec![assignment]);
        if version >= 5 {
            request.protocol_type = Some(text("consumer"));
            request.protocol_name = Some(text("range"));
        }
        ask!(self, sync_group::handle, version, request)
    }

    /// A stable group with one static member.
    async fn stable(&self, name: &str) -> JoinGroupResponse {
        let joined = self.join(name, 9).await;
        assert_eq!(self.sync(name, 5, &joined).await.error_code, 0);
        joined
    }
}

fn versions_of(api: ApiKey) -> std::ops::RangeInclusive<i16> {
    let row = versions::find(api as i16).expect("it is served");
    row.min..=row.max
}

fn text(text: &str) -> StrBytes {
    StrBytes::from_string(text.to_owned())
}

fn group(name: &str) -> GroupId {
    GroupId(text(name))
}

fn topic(name: &str) -> TopicName {
    TopicName(text(name))
}

/// A consumer's subscription to the topic `t`.
fn subscription() -> Bytes {
    Bytes::from_static(&[0, 0, 0, 0, 0, 1, 0, 1, b't'])
}

#[tokio::test]
async fn membership() {
    let client = Client::start().await;
    for version in versions_of(ApiKey::JoinGroup) {
        let joined = client.join(&format!("join-{version}"), version).await;
        assert_eq!(joined.error_code, 0, "version {version}");
        assert_eq!((joined.generation_id, joined.members.len()), (1, 1));
        assert_eq!(joined.leader, joined.member_id);
        assert_eq!(joined.protocol_name, Some(text("range")));
        assert_eq!(joined.members[0].metadata, subscription());
        assert_eq!(joined.members[0].group_instance_id.is_some(), version >= 5);
        let refused = client.join("", version).await;
        assert_eq!(refused.error_code, 24, "version {version}");
    }
    for version in versions_of(ApiKey::SyncGroup) {
        let name = format!("sync-{version}");
        let joined = client.join(&name, 9).await;
        let synced = client.sync(&name, version, &joined).await;
        assert_eq!(
            (synced.error_code, &synced.assignment[..]),
            (0, &b"all"[..])
        );
        let refused = client.sync("absent", version, &joined).await;
        assert_eq!(refused.error_code, 25);
    }
    let joined = client.stable("heartbeats").await;
    for version in versions_of(ApiKey::Heartbeat) {
        let mut request = HeartbeatRequest::default()
            .with_group_id(group("heartbeats"))
            .with_generation_id(joined.generation_id)
            .with_member_id(joined.member_id.clone());
        if version >= 3 {
            request.group_instance_id = Some(text("instance"));
        }
        let response: HeartbeatResponse = ask!(client, heartbeat::handle, version, request);
        assert_eq!(response.error_code, 0, "version {version}");
    }
    for version in versions_of(ApiKey::LeaveGroup) {
        let name = format!("leave-{version}");
        let joined = client.stable(&name).await;
        let mut request = LeaveGroupRequest::default().with_group_id(group(&name));
        if version < 3 {
            request.member_id = joined.member_id;
        } else {
            let member = MemberIdentity::default().with_group_instance_id(Some(text("instance")));
            let stranger = MemberIdentity::default().with_member_id(text("stranger"));
            request.members = vec![member, stranger];
        }
        let response: LeaveGroupResponse = ask!(client, leave_group::handle, version, request);
        assert_eq!(response.error_code, 0, "version {version}");
        if version >= 3 {
            let codes: Vec<_> = response.members.iter().map(|m| m.error_code).collect();
            assert_eq!(codes, [0, 25]);
        }
    }
}

#[tokio::test]
async fn groups_from_outside() {
    let client = Client::start().await;
    let joined = client.stable("g").await;
    for version in versions_of(ApiKey::DescribeGroups) {
        let names = vec![group("g"), group("absent")];
        let mut request = DescribeGroupsRequest::default().with_groups(names);
        request.include_authorized_operations = version >= 3;
        let response: DescribeGroupsResponse =
            ask!(client, describe_groups::handle, version, request);
        let (present, absent) = (&response.groups[0], &response.groups[1]);
        assert_eq!((present.error_code, &*present.group_state), (0, "Stable"));
        let member = &present.members[0];
        assert_eq!(member.member_id, joined.member_id);
        assert_eq!(member.member_metadata, subscription());
        assert_eq!(&member.member_assignment[..], b"all");
        assert_eq!(&*member.client_host, "/127.0.0.1");
        assert_eq!(&*absent.group_state, "Dead");
        assert_eq!(absent.error_code, if version >= 6 { 69 } else { 0 });
    }
    for version in versions_of(ApiKey::ListGroups) {
        let mut request = ListGroupsRequest::default();
        if version >= 4 {
            request.states_filter = vec![text("stable")];
        }
        if version >= 5 {
            request.types_filter = vec![text("Classic")];
        }
        let response: ListGroupsResponse = ask!(client, list_groups::handle, version, request);
        let ids: Vec<_> = response
            .groups
            .iter()
            .map(|g| g.group_id.as_str())
            .collect();
        assert_eq!(ids, ["g"], "version {version}");
    }
    for version in versions_of(ApiKey::DeleteGroups) {
        let names = vec![group("g"), group("absent")];
        let request = DeleteGroupsRequest::default().with_groups_names(names);
        let response: DeleteGroupsResponse = ask!(client, delete_groups::handle, version, request);
        let code = |result: &DeletableGroupResult| result.error_code;
        let codes: Vec<_> = response.results.iter().map(code).collect();
        assert_eq!(codes, [68, 69], "version {version}");
    }
}

#[tokio::test]
async fn offsets() {
    let client = Client::start().await;
    let joined = client.stable("g").await;
    for version in versions_of(ApiKey::OffsetCommit) {
        let partition = |index| {
            OffsetCommitRequestPartition::default()
                .with_partition_index(index)
                .with_committed_offset(i64::from(version))
                .with_committed_metadata(Some(text("note")))
        };
        let topics = OffsetCommitRequestTopic::default()
            .with_name(topic("t"))
            .with_partitions(vec![partition(0), partition(9)]);
        let mut request = OffsetCommitRequest::default()
            .with_group_id(group("g"))
            .with_generation_id_or_member_epoch(joined.generation_id)
            .with_member_id(joined.member_id.clone())
            .with_topics(vec![topics]);
        if version >= 7 {
            request.group_instance_id = Some(text("instance"));
        }
        let response: OffsetCommitResponse = ask!(client, offset_commit::handle, version, request);
        let codes: Vec<_> = response.topics[0]
            .partitions
            .iter()
            .map(|p| p.error_code)
            .collect();
        assert_eq!(codes, [0, 3], "version {version}");
        request.generation_id_or_member_epoch += 1;
        let response: OffsetCommitResponse = ask!(client, offset_commit::handle, version, request);
        assert_eq!(response.topics[0].partitions[0].error_code, 22);
    }
    let latest = i64::from(*versions_of(ApiKey::OffsetCommit).end());
    for version in versions_of(ApiKey::OffsetFetch) {
        for all in [false, true] {
            if all && version < 2 {
                continue;
            }
            let (offsets, expected) = fetch(&client, version, all).await;
            assert_eq!(expected, offsets.len(), "version {version}");
            assert_eq!(offsets[0], latest, "version {version}");
            assert!(offsets[1..].iter().all(|offset| *offset == -1));
        }
    }
    for (name, code) in [("t", 86), ("other", 0)] {
        let partition = OffsetDeleteRequestPartition::default();
        let topic = OffsetDeleteRequestTopic::default()
            .with_name(topic(name))
            .with_partitions(vec![partition]);
        let request = OffsetDeleteRequest::default()
            .with_group_id(group("g"))
            .with_topics(vec![topic]);
        let response: OffsetDeleteResponse = ask!(client, offset_delete::handle, 0, request);
        assert_eq!(response.topics[0].partitions[0].error_code, code, "{name}");
    }
}

/// The offsets of partitions 0 and 1, or of all that have one; and how many there should be.
async fn fetch(client: &Client, version: i16, all: bool) -> (Vec<i64>, usize) {
    let expected = if all { 1 } else { 2 };
    let mut request = OffsetFetchRequest::default();
    request.require_stable = version >= 7;
    if version < 8 {
        let topic = OffsetFetchRequestTopic::default()
            .with_name(topic("t"))
            .with_partition_indexes(vec![0, 1]);
        request.group_id = group("g");
        request.topics = (!all).then(|| vec![topic]);
        let response: OffsetFetchResponse = ask!(client, offset_fetch::handle, version, request);
        let partitions = response.topics[0].partitions.iter();
        return (partitions.map(|p| p.committed_offset).collect(), expected);
    }
    let topic = OffsetFetchRequestTopics::default()
        .with_name(topic("t"))
        .with_partition_indexes(vec![0, 1]);
    let wanted = OffsetFetchRequestGroup::default()
        .with_group_id(group("g"))
        .with_topics((!all).then(|| vec![topic]));
    let absent = OffsetFetchRequestGroup::default()
        .with_group_id(group("absent"))
        .with_topics(None);
    request.groups = vec![absent, wanted];
    let response: OffsetFetchResponse = ask!(client, offset_fetch::handle, version, request);
    assert!(response.groups[0].topics.is_empty());
    let partitions = response.groups[1].topics[0].partitions.iter();
    (partitions.map(|p| p.committed_offset).collect(), expected)
}

#[tokio::test]
async fn the_cluster_and_its_topics() {
    let client = Client::start().await;
    for version in versions_of(ApiKey::DescribeCluster) {
        let mut request = DescribeClusterRequest::default();
        request.include_cluster_authorized_operations = true;
        let response: DescribeClusterResponse =
            ask!(client, describe_cluster::handle, version, request);
        assert_eq!((response.error_code, response.brokers.len()), (0, 1));
        if version >= 1 {
            request.endpoint_type = 2;
            let response: DescribeClusterResponse =
                ask!(client, describe_cluster::handle, version, request);
            assert_eq!(response.error_code, 114);
        }
    }
    for version in versions_of(ApiKey::CreatePartitions) {
        let grown = |name: &str, count: i16| {
            CreatePartitionsTopic::default()
                .with_name(topic(name))
                .with_count(i32::from(count))
                .with_assignments(None)
        };
        let topics = vec![grown("t", 3 + version), grown("absent", 3)];
        let request = CreatePartitionsRequest::default().with_topics(topics);
        let response: CreatePartitionsResponse =
            ask!(client, create_partitions::handle, version, request);
        let codes: Vec<_> = response.results.iter().map(|r| r.error_code).collect();
        assert_eq!(codes, [0, 3], "version {version}");
    }
    for version in versions_of(ApiKey::DescribeLogDirs) {
        let wanted = DescribableLogDirTopic::default()
            .with_topic(topic("t"))
            .with_partitions(vec![0]);
        for topics in [None, Some(vec![wanted])] {
            let request = DescribeLogDirsRequest::default().with_topics(topics);
            let response: DescribeLogDirsResponse =
                ask!(client, describe_log_dirs::handle, version, request);
            assert_eq!(&*response.results[0].topics[0].name.0, "t");
        }
    }
}

#[tokio::test]
async fn settings() {
    let client = Client::start().await;
    for version in versions_of(ApiKey::AlterConfigs) {
        let entry = |name: &str| {
            alter::AlterableConfig::default()
                .with_name(text(name))
                .with_value(Some(text("60000")))
        };
        let resource = |name: &str| {
            alter::AlterConfigsResource::default()
                .with_resource_type(2)
                .with_resource_name(text("t"))
                .with_configs(vec![entry(name)])
        };
        let resources = vec![resource("retention.ms"), resource("no.such")];
        let request = AlterConfigsRequest::default().with_resources(resources);
        let response: AlterConfigsResponse = ask!(client, configs::alter::handle, version, request);
        let codes: Vec<_> = response.responses.iter().map(|r| r.error_code).collect();
        assert_eq!(codes, [0, 40], "version {version}");
    }
    // Set, delete, append, subtract, and what is none of these.
    let steps = [
        ("segment.ms", 0, Some("7"), 0),
        ("segment.ms", 1, None, 0),
        ("cleanup.policy", 2, Some("compact"), 0),
        ("cleanup.policy", 3, Some("delete"), 0),
        ("segment.ms", 2, Some("7"), 40),
        ("segment.ms", 9, Some("7"), 42),
    ];
    for version in versions_of(ApiKey::IncrementalAlterConfigs) {
        for (name, operation, value, code) in steps {
            let entry = incremental::AlterableConfig::default()
                .with_name(text(name))
                .with_config_operation(operation)
                .with_value(value.map(text));
            let resource = incremental::AlterConfigsResource::default()
                .with_resource_type(2)
                .with_resource_name(text("t"))
                .with_configs(vec![entry]);
            let request = IncrementalAlterConfigsRequest::default().with_resources(vec![resource]);
            let response: IncrementalAlterConfigsResponse =
                ask!(client, configs::alter::handle_incremental, version, request);
            assert_eq!(response.responses[0].error_code, code, "{name} {operation}");
        }
    }
    for version in versions_of(ApiKey::DescribeConfigs) {
        let resource = |kind, name: &str| {
            DescribeConfigsResource::default()
                .with_resource_type(kind)
                .with_resource_name(text(name))
                .with_configuration_keys(None)
        };
        let resources = vec![resource(2, "t"), resource(4, "1"), resource(2, "absent")];
        let mut request = DescribeConfigsRequest::default()
            .with_resources(resources)
            .with_include_synonyms(true);
        request.include_documentation = version >= 3;
        let response: DescribeConfigsResponse =
            ask!(client, configs::describe::handle, version, request);
        let codes: Vec<_> = response.results.iter().map(|r| r.error_code).collect();
        assert_eq!(codes, [0, 0, 3], "version {version}");
        let value_of = |name: &str| {
            let mut configs = response.results[0].configs.iter();
            let found = configs.find(|config| *config.name == *name).expect(name);
            (
                found.value.as_deref().map(str::to_owned),
                found.config_source,
                found.synonyms.len(),
            )
        };
        assert_eq!(value_of("retention.ms"), (Some("60000".to_owned()), 1, 2));
        assert_eq!(
            value_of("cleanup.policy"),
            (Some("compact".to_owned()), 1, 2)
        );
        assert_eq!(value_of("segment.ms"), (Some("604800000".to_owned()), 5, 1));
    }
}

#[tokio::test]
async fn transactions_and_producers() {
    let client = Client::start().await;
    let id = TransactionalId(text("transfer"));
    let request = InitProducerIdRequest::default()
        .with_transactional_id(Some(id.clone()))
        .with_transaction_timeout_ms(60_000);
    let initialised: InitProducerIdResponse =
        ask!(client, transactions::init_producer_id::handle, 4, request);
    assert_eq!(initialised.error_code, 0);
    let request = AddOffsetsToTxnRequest::default()
        .with_transactional_id(id.clone())
        .with_producer_id(initialised.producer_id)
        .with_producer_epoch(initialised.producer_epoch)
        .with_group_id(group("g"));
    let added: AddOffsetsToTxnResponse =
        ask!(client, transactions::offsets::handle_add, 3, request);
    assert_eq!(added.error_code, 0);
    for version in versions_of(ApiKey::ListTransactions) {
        for (filter, found) in [("Ongoing", 1), ("Empty", 0), ("Nonsense", 0)] {
            let request = ListTransactionsRequest::default().with_state_filters(vec![text(filter)]);
            let response: ListTransactionsResponse =
                ask!(client, list_transactions::handle, version, request);
            assert_eq!(response.transaction_states.len(), found, "{filter}");
            let unknown = usize::from(filter == "Nonsense");
            assert_eq!(response.unknown_state_filters.len(), unknown, "{filter}");
        }
    }
    let ids = vec![id, TransactionalId(text("absent"))];
    let request = DescribeTransactionsRequest::default().with_transactional_ids(ids);
    let response: DescribeTransactionsResponse =
        ask!(client, describe_transactions::handle, 0, request);
    let (present, absent) = (
        &response.transaction_states[0],
        &response.transaction_states[1],
    );
    assert_eq!(
        (present.error_code, &*present.transaction_state),
        (0, "Ongoing")
    );
    assert_eq!(present.producer_id, initialised.producer_id);
    assert_eq!(absent.error_code, 105);
    let wanted = TopicRequest::default()
        .with_name(topic("t"))
        .with_partition_indexes(vec![0, 9]);
    let request = DescribeProducersRequest::default().with_topics(vec![wanted]);
    let response: DescribeProducersResponse = ask!(client, describe_producers::handle, 0, request);
    let codes: Vec<_> = response.topics[0]
        .partitions
        .iter()
        .map(|p| p.error_code)
        .collect();
    assert_eq!(codes, [0, 3]);
}
