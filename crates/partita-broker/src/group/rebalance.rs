//! Rebalancing: from the first join to the next generation.

use bytes::Bytes;

use super::GroupError;
use super::coordinator::GroupLimits;
use super::messages::Delivery;
use super::state::{Group, GroupState, InitialDelay, JoinWindow};

impl<T> Group<T> {
    /// Starts a rebalance unless one is being prepared, and completes it if nobody is missing.
    pub fn rebalance(&mut self, now: u64, limits: &GroupLimits, out: &mut Vec<Delivery<T>>) {
        if self.state != GroupState::PreparingRebalance {
            self.prepare(now, limits, out);
        }
        self.complete_if_all_joined(now, limits, out);
    }

    fn prepare(&mut self, now: u64, limits: &GroupLimits, out: &mut Vec<Delivery<T>>) {
        if self.state == GroupState::CompletingRebalance {
            for member in self.members.values_mut() {
                member.assignment = Bytes::new();
                member.answer_sync(Err(GroupError::RebalanceInProgress), out);
            }
        }
        self.unsynced.clear();
        self.sync_deadline = None;
        let timeout_ms = self.rebalance_timeout_ms();
        let is_first = self.state == GroupState::Empty && limits.initial_rebalance_delay_ms > 0;
        self.join_window = Some(if is_first {
            let delay_ms = limits.initial_rebalance_delay_ms.min(timeout_ms);
            let remaining_ms = timeout_ms - delay_ms;
            JoinWindow {
                deadline: now + delay_ms,
                initial: Some(InitialDelay {
                    remaining_ms,
                    grew: false,
                }),
            }
        } else {
            JoinWindow {
                deadline: now + timeout_ms,
                initial: None,
            }
        });
        self.state = GroupState::PreparingRebalance;
    }

    /// Called whenever someone joined or went while a rebalance is being prepared.
    pub fn complete_if_all_joined(
        &mut self,
        now: u64,
        limits: &GroupLimits,
        out: &mut Vec<Delivery<T>>,
    ) {
        let waits_for_company = matches!(
            self.join_window,
            Some(JoinWindow {
                initial: Some(_),
                ..
            })
        );
        let is_complete = self.state == GroupState::PreparingRebalance
            && self.pending.is_empty()
            && self.members.values().all(|m| m.joining.is_some());
        if is_complete && (!waits_for_company || self.members.is_empty()) {
            self.complete(now, limits, out);
        }
    }

    /// The time for joining has passed.
    pub fn join_window_closed(
        &mut self,
        now: u64,
        limits: &GroupLimits,
        out: &mut Vec<Delivery<T>>,
    ) {
        if let Some(window) = &mut self.join_window
            && let Some(initial) = &mut window.initial
            && initial.grew
            && initial.remaining_ms > 0
        {
            let delay_ms = limits.initial_rebalance_delay_ms.min(initial.remaining_ms);
            initial.remaining_ms -= delay_ms;
            initial.grew = false;
            window.deadline = now + delay_ms;
            return;
        }
        self.complete(now, limits, out);
    }

    /// Begins the next generation with those who joined. Dynamic members that did not are
    /// removed; static ones stay until their session ends, for they are expected back.
    fn complete(&mut self, now: u64, limits: &GroupLimits, out: &mut Vec<Delivery<T>>) {
        self.members
            .retain(|_, member| member.joining.is_some() || member.instance_id.is_some());
        if self.members.is_empty() {
            return self.become_empty(now, limits);
        }
        if !self.elect_leader_among_joined() {
            // Only absent static members are left: wait for one to return or for all to expire.
            let deadline = now + self.rebalance_timeout_ms().max(1);
            self.join_window = Some(JoinWindow {
                deadline,
                initial: None,
            });
            return;
        }
        self.generation += 1;
        self.protocol = self.select_protocol();
        self.state = GroupState::CompletingRebalance;
        self.join_window = None;
        self.sync_deadline = Some(now + self.rebalance_timeout_ms());
        let joined: Vec<String> = self.joining_members().cloned().collect();
        for member_id in joined {
            let answer = self.joined(&member_id, self.is_leader(&member_id));
            if let Some(member) = self.members.get_mut(&member_id) {
                member.is_new = false;
                member.heard_of(now);
                member.answer_join(answer, out);
            }
            self.unsynced.insert(member_id);
        }
    }

    fn become_empty(&mut self, now: u64, limits: &GroupLimits) {
        self.generation += 1;
        self.state = GroupState::Empty;
        self.protocol = None;
        self.leader = None;
        self.join_window = None;
        self.forget_at = now + limits.empty_group_retention_ms;
    }

    fn joining_members(&self) -> impl Iterator<Item = &String> {
        let all = self.members.iter();
        all.filter(|(_, member)| member.joining.is_some())
            .map(|(id, _)| id)
    }

    /// Keeps the leader if it joined; says whether there is one in the end.
    fn elect_leader_among_joined(&mut self) -> bool {
        let current = self.leader.as_ref().and_then(|id| self.members.get(id));
        if current.is_some_and(|leader| leader.joining.is_some()) {
            return true;
        }
        let elected = self.joining_members().next().cloned();
        let is_elected = elected.is_some();
        if is_elected {
            self.leader = elected;
        }
        is_elected
    }

    /// Every member votes for the first protocol on its list that all support; the most votes
    /// win, and of equals the one that comes first on the leader's list.
    pub fn select_protocol(&self) -> Option<String> {
        let leader = self.leader.as_ref().and_then(|id| self.members.get(id))?;
        let is_common = |name: &str| self.members.values().all(|m| m.supports(name));
        let candidates: Vec<&str> = leader
            .protocols
            .iter()
            .map(|p| p.name.as_str())
            .filter(|name| is_common(name))
            .collect();
        let mut votes = vec![0_usize; candidates.len()];
        for member in self.members.values() {
            let mut preferences = member.protocols.iter();
            let vote = preferences.find_map(|p| candidates.iter().position(|c| *c == p.name));
            if let Some(index) = vote {
                votes[index] += 1;
            }
        }
        let most = votes.iter().copied().max()?;
        let winner = votes.iter().position(|count| *count == most)?;
        Some(candidates[winner].to_owned())
    }
}
