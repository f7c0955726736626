//! Hopping windows over the stream that peers are measured with (p5): events of a 64-bit LCG, an
//! average or a 95th percentile per key over the last W ms, evaluated every W/10 ms and compared
//! with a threshold. Prints events per second of one thread, windows fired, and matches.
//!
//! `cargo bench --bench pattern_windows [-- EVENTS]`

use std::time::Instant;

use partita::pattern::aggregate::{Function, Needs, Sample, Summary};
use partita::pattern::window::{Arrival, Fired, HoppingSpec, KeyedHopping};

/// As in the program.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

struct Event {
    at: i64,
    key: u64,
    value: f64,
}

/// The stream: three steps of the generator for each event (type, key, value).
fn events(count: i64, keys: u64) -> Vec<Event> {
    let mut state = 42_u64;
    let mut step = || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        state
    };
    let mut event = |at| {
        let _type = step();
        let key = (step() >> 33) % keys;
        let value = (step() >> 11) as f64 * 2_f64.powi(-53);
        Event { at, key, value }
    };
    (0..count).map(&mut event).collect()
}

fn run(function: Function, window: i64, keys: u64, events: &[Event]) {
    let threshold = match (function, keys) {
        (Function::Avg, 1) => 0.5 + 0.6 / (window as f64).sqrt(),
        (Function::Avg, _) => 0.9,
        (_, 1) => 0.95 + 0.3 / (window as f64).sqrt(),
        (_, _) => 0.99,
    };
    let spec = HoppingSpec::new(window, window / 10, Needs::of(&[function]));
    let mut windows = KeyedHopping::new(spec.expect("a window"), 1_000_000);
    let (mut fired, mut matches) = (0_u64, 0_u64);
    let mut emit = |_: &u64, _: Fired, summary: &Summary| {
        fired += 1;
        matches += u64::from(function.of(summary).is_some_and(|value| value > threshold));
    };
    let begin = Instant::now();
    for event in events {
        windows.advance(event.at, &mut emit);
        let arrival = windows.insert(&event.key, event.at, Sample::number(event.value), &mut emit);
        assert_eq!(arrival, Arrival::OnTime);
    }
    let seconds = begin.elapsed().as_secs_f64();
    let rate = events.len() as f64 / seconds / 1e6;
    println!(
        "p5 {function:<13} W={window:<7} K={keys:<6} {rate:>7.2} M events/s  {fired:>9} fired  {matches:>8} matches"
    );
}

fn main() {
    // `cargo bench` passes `--bench`; `cargo test` runs benches with neither it nor a count.
    let count = std::env::args().skip(1).find_map(|it| it.parse().ok());
    let is_bench = std::env::args().any(|it| it == "--bench");
    let count = count.unwrap_or(if is_bench { 3_000_000 } else { 20_000 });
    for keys in [1, 10_000] {
        let events = events(count, keys);
        for function in [Function::Avg, Function::Percentile(95.0)] {
            for window in [100, 1_000, 10_000, 100_000] {
                run(function, window, keys, &events);
            }
        }
    }
}
