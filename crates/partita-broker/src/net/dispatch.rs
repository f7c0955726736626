//! One match over all APIs: decode the body, call the handler, encode the answer.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::*;
use kafka_protocol::protocol::{Decodable, Encodable, decode_request_header_from_buffer};

use super::{Held, RequestContext, Turn, shape, versions};
use crate::{BrokerInner, handlers};

/// What is wrong with a request; each closes its connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RequestError {
    #[error("the frame is too short for a request header")]
    TooShort,
    #[error("api {0} is not served")]
    UnknownApi(i16),
    #[error("version {version} of api {api:?} is not served")]
    UnknownVersion { api: ApiKey, version: i16 },
    #[error("the request of api {api} version {version} does not decode: {source}")]
    Malformed {
        api: i16,
        version: i16,
        source: anyhow::Error,
    },
    #[error(
        "a produce request that wants no answer was refused with error {code} for partition {partition} of '{topic}'"
    )]
    Unanswered {
        topic: String,
        partition: i32,
        code: i16,
    },
    #[error("the response of api {api:?} version {version} does not encode: {source}")]
    Response {
        api: ApiKey,
        version: i16,
        source: anyhow::Error,
    },
}

/// A request whose header has been read.
pub(crate) struct Request {
    pub(crate) api: ApiKey,
    pub(crate) version: i16,
    pub(crate) correlation_id: i32,
    pub(crate) client_id: Option<String>,
    pub(crate) body: Bytes,
}

/// What goes back to the client.
pub(crate) struct Answer {
    /// The whole response frame, length prefix included.
    pub(crate) frame: Bytes,
    /// The memory set aside for it, to be given back when it is written.
    pub(crate) held: Option<Held>,
}

impl Request {
    /// Reads the header of a frame (without its length prefix).
    pub(crate) fn parse(mut frame: Bytes) -> Result<Request, RequestError> {
        if frame.len() < 8 {
            return Err(RequestError::TooShort);
        }
        let key = i16::from_be_bytes([frame[0], frame[1]]);
        let version = i16::from_be_bytes([frame[2], frame[3]]);
        let row = versions::find(key).ok_or(RequestError::UnknownApi(key))?;
        if row.key == ApiKey::ApiVersions && !(row.min..=row.max).contains(&version) {
            // A client newer than this table asks first with what it knows; it is told, in version 0, what is served.
            let correlation_id = i32::from_be_bytes([frame[4], frame[5], frame[6], frame[7]]);
            return Ok(Request {
                api: row.key,
                version,
                correlation_id,
                client_id: None,
                body: Bytes::new(),
            });
        }
        if !(row.min..=row.max).contains(&version) {
            return Err(RequestError::UnknownVersion {
                api: row.key,
                version,
            });
        }
        let header = decode_request_header_from_buffer(&mut frame).map_err(|source| {
            RequestError::Malformed {
                api: key,
                version,
                source,
            }
        })?;
        Ok(Request {
            api: row.key,
            version,
            correlation_id: header.correlation_id,
            client_id: header.client_id.map(|id| id.to_string()),
            body: frame,
        })
    }
}

/// Answers one request; `None` where the protocol wants no answer.
pub(crate) async fn answer(
    broker: Arc<BrokerInner>,
    context: Arc<RequestContext>,
    request: Request,
    turn: Turn,
) -> Result<Option<Answer>, RequestError> {
    let (broker, context) = (&broker, &*context);
    /// Decode, handle, encode: the same three steps for each API.
    macro_rules! serve {
        ($request:ty, $handler:path) => {{
            let body = decode::<$request>(&request)?;
            let response = $handler(broker, context, request.version, body).await;
            encode(&request, &response).map(Some)
        }};
    }
    match request.api {
        ApiKey::ApiVersions => {
            if versions::find(request.api as i16)
                .is_some_and(|row| !(row.min..=row.max).contains(&request.version))
            {
                let response = handlers::api_versions::unsupported();
                return encode(
                    &Request {
                        version: 0,
                        ..request
                    },
                    &response,
                )
                .map(Some);
            }
            serve!(ApiVersionsRequest, handlers::api_versions::handle)
        }
        ApiKey::Produce => {
            let body = decode::<ProduceRequest>(&request)?;
            let wants_answer = body.acks != 0;
            let response = handlers::produce::handle(broker, context, request.version, body).await;
            if wants_answer {
                return encode(&request, &response).map(Some);
            }
            // All that is left to tell its sender that something is wrong is to close the connection.
            let topics = response.responses.iter();
            let mut rows = topics.flat_map(|topic| {
                let rows = topic.partition_responses.iter();
                rows.map(move |row| (&topic.name, row.index, row.error_code))
            });
            match rows.find(|(_, _, code)| *code != 0) {
                None => Ok(None),
                Some((topic, partition, code)) => Err(RequestError::Unanswered {
                    topic: topic.to_string(),
                    partition,
                    code,
                }),
            }
        }
        ApiKey::Fetch => {
            let body = decode::<FetchRequest>(&request)?;
            let (response, held) = handlers::fetch::handle(broker, body, &turn).await;
            let answer = encode(&request, &response)?;
            Ok(Some(Answer { held, ..answer }))
        }
        ApiKey::ListOffsets => serve!(ListOffsetsRequest, handlers::list_offsets::handle),
        ApiKey::FindCoordinator => {
            serve!(FindCoordinatorRequest, handlers::find_coordinator::handle)
        }
        ApiKey::DeleteTopics => serve!(DeleteTopicsRequest, handlers::delete_topics::handle),
        ApiKey::DeleteRecords => serve!(DeleteRecordsRequest, handlers::delete_records::handle),
        ApiKey::OffsetForLeaderEpoch => {
            serve!(
                OffsetForLeaderEpochRequest,
                handlers::offset_for_leader_epoch::handle
            )
        }
        ApiKey::InitProducerId => {
            serve!(
                InitProducerIdRequest,
                handlers::transactions::init_producer_id::handle
            )
        }
        ApiKey::AddPartitionsToTxn => {
            serve!(
                AddPartitionsToTxnRequest,
                handlers::transactions::add_partitions::handle
            )
        }
        ApiKey::AddOffsetsToTxn => serve!(
            AddOffsetsToTxnRequest,
            handlers::transactions::offsets::handle_add
        ),
        ApiKey::TxnOffsetCommit => serve!(
            TxnOffsetCommitRequest,
            handlers::transactions::offsets::handle_commit
        ),
        ApiKey::WriteTxnMarkers => serve!(
            WriteTxnMarkersRequest,
            handlers::transactions::write_markers::handle
        ),
        ApiKey::EndTxn => serve!(EndTxnRequest, handlers::transactions::end::handle),
        ApiKey::Metadata => serve!(MetadataRequest, handlers::metadata::handle),
        ApiKey::CreateTopics => serve!(CreateTopicsRequest, handlers::create_topics::handle),
        ApiKey::JoinGroup => serve!(JoinGroupRequest, handlers::join_group::handle),
        ApiKey::SyncGroup => serve!(SyncGroupRequest, handlers::sync_group::handle),
        ApiKey::Heartbeat => serve!(HeartbeatRequest, handlers::heartbeat::handle),
        ApiKey::LeaveGroup => serve!(LeaveGroupRequest, handlers::leave_group::handle),
        ApiKey::OffsetCommit => serve!(OffsetCommitRequest, handlers::offset_commit::handle),
        ApiKey::OffsetFetch => serve!(OffsetFetchRequest, handlers::offset_fetch::handle),
        ApiKey::OffsetDelete => serve!(OffsetDeleteRequest, handlers::offset_delete::handle),
        ApiKey::ListGroups => serve!(ListGroupsRequest, handlers::list_groups::handle),
        ApiKey::DescribeGroups => serve!(DescribeGroupsRequest, handlers::describe_groups::handle),
        ApiKey::DeleteGroups => serve!(DeleteGroupsRequest, handlers::delete_groups::handle),
        ApiKey::CreatePartitions => {
            serve!(CreatePartitionsRequest, handlers::create_partitions::handle)
        }
        ApiKey::DescribeCluster => {
            serve!(DescribeClusterRequest, handlers::describe_cluster::handle)
        }
        ApiKey::DescribeConfigs => {
            serve!(DescribeConfigsRequest, handlers::configs::describe::handle)
        }
        ApiKey::AlterConfigs => serve!(AlterConfigsRequest, handlers::configs::alter::handle),
        ApiKey::ListTransactions => {
            serve!(ListTransactionsRequest, handlers::list_transactions::handle)
        }
        ApiKey::DescribeTransactions => serve!(
            DescribeTransactionsRequest,
            handlers::describe_transactions::handle
        ),
        ApiKey::DescribeProducers => serve!(
            DescribeProducersRequest,
            handlers::describe_producers::handle
        ),
        ApiKey::DescribeTopicPartitions => serve!(
            DescribeTopicPartitionsRequest,
            handlers::describe_topic_partitions::handle
        ),
        ApiKey::DescribeLogDirs => {
            serve!(DescribeLogDirsRequest, handlers::describe_log_dirs::handle)
        }
        ApiKey::IncrementalAlterConfigs => serve!(
            IncrementalAlterConfigsRequest,
            handlers::configs::alter::handle_incremental
        ),
        other => Err(RequestError::UnknownApi(other as i16)),
    }
}

fn decode<T: Decodable>(request: &Request) -> Result<T, RequestError> {
    let malformed = |source| RequestError::Malformed {
        api: request.api as i16,
        version: request.version,
        source,
    };
    shape::check(request.api, request.version, &request.body)
        .map_err(|error| malformed(error.into()))?;
    T::decode(&mut request.body.clone(), request.version).map_err(malformed)
}

fn encode<T: Encodable>(request: &Request, response: &T) -> Result<Answer, RequestError> {
    let failed = |source| RequestError::Response {
        api: request.api,
        version: request.version,
        source,
    };
    let header = ResponseHeader::default().with_correlation_id(request.correlation_id);
    let header_version = request.api.response_header_version(request.version);
    let size = response.compute_size(request.version).map_err(failed)? + 16;
    if size > i32::MAX as usize {
        return Err(failed(anyhow::anyhow!("it would have {size} bytes")));
    }
    let mut frame = BytesMut::with_capacity(size);
    frame.put_i32(0);
    header.encode(&mut frame, header_version).map_err(failed)?;
    response
        .encode(&mut frame, request.version)
        .map_err(failed)?;
    let length = (frame.len() - 4) as i32;
    frame[..4].copy_from_slice(&length.to_be_bytes());
    Ok(Answer {
        frame: frame.freeze(),
        held: None,
    })
}

#[cfg(test)]
mod tests;
