//! What admin tools are shown of a group.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::state::{Group, GroupState};
use super::subscription;

/// One line of a list of groups.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupListing {
    pub group_id: String,
    pub protocol_type: String,
    pub state: GroupState,
}

/// A group in full.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupDescription {
    pub state: GroupState,
    pub protocol_type: String,
    /// Empty unless the group is stable.
    pub protocol: String,
    pub members: Vec<MemberDescription>,
}

/// A member in full.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberDescription {
    pub member_id: String,
    pub instance_id: Option<String>,
    pub client_id: String,
    pub client_host: String,
    /// Empty unless the group is stable.
    pub metadata: Bytes,
    /// Empty unless the group is stable.
    pub assignment: Bytes,
}

impl<T> Group<T> {
    pub fn describe(&self) -> GroupDescription {
        let is_stable = self.state == GroupState::Stable;
        let protocol = self.protocol.clone().filter(|_| is_stable);
        let members = self.members.iter().map(|(member_id, member)| {
            let (metadata, assignment) = match &protocol {
                Some(protocol) => (member.metadata(protocol), member.assignment.clone()),
                None => (Bytes::new(), Bytes::new()),
            };
            MemberDescription {
                member_id: member_id.clone(),
                instance_id: member.instance_id.clone(),
                client_id: member.client_id.clone(),
                client_host: member.client_host.clone(),
                metadata,
                assignment,
            }
        });
        GroupDescription {
            state: self.state,
            protocol_type: self.protocol_type.clone(),
            members: members.collect(),
            protocol: protocol.unwrap_or_default(),
        }
    }

    /// The topics that members of a consumer group subscribe to; `None` where members speak
    /// another protocol, so that any topic may be in use.
    pub fn subscribed_topics(&self) -> Option<BTreeSet<String>> {
        if self.members.is_empty() {
            return Some(BTreeSet::new());
        }
        if self.protocol_type != "consumer" {
            return None;
        }
        let mut topics = BTreeSet::new();
        for member in self.members.values() {
            for protocol in &member.protocols {
                topics.extend(subscription::topics(protocol.metadata.clone())?);
            }
        }
        Some(topics)
    }
}
