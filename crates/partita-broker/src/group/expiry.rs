//! What time alone does to a group.

use super::coordinator::GroupLimits;
use super::messages::Delivery;
use super::state::{Group, GroupState};

impl<T> Group<T> {
    /// Does all that is due at `now`. Says whether the group is to be forgotten.
    pub fn expire(&mut self, now: u64, limits: &GroupLimits, out: &mut Vec<Delivery<T>>) -> bool {
        self.expire_members(now, limits, out);
        self.expire_unsynced(now, limits, out);
        if self.join_window.as_ref().is_some_and(|w| w.deadline <= now) {
            self.join_window_closed(now, limits, out);
        }
        self.state == GroupState::Empty && self.forget_at <= now && self.pending.is_empty()
    }

    /// Gives up members whose session has ended and ids that nobody came back with. Only a
    /// removal that changes who is waited for moves the rebalance.
    fn expire_members(&mut self, now: u64, limits: &GroupLimits, out: &mut Vec<Delivery<T>>) {
        let mut due: Vec<String> = Vec::new();
        for (member_id, member) in &mut self.members {
            if member.session_deadline > now {
                continue;
            }
            if member.is_waiting() && !member.is_new {
                member.heard_of(now);
            } else {
                due.push(member_id.clone());
            }
        }
        let members_go = !due.is_empty();
        let lapsed = self.pending.iter().filter(|(_, lapses)| **lapses <= now);
        due.extend(lapsed.map(|(id, _)| id.clone()));
        for member_id in &due {
            self.remove_member(member_id, out);
        }
        if members_go {
            self.after_removal(now, limits, out);
        } else if !due.is_empty() {
            self.complete_if_all_joined(now, limits, out);
        }
    }

    /// Gives up members that joined the generation but never asked for their assignment: left
    /// alone, their share would be nobody's.
    fn expire_unsynced(&mut self, now: u64, limits: &GroupLimits, out: &mut Vec<Delivery<T>>) {
        if self.sync_deadline.is_none_or(|deadline| deadline > now) {
            return;
        }
        self.sync_deadline = None;
        let due = std::mem::take(&mut self.unsynced);
        for member_id in &due {
            self.remove_member(member_id, out);
        }
        if !due.is_empty() {
            self.after_removal(now, limits, out);
        }
    }
}
