//! The panes of a key, the newest in place: most events go into it, and many keys have no other, so that
//! neither waits for another place in memory.

use std::collections::VecDeque;
use std::ops::{Index, IndexMut, Range};

use serde::ser::SerializeSeq;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::make_room;

/// A list, ascending by time. 32 bytes more than what it is a list of, and on the heap all but the newest.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Panes<T> {
    /// `None` where there is none at all.
    newest: Option<T>,
    before: VecDeque<T>,
}

impl<T> Default for Panes<T> {
    fn default() -> Self {
        Panes {
            newest: None,
            before: VecDeque::new(),
        }
    }
}

impl<T> Panes<T> {
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.newest.is_none()
    }

    #[inline]
    pub fn len(&self) -> usize {
        self.before.len() + usize::from(self.newest.is_some())
    }

    #[inline]
    pub fn get(&self, place: usize) -> Option<&T> {
        match place == self.before.len() {
            true => self.newest.as_ref(),
            false => self.before.get(place),
        }
    }

    #[inline]
    pub fn front(&self) -> Option<&T> {
        self.before.front().or(self.newest.as_ref())
    }

    #[inline]
    pub fn back(&self) -> Option<&T> {
        self.newest.as_ref()
    }

    #[inline]
    pub fn back_mut(&mut self) -> Option<&mut T> {
        self.newest.as_mut()
    }

    pub fn pop_front(&mut self) -> Option<T> {
        self.before.pop_front().or_else(|| self.newest.take())
    }

    /// Puts `pane` before the one at `place`, or behind all.
    pub fn insert(&mut self, place: usize, pane: T) {
        if place < self.len() {
            make_room(&mut self.before);
            self.before.insert(place, pane);
        } else if let Some(newest) = self.newest.replace(pane) {
            make_room(&mut self.before);
            self.before.push_back(newest);
        }
    }

    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.before.iter().chain(&self.newest)
    }

    pub fn range(&self, places: Range<usize>) -> impl Iterator<Item = &T> {
        let len = self.before.len();
        let before = places.start.min(len)..places.end.min(len);
        let newest = self.newest.iter();
        let newest = newest.filter(move |_| places.contains(&len));
        self.before.range(before).chain(newest)
    }

    /// How many there are before the first that is not `before`.
    pub fn partition_point(&self, mut before: impl FnMut(&T) -> bool) -> usize {
        match &self.newest {
            Some(newest) if before(newest) => self.len(),
            _ => self.before.partition_point(before),
        }
    }
}

impl<T> Index<usize> for Panes<T> {
    type Output = T;

    #[inline]
    fn index(&self, place: usize) -> &T {
        self.get(place).expect("a place of the list")
    }
}

impl<T> IndexMut<usize> for Panes<T> {
    fn index_mut(&mut self, place: usize) -> &mut T {
        let pane = match place == self.before.len() {
            true => self.newest.as_mut(),
            false => self.before.get_mut(place),
        };
        pane.expect("a place of the list")
    }
}

/// Saved as a list.
impl<T: Serialize> Serialize for Panes<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(Some(self.len()))?;
        self.iter()
            .try_for_each(|pane| list.serialize_element(pane))?;
        list.end()
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Panes<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let mut before = VecDeque::deserialize(deserializer)?;
        Ok(Panes {
            newest: before.pop_back(),
            before,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_a_list_wherever_its_panes_are() {
        let mut panes = Panes::default();
        let mut list = VecDeque::new();
        let places = [0, 0, 2, 1, 4, 3, 0];
        for (number, place) in places.into_iter().enumerate() {
            panes.insert(place, number);
            list.insert(place, number);
        }
        while let Some(last) = list.back() {
            assert_eq!(panes.back_mut(), Some(&mut last.clone()));
            assert!(panes.iter().eq(&list) && panes.len() == list.len());
            assert_eq!(panes.front(), list.front());
            for from in 0..=list.len() {
                assert_eq!(panes.get(from), list.get(from));
                for to in from..=list.len() {
                    assert!(panes.range(from..to).eq(list.range(from..to)));
                }
            }
            panes[list.len() - 1] += 10;
            list[panes.len() - 1] += 10;
            let bytes = postcard::to_stdvec(&panes).expect("plain data");
            assert_eq!(bytes, postcard::to_stdvec(&list).expect("plain data"));
            assert_eq!(postcard::from_bytes(&bytes), Ok(panes.clone()));
            assert_eq!(panes.pop_front(), list.pop_front());
        }
        assert!(panes.is_empty() && panes.pop_front().is_none());
        (0..9).for_each(|number| panes.insert(number, number));
        for below in 0..10 {
            assert_eq!(panes.partition_point(|number| *number < below), below);
        }
    }
}
