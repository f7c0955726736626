//! How far event time has come at the partitions of sources, and what of it has been told.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::model::{Json, Timestamp};
use crate::pattern::Recorded;
use crate::pattern::filter::Clock;

/// Each source partition's watermarks are told so often at most: every partition of `signals` gets
/// a copy of each.
const TELL_EVERY: Duration = Duration::from_millis(100);

/// The clocks of one source partition.
#[derive(Debug, Default)]
pub(super) struct Watermarks {
    clocks: BTreeMap<String, Latest>,
    told_at: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
struct Latest {
    seen: Timestamp,
    /// Seen in what has been committed.
    kept: Option<Timestamp>,
    told: Option<Timestamp>,
}

impl Watermarks {
    /// Takes note of an event.
    pub(super) fn see(&mut self, clocks: &[Clock], payload: &Json, recorded: Recorded<'_>) {
        for clock in clocks {
            let Some(at) = clock.read(payload, recorded) else {
                continue;
            };
            match self.clocks.get_mut(&clock.name) {
                Some(latest) => latest.seen = latest.seen.max(at),
                None => {
                    let latest = Latest {
                        seen: at,
                        kept: None,
                        told: None,
                    };
                    self.clocks.insert(clock.name.clone(), latest);
                }
            }
        }
    }

    /// Whether something is to be told by now.
    pub(super) fn is_due(&self) -> bool {
        self.told_at.is_none_or(|at| at.elapsed() >= TELL_EVERY) && self.untold().next().is_some()
    }

    /// Clocks that went on since they were told, and how far they are.
    pub(super) fn untold(&self) -> impl Iterator<Item = (&str, Timestamp)> {
        self.clocks
            .iter()
            .filter(|(_, latest)| latest.told.is_none_or(|told| latest.seen > told))
            .map(|(name, latest)| (name.as_str(), latest.seen))
    }

    /// All that was untold has been told.
    pub(super) fn note_told(&mut self) {
        self.told_at = Some(Instant::now());
        for latest in self.clocks.values_mut() {
            latest.told = Some(latest.seen);
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

    fn untold(watermarks: &Watermarks) -> Vec<(&str, i64)> {
        let told = watermarks.untold();
        told.map(|(name, at)| (name, at.0)).collect()
    }

    #[test]
    fn only_what_went_on_is_told_and_only_once() {
        let clocks = crate::pattern::filter::Filter::new(&crate::pattern::syntax::parse(
            "kind: rule\nname: a\ntime: {field: at}\nmatch: {any: [{id: x, topic: t}]}\n---\nkind: rule\nname: b\nmatch: {any: [{id: x, topic: t}]}",
            None,
        )
        .expect("valid rules"));
        let clocks = clocks.topic("t").expect("read").clocks();
        let mut watermarks = Watermarks::default();
        let event = |at: i64| Json::from_text(&format!("{{\"at\":{at}}}")).expect("JSON");
        assert!(!watermarks.is_due());
        watermarks.see(clocks, &event(5), Some(Timestamp(50)).into());
        watermarks.see(clocks, &event(3), Some(Timestamp(60)).into());
        watermarks.see(clocks, &Json::from_text("{}").expect("JSON"), None.into());
        assert!(watermarks.is_due());
        assert_eq!(untold(&watermarks), [("", 60), ("at", 5)]);
        watermarks.keep_seen();
        watermarks.note_told();
        assert_eq!(untold(&watermarks), []);
        watermarks.see(clocks, &event(9), Some(Timestamp(55)).into());
        assert_eq!(untold(&watermarks), [("at", 9)]);
        watermarks.go_back();
        assert_eq!(untold(&watermarks), [], "what is read again is not told");
        watermarks.see(clocks, &event(7), None.into());
        assert_eq!(untold(&watermarks), [("at", 7)]);
        watermarks.keep_clocks(&clocks[1..]);
        assert_eq!(untold(&watermarks), []);
    }
}
