//! How many steps of a run wait for something from outside. Whoever restores a partition wants it of
//! every run that lives, so it stands at the front of an entry.

use std::ops::{AddAssign, SubAssign};

use crate::model::{RunState, RunStatus};

/// Steps that wait now, by what they wait for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Awaiting {
    /// For a named signal.
    pub signals: u32,
    /// For a pattern of events.
    pub patterns: u32,
}

impl Awaiting {
    /// Of one run; nothing waits in one that has ended or has not begun. Of the steps that wait, those that
    /// watch wait for a pattern.
    pub fn of(run: &RunState) -> Self {
        if !matches!(run.status, RunStatus::Running | RunStatus::Paused) {
            return Self::default();
        }
        let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let waiting = run.steps.iter().filter(|step| step.is_awaiting()).count();
        let watching = run.watches.len();
        Self {
            signals: count(waiting.saturating_sub(watching)),
            patterns: count(watching),
        }
    }
}

impl AddAssign for Awaiting {
    fn add_assign(&mut self, other: Self) {
        self.signals += other.signals;
        self.patterns += other.patterns;
    }
}

impl SubAssign for Awaiting {
    fn sub_assign(&mut self, other: Self) {
        self.signals -= other.signals;
        self.patterns -= other.patterns;
    }
}
