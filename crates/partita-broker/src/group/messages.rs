//! What callers ask of the coordinator and what they are told.

use bytes::Bytes;

use super::GroupError;

/// A request to become, or remain, a member.
#[derive(Debug, Clone)]
pub struct JoinRequest {
    pub group_id: String,
    /// Empty for a newcomer.
    pub member_id: String,
    /// Set for a static member.
    pub instance_id: Option<String>,
    pub client_id: String,
    pub client_host: String,
    /// How long the member may stay silent, in milliseconds.
    pub session_timeout_ms: u64,
    /// How long the member may take to join a rebalance, in milliseconds.
    pub rebalance_timeout_ms: u64,
    /// `consumer` for consumers, `connect` for Kafka Connect.
    pub protocol_type: String,
    /// In the member's order of preference.
    pub protocols: Vec<Protocol>,
    /// A newcomer is first given an id and must join again with it, so that a client that
    /// retries leaves no phantom members behind.
    pub requires_known_member_id: bool,
    /// The client can be told that it leads, but that the assignment stands as it is.
    pub supports_skipping_assignment: bool,
    /// A text that no other request ever carries; becomes part of the member id of a newcomer.
    pub unique: String,
}

/// One assignment strategy a member can follow, with its subscription in that strategy's form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Protocol {
    pub name: String,
    pub metadata: Bytes,
}

/// A member asks for its assignment; the leader brings everyone's.
#[derive(Debug, Clone)]
pub struct SyncRequest {
    pub group_id: String,
    pub generation: i32,
    pub member_id: String,
    pub instance_id: Option<String>,
    /// Checked where the client sends it.
    pub protocol_type: Option<String>,
    /// Checked where the client sends it.
    pub protocol: Option<String>,
    /// Member id and assignment; empty unless the sender leads.
    pub assignments: Vec<(String, Bytes)>,
}

/// A sign of life.
#[derive(Debug, Clone)]
pub struct HeartbeatRequest {
    pub group_id: String,
    pub generation: i32,
    pub member_id: String,
    pub instance_id: Option<String>,
}

/// One member of a leave request. An administrator removes a static member by its instance id
/// alone, with an empty member id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeavingMember {
    pub member_id: String,
    pub instance_id: Option<String>,
}

/// What became of one leaving member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeaveOutcome {
    pub member: LeavingMember,
    pub result: Result<(), GroupError>,
}

/// A parked request's answer, and the ticket of the one who waits for it.
#[derive(Debug)]
pub struct Delivery<T> {
    pub to: T,
    pub reply: Reply,
}

/// The answers that may come later than the call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    Join(Result<Joined, JoinRefusal>),
    Sync(Result<Synced, GroupError>),
}

/// The member belongs to a generation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Joined {
    pub generation: i32,
    pub protocol_type: String,
    pub protocol: String,
    pub leader: String,
    pub skip_assignment: bool,
    pub member_id: String,
    /// Everyone, for the leader; empty for others.
    pub members: Vec<JoinedMember>,
}

/// A member as its leader sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinedMember {
    pub member_id: String,
    pub instance_id: Option<String>,
    pub metadata: Bytes,
}

/// The member did not join; with [`GroupError::MemberIdRequired`], `member_id` is its new id.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinRefusal {
    pub error: GroupError,
    pub member_id: String,
}

/// The member's part of the assignment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Synced {
    pub protocol_type: String,
    pub protocol: String,
    pub assignment: Bytes,
}
