//! Who may commit offsets for a group.

use super::GroupError;
use super::state::{Group, GroupState};

/// How the committer presents itself.
#[derive(Debug, Clone, Copy)]
pub struct CommitClaim<'a> {
    /// Negative for a committer that is no member.
    pub generation: i32,
    /// Empty for a committer that is no member.
    pub member_id: &'a str,
    pub instance_id: Option<&'a str>,
    /// The offsets are part of a producer's transaction.
    pub is_transactional: bool,
}

impl CommitClaim<'_> {
    fn is_anonymous(&self) -> bool {
        self.generation < 0 && self.member_id.is_empty() && self.instance_id.is_none()
    }

    /// The verdict on a commit to a group that has no members here.
    ///
    /// # Errors
    /// `UnknownMemberId` for a claim of membership: the committer belonged to a group that is
    /// gone, and must join anew.
    pub(super) fn check_without_members(&self) -> Result<(), GroupError> {
        if self.generation < 0 {
            Ok(())
        } else {
            Err(GroupError::UnknownMemberId)
        }
    }
}

impl<T> Group<T> {
    /// # Errors
    /// `UnknownMemberId`, `FencedInstanceId`, `IllegalGeneration`; `RebalanceInProgress` where
    /// the member has joined a new generation but not taken its assignment, since what it
    /// commits may by then be another's.
    pub fn check_commit(&mut self, claim: CommitClaim<'_>, now: u64) -> Result<(), GroupError> {
        if self.state == GroupState::Empty {
            return claim.check_without_members();
        }
        // A transaction's fence is its producer's epoch; older clients send nothing else.
        if claim.is_transactional && claim.is_anonymous() {
            return Ok(());
        }
        self.identify_in_generation(claim.member_id, claim.instance_id, claim.generation)?;
        if claim.is_transactional {
            return Ok(());
        }
        if self.state == GroupState::CompletingRebalance {
            return Err(GroupError::RebalanceInProgress);
        }
        self.heard_of(claim.member_id, now);
        Ok(())
    }
}
