//! Syncing: the leader's assignment reaches every member.

use std::collections::HashMap;

use bytes::Bytes;

use super::GroupError;
use super::coordinator::GroupLimits;
use super::messages::{Delivery, Reply, SyncRequest};
use super::state::{Group, GroupState};

impl<T> Group<T> {
    pub fn sync(
        &mut self,
        request: SyncRequest,
        to: T,
        now: u64,
        limits: &GroupLimits,
        out: &mut Vec<Delivery<T>>,
    ) {
        if let Err(error) = self.check_sync(&request, limits) {
            let reply = Reply::Sync(Err(error));
            return out.push(Delivery { to, reply });
        }
        let member_id = request.member_id;
        self.heard_of(&member_id, now);
        self.unsynced.remove(&member_id);
        if self.unsynced.is_empty() {
            self.sync_deadline = None;
        }
        if self.state == GroupState::Stable {
            let reply = Reply::Sync(Ok(self.synced(&member_id)));
            return out.push(Delivery { to, reply });
        }
        let leads = self.is_leader(&member_id);
        if let Some(member) = self.members.get_mut(&member_id) {
            // Of two syncs of one member the later counts, as with joins.
            member.answer_sync(Err(GroupError::RebalanceInProgress), out);
            member.syncing = Some(to);
        }
        if leads {
            self.assign(request.assignments, now, out);
        }
    }

    fn check_sync(&self, request: &SyncRequest, limits: &GroupLimits) -> Result<(), GroupError> {
        self.identify_in_generation(
            &request.member_id,
            request.instance_id.as_deref(),
            request.generation,
        )?;
        let differs = |claimed: &Option<String>, actual: Option<&String>| {
            claimed.is_some() && claimed.as_ref() != actual
        };
        if differs(&request.protocol_type, Some(&self.protocol_type))
            || differs(&request.protocol, self.protocol.as_ref())
        {
            return Err(GroupError::InconsistentGroupProtocol);
        }
        let mut sizes = request.assignments.iter().map(|(_, bytes)| bytes.len());
        if sizes.any(|size| size > limits.max_member_bytes) {
            return Err(GroupError::TooLarge);
        }
        match self.state {
            GroupState::CompletingRebalance | GroupState::Stable => Ok(()),
            GroupState::PreparingRebalance => Err(GroupError::RebalanceInProgress),
            GroupState::Empty | GroupState::Dead => Err(GroupError::UnknownMemberId),
        }
    }

    /// The group is stable: members that the leader left out have nothing assigned.
    fn assign(&mut self, assignments: Vec<(String, Bytes)>, now: u64, out: &mut Vec<Delivery<T>>) {
        let mut assignments: HashMap<String, Bytes> = assignments.into_iter().collect();
        self.state = GroupState::Stable;
        for (member_id, member) in &mut self.members {
            member.assignment = assignments.remove(member_id).unwrap_or_default();
        }
        let member_ids: Vec<String> = self.members.keys().cloned().collect();
        for member_id in member_ids {
            let synced = self.synced(&member_id);
            if let Some(member) = self.members.get_mut(&member_id)
                && member.syncing.is_some()
            {
                member.heard_of(now);
                member.answer_sync(Ok(synced), out);
            }
        }
    }
}
