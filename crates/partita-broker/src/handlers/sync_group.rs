//! SyncGroup: answered when the leader has brought the assignment.

use std::sync::Arc;

use bytes::Bytes;
use kafka_protocol::messages::{SyncGroupRequest, SyncGroupResponse};
use kafka_protocol::protocol::StrBytes;

use crate::BrokerInner;
use crate::group::SyncRequest;
use crate::net::RequestContext;

pub(crate) async fn handle(
    broker: &Arc<BrokerInner>,
    _context: &RequestContext,
    version: i16,
    request: SyncGroupRequest,
) -> SyncGroupResponse {
    let assignments = request.assignments.into_iter();
    let request = SyncRequest {
        group_id: request.group_id.to_string(),
        generation: request.generation_id,
        member_id: request.member_id.to_string(),
        instance_id: request.group_instance_id.map(|id| id.to_string()),
        protocol_type: request.protocol_type.map(|name| name.to_string()),
        protocol: request.protocol_name.map(|name| name.to_string()),
        assignments: assignments
            .map(|part| {
                // As with subscriptions: the group must not hold on to the whole request.
                let assignment = Bytes::copy_from_slice(&part.assignment);
                (part.member_id.to_string(), assignment)
            })
            .collect(),
    };
    match broker.groups.sync(request).await {
        Ok(synced) => {
            let named = |name| (version >= 5).then(|| StrBytes::from_string(name));
            SyncGroupResponse::default()
                .with_protocol_type(named(synced.protocol_type))
                .with_protocol_name(named(synced.protocol))
                .with_assignment(synced.assignment)
        }
        Err(error) => SyncGroupResponse::default().with_error_code(error.code()),
    }
}
