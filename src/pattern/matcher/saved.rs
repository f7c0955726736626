//! The partial matches of an automaton as flat lists, for saving: what they share is written once and
//! shared again afterwards.

use std::sync::Arc;

use rustc_hash::FxHashMap;
use serde::{Deserialize, Serialize};

use super::automaton::{Found, Link, Partial, State};
use super::ways::Way;
use crate::model::Timestamp;
use crate::pattern::event::Taken;

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Saved {
    /// Events, each once.
    events: Vec<Taken>,
    /// Each after those that it builds on.
    links: Vec<SavedLink>,
    /// Ways on from a partial match, each set once.
    ways: Vec<Vec<Way>>,
    partials: Vec<SavedPartial>,
    complete: Vec<SavedFound>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct SavedLink {
    name: u16,
    /// Place in the list of events.
    event: u32,
    /// Place in the list of links.
    before: Option<u32>,
    open: u32,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct SavedPartial {
    /// Place in the list of ways.
    ways: u32,
    /// Place in the list of links.
    head: u32,
    start_at: Timestamp,
    start_order: u64,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct SavedFound {
    /// Place in the list of links.
    head: u32,
    at: Timestamp,
    start_order: u64,
}

/// Places of what was written already, by address.
#[derive(Default)]
struct Writing {
    events: Vec<Taken>,
    links: Vec<SavedLink>,
    ways: Vec<Vec<Way>>,
    way_places: FxHashMap<Arc<[Way]>, u32>,
    event_places: FxHashMap<*const Taken, u32>,
    link_places: FxHashMap<*const Link, u32>,
}

impl Writing {
    /// Writes a link and those before it that are not written yet; its place.
    fn link(&mut self, head: &Arc<Link>) -> u32 {
        let mut missing = Vec::new();
        let mut at = Some(head);
        let mut before = None;
        while let Some(link) = at {
            if let Some(place) = self.link_places.get(&Arc::as_ptr(link)) {
                before = Some(*place);
                break;
            }
            missing.push(link);
            at = link.before.as_ref();
        }
        for link in missing.into_iter().rev() {
            let event = self.event(&link.taken);
            let place = self.links.len() as u32;
            self.links.push(SavedLink {
                name: link.name,
                event,
                before,
                open: link.open,
            });
            self.link_places.insert(Arc::as_ptr(link), place);
            before = Some(place);
        }
        before.unwrap_or_default()
    }

    fn ways(&mut self, ways: &Arc<[Way]>) -> u32 {
        let next = self.ways.len() as u32;
        let place = *self.way_places.entry(ways.clone()).or_insert(next);
        if place == next {
            self.ways.push(ways.to_vec());
        }
        place
    }

    fn event(&mut self, taken: &Arc<Taken>) -> u32 {
        let next = self.events.len() as u32;
        let place = *self.event_places.entry(Arc::as_ptr(taken)).or_insert(next);
        if place == next {
            self.events.push((**taken).clone());
        }
        place
    }
}

impl From<State> for Saved {
    fn from(state: State) -> Self {
        let mut writing = Writing::default();
        let partials = state.partials.iter().map(|partial| SavedPartial {
            ways: writing.ways(&partial.ways),
            head: writing.link(&partial.head),
            start_at: partial.start_at,
            start_order: partial.start_order,
        });
        let partials = partials.collect();
        let complete = state.complete.iter().map(|found| SavedFound {
            head: writing.link(&found.head),
            at: found.at,
            start_order: found.start_order,
        });
        let complete = complete.collect();
        Self {
            events: writing.events,
            links: writing.links,
            ways: writing.ways,
            partials,
            complete,
        }
    }
}

impl TryFrom<Saved> for State {
    type Error = &'static str;

    fn try_from(saved: Saved) -> Result<Self, Self::Error> {
        const UNKNOWN: &str = "it names a place that is not there";
        let events: Vec<Arc<Taken>> = saved.events.into_iter().map(Arc::new).collect();
        let mut links: Vec<Arc<Link>> = Vec::with_capacity(saved.links.len());
        for link in saved.links {
            let before = match link.before {
                Some(place) => Some(links.get(place as usize).ok_or(UNKNOWN)?.clone()),
                None => None,
            };
            let taken = events.get(link.event as usize).ok_or(UNKNOWN)?.clone();
            let depth = before.as_ref().map_or(0, |before| before.depth) + 1;
            links.push(Arc::new(Link {
                name: link.name,
                taken,
                before,
                depth,
                open: link.open,
            }));
        }
        let ways: Vec<Arc<[Way]>> = saved.ways.into_iter().map(Arc::from).collect();
        let head = |place: u32| links.get(place as usize).cloned().ok_or(UNKNOWN);
        let partials = saved.partials.into_iter().map(|partial| {
            Ok(Partial {
                ways: ways.get(partial.ways as usize).ok_or(UNKNOWN)?.clone(),
                head: head(partial.head)?,
                start_at: partial.start_at,
                start_order: partial.start_order,
            })
        });
        let complete = saved.complete.into_iter().map(|found| {
            Ok(Found {
                head: head(found.head)?,
                at: found.at,
                start_order: found.start_order,
            })
        });
        Ok(Self {
            partials: partials.collect::<Result<_, Self::Error>>()?,
            complete: complete.collect::<Result<_, Self::Error>>()?,
        })
    }
}
