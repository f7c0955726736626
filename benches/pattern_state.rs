//! What matchers hold, in bytes: of each key, and of each partial match of one key; in memory, counted by
//! the allocator, and as it is saved. Prints the same figures on every 64-bit machine.
//!
//! `cargo bench --bench pattern_state`

#[path = "stream/rules.rs"]
mod rules;

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};

use partita::model::{Json, Timestamp};
use partita::pattern::{Event, Matcher, Outputs, Rule, Scalar};

/// Bytes that are allocated now.
static HELD: AtomicI64 = AtomicI64::new(0);

struct Counting;

// SAFETY: everything is handed on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        HELD.fetch_add(layout.size() as i64, Ordering::Relaxed);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        HELD.fetch_sub(layout.size() as i64, Ordering::Relaxed);
        unsafe { System.dealloc(place, layout) }
    }

    unsafe fn realloc(&self, place: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        HELD.fetch_add(size as i64 - layout.size() as i64, Ordering::Relaxed);
        unsafe { System.realloc(place, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// No window ends while we look.
const WINDOW: u64 = 1_000_000_000;
const KEYS: u64 = 10_000;
const PARTIALS: u64 = 10_000;

/// A matcher after events that each begin a partial match (for p5: give a value to the window), to so
/// many keys in turn.
fn fed(rule: &Arc<Rule>, events: u64, keys: u64, payload: &str, notes_changes: bool) -> Matcher {
    let mut matcher = Matcher::new(rule.clone(), false);
    if notes_changes {
        matcher.note_changes();
    }
    let mut out = Outputs::default();
    for number in 0..events {
        let slots = [Scalar::Int((number % keys) as i64), Scalar::Float(0.75)];
        let event = Event {
            topic: 0,
            at: Timestamp(number as i64),
            position: number,
            slots: &slots,
            payload: &Json::from_text(payload).expect("JSON"),
        };
        matcher.push(&event, &mut out);
    }
    assert!(out.overflows.is_empty() && out.late.is_empty());
    matcher
}

/// Bytes in memory, and those saved.
fn held(rule: &Arc<Rule>, events: u64, keys: u64, payload: &str) -> (i64, usize) {
    let before = HELD.load(Ordering::Relaxed);
    let matcher = fed(rule, events, keys, payload, false);
    let in_memory = HELD.load(Ordering::Relaxed) - before;
    drop(matcher);
    let mut saved = 0;
    let mut matcher = fed(rule, events, keys, payload, true);
    matcher.take_changed(&mut |_, bytes| saved += bytes.map_or(0, |bytes| bytes.len()));
    (in_memory, saved)
}

fn main() {
    let event = r#"{"kind":"A","key":1234,"value":0.750000000000,"at":1767225600000,"source":"sensor-01234","unit":"celsius","note":"an event of the bench, number 000000001"}"#;
    println!(
        "bytes in memory, and as saved in brackets; an event has {} bytes",
        event.len()
    );
    for name in ["p1", "p2a", "p2b", "p3", "p4", "p5"] {
        let Some(rule) = rules::rule(name, WINDOW, KEYS) else {
            continue;
        };
        let mut cells = Vec::new();
        for payload in [event, "{}"] {
            let (memory, saved) = held(&rule, KEYS, KEYS, payload);
            cells.push(format!(
                "{:>5} ({})",
                memory / KEYS as i64,
                saved / KEYS as usize
            ));
            let (memory, saved) = held(&rule, PARTIALS, 1, payload);
            let (of_one, saved_of_one) = held(&rule, 1, 1, payload);
            let further = PARTIALS as i64 - 1;
            let saved = (saved - saved_of_one) / further as usize;
            cells.push(format!("{:>5} ({saved})", (memory - of_one) / further));
        }
        println!(
            "{name:4} a key with one {}, each further one {}; without the events' payloads {} and {}",
            cells[0], cells[1], cells[2], cells[3]
        );
    }
}
