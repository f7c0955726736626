//! What kind of tumbling or hopping window a rule has, and where the windows and their panes begin and end.

use super::{MAX_SPAN, OnLate, Window, WindowError, check_span};
use crate::pattern::aggregate::Needs;

/// The most panes that a key may hold, ahead of the watermark and behind.
pub(super) const MAX_PANES: i64 = 100_000;

/// What kind of hopping window, checked. 56 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HoppingSpec {
    pub(super) size: i64,
    pub(super) slide: i64,
    offset: i64,
    /// The greatest common divisor of size and slide.
    pub(super) pane: i64,
    pub(super) lateness: i64,
    pub(super) on_late: OnLate,
    pub(super) needs: Needs,
}

impl HoppingSpec {
    /// Windows of `size` ms, one each `slide` ms, both 1 to [`MAX_SPAN`], starting at whole
    /// multiples of the slide; with `slide` equal to `size` they tumble.
    ///
    /// # Errors
    /// Where a span is out of bounds, the slide is larger than the size (events between windows
    /// would count nowhere), or a window has more than 100,000 panes.
    pub fn new(size: i64, slide: i64, needs: Needs) -> Result<HoppingSpec, WindowError> {
        check_span("size", size, 1, MAX_SPAN)?;
        check_span("slide", slide, 1, size)?;
        let pane = greatest_common_divisor(size, slide);
        if size / pane > MAX_PANES {
            return Err(WindowError::Panes {
                size,
                slide,
                panes: size / pane,
                most: MAX_PANES,
            });
        }
        Ok(HoppingSpec {
            size,
            slide,
            offset: 0,
            pane,
            lateness: 0,
            on_late: OnLate::default(),
            needs,
        })
    }

    /// The same, with windows that start `offset` ms after multiples of the slide (any number of
    /// ms; only its rest by the slide matters). For days of a time zone: minus its offset from UTC.
    #[must_use]
    pub fn with_offset(self, offset: i64) -> HoppingSpec {
        let offset = offset.rem_euclid(self.slide);
        HoppingSpec { offset, ..self }
    }

    /// The same, with late events accepted until the watermark is `lateness` ms past the end.
    ///
    /// # Errors
    /// Where the lateness is not from 0 to [`MAX_SPAN`].
    pub fn with_lateness(self, lateness: i64, on_late: OnLate) -> Result<HoppingSpec, WindowError> {
        let lateness = check_span("allowed lateness", lateness, 0, MAX_SPAN)?;
        Ok(HoppingSpec {
            lateness,
            on_late,
            ..self
        })
    }

    /// The start of the pane that `at` is in.
    #[inline]
    pub(super) fn pane_start(&self, at: i64) -> i64 {
        at - (at - self.offset).rem_euclid(self.pane)
    }

    /// The last end of a window at or before `at`.
    pub(super) fn end_before(&self, at: i64) -> i64 {
        at - (at - self.offset - self.size).rem_euclid(self.slide)
    }

    /// The first end of a window that holds the pane which starts at `pane`.
    #[inline]
    pub(super) fn first_end(&self, pane: i64) -> i64 {
        self.end_before(pane) + self.slide
    }

    /// The last end of a window that holds the pane which starts at `pane`.
    #[inline]
    pub(super) fn last_end(&self, pane: i64) -> i64 {
        self.end_before(pane + self.size)
    }

    pub(super) fn window(&self, end: i64) -> Window {
        Window {
            start: end - self.size,
            end,
        }
    }
}

fn greatest_common_divisor(a: i64, b: i64) -> i64 {
    if b == 0 {
        a
    } else {
        greatest_common_divisor(b, a % b)
    }
}
