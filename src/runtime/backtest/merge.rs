//! Partitions merged by the timestamps of their records. Within a partition the order of offsets
//! stays: a record whose timestamp lies before that of its predecessor comes right after it. Of equal
//! times, records to be joined come before events, then topics by name, then partitions. One that says to be
//! of a later time than it is now comes right after that before it as well. Of each partition one record is
//! decoded in advance.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::{BacktestError, BacktestSettings};
use crate::codec::event::{self, DecodedEvent, RawEvent, Refused, Schemas};
use crate::log::kafka::range::{RangeReader, RangeRecord, Span};
use crate::model::Timestamp;

/// One partition to be read.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) span: Span,
    /// Where events begin; `None`: it is only joined.
    pub(super) events: Option<Beginning>,
    /// Whether a rule joins the topic.
    pub(super) is_joined: bool,
}

/// The first event: at this offset or behind it, and with this timestamp or a later one.
#[derive(Clone, Copy, Debug)]
pub(super) struct Beginning {
    pub(super) offset: i64,
    pub(super) at: Option<Timestamp>,
}

/// A record, decoded.
pub(super) struct Head {
    /// What the order goes by: its timestamp, or that of a record before it.
    pub(super) at: Timestamp,
    /// The record's own.
    pub(super) timestamp: Option<Timestamp>,
    pub(super) offset: i64,
    /// Whether it lies in the range of events.
    pub(super) is_event: bool,
    /// Of a topic that is joined; `None`: it has no key.
    pub(super) key: Option<String>,
    /// `None`: a tombstone. What cannot be read has its class and why.
    pub(super) event: Result<Option<DecodedEvent>, (&'static str, String)>,
    pub(super) headers: Vec<(String, Vec<u8>)>,
    /// Whether the record has no value at all.
    pub(super) is_tombstone: bool,
}

/// See the module.
pub(super) struct Merge<'a> {
    reader: RangeReader,
    parts: &'a [Part],
    schemas: &'a dyn Schemas,
    max_payload_bytes: usize,
    now: Timestamp,
    heads: Vec<Option<Head>>,
    /// The offset of the first event of each part.
    first: Vec<Option<i64>>,
    /// Time, whether it has events, and place.
    order: BinaryHeap<Reverse<(Timestamp, bool, usize)>>,
}

impl<'a> Merge<'a> {
    /// `parts` lie in the order of their topics' names.
    pub(super) fn new(
        reader: RangeReader,
        parts: &'a [Part],
        schemas: &'a dyn Schemas,
        settings: &BacktestSettings,
    ) -> Result<Self, BacktestError> {
        let mut merge = Self {
            reader,
            parts,
            schemas,
            max_payload_bytes: settings.max_payload_bytes,
            now: settings.now,
            heads: parts.iter().map(|_| None).collect(),
            first: vec![None; parts.len()],
            order: BinaryHeap::with_capacity(parts.len()),
        };
        for place in 0..parts.len() {
            merge.advance(place, Timestamp(i64::MIN))?;
        }
        Ok(merge)
    }

    /// The next record, and the place of its part; `None`: all have been read.
    pub(super) fn pop(&mut self) -> Result<Option<(usize, Head)>, BacktestError> {
        let Some(Reverse((at, _, place))) = self.order.pop() else {
            return Ok(None);
        };
        let head = self.heads[place].take();
        self.advance(place, at)?;
        Ok(head.map(|head| (place, head)))
    }

    /// The ranges of events, once all has been read.
    pub(super) fn ranges(&self) -> Vec<Span> {
        let parts = self.parts.iter().enumerate();
        let with_events = parts.filter(|(_, part)| part.events.is_some());
        let range = |(place, part): (usize, &Part)| {
            let end = self.reader.end(place);
            Span {
                from: self.first[place].unwrap_or(end),
                end,
                ..part.span.clone()
            }
        };
        with_events.map(range).collect()
    }

    /// Reads the next record of a part.
    fn advance(&mut self, place: usize, before: Timestamp) -> Result<(), BacktestError> {
        let part = &self.parts[place];
        let (schemas, most, now) = (self.schemas, self.max_payload_bytes, self.now);
        let first = &mut self.first[place];
        let decoded = self.reader.next(place, |_, record| {
            let begins = |beginning: Beginning| {
                let is_early = |from| record.timestamp.is_some_and(|at| at < from);
                record.offset >= beginning.offset && !beginning.at.is_some_and(is_early)
            };
            if first.is_none() && part.events.is_some_and(begins) {
                *first = Some(record.offset);
            }
            let believed = record.timestamp.filter(|at| *at <= now);
            let at = believed.map_or(before, |at| at.max(before));
            decode(part, record, first.is_some(), at, schemas, most)
        })?;
        let Some(head) = decoded.transpose().map_err(BacktestError::Schema)? else {
            return Ok(());
        };
        let has_events = part.events.is_some();
        self.order.push(Reverse((head.at, has_events, place)));
        self.heads[place] = Some(head);
        Ok(())
    }
}

/// # Errors
/// A schema is not at hand.
fn decode(
    part: &Part,
    record: RangeRecord<'_>,
    is_event: bool,
    at: Timestamp,
    schemas: &dyn Schemas,
    max_payload_bytes: usize,
) -> Result<Head, String> {
    let raw = RawEvent {
        value: record.value,
        headers: &record.headers,
        timestamp: record.timestamp,
    };
    let event = match event::decode(&raw, schemas, max_payload_bytes) {
        Ok(event) => Ok(event),
        Err(Refused::Unreadable(unreadable)) => Err((unreadable.class, unreadable.message)),
        Err(Refused::Unavailable(reason)) => return Err(reason),
    };
    let key = record.key.filter(|_| part.is_joined);
    Ok(Head {
        at,
        timestamp: record.timestamp,
        offset: record.offset,
        is_event,
        key: key.map(|key| String::from_utf8_lossy(key).into_owned()),
        event,
        is_tombstone: record.value.is_none(),
        headers: record.headers,
    })
}
