//! Random histories of clients that behave as clients do, in any order.

use std::collections::{BTreeMap, HashSet};

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Step {
    /// Client `n` sends a join, whatever it believes of itself.
    Join(usize),
    /// Client `n` syncs, if it believes to be in a generation.
    Sync(usize),
    Heartbeat(usize),
    Leave(usize),
    /// Client `n` restarts and forgets its member id.
    Restart(usize),
    Advance(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let client = 0_usize..6;
    let step = prop_oneof![
        6 => client.clone().prop_map(Step::Join),
        6 => client.clone().prop_map(Step::Sync),
        2 => client.clone().prop_map(Step::Heartbeat),
        1 => client.clone().prop_map(Step::Leave),
        1 => client.prop_map(Step::Restart),
        2 => (0_u64..SESSION_MS * 2).prop_map(Step::Advance),
    ];
    prop::collection::vec(step, 1..200)
}

#[derive(Default)]
struct Client {
    member_id: String,
    joined: Option<Joined>,
}

struct World {
    lab: Lab,
    clients: Vec<Client>,
    /// Ticket → the client that waits.
    waiting: BTreeMap<u32, usize>,
    answered: HashSet<u32>,
    generation: i32,
}

impl World {
    fn new(initial_rebalance_delay_ms: u64) -> Self {
        let limits = GroupLimits {
            initial_rebalance_delay_ms,
            ..GroupLimits::default()
        };
        World {
            lab: Lab::with_limits(limits),
            clients: (0..6).map(|_| Client::default()).collect(),
            waiting: BTreeMap::new(),
            answered: HashSet::new(),
            generation: 0,
        }
    }

    /// Clients 0 and 1 are static; odd ones first ask for an id.
    fn instance_id(client: usize) -> Option<String> {
        (client < 2).then(|| format!("i{client}"))
    }

    fn take(&mut self, step: &Step) {
        let out = match *step {
            Step::Join(n) => {
                let request = JoinRequest {
                    member_id: self.clients[n].member_id.clone(),
                    instance_id: Self::instance_id(n),
                    requires_known_member_id: n % 2 == 1,
                    session_timeout_ms: SESSION_MS + n as u64,
                    ..newcomer("c")
                };
                let (ticket, out) = self.lab.join(request);
                self.waiting.insert(ticket, n);
                out
            }
            Step::Sync(n) => {
                let Some(joined) = self.clients[n].joined.clone() else {
                    return;
                };
                let ids: Vec<&str> = joined.members.iter().map(|m| &*m.member_id).collect();
                let request = SyncRequest {
                    instance_id: Self::instance_id(n),
                    ..sync_of(&joined, &ids)
                };
                let (ticket, out) = self.lab.sync(request);
                self.waiting.insert(ticket, n);
                out
            }
            Step::Heartbeat(n) => {
                if let Some(joined) = self.clients[n].joined.clone() {
                    let instance_id = Self::instance_id(n);
                    let _ = self.lab.heartbeat_as(
                        &joined.member_id,
                        instance_id.as_deref(),
                        joined.generation,
                    );
                }
                Vec::new()
            }
            Step::Leave(n) => {
                let client = std::mem::take(&mut self.clients[n]);
                let instance_id = Self::instance_id(n);
                self.lab
                    .leave_as(&client.member_id, instance_id.as_deref())
                    .1
            }
            Step::Restart(n) => {
                self.clients[n] = Client::default();
                Vec::new()
            }
            Step::Advance(ms) => self.lab.advance(ms),
        };
        for delivery in out {
            self.deliver(delivery);
        }
        self.check();
    }

    fn deliver(&mut self, delivery: Delivery<u32>) {
        assert!(
            self.answered.insert(delivery.to),
            "a ticket is answered once"
        );
        let n = self.waiting.remove(&delivery.to).expect("a known ticket");
        let client = &mut self.clients[n];
        match delivery.reply {
            Reply::Join(Ok(joined)) => {
                let leads = joined.leader == joined.member_id;
                assert_eq!(
                    leads,
                    !joined.members.is_empty(),
                    "only the leader sees all"
                );
                client.member_id = joined.member_id.clone();
                client.joined = Some(joined);
            }
            Reply::Join(Err(refusal)) => match refusal.error {
                GroupError::MemberIdRequired => client.member_id = refusal.member_id,
                GroupError::RebalanceInProgress => {}
                _ => *client = Client::default(),
            },
            Reply::Sync(Ok(_)) => {}
            Reply::Sync(Err(GroupError::UnknownMemberId)) => *client = Client::default(),
            Reply::Sync(Err(_)) => {}
        }
    }

    fn check(&mut self) {
        let Some(group) = self.lab.coordinator.group(GROUP) else {
            return;
        };
        assert!(group.generation >= self.generation, "generations only grow");
        self.generation = group.generation;
        let joining: usize = group
            .members
            .values()
            .filter(|m| m.joining.is_some())
            .count();
        let syncing: usize = group
            .members
            .values()
            .filter(|m| m.syncing.is_some())
            .count();
        assert_eq!(joining + syncing, self.waiting.len(), "no ticket is lost");
        for (instance_id, member_id) in &group.static_members {
            let member = group.members.get(member_id).expect("is a member");
            assert_eq!(member.instance_id.as_ref(), Some(instance_id));
        }
        assert_eq!(
            group.state == GroupState::PreparingRebalance,
            group.join_window.is_some()
        );
        if !group.unsynced.is_empty() {
            assert!(group.sync_deadline.is_some());
        }
        match group.state {
            GroupState::Empty => {
                assert!(group.members.is_empty() && group.leader.is_none());
            }
            GroupState::PreparingRebalance => assert_eq!(syncing, 0),
            GroupState::CompletingRebalance | GroupState::Stable => {
                assert_eq!(joining, 0);
                let leader = group.leader.as_ref().expect("a leader");
                assert!(group.members.contains_key(leader), "the leader is a member");
                let protocol = group.protocol.as_ref().expect("a protocol");
                assert!(group.members.values().all(|m| m.supports(protocol)));
            }
            GroupState::Dead => panic!("a dead group is not kept"),
        }
        if group.state == GroupState::Stable {
            assert_eq!(syncing, 0);
            for member in group.members.values() {
                assert!(
                    !member.assignment.is_empty(),
                    "every member has its assignment"
                );
            }
        }
        let deadline = group
            .next_deadline()
            .expect("a group always has a deadline");
        let scheduled = self.lab.coordinator.next_deadline().expect("scheduled");
        assert!(scheduled <= deadline, "the table never misses a deadline");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn any_history_keeps_the_invariants(steps in steps(), delay in prop_oneof![Just(0_u64), Just(500)]) {
        let mut world = World::new(delay);
        for step in &steps {
            world.take(step);
        }
        // When all falls silent, everything that waits is answered and the group is forgotten.
        world.take(&Step::Advance(48 * 3_600_000));
        prop_assert!(world.waiting.is_empty());
        prop_assert!(world.lab.coordinator.next_deadline().is_none());
    }
}
