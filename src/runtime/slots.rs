//! The runs of a partition, each at a place: a number of four bytes by which timers and other
//! indexes name it, in place of its id.

use rustc_hash::FxHashMap;

use crate::model::RunId;

/// Where a run is, until it is taken out; then another may come there.
pub(super) type Place = u32;

/// See the module.
pub(super) struct Slots<T> {
    slots: Vec<Option<T>>,
    /// Places that are empty.
    free: Vec<Place>,
    places: FxHashMap<RunId, Place>,
}

impl<T> Default for Slots<T> {
    fn default() -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            places: FxHashMap::default(),
        }
    }
}

impl<T> Slots<T> {
    pub fn place(&self, id: &RunId) -> Option<Place> {
        self.places.get(id).copied()
    }

    pub fn get(&self, id: &RunId) -> Option<&T> {
        self.place(id).and_then(|place| self.at(place))
    }

    pub fn at(&self, place: Place) -> Option<&T> {
        self.slots.get(place as usize)?.as_ref()
    }

    pub fn at_mut(&mut self, place: Place) -> Option<&mut T> {
        self.slots.get_mut(place as usize)?.as_mut()
    }

    /// Puts a run that is not there yet at a place.
    ///
    /// # Panics
    /// With more than `u32::MAX` runs, which would take terabytes.
    pub fn insert(&mut self, id: RunId, run: T) -> Place {
        let place = match self.free.pop() {
            Some(place) => {
                self.slots[place as usize] = Some(run);
                place
            }
            None => {
                self.slots.push(Some(run));
                Place::try_from(self.slots.len() - 1).expect("fewer runs than places")
            }
        };
        let before = self.places.insert(id, place);
        assert!(before.is_none(), "a run has one place");
        place
    }

    /// Takes the run out; its place is free then.
    pub fn remove(&mut self, id: &RunId) -> Option<(Place, T)> {
        let place = self.places.remove(id)?;
        let run = self.slots[place as usize].take()?;
        self.free.push(place);
        Some((place, run))
    }

    /// Places there are, the free ones included.
    pub fn len(&self) -> usize {
        self.slots.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_free_place_is_taken_again() {
        let id = |text: &str| RunId::parse(text).unwrap();
        let mut slots = Slots::default();
        let a = slots.insert(id("a"), 1);
        let b = slots.insert(id("b"), 2);
        assert_eq!(slots.remove(&id("a")), Some((a, 1)));
        assert_eq!(slots.remove(&id("a")), None);
        assert_eq!((slots.place(&id("a")), slots.at(a)), (None, None));
        assert_eq!(slots.insert(id("c"), 3), a);
        assert_eq!(
            (slots.get(&id("b")), slots.get(&id("c")), slots.at(b)),
            (Some(&2), Some(&3), Some(&2))
        );
        assert_eq!(slots.len(), 2);
    }
}
