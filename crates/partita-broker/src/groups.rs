//! Consumer groups in time: the pure coordinator behind a lock, with a clock, and with requests that wait.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, oneshot, watch};

use crate::group::{
    CommitClaim, Coordinator, Delivery, GroupDescription, GroupError, GroupLimits, GroupListing,
    HeartbeatRequest, JoinRefusal, JoinRequest, Joined, LeaveOutcome, LeavingMember, Reply,
    SyncRequest, Synced,
};

type Ticket = oneshot::Sender<Reply>;

/// All groups of this broker. Its lock is taken before the store's where both are.
pub(crate) struct Groups {
    coordinator: Mutex<Coordinator<Ticket>>,
    /// Rung when the next deadline may have come nearer.
    nearer: Notify,
    started: Instant,
}

impl Groups {
    pub(crate) fn new(limits: GroupLimits) -> Groups {
        Groups {
            coordinator: Mutex::new(Coordinator::new(limits)),
            nearer: Notify::new(),
            started: Instant::now(),
        }
    }

    /// Resolves when the member belongs to a generation, or is refused.
    pub(crate) async fn join(&self, request: JoinRequest) -> Result<Joined, JoinRefusal> {
        let member_id = request.member_id.clone();
        let (ticket, reply) = oneshot::channel();
        self.act(|coordinator, now| ((), coordinator.join(request, ticket, now)));
        match reply.await {
            Ok(Reply::Join(answer)) => answer,
            // Tickets are lost only when the broker stops; the client will look for another.
            Ok(Reply::Sync(_)) | Err(_) => Err(JoinRefusal {
                error: GroupError::RebalanceInProgress,
                member_id,
            }),
        }
    }

    /// Resolves when the leader has brought the assignment, or the member is refused.
    pub(crate) async fn sync(&self, request: SyncRequest) -> Result<Synced, GroupError> {
        let (ticket, reply) = oneshot::channel();
        self.act(|coordinator, now| ((), coordinator.sync(request, ticket, now)));
        match reply.await {
            Ok(Reply::Sync(answer)) => answer,
            Ok(Reply::Join(_)) | Err(_) => Err(GroupError::RebalanceInProgress),
        }
    }

    pub(crate) fn heartbeat(&self, request: &HeartbeatRequest) -> Result<(), GroupError> {
        let now = self.now();
        self.lock().heartbeat(request, now)
    }

    pub(crate) fn leave(&self, group_id: &str, leaving: Vec<LeavingMember>) -> Vec<LeaveOutcome> {
        self.act(|coordinator, now| coordinator.leave(group_id, leaving, now))
    }

    /// Runs `commit` if the claimant may commit offsets for the group. The group cannot change in between, so a member
    /// of a former generation never overwrites what its successor has committed.
    pub(crate) fn commit<T>(
        &self,
        group_id: &str,
        claim: CommitClaim<'_>,
        commit: impl FnOnce() -> T,
    ) -> Result<T, GroupError> {
        let now = self.now();
        let mut coordinator = self.lock();
        coordinator.check_commit(group_id, claim, now)?;
        Ok(commit())
    }

    /// Forgets a group without members and runs `forget_offsets`, told whether there was such a group, in one piece.
    pub(crate) fn delete<T>(
        &self,
        group_id: &str,
        forget_offsets: impl FnOnce(bool) -> T,
    ) -> Result<T, GroupError> {
        let mut coordinator = self.lock();
        let was_there = coordinator.delete(group_id)?;
        Ok(forget_offsets(was_there))
    }

    pub(crate) fn list(&self) -> Vec<GroupListing> {
        self.lock().list()
    }

    pub(crate) fn describe(&self, group_id: &str) -> Option<GroupDescription> {
        self.lock().describe(group_id)
    }

    /// Whether a member of the group may be reading the topic.
    pub(crate) fn is_subscribed(&self, group_id: &str, topic: &str) -> bool {
        self.lock().is_subscribed(group_id, topic)
    }

    fn act<R>(
        &self,
        act: impl FnOnce(&mut Coordinator<Ticket>, u64) -> (R, Vec<Delivery<Ticket>>),
    ) -> R {
        let now = self.now();
        let (result, deliveries, is_nearer) = {
            let mut coordinator = self.lock();
            let before = coordinator.next_deadline().unwrap_or(u64::MAX);
            let (result, deliveries) = act(&mut coordinator, now);
            let after = coordinator.next_deadline().unwrap_or(u64::MAX);
            (result, deliveries, after < before)
        };
        if is_nearer {
            self.nearer.notify_one();
        }
        deliver(deliveries);
        result
    }

    /// Milliseconds since this broker started.
    fn now(&self) -> u64 {
        self.started.elapsed().as_millis() as u64
    }

    fn lock(&self) -> MutexGuard<'_, Coordinator<Ticket>> {
        self.coordinator
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

fn deliver(deliveries: Vec<Delivery<Ticket>>) {
    for Delivery { to, reply } in deliveries {
        // Who has hung up meanwhile is found by its session's end.
        let _ = to.send(reply);
    }
}

/// Lets sessions and rebalances run out when their time has come, until the broker stops.
pub(crate) async fn keep_time(groups: Arc<Groups>, mut stopped: watch::Receiver<bool>) {
    loop {
        let due = groups.lock().next_deadline();
        let time = async {
            match due {
                Some(deadline) => {
                    let wait = Duration::from_millis(deadline.saturating_sub(groups.now()));
                    tokio::time::sleep(wait).await;
                }
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = time => groups.act(|coordinator, now| ((), coordinator.expire(now))),
            () = groups.nearer.notified() => {}
            _ = stopped.changed() => return,
        }
    }
}
