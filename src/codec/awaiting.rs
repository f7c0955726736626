//! How many steps of a run wait for something from outside. Whoever restores a partition wants it of
//! every run that lives, so it is told from an entry without making values of it.

use std::ops::{AddAssign, SubAssign};

use super::CodecError;
use super::avro::Reader;
use super::state::{FIRST_VERSION_WITH_INBOX, FIRST_VERSION_WITH_WATCHES};
use crate::model::{RunState, RunStatus, StepStatus};

/// Steps that wait now, by what they wait for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Awaiting {
    /// For a named signal.
    pub signals: u32,
    /// For a pattern of events.
    pub patterns: u32,
}

impl Awaiting {
    /// Of one run; nothing waits in one that has ended or has not begun.
    pub fn of(run: &RunState) -> Self {
        if !may_wait(run.status) {
            return Self::default();
        }
        let waiting = run.steps.iter().filter(|step| step.is_awaiting());
        Self::new(waiting.count(), run.watches.len())
    }

    /// Of these steps those that watch wait for a pattern.
    fn new(waiting: usize, watching: usize) -> Self {
        let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        Self {
            signals: count(waiting.saturating_sub(watching)),
            patterns: count(watching),
        }
    }

    /// Of a run of this status, from what follows the facts of its entry.
    pub(super) fn skim(
        reader: &mut Reader<'_>,
        version: u8,
        status: RunStatus,
    ) -> Result<Self, CodecError> {
        if !may_wait(status) {
            return Ok(Self::default());
        }
        // Workflow, version and the version asked for; input; tags.
        reader.bytes()?;
        reader.long()?;
        reader.optional(Reader::long)?;
        value(reader)?;
        reader.items(|reader| {
            reader.bytes()?;
            reader.bytes().map(drop)
        })?;
        // Beginning and deadline; output and error; three counts; the trace.
        longs(reader, 2)?;
        optional_value(reader)?;
        reader.optional(failure)?;
        for _ in 0..3 {
            reader.long()?;
        }
        reader.optional(Reader::bytes)?;
        let (mut waiting, mut watching) = (0, 0);
        reader.items(|reader| {
            waiting += usize::from(step(reader)?);
            Ok(())
        })?;
        if version >= FIRST_VERSION_WITH_INBOX {
            inbox(reader)?;
        }
        if version >= FIRST_VERSION_WITH_WATCHES {
            reader.items(|reader| {
                watching += 1;
                reader.long()?;
                reader.bytes().map(drop)
            })?;
        }
        Ok(Self::new(waiting, watching))
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

fn may_wait(status: RunStatus) -> bool {
    matches!(status, RunStatus::Running | RunStatus::Paused)
}

/// Whether the step waits, and not for its next attempt.
fn step(reader: &mut Reader<'_>) -> Result<bool, CodecError> {
    let status: usize = reader.number()?;
    reader.long()?;
    longs(reader, 5)?;
    let retry_at = reader.optional(Reader::long)?;
    reader.optional(Reader::double)?;
    optional_value(reader)?;
    reader.optional(failure)?;
    Ok(StepStatus::ALL.get(status) == Some(&StepStatus::Waiting) && retry_at.is_none())
}

fn inbox(reader: &mut Reader<'_>) -> Result<(), CodecError> {
    reader.items(|reader| {
        reader.bytes()?;
        reader.optional(Reader::bytes)?;
        reader.long()?;
        reader.long()?;
        value(reader)
    })?;
    reader.items(|reader| reader.bytes().map(drop))?;
    reader.long().map(drop)
}

fn longs(reader: &mut Reader<'_>, optional: usize) -> Result<(), CodecError> {
    for _ in 0..optional {
        reader.optional(Reader::long)?;
    }
    Ok(())
}

fn optional_value(reader: &mut Reader<'_>) -> Result<(), CodecError> {
    match reader.long()? {
        0 => Ok(()),
        1 => reader.bytes().map(drop),
        _ => reader.long().map(drop),
    }
}

fn value(reader: &mut Reader<'_>) -> Result<(), CodecError> {
    match reader.long()? {
        0 => reader.bytes().map(drop),
        _ => reader.long().map(drop),
    }
}

fn failure(reader: &mut Reader<'_>) -> Result<(), CodecError> {
    reader.bytes()?;
    reader.bytes()?;
    reader.optional(Reader::boolean)?;
    reader.optional(Reader::bytes)?;
    reader.optional(Reader::bytes).map(drop)
}
