//! `debounce` and `cooldown`: which matches of a key come out.

use std::collections::BTreeSet;

use rustc_hash::FxHashMap;

use crate::model::Timestamp;
use crate::pattern::output::{Key, Match, Outputs};
use crate::pattern::rule::Emit;

#[derive(Debug, Default)]
pub(super) struct Suppress {
    /// The end of the cooldown of each key.
    cooling: FxHashMap<Key, Timestamp>,
    /// By end, to forget them.
    cooled: BTreeSet<(Timestamp, u64)>,
    cooled_keys: FxHashMap<u64, Key>,
    /// Matches that wait for quiet, with the time at which they come out.
    waiting: FxHashMap<Key, (Timestamp, Match, Emit)>,
    next: u64,
}

impl Suppress {
    pub(super) fn pass(&mut self, emit: &Emit, found: Match, out: &mut Outputs) {
        match emit.debounce {
            None => self.cool(emit, found, out),
            Some(span) => {
                let due = found.at + span;
                let key = found.key.clone();
                if self
                    .waiting
                    .insert(key, (due, found, emit.clone()))
                    .is_some()
                {
                    out.suppressed += 1;
                }
            }
        }
    }

    fn cool(&mut self, emit: &Emit, found: Match, out: &mut Outputs) {
        let Some(span) = emit.cooldown else {
            out.matches.push(found);
            return;
        };
        while let Some((end, number)) = self.cooled.first().copied() {
            if end > found.at {
                break;
            }
            self.cooled.pop_first();
            if let Some(key) = self.cooled_keys.remove(&number)
                && self.cooling.get(&key) == Some(&end)
            {
                self.cooling.remove(&key);
            }
        }
        if self.cooling.contains_key(&found.key) {
            out.suppressed += 1;
            return;
        }
        let end = found.at + span;
        self.cooling.insert(found.key.clone(), end);
        self.cooled.insert((end, self.next));
        self.cooled_keys.insert(self.next, found.key.clone());
        self.next += 1;
        out.matches.push(found);
    }

    /// Lets out what waited long enough.
    pub(super) fn advance(&mut self, now: Timestamp, out: &mut Outputs) {
        let mut due: Vec<(Timestamp, Key)> = self
            .waiting
            .iter()
            .filter(|(_, (due, ..))| *due <= now)
            .map(|(key, (due, ..))| (*due, key.clone()))
            .collect();
        due.sort_by_key(|(due, _)| *due);
        for (_, key) in due {
            if let Some((_, found, emit)) = self.waiting.remove(&key) {
                self.cool(&emit, found, out);
            }
        }
    }
}
