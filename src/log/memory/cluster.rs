//! The broker's side.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::log::{Outgoing, OwnershipChange, Positions, Source, Target, partitioner};

/// A topic, by what it is for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum TopicKey {
    Input(Source),
    State,
    Events,
    Tasks(String),
    Signals,
    DeadLetter,
}

impl TopicKey {
    /// The topic and the partition that a record goes to; topics that go by their own key have
    /// one partition here.
    pub fn of(record: &Outgoing<'_>, partitions: i32) -> (TopicKey, i32) {
        match &record.target {
            Target::Command => {
                let home = partitioner::partition_of(record.key.unwrap_or_default(), partitions);
                (TopicKey::Input(Source::Commands), home)
            }
            Target::Signal => {
                let home = partitioner::partition_of(record.key.unwrap_or_default(), partitions);
                (TopicKey::Input(Source::Signals), home)
            }
            Target::Input(source, partition) => (TopicKey::Input(*source), *partition),
            Target::State(partition) => (TopicKey::State, *partition),
            Target::Events(partition) => (TopicKey::Events, *partition),
            Target::Tasks(agent) => (TopicKey::Tasks((*agent).to_owned()), 0),
            Target::Signals(partition) => (TopicKey::Signals, *partition),
            Target::DeadLetter => (TopicKey::DeadLetter, 0),
        }
    }
}

/// A record as it lies in a partition.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredRecord {
    pub offset: i64,
    pub key: Option<Vec<u8>>,
    pub value: Option<Vec<u8>>,
    pub headers: Vec<(String, Vec<u8>)>,
    fate: Fate,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Fate {
    Committed,
    Aborted,
    /// Of a transaction that has not ended.
    Open(ProducerId),
}

/// A producer's session: raised each time its transactional id is initialised.
pub(super) type ProducerId = u64;

#[derive(Default)]
struct Transaction {
    transactional_id: String,
    is_open: bool,
    offsets: BTreeMap<i32, Positions>,
}

#[derive(Default)]
struct Member {
    owned: BTreeSet<i32>,
    /// Owned until it hears of it.
    to_give_up: BTreeSet<i32>,
    changes: Vec<OwnershipChange>,
}

#[derive(Default)]
struct State {
    partitions: i32,
    topics: BTreeMap<(TopicKey, i32), Vec<StoredRecord>>,
    /// The current session of each transactional id.
    sessions: BTreeMap<String, ProducerId>,
    transactions: BTreeMap<ProducerId, Transaction>,
    next_id: u64,
    committed: BTreeMap<i32, Positions>,
    members: BTreeMap<u64, Member>,
}

/// Why the broker refuses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// A younger session has the transactional id.
    Fenced,
    /// The member does not own the partition whose offsets it sends.
    NotOwner,
}

/// See the module. Cloning shares it.
#[derive(Clone)]
pub struct Cluster(Arc<Mutex<State>>);

impl Cluster {
    pub fn new(partitions: i32) -> Self {
        Self(Arc::new(Mutex::new(State {
            partitions,
            ..State::default()
        })))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn partitions(&self) -> i32 {
        self.lock().partitions
    }

    /// Appends a record outside any transaction, as agents and producers do.
    pub fn produce(
        &self,
        topic: TopicKey,
        partition: i32,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: Vec<(String, Vec<u8>)>,
    ) -> i64 {
        let record = (key.map(<[u8]>::to_vec), value.map(<[u8]>::to_vec), headers);
        self.lock()
            .append((topic, partition), record, Fate::Committed)
    }

    /// Committed records from `offset` on, up to the first that is undecided.
    pub fn read_committed(
        &self,
        topic: &TopicKey,
        partition: i32,
        offset: i64,
    ) -> Vec<StoredRecord> {
        let state = self.lock();
        let stable = state.last_stable(topic, partition);
        let records = state.topics.get(&(topic.clone(), partition));
        let from = usize::try_from(offset).unwrap_or(0);
        let later = records
            .and_then(|records| records.get(from..))
            .unwrap_or_default();
        let readable =
            |record: &&StoredRecord| record.offset < stable && record.fate == Fate::Committed;
        later.iter().filter(readable).cloned().collect()
    }

    /// Every record from `offset` on, whatever became of it: what `read_uncommitted` shows.
    pub fn read_uncommitted(
        &self,
        topic: &TopicKey,
        partition: i32,
        offset: i64,
    ) -> Vec<StoredRecord> {
        let state = self.lock();
        let records = state.topics.get(&(topic.clone(), partition));
        let is_later = |record: &&StoredRecord| record.offset >= offset;
        records.map_or_else(Vec::new, |records| {
            records.iter().filter(is_later).cloned().collect()
        })
    }

    /// Where the partition ends, undecided records included.
    pub fn end(&self, topic: &TopicKey, partition: i32) -> i64 {
        self.lock().end(topic, partition)
    }

    /// Where its decided part ends.
    pub fn last_stable(&self, topic: &TopicKey, partition: i32) -> i64 {
        self.lock().last_stable(topic, partition)
    }

    /// Task topics that exist.
    pub fn task_topics(&self) -> Vec<String> {
        let state = self.lock();
        let name = |(topic, _): &(TopicKey, i32)| match topic {
            TopicKey::Tasks(agent) => Some(agent.clone()),
            _ => None,
        };
        state.topics.keys().filter_map(name).collect()
    }

    /// The group finds a member dead: others get its partitions.
    pub fn expire_member(&self, member: u64) {
        let mut state = self.lock();
        state.members.remove(&member);
        state.rebalance();
    }

    /// Committed input positions of a partition.
    pub fn committed(&self, partition: i32) -> Positions {
        self.lock()
            .committed
            .get(&partition)
            .copied()
            .unwrap_or_default()
    }

    /// Commits positions outside any transaction: nobody does that but tests of what happens then.
    pub fn commit_outside(&self, positions: &[(i32, Positions)]) {
        let mut state = self.lock();
        for (partition, positions) in positions {
            state.committed.insert(*partition, *positions);
        }
    }

    /// Whether an open transaction may still change the partition's committed positions.
    pub(super) fn has_unstable_offsets(&self, partition: i32) -> bool {
        let state = self.lock();
        state
            .transactions
            .values()
            .any(|open| open.is_open && open.offsets.contains_key(&partition))
    }

    pub(super) fn join(&self) -> u64 {
        let mut state = self.lock();
        let member = state.new_id();
        state.members.insert(member, Member::default());
        state.rebalance();
        member
    }

    pub(super) fn take_changes(&self, member: u64) -> Option<Vec<OwnershipChange>> {
        let mut state = self.lock();
        let asking = state.members.get_mut(&member)?;
        let given_up = std::mem::take(&mut asking.to_give_up);
        if !given_up.is_empty() {
            asking
                .owned
                .retain(|partition| !given_up.contains(partition));
            asking
                .changes
                .push(OwnershipChange::Revoked(given_up.into_iter().collect()));
            state.rebalance();
        }
        Some(std::mem::take(&mut state.members.get_mut(&member)?.changes))
    }

    /// A new session; the open transaction of the one before is aborted.
    pub(super) fn init_producer(&self, transactional_id: &str) -> ProducerId {
        let mut state = self.lock();
        let id = state.new_id();
        if let Some(before) = state.sessions.insert(transactional_id.to_owned(), id) {
            state.end_transaction(before, false);
        }
        let transaction = Transaction {
            transactional_id: transactional_id.to_owned(),
            ..Transaction::default()
        };
        state.transactions.insert(id, transaction);
        id
    }

    /// The coordinator gives up transactions that take too long; their producers are fenced.
    pub fn expire_transaction(&self, transactional_id: &str) {
        let _ = self.init_producer(transactional_id);
    }

    pub(super) fn append(
        &self,
        producer: ProducerId,
        place: (TopicKey, i32),
        record: Content,
    ) -> Result<i64, Refused> {
        let mut state = self.lock();
        state.check(producer)?;
        state.transactions.entry(producer).or_default().is_open = true;
        Ok(state.append(place, record, Fate::Open(producer)))
    }

    pub(super) fn send_offsets(
        &self,
        producer: ProducerId,
        member: u64,
        positions: &[(i32, Positions)],
    ) -> Result<(), Refused> {
        let mut state = self.lock();
        state.check(producer)?;
        let owned = state.members.get(&member).map(|member| &member.owned);
        let owns = |(partition, _): &(i32, Positions)| {
            owned.is_some_and(|owned| owned.contains(partition))
        };
        if !positions.iter().all(owns) {
            return Err(Refused::NotOwner);
        }
        let transaction = state.transactions.entry(producer).or_default();
        transaction.is_open = true;
        transaction.offsets.extend(positions.iter().copied());
        Ok(())
    }

    pub(super) fn end_transaction(
        &self,
        producer: ProducerId,
        commit: bool,
    ) -> Result<(), Refused> {
        let mut state = self.lock();
        state.check(producer)?;
        state.end_transaction(producer, commit);
        Ok(())
    }
}

type Place = (TopicKey, i32);
/// Key, value and headers.
pub(super) type Content = (Option<Vec<u8>>, Option<Vec<u8>>, Vec<(String, Vec<u8>)>);

impl State {
    fn new_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id
    }

    fn append(&mut self, place: Place, (key, value, headers): Content, fate: Fate) -> i64 {
        let records = self.topics.entry(place).or_default();
        let offset = i64::try_from(records.len()).unwrap_or(i64::MAX);
        records.push(StoredRecord {
            offset,
            key,
            value,
            headers,
            fate,
        });
        offset
    }

    fn end(&self, topic: &TopicKey, partition: i32) -> i64 {
        let records = self.topics.get(&(topic.clone(), partition));
        i64::try_from(records.map_or(0, Vec::len)).unwrap_or(i64::MAX)
    }

    fn last_stable(&self, topic: &TopicKey, partition: i32) -> i64 {
        let records = self
            .topics
            .get(&(topic.clone(), partition))
            .map_or(&[][..], Vec::as_slice);
        let undecided = records
            .iter()
            .find(|record| matches!(record.fate, Fate::Open(_)));
        undecided.map_or_else(|| self.end(topic, partition), |record| record.offset)
    }

    /// Refuses a session that is not the last of its transactional id.
    fn check(&self, producer: ProducerId) -> Result<(), Refused> {
        let transaction = self.transactions.get(&producer).ok_or(Refused::Fenced)?;
        match self.sessions.get(&transaction.transactional_id) {
            Some(current) if *current == producer => Ok(()),
            _ => Err(Refused::Fenced),
        }
    }

    fn end_transaction(&mut self, producer: ProducerId, commit: bool) {
        let Some(transaction) = self.transactions.get_mut(&producer) else {
            return;
        };
        if !std::mem::take(&mut transaction.is_open) {
            return;
        }
        let offsets = std::mem::take(&mut transaction.offsets);
        if commit {
            self.committed.extend(offsets);
        }
        let fate = if commit {
            Fate::Committed
        } else {
            Fate::Aborted
        };
        // Open records lie at the ends: everything before was decided earlier.
        for records in self.topics.values_mut() {
            for record in records
                .iter_mut()
                .filter(|record| record.fate == Fate::Open(producer))
            {
                record.fate = fate;
            }
        }
    }

    /// Cooperative and sticky: members keep what they have up to their share; what is above it
    /// is given up when they hear of it, and what is free goes to those who have least.
    fn rebalance(&mut self) {
        let count = self.members.len();
        if count == 0 {
            return;
        }
        let share = usize::try_from(self.partitions)
            .unwrap_or(0)
            .div_ceil(count);
        for member in self.members.values_mut() {
            member.to_give_up = member.owned.iter().skip(share).copied().collect();
        }
        let owned: BTreeSet<i32> = self
            .members
            .values()
            .flat_map(|member| member.owned.iter().copied())
            .collect();
        for partition in (0..self.partitions).filter(|partition| !owned.contains(partition)) {
            let least = self
                .members
                .values_mut()
                .min_by_key(|member| member.owned.len());
            if let Some(member) = least {
                member.owned.insert(partition);
                member
                    .changes
                    .push(OwnershipChange::Assigned(vec![partition]));
            }
        }
    }
}
