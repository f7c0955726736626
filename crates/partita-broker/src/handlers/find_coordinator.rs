//! FindCoordinator: whatever is to be coordinated, it is here.

use std::sync::Arc;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::find_coordinator_response::Coordinator;
use kafka_protocol::messages::{BrokerId, FindCoordinatorRequest, FindCoordinatorResponse};
use kafka_protocol::protocol::StrBytes;

use crate::net::RequestContext;
use crate::{BrokerInner, NODE_ID};

/// Kinds of keys: groups and transactional ids. Others (share groups) are not served.
const GROUP: i8 = 0;
const TRANSACTION: i8 = 1;

pub(crate) async fn handle(
    broker: &Arc<BrokerInner>,
    _context: &RequestContext,
    version: i16,
    request: FindCoordinatorRequest,
) -> FindCoordinatorResponse {
    let served = matches!(request.key_type, GROUP | TRANSACTION);
    let host = StrBytes::from_string(broker.advertised_host.clone());
    let port = i32::from(broker.advertised_port);
    if version < 4 {
        return if served {
            FindCoordinatorResponse::default()
                .with_node_id(BrokerId(NODE_ID))
                .with_host(host)
                .with_port(port)
        } else {
            FindCoordinatorResponse::default()
                .with_error_code(ResponseError::InvalidRequest.code())
                .with_node_id(BrokerId(-1))
                .with_port(-1)
        };
    }
    let row = |key: StrBytes| {
        let row = Coordinator::default().with_key(key);
        if served {
            row.with_node_id(BrokerId(NODE_ID))
                .with_host(host.clone())
                .with_port(port)
        } else {
            row.with_error_code(ResponseError::InvalidRequest.code())
                .with_node_id(BrokerId(-1))
                .with_port(-1)
        }
    };
    FindCoordinatorResponse::default()
        .with_coordinators(request.coordinator_keys.into_iter().map(row).collect())
}
