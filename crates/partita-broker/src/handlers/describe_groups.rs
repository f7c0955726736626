//! DescribeGroups: the members of groups and what each has.

use std::sync::Arc;

use kafka_protocol::messages::describe_groups_response::{DescribedGroup, DescribedGroupMember};
use kafka_protocol::messages::{DescribeGroupsRequest, DescribeGroupsResponse, GroupId};
use kafka_protocol::protocol::StrBytes;

use super::distinct;
use crate::BrokerInner;
use crate::group::{GroupDescription, GroupError, GroupState, MemberDescription};
use crate::net::RequestContext;

/// Read, delete and describe, as bits by the protocol's numbers of operations: nobody is denied anything here.
const ALL_OPERATIONS: i32 = 1 << 3 | 1 << 6 | 1 << 8;

pub(crate) async fn handle(
    broker: &Arc<BrokerInner>,
    _context: &RequestContext,
    version: i16,
    request: DescribeGroupsRequest,
) -> DescribeGroupsResponse {
    let groups = distinct(request.groups, GroupId::clone);
    let groups = groups.into_iter().map(|group_id| {
        let mut group = describe(broker, version, group_id);
        if request.include_authorized_operations {
            group.authorized_operations = ALL_OPERATIONS;
        }
        group
    });
    DescribeGroupsResponse::default().with_groups(groups.collect())
}

fn describe(broker: &BrokerInner, version: i16, group_id: GroupId) -> DescribedGroup {
    if let Some(description) = broker.groups.describe(&group_id) {
        return present(version, group_id, description);
    }
    let has_offsets = broker.store.read(|state| state.group(&group_id).is_some());
    let state = if has_offsets {
        GroupState::Empty
    } else {
        GroupState::Dead
    };
    let mut group = DescribedGroup::default()
        .with_group_state(StrBytes::from_string(state.to_string()))
        .with_group_id(group_id);
    // Older clients know an absent group by its state alone.
    if state == GroupState::Dead && version >= 6 {
        let error = GroupError::GroupIdNotFound;
        group.error_code = error.code();
        group.error_message = Some(StrBytes::from_string(error.to_string()));
    }
    group
}

fn present(version: i16, group_id: GroupId, description: GroupDescription) -> DescribedGroup {
    let members = description.members.into_iter();
    DescribedGroup::default()
        .with_group_id(group_id)
        .with_group_state(StrBytes::from_string(description.state.to_string()))
        .with_protocol_type(StrBytes::from_string(description.protocol_type))
        .with_protocol_data(StrBytes::from_string(description.protocol))
        .with_members(
            members
                .map(|member| present_member(version, member))
                .collect(),
        )
}

fn present_member(version: i16, member: MemberDescription) -> DescribedGroupMember {
    let instance_id = member.instance_id.filter(|_| version >= 4);
    DescribedGroupMember::default()
        .with_member_id(StrBytes::from_string(member.member_id))
        .with_group_instance_id(instance_id.map(StrBytes::from_string))
        .with_client_id(StrBytes::from_string(member.client_id))
        .with_client_host(StrBytes::from_string(member.client_host))
        .with_member_metadata(member.metadata)
        .with_member_assignment(member.assignment)
}
