//! Stores that fail: they are caches, so that costs a read of the changelog and nothing else.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use partita::model::Millis;
use partita::store::memory::MemoryStores;
use partita::store::{Store, StoreChange, StoreError, Stores};

use crate::check;
use crate::faulty::Sabotage;
use crate::world::{PARTITIONS, World};

/// Stores in memory that fail while they are told to.
#[derive(Default)]
struct Failing {
    stores: MemoryStores,
    state: Arc<State>,
}

#[derive(Default)]
struct State {
    writes_fail: AtomicBool,
    reads_fail: AtomicBool,
    opened: AtomicUsize,
}

struct FailingStore {
    store: Arc<dyn Store>,
    state: Arc<State>,
}

impl Stores for Failing {
    fn open(&self, cluster: &str, partition: i32) -> Result<Arc<dyn Store>, StoreError> {
        self.state.opened.fetch_add(1, Ordering::SeqCst);
        Ok(Arc::new(FailingStore {
            store: self.stores.open(cluster, partition)?,
            state: Arc::clone(&self.state),
        }))
    }
}

fn fail_if(fails: &AtomicBool, doing: &'static str) -> Result<(), StoreError> {
    match fails.load(Ordering::SeqCst) {
        true => Err(StoreError::new(doing, "no space left on device")),
        false => Ok(()),
    }
}

impl Store for FailingStore {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, StoreError> {
        fail_if(&self.state.reads_fail, "reading")?;
        self.store.get(key)
    }

    fn offset(&self) -> Result<i64, StoreError> {
        self.store.offset()
    }

    fn apply(&self, changes: &[StoreChange], next_offset: i64) -> Result<(), StoreError> {
        fail_if(&self.state.writes_fail, "writing")?;
        self.store.apply(changes, next_offset)
    }

    fn scan(
        &self,
        after: Option<&[u8]>,
        visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
    ) -> Result<(), StoreError> {
        self.store.scan(after, visit)
    }

    fn clear(&self) -> Result<(), StoreError> {
        self.store.clear()
    }
}

/// Writes behind, as far as the stores do; how many partitions have nothing left to write.
fn write_all(world: &World) -> usize {
    let partitions = world.instances[0].shared.partitions();
    let written = partitions.iter().map(|partition| partition.write_behind());
    written.filter(Result::is_ok).count()
}

fn go_on(world: &mut World, millis: u64) {
    for _ in 0..millis.div_ceil(100) {
        world.now = world.now + Millis(100);
        world.step(0);
    }
}

fn start(world: &mut World, run: &str) {
    let body = serde_json::json!({
        "type": "start", "run_id": run, "workflow": "line", "input": "i".repeat(2_000),
    });
    world.command(run, &body);
    world.started.push(run.to_owned());
}

fn restored(world: &World) -> usize {
    let partitions = world.instances[0].shared.partitions();
    let restored = partitions
        .iter()
        .filter(|partition| partition.is_restored() && !partition.is_abandoned());
    restored.count()
}

#[test]
fn a_store_that_fails_is_rebuilt_and_one_that_fails_again_is_left_for_memory() {
    let mut world = World::new(1, Sabotage::None, 1);
    let stores = Arc::new(Failing::default());
    let state = Arc::clone(&stores.state);
    world.kill(0);
    world.expire_dead(0);
    world.boot_on(0, stores);
    go_on(&mut world, 2_000);
    for number in 0..6 {
        start(&mut world, &format!("run-{number}"));
    }
    go_on(&mut world, 2_000);
    assert_eq!(restored(&world), PARTITIONS as usize);
    for round in 1..=3 {
        let before = state.opened.load(Ordering::SeqCst);
        state.writes_fail.store(true, Ordering::SeqCst);
        write_all(&world);
        let failed = PARTITIONS as usize - restored(&world);
        // From the third on nothing is left on the disk that could fail.
        assert_eq!(failed > 0, round <= 2, "round {round}");
        state.writes_fail.store(false, Ordering::SeqCst);
        go_on(&mut world, 5_000);
        assert_eq!(restored(&world), PARTITIONS as usize, "round {round}");
        let opened = state.opened.load(Ordering::SeqCst) - before;
        assert_eq!(opened > 0, round <= 2, "round {round}");
    }
    for _ in 0..100 {
        world.answer_all();
        go_on(&mut world, 300);
    }
    assert!(check::all_ended(&world).expect("readable entries"));
    assert_eq!(write_all(&world), PARTITIONS as usize);
    check::all(&world).expect("invariants");
}

#[test]
fn what_a_partition_that_was_given_up_wrote_last_is_not_what_its_successor_finds() {
    let mut world = World::new(1, Sabotage::None, 1);
    world.boot(0);
    go_on(&mut world, 2_000);
    start(&mut world, "run");
    go_on(&mut world, 1_000);
    let home = world.home("run");
    let old = world.instances[0].shared.partition(home).expect("owned");
    old.abandon();
    go_on(&mut world, 2_000);
    let new = world.instances[0].shared.partition(home).expect("owned");
    assert!(!Arc::ptr_eq(&old, &new) && new.is_restored());
    assert_eq!(old.write_behind().expect("nothing is written"), 0);
    assert_eq!(new.store().offset().expect("in memory"), 0);
    new.write_behind().expect("in memory");
    check::stores(&world).expect("the store is the fold of the changelog");
}
