//! Windows with aggregates: a match for each window whose aggregates meet the rule's threshold, at
//! its close, at each event (a trailing window), or as soon as they do (early).
//!
//! Every field that is aggregated has windows of its own, all fed with every event of the key, so
//! that they open and close together.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};
use smallvec::SmallVec;

use super::measured::observe;
use super::shown::Shown;
use super::{Shaped, Step};
use crate::model::{Json, Timestamp};
use crate::pattern::aggregate::{Needs, Sample, Summary};
use crate::pattern::event::{Event, Scalar, Taken};
use crate::pattern::gauge::{Memory, Reading};
use crate::pattern::rule::{Span, Window as Shape};
use crate::pattern::window::{
    Arrival, Fired, Hopping, HoppingSpec, MAX_TIME, OnLate, SessionSpec, Sessions, Trailing,
    TrailingSpec, Window,
};

#[derive(Debug)]
pub(super) struct Windows {
    shape: Shape,
    /// By sample.
    specs: Vec<Spec>,
    lateness: i64,
}

/// What the windows of one field are made of.
#[derive(Debug)]
enum Spec {
    Hopping(HoppingSpec),
    Session(SessionSpec),
    Trailing(TrailingSpec),
    Early { size: i64, needs: Needs },
}

/// The windows of one key.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct State {
    /// By sample. Mostly there is one, in place: of many keys each look elsewhere waits for memory.
    #[serde(with = "super::few")]
    samples: SmallVec<[Kept; 1]>,
    /// What the gauge has learned of windows before.
    memory: Option<Box<Memory>>,
    /// Event time of the newest event.
    newest: i64,
    /// That event: what the match of a window that closes is known by.
    last: Cause,
}

/// The event that a match is known by: position and order.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
struct Cause(u64, u64);

#[derive(Debug, Serialize, Deserialize)]
enum Kept {
    Hopping(Hopping),
    Session(Sessions),
    Trailing(Trailing),
    /// Open windows, ascending by start.
    Early(VecDeque<Open>),
}

#[derive(Debug, Serialize, Deserialize)]
struct Open {
    start: i64,
    summary: Summary,
    is_matched: bool,
}

/// A window that is due, and its aggregates as far as they were read.
struct Due {
    window: Window,
    values: Vec<Scalar>,
}

/// What became of a window.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Match,
    Not,
    /// Nor will any other window of the key that holds the same.
    NotByWhatItHolds,
}

/// Aggregates of a window for which no room is made anew.
const FEW: usize = 4;

impl Windows {
    /// `lateness` in ms; `most` events are kept by a trailing window.
    pub(super) fn new(shape: &Shape, lateness: i64, most: usize) -> Self {
        let specs = (0..shape.samples.len()).map(|sample| {
            let functions: Vec<_> = shape
                .aggregates
                .iter()
                .filter(|aggregate| usize::from(aggregate.sample) == sample)
                .map(|aggregate| aggregate.function)
                .collect();
            let needs = Needs::of(&functions);
            const CHECKED: &str = "the syntax has checked the spans";
            match shape.span {
                Span::Tumbling { size } if shape.early => Spec::Early { size, needs },
                Span::Tumbling { size } => {
                    let spec = HoppingSpec::new(size, size, needs).expect(CHECKED);
                    Spec::Hopping(spec.with_lateness(lateness, OnLate::Refire).expect(CHECKED))
                }
                Span::Hopping { size, every } => {
                    let spec = HoppingSpec::new(size, every, needs).expect(CHECKED);
                    Spec::Hopping(spec.with_lateness(lateness, OnLate::Refire).expect(CHECKED))
                }
                Span::Session { gap } => {
                    let spec = SessionSpec::new(gap, needs).expect(CHECKED);
                    Spec::Session(spec.with_lateness(lateness, OnLate::Refire).expect(CHECKED))
                }
                Span::Trailing { size } => {
                    Spec::Trailing(TrailingSpec::new(size, most, needs).expect(CHECKED))
                }
            }
        });
        let specs = specs.collect();
        let gauge = shape.gauge.clone();
        let gauge = gauge.map(|(aggregate, gauge)| (aggregate, gauge.with_lateness(lateness)));
        Self {
            specs,
            shape: Shape {
                gauge,
                ..shape.clone()
            },
            lateness,
        }
    }

    fn sample(&self, sample: usize, event: &Event<'_>) -> Sample {
        let Some(slot) = self.shape.samples[sample] else {
            return Sample::MISSING;
        };
        let value = &event.slots[usize::from(slot)];
        match value {
            Scalar::Missing | Scalar::Null => Sample::MISSING,
            Scalar::Text(text) => Sample::bytes(text.as_bytes()),
            // A zero before them tells them from the text that reads the same.
            Scalar::Bool(true) => Sample::bytes(b"\0true"),
            Scalar::Bool(false) => Sample::bytes(b"\0false"),
            Scalar::Container(json) => Sample::bytes(&[b"\0", json.as_str().as_bytes()].concat()),
            Scalar::Int(value) => Sample::integer(*value),
            Scalar::Float(value) => Sample::number(*value),
        }
    }

    /// Reads the aggregates of one sample's window into the windows that are due.
    fn read(&self, sample: usize, place: usize, window: Window, of: &Summary, due: &mut Vec<Due>) {
        if due.len() <= place {
            let values = vec![Scalar::Missing; self.shape.aggregates.len()];
            due.push(Due { window, values });
        }
        for (aggregate, value) in self.shape.aggregates.iter().zip(&mut due[place].values) {
            if usize::from(aggregate.sample) == sample {
                *value = aggregate.value(of);
            }
        }
    }

    /// As [`Windows::judge`] where all aggregates are of one sample: they are read in place.
    fn judge_one(
        &self,
        memory: &mut Option<Box<Memory>>,
        (window, of): (Window, &Summary),
        at: i64,
        by: Cause,
        step: &mut Step<'_>,
    ) -> Verdict {
        let aggregates = &self.shape.aggregates;
        let mut few = [const { Scalar::Missing }; FEW];
        let mut many = Vec::new();
        let values = match few.get_mut(..aggregates.len()) {
            Some(few) => few,
            None => {
                many.resize(aggregates.len(), Scalar::Missing);
                &mut many[..]
            }
        };
        for (aggregate, value) in aggregates.iter().zip(&mut *values) {
            *value = aggregate.value(of);
        }
        self.judge(memory, window, values, at, by, step)
    }

    /// One match where the aggregates of a window meet the rule.
    fn judge(
        &self,
        memory: &mut Option<Box<Memory>>,
        window: Window,
        values: &[Scalar],
        at: i64,
        by: Cause,
        step: &mut Step<'_>,
    ) -> Verdict {
        if !step.may_begin(Timestamp(window.start)) {
            return Verdict::Not;
        }
        let reading = match &self.shape.gauge {
            None => None,
            Some((aggregate, gauge)) => {
                let Some(value) = values[usize::from(*aggregate)].number() else {
                    return Verdict::Not;
                };
                let memory = memory.get_or_insert_with(|| Box::new(gauge.memory()));
                let Some(reading) = observe(gauge, memory, window.end, value, step) else {
                    return Verdict::Not;
                };
                Some(reading)
            }
        };
        if let Some(having) = &self.shape.having {
            match having.holds(step.rule, &self.shape, values, step.key) {
                Some(true) => {}
                Some(false) if self.shape.gauge.is_none() => return Verdict::NotByWhatItHolds,
                Some(false) => return Verdict::Not,
                None => {
                    step.out.condition_errors += 1;
                    return Verdict::Not;
                }
            }
        }
        let taken = Taken {
            at: Timestamp(at),
            order: by.1,
            position: by.0,
            slots: None,
            payload: self.shown(window, values, reading, step),
        };
        step.emit(Timestamp(at), vec![(self.shape.name, taken)]);
        Verdict::Match
    }

    /// What `matches` shows of a window.
    fn shown(
        &self,
        window: Window,
        values: &[Scalar],
        reading: Option<Reading>,
        step: &Step<'_>,
    ) -> Json {
        let (from, end) = (Timestamp(window.start), Timestamp(window.end));
        let depth = step.depths.map_or(0, |depths| depths.within(from, end));
        let shown = Shown {
            aggregates: &self.shape.aggregates,
            window,
            values,
            reading,
            depth,
        };
        Json::from_serialize(&shown).expect("its members have names")
    }

    fn add_early(&self, state: &mut State, event: &Event<'_>, step: &mut Step<'_>) {
        let Some(Spec::Early { size, .. }) = self.specs.first() else {
            return;
        };
        let start = event.at.0.div_euclid(*size) * size;
        let window = Window {
            start,
            end: start.saturating_add(*size),
        };
        if window.end.saturating_add(self.lateness) <= step.now.0 {
            step.out.late.push(event.position);
            return;
        }
        let mut due = Vec::new();
        let mut is_matched = false;
        for (sample, spec) in self.specs.iter().enumerate() {
            let (Spec::Early { needs, .. }, Kept::Early(open)) = (spec, &mut state.samples[sample])
            else {
                return;
            };
            let place = open.partition_point(|open| open.start < start);
            if open.get(place).is_none_or(|open| open.start != start) {
                let opened = Open {
                    start,
                    summary: Summary::new(*needs),
                    is_matched: false,
                };
                open.insert(place, opened);
            }
            open[place].summary.add(*needs, self.sample(sample, event));
            is_matched |= open[place].is_matched;
            self.read(sample, 0, window, &open[place].summary, &mut due);
        }
        if is_matched {
            return;
        }
        for due in due {
            let by = Cause(event.position, step.order);
            let Due { window, values } = due;
            if self.judge(&mut state.memory, window, &values, event.at.0, by, step)
                == Verdict::Match
                && let Some(Kept::Early(open)) = state.samples.first_mut()
                && let Some(open) = open.iter_mut().find(|open| open.start == start)
            {
                open.is_matched = true;
            }
        }
    }

    fn add_trailing(&self, state: &mut State, event: &Event<'_>, step: &mut Step<'_>) {
        let mut due = Vec::new();
        let mut arrival = Arrival::OnTime;
        let mut dropped = 0;
        for (sample, spec) in self.specs.iter().enumerate() {
            let value = self.sample(sample, event);
            let (Spec::Trailing(spec), Kept::Trailing(kept)) = (spec, &mut state.samples[sample])
            else {
                return;
            };
            let before = kept.dropped();
            arrival = kept.insert(spec, event.at.0, value);
            dropped = kept.dropped() - before;
            let Span::Trailing { size } = self.shape.span else {
                return;
            };
            let window = Window {
                start: event.at.0.saturating_sub(size).saturating_add(1),
                end: event.at.0.saturating_add(1),
            };
            self.read(sample, 0, window, kept.summary(), &mut due);
        }
        if dropped > 0 {
            step.overflow("max_partials_per_key", dropped);
        }
        match arrival {
            Arrival::OnTime if event.at.0 >= state.newest => {
                for Due { window, values } in due {
                    let by = Cause(event.position, step.order);
                    self.judge(&mut state.memory, window, &values, event.at.0, by, step);
                }
            }
            // It counts in the windows of the events to come.
            Arrival::OnTime | Arrival::Late => {}
            Arrival::TooLate => step.out.late.push(event.position),
            Arrival::Overflow => step.overflow("windows", 1),
        }
    }

    fn add_closing(&self, state: &mut State, event: &Event<'_>, step: &mut Step<'_>) {
        let mut due = Vec::new();
        let mut arrival = Arrival::OnTime;
        for (sample, spec) in self.specs.iter().enumerate() {
            let value = self.sample(sample, event);
            let mut place = 0;
            let mut emit = |fired: Fired, summary: &Summary| {
                self.read(sample, place, fired.window, summary, &mut due);
                place += 1;
            };
            let (at, now) = (event.at.0, step.now.0);
            arrival = match (spec, &mut state.samples[sample]) {
                (Spec::Hopping(spec), Kept::Hopping(kept)) => {
                    kept.insert(spec, at, value, now, &mut emit)
                }
                (Spec::Session(spec), Kept::Session(kept)) => {
                    kept.insert(spec, at, value, now, &mut emit)
                }
                _ => return,
            };
        }
        match arrival {
            Arrival::OnTime | Arrival::Late => {}
            Arrival::TooLate => step.out.late.push(event.position),
            Arrival::Overflow => step.overflow("windows", 1),
        }
        // Windows that had fired and do so again, because of this event. What they were at their close has
        // been compared and learned, and would be what they are compared with now.
        if self.shape.gauge.is_some() {
            return;
        }
        for Due { window, values } in due {
            let (at, by) = (window.end, Cause(event.position, step.order));
            self.judge(&mut state.memory, window, &values, at, by, step);
        }
    }

    /// Fires what closed by now.
    fn close(&self, state: &mut State, step: &mut Step<'_>) {
        while self.next_due(state).is_some_and(|due| due <= step.now.0) {
            if let ([spec], [kept]) = (&self.specs[..], &mut state.samples[..]) {
                let (memory, by) = (&mut state.memory, state.last);
                let mut verdict = Verdict::Not;
                let mut emit = |fired: Fired, of: &Summary| {
                    let at = fired.window.end;
                    verdict = self.judge_one(memory, (fired.window, of), at, by, step);
                };
                match (spec, kept) {
                    (Spec::Hopping(spec), Kept::Hopping(kept)) => {
                        kept.fire_next(spec, &mut emit);
                        if verdict == Verdict::NotByWhatItHolds {
                            kept.rest(spec);
                        }
                        continue;
                    }
                    (Spec::Session(spec), Kept::Session(kept)) => {
                        kept.fire_next(spec, &mut emit);
                        continue;
                    }
                    _ => {}
                }
            }
            let mut due = Vec::new();
            for (sample, spec) in self.specs.iter().enumerate() {
                let mut place = 0;
                let mut emit = |fired: Fired, summary: &Summary| {
                    self.read(sample, place, fired.window, summary, &mut due);
                    place += 1;
                };
                match (spec, &mut state.samples[sample]) {
                    (Spec::Hopping(spec), Kept::Hopping(kept)) => kept.fire_next(spec, &mut emit),
                    (Spec::Session(spec), Kept::Session(kept)) => kept.fire_next(spec, &mut emit),
                    (Spec::Early { size, .. }, Kept::Early(open)) => {
                        let ends = |open: &Open| open.start + size + self.lateness;
                        while open.front().is_some_and(|open| ends(open) <= step.now.0) {
                            open.pop_front();
                        }
                    }
                    (_, kept) => *kept = self.empty(sample),
                }
            }
            for Due { window, values } in due {
                let (at, by) = (window.end, state.last);
                let verdict = self.judge(&mut state.memory, window, &values, at, by, step);
                if verdict == Verdict::NotByWhatItHolds {
                    for (spec, kept) in self.specs.iter().zip(&mut state.samples) {
                        if let (Spec::Hopping(spec), Kept::Hopping(kept)) = (spec, kept) {
                            kept.rest(spec);
                        }
                    }
                }
            }
        }
    }

    /// When something of the windows is due; they open and close together, so the first tells.
    fn next_due(&self, state: &State) -> Option<i64> {
        match (self.specs.first()?, state.samples.first()?) {
            (Spec::Hopping(spec), Kept::Hopping(kept)) => kept.next_due(spec),
            (Spec::Session(spec), Kept::Session(kept)) => kept.next_due(spec),
            (Spec::Early { size, .. }, Kept::Early(open)) => {
                Some(open.front()?.start + size + self.lateness)
            }
            (Spec::Trailing(_), Kept::Trailing(kept)) if !kept.is_empty() => {
                let Span::Trailing { size } = self.shape.span else {
                    return None;
                };
                // An event that is not too late yet looks back by `size` from as far behind.
                let reach = size.saturating_mul(2).saturating_add(self.lateness);
                Some(state.newest.saturating_add(reach))
            }
            _ => None,
        }
    }

    /// Whether an event at `at` is in a window that may begin.
    fn is_of_use(&self, state: &State, at: i64, step: &Step<'_>) -> bool {
        let first = match self.shape.span {
            Span::Tumbling { size } => at.div_euclid(size).saturating_mul(size),
            Span::Hopping { size, every } => {
                let before = at.saturating_sub(size).div_euclid(every);
                (before + 1).saturating_mul(every)
            }
            Span::Trailing { size } => at.saturating_sub(size).saturating_add(1),
            Span::Session { gap } if at < state.newest.saturating_add(gap) => return true,
            Span::Session { .. } => at,
        };
        step.may_begin(Timestamp(first))
    }

    fn empty(&self, sample: usize) -> Kept {
        match &self.specs[sample] {
            Spec::Hopping(spec) => Kept::Hopping(Hopping::new(spec)),
            Spec::Session(_) => Kept::Session(Sessions::default()),
            Spec::Trailing(spec) => Kept::Trailing(Trailing::new(spec)),
            Spec::Early { .. } => Kept::Early(VecDeque::new()),
        }
    }

    fn forgotten_at(&self, state: &State) -> Option<i64> {
        let (_, gauge) = self.shape.gauge.as_ref()?;
        Some(gauge.forgotten_at(state.memory.as_ref()?))
    }
}

impl Shaped for Windows {
    type State = State;
    const HIDES_EVENTS: bool = true;

    fn event(&self, state: &mut State, event: &Event<'_>, met: u64, step: &mut Step<'_>) {
        if met >> self.shape.predicate & 1 == 0 {
            return;
        }
        if event.at.0.unsigned_abs() > MAX_TIME {
            step.overflow("windows", 1);
            return;
        }
        if !self.is_of_use(state, event.at.0, step) {
            // Those behind it are behind all the same.
            state.newest = state.newest.max(event.at.0);
            return;
        }
        if state.samples.is_empty() {
            state.newest = i64::MIN;
            // Put one by one where they will be: it is large, and keys may come and go with each event.
            for sample in 0..self.specs.len() {
                state.samples.push(self.empty(sample));
            }
        }
        if event.at.0 >= state.newest {
            state.newest = event.at.0;
            state.last = Cause(event.position, step.order);
        }
        match self.specs.first() {
            Some(Spec::Early { .. }) => self.add_early(state, event, step),
            Some(Spec::Trailing(_)) => self.add_trailing(state, event, step),
            _ => self.add_closing(state, event, step),
        }
    }

    fn expire(&self, state: &mut State, step: &mut Step<'_>) {
        if self
            .forgotten_at(state)
            .is_some_and(|due| due <= step.now.0)
        {
            state.memory = None;
        }
        self.close(state, step);
    }

    fn deadline(&self, state: &State) -> Option<Timestamp> {
        let forgotten = self.forgotten_at(state);
        let due = self.next_due(state).into_iter().chain(forgotten).min();
        due.map(Timestamp)
    }

    /// In place, since it is large.
    fn clear(&self, state: &mut State) {
        state.samples.clear();
        state.memory = None;
        state.newest = 0;
        state.last = Cause::default();
    }

    #[inline]
    fn near(&self, state: &State) -> u64 {
        let kept = match state.samples.first() {
            Some(Kept::Hopping(kept)) => kept.near(),
            _ => 0,
        };
        kept ^ state.newest as u64 ^ state.last.0
    }

    #[inline]
    fn far(&self, state: &State) -> u64 {
        match state.samples.first() {
            Some(Kept::Hopping(kept)) => kept.far(),
            _ => 0,
        }
    }

    fn is_idle(&self, state: &State) -> bool {
        state.memory.is_none() && self.next_due(state).is_none()
    }

    /// Of the first sample: the others have as many.
    fn partials(&self, state: &State) -> usize {
        match state.samples.first() {
            None => 0,
            Some(Kept::Hopping(kept)) => kept.panes(),
            Some(Kept::Session(kept)) => kept.len(),
            Some(Kept::Trailing(kept)) => kept.len(),
            Some(Kept::Early(open)) => open.len(),
        }
    }

    /// Without some of its events a window would show a wrong sum, so all of the key go at once.
    fn shed(&self, state: &mut State, _: usize, _: &mut Step<'_>) {
        state.samples = (0..self.specs.len()).map(|it| self.empty(it)).collect();
    }
}
