//! LeaveGroup: one member (up to version 2), or several.

use std::sync::Arc;

use kafka_protocol::messages::leave_group_response::MemberResponse;
use kafka_protocol::messages::{LeaveGroupRequest, LeaveGroupResponse};
use kafka_protocol::protocol::StrBytes;

use crate::BrokerInner;
use crate::group::{LeaveOutcome, LeavingMember};
use crate::net::RequestContext;

pub(crate) async fn handle(
    broker: &Arc<BrokerInner>,
    _context: &RequestContext,
    version: i16,
    request: LeaveGroupRequest,
) -> LeaveGroupResponse {
    let leaving = if version < 3 {
        vec![LeavingMember {
            member_id: request.member_id.to_string(),
            instance_id: None,
        }]
    } else {
        let members = request.members.into_iter();
        members
            .map(|member| LeavingMember {
                member_id: member.member_id.to_string(),
                instance_id: member.group_instance_id.map(|id| id.to_string()),
            })
            .collect()
    };
    let outcomes = broker.groups.leave(&request.group_id, leaving);
    if version < 3 {
        let code = outcomes.first().map_or(0, code_of);
        return LeaveGroupResponse::default().with_error_code(code);
    }
    let members = outcomes.into_iter().map(|outcome| {
        MemberResponse::default()
            .with_error_code(code_of(&outcome))
            .with_member_id(StrBytes::from_string(outcome.member.member_id))
            .with_group_instance_id(outcome.member.instance_id.map(StrBytes::from_string))
    });
    LeaveGroupResponse::default().with_members(members.collect())
}

fn code_of(outcome: &LeaveOutcome) -> i16 {
    outcome.result.err().map_or(0, |error| error.code())
}
