//! What the workers of an instance share with its API threads: the partitions owned, and who
//! waits for what.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicI32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use rustc_hash::FxHashMap;
use tokio::sync::{oneshot, watch};

use super::handle::{Answered, SubmitError};
use super::partition::Partition;
use super::patterns::stats::Stats;
use crate::engine::Outcome;
use crate::log::partitioner;
use crate::model::{RunId, RunState};

/// At most so many callers wait for answers at a time.
pub const MAX_WAITING: usize = 100_000;

/// See the module.
pub struct Shared {
    /// Told in the header of a request, so that another instance does not take it for its own.
    pub instance: String,
    partitions: RwLock<BTreeMap<i32, Arc<Partition>>>,
    /// The worker that has a partition, from before it opens the store until after it last writes it.
    holders: Mutex<BTreeMap<i32, usize>>,
    owned: watch::Sender<Vec<i32>>,
    partition_count: AtomicI32,
    requests: Mutex<HashMap<u64, Request>>,
    next_request: AtomicU64,
    ends: Mutex<FxHashMap<RunId, Vec<oneshot::Sender<()>>>>,
    waiting_for_ends: AtomicUsize,
    rules: Stats,
    /// Why workers are not connected, by worker.
    troubles: Mutex<BTreeMap<usize, String>>,
}

struct Request {
    partition: i32,
    sender: oneshot::Sender<Result<Answered, SubmitError>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    pub fn new(instance: impl Into<String>) -> Self {
        Self {
            instance: instance.into(),
            partitions: RwLock::default(),
            holders: Mutex::default(),
            owned: watch::Sender::new(Vec::new()),
            partition_count: AtomicI32::new(0),
            requests: Mutex::default(),
            next_request: AtomicU64::new(1),
            ends: Mutex::default(),
            waiting_for_ends: AtomicUsize::new(0),
            rules: Stats::default(),
            troubles: Mutex::default(),
        }
    }

    /// What the rules here have done.
    pub fn rules(&self) -> &Stats {
        &self.rules
    }

    pub fn partition_count(&self) -> i32 {
        self.partition_count.load(Ordering::Acquire)
    }

    pub fn set_partition_count(&self, count: i32) {
        self.partition_count.store(count, Ordering::Release);
    }

    pub fn partition_of(&self, id: &RunId) -> i32 {
        partitioner::partition_of(id.as_str().as_bytes(), self.partition_count())
    }

    pub fn partition(&self, number: i32) -> Option<Arc<Partition>> {
        self.partitions
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .get(&number)
            .cloned()
    }

    /// Those owned, in order.
    pub fn partitions(&self) -> Vec<Arc<Partition>> {
        self.partitions
            .read()
            .unwrap_or_else(PoisonError::into_inner)
            .values()
            .cloned()
            .collect()
    }

    /// Takes the partition for a worker; `false` while another worker of this instance has it. The
    /// group gives a partition on once it takes a member for dead, and the member may learn of that
    /// after its successor: with both at it, the one that goes would take the other's place down.
    pub fn claim(&self, partition: i32, worker: usize) -> bool {
        *lock(&self.holders).entry(partition).or_insert(worker) == worker
    }

    pub fn is_held_by(&self, partition: i32, worker: usize) -> bool {
        lock(&self.holders).get(&partition) == Some(&worker)
    }

    /// Lets the next worker have it.
    pub fn release(&self, partition: i32) {
        lock(&self.holders).remove(&partition);
    }

    pub fn add_partition(&self, partition: Arc<Partition>) {
        let mut partitions = self
            .partitions
            .write()
            .unwrap_or_else(PoisonError::into_inner);
        partitions.insert(partition.number, partition);
        self.owned
            .send_replace(partitions.keys().copied().collect());
    }

    /// Forgets a partition; whoever waits for an answer from it is told so.
    pub fn remove_partition(&self, number: i32) {
        {
            let mut partitions = self
                .partitions
                .write()
                .unwrap_or_else(PoisonError::into_inner);
            partitions.remove(&number);
            self.owned
                .send_replace(partitions.keys().copied().collect());
        }
        self.fail_requests(number, &SubmitError::NotOwner { partition: number });
    }

    pub fn watch_owned(&self) -> watch::Receiver<Vec<i32>> {
        self.owned.subscribe()
    }

    /// Registers a caller; the number goes with the record.
    pub fn expect_answer(
        &self,
        partition: i32,
    ) -> Result<(u64, oneshot::Receiver<Result<Answered, SubmitError>>), SubmitError> {
        let mut requests = lock(&self.requests);
        if requests.len() >= MAX_WAITING {
            return Err(SubmitError::Overloaded {
                what: "callers that wait for answers",
            });
        }
        let number = self.next_request.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = oneshot::channel();
        requests.insert(number, Request { partition, sender });
        Ok((number, receiver))
    }

    /// The caller does not wait any more.
    pub fn forget_request(&self, number: u64) {
        lock(&self.requests).remove(&number);
    }

    /// Whether somebody here waits for this request.
    pub fn is_awaited(&self, number: u64) -> bool {
        lock(&self.requests).contains_key(&number)
    }

    pub fn answer(&self, number: u64, outcome: Outcome, run: Option<RunState>) {
        if let Some(request) = lock(&self.requests).remove(&number) {
            // The caller may have gone; then nobody is told.
            let _ = request.sender.send(Ok(Answered { outcome, run }));
        }
    }

    pub fn fail_request(&self, number: u64, error: SubmitError) {
        if let Some(request) = lock(&self.requests).remove(&number) {
            let _ = request.sender.send(Err(error));
        }
    }

    /// Tells all who wait for this partition.
    pub fn fail_requests(&self, partition: i32, error: &SubmitError) {
        let mut requests = lock(&self.requests);
        let numbers: Vec<u64> = requests
            .iter()
            .filter(|(_, request)| request.partition == partition)
            .map(|(number, _)| *number)
            .collect();
        for number in numbers {
            if let Some(request) = requests.remove(&number) {
                let _ = request.sender.send(Err(error.clone()));
            }
        }
    }

    /// Fires when the run ends here, or its partition goes.
    pub fn expect_end(&self, id: &RunId) -> oneshot::Receiver<()> {
        let (sender, receiver) = oneshot::channel();
        let mut ends = lock(&self.ends);
        let waiting = ends.entry(id.clone()).or_default();
        // Callers that gave up leave closed channels behind.
        waiting.retain(|other| !other.is_closed());
        waiting.push(sender);
        self.waiting_for_ends.store(ends.len(), Ordering::Release);
        receiver
    }

    pub fn note_end(&self, id: &RunId) {
        if self.waiting_for_ends.load(Ordering::Acquire) == 0 {
            return;
        }
        let mut ends = lock(&self.ends);
        for sender in ends.remove(id).unwrap_or_default() {
            let _ = sender.send(());
        }
        ends.retain(|_, waiting| waiting.iter().any(|sender| !sender.is_closed()));
        self.waiting_for_ends.store(ends.len(), Ordering::Release);
    }

    pub fn set_trouble(&self, worker: usize, trouble: Option<String>) {
        let mut troubles = lock(&self.troubles);
        match trouble {
            Some(trouble) => troubles.insert(worker, trouble),
            None => troubles.remove(&worker),
        };
    }

    pub fn troubles(&self) -> Vec<String> {
        lock(&self.troubles).values().cloned().collect()
    }
}
