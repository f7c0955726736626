//! A machine and the states of its keys.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::depths::Depths;
use super::keys::{ALWAYS, Due, Entry, Held, Island, Keys};
use super::{Shaped, Step};
use crate::model::{Millis, Timestamp};
use crate::pattern::event::{Event, Scalar};
use crate::pattern::output::{Key, Outputs, Overflow};
use crate::pattern::rule::Rule;

/// Version of the form in which the state of a key is saved; no other is read.
pub const SAVED: u8 = 1;

/// What cannot be put back.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RestoreError {
    /// A later version of the program wrote it.
    #[error("the state of the key is of version {found}, and this program reads {SAVED}")]
    Version { found: u8 },
    #[error("the state of the key cannot be read: {0}")]
    Malformed(String),
}

/// What is the same for all keys.
#[derive(Clone, Copy)]
pub(super) struct Context<'a> {
    pub(super) rule: &'a Rule,
    pub(super) now: Timestamp,
    /// How long after its time a match may still come out.
    pub(super) patience: Millis,
    /// Whether the event may begin something; where time alone moves on it does not matter.
    pub(super) begins: bool,
    pub(super) report_timed_out: bool,
}

/// A machine at work, whatever its shape.
pub(super) trait Running: std::fmt::Debug + Send {
    /// Applies an event that waits for nobody.
    fn apply(
        &mut self,
        event: &Event<'_>,
        met: u64,
        key: &[Scalar],
        context: Context<'_>,
        out: &mut Outputs,
    );
    /// Keeps an event until time has come to it.
    fn hold(
        &mut self,
        arrival: u64,
        event: &Event<'_>,
        met: u64,
        key: &[Scalar],
        context: Context<'_>,
        out: &mut Outputs,
    );
    /// Does what is due by `context.now`, in the order of time, as long as there is `room`; whether that
    /// was all.
    fn fire(&mut self, context: Context<'_>, room: &mut usize, out: &mut Outputs) -> bool;
    /// Keys that hold state.
    fn len(&self) -> usize;
    /// Partial matches of all keys.
    fn partials(&self) -> usize;
    /// Events of all keys that wait for the watermark.
    fn held(&self) -> usize;
    /// Whether more is kept of some key than what detectors have learned. Looks at all of them.
    fn is_waiting(&self) -> bool;
    /// Whether it is of this key.
    fn waits_at(&self, key: &[Scalar]) -> bool;
    /// The time of the earliest thing to be done, or before it.
    fn next_due(&self) -> Option<Timestamp>;
    /// Forgets a key and what is due of it.
    fn forget(&mut self, key: &[Scalar]);
    /// Keys without an event for so long are dropped.
    fn forget_after(&mut self, ttl: Millis);
    fn note_changes(&mut self);
    /// Calls `visit` for each key that changed since last asked; `None`: nothing of it is left.
    fn take_changed(&mut self, visit: &mut dyn FnMut(&Key, Option<Vec<u8>>));
    /// Puts a key back as it was saved; the number of the last arrival that it knows.
    fn restore(
        &mut self,
        key: &[Scalar],
        saved: &[u8],
        patience: Millis,
    ) -> Result<u64, RestoreError>;
}

#[derive(Debug)]
pub(super) struct Keyed<M: Shaped> {
    machine: M,
    keys: Keys<M::State>,
    /// [`Limits::idle_key_ttl`](crate::pattern::rule::Limits::idle_key_ttl).
    ttl: Option<Millis>,
    /// The sum of those of the entries.
    partials: usize,
    /// Events that wait in any of the entries.
    held: usize,
}

impl<M: Shaped> Keyed<M> {
    pub(super) fn new(machine: M) -> Self {
        Self {
            machine,
            keys: Keys::default(),
            ttl: None,
            partials: 0,
            held: 0,
        }
    }

    fn find_or_insert(
        &mut self,
        key: &[Scalar],
        context: Context<'_>,
        out: &mut Outputs,
    ) -> Option<usize> {
        if let Some(place) = self.keys.find(key) {
            return Some(place);
        }
        if self.keys.len() >= context.rule.limits.max_keys {
            out.overflows.push(Overflow {
                key: None,
                at: context.now,
                limit: "max_keys",
                dropped: 1,
            });
            return None;
        }
        Some(self.keys.insert(key))
    }

    fn feed(
        &mut self,
        place: usize,
        event: &Event<'_>,
        met: u64,
        context: Context<'_>,
        out: &mut Outputs,
    ) {
        let entry = self.keys.entry(place);
        entry.touch(event.at);
        if M::HIDES_EVENTS {
            Depths::note(&mut entry.depths, event);
        }
        self.work(place, context, out, |machine, state, step| {
            machine.event(state, event, met, step);
        });
        self.keys.entry(place).island.applied += 1;
    }

    /// Lets the machine work on the state of a key.
    fn work(
        &mut self,
        place: usize,
        context: Context<'_>,
        out: &mut Outputs,
        act: impl FnOnce(&M, &mut M::State, &mut Step<'_>),
    ) {
        let entry = self.keys.entry(place);
        let Island {
            applied,
            state,
            aside,
        } = &mut entry.island;
        let mut step = Step {
            rule: context.rule,
            key: &entry.key,
            now: context.now,
            order: *applied,
            begins_until: entry.begins_until,
            report_timed_out: context.report_timed_out,
            depths: entry.depths.as_deref(),
            aside,
            room: context.rule.limits.max_results_per_event,
            room_timed_out: context.rule.limits.max_results_per_event,
            cut: 0,
            out,
        };
        act(&self.machine, state, &mut step);
        step.end();
    }

    /// Arms the timer of a key, or forgets a key that holds nothing.
    fn settle(&mut self, place: usize, patience: Millis) {
        self.keys.touch(place);
        let entry = self.keys.entry(place);
        let partials = self.machine.partials(&entry.island.state);
        let partials = u32::try_from(partials).unwrap_or(u32::MAX);
        self.partials += partials as usize;
        self.partials -= std::mem::replace(&mut entry.partials, partials) as usize;
        let island = &mut entry.island;
        island.aside.take_if(|aside| aside.is_idle());
        let mut due: Option<Due> = self.machine.deadline(&island.state).map(|at| (at, 0));
        if let Some(aside) = &island.aside {
            let quiet = aside.suppress.deadline(patience).map(|at| (at, 0));
            let held = aside.held.keys().next().copied();
            due = due.into_iter().chain(quiet).chain(held).min();
        } else if due.is_none() && self.machine.is_idle(&island.state) {
            self.remove(place);
            return;
        }
        if let Some((ttl, touched)) = self.ttl.zip(self.keys.entry(place).touched()) {
            let idle = (touched + ttl, 0);
            due = Some(due.map_or(idle, |due| due.min(idle)));
        }
        if let Some(due) = due {
            self.keys.arm(place, due);
        }
    }

    /// Where the event of a key took the rule over its bound, the key gives up as much as it is over.
    fn bound(&mut self, place: usize, context: Context<'_>, out: &mut Outputs) {
        let most = context.rule.limits.max_partials;
        let over = self.partials.saturating_sub(most);
        if over == 0 {
            return;
        }
        let before = self.keys.entry(place).partials as usize;
        self.work(place, context, out, |machine, state, step| {
            machine.shed(state, before.saturating_sub(over), step);
            let dropped = before.saturating_sub(machine.partials(state));
            if dropped > 0 {
                step.overflow("max_partials", dropped as u64);
            }
        });
        self.settle(place, context.patience);
    }

    /// Forgets a key, its partial matches, the events that wait and what is due of it.
    fn remove(&mut self, place: usize) {
        self.keys.touch(place);
        let entry = self.keys.entry(place);
        self.partials -= entry.partials as usize;
        self.held -= entry.held();
        self.machine.clear(&mut entry.island.state);
        self.keys.remove(place);
    }

    /// Drops what is known of a key that had no event for long; those that wait for their turn stay.
    fn drop_idle(&mut self, place: usize, at: Timestamp, out: &mut Outputs) {
        let entry = self.keys.entry(place);
        let idle_at = self
            .ttl
            .zip(entry.touched())
            .map(|(ttl, touched)| touched + ttl);
        if idle_at.is_none_or(|idle_at| idle_at > at) {
            return;
        }
        entry.set_touched(None);
        entry.island.state = M::State::default();
        entry.depths = None;
        if let Some(aside) = &mut entry.island.aside {
            aside.suppress = Default::default();
        }
        out.idle_keys += 1;
    }
}

/// The state of a key, and behind it what is kept beside it, as far as there is something.
fn save<S: Serialize>(entry: &Entry<S>) -> Result<Vec<u8>, postcard::Error> {
    let saved = postcard::to_extend(&entry.island, vec![SAVED])?;
    let saved = postcard::to_extend(&entry.touched(), saved)?;
    if entry.begins_until == ALWAYS && entry.depths.is_none() {
        return Ok(saved);
    }
    let until = (entry.begins_until != ALWAYS).then_some(entry.begins_until);
    let saved = postcard::to_extend(&until, saved)?;
    match &entry.depths {
        None => Ok(saved),
        Some(depths) => postcard::to_extend(depths, saved),
    }
}

/// Something behind the state of a key; earlier programs wrote less of it.
fn behind<T: DeserializeOwned + Default>(saved: &[u8]) -> Result<(T, &[u8]), postcard::Error> {
    match saved.is_empty() {
        true => Ok((T::default(), saved)),
        false => postcard::take_from_bytes(saved),
    }
}

impl<M> Running for Keyed<M>
where
    M: Shaped + std::fmt::Debug + Send,
    M::State: Serialize + DeserializeOwned + Send,
{
    fn apply(
        &mut self,
        event: &Event<'_>,
        met: u64,
        key: &[Scalar],
        context: Context<'_>,
        out: &mut Outputs,
    ) {
        if let Some(place) = self.find_or_insert(key, context, out) {
            self.keys
                .entry(place)
                .note_beginning(event.at, context.begins);
            self.feed(place, event, met, context, out);
            self.settle(place, context.patience);
            self.bound(place, context, out);
        }
    }

    fn hold(
        &mut self,
        arrival: u64,
        event: &Event<'_>,
        met: u64,
        key: &[Scalar],
        context: Context<'_>,
        out: &mut Outputs,
    ) {
        if let Some(place) = self.find_or_insert(key, context, out) {
            let entry = self.keys.entry(place);
            entry.note_beginning(event.at, context.begins);
            let held = &mut entry.island.aside.get_or_insert_default().held;
            held.insert((event.at, arrival), Held::new(event, met));
            self.held += 1;
            self.settle(place, context.patience);
        }
    }

    fn fire(&mut self, context: Context<'_>, room: &mut usize, out: &mut Outputs) -> bool {
        loop {
            if *room == 0 {
                return self.keys.next_due().is_none_or(|due| due > context.now);
            }
            let machine = &self.machine;
            let (near, far) = (
                |state: &_| machine.near(state),
                |state: &_| machine.far(state),
            );
            self.keys.look_ahead(near, far);
            let Some((due, place)) = self.keys.due(context.now) else {
                return true;
            };
            *room -= 1;
            let (at, arrival) = due;
            let context = Context { now: at, ..context };
            if arrival > 0 {
                let aside = self.keys.entry(place).island.aside.as_mut();
                if let Some(held) = aside.and_then(|aside| aside.held.remove(&due)) {
                    self.held -= 1;
                    self.feed(place, &held.event(at), held.met, context, out);
                }
            } else {
                self.work(place, context, out, M::expire);
                let entry = self.keys.entry(place);
                if let Some(aside) = &mut entry.island.aside {
                    let (emit, patience) = (&context.rule.emit, context.patience);
                    aside.suppress.advance(emit, &entry.key, at, patience, out);
                }
                self.drop_idle(place, at, out);
            }
            self.settle(place, context.patience);
            self.bound(place, context, out);
        }
    }

    fn len(&self) -> usize {
        self.keys.len()
    }

    fn partials(&self) -> usize {
        self.partials
    }

    fn held(&self) -> usize {
        self.held
    }

    fn is_waiting(&self) -> bool {
        self.partials > 0 || self.keys.is_waiting()
    }

    fn waits_at(&self, key: &[Scalar]) -> bool {
        let place = self.keys.find(key);
        place.is_some_and(|place| self.keys.entry_at(place).waits())
    }

    fn next_due(&self) -> Option<Timestamp> {
        self.keys.next_due()
    }

    fn forget(&mut self, key: &[Scalar]) {
        if let Some(place) = self.keys.find(key) {
            self.remove(place);
        }
    }

    fn forget_after(&mut self, ttl: Millis) {
        self.ttl = Some(ttl);
    }

    fn note_changes(&mut self) {
        self.keys.note_changes();
    }

    fn take_changed(&mut self, visit: &mut dyn FnMut(&Key, Option<Vec<u8>>)) {
        self.keys.take_changed(&mut |key, entry| {
            let saved = entry.map(|entry| save(entry).expect("states are plain data"));
            visit(key, saved);
        });
    }

    fn restore(
        &mut self,
        key: &[Scalar],
        saved: &[u8],
        patience: Millis,
    ) -> Result<u64, RestoreError> {
        let malformed = |reason: String| RestoreError::Malformed(reason);
        let (version, saved) = saved
            .split_first()
            .ok_or_else(|| malformed("it is empty".to_owned()))?;
        if *version != SAVED {
            return Err(RestoreError::Version { found: *version });
        }
        let (island, rest): (Island<M::State>, &[u8]) =
            postcard::take_from_bytes(saved).map_err(|error| malformed(error.to_string()))?;
        let unread = |error: postcard::Error| malformed(error.to_string());
        let (touched, rest): (Option<Timestamp>, _) = behind(rest).map_err(unread)?;
        let (begins_until, rest): (Option<Timestamp>, _) = behind(rest).map_err(unread)?;
        let (depths, _): (Depths, _) = behind(rest).map_err(unread)?;
        let arrivals = island.aside.iter().flat_map(|aside| aside.held.keys());
        let last = arrivals.map(|(_, arrival)| *arrival).max().unwrap_or(0);
        let place = self.keys.find(key).unwrap_or_else(|| self.keys.insert(key));
        let entry = self.keys.entry(place);
        self.held -= entry.held();
        entry.island = island;
        self.held += entry.held();
        entry.set_touched(touched);
        entry.begins_until = begins_until.unwrap_or(ALWAYS);
        entry.depths = (!depths.is_empty()).then(|| Box::new(depths));
        self.settle(place, patience);
        Ok(last)
    }
}
