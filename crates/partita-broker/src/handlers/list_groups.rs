//! ListGroups: groups with members, and groups that only have committed offsets.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use kafka_protocol::messages::list_groups_response::ListedGroup;
use kafka_protocol::messages::{GroupId, ListGroupsRequest, ListGroupsResponse};
use kafka_protocol::protocol::StrBytes;

use crate::BrokerInner;
use crate::group::{GroupListing, GroupState};
use crate::net::RequestContext;

/// The kind of all groups here, as opposed to those of the newer protocols.
const GROUP_TYPE: &str = "classic";

pub(crate) async fn handle(
    broker: &Arc<BrokerInner>,
    _context: &RequestContext,
    version: i16,
    request: ListGroupsRequest,
) -> ListGroupsResponse {
    let filter = |words: &[StrBytes]| -> HashSet<String> {
        words.iter().map(|word| word.to_ascii_lowercase()).collect()
    };
    let (types, states) = (
        filter(&request.types_filter),
        filter(&request.states_filter),
    );
    let passes = |filter: &HashSet<String>, value: &str| {
        filter.is_empty() || filter.contains(&value.to_ascii_lowercase())
    };
    if !passes(&types, GROUP_TYPE) {
        return ListGroupsResponse::default();
    }
    let groups = all(broker)
        .into_values()
        .filter(|group| passes(&states, &group.state.to_string()))
        .map(|group| {
            let mut listed = ListedGroup::default()
                .with_group_id(GroupId(StrBytes::from_string(group.group_id)))
                .with_protocol_type(StrBytes::from_string(group.protocol_type));
            if version >= 4 {
                listed.group_state = StrBytes::from_string(group.state.to_string());
            }
            if version >= 5 {
                listed.group_type = StrBytes::from_static_str(GROUP_TYPE);
            }
            listed
        });
    ListGroupsResponse::default().with_groups(groups.collect())
}

/// By id. A group that has offsets but no members is empty, wherever they came from.
fn all(broker: &BrokerInner) -> BTreeMap<String, GroupListing> {
    let with_offsets = broker.store.read(|state| {
        let ids = state.groups().map(|(group_id, _)| GroupListing {
            group_id: group_id.to_owned(),
            protocol_type: String::new(),
            state: GroupState::Empty,
        });
        ids.collect::<Vec<_>>()
    });
    let known = broker.groups.list();
    let both = with_offsets.into_iter().chain(known);
    both.map(|group| (group.group_id.clone(), group)).collect()
}
