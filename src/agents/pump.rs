//! Hands the tasks of one agent to those who poll for them over HTTP, each under a lease: an agent
//! that is not heard of any more loses the task to the next one, under the same task id.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::feed::{Delivery, Done, Sink};
use crate::clock::{Clock, SystemClock};
use crate::model::CancelTask;

/// A task as a poller gets it.
#[derive(Clone, Debug)]
pub struct HandedOut {
    pub delivery: Arc<Delivery>,
    /// How often it was handed out before.
    pub handed_out_before: u32,
    pub lease: Duration,
}

/// What an instance knew of a task that was answered or renewed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    Here,
    /// Handed out by another instance, or read from Kafka by the agent itself.
    Elsewhere,
}

struct Entry {
    delivery: Arc<Delivery>,
    handed_out: u32,
}

struct Lease {
    entry: Entry,
    until: Instant,
}

#[derive(Default)]
struct State {
    /// Waiting for a poller, oldest first.
    ready: VecDeque<Entry>,
    /// With an agent, by task id.
    leased: HashMap<String, Lease>,
    /// Task ids in `ready`, so that a second delivery of a task is told.
    waiting: HashSet<String>,
    pollers: usize,
    /// When the last poller left.
    idle_since: Option<Instant>,
    closed: bool,
}

/// See the module.
pub struct Pump {
    state: Mutex<State>,
    arrived: Notify,
    done: Done,
    lease: Duration,
    /// A pump that nobody polls and that has nothing out is closed after this long.
    close_after: Duration,
}

/// Counts a poller for as long as it waits.
pub struct Poller<'a>(&'a Pump);

impl Drop for Poller<'_> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.pollers -= 1;
        state.idle_since = Some(Instant::now());
    }
}

impl Pump {
    pub fn new(done: Done, lease: Duration, close_after: Duration) -> Self {
        let state = State {
            idle_since: Some(Instant::now()),
            ..State::default()
        };
        Self {
            state: Mutex::new(state),
            arrived: Notify::new(),
            done,
            lease,
            close_after,
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Announces a poller; `None` where the pump has closed meanwhile.
    pub fn enter(&self) -> Option<Poller<'_>> {
        let mut state = self.lock();
        if state.closed {
            return None;
        }
        state.pollers += 1;
        Some(Poller(self))
    }

    /// Whether nobody polled for so long that it closed; it never opens again.
    pub fn closed(&self) -> bool {
        self.lock().closed
    }

    /// Leases up to `max` tasks that wait now.
    pub fn take(&self, max: usize) -> Vec<HandedOut> {
        let mut state = self.lock();
        let now = Instant::now();
        let mut taken = Vec::new();
        while taken.len() < max {
            let Some(mut entry) = state.ready.pop_front() else {
                break;
            };
            let id = entry.delivery.task.task_id.clone();
            state.waiting.remove(&id);
            if is_over(&entry.delivery) {
                self.done_with(&entry);
                continue;
            }
            let delivery = Arc::clone(&entry.delivery);
            taken.push(HandedOut {
                delivery,
                handed_out_before: entry.handed_out,
                lease: self.lease,
            });
            entry.handed_out += 1;
            state.leased.insert(
                id,
                Lease {
                    entry,
                    until: now + self.lease,
                },
            );
        }
        // Arrivals are told one waiting poller each, and one arrival at most is remembered: who
        // leaves something behind wakes the next.
        if !state.ready.is_empty() {
            self.arrived.notify_one();
        }
        taken
    }

    /// Waits until a task may be there, or until `deadline`.
    pub async fn arrival(&self, deadline: tokio::time::Instant) -> bool {
        tokio::time::timeout_at(deadline, self.arrived.notified())
            .await
            .is_ok()
    }

    /// The task was answered, or is not open any more.
    pub fn settle(&self, task_id: &str) -> Held {
        let mut state = self.lock();
        if let Some(lease) = state.leased.remove(task_id) {
            self.done_with(&lease.entry);
            return Held::Here;
        }
        if state.waiting.remove(task_id)
            && let Some(place) = state
                .ready
                .iter()
                .position(|entry| entry.delivery.task.task_id == task_id)
            && let Some(entry) = state.ready.remove(place)
        {
            self.done_with(&entry);
            return Held::Here;
        }
        Held::Elsewhere
    }

    /// The agent was heard of: its lease begins anew.
    pub fn renew(&self, task_id: &str) -> Held {
        match self.lock().leased.get_mut(task_id) {
            Some(lease) => {
                lease.until = Instant::now() + self.lease;
                Held::Here
            }
            None => Held::Elsewhere,
        }
    }

    fn done_with(&self, entry: &Entry) {
        self.done
            .done(entry.delivery.partition, entry.delivery.offset);
    }
}

/// Its attempt has timed out: whatever an agent would do with it comes too late.
fn is_over(delivery: &Delivery) -> bool {
    delivery
        .task
        .deadline
        .is_some_and(|deadline| deadline <= SystemClock.now())
}

impl Sink for Pump {
    fn task(&self, delivery: Delivery) {
        let mut state = self.lock();
        let id = delivery.task.task_id.clone();
        let delivery = Arc::new(delivery);
        // Read a second time (the partition was away, or the record is there twice): the later
        // record stands for both.
        let known = if let Some(lease) = state.leased.get_mut(&id) {
            Some(&mut lease.entry)
        } else if state.waiting.contains(&id) {
            state
                .ready
                .iter_mut()
                .find(|entry| entry.delivery.task.task_id == id)
        } else {
            None
        };
        if let Some(entry) = known {
            let same = entry.delivery.partition == delivery.partition
                && entry.delivery.offset == delivery.offset;
            if !same {
                self.done
                    .done(entry.delivery.partition, entry.delivery.offset);
            }
            entry.delivery = delivery;
            return;
        }
        state.waiting.insert(id);
        state.ready.push_back(Entry {
            delivery,
            handed_out: 0,
        });
        drop(state);
        self.arrived.notify_one();
    }

    fn cancel(&self, cancel: &CancelTask) {
        self.settle(&cancel.task_id);
    }

    fn revoked(&self, partition: i32) {
        let mut state = self.lock();
        let State { ready, waiting, .. } = &mut *state;
        // What is out with an agent stays leased, so that its answer is known here; what waits is
        // the new owner's to hand out.
        ready.retain(|entry| {
            let stays = entry.delivery.partition != partition;
            if !stays {
                waiting.remove(&entry.delivery.task.task_id);
            }
            stays
        });
    }

    fn tick(&self, now: Instant) -> bool {
        let mut state = self.lock();
        let expired: Vec<String> = state
            .leased
            .iter()
            .filter(|(_, lease)| lease.until <= now)
            .map(|(id, _)| id.clone())
            .collect();
        let again = expired.len();
        for id in expired {
            if let Some(lease) = state.leased.remove(&id) {
                state.waiting.insert(id);
                state.ready.push_front(lease.entry);
            }
        }
        let idle = state.pollers == 0
            && state.leased.is_empty()
            && state
                .idle_since
                .is_some_and(|since| now.duration_since(since) >= self.close_after);
        state.closed |= idle;
        drop(state);
        for _ in 0..again {
            self.arrived.notify_one();
        }
        !idle
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agents::feed::delivery;

    #[tokio::test]
    async fn who_leaves_a_task_behind_wakes_the_next_poller() {
        let pump = Pump::new(
            Done::detached(),
            Duration::from_secs(30),
            Duration::from_secs(15),
        );
        let soon = || tokio::time::Instant::now() + Duration::from_millis(50);
        // Both arrive while nobody waits yet, so that only one of them is remembered.
        pump.task(delivery("r.a.0.1", 0));
        pump.task(delivery("r.b.0.1", 1));
        assert!(pump.arrival(soon()).await);
        assert_eq!(pump.take(1).len(), 1);
        assert!(pump.arrival(soon()).await, "the second waits in vain");
        assert_eq!(pump.take(1).len(), 1);
        assert!(!pump.arrival(soon()).await);
    }
}
