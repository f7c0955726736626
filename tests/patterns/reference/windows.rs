//! `window`: which windows there are, when each closes and what is in it then, every time anew from
//! the list of all events of the key.

use partita::pattern::{Rule, Scalar, Span, Window};

use super::aggregates::{number, of_window};
use super::arrival::Applied;
use super::series::{self, Gauge, Series};
use super::{Found, Out};

/// From the first time of a window to behind its last.
#[derive(Clone, Copy, PartialEq)]
struct Bounds {
    start: i64,
    end: i64,
}

impl Bounds {
    fn holds(&self, at: i64) -> bool {
        (self.start..self.end).contains(&at)
    }
}

/// The matches, and the events for which every window has closed.
pub(super) fn run(
    rule: &Rule,
    window: &Window,
    key: &[Scalar],
    applied: &[Applied<'_>],
    end: i64,
) -> (Vec<Found>, Vec<u64>) {
    let mut windows = Windows {
        rule,
        window,
        key,
        lateness: rule.time.allowed_lateness.0 as i64,
        gauge: series::written(rule).first().map(Gauge::read),
        series: Series::default(),
        taken: Vec::new(),
        time: i64::MIN,
        matched: Vec::new(),
        matches: Vec::new(),
        late: Vec::new(),
    };
    for applied in applied {
        if applied.meets(rule, key, window.predicate) {
            windows.close_until(applied.now);
            windows.take(*applied);
        }
    }
    windows.close_until(end);
    (windows.matches, windows.late)
}

struct Windows<'a> {
    rule: &'a Rule,
    window: &'a Window,
    key: &'a [Scalar],
    lateness: i64,
    gauge: Option<Gauge>,
    /// Of the aggregate that is compared.
    series: Series,
    /// The events that were not late, as they came.
    taken: Vec<Applied<'a>>,
    /// How far time has come.
    time: i64,
    /// Windows that have matched, where they do so once.
    matched: Vec<Bounds>,
    matches: Vec<Found>,
    late: Vec<u64>,
}

impl<'a> Windows<'a> {
    fn take(&mut self, event: Applied<'a>) {
        let at = event.input.at.0;
        if let Span::Trailing { size } = self.window.span {
            self.take_trailing(event, size);
            return;
        }
        self.taken.push(event);
        let around = self.around(at);
        let is_open = |bounds: &Bounds| bounds.end + self.lateness > self.time;
        let open: Vec<Bounds> = around.into_iter().filter(is_open).collect();
        if open.is_empty() {
            self.taken.pop();
            self.late.push(event.input.position);
            return;
        }
        let out = event.out();
        for bounds in open {
            if !self.window.early {
                // One that has closed matches again, unless it is compared with others.
                if bounds.end <= self.time && self.gauge.is_none() {
                    self.judge(bounds, out, bounds.end, event);
                }
            } else if !self.matched.contains(&bounds) && self.judge(bounds, out, at, event) {
                self.matched.push(bounds);
            }
        }
    }

    /// The last `size` at the event. One behind the newest counts for those to come, as long as it is
    /// in the last `size` of the newest.
    fn take_trailing(&mut self, event: Applied<'a>, size: i64) {
        let at = event.input.at.0;
        let newest = self.taken.iter().map(|taken| taken.input.at.0).max();
        if newest.is_some_and(|newest| at <= newest - size) {
            self.late.push(event.input.position);
            return;
        }
        self.taken.push(event);
        if newest.is_none_or(|newest| at >= newest) {
            let bounds = Bounds {
                start: at - size + 1,
                end: at + 1,
            };
            self.judge(bounds, event.out(), at, event);
        }
    }

    /// The windows that an event at this time is in, in the order of their ends.
    fn around(&self, at: i64) -> Vec<Bounds> {
        let aligned = |size: i64, every: i64| {
            let starts = (at - size + 1..=at).filter(|start| start.rem_euclid(every) == 0);
            let bounds = starts.map(|start| Bounds {
                start,
                end: start + size,
            });
            bounds.collect()
        };
        match self.window.span {
            Span::Tumbling { size } => aligned(size, size),
            Span::Hopping { size, every } => aligned(size, every),
            Span::Session { gap } => {
                let mut sessions = self.sessions(gap);
                sessions.retain(|session| session.holds(at));
                sessions
            }
            Span::Trailing { .. } => Vec::new(),
        }
    }

    /// Events less than a gap apart, one to the next. A session that is over, its lateness too, takes
    /// part no more.
    fn sessions(&self, gap: i64) -> Vec<Bounds> {
        let mut times: Vec<i64> = self.taken.iter().map(|taken| taken.input.at.0).collect();
        times.sort_unstable();
        let mut sessions: Vec<Bounds> = Vec::new();
        for at in times {
            match sessions.last_mut() {
                Some(last) if at < last.end => last.end = at + gap,
                _ => sessions.push(Bounds {
                    start: at,
                    end: at + gap,
                }),
            }
        }
        sessions
    }

    /// Windows that close by the time `now` match.
    fn close_until(&mut self, now: i64) {
        if !self.window.early {
            let times = self.taken.iter().map(|taken| taken.input.at.0);
            let mut closing: Vec<Bounds> = Vec::new();
            for bounds in times.flat_map(|at| self.around(at)) {
                if self.time < bounds.end && bounds.end <= now && !closing.contains(&bounds) {
                    closing.push(bounds);
                }
            }
            closing.sort_by_key(|bounds| bounds.end);
            for bounds in closing {
                self.time = bounds.end;
                let inside = self.taken.iter().filter(|it| bounds.holds(it.input.at.0));
                let last = inside.max_by_key(|it| it.input.at).copied();
                let last = last.expect("a window has events");
                self.judge(bounds, Out::Time(bounds.end), bounds.end, last);
            }
        }
        self.time = self.time.max(now);
        if let Span::Session { gap } = self.window.span {
            let mut sessions = self.sessions(gap);
            sessions.retain(|session| session.end + self.lateness <= self.time);
            let is_over = |at: i64| sessions.iter().any(|session| session.holds(at));
            self.taken.retain(|taken| !is_over(taken.input.at.0));
        }
    }

    /// A match where the aggregates of a window meet the rule; `by` is the event it is known by.
    fn judge(&mut self, bounds: Bounds, out: Out, at: i64, by: Applied<'a>) -> bool {
        let events = self.taken.iter().map(|taken| taken.input);
        let inside: Vec<_> = events.filter(|it| bounds.holds(it.at.0)).collect();
        let values = of_window(self.window, &inside);
        if let (Some(gauge), Some((aggregate, _))) = (&self.gauge, &self.window.gauge) {
            let Some(value) = number(&values[usize::from(*aggregate)]) else {
                return false;
            };
            let now = self.time;
            if !self.series.takes(gauge, bounds.end, value, now) {
                return false;
            }
        }
        let having = self.window.having.as_ref();
        if having.is_some_and(|having| {
            having.holds(self.rule, self.window, &values, self.key) != Some(true)
        }) {
            return false;
        }
        let events = vec![(self.window.name, by.input.position)];
        self.matches.push(Found { out, at, events });
        true
    }
}
