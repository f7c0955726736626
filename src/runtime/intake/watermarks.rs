//! How far event time has come at the partitions of sources, and what of it has been told.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::model::{Json, Timestamp};
use crate::pattern::Recorded;
use crate::pattern::filter::Clock;

/// Each clock of a source partition is told so often at most: every partition of `signals` gets a copy.
const TELL_EVERY: Duration = Duration::from_millis(100);

/// One that does not go on is told again so often while events come, or wait to be read: a source that says
/// nothing is taken for idle.
const TELL_AGAIN_EVERY: Duration = Duration::from_millis(500);

/// Of what is committed with an offset, in bytes: the least that services of this protocol allow is 1,024.
const MAX_NOTE: usize = 1_000;

/// The clocks of one source partition.
#[derive(Debug, Default)]
pub(super) struct Watermarks {
    clocks: BTreeMap<String, Latest>,
}

#[derive(Clone, Copy, Debug)]
struct Latest {
    seen: Timestamp,
    /// Seen in what has been committed.
    kept: Option<Timestamp>,
    told: Option<Told>,
    /// Whether an event came since it was told.
    is_heard: bool,
}

#[derive(Clone, Copy, Debug)]
struct Told {
    at: Timestamp,
    when: Instant,
}

impl Latest {
    fn is_due(&self, now: Instant) -> bool {
        self.told.is_none_or(|told| {
            let elapsed = now.saturating_duration_since(told.when);
            let goes_on = self.seen > told.at && elapsed >= TELL_EVERY;
            goes_on || (self.is_heard && elapsed >= TELL_AGAIN_EVERY)
        })
    }
}

impl Watermarks {
    /// As they were when [`Watermarks::note`] was written; none of them has been told.
    pub(super) fn from_note(note: &str) -> Self {
        let noted: BTreeMap<String, i64> = serde_json::from_str(note).unwrap_or_default();
        let clocks = noted.into_iter().map(|(name, at)| {
            let latest = Latest {
                seen: Timestamp(at),
                kept: Some(Timestamp(at)),
                told: None,
                is_heard: true,
            };
            (name, latest)
        });
        Self {
            clocks: clocks.collect(),
        }
    }

    /// What a successor needs to know once what is due at `now` was told, to be committed with the position:
    /// clocks that went on since they were told, and where events wait to be read, all. As many as there is
    /// room for.
    pub(super) fn note(&self, now: Instant, has_waiting: bool) -> String {
        let mut noted: BTreeMap<&str, i64> = BTreeMap::new();
        let mut room = MAX_NOTE - "{}".len();
        for (name, latest) in &self.clocks {
            let is_told =
                latest.is_due(now) || latest.told.is_some_and(|told| latest.seen <= told.at);
            // Quotes, a colon, a comma, the digits of a number; and every byte of the name may be escaped.
            let left = room.checked_sub(6 * name.len() + 24);
            if let Some(left) = left.filter(|_| has_waiting || !is_told) {
                room = left;
                noted.insert(name, latest.seen.0);
            }
        }
        match noted.is_empty() {
            true => String::new(),
            false => serde_json::to_string(&noted).unwrap_or_default(),
        }
    }

    /// Takes note of an event.
    pub(super) fn see(&mut self, clocks: &[Clock], payload: &Json, recorded: Recorded<'_>) {
        for clock in clocks {
            let Some(at) = clock.read(payload, recorded) else {
                continue;
            };
            match self.clocks.get_mut(&clock.name) {
                Some(latest) => {
                    latest.seen = latest.seen.max(at);
                    latest.is_heard = true;
                }
                None => {
                    let latest = Latest {
                        seen: at,
                        kept: None,
                        told: None,
                        is_heard: true,
                    };
                    self.clocks.insert(clock.name.clone(), latest);
                }
            }
        }
    }

    /// There are events that cannot be read yet.
    pub(super) fn hear(&mut self) {
        for latest in self.clocks.values_mut() {
            latest.is_heard = true;
        }
    }

    /// Clocks that are to be told at `now`, and how far they are.
    pub(super) fn due(&self, now: Instant) -> impl Iterator<Item = (&str, Timestamp)> {
        self.clocks
            .iter()
            .filter(move |(_, latest)| latest.is_due(now))
            .map(|(name, latest)| (name.as_str(), latest.seen))
    }

    /// What was due at `now` has been told.
    pub(super) fn note_told(&mut self, now: Instant) {
        for latest in self.clocks.values_mut().filter(|latest| latest.is_due(now)) {
            latest.told = Some(Told {
                at: latest.seen,
                when: now,
            });
            latest.is_heard = false;
        }
    }

    /// What was seen so far will not be read again.
    pub(super) fn keep_seen(&mut self) {
        for latest in self.clocks.values_mut() {
            latest.kept = Some(latest.seen);
        }
    }

    /// What was seen since [`Watermarks::keep_seen`] is read again, perhaps piece by piece: to tell of
    /// it now would make late what comes again.
    pub(super) fn go_back(&mut self) {
        self.clocks.retain(|_, latest| match latest.kept {
            Some(kept) => {
                latest.seen = kept;
                true
            }
            None => false,
        });
    }

    /// Forgets clocks that no rule goes by any more.
    pub(super) fn keep_clocks(&mut self, clocks: &[Clock]) {
        self.clocks
            .retain(|name, _| clocks.iter().any(|clock| clock.name == *name));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn due(watermarks: &Watermarks, now: Instant) -> Vec<(&str, i64)> {
        let due = watermarks.due(now);
        due.map(|(name, at)| (name, at.0)).collect()
    }

    fn event(at: i64) -> Json {
        Json::from_text(&format!("{{\"at\":{at}}}")).expect("JSON")
    }

    fn filter() -> crate::pattern::filter::Filter {
        crate::pattern::filter::Filter::new(&crate::pattern::syntax::parse(
            "kind: rule\nname: a\ntime: {field: at}\nmatch: {any: [{id: x, topic: t}]}\n---\nkind: rule\nname: b\nmatch: {any: [{id: x, topic: t}]}",
            None,
        )
        .expect("valid rules"))
    }

    #[test]
    fn what_went_on_is_told_once() {
        let filter = filter();
        let clocks = filter.topic("t").expect("read").clocks();
        let mut watermarks = Watermarks::default();
        let mut now = Instant::now();
        assert_eq!(due(&watermarks, now), []);
        watermarks.see(clocks, &event(5), Some(Timestamp(50)).into());
        watermarks.see(clocks, &event(3), Some(Timestamp(60)).into());
        watermarks.see(clocks, &Json::from_text("{}").expect("JSON"), None.into());
        assert_eq!(due(&watermarks, now), [("", 60), ("at", 5)]);
        watermarks.keep_seen();
        watermarks.note_told(now);
        watermarks.see(clocks, &event(9), Some(Timestamp(55)).into());
        assert_eq!(due(&watermarks, now), [], "too soon");
        now += TELL_EVERY;
        assert_eq!(due(&watermarks, now), [("at", 9)]);
        watermarks.go_back();
        assert_eq!(due(&watermarks, now), [], "what is read again is not told");
        watermarks.see(clocks, &event(7), None.into());
        assert_eq!(due(&watermarks, now), [("at", 7)]);
        watermarks.keep_clocks(&clocks[1..]);
        assert_eq!(due(&watermarks, now), []);
    }

    #[test]
    fn a_clock_that_stands_still_is_told_again_while_events_come() {
        let filter = filter();
        let clocks = filter.topic("t").expect("read").clocks();
        let mut watermarks = Watermarks::default();
        let mut now = Instant::now();
        for _ in 0..3 {
            watermarks.see(clocks, &event(5), None.into());
            assert_eq!(due(&watermarks, now), [("at", 5)]);
            watermarks.note_told(now);
            now += TELL_AGAIN_EVERY;
            assert_eq!(due(&watermarks, now), [], "no event came");
        }
        watermarks.hear();
        assert_eq!(due(&watermarks, now), [("at", 5)], "events wait");
    }

    #[test]
    fn a_successor_tells_what_could_not_be_told() {
        let filter = filter();
        let clocks = filter.topic("t").expect("read").clocks();
        let now = Instant::now();
        let mut watermarks = Watermarks::default();
        watermarks.see(clocks, &event(5), Some(Timestamp(50)).into());
        assert_eq!(watermarks.note(now, false), "", "all of it is told now");
        watermarks.note_told(now);
        watermarks.see(clocks, &event(-9), Some(Timestamp(60)).into());
        let note = watermarks.note(now, false);
        let mut successor = Watermarks::from_note(&note);
        assert_eq!(due(&successor, now), [("", 60)]);
        successor.go_back();
        assert_eq!(due(&successor, now), [("", 60)]);
        assert_eq!(watermarks.note(now + TELL_EVERY, false), "");
        let waiting = Watermarks::from_note(&watermarks.note(now, true));
        assert_eq!(due(&waiting, now), [("", 60), ("at", 5)]);
        for other in ["", "x", "[]", "{\"at\":\"x\"}"] {
            assert_eq!(due(&Watermarks::from_note(other), now), []);
        }
        let latest = watermarks.clocks["at"];
        let long = (0..1_000).map(|number| (format!("\"\u{1}{number}"), latest));
        watermarks.clocks.extend(long);
        let note = watermarks.note(now, true);
        assert!((250..=MAX_NOTE).contains(&note.len()), "{}", note.len());
        assert!(note.starts_with("{\"\":60,"));
    }
}
