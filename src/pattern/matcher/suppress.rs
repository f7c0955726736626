//! `debounce` and `cooldown`: which matches of a key come out.

use serde::{Deserialize, Serialize};

use crate::model::{Millis, Timestamp};
use crate::pattern::event::Taken;
use crate::pattern::output::{Key, Match, Outputs};
use crate::pattern::rule::Emit;

/// What keeps the matches of one key back.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Suppress {
    /// The end of the cooldown.
    cooling_until: Option<Timestamp>,
    /// The match that waits for quiet, and when it comes out.
    waiting: Option<Waiting>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Waiting {
    due: Timestamp,
    at: Timestamp,
    events: Vec<(u16, Taken)>,
}

impl Suppress {
    pub(super) fn pass(&mut self, emit: &Emit, found: Match, out: &mut Outputs) {
        let Some(span) = emit.debounce else {
            self.cool(emit.cooldown, found, out);
            return;
        };
        if let Some(waiting) = &self.waiting
            && found.at < waiting.at
        {
            // It came out late: of the burst of the one that waits, or none of it.
            match found.at + span > waiting.at {
                true => out.suppressed += 1,
                false => self.cool(emit.cooldown, found, out),
            }
            return;
        }
        let Match { at, events, .. } = found;
        let due = at + span;
        if self.waiting.replace(Waiting { due, at, events }).is_some() {
            out.suppressed += 1;
        }
    }

    fn cool(&mut self, cooldown: Option<Millis>, found: Match, out: &mut Outputs) {
        if let Some(span) = cooldown {
            let end = found.at + span;
            match self.cooling_until {
                Some(until) if found.at >= until => self.cooling_until = Some(end),
                Some(until) if end >= until => {
                    out.suppressed += 1;
                    return;
                }
                // It came out late, and lies before the beginning of the cooldown, which stays.
                Some(_) => {}
                None => self.cooling_until = Some(end),
            }
        }
        out.matches.push(found);
    }

    /// Lets out what waited long enough.
    pub(super) fn release(&mut self, emit: &Emit, key: &Key, now: Timestamp, out: &mut Outputs) {
        if let Some(Waiting { at, events, .. }) = self.waiting.take_if(|found| found.due <= now) {
            let key = key.clone();
            self.cool(emit.cooldown, Match { key, at, events }, out);
        }
    }

    /// The same, and forgets a cooldown that ended `patience` ago: until then a late event may still
    /// complete a match within it, or one may have waited for quiet.
    pub(super) fn advance(
        &mut self,
        emit: &Emit,
        key: &Key,
        now: Timestamp,
        patience: Millis,
        out: &mut Outputs,
    ) {
        self.release(emit, key, now, out);
        self.cooling_until = self.cooling_until.filter(|end| *end + patience > now);
    }

    pub(super) fn deadline(&self, patience: Millis) -> Option<Timestamp> {
        let waiting = self.waiting.as_ref().map(|found| found.due);
        let cooled = self.cooling_until.map(|end| end + patience);
        waiting.into_iter().chain(cooled).min()
    }

    pub(super) fn is_idle(&self) -> bool {
        self.cooling_until.is_none() && self.waiting.is_none()
    }
}
