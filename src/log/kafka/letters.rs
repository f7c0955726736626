//! How large a dead letter may be. A record that was just small enough for its own topic may be too
//! large for the topic of dead letters, where it gets more headers, and which its owner may have made
//! smaller than `topics.yaml` has it. A letter that is refused would stop its partition for good: so what
//! does not fit is left out, and the letter says so.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crate::log::Outgoing;

/// What the names of headers begin with that say why a letter is dead.
const ERROR_PREFIX: &str = "partita-error-";

/// Bytes of the whole value, of which the letter holds the beginning.
const TRUNCATED_VALUE: &str = "partita-error-truncated-value";
/// How many of the record's own headers were left out.
const DROPPED_HEADERS: &str = "partita-error-dropped-headers";
/// Bytes of the key that was left out.
const DROPPED_KEY: &str = "partita-error-dropped-key";

/// Bytes of a record and its batch beyond key, value and headers.
const OVERHEAD: usize = 128;
/// Of a header, beyond name and value.
const OF_HEADER: usize = 10;

/// Largest letter that fits, in bytes, as far as refusals have taught it.
#[derive(Debug)]
pub(super) struct LetterBound {
    bytes: AtomicUsize,
    is_alone: AtomicBool,
}

/// A letter that was made to fit.
#[derive(Debug, PartialEq)]
pub(super) struct Shortened<'r> {
    pub key: Option<&'r [u8]>,
    pub value: Option<&'r [u8]>,
    pub headers: Vec<(&'r str, Vec<u8>)>,
}

impl LetterBound {
    pub(super) fn new(bytes: usize) -> Self {
        Self {
            bytes: AtomicUsize::new(bytes),
            is_alone: AtomicBool::new(false),
        }
    }

    /// Whether each letter is to be sent in a batch of its own: the limit of a topic is one of batches.
    pub(super) fn is_alone(&self) -> bool {
        self.is_alone.load(Ordering::Relaxed)
    }

    /// A batch was refused, and the largest letter in it has so many bytes. The first time that says
    /// nothing about the letter yet.
    pub(super) fn refused(&self, bytes: usize) {
        if self.is_alone.swap(true, Ordering::Relaxed) {
            let bound = self.bytes.load(Ordering::Relaxed).min(bytes);
            self.bytes.store(bound / 2, Ordering::Relaxed);
        }
    }

    /// What can be sent of a letter; `None`: all of it.
    pub(super) fn shorten<'r>(&self, letter: &Outgoing<'r>) -> Option<Shortened<'r>> {
        let bound = self.bytes.load(Ordering::Relaxed);
        if size(letter.key, letter.value, letter.headers) <= bound {
            return None;
        }
        let length = |bytes: Option<&[u8]>| bytes.map_or(0, <[u8]>::len);
        let note = |what: &'static str, left_out: usize| (what, left_out.to_string().into_bytes());
        let mut short = Shortened {
            key: letter.key,
            value: None,
            headers: letter
                .headers
                .iter()
                .map(|(name, value)| (*name, value.to_vec()))
                .collect(),
        };
        short
            .headers
            .push(note(TRUNCATED_VALUE, length(letter.value)));
        if short.size() > bound {
            let before = short.headers.len();
            short
                .headers
                .retain(|(name, _)| name.starts_with(ERROR_PREFIX));
            let left_out = before - short.headers.len();
            if left_out > 0 {
                short.headers.push(note(DROPPED_HEADERS, left_out));
            }
        }
        if short.size() > bound && short.key.is_some() {
            let key = short.key.take();
            short.headers.push(note(DROPPED_KEY, length(key)));
        }
        let room = bound.saturating_sub(short.size());
        short.value = letter.value.map(|value| &value[..room.min(value.len())]);
        Some(short)
    }
}

impl Shortened<'_> {
    fn size(&self) -> usize {
        let headers: Vec<(&str, &[u8])> = self
            .headers
            .iter()
            .map(|(name, value)| (*name, value.as_slice()))
            .collect();
        size(self.key, self.value, &headers)
    }
}

fn size(key: Option<&[u8]>, value: Option<&[u8]>, headers: &[(&str, &[u8])]) -> usize {
    let length = |bytes: Option<&[u8]>| bytes.map_or(0, <[u8]>::len);
    let headers = headers.iter();
    let headers = headers.map(|(name, value)| name.len() + value.len() + OF_HEADER);
    OVERHEAD + length(key) + length(value) + headers.sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::Target;

    const VALUE: &[u8] = &[7; 1_000];
    const CLASS: (&str, &[u8]) = ("partita-error-class", b"malformed");

    fn letter<'r>(key: &'r [u8], headers: &'r [(&'r str, &'r [u8])]) -> Outgoing<'r> {
        Outgoing {
            target: Target::DeadLetter,
            key: Some(key),
            value: Some(VALUE),
            headers,
        }
    }

    fn text<'h>(short: &'h Shortened<'_>, name: &str) -> Option<&'h str> {
        let found = short.headers.iter().find(|(known, _)| *known == name);
        found.map(|(_, value)| std::str::from_utf8(value).expect("text"))
    }

    #[test]
    fn a_value_is_cut_to_what_fits_and_the_letter_says_how_long_it_was() {
        let bound = LetterBound::new(2_000);
        let letter = letter(b"k", &[CLASS]);
        assert_eq!(bound.shorten(&letter), None);
        assert!(!bound.is_alone());
        bound.refused(1_200);
        assert!(bound.is_alone());
        assert_eq!(bound.shorten(&letter), None, "others were in that batch");
        bound.refused(1_200);
        let short = bound.shorten(&letter).expect("it does not fit");
        assert_eq!(short.size(), 600);
        let value = short.value.expect("what fits of it");
        assert!(!value.is_empty() && VALUE.starts_with(value));
        assert_eq!(text(&short, TRUNCATED_VALUE), Some("1000"));
        assert_eq!(text(&short, CLASS.0), Some("malformed"));
        assert_eq!(short.key, Some(b"k".as_slice()));
    }

    #[test]
    fn where_the_value_is_not_all_headers_of_others_and_then_the_key_are_left_out() {
        let bound = LetterBound::new(500);
        let others = [9; 600];
        let headers = [CLASS, ("theirs", others.as_slice())];
        let short = bound.shorten(&letter(b"k", &headers)).expect("too large");
        assert_eq!(text(&short, DROPPED_HEADERS), Some("1"));
        assert_eq!((text(&short, "theirs"), short.key), (None, Some(&b"k"[..])));
        assert_eq!(short.size(), 500);

        let key = [1; 600];
        let short = bound.shorten(&letter(&key, &headers)).expect("too large");
        assert_eq!((short.key, text(&short, DROPPED_KEY)), (None, Some("600")));
        assert_eq!(text(&short, CLASS.0), Some("malformed"));
    }

    #[test]
    fn whatever_is_refused_the_bound_comes_down_to_nothing_and_the_letter_to_its_headers() {
        let bound = LetterBound::new(2 << 20);
        for _ in 0..25 {
            bound.refused(usize::MAX);
        }
        let short = bound.shorten(&letter(b"k", &[CLASS])).expect("too large");
        assert_eq!((short.key, short.value), (None, Some(b"".as_slice())));
        assert_eq!(text(&short, CLASS.0), Some("malformed"));
    }
}
