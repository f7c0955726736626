//! The window "over the last W", which every event ends anew.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::running::Running;
use super::{Arrival, MAX_SPAN, WindowError, check_span};
use crate::pattern::aggregate::{Needs, Sample, Summary};

/// What kind of trailing window, checked. 24 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrailingSpec {
    size: i64,
    max_samples: usize,
    needs: Needs,
}

impl TrailingSpec {
    /// The last `size` ms, 1 to [`MAX_SPAN`], of which the newest `max_samples` events, at least
    /// one, are kept.
    ///
    /// # Errors
    /// Where the size is out of bounds.
    pub fn new(size: i64, max_samples: usize, needs: Needs) -> Result<TrailingSpec, WindowError> {
        Ok(TrailingSpec {
            size: check_span("size", size, 1, MAX_SPAN)?,
            max_samples: max_samples.max(1),
            needs,
        })
    }
}

/// The trailing window of one key. At time t it holds the events of (t − size, t], t being the
/// newest event's time: an event exactly `size` ms old has left. 88 bytes, 24 for each event held,
/// and what its [`Summary`] states. Amortised constant work per event.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Trailing {
    /// Ascending by time, ties in the order of arrival.
    points: VecDeque<Point>,
    running: Running,
    dropped: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
struct Point {
    at: i64,
    sample: Sample,
}

impl Trailing {
    /// A key without events.
    pub fn new(spec: &TrailingSpec) -> Trailing {
        Trailing {
            points: VecDeque::new(),
            running: Running::new(spec.needs),
            dropped: 0,
        }
    }

    /// Takes in an event at `at` (epoch ms), after which [`summary`](Self::summary) is that of the
    /// window which the newest event ends. A late event within the window takes its place there; an
    /// older one is [`Arrival::TooLate`] and changes nothing.
    pub fn insert(&mut self, spec: &TrailingSpec, at: i64, sample: Sample) -> Arrival {
        let newest = self.points.back().map_or(i64::MIN, |point| point.at);
        if newest > i64::MIN && at <= newest.saturating_sub(spec.size) {
            return Arrival::TooLate;
        }
        let mut place = self.points.len();
        while place > 0 && self.points[place - 1].at > at {
            place -= 1;
        }
        self.points.insert(place, Point { at, sample });
        self.running.enter_sample(spec.needs, at, sample);
        self.expire_at(spec, newest.max(at));
        if self.points.len() > spec.max_samples {
            self.drop_oldest(spec);
        }
        if at >= newest {
            Arrival::OnTime
        } else {
            Arrival::Late
        }
    }

    /// Forgets what is not of the last `size` ms at `now` (epoch ms), which may be past the newest
    /// event. An empty window can be thrown away.
    pub fn expire_at(&mut self, spec: &TrailingSpec, now: i64) {
        let from = now.saturating_sub(spec.size).saturating_add(1);
        while let Some(point) = self.points.front().filter(|point| point.at < from) {
            self.running.leave_sample(spec.needs, point.sample);
            self.points.pop_front();
        }
        self.running.expire_extremes(from);
        self.renew_distinct(spec);
    }

    /// Over the bound, the oldest event leaves early. Its extremes go with all of its millisecond,
    /// and come back with those that stay.
    fn drop_oldest(&mut self, spec: &TrailingSpec) {
        let Some(oldest) = self.points.pop_front() else {
            return;
        };
        self.dropped += 1;
        self.running.leave_sample(spec.needs, oldest.sample);
        self.running.expire_extremes(oldest.at.saturating_add(1));
        let together = self.points.iter().take_while(|point| point.at == oldest.at);
        for point in together {
            self.running.note_sample(point.at, point.sample);
        }
    }

    fn renew_distinct(&mut self, spec: &TrailingSpec) {
        if self.running.is_too_coarse(0) {
            let mut total = Summary::new(spec.needs);
            self.points
                .iter()
                .for_each(|point| total.add(spec.needs, point.sample));
            self.running.renew_total(total);
        }
    }

    /// The summary of the window.
    pub fn summary(&mut self) -> &Summary {
        self.running.summary()
    }

    /// How many events have left early because of `max_samples`.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// How many events are held.
    pub fn len(&self) -> usize {
        self.points.len()
    }

    /// Whether no event is held.
    pub fn is_empty(&self) -> bool {
        self.points.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pattern::aggregate::Function;

    #[test]
    fn its_size_is_as_stated() {
        let sizes = (
            size_of::<Trailing>(),
            size_of::<Point>(),
            size_of::<TrailingSpec>(),
        );
        assert!(sizes.0 <= 88 && sizes.1 == 24 && sizes.2 <= 24, "{sizes:?}");
    }

    #[test]
    fn the_window_ends_with_the_newest_event_and_leaves_out_what_is_exactly_its_size_old() {
        let needs = Needs::of(&[Function::Max]);
        let spec = TrailingSpec::new(10, 3, needs).expect("a window");
        let mut state = Trailing::new(&spec);
        let mut seen = Vec::new();
        for (at, value) in [
            (0, 9.0),
            (9, 1.0),
            (10, 2.0),
            (5, 7.0),
            (0, 99.0),
            (15, 3.0),
        ] {
            let arrival = state.insert(&spec, at, Sample::number(value));
            let summary = state.summary();
            seen.push((arrival, summary.events(), summary.max()));
        }
        let expected = [
            (Arrival::OnTime, 1, Some(9.0)),
            (Arrival::OnTime, 2, Some(9.0)),
            (Arrival::OnTime, 2, Some(2.0)),
            (Arrival::Late, 3, Some(7.0)),
            (Arrival::TooLate, 3, Some(7.0)),
            (Arrival::OnTime, 3, Some(3.0)),
        ];
        assert_eq!(seen, expected);
        let _ = state.insert(&spec, 15, Sample::number(0.0));
        assert_eq!(
            (state.dropped(), state.len()),
            (1, 3),
            "the bound of three is met by one less"
        );
    }
}
