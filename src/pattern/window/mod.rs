//! Windows of event time over one stream of samples per key.
//!
//! [`Hopping`] (tumbling where slide and size are equal) and [`Sessions`] hold the state of one
//! key, know when they are due, and fire when the watermark passes the end of a window. [`Trailing`] is
//! the window "over the last W" that every event ends anew. [`change`] compares a value with the ones
//! before it.
//!
//! Times are epoch milliseconds. A window is half open, `[start, end)`, and aligned to the epoch
//! plus an offset, as in Flink. A **watermark** w is the promise that no event before w is to come;
//! a window fires when the watermark reaches its end. An event before the watermark is late: it
//! still counts in windows that have not fired, and in fired ones within the allowed lateness.

pub mod change;
mod hopping;
mod hopping_spec;
mod panes;
mod running;
mod session;
mod trailing;

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

pub use hopping::Hopping;
pub use hopping_spec::HoppingSpec;
pub use session::{SessionSpec, Sessions};
pub use trailing::{Trailing, TrailingSpec};

/// The largest span of a window, and of the allowed lateness: a hundred years, in ms.
pub const MAX_SPAN: i64 = 100 * 366 * 86_400_000;

/// Event times beyond this size, in ms, are refused, so that no sum of times overflows.
pub(in crate::pattern) const MAX_TIME: u64 = 1 << 61;

/// A span of event time, half open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Window {
    /// The first ms inside.
    pub start: i64,
    /// The first ms after it.
    pub end: i64,
}

/// A window whose summary is handed out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fired {
    /// Which.
    pub window: Window,
    /// Whether a late event changed a window that had been due already. It says "again", unless
    /// that event was the first of its key in the window.
    pub late: bool,
}

/// What to do with an event that is late for a window which fired, and within the allowed lateness.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum OnLate {
    /// Fire the window once more, at once, with the event in it, as Flink does.
    #[default]
    Refire,
    /// Leave what fired as it is; the answer [`Arrival::Late`] lets the caller count.
    Count,
}

/// What became of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[must_use]
pub enum Arrival {
    /// It counts in all its windows.
    OnTime,
    /// It came after the watermark; it counts in at least one window, and not in those that were
    /// beyond the allowed lateness.
    Late,
    /// It came after the allowed lateness of all its windows and counts nowhere: for the
    /// dead-letter topic.
    TooLate,
    /// A bound of the state is reached (keys, panes, open sessions) and it counts nowhere.
    Overflow,
}

/// A window that cannot be: what was given, and what would be right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WindowError {
    /// A span out of its bounds.
    #[error("the {what} of a window is {given} ms: it must be from {least} to {most} ms")]
    Span {
        /// Which span.
        what: &'static str,
        /// As given, ms.
        given: i64,
        /// The least it may be, ms.
        least: i64,
        /// The most it may be, ms.
        most: i64,
    },
    /// More panes than a key may have.
    #[error(
        "a window of {size} ms that slides by {slide} ms is made of {panes} panes, and at most \
         {most} are possible: make the slide larger, or a divisor of the size"
    )]
    Panes {
        /// The window's size, ms.
        size: i64,
        /// Its slide, ms.
        slide: i64,
        /// How many panes it would be made of.
        panes: i64,
        /// How many it may be made of.
        most: i64,
    },
}

/// Room for one more in a list that rarely gets long: the standard's first step would be room for four.
pub(super) fn make_room<T>(list: &mut VecDeque<T>) {
    let len = list.len();
    if len == list.capacity() && len < 4 {
        list.reserve_exact(len.max(1));
    }
}

fn check_span(what: &'static str, given: i64, least: i64, most: i64) -> Result<i64, WindowError> {
    if (least..=most).contains(&given) {
        return Ok(given);
    }
    Err(WindowError::Span {
        what,
        given,
        least,
        most,
    })
}
