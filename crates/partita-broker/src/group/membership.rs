//! Staying and leaving: heartbeats and departures.

use super::GroupError;
use super::coordinator::GroupLimits;
use super::messages::{Delivery, HeartbeatRequest, LeaveOutcome, LeavingMember};
use super::state::{Group, GroupState};

impl<T> Group<T> {
    /// # Errors
    /// Those of `identify_in_generation`, and `RebalanceInProgress` to call the member to join.
    pub fn heartbeat(&mut self, request: &HeartbeatRequest, now: u64) -> Result<(), GroupError> {
        self.identify_in_generation(
            &request.member_id,
            request.instance_id.as_deref(),
            request.generation,
        )?;
        self.heard_of(&request.member_id, now);
        match self.state {
            GroupState::PreparingRebalance => Err(GroupError::RebalanceInProgress),
            GroupState::CompletingRebalance | GroupState::Stable => Ok(()),
            GroupState::Empty | GroupState::Dead => Err(GroupError::UnknownMemberId),
        }
    }

    pub fn leave(
        &mut self,
        leaving: Vec<LeavingMember>,
        now: u64,
        limits: &GroupLimits,
        out: &mut Vec<Delivery<T>>,
    ) -> Vec<LeaveOutcome> {
        let mut removed = Vec::new();
        let outcomes = leaving
            .into_iter()
            .map(|member| {
                let result = self.resolve(&member).map(|id| {
                    self.remove_member(&id, out);
                    removed.push(id);
                });
                LeaveOutcome { member, result }
            })
            .collect();
        if !removed.is_empty() {
            self.after_removal(now, limits, out);
        }
        outcomes
    }

    /// The id of the member, or of the one that has yet to join, that wants to go.
    fn resolve(&self, leaving: &LeavingMember) -> Result<String, GroupError> {
        let member_id = &leaving.member_id;
        if let Some(instance_id) = &leaving.instance_id {
            let current = self.static_members.get(instance_id);
            return match current {
                None => Err(GroupError::UnknownMemberId),
                Some(id) if member_id.is_empty() || id == member_id => Ok(id.clone()),
                Some(_) => Err(GroupError::FencedInstanceId),
            };
        }
        if self.members.contains_key(member_id) || self.pending.contains_key(member_id) {
            Ok(member_id.clone())
        } else {
            Err(GroupError::UnknownMemberId)
        }
    }

    /// Takes a member (or one that has yet to join) out. The caller owes [`Group::after_removal`].
    pub fn remove_member(&mut self, member_id: &str, out: &mut Vec<Delivery<T>>) {
        self.pending.remove(member_id);
        self.unsynced.remove(member_id);
        let Some(mut member) = self.members.remove(member_id) else {
            return;
        };
        member.refuse(member_id, GroupError::UnknownMemberId, out);
        if let Some(instance_id) = &member.instance_id {
            self.static_members.remove(instance_id);
        }
        if self.is_leader(member_id) {
            self.leader = self.members.keys().next().cloned();
        }
    }

    /// Those who remain share out what the removed ones had.
    pub fn after_removal(&mut self, now: u64, limits: &GroupLimits, out: &mut Vec<Delivery<T>>) {
        match self.state {
            GroupState::PreparingRebalance => self.complete_if_all_joined(now, limits, out),
            GroupState::CompletingRebalance | GroupState::Stable => {
                self.rebalance(now, limits, out);
            }
            GroupState::Empty | GroupState::Dead => {}
        }
    }
}
