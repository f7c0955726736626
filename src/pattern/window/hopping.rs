//! Tumbling and hopping windows of one key, cut into panes (Li et al. 2005, "No pane, no gain"): an
//! event touches one pane, and a window that fires takes in the panes that ended and gives back
//! those that left. Constant work per event and per firing, whatever the size.

use std::ops::Range;

use serde::{Deserialize, Serialize};

use super::hopping_spec::MAX_PANES;
use super::panes::Panes;
use super::running::Running;
use super::{Arrival, Fired, HoppingSpec, MAX_TIME, OnLate, Window};
use crate::pattern::aggregate::{Sample, Summary};

/// In place of the end of a next window where there is none, and where nobody has looked for it.
const NO_END: i64 = i64::MAX;
const UNKNOWN: i64 = i64::MIN;

/// The panes of one key. 192 bytes, and 56 for each pane that holds an event but the newest, of which there are
/// at most (size + lateness) / pane behind the watermark, dropped when the key next fires; to these come, once
/// for each pane and once for the window, what [`Summary`], [`Sketch`](crate::pattern::aggregate::Sketch) and
/// [`Distinct`](crate::pattern::aggregate::Distinct) state.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(from = "Stored")]
pub struct Hopping {
    /// Ascending; only panes with events.
    panes: Panes<Pane>,
    /// Panes before this place have left the running window and wait for late events.
    left: usize,
    /// Panes before this place have entered it.
    entered: usize,
    /// The window that ends at `due`.
    running: Running,
    /// The end of the last window that was due.
    due: i64,
    /// The end of the next window that has events in it, [`NO_END`] or [`UNKNOWN`].
    #[serde(skip)]
    next: i64,
    /// The end of the last window that holds the oldest pane; what this and the next say of panes spares
    /// most firings a look at them.
    #[serde(skip)]
    oldest_until: i64,
    /// The end of the last window that holds the newest pane which has entered.
    #[serde(skip)]
    entered_until: i64,
    /// Windows with what the running one holds need not fire ([`rest`](Self::rest)).
    #[serde(skip)]
    rests: bool,
    /// Whether the running window holds what fired last.
    #[serde(skip)]
    is_as_fired: bool,
}

/// By what it holds: whether it rests is for the caller to say anew.
impl PartialEq for Hopping {
    fn eq(&self, other: &Hopping) -> bool {
        (&self.panes, self.left, self.entered) == (&other.panes, other.left, other.entered)
            && (&self.running, self.due) == (&other.running, other.due)
    }
}

/// What is saved of it.
#[derive(Deserialize)]
struct Stored {
    panes: Panes<Pane>,
    left: usize,
    entered: usize,
    running: Running,
    due: i64,
}

impl From<Stored> for Hopping {
    fn from(stored: Stored) -> Hopping {
        let mut hopping = Hopping {
            panes: stored.panes,
            left: stored.left,
            entered: stored.entered,
            running: stored.running,
            due: stored.due,
            next: UNKNOWN,
            oldest_until: i64::MAX,
            entered_until: i64::MIN,
            rests: false,
            is_as_fired: false,
        };
        hopping.note_ends();
        hopping
    }
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Pane {
    start: i64,
    /// The end of the last window that holds it.
    last_end: i64,
    summary: Summary,
}

impl Hopping {
    /// A key without events.
    pub fn new(spec: &HoppingSpec) -> Hopping {
        Hopping {
            panes: Panes::default(),
            left: 0,
            entered: 0,
            running: Running::new(spec.needs),
            due: i64::MIN,
            next: UNKNOWN,
            oldest_until: i64::MAX,
            entered_until: i64::MIN,
            rests: false,
            is_as_fired: false,
        }
    }

    /// Reads a bit of it here and there, as far as it lies in place, for a caller who will soon need it.
    #[inline]
    pub fn near(&self) -> u64 {
        let newest = self.panes.back().map_or(0, |pane| pane.start as u64);
        newest ^ self.due as u64 ^ self.next as u64 ^ self.running.events()
    }

    /// The same of what lies elsewhere and [`fire_next`](Self::fire_next) will need: what leaves.
    #[inline]
    pub fn far(&self) -> u64 {
        let ends = |pane: &Pane| pane.last_end as u64 ^ pane.summary.events();
        let end = |place| self.panes.get(place).map_or(0, ends);
        end(0) ^ end(1) ^ end(self.left) ^ end(self.left + 1) ^ self.running.far()
    }

    /// What fired last is of no use to the caller, and nor is any other window that holds the same: none fires
    /// until an event enters or leaves.
    pub fn rest(&mut self, spec: &HoppingSpec) {
        self.rests = self.is_as_fired;
        self.note_next(spec);
    }

    /// To be done whenever anything has changed that the next end hangs on.
    fn note_next(&mut self, spec: &HoppingSpec) {
        self.next = self.find_next_end(spec).unwrap_or(NO_END);
    }

    fn note_ends(&mut self) {
        let until = |pane: &Pane| pane.last_end;
        self.oldest_until = self.panes.front().map_or(i64::MAX, until);
        let newest = self.entered.checked_sub(1);
        let newest = newest.and_then(|place| self.panes.get(place));
        self.entered_until = newest.map_or(i64::MIN, until);
    }

    /// Whether nothing is held and nothing will fire.
    pub fn is_empty(&self) -> bool {
        self.panes.is_empty()
    }

    /// How many panes hold events.
    pub fn panes(&self) -> usize {
        self.panes.len()
    }

    /// Takes in an event at `at` if that is all there is to do: it is on time and its pane is the
    /// newest, so that nothing becomes due earlier.
    #[inline]
    fn add_to_newest(
        &mut self,
        spec: &HoppingSpec,
        at: i64,
        sample: Sample,
        watermark: i64,
    ) -> bool {
        let waits = self.entered < self.panes.len();
        match self.panes.back_mut() {
            Some(pane) if waits && at >= watermark && at >= pane.start => {
                let is_inside = at - pane.start < spec.pane;
                if is_inside {
                    pane.summary.add(spec.needs, sample);
                }
                is_inside
            }
            _ => false,
        }
    }

    /// Takes in an event at `at` (epoch ms, at most 2⁶¹ in size). All windows that end at or before `watermark` have been fired
    /// ([`fire_next`](Self::fire_next)); those that the event is late for and that may fire again
    /// are handed to `emit`, in order.
    pub fn insert(
        &mut self,
        spec: &HoppingSpec,
        at: i64,
        sample: Sample,
        watermark: i64,
        emit: &mut impl FnMut(Fired, &Summary),
    ) -> Arrival {
        if self.add_to_newest(spec, at, sample, watermark) {
            return Arrival::OnTime;
        }
        if at.unsigned_abs() > MAX_TIME {
            return Arrival::Overflow;
        }
        let start = spec.pane_start(at);
        if spec.last_end(start).saturating_add(spec.lateness) <= watermark {
            return Arrival::TooLate;
        }
        // Windows that had no events passed without a firing.
        let passed = spec.end_before(watermark.max(i64::MIN / 2));
        if passed > self.due {
            self.slide_to(spec, passed);
        }
        let is_added = self.add_to_pane(spec, start, sample);
        self.note_next(spec);
        if !is_added {
            return Arrival::Overflow;
        }
        if at >= watermark {
            return Arrival::OnTime;
        }
        if spec.on_late == OnLate::Refire {
            self.refire(spec, start, watermark, emit);
        }
        Arrival::Late
    }

    /// Puts the sample into its pane and, if that has entered the running window, into that too.
    fn add_to_pane(&mut self, spec: &HoppingSpec, start: i64, sample: Sample) -> bool {
        let mut place = self.panes.len();
        while place > 0 && self.panes[place - 1].start > start {
            place -= 1;
        }
        if place > 0 && self.panes[place - 1].start == start {
            place -= 1;
        } else {
            if self.panes.len() as i64 >= MAX_PANES {
                return false;
            }
            let summary = Summary::new(spec.needs);
            let last_end = spec.last_end(start);
            let pane = Pane {
                start,
                last_end,
                summary,
            };
            self.panes.insert(place, pane);
            self.left += usize::from(start < self.due - spec.size);
            if place == 0 {
                self.oldest_until = last_end;
            }
            if start < self.due {
                self.entered += 1;
                self.entered_until = self.entered_until.max(last_end);
            }
        }
        self.panes[place].summary.add(spec.needs, sample);
        if (self.left..self.entered).contains(&place) {
            self.rests = false;
            self.running.enter_sample(spec.needs, start, sample);
        }
        true
    }

    /// Fires again what was due and holds the pane.
    fn refire(
        &mut self,
        spec: &HoppingSpec,
        pane: i64,
        watermark: i64,
        emit: &mut impl FnMut(Fired, &Summary),
    ) {
        let last = spec.last_end(pane).min(spec.end_before(watermark));
        // Of those before it the lateness is over.
        let open = spec.end_before(watermark.saturating_sub(spec.lateness)) + spec.slide;
        let mut end = spec.first_end(pane).max(open);
        // The first is put together from its panes, and each further one from that before it.
        let before = |at: i64| self.panes.partition_point(|pane| pane.start < at);
        let mut left = before(end - spec.size);
        let mut entered = left;
        let mut running = Running::new(spec.needs);
        while end <= last {
            for pane in self.panes.range(entered..before(end)) {
                running.enter(spec.needs, pane.start, &pane.summary);
                entered += 1;
            }
            let window = spec.window(end);
            for pane in self.panes.range(left..before(window.start)) {
                running.leave(spec.needs, &pane.summary);
                left += 1;
            }
            running.expire_extremes(window.start);
            if self.is_too_coarse(&running, left..entered) {
                running.renew_total(self.fold(spec, window));
            }
            emit(Fired { window, late: true }, running.summary());
            end += spec.slide;
        }
    }

    /// The summary of a window from its panes, without the running one.
    fn fold(&self, spec: &HoppingSpec, window: Window) -> Summary {
        let mut summary = Summary::new(spec.needs);
        let inside = |pane: &&Pane| (window.start..window.end).contains(&pane.start);
        for pane in self.panes.iter().filter(inside) {
            summary.merge(spec.needs, &pane.summary);
        }
        summary
    }

    /// When the watermark next concerns this key (epoch ms): a window is to fire, or late events
    /// need no longer be waited for. `None` of an empty one.
    #[inline]
    pub fn next_due(&self, spec: &HoppingSpec) -> Option<i64> {
        if self.panes.is_empty() {
            return None;
        }
        // Without a next end all have entered.
        let over = || self.entered_until.saturating_add(spec.lateness);
        Some(self.next_end(spec).unwrap_or_else(over))
    }

    /// The end of the next window that has events in it.
    #[inline]
    fn next_end(&self, spec: &HoppingSpec) -> Option<i64> {
        match self.next {
            NO_END => None,
            UNKNOWN => self.find_next_end(spec),
            end => Some(end),
        }
    }

    fn find_next_end(&self, spec: &HoppingSpec) -> Option<i64> {
        let next = self.due.saturating_add(spec.slide);
        let has_next = self.left < self.entered && self.entered_until >= next;
        if has_next && !self.rests {
            return Some(next);
        }
        let ahead = self.panes.get(self.entered).map(|pane| pane.start);
        let enters = ahead.map(|ahead| match ahead < next {
            true => next,
            false => spec.first_end(ahead),
        });
        if !has_next {
            return enters;
        }
        // One that is without the oldest of the running one, if others stay.
        let oldest_until = match self.left {
            0 => self.oldest_until,
            left => self.panes[left].last_end,
        };
        let left = oldest_until.saturating_add(spec.slide);
        let leaves = (left <= self.entered_until).then(|| left.max(next));
        match (enters, leaves) {
            (Some(enters), Some(leaves)) => Some(enters.min(leaves)),
            (one, other) => one.or(other),
        }
    }

    /// Does what is due at [`next_due`](Self::next_due), which the watermark has reached: fires the
    /// window that ends there, if there is one with events in it, and forgets panes for which
    /// everything is too late.
    #[inline]
    pub fn fire_next(&mut self, spec: &HoppingSpec, emit: &mut impl FnMut(Fired, &Summary)) {
        if self.panes.is_empty() {
            return;
        }
        let next = self.next_end(spec);
        let due = next.unwrap_or_else(|| self.entered_until.saturating_add(spec.lateness));
        if let Some(end) = next {
            self.slide_to(spec, end);
            self.is_as_fired = true;
            let window = spec.window(end);
            emit(
                Fired {
                    window,
                    late: false,
                },
                self.running.summary(),
            );
        } else if self.due < self.entered_until {
            // Windows that did not fire while it rested.
            self.slide_to(spec, self.entered_until);
        }
        self.forget(spec, due);
        self.note_next(spec);
    }

    /// Moves the running window on to the one that ends at `end`.
    fn slide_to(&mut self, spec: &HoppingSpec, end: i64) {
        self.due = end;
        let held = (self.left, self.entered);
        while self.entered < self.panes.len() && self.panes[self.entered].start < end {
            let pane = &self.panes[self.entered];
            self.running.enter(spec.needs, pane.start, &pane.summary);
            self.entered_until = pane.last_end;
            self.entered += 1;
        }
        let from = end - spec.size;
        let leaves = self.left > 0 || self.oldest_until < end;
        while leaves && self.left < self.entered && self.panes[self.left].start < from {
            self.running
                .leave(spec.needs, &self.panes[self.left].summary);
            self.left += 1;
        }
        self.rests &= held == (self.left, self.entered);
        if self.left == self.entered {
            self.running.clear();
            return;
        }
        self.running.expire_extremes(from);
        if self.is_too_coarse(&self.running, self.left..self.entered) {
            self.running.renew_total(self.fold(spec, spec.window(end)));
        }
    }

    /// Whether the panes that a running summary holds tell more of distinct values than it does.
    fn is_too_coarse(&self, running: &Running, held: Range<usize>) -> bool {
        if running.level() == 0 {
            return false;
        }
        let levels = self.panes.range(held).map(|pane| pane.summary.level());
        running.is_too_coarse(levels.max().unwrap_or(0))
    }

    /// Drops the panes whose last window is beyond its lateness at `now`.
    #[inline]
    fn forget(&mut self, spec: &HoppingSpec, now: i64) {
        if !self.is_kept(spec, now) {
            self.drop_panes(spec, now);
        }
    }

    /// Whether the oldest pane is still needed; also where there is none.
    #[inline]
    fn is_kept(&self, spec: &HoppingSpec, now: i64) -> bool {
        let last = self.oldest_until;
        last > self.due || last.saturating_add(spec.lateness) > now
    }

    fn drop_panes(&mut self, spec: &HoppingSpec, now: i64) {
        while !self.is_kept(spec, now) {
            let pane = self.panes.pop_front();
            if let Some(pane) = pane.filter(|_| self.left == 0) {
                // It is still in the window that has just fired, the last it will be in.
                self.running.leave(spec.needs, &pane.summary);
                self.is_as_fired = false;
                self.rests = false;
            }
            self.left = self.left.saturating_sub(1);
            self.entered = self.entered.saturating_sub(1);
            self.oldest_until = self.panes.front().map_or(i64::MAX, |pane| pane.last_end);
        }
        if self.entered == 0 {
            self.entered_until = i64::MIN;
        }
        if self.panes.is_empty() {
            self.running.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pattern::aggregate::{Function, Needs};
    use crate::pattern::window::MAX_SPAN;

    fn fired(spec: &HoppingSpec, events: &[(i64, i64)], last: i64) -> Vec<(i64, i64, f64, bool)> {
        let mut state = Hopping::new(spec);
        let mut out = Vec::new();
        let mut emit = |fired: Fired, summary: &Summary| {
            let count = Function::Count.of(summary).unwrap_or(0.0);
            out.push((fired.window.start, fired.window.end, count, fired.late));
        };
        for (at, watermark) in events.iter().copied().chain([(i64::MIN, last)]) {
            while state.next_due(spec).is_some_and(|due| due <= watermark) {
                state.fire_next(spec, &mut emit);
            }
            if at > i64::MIN {
                let _ = state.insert(spec, at, Sample::number(1.0), watermark, &mut emit);
            }
        }
        assert!(state.is_empty(), "{state:?}");
        out
    }

    #[test]
    fn its_size_is_as_stated() {
        let sizes = (
            size_of::<Hopping>(),
            size_of::<Pane>(),
            size_of::<HoppingSpec>(),
        );
        assert!(
            sizes.0 <= 192 && sizes.1 <= 56 && sizes.2 <= 56,
            "{sizes:?}"
        );
    }

    #[test]
    fn windows_are_half_open_and_aligned() {
        let spec = HoppingSpec::new(10, 10, Needs::default()).expect("a tumbling window");
        let events = [(-1, -1), (0, 0), (9, 9), (10, 10), (35, 35)];
        let expected = [
            (-10, 0, 1.0, false),
            (0, 10, 2.0, false),
            (10, 20, 1.0, false),
            (30, 40, 1.0, false),
        ];
        assert_eq!(fired(&spec, &events, 1_000), expected);
        let shifted = fired(&spec.with_offset(-7), &[(2, 2), (3, 3)], 1_000);
        assert_eq!(shifted, [(-7, 3, 1.0, false), (3, 13, 1.0, false)]);
    }

    #[test]
    fn a_late_event_fires_its_windows_again_until_the_lateness_is_over() {
        let spec = HoppingSpec::new(10, 5, Needs::default()).expect("a hopping window");
        let spec = spec.with_lateness(6, OnLate::Refire).expect("in bounds");
        // At a watermark of 16 the window that ends at 10 is over, the one that ends at 15 is not.
        let found = fired(&spec, &[(7, 7), (8, 15), (9, 16), (3, 16)], 1_000);
        let expected = [
            (0, 10, 1.0, false),
            (5, 15, 1.0, false),
            (0, 10, 2.0, true),
            (5, 15, 2.0, true),
            (5, 15, 3.0, true),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn what_cannot_be_is_refused_with_its_bounds() {
        let refused =
            |size, slide| HoppingSpec::new(size, slide, Needs::default()).expect_err("bad");
        assert_eq!(
            refused(0, 1).to_string(),
            format!("the size of a window is 0 ms: it must be from 1 to {MAX_SPAN} ms")
        );
        assert!(
            refused(10, 11)
                .to_string()
                .contains("slide of a window is 11 ms")
        );
        assert!(
            refused(1_000_000, 999_999)
                .to_string()
                .contains("1000000 panes")
        );
    }
}
