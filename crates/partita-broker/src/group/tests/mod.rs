//! The coordinator in virtual time.

mod commits;
mod lifecycle;
mod properties;
mod rebalances;
mod static_members;

use bytes::Bytes;

use super::{
    Coordinator, Delivery, GroupError, GroupLimits, GroupState, HeartbeatRequest, JoinRefusal,
    JoinRequest, Joined, LeavingMember, Protocol, Reply, SyncRequest, Synced,
};

const GROUP: &str = "g";
const SESSION_MS: u64 = 10_000;
const REBALANCE_MS: u64 = 60_000;

/// A coordinator, a clock, and a counter for tickets.
struct Lab {
    coordinator: Coordinator<u32>,
    now: u64,
    tickets: u32,
}

impl Lab {
    fn new() -> Self {
        Lab::with_limits(GroupLimits::default())
    }

    fn with_limits(limits: GroupLimits) -> Self {
        Lab {
            coordinator: Coordinator::new(limits),
            now: 1_000,
            tickets: 0,
        }
    }

    fn ticket(&mut self) -> u32 {
        self.tickets += 1;
        self.tickets
    }

    /// Joins; gives the ticket and everything that this call answers.
    fn join(&mut self, request: JoinRequest) -> (u32, Vec<Delivery<u32>>) {
        let ticket = self.ticket();
        let out = self.coordinator.join(request, ticket, self.now);
        (ticket, out)
    }

    fn sync(&mut self, request: SyncRequest) -> (u32, Vec<Delivery<u32>>) {
        let ticket = self.ticket();
        let out = self.coordinator.sync(request, ticket, self.now);
        (ticket, out)
    }

    /// Joins where the answer must come at once.
    fn join_now(&mut self, request: JoinRequest) -> Result<Joined, JoinRefusal> {
        let (ticket, out) = self.join(request);
        join_answer(ticket, &out).expect("an answer at once")
    }

    fn sync_now(&mut self, request: SyncRequest) -> Result<Synced, GroupError> {
        let (ticket, out) = self.sync(request);
        sync_answer(ticket, &out).expect("an answer at once")
    }

    fn heartbeat(&mut self, joined: &Joined) -> Result<(), GroupError> {
        self.heartbeat_as(&joined.member_id, None, joined.generation)
    }

    fn heartbeat_as(
        &mut self,
        member_id: &str,
        instance_id: Option<&str>,
        generation: i32,
    ) -> Result<(), GroupError> {
        let request = HeartbeatRequest {
            group_id: GROUP.to_owned(),
            generation,
            member_id: member_id.to_owned(),
            instance_id: instance_id.map(str::to_owned),
        };
        self.coordinator.heartbeat(&request, self.now)
    }

    fn leave(&mut self, member_id: &str) -> (Result<(), GroupError>, Vec<Delivery<u32>>) {
        self.leave_as(member_id, None)
    }

    fn leave_as(
        &mut self,
        member_id: &str,
        instance_id: Option<&str>,
    ) -> (Result<(), GroupError>, Vec<Delivery<u32>>) {
        let member = LeavingMember {
            member_id: member_id.to_owned(),
            instance_id: instance_id.map(str::to_owned),
        };
        let (outcomes, out) = self.coordinator.leave(GROUP, vec![member], self.now);
        (outcomes[0].result, out)
    }

    /// Moves the clock, stopping at every deadline on the way.
    fn advance(&mut self, ms: u64) -> Vec<Delivery<u32>> {
        let end = self.now + ms;
        let mut out = Vec::new();
        let mut stops = 0;
        while let Some(deadline) = self.coordinator.next_deadline().filter(|d| *d <= end) {
            self.now = self.now.max(deadline);
            out.extend(self.coordinator.expire(self.now));
            stops += 1;
            assert!(stops < 10_000, "time stands still at {}", self.now);
        }
        self.now = end;
        out
    }

    fn state(&self) -> GroupState {
        match self.coordinator.describe(GROUP) {
            Some(description) => description.state,
            None => GroupState::Dead,
        }
    }

    fn generation(&self) -> i32 {
        let group = self.coordinator.group(GROUP);
        group.expect("the group exists").generation
    }

    /// A stable group of dynamic members; the first one leads.
    fn stable(&mut self, names: &[&str]) -> Vec<Joined> {
        let first = self.join_now(newcomer(names[0])).expect("joins");
        self.sync_now(sync_of(&first, &[])).expect("syncs");
        let mut ids = vec![first.member_id];
        for name in &names[1..] {
            let (_, out) = self.join(newcomer(name));
            assert!(out.is_empty(), "a newcomer waits for the others");
            let mut answers = Vec::new();
            for id in &ids {
                answers.extend(self.join(member(id)).1);
            }
            ids = answers.iter().map(|d| joined(d).member_id).collect();
            ids.sort();
            self.sync_all(&answers.iter().map(joined).collect::<Vec<_>>());
        }
        ids.iter().map(|id| self.present(id)).collect()
    }

    /// All members sync, the leader last, each with its own id as its assignment.
    fn sync_all(&mut self, members: &[Joined]) {
        let ids: Vec<&str> = members.iter().map(|m| m.member_id.as_str()).collect();
        let (leaders, followers): (Vec<_>, Vec<_>) =
            members.iter().partition(|m| m.leader == m.member_id);
        let mut tickets = Vec::new();
        for follower in followers {
            let (ticket, out) = self.sync(sync_of(follower, &[]));
            assert!(out.is_empty(), "a follower waits for its leader");
            tickets.push((ticket, follower.member_id.clone()));
        }
        assert_eq!(leaders.len(), 1, "one leader");
        let (ticket, out) = self.sync(sync_of(leaders[0], &ids));
        tickets.push((ticket, leaders[0].member_id.clone()));
        for (ticket, id) in tickets {
            let synced = sync_answer(ticket, &out).expect("answered").expect("syncs");
            assert_eq!(synced.assignment, Bytes::from(id));
        }
        assert_eq!(self.state(), GroupState::Stable);
    }

    /// What a member of the present generation would have been told.
    fn present(&self, member_id: &str) -> Joined {
        let group = self.coordinator.group(GROUP).expect("the group exists");
        group.joined(member_id, false)
    }
}

fn newcomer(client_id: &str) -> JoinRequest {
    use std::sync::atomic::{AtomicU32, Ordering};
    static UNIQUE: AtomicU32 = AtomicU32::new(0);
    JoinRequest {
        group_id: GROUP.to_owned(),
        member_id: String::new(),
        instance_id: None,
        client_id: client_id.to_owned(),
        client_host: "/127.0.0.1".to_owned(),
        session_timeout_ms: SESSION_MS,
        rebalance_timeout_ms: REBALANCE_MS,
        protocol_type: "consumer".to_owned(),
        protocols: vec![protocol("range", &["t"])],
        requires_known_member_id: false,
        supports_skipping_assignment: true,
        unique: format!("{:06}", UNIQUE.fetch_add(1, Ordering::Relaxed)),
    }
}

/// A member that joins again.
fn member(member_id: &str) -> JoinRequest {
    JoinRequest {
        member_id: member_id.to_owned(),
        ..newcomer("again")
    }
}

fn static_newcomer(instance_id: &str) -> JoinRequest {
    JoinRequest {
        instance_id: Some(instance_id.to_owned()),
        ..newcomer("static")
    }
}

/// A protocol whose metadata is a consumer's subscription.
fn protocol(name: &str, topics: &[&str]) -> Protocol {
    let mut metadata = vec![0, 0];
    metadata.extend((topics.len() as i32).to_be_bytes());
    for topic in topics {
        metadata.extend((topic.len() as i16).to_be_bytes());
        metadata.extend(topic.as_bytes());
    }
    Protocol {
        name: name.to_owned(),
        metadata: metadata.into(),
    }
}

/// A sync of this member that assigns to each of `members` its own id.
fn sync_of(joined: &Joined, members: &[&str]) -> SyncRequest {
    let assignments = members
        .iter()
        .map(|id| (id.to_string(), Bytes::from(id.to_string())));
    SyncRequest {
        group_id: GROUP.to_owned(),
        generation: joined.generation,
        member_id: joined.member_id.clone(),
        instance_id: None,
        protocol_type: Some(joined.protocol_type.clone()),
        protocol: Some(joined.protocol.clone()),
        assignments: assignments.collect(),
    }
}

fn join_answer(ticket: u32, out: &[Delivery<u32>]) -> Option<Result<Joined, JoinRefusal>> {
    out.iter().find(|d| d.to == ticket).map(|d| match &d.reply {
        Reply::Join(answer) => answer.clone(),
        Reply::Sync(_) => panic!("a join is answered as a join"),
    })
}

fn sync_answer(ticket: u32, out: &[Delivery<u32>]) -> Option<Result<Synced, GroupError>> {
    out.iter().find(|d| d.to == ticket).map(|d| match &d.reply {
        Reply::Sync(answer) => answer.clone(),
        Reply::Join(_) => panic!("a sync is answered as a sync"),
    })
}

fn joined(delivery: &Delivery<u32>) -> Joined {
    match &delivery.reply {
        Reply::Join(Ok(joined)) => joined.clone(),
        other => panic!("not a successful join: {other:?}"),
    }
}
