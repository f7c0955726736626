//! A group: its members, its generation and where it stands.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;

use super::GroupError;
use super::member::Member;

/// Where a group stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum GroupState {
    /// No members; committed offsets may exist.
    Empty,
    /// Waits for members to join the next generation.
    PreparingRebalance,
    /// A generation has begun; waits for the leader's assignment.
    CompletingRebalance,
    /// Every member can have its assignment.
    Stable,
    /// Does not exist.
    Dead,
}

impl fmt::Display for GroupState {
    /// The name that admin tools expect.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            GroupState::Empty => "Empty",
            GroupState::PreparingRebalance => "PreparingRebalance",
            GroupState::CompletingRebalance => "CompletingRebalance",
            GroupState::Stable => "Stable",
            GroupState::Dead => "Dead",
        })
    }
}

/// How long the coordinator waits for members to join.
pub(super) struct JoinWindow {
    pub deadline: u64,
    /// Set for the first rebalance of an empty group, which waits for company.
    pub initial: Option<InitialDelay>,
}

/// The first rebalance is put off by a fixed delay, again and again while newcomers arrive, but
/// no longer than the rebalance timeout in all.
pub(super) struct InitialDelay {
    pub remaining_ms: u64,
    pub grew: bool,
}

pub(super) struct Group<T> {
    pub state: GroupState,
    /// Grows by one with each rebalance, and when the group empties.
    pub generation: i32,
    /// Kept while the group is empty, for those who look at it.
    pub protocol_type: String,
    /// Set from the first generation on, while there are members.
    pub protocol: Option<String>,
    pub leader: Option<String>,
    /// By member id. Ordered, so that the same history always takes the same course.
    pub members: BTreeMap<String, Member<T>>,
    /// Group instance id → member id.
    pub static_members: HashMap<String, String>,
    /// Ids given out to newcomers that have not joined with them yet → when they lapse.
    pub pending: BTreeMap<String, u64>,
    /// Set exactly while preparing a rebalance.
    pub join_window: Option<JoinWindow>,
    /// Members of this generation that have not asked for their assignment.
    pub unsynced: BTreeSet<String>,
    /// When the unsynced members are given up; set while there are any.
    pub sync_deadline: Option<u64>,
    /// When the coordinator forgets the group; looked at only while it is empty.
    pub forget_at: u64,
}

impl<T> Group<T> {
    pub fn new(forget_at: u64) -> Self {
        Group {
            state: GroupState::Empty,
            generation: 0,
            protocol_type: String::new(),
            protocol: None,
            leader: None,
            members: BTreeMap::new(),
            static_members: HashMap::new(),
            pending: BTreeMap::new(),
            join_window: None,
            unsynced: BTreeSet::new(),
            sync_deadline: None,
            forget_at,
        }
    }

    pub fn is_leader(&self, member_id: &str) -> bool {
        self.leader.as_deref() == Some(member_id)
    }

    /// The longest time that any member asks for, in milliseconds.
    pub fn rebalance_timeout_ms(&self) -> u64 {
        let timeouts = self.members.values().map(|m| m.rebalance_timeout_ms);
        timeouts.max().unwrap_or(0)
    }

    /// Finds the member that a request claims to come from.
    ///
    /// # Errors
    /// `FencedInstanceId` where another member took over the instance id, `UnknownMemberId`
    /// where there is no such member.
    pub fn identify(&self, member_id: &str, instance_id: Option<&str>) -> Result<(), GroupError> {
        if let Some(instance_id) = instance_id {
            match self.static_members.get(instance_id) {
                None => return Err(GroupError::UnknownMemberId),
                Some(current) if current != member_id => return Err(GroupError::FencedInstanceId),
                Some(_) => {}
            }
        }
        if self.members.contains_key(member_id) {
            Ok(())
        } else {
            Err(GroupError::UnknownMemberId)
        }
    }

    /// As [`Group::identify`], and the generation must be the present one.
    ///
    /// # Errors
    /// Those of `identify`, and `IllegalGeneration`.
    pub fn identify_in_generation(
        &self,
        member_id: &str,
        instance_id: Option<&str>,
        generation: i32,
    ) -> Result<(), GroupError> {
        self.identify(member_id, instance_id)?;
        if generation == self.generation {
            Ok(())
        } else {
            Err(GroupError::IllegalGeneration)
        }
    }

    pub fn heard_of(&mut self, member_id: &str, now: u64) {
        if let Some(member) = self.members.get_mut(member_id) {
            member.heard_of(now);
        }
    }

    /// The first instant at which time alone changes something.
    pub fn next_deadline(&self) -> Option<u64> {
        let sessions = self.members.values().map(|m| m.session_deadline);
        let is_deserted = self.state == GroupState::Empty && self.pending.is_empty();
        let forgotten = is_deserted.then_some(self.forget_at);
        sessions
            .chain(self.pending.values().copied())
            .chain(self.join_window.as_ref().map(|w| w.deadline))
            .chain(self.sync_deadline)
            .chain(forgotten)
            .min()
    }
}
