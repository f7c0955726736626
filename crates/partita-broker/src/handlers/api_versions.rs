//! ApiVersions: the table of what is served.

use std::sync::Arc;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::api_versions_response::ApiVersion;
use kafka_protocol::messages::{ApiVersionsRequest, ApiVersionsResponse};

use crate::BrokerInner;
use crate::net::{RequestContext, versions};

pub(crate) async fn handle(
    _broker: &Arc<BrokerInner>,
    _context: &RequestContext,
    _version: i16,
    _request: ApiVersionsRequest,
) -> ApiVersionsResponse {
    ApiVersionsResponse::default().with_api_keys(table())
}

/// The answer, in version 0, to a version of ApiVersions that is not served: the client then asks again with one that is.
pub(crate) fn unsupported() -> ApiVersionsResponse {
    ApiVersionsResponse::default()
        .with_error_code(ResponseError::UnsupportedVersion.code())
        .with_api_keys(table())
}

fn table() -> Vec<ApiVersion> {
    versions::SERVED
        .iter()
        .map(|row| {
            ApiVersion::default()
                .with_api_key(row.key as i16)
                .with_min_version(row.min)
                .with_max_version(row.max)
        })
        .collect()
}
