//! Heartbeat: a member is alive, and learns whether it should join again.

use std::sync::Arc;

use kafka_protocol::messages::{HeartbeatRequest, HeartbeatResponse};

use crate::BrokerInner;
use crate::group;
use crate::net::RequestContext;

pub(crate) async fn handle(
    broker: &Arc<BrokerInner>,
    _context: &RequestContext,
    _version: i16,
    request: HeartbeatRequest,
) -> HeartbeatResponse {
    let heartbeat = group::HeartbeatRequest {
        group_id: request.group_id.to_string(),
        generation: request.generation_id,
        member_id: request.member_id.to_string(),
        instance_id: request.group_instance_id.map(|id| id.to_string()),
    };
    let result = broker.groups.heartbeat(&heartbeat);
    HeartbeatResponse::default().with_error_code(result.err().map_or(0, |error| error.code()))
}
