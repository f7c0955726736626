//! JoinGroup: answered when the rebalance is complete.

use std::sync::Arc;

use bytes::Bytes;
use kafka_protocol::messages::join_group_response::JoinGroupResponseMember;
use kafka_protocol::messages::{JoinGroupRequest, JoinGroupResponse};
use kafka_protocol::protocol::StrBytes;
use uuid::Uuid;

use crate::BrokerInner;
use crate::group::{JoinRequest, Joined, Protocol};
use crate::net::RequestContext;

pub(crate) async fn handle(
    broker: &Arc<BrokerInner>,
    context: &RequestContext,
    version: i16,
    request: JoinGroupRequest,
) -> JoinGroupResponse {
    match broker.groups.join(read(context, version, request)).await {
        Ok(joined) => accepted(version, joined),
        Err(refusal) => {
            // Before version 7 the name of the protocol could not be null.
            let no_protocol = (version < 7).then(StrBytes::default);
            JoinGroupResponse::default()
                .with_error_code(refusal.error.code())
                .with_generation_id(-1)
                .with_protocol_name(no_protocol)
                .with_member_id(StrBytes::from_string(refusal.member_id))
        }
    }
}

fn read(context: &RequestContext, version: i16, request: JoinGroupRequest) -> JoinRequest {
    // A negative time is no time: it is refused as too short.
    let milliseconds = |value: i32| u64::try_from(value).unwrap_or(0);
    let rebalance_timeout_ms = if version == 0 {
        request.session_timeout_ms
    } else {
        request.rebalance_timeout_ms
    };
    let protocols = request.protocols.into_iter().map(|protocol| Protocol {
        name: protocol.name.to_string(),
        // A slice would keep the whole request in memory for as long as the member lives.
        metadata: Bytes::copy_from_slice(&protocol.metadata),
    });
    JoinRequest {
        group_id: request.group_id.to_string(),
        member_id: request.member_id.to_string(),
        instance_id: request.group_instance_id.map(|id| id.to_string()),
        client_id: context.client_id.clone(),
        client_host: context.client_host.clone(),
        session_timeout_ms: milliseconds(request.session_timeout_ms),
        rebalance_timeout_ms: milliseconds(rebalance_timeout_ms),
        protocol_type: request.protocol_type.to_string(),
        protocols: protocols.collect(),
        requires_known_member_id: version >= 4,
        supports_skipping_assignment: version >= 9,
        unique: Uuid::new_v4().to_string(),
    }
}

fn accepted(version: i16, joined: Joined) -> JoinGroupResponse {
    let members = joined.members.into_iter().map(|member| {
        let instance_id = member.instance_id.filter(|_| version >= 5);
        JoinGroupResponseMember::default()
            .with_member_id(StrBytes::from_string(member.member_id))
            .with_group_instance_id(instance_id.map(StrBytes::from_string))
            .with_metadata(member.metadata)
    });
    let protocol_type = (version >= 7).then(|| StrBytes::from_string(joined.protocol_type));
    JoinGroupResponse::default()
        .with_generation_id(joined.generation)
        .with_protocol_type(protocol_type)
        .with_protocol_name(Some(StrBytes::from_string(joined.protocol)))
        .with_leader(StrBytes::from_string(joined.leader))
        .with_skip_assignment(joined.skip_assignment)
        .with_member_id(StrBytes::from_string(joined.member_id))
        .with_members(members.collect())
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use kafka_protocol::messages::join_group_request::JoinGroupRequestProtocol;

    use super::*;

    #[test]
    fn a_member_does_not_keep_the_frame_that_it_came_in() {
        let frame = Bytes::from(vec![7; 1 << 20]);
        let protocol = JoinGroupRequestProtocol::default().with_metadata(frame.slice(10..20));
        let request = JoinGroupRequest::default().with_protocols(vec![protocol]);
        let context = RequestContext {
            client_id: String::new(),
            client_host: String::new(),
        };
        let read = read(&context, 9, request);
        assert_eq!(read.protocols[0].metadata, [7; 10][..]);
        assert!(frame.is_unique(), "somebody holds the whole frame");
    }
}
