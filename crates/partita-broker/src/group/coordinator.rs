//! The table of groups and their deadlines.

use std::collections::{BTreeSet, HashMap};

use super::GroupError;
use super::commit::CommitClaim;
use super::describe::{GroupDescription, GroupListing};
use super::join::refuse;
use super::messages::{
    Delivery, HeartbeatRequest, JoinRequest, LeaveOutcome, LeavingMember, Reply, SyncRequest,
};
use super::state::{Group, GroupState};

/// Protocols of one member: each is looked for with every other member. Clients have two or three.
const MAX_PROTOCOLS: usize = 100;

/// The bounds within which groups live.
#[derive(Debug, Clone)]
pub struct GroupLimits {
    /// The shortest session timeout a member may ask for, in milliseconds.
    pub min_session_timeout_ms: u64,
    /// The longest session timeout a member may ask for, in milliseconds.
    pub max_session_timeout_ms: u64,
    /// How long the first rebalance of an empty group waits for more members, in milliseconds.
    pub initial_rebalance_delay_ms: u64,
    /// Members of one group, those that were given an id but have yet to join included.
    pub max_members: usize,
    /// Groups in memory.
    pub max_groups: usize,
    /// Bytes of a member's subscriptions, and of its assignment.
    pub max_member_bytes: usize,
    /// Bytes of a group id, an instance id, a client id or a protocol type.
    pub max_name_bytes: usize,
    /// How long an empty group is remembered, in milliseconds. Its offsets live elsewhere.
    pub empty_group_retention_ms: u64,
}

impl Default for GroupLimits {
    fn default() -> Self {
        GroupLimits {
            min_session_timeout_ms: 100,
            max_session_timeout_ms: 30 * 60 * 1000,
            initial_rebalance_delay_ms: 0,
            max_members: 1000,
            max_groups: 10_000,
            max_member_bytes: 1024 * 1024,
            max_name_bytes: 4096,
            empty_group_retention_ms: 60 * 60 * 1000,
        }
    }
}

struct Entry<T> {
    group: Group<T>,
    /// The deadline under which `Coordinator::deadlines` has this group. It may lie before the
    /// group's true next deadline, never after it.
    deadline: u64,
}

/// All groups of a broker. `T` is the ticket by which a caller waits for its answer; every
/// ticket that is handed in comes back in exactly one [`Delivery`].
pub struct Coordinator<T> {
    limits: GroupLimits,
    groups: HashMap<String, Entry<T>>,
    deadlines: BTreeSet<(u64, String)>,
}

impl<T> Coordinator<T> {
    pub fn new(limits: GroupLimits) -> Self {
        Coordinator {
            limits,
            groups: HashMap::new(),
            deadlines: BTreeSet::new(),
        }
    }

    /// Asks to be, or to remain, a member; the answer comes when the rebalance is complete.
    pub fn join(&mut self, request: JoinRequest, to: T, now: u64) -> Vec<Delivery<T>> {
        let mut out = Vec::new();
        if let Err(error) = self.check_join(&request) {
            refuse(to, error, request.member_id, &mut out);
            return out;
        }
        let group_id = request.group_id.clone();
        if !self.groups.contains_key(&group_id) {
            let forget_at = now + self.limits.empty_group_retention_ms;
            let group = Group::new(forget_at);
            self.deadlines.insert((forget_at, group_id.clone()));
            let deadline = forget_at;
            self.groups
                .insert(group_id.clone(), Entry { group, deadline });
        }
        if let Some(entry) = self.groups.get_mut(&group_id) {
            entry.group.join(request, to, now, &self.limits, &mut out);
        }
        self.reschedule(&group_id);
        out
    }

    fn check_join(&self, request: &JoinRequest) -> Result<(), GroupError> {
        let limits = &self.limits;
        let is_long = |name: &str| name.len() > limits.max_name_bytes;
        if request.group_id.is_empty() || is_long(&request.group_id) {
            return Err(GroupError::InvalidGroupId);
        }
        let sessions = limits.min_session_timeout_ms..=limits.max_session_timeout_ms;
        if !sessions.contains(&request.session_timeout_ms) {
            return Err(GroupError::InvalidSessionTimeout);
        }
        let protocols = request.protocols.iter();
        let bytes: usize = protocols
            .map(|p| size_of::<super::Protocol>() + p.name.len() + p.metadata.len())
            .sum();
        let has_long_name = is_long(&request.client_id)
            || is_long(&request.protocol_type)
            || request.instance_id.as_deref().is_some_and(is_long);
        let is_large = bytes > limits.max_member_bytes || request.protocols.len() > MAX_PROTOCOLS;
        if is_large || has_long_name {
            return Err(GroupError::TooLarge);
        }
        if self.groups.contains_key(&request.group_id) {
            return Ok(());
        }
        if !request.member_id.is_empty() {
            return Err(GroupError::UnknownMemberId);
        }
        if self.groups.len() >= limits.max_groups {
            return Err(GroupError::TooManyGroups);
        }
        Ok(())
    }

    /// Asks for the assignment; the answer comes with the leader's sync.
    pub fn sync(&mut self, request: SyncRequest, to: T, now: u64) -> Vec<Delivery<T>> {
        let mut out = Vec::new();
        let group_id = request.group_id.clone();
        match self.groups.get_mut(&group_id) {
            Some(entry) => entry.group.sync(request, to, now, &self.limits, &mut out),
            None => {
                let reply = Reply::Sync(Err(GroupError::UnknownMemberId));
                out.push(Delivery { to, reply });
            }
        }
        self.reschedule(&group_id);
        out
    }

    /// Keeps a member's session alive.
    ///
    /// # Errors
    /// `UnknownMemberId`, `FencedInstanceId`, `IllegalGeneration`, and `RebalanceInProgress` to
    /// call the member to join.
    pub fn heartbeat(&mut self, request: &HeartbeatRequest, now: u64) -> Result<(), GroupError> {
        // A heartbeat only moves deadlines into the future: the table needs no update.
        match self.groups.get_mut(&request.group_id) {
            Some(entry) => entry.group.heartbeat(request, now),
            None => Err(GroupError::UnknownMemberId),
        }
    }

    /// Takes members out of a group, and says for each whether it was one.
    pub fn leave(
        &mut self,
        group_id: &str,
        leaving: Vec<LeavingMember>,
        now: u64,
    ) -> (Vec<LeaveOutcome>, Vec<Delivery<T>>) {
        let mut out = Vec::new();
        let outcomes = match self.groups.get_mut(group_id) {
            Some(entry) => entry.group.leave(leaving, now, &self.limits, &mut out),
            None => {
                let result = Err(GroupError::UnknownMemberId);
                let unknown = |member| LeaveOutcome { member, result };
                leaving.into_iter().map(unknown).collect()
            }
        };
        self.reschedule(group_id);
        (outcomes, out)
    }

    /// Whether the claimant may commit offsets for the group. A commit is a sign of life.
    ///
    /// # Errors
    /// `UnknownMemberId`, `FencedInstanceId`, `IllegalGeneration`, `RebalanceInProgress`.
    pub fn check_commit(
        &mut self,
        group_id: &str,
        claim: CommitClaim<'_>,
        now: u64,
    ) -> Result<(), GroupError> {
        match self.groups.get_mut(group_id) {
            Some(entry) => entry.group.check_commit(claim, now),
            None => claim.check_without_members(),
        }
    }

    /// All groups in memory, in the order of their ids.
    pub fn list(&self) -> Vec<GroupListing> {
        let listing = |(group_id, entry): (&String, &Entry<T>)| GroupListing {
            group_id: group_id.clone(),
            protocol_type: entry.group.protocol_type.clone(),
            state: entry.group.state,
        };
        let mut groups: Vec<_> = self.groups.iter().map(listing).collect();
        groups.sort_by(|a, b| a.group_id.cmp(&b.group_id));
        groups
    }

    /// The group in full; `None` where the coordinator knows no such group (it may have
    /// committed offsets nevertheless).
    pub fn describe(&self, group_id: &str) -> Option<GroupDescription> {
        let entry = self.groups.get(group_id)?;
        Some(entry.group.describe())
    }

    /// Whether a member may be reading `topic`.
    pub fn is_subscribed(&self, group_id: &str, topic: &str) -> bool {
        match self.groups.get(group_id) {
            Some(entry) => match entry.group.subscribed_topics() {
                Some(topics) => topics.contains(topic),
                None => true,
            },
            None => false,
        }
    }

    /// Forgets a group without members; says whether there was one.
    ///
    /// # Errors
    /// `NonEmptyGroup`.
    pub fn delete(&mut self, group_id: &str) -> Result<bool, GroupError> {
        let Some(entry) = self.groups.get(group_id) else {
            return Ok(false);
        };
        if entry.group.state != GroupState::Empty {
            return Err(GroupError::NonEmptyGroup);
        }
        self.forget(group_id);
        Ok(true)
    }

    /// When [`Coordinator::expire`] should next be called; calling it earlier does no harm.
    pub fn next_deadline(&self) -> Option<u64> {
        self.deadlines.first().map(|(deadline, _)| *deadline)
    }

    /// Does what time alone brings about: sessions end, rebalances complete without those who
    /// did not join, empty groups are forgotten.
    pub fn expire(&mut self, now: u64) -> Vec<Delivery<T>> {
        let mut out = Vec::new();
        let due: Vec<String> = self
            .deadlines
            .iter()
            .take_while(|(deadline, _)| *deadline <= now)
            .map(|(_, group_id)| group_id.clone())
            .collect();
        for group_id in due {
            let Some(entry) = self.groups.get_mut(&group_id) else {
                continue;
            };
            if entry.group.expire(now, &self.limits, &mut out) {
                self.forget(&group_id);
            } else {
                self.reschedule(&group_id);
            }
        }
        out
    }

    fn reschedule(&mut self, group_id: &str) {
        let Some(entry) = self.groups.get_mut(group_id) else {
            return;
        };
        // An empty group always has a deadline, and so has every member.
        let next = entry.group.next_deadline().unwrap_or(u64::MAX);
        if next == entry.deadline {
            return;
        }
        let former = (entry.deadline, group_id.to_owned());
        entry.deadline = next;
        self.deadlines.remove(&former);
        self.deadlines.insert((next, former.1));
    }

    fn forget(&mut self, group_id: &str) {
        if let Some((group_id, entry)) = self.groups.remove_entry(group_id) {
            self.deadlines.remove(&(entry.deadline, group_id));
        }
    }

    #[cfg(test)]
    pub(super) fn group(&self, group_id: &str) -> Option<&Group<T>> {
        self.groups.get(group_id).map(|entry| &entry.group)
    }
}
