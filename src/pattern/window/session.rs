//! Session windows of one key: bursts of events with a pause of at least `gap` between them.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::{Arrival, Fired, MAX_SPAN, MAX_TIME, OnLate, Window, WindowError, check_span};
use crate::pattern::aggregate::{Needs, Sample, Summary};

/// The most sessions that a key may have open at once, ahead of the watermark and behind.
const MAX_OPEN: usize = 1_000;

/// What kind of session window, checked. 24 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionSpec {
    gap: i64,
    lateness: i64,
    on_late: OnLate,
    needs: Needs,
}

impl SessionSpec {
    /// Sessions that end when nothing came for `gap` ms, 1 to [`MAX_SPAN`].
    ///
    /// # Errors
    /// Where the gap is out of bounds.
    pub fn new(gap: i64, needs: Needs) -> Result<SessionSpec, WindowError> {
        Ok(SessionSpec {
            gap: check_span("gap", gap, 1, MAX_SPAN)?,
            lateness: 0,
            on_late: OnLate::default(),
            needs,
        })
    }

    /// The same, with late events accepted until the watermark is `lateness` ms past the end.
    ///
    /// # Errors
    /// Where the lateness is not from 0 to [`MAX_SPAN`].
    pub fn with_lateness(self, lateness: i64, on_late: OnLate) -> Result<SessionSpec, WindowError> {
        let lateness = check_span("allowed lateness", lateness, 0, MAX_SPAN)?;
        Ok(SessionSpec {
            lateness,
            on_late,
            ..self
        })
    }
}

/// The sessions of one key: `[first event, last event + gap)`, half open, so that two events
/// exactly a gap apart are in two sessions, whatever order they came in. (Flink merges sessions
/// that touch, if the first has not fired by then.) An event may join two sessions into one. 32
/// bytes, 64 for each open session, and what its [`Summary`] states.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sessions {
    /// Ascending, and at least a gap apart.
    open: VecDeque<Session>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Session {
    window: Window,
    has_fired: bool,
    summary: Summary,
}

impl Sessions {
    /// Whether nothing is held and nothing will fire.
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// How many sessions are open, or wait for late events.
    pub fn len(&self) -> usize {
        self.open.len()
    }

    /// Takes in an event at `at` (epoch ms, at most 2⁶¹ in size). All sessions that end at or
    /// before `watermark` have been fired ([`fire_next`](Self::fire_next)); one that the event
    /// changes and that may fire again is handed to `emit`.
    pub fn insert(
        &mut self,
        spec: &SessionSpec,
        at: i64,
        sample: Sample,
        watermark: i64,
        emit: &mut impl FnMut(Fired, &Summary),
    ) -> Arrival {
        if at.unsigned_abs() > MAX_TIME {
            return Arrival::Overflow;
        }
        // The sessions that the event belongs to: at most the one before it and the one after.
        let place = self.open.partition_point(|it| it.window.end <= at);
        let joins = |it: &&Session| it.window.start - at < spec.gap;
        let joined = self.open.range(place..).take_while(joins).count();
        let mut window = Window {
            start: at,
            end: at + spec.gap,
        };
        if joined > 0 {
            window.start = window.start.min(self.open[place].window.start);
            window.end = window.end.max(self.open[place + joined - 1].window.end);
        }
        if window.end.saturating_add(spec.lateness) <= watermark {
            return Arrival::TooLate;
        }
        if joined == 0 {
            if self.open.len() >= MAX_OPEN {
                return Arrival::Overflow;
            }
            let summary = Summary::new(spec.needs);
            self.open.insert(
                place,
                Session {
                    window,
                    has_fired: false,
                    summary,
                },
            );
        }
        for _ in 1..joined {
            if let Some(next) = self.open.remove(place + 1) {
                self.open[place].summary.merge(spec.needs, &next.summary);
            }
        }
        let session = &mut self.open[place];
        session.window = window;
        session.summary.add(spec.needs, sample);
        session.has_fired = window.end <= watermark;
        if session.has_fired && spec.on_late == OnLate::Refire {
            emit(Fired { window, late: true }, &session.summary);
        }
        if at >= watermark {
            Arrival::OnTime
        } else {
            Arrival::Late
        }
    }

    /// When the watermark next concerns this key (epoch ms): a session is to fire, or late events
    /// need no longer be waited for. `None` of an empty one.
    pub fn next_due(&self, spec: &SessionSpec) -> Option<i64> {
        let front = self.open.front()?;
        let forgotten = |it: &Session| it.window.end.saturating_add(spec.lateness);
        let firing = self.open.iter().find(|it| !it.has_fired);
        let fires = firing.map_or(i64::MAX, |it| it.window.end);
        Some(if front.has_fired {
            fires.min(forgotten(front))
        } else {
            fires
        })
    }

    /// Does what is due at [`next_due`](Self::next_due), which `watermark` has reached: fires the
    /// sessions that end there, and forgets those for which everything is too late.
    pub fn fire_next(&mut self, spec: &SessionSpec, emit: &mut impl FnMut(Fired, &Summary)) {
        let Some(due) = self.next_due(spec) else {
            return;
        };
        let is_due = |it: &&mut Session| !it.has_fired && it.window.end <= due;
        for session in self.open.iter_mut().filter(is_due) {
            session.has_fired = true;
            let window = session.window;
            emit(
                Fired {
                    window,
                    late: false,
                },
                &session.summary,
            );
        }
        let is_over =
            |it: &Session| it.has_fired && it.window.end.saturating_add(spec.lateness) <= due;
        while self.open.front().is_some_and(is_over) {
            self.open.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn its_size_is_as_stated() {
        let sizes = (
            size_of::<Sessions>(),
            size_of::<Session>(),
            size_of::<SessionSpec>(),
        );
        assert!(sizes.0 <= 32 && sizes.1 <= 64 && sizes.2 <= 24, "{sizes:?}");
    }

    #[test]
    fn an_event_between_two_sessions_joins_them() {
        let spec = SessionSpec::new(10, Needs::default()).expect("a session");
        let mut state = Sessions::default();
        let mut out = Vec::new();
        let mut emit = |fired: Fired, summary: &Summary| {
            out.push((fired.window.start, fired.window.end, summary.events()));
        };
        for at in [0, 10, 25, 19] {
            let arrival = state.insert(&spec, at, Sample::MISSING, 0, &mut emit);
            assert_eq!(arrival, Arrival::OnTime);
        }
        while !state.is_empty() {
            state.fire_next(&spec, &mut emit);
        }
        assert_eq!(
            out,
            [(0, 10, 1), (10, 35, 3)],
            "10 is exactly a gap after 0"
        );
    }

    #[test]
    fn a_late_event_fires_its_session_again() {
        let spec = SessionSpec::new(10, Needs::default()).expect("a session");
        let spec = spec.with_lateness(5, OnLate::Refire).expect("in bounds");
        let mut state = Sessions::default();
        let mut out = Vec::new();
        let mut emit = |fired: Fired, summary: &Summary| {
            out.push((
                fired.window.start,
                fired.window.end,
                summary.events(),
                fired.late,
            ));
        };
        let _ = state.insert(&spec, 0, Sample::MISSING, 0, &mut emit);
        state.fire_next(&spec, &mut emit);
        assert_eq!(
            state.insert(&spec, 2, Sample::MISSING, 12, &mut emit),
            Arrival::Late
        );
        assert_eq!(
            state.insert(&spec, -3, Sample::MISSING, 12, &mut emit),
            Arrival::Late
        );
        assert_eq!(
            state.insert(&spec, -14, Sample::MISSING, 12, &mut emit),
            Arrival::TooLate
        );
        assert_eq!(
            out,
            [(0, 10, 1, false), (0, 12, 2, true), (-3, 12, 3, true)]
        );
        assert_eq!(state.next_due(&spec), Some(17));
        state.fire_next(&spec, &mut |_, _| panic!("it has fired"));
        assert!(state.is_empty());
    }
}
