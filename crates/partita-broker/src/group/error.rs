//! Why the coordinator refuses a request.

use thiserror::Error;

/// A refusal, with the error code that the Kafka protocol has for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Error)]
pub enum GroupError {
    #[error("the coordinator keeps as many groups as it may; raise the limit or delete groups")]
    TooManyGroups,
    #[error("the group's membership has moved on to another generation")]
    IllegalGeneration,
    #[error("no protocol is common to all members, or the protocol type differs from the group's")]
    InconsistentGroupProtocol,
    #[error("the group id is empty or too long")]
    InvalidGroupId,
    #[error("the member is not part of the group")]
    UnknownMemberId,
    #[error("the session timeout is outside the range that the broker allows")]
    InvalidSessionTimeout,
    #[error("the group is rebalancing; the member should join again")]
    RebalanceInProgress,
    #[error("the member's metadata or assignment is larger than the broker allows")]
    TooLarge,
    #[error("the group still has members")]
    NonEmptyGroup,
    #[error("the group does not exist")]
    GroupIdNotFound,
    #[error("the member must join again with the member id it was given")]
    MemberIdRequired,
    #[error("the group has as many members as it may")]
    GroupMaxSizeReached,
    #[error("another member has taken over this group instance id")]
    FencedInstanceId,
}

impl GroupError {
    /// The protocol's error code.
    pub fn code(self) -> i16 {
        match self {
            GroupError::TooManyGroups => 15,
            GroupError::IllegalGeneration => 22,
            GroupError::InconsistentGroupProtocol => 23,
            GroupError::InvalidGroupId => 24,
            GroupError::UnknownMemberId => 25,
            GroupError::InvalidSessionTimeout => 26,
            GroupError::RebalanceInProgress => 27,
            GroupError::TooLarge => 42,
            GroupError::NonEmptyGroup => 68,
            GroupError::GroupIdNotFound => 69,
            GroupError::MemberIdRequired => 79,
            GroupError::GroupMaxSizeReached => 81,
            GroupError::FencedInstanceId => 82,
        }
    }
}
