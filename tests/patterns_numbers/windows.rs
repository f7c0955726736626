//! Windows against all events written down and every window asked anew.

use std::collections::BTreeMap;

use partita::pattern::aggregate::{Function, Needs, Sample, Summary};
use partita::pattern::window::{
    Arrival, Fired, Hopping, HoppingSpec, OnLate, SessionSpec, Sessions, Trailing, TrailingSpec,
    Window,
};
use proptest::prelude::*;

use crate::aggregates::{FUNCTIONS, assert_agrees, largest};
use crate::many::Many;
use crate::stored;
use crate::streams::{Event, events};

/// The parameters of a hopping window.
#[derive(Clone, Copy, Debug)]
struct Shape {
    size: i64,
    slide: i64,
    offset: i64,
    lateness: i64,
}

fn shape() -> impl Strategy<Value = Shape> {
    (
        1..30_i64,
        1..30_i64,
        -20..20_i64,
        prop_oneof![Just(0), 0..30_i64],
    )
        .prop_map(|(size, slide, offset, lateness)| Shape {
            size,
            slide: slide.min(size),
            offset,
            lateness,
        })
}

impl Shape {
    fn spec(&self) -> HoppingSpec {
        HoppingSpec::new(self.size, self.slide, Needs::of(&FUNCTIONS))
            .and_then(|spec| {
                spec.with_offset(self.offset)
                    .with_lateness(self.lateness, OnLate::Refire)
            })
            .expect("it is within bounds")
    }

    /// Every window that holds `at`, by its definition.
    fn windows(&self, at: i64) -> Vec<Window> {
        let is_start = |start: &i64| (start - self.offset).rem_euclid(self.slide) == 0;
        let starts = (at - self.size + 1..=at).filter(is_start);
        starts
            .map(|start| Window {
                start,
                end: start + self.size,
            })
            .collect()
    }
}

/// One firing: key, window, whether late, and the values in it.
type Firing = (u8, Window, bool, Vec<f64>);

/// All that fires, from the definition: every window keeps its own list.
fn naive_hopping(shape: &Shape, events: &[Event]) -> (Vec<Firing>, Vec<Arrival>) {
    let mut open: BTreeMap<(i64, u8, i64), Vec<f64>> = BTreeMap::new();
    let (mut firings, mut arrivals) = (Vec::new(), Vec::new());
    let mut before = i64::MIN;
    for event in events.iter().copied().chain([end_of_time()]) {
        for ((end, key, start), values) in &open {
            if *end > before && *end <= event.watermark {
                firings.push((
                    *key,
                    Window {
                        start: *start,
                        end: *end,
                    },
                    false,
                    values.clone(),
                ));
            }
        }
        before = event.watermark;
        if event.watermark == i64::MAX {
            break;
        }
        let mut counted = false;
        for window in shape.windows(event.at) {
            if window.end + shape.lateness <= event.watermark {
                continue;
            }
            counted = true;
            let values = open
                .entry((window.end, event.key, window.start))
                .or_default();
            values.push(event.value);
            if window.end <= event.watermark {
                firings.push((event.key, window, true, values.clone()));
            }
        }
        arrivals.push(match (counted, event.at >= event.watermark) {
            (false, _) => Arrival::TooLate,
            (true, true) => Arrival::OnTime,
            (true, false) => Arrival::Late,
        });
    }
    (firings, arrivals)
}

fn end_of_time() -> Event {
    Event {
        at: 0,
        watermark: i64::MAX,
        key: 0,
        value: 0.0,
    }
}

/// Holds what was fired against the naive list; keys of one end in any order.
#[track_caller]
fn assert_same(mut found: Vec<(u8, Fired, Summary)>, expected: &[Firing], events: &[Event]) {
    let ever = largest(events.iter().map(|event| event.value));
    let ends: Vec<(i64, bool)> = found
        .iter()
        .map(|(_, it, _)| (it.window.end, it.late))
        .collect();
    let wanted: Vec<(i64, bool)> = expected.iter().map(|it| (it.1.end, it.2)).collect();
    assert_eq!(ends, wanted);
    for (key, window, late, values) in expected {
        let is_it = |it: &(u8, Fired, Summary)| {
            it.0 == *key
                && it.1
                    == Fired {
                        window: *window,
                        late: *late,
                    }
        };
        let place = found
            .iter()
            .position(is_it)
            .unwrap_or_else(|| panic!("{key} {window:?}"));
        let (_, _, summary) = found.remove(place);
        assert_agrees(&summary, values, ever);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn hopping_windows_fire_what_their_definition_says(shape in shape(), events in events(80)) {
        let spec = shape.spec();
        let mut windows = Many::<Hopping>::new(spec);
        let (mut found, mut arrivals) = (Vec::new(), Vec::new());
        let mut emit = |key: u8, fired: Fired, summary: &Summary| {
            found.push((key, fired, summary.clone()));
            true
        };
        for event in &events {
            windows.advance(event.watermark, &mut emit);
            let sample = Sample::number(event.value);
            arrivals.push(windows.insert(event.key, event.at, sample, &mut emit));
            windows.save(event.key);
        }
        windows.advance(i64::MAX, &mut emit);
        assert!(windows.is_empty(), "nothing is kept of the past");
        let (expected, expected_arrivals) = naive_hopping(&shape, &events);
        assert_eq!(arrivals, expected_arrivals);
        assert_same(found, &expected, &events);
    }

    /// A window that is of no use, here since it has less than two events, rests until its events are others:
    /// those that are of use are the same.
    #[test]
    fn windows_that_rest_miss_none_that_is_of_use(
        shape in shape(),
        events in events(80),
        saves in any::<bool>(),
    ) {
        let mut windows = Many::<Hopping>::new(shape.spec());
        let (mut found, mut fired_in_all) = (Vec::new(), 0);
        let mut emit = |key: u8, fired: Fired, summary: &Summary| {
            fired_in_all += 1;
            let is_of_use = Function::Count.of(summary) >= Some(2.0);
            if is_of_use {
                found.push((key, fired, summary.clone()));
            }
            is_of_use
        };
        for event in &events {
            windows.advance(event.watermark, &mut emit);
            let _ = windows.insert(event.key, event.at, Sample::number(event.value), &mut emit);
            if saves {
                windows.save(event.key);
            }
        }
        windows.advance(i64::MAX, &mut emit);
        assert!(windows.is_empty(), "nothing is kept of the past");
        let (all, _) = naive_hopping(&shape, &events);
        assert!(fired_in_all <= all.len());
        let expected: Vec<Firing> = all.into_iter().filter(|it| it.3.len() >= 2).collect();
        assert_same(found, &expected, &events);
    }

    #[test]
    fn sessions_are_runs_of_events_less_than_a_gap_apart(
        gap in 1..20_i64,
        lateness in prop_oneof![Just(0), 0..30_i64],
        events in events(80),
    ) {
        let spec = SessionSpec::new(gap, Needs::of(&FUNCTIONS))
            .and_then(|spec| spec.with_lateness(lateness, OnLate::Refire))
            .expect("it is within bounds");
        let mut sessions = Many::<Sessions>::new(spec);
        let (mut found, mut arrivals) = (Vec::new(), Vec::new());
        let mut emit = |key: u8, fired: Fired, summary: &Summary| {
            found.push((key, fired, summary.clone()));
            true
        };
        for event in &events {
            sessions.advance(event.watermark, &mut emit);
            let sample = Sample::number(event.value);
            arrivals.push(sessions.insert(event.key, event.at, sample, &mut emit));
            sessions.save(event.key);
        }
        sessions.advance(i64::MAX, &mut emit);
        assert!(sessions.is_empty(), "nothing is kept of the past");
        let (expected, expected_arrivals) = naive_sessions(gap, lateness, &events);
        assert_eq!(arrivals, expected_arrivals);
        assert_same(found, &expected, &events);
    }

    #[test]
    fn a_trailing_window_has_the_last_events(size in 1..30_i64, events in events(80)) {
        let spec = TrailingSpec::new(size, 1_000, Needs::of(&FUNCTIONS)).expect("within bounds");
        let mut state = Trailing::new(&spec);
        let mut all: Vec<(i64, f64)> = Vec::new();
        let mut newest = i64::MIN;
        for event in &events {
            let arrival = state.insert(&spec, event.at, Sample::number(event.value));
            let too_late = newest > i64::MIN && event.at <= newest - size;
            assert_eq!(arrival == Arrival::TooLate, too_late);
            newest = newest.max(event.at);
            all.push((event.at, event.value));
            let inside = all.iter().filter(|(at, _)| *at > newest - size);
            let values: Vec<f64> = inside.map(|(_, value)| *value).collect();
            let ever = largest(all.iter().map(|(_, value)| *value));
            assert_agrees(state.summary(), &values, ever);
            state = stored(&state);
        }
    }

    #[test]
    fn a_full_trailing_window_has_the_newest(
        most in 1..6_usize,
        values in prop::collection::vec((0..3_i64, -3..4_i32), 1..40),
    ) {
        let spec = TrailingSpec::new(1_000, most, Needs::of(&FUNCTIONS)).expect("within bounds");
        let mut state = Trailing::new(&spec);
        let mut all = Vec::new();
        let mut at = 0;
        for (step, value) in values {
            at += step;
            all.push(f64::from(value));
            let _ = state.insert(&spec, at, Sample::number(f64::from(value)));
            assert_agrees(state.summary(), &all[all.len().saturating_sub(most)..], 3.0);
            assert_eq!(state.dropped() as usize, all.len() - state.len());
        }
    }
}

/// All sessions, from the definition: a list of runs that merge as events come.
fn naive_sessions(gap: i64, lateness: i64, events: &[Event]) -> (Vec<Firing>, Vec<Arrival>) {
    let mut open: Vec<(u8, Window, Vec<f64>)> = Vec::new();
    let (mut firings, mut arrivals) = (Vec::new(), Vec::new());
    let mut before = i64::MIN;
    for event in events.iter().copied().chain([end_of_time()]) {
        let mut due: Vec<_> = open
            .iter()
            .filter(|(_, window, _)| window.end > before && window.end <= event.watermark)
            .map(|(key, window, values)| (*key, *window, false, values.clone()))
            .collect();
        due.sort_by_key(|(key, window, ..)| (window.end, *key));
        firings.extend(due);
        before = event.watermark;
        if event.watermark == i64::MAX {
            break;
        }
        open.retain(|(_, window, _)| window.end + lateness > event.watermark);
        let mut merged = (
            event.key,
            Window {
                start: event.at,
                end: event.at + gap,
            },
            vec![],
        );
        let overlaps = |key: u8, window: &Window| {
            key == event.key && window.start < event.at + gap && event.at < window.end
        };
        for (_, window, values) in open.iter().filter(|it| overlaps(it.0, &it.1)) {
            merged.1.start = merged.1.start.min(window.start);
            merged.1.end = merged.1.end.max(window.end);
            merged.2.extend(values);
        }
        if merged.1.end + lateness <= event.watermark {
            arrivals.push(Arrival::TooLate);
            continue;
        }
        open.retain(|it| !overlaps(it.0, &it.1));
        merged.2.push(event.value);
        if merged.1.end <= event.watermark {
            firings.push((event.key, merged.1, true, merged.2.clone()));
        }
        open.push(merged);
        let is_late = event.at < event.watermark;
        arrivals.push(if is_late {
            Arrival::Late
        } else {
            Arrival::OnTime
        });
    }
    (firings, arrivals)
}

#[test]
fn an_hour_of_silence_costs_no_empty_windows() {
    let spec = HoppingSpec::new(10, 1, Needs::default()).expect("a hopping window");
    let mut windows = Many::<Hopping>::new(spec);
    let mut fired = 0;
    let mut emit = |_: u8, _: Fired, _: &Summary| {
        fired += 1;
        true
    };
    for at in [0, i64::MAX / 8] {
        let arrival = windows.insert(0, at, Sample::MISSING, &mut emit);
        assert_eq!(arrival, Arrival::OnTime);
    }
    windows.advance(i64::MAX, &mut emit);
    assert_eq!(fired, 20, "ten windows around each event");
    let beyond = windows.insert(0, i64::MAX, Sample::MISSING, &mut |_, _, _| true);
    assert_eq!(beyond, Arrival::Overflow);
}
