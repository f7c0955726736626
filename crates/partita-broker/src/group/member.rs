//! One member of a group.

use bytes::Bytes;

use super::messages::{Delivery, JoinRefusal, JoinRequest, Protocol, Reply};
use super::{GroupError, Joined, Synced, subscription};

/// How long a newcomer's first join may wait, in milliseconds. A client that gave up on a slow
/// rebalance and came back as another newcomer must not leave its former self for ever.
const FIRST_JOIN_TIMEOUT_MS: u64 = 5 * 60 * 1000;

pub(super) struct Member<T> {
    pub instance_id: Option<String>,
    pub client_id: String,
    pub client_host: String,
    pub session_timeout_ms: u64,
    pub rebalance_timeout_ms: u64,
    pub protocols: Vec<Protocol>,
    pub assignment: Bytes,
    /// When the member is given up unless it is heard of.
    pub session_deadline: u64,
    /// Has not been part of a generation yet.
    pub is_new: bool,
    /// The ticket of a join that waits for the rebalance to complete.
    pub joining: Option<T>,
    /// The ticket of a sync that waits for the leader.
    pub syncing: Option<T>,
}

impl<T> Member<T> {
    pub fn new(request: &JoinRequest, to: T, now: u64) -> Self {
        Member {
            instance_id: request.instance_id.clone(),
            client_id: request.client_id.clone(),
            client_host: request.client_host.clone(),
            session_timeout_ms: request.session_timeout_ms,
            rebalance_timeout_ms: request.rebalance_timeout_ms,
            protocols: request.protocols.clone(),
            assignment: Bytes::new(),
            session_deadline: now + FIRST_JOIN_TIMEOUT_MS,
            is_new: true,
            joining: Some(to),
            syncing: None,
        }
    }

    /// Takes over what the client says of itself on every join.
    pub fn update(&mut self, request: &JoinRequest) {
        self.client_id = request.client_id.clone();
        self.client_host = request.client_host.clone();
        self.session_timeout_ms = request.session_timeout_ms;
        self.rebalance_timeout_ms = request.rebalance_timeout_ms;
        self.protocols = request.protocols.clone();
    }

    pub fn heard_of(&mut self, now: u64) {
        self.session_deadline = now
            + if self.is_new {
                FIRST_JOIN_TIMEOUT_MS
            } else {
                self.session_timeout_ms
            };
    }

    /// The topics subscribed to under `protocol`, where its metadata is a consumer's.
    pub fn topics(&self, protocol: &str) -> Option<Vec<String>> {
        subscription::topics(self.metadata(protocol))
    }

    /// Waits for the coordinator, hence cannot be expected to send heartbeats.
    pub fn is_waiting(&self) -> bool {
        self.joining.is_some() || self.syncing.is_some()
    }

    pub fn supports(&self, protocol: &str) -> bool {
        self.protocols.iter().any(|p| p.name == protocol)
    }

    /// The subscription in the form of `protocol`; empty where the member lacks it.
    pub fn metadata(&self, protocol: &str) -> Bytes {
        self.protocols
            .iter()
            .find(|p| p.name == protocol)
            .map(|p| p.metadata.clone())
            .unwrap_or_default()
    }

    pub fn answer_join(&mut self, joined: Joined, out: &mut Vec<Delivery<T>>) {
        if let Some(to) = self.joining.take() {
            let reply = Reply::Join(Ok(joined));
            out.push(Delivery { to, reply });
        }
    }

    pub fn answer_sync(&mut self, result: Result<Synced, GroupError>, out: &mut Vec<Delivery<T>>) {
        if let Some(to) = self.syncing.take() {
            let reply = Reply::Sync(result);
            out.push(Delivery { to, reply });
        }
    }

    /// Refuses whatever the member waits for.
    pub fn refuse(&mut self, member_id: &str, error: GroupError, out: &mut Vec<Delivery<T>>) {
        if let Some(to) = self.joining.take() {
            let member_id = member_id.to_owned();
            let reply = Reply::Join(Err(JoinRefusal { error, member_id }));
            out.push(Delivery { to, reply });
        }
        self.answer_sync(Err(error), out);
    }
}
