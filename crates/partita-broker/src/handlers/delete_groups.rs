//! DeleteGroups: groups without members go, and with them what they committed, and what open transactions would commit
//! for them: as in Apache Kafka, only members keep a group.

use std::sync::Arc;

use kafka_protocol::ResponseError;
use kafka_protocol::messages::delete_groups_response::DeletableGroupResult;
use kafka_protocol::messages::{DeleteGroupsRequest, DeleteGroupsResponse};

use crate::BrokerInner;
use crate::group::GroupError;
use crate::net::RequestContext;
use crate::state::Event;

pub(crate) async fn handle(
    broker: &Arc<BrokerInner>,
    _context: &RequestContext,
    _version: i16,
    request: DeleteGroupsRequest,
) -> DeleteGroupsResponse {
    let mut results = Vec::new();
    for group_id in request.groups_names {
        let code = delete(broker, group_id.to_string()).await;
        let result = DeletableGroupResult::default().with_group_id(group_id);
        results.push(result.with_error_code(code));
    }
    DeleteGroupsResponse::default().with_results(results)
}

async fn delete(broker: &Arc<BrokerInner>, group: String) -> i16 {
    let forget_offsets = |was_there: bool| {
        broker.store.write(|writer| {
            if writer.state().group(&group).is_none() {
                return was_there;
            }
            let group = group.clone();
            writer.emit(Event::GroupDeleted { group });
            true
        })
    };
    match broker.groups.delete(&group, forget_offsets) {
        Err(error) => error.code(),
        Ok((false, _)) => GroupError::GroupIdNotFound.code(),
        Ok((true, durable)) => match durable.wait().await {
            Ok(()) => 0,
            Err(_) => ResponseError::CoordinatorNotAvailable.code(),
        },
    }
}
