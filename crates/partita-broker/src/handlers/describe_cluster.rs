//! DescribeCluster: this node, which is all there is.

use std::sync::Arc;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::describe_cluster_response::DescribeClusterBroker;
use kafka_protocol::messages::{BrokerId, DescribeClusterRequest, DescribeClusterResponse};
use kafka_protocol::protocol::StrBytes;

use crate::net::RequestContext;
use crate::{BrokerInner, NODE_ID};

/// The protocol's number for the broker's own listeners; another kind are those of a controller.
const BROKER_ENDPOINTS: i8 = 1;

/// Create, alter, describe, cluster action, describe configs, alter configs and idempotent write, as bits by the
/// protocol's numbers of operations: nobody is denied anything here.
const ALL_OPERATIONS: i32 = 1 << 5 | 1 << 7 | 1 << 8 | 1 << 9 | 1 << 10 | 1 << 11 | 1 << 12;

pub(crate) async fn handle(
    broker: &Arc<BrokerInner>,
    _context: &RequestContext,
    version: i16,
    request: DescribeClusterRequest,
) -> DescribeClusterResponse {
    if version >= 1 && request.endpoint_type != BROKER_ENDPOINTS {
        return DescribeClusterResponse::default()
            .with_error_code(ResponseError::MismatchedEndpointType.code())
            .with_error_message(Some(StrBytes::from_static_str(
                "this address is a broker's, not a controller's",
            )))
            .with_endpoint_type(request.endpoint_type);
    }
    let this = DescribeClusterBroker::default()
        .with_broker_id(BrokerId(NODE_ID))
        .with_host(StrBytes::from_string(broker.advertised_host.clone()))
        .with_port(i32::from(broker.advertised_port));
    let mut response = DescribeClusterResponse::default()
        .with_cluster_id(StrBytes::from_string(broker.store.cluster_id().to_owned()))
        .with_controller_id(BrokerId(NODE_ID))
        .with_brokers(vec![this]);
    if request.include_cluster_authorized_operations {
        response.cluster_authorized_operations = ALL_OPERATIONS;
    }
    response
}
