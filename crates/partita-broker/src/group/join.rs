//! Joining: who is let in, and whether that disturbs the others.

use super::coordinator::GroupLimits;
use super::member::Member;
use super::messages::{Delivery, JoinRefusal, JoinRequest, Joined, JoinedMember, Reply};
use super::state::{Group, GroupState};
use super::{GroupError, Synced};

/// How a join is to be treated, once it is allowed.
enum Admission {
    /// Give the newcomer an id and let it come back.
    AssignId,
    /// A newcomer, dynamic or static.
    Newcomer,
    /// A newcomer that comes back with the id it was given.
    Pending,
    /// A static member that restarted; the id it had before.
    Restarted(String),
    /// Already a member.
    Known,
}

impl<T> Group<T> {
    pub fn join(
        &mut self,
        request: JoinRequest,
        to: T,
        now: u64,
        limits: &GroupLimits,
        out: &mut Vec<Delivery<T>>,
    ) {
        let admission = match self.admit(&request, limits) {
            Ok(admission) => admission,
            Err(error) => return refuse(to, error, request.member_id, out),
        };
        match admission {
            Admission::AssignId => {
                let member_id = new_member_id(&request);
                let lapses = now + request.session_timeout_ms;
                self.pending.insert(member_id.clone(), lapses);
                refuse(to, GroupError::MemberIdRequired, member_id, out);
            }
            Admission::Newcomer => {
                let member_id = new_member_id(&request);
                self.add_member(member_id, &request, to, now);
                self.rebalance(now, limits, out);
            }
            Admission::Pending => {
                self.pending.remove(&request.member_id);
                self.add_member(request.member_id.clone(), &request, to, now);
                self.rebalance(now, limits, out);
            }
            Admission::Restarted(former_id) => {
                self.replace_static_member(&former_id, &request, to, now, limits, out);
            }
            Admission::Known => self.rejoin(&request, to, now, limits, out),
        }
    }

    fn admit(&self, request: &JoinRequest, limits: &GroupLimits) -> Result<Admission, GroupError> {
        if !self.is_compatible(request) {
            return Err(GroupError::InconsistentGroupProtocol);
        }
        let instance_id = request.instance_id.as_deref();
        if !request.member_id.is_empty() {
            if instance_id.is_none() && self.pending.contains_key(&request.member_id) {
                return Ok(Admission::Pending);
            }
            self.identify(&request.member_id, instance_id)?;
            return Ok(Admission::Known);
        }
        if let Some(former_id) = instance_id.and_then(|id| self.static_members.get(id)) {
            return Ok(Admission::Restarted(former_id.clone()));
        }
        if self.members.len() + self.pending.len() >= limits.max_members {
            return Err(GroupError::GroupMaxSizeReached);
        }
        if request.requires_known_member_id && instance_id.is_none() {
            return Ok(Admission::AssignId);
        }
        Ok(Admission::Newcomer)
    }

    /// Whether a protocol is left that the joining member and all others can follow.
    fn is_compatible(&self, request: &JoinRequest) -> bool {
        if request.protocol_type.is_empty() || request.protocols.is_empty() {
            return false;
        }
        let former_self = match &request.instance_id {
            Some(instance_id) => self.static_members.get(instance_id),
            None => Some(&request.member_id),
        };
        let others = || {
            let all = self.members.iter();
            all.filter(move |(id, _)| Some(*id) != former_self)
                .map(|(_, member)| member)
        };
        if others().next().is_none() {
            return true;
        }
        self.protocol_type == request.protocol_type
            && request
                .protocols
                .iter()
                .any(|protocol| others().all(|other| other.supports(&protocol.name)))
    }

    fn add_member(&mut self, member_id: String, request: &JoinRequest, to: T, now: u64) {
        if self.members.is_empty() {
            self.protocol_type.clone_from(&request.protocol_type);
        }
        if let Some(initial) = self.join_window.as_mut().and_then(|w| w.initial.as_mut()) {
            initial.grew = true;
        }
        if let Some(instance_id) = &request.instance_id {
            self.static_members
                .insert(instance_id.clone(), member_id.clone());
        }
        self.leader.get_or_insert_with(|| member_id.clone());
        let member = Member::new(request, to, now);
        self.members.insert(member_id, member);
    }

    /// A known member joins again: because it was told to, because its answer was lost, or
    /// because its subscription changed.
    fn rejoin(
        &mut self,
        request: &JoinRequest,
        to: T,
        now: u64,
        limits: &GroupLimits,
        out: &mut Vec<Delivery<T>>,
    ) {
        let member_id = &request.member_id;
        let leads = self.is_leader(member_id);
        let Some(member) = self.members.get_mut(member_id) else {
            return refuse(to, GroupError::UnknownMemberId, member_id.clone(), out);
        };
        let unchanged = member.protocols == request.protocols;
        member.heard_of(now);
        let answer_was_lost = match self.state {
            GroupState::CompletingRebalance => unchanged,
            // A leader that joins again asks for a rebalance: it saw the topics change.
            GroupState::Stable => unchanged && !leads,
            _ => false,
        };
        if answer_was_lost {
            let joined = self.joined(member_id, leads);
            let reply = Reply::Join(Ok(joined));
            return out.push(Delivery { to, reply });
        }
        // Of two joins of one member the later counts; the earlier was given up by its client.
        member.refuse(member_id, GroupError::RebalanceInProgress, out);
        member.update(request);
        member.joining = Some(to);
        self.protocol_type.clone_from(&request.protocol_type);
        self.rebalance(now, limits, out);
    }

    /// A static member came back without its member id. It gets a new one, its former self is
    /// fenced, and in a stable group it keeps its assignment without a rebalance.
    fn replace_static_member(
        &mut self,
        former_id: &str,
        request: &JoinRequest,
        to: T,
        now: u64,
        limits: &GroupLimits,
        out: &mut Vec<Delivery<T>>,
    ) {
        let Some(mut member) = self.members.remove(former_id) else {
            return refuse(to, GroupError::UnknownMemberId, String::new(), out);
        };
        let member_id = new_member_id(request);
        let former_leader = self.leader.clone().unwrap_or_default();
        let protocol = self.protocol.clone().unwrap_or_default();
        let former_topics = member.topics(&protocol);
        member.refuse(former_id, GroupError::FencedInstanceId, out);
        member.update(request);
        // The rest of a subscription tells what the member owned, which a restart forgets.
        let same_topics = member.topics(&protocol) == former_topics;
        member.heard_of(now);
        member.joining = Some(to);
        self.members.insert(member_id.clone(), member);
        if let Some(instance_id) = &request.instance_id {
            self.static_members
                .insert(instance_id.clone(), member_id.clone());
        }
        if self.is_leader(former_id) {
            self.leader = Some(member_id.clone());
        }
        if self.unsynced.remove(former_id) {
            self.unsynced.insert(member_id.clone());
        }
        self.protocol_type.clone_from(&request.protocol_type);
        let stands = self.state == GroupState::Stable && same_topics;
        if !stands || self.select_protocol() != self.protocol {
            return self.rebalance(now, limits, out);
        }
        let leads = self.is_leader(&member_id);
        let mut joined = self.joined(&member_id, leads && request.supports_skipping_assignment);
        if request.supports_skipping_assignment {
            joined.skip_assignment = leads;
        } else {
            // An older client would compute a new assignment if it saw itself leading.
            joined.leader = former_leader;
        }
        if let Some(member) = self.members.get_mut(&member_id) {
            member.answer_join(joined, out);
        }
    }

    /// What a member is told of the present generation.
    pub fn joined(&self, member_id: &str, with_members: bool) -> Joined {
        let protocol = self.protocol.clone().unwrap_or_default();
        let members = if with_members {
            let all = self.members.iter();
            all.map(|(id, member)| JoinedMember {
                member_id: id.clone(),
                instance_id: member.instance_id.clone(),
                metadata: member.metadata(&protocol),
            })
            .collect()
        } else {
            Vec::new()
        };
        Joined {
            generation: self.generation,
            protocol_type: self.protocol_type.clone(),
            protocol,
            leader: self.leader.clone().unwrap_or_default(),
            skip_assignment: false,
            member_id: member_id.to_owned(),
            members,
        }
    }

    /// What a member is told of its assignment.
    pub fn synced(&self, member_id: &str) -> Synced {
        let member = self.members.get(member_id);
        Synced {
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone().unwrap_or_default(),
            assignment: member.map(|m| m.assignment.clone()).unwrap_or_default(),
        }
    }
}

/// Static members are named after their instance, dynamic ones after their client.
fn new_member_id(request: &JoinRequest) -> String {
    let stem = request.instance_id.as_ref().unwrap_or(&request.client_id);
    format!("{stem}-{}", request.unique)
}

pub(super) fn refuse<T>(to: T, error: GroupError, member_id: String, out: &mut Vec<Delivery<T>>) {
    let reply = Reply::Join(Err(JoinRefusal { error, member_id }));
    out.push(Delivery { to, reply });
}
