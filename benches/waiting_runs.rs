//! What a waiting run costs in memory: bytes that are allocated for each of many runs in one
//! partition, in its cache, and with its store behind it. The figures count what is asked of the
//! allocator, so they are the same on every machine up to the store's own threads.
//!
//! `cargo bench --bench waiting_runs [-- RUNS]`; without an argument 100,000 runs.

use std::alloc::{GlobalAlloc, Layout, System};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use partita::codec::input::{self, Commanded};
use partita::codec::state::{self, EntryFacts};
use partita::engine::{Definitions, Engine, EngineConfig, Input, Origin};
use partita::model::{Millis, Timestamp};
use partita::runtime::partition::{Change, Partition, View};
use partita::store::memory::MemoryStore;
use partita::store::sled::SledStores;
use partita::store::{Store, Stores};
use partita::workflow::Workflow;
use partita::workflow::definition::{self, Defaults};

/// Entries of one transaction, and of one write to the store.
const BATCH: usize = 2_000;

struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);

// SAFETY: the system's allocator does the work; only a number is kept beside it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        LIVE.fetch_add(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        LIVE.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(place, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn main() {
    // cargo passes `--bench`, which is no number.
    let runs = std::env::args().filter_map(|word| word.parse().ok()).next();
    let runs: usize = runs.unwrap_or(100_000);
    // Nothing is written to it: what waits to be counts as well.
    measure("cache and what is to be written", runs, false, |_| {
        Arc::new(MemoryStore::default())
    });
    measure("cache and store", runs, true, |folder| {
        let stores = SledStores::open(folder, "bench").expect("a database");
        stores.open("cluster", 0).expect("a partition's store")
    });
}

fn measure(what: &str, runs: usize, writes: bool, open: impl FnOnce(&Path) -> Arc<dyn Store>) {
    let folder = tempfile::tempdir().expect("a folder");
    let partition = Partition::open(0, open(folder.path()), usize::MAX).expect("a partition");
    let config = EngineConfig {
        max_payload_bytes: 256 << 10,
        max_live_runs: usize::MAX,
        park_for: Millis(10_000),
        max_parked_per_run: 1,
        max_signals_per_run: 1,
        max_selected: 1,
    };
    let engine = Engine::new(config, Arc::new(OneWorkflow::read()));
    let before = LIVE.load(Ordering::Relaxed);
    let mut entry_bytes = 0;
    for first in (0..runs).step_by(BATCH) {
        let changes = started(&engine, &partition, first, BATCH.min(runs - first));
        for change in &changes {
            entry_bytes += change.value().map_or(0, |entry| entry.len());
        }
        partition.fold(changes, (first + BATCH) as i64);
        if writes {
            partition.write_behind().expect("a store that works");
        }
    }
    let peak = LIVE.load(Ordering::Relaxed);
    // The store writes and frees on threads of its own.
    std::thread::sleep(Duration::from_secs(2));
    let after = LIVE.load(Ordering::Relaxed);
    let each = |bytes: usize| bytes.saturating_sub(before) / runs.max(1);
    println!(
        "{what}: {} bytes for each of {runs} runs ({} two seconds before), {} of them its entry",
        each(after),
        each(peak),
        entry_bytes / runs.max(1)
    );
    if writes {
        // The second look at a run finds it at rest.
        partition.rest();
        partition.rest();
        let at_rest = LIVE.load(Ordering::Relaxed);
        println!("{what}: {} bytes for each at rest", each(at_rest));
    }
}

/// The workflow of the runs: five steps, the first of which waits for its agent.
struct OneWorkflow(Arc<Workflow>);

impl OneWorkflow {
    fn read() -> Self {
        let steps: Vec<_> = (0..5)
            .map(|step| serde_json::json!({"id": format!("s{step}"), "agent": "nobody"}))
            .collect();
        let definition = serde_json::json!({
            "kind": "workflow", "name": "bench_waiting", "version": 1, "timeout": "1h",
            "steps": steps,
        });
        let read = definition::parse(&definition.to_string(), None, &Defaults::default());
        Self(Arc::clone(&read.expect("a definition")[0].workflow))
    }
}

impl Definitions for OneWorkflow {
    fn workflow(&self, _: &str, _: Option<u32>) -> Option<Arc<Workflow>> {
        Some(Arc::clone(&self.0))
    }
}

/// Starts runs from number `first` on.
fn started(engine: &Engine, partition: &Partition, first: usize, count: usize) -> Vec<Change> {
    let view = View::new(partition);
    let mut batch = engine.batch(&view);
    let now = Timestamp(1_795_219_200_000 + first as i64);
    for number in first..first + count {
        let start = format!(
            r#"{{"type":"start","run_id":"wait-{number}","workflow":"bench_waiting","input":{{"value":"{}"}}}}"#,
            "x".repeat(100)
        );
        let Ok(Commanded::One(command)) = input::command(None, Some(start.as_bytes()), None) else {
            panic!("a start");
        };
        let command = Input::Command {
            command,
            traceparent: None,
            caller_waits: false,
        };
        batch.apply(command, Origin::default, now);
    }
    let runs = batch.finish(now).changes.runs;
    runs.iter()
        .map(|run| {
            let mut entry = Vec::new();
            state::encode(run, &mut entry, &mut Vec::new());
            Change::Run {
                id: run.id.clone(),
                entry: entry.into(),
                facts: EntryFacts::of(run),
            }
        })
        .collect()
}
