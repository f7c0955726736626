//! A list of words other than zero that keeps the first two in place: most panes of a key with few
//! events have no more, and an allocation for each would cost more than all else about them.

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// 24 bytes; the words are on the heap when they are more than two.
#[derive(Clone, Debug)]
pub(super) enum Words {
    /// The rest is zero.
    Few([u64; 2]),
    Many(Vec<u64>),
}

impl Default for Words {
    fn default() -> Words {
        Words::Few([0; 2])
    }
}

impl Words {
    #[inline]
    pub fn as_slice(&self) -> &[u64] {
        match self {
            Words::Few(words @ [_, second]) if *second != 0 => words,
            Words::Few([first, _]) if *first != 0 => std::slice::from_ref(first),
            Words::Few(_) => &[],
            Words::Many(words) => words,
        }
    }

    #[inline]
    pub fn as_mut_slice(&mut self) -> &mut [u64] {
        let len = self.as_slice().len();
        match self {
            Words::Few(words) => &mut words[..len],
            Words::Many(words) => words,
        }
    }

    /// Puts `word` before the one at `place`.
    pub fn insert(&mut self, place: usize, word: u64) {
        match self {
            Words::Few(words @ [_, 0]) => {
                if place == 0 {
                    words[1] = words[0];
                }
                words[place.min(1)] = word;
            }
            Words::Few(_) => self.as_vec().insert(place, word),
            Words::Many(words) => words.insert(place, word),
        }
    }

    /// The list on the heap, where it can grow.
    pub fn as_vec(&mut self) -> &mut Vec<u64> {
        if let Words::Few(_) = self {
            let mut words = Vec::with_capacity(8);
            words.extend_from_slice(self.as_slice());
            *self = Words::Many(words);
        }
        match self {
            Words::Many(words) => words,
            Words::Few(_) => unreachable!("it has just been moved to the heap"),
        }
    }

    /// Keeps the words that `keep` says, in their order.
    pub fn retain(&mut self, keep: impl Fn(u64) -> bool) {
        match self {
            Words::Few(words) => {
                let [first, second] = words.map(|word| if keep(word) { word } else { 0 });
                *words = if first == 0 {
                    [second, 0]
                } else {
                    [first, second]
                };
            }
            Words::Many(words) => words.retain(|&word| keep(word)),
        }
    }

    /// Empties it and keeps what it has allocated.
    pub fn clear(&mut self) {
        self.retain(|_| false);
    }
}

/// By its words, wherever they are.
impl PartialEq for Words {
    fn eq(&self, other: &Words) -> bool {
        self.as_slice() == other.as_slice()
    }
}

impl Eq for Words {}

impl Serialize for Words {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.as_slice())
    }
}

impl<'de> Deserialize<'de> for Words {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Words, D::Error> {
        let words = Vec::<u64>::deserialize(deserializer)?;
        Ok(match words[..] {
            [] => Words::default(),
            [one] => Words::Few([one, 0]),
            [one, two] => Words::Few([one, two]),
            _ => Words::Many(words),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_a_list_wherever_its_words_are() {
        assert_eq!(size_of::<Words>(), 24);
        let mut words = Words::default();
        for (place, word) in [(0, 5), (0, 3), (2, 9), (1, 4)] {
            words.insert(place, word);
        }
        assert_eq!(words.as_slice(), [3, 4, 5, 9]);
        words.retain(|word| word > 4);
        assert_eq!(words.as_slice(), [5, 9]);
        let json = serde_json::to_string(&words).expect("it serialises");
        let mut few: Words = serde_json::from_str(&json).expect("it reads back");
        assert_eq!(few, words);
        few.retain(|word| word == 9);
        assert_eq!(few.as_mut_slice(), [9]);
        few.clear();
        assert_eq!(few.as_slice(), [0_u64; 0]);
    }
}
