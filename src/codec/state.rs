//! The entry of a run (`schemas/state.avsc`): one version byte, then Avro.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::avro::{Reader, put_bytes, put_count, put_long, put_optional};
use super::awaiting::Awaiting;
use super::{CodecError, provenance};
use crate::model::{
    Failure, Inbox, Json, RunId, RunState, RunStatus, SignalId, SignalName, StepState, StepStatus,
    Timestamp, WaitingSignal, WatchedKey,
};

/// Version of the schema that this program writes; it reads all up to it. Version 1 ends before
/// the inbox, version 2 before what steps watch and the provenance, version 3 before the depth; version 4
/// has what steps wait for among the facts at its front.
pub const VERSION: u8 = 4;

const FIRST_VERSION_WITH_INBOX: u8 = 2;
const FIRST_VERSION_WITH_WATCHES: u8 = 3;
const FIRST_VERSION_WITH_DEPTH: u8 = 4;
const FIRST_VERSION_WITH_AWAITING: u8 = 4;

/// A JSON text longer than this has an entry of its own.
pub const INLINE_BYTES: usize = 4 << 10;
/// Where the shorter ones of a run come to more than this, the further ones have entries of their own as well: a
/// record of the changelog has bounds.
pub const INLINE_BYTES_OF_RUN: usize = 256 << 10;

const SLOT_INPUT: u32 = 0;
const SLOT_OUTPUT: u32 = 1;
const SLOT_FIRST_STEP: u32 = 2;

/// The facts of an entry that its owner keeps at hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EntryFacts {
    pub status: RunStatus,
    pub created_at: Timestamp,
    pub next_due: Option<Timestamp>,
    pub ended_at: Option<Timestamp>,
    pub priority: i32,
    pub awaiting: Awaiting,
}

impl EntryFacts {
    pub fn of(run: &RunState) -> Self {
        Self {
            status: run.status,
            created_at: run.created_at,
            next_due: run.next_due(),
            ended_at: run.ended_at,
            priority: run.priority,
            awaiting: Awaiting::of(run),
        }
    }
}

/// Appends the run's entry; values too large for it go to `large`, with their numbers.
pub fn encode(run: &RunState, out: &mut Vec<u8>, large: &mut Vec<(u32, Json)>) {
    let values = &mut Values { large, short: 0 };
    out.push(VERSION);
    put_count(out, place(&RunStatus::ALL, run.status));
    put_long(out, run.created_at.0);
    put_time(out, run.next_due());
    put_time(out, run.ended_at);
    put_long(out, run.priority.into());
    let awaiting = Awaiting::of(run);
    put_long(out, awaiting.signals.into());
    put_long(out, awaiting.patterns.into());
    put_bytes(out, run.workflow.as_bytes());
    put_long(out, run.version.into());
    put_optional(out, run.requested_version, |out, version| {
        put_long(out, version.into())
    });
    put_value(out, 0, SLOT_INPUT, &run.input, values);
    if !run.tags.is_empty() {
        put_count(out, run.tags.len());
        for (name, value) in &run.tags {
            put_bytes(out, name.as_bytes());
            put_bytes(out, value.as_bytes());
        }
    }
    put_count(out, 0);
    put_time(out, run.started_at);
    put_time(out, run.deadline);
    put_optional_value(out, SLOT_OUTPUT, run.output.as_ref(), values);
    put_optional(out, run.error.as_ref(), put_failure);
    put_long(out, run.revision.cast_signed());
    put_long(out, run.epoch.into());
    put_long(out, run.sequence.cast_signed());
    put_optional(out, run.traceparent.as_ref(), |out, text| {
        put_bytes(out, text.as_bytes())
    });
    if !run.steps.is_empty() {
        put_count(out, run.steps.len());
        for (slot, step) in (SLOT_FIRST_STEP..).zip(&run.steps) {
            put_step(out, slot, step, values);
        }
    }
    put_count(out, 0);
    put_inbox(
        out,
        first_slot_of_signals(run.steps.len()),
        &run.inbox,
        values,
    );
    if !run.watches.is_empty() {
        put_count(out, run.watches.len());
        for watch in &run.watches {
            put_count(out, watch.step);
            put_bytes(out, watch.key.as_str().as_bytes());
        }
    }
    put_count(out, 0);
    put_optional(out, run.provenance.as_deref(), provenance::put);
    put_long(out, run.depth.into());
}

/// Where the values of a run go.
struct Values<'v> {
    large: &'v mut Vec<(u32, Json)>,
    /// Bytes of the short ones so far, wherever they went: outputs come and stay, so that what once has an
    /// entry of its own keeps it.
    short: usize,
}

impl Values<'_> {
    fn is_inline(&mut self, value: &Json) -> bool {
        let is_short = value.len() <= INLINE_BYTES;
        if is_short {
            self.short += value.len();
        }
        is_short && self.short <= INLINE_BYTES_OF_RUN
    }
}

/// After the outputs of the steps.
fn first_slot_of_signals(steps: usize) -> u32 {
    SLOT_FIRST_STEP.saturating_add(u32::try_from(steps).unwrap_or(u32::MAX))
}

fn put_inbox(out: &mut Vec<u8>, first_slot: u32, inbox: &Inbox, values: &mut Values<'_>) {
    if !inbox.waiting.is_empty() {
        put_count(out, inbox.waiting.len());
        for signal in &inbox.waiting {
            put_bytes(out, signal.name.as_str().as_bytes());
            put_optional(out, signal.id.as_ref(), |out, id| {
                put_bytes(out, id.as_str().as_bytes())
            });
            put_long(out, signal.received_at.0);
            put_long(out, signal.place.into());
            let slot = first_slot.saturating_add(signal.place);
            put_value(out, 0, slot, &signal.data, values);
        }
    }
    put_count(out, 0);
    if !inbox.ids.is_empty() {
        put_count(out, inbox.ids.len());
        for id in &inbox.ids {
            put_bytes(out, id.as_str().as_bytes());
        }
    }
    put_count(out, 0);
    put_long(out, inbox.places.into());
}

fn put_step(out: &mut Vec<u8>, slot: u32, step: &StepState, values: &mut Values<'_>) {
    put_count(out, place(&StepStatus::ALL, step.status));
    put_long(out, step.attempt.into());
    let times = [
        step.scheduled_at,
        step.started_at,
        step.ended_at,
        step.deadline,
        step.heartbeat_due,
        step.retry_at,
    ];
    for time in times {
        put_time(out, time);
    }
    put_optional(out, step.progress, |out, progress| {
        out.extend_from_slice(&progress.to_le_bytes())
    });
    put_optional_value(out, slot, step.output.as_ref(), values);
    put_optional(out, step.error.as_ref(), put_failure);
}

fn put_time(out: &mut Vec<u8>, time: Option<Timestamp>) {
    put_optional(out, time, |out, time| put_long(out, time.0));
}

fn put_optional_value(out: &mut Vec<u8>, slot: u32, value: Option<&Json>, values: &mut Values<'_>) {
    match value {
        None => put_count(out, 0),
        Some(value) => put_value(out, 1, slot, value, values),
    }
}

/// `branch` is the place of `string` in the union; that of `int` follows.
fn put_value(out: &mut Vec<u8>, branch: usize, slot: u32, value: &Json, values: &mut Values<'_>) {
    if values.is_inline(value) {
        put_count(out, branch);
        put_bytes(out, value.as_str().as_bytes());
    } else {
        put_count(out, branch + 1);
        put_long(out, slot.into());
        values.large.push((slot, value.clone()));
    }
}

fn put_failure(out: &mut Vec<u8>, failure: &Failure) {
    put_bytes(out, failure.class.as_bytes());
    put_bytes(out, failure.message.as_bytes());
    put_optional(out, failure.retryable, |out, retryable| {
        out.push(retryable.into())
    });
    put_optional(out, failure.details.as_ref(), |out, details| {
        put_bytes(out, details.as_str().as_bytes());
    });
    put_optional(out, failure.step.as_ref(), |out, step| {
        put_bytes(out, step.as_bytes())
    });
}

fn place<T: PartialEq>(all: &[T], value: T) -> usize {
    all.iter()
        .position(|known| *known == value)
        .expect("the list names all")
}

/// Where a decoder finds the values that have entries of their own.
pub type LargeValues<'a> = &'a dyn Fn(u32) -> Option<Json>;

/// Reads the front of the entry of run `id`; whether the rest is whole, shows when it is decoded. Entries of
/// earlier versions have to be decoded for what their steps wait for.
pub fn facts(id: &RunId, bytes: &[u8]) -> Result<EntryFacts, CodecError> {
    let reader = &mut Reader::new(bytes);
    let version = version(reader)?;
    let mut facts = read_facts(reader, version)?;
    if version < FIRST_VERSION_WITH_AWAITING && !facts.status.is_ended() {
        let run = decode(id, bytes, &|_| Some(Json::null()));
        facts.awaiting = run.map_or_else(|_| Awaiting::default(), |run| Awaiting::of(&run));
    }
    Ok(facts)
}

fn version(reader: &mut Reader<'_>) -> Result<u8, CodecError> {
    let version = reader.byte()?;
    if version == 0 || version > VERSION {
        return Err(CodecError::TooNew {
            found: version,
            known: VERSION,
        });
    }
    Ok(version)
}

fn read_facts(reader: &mut Reader<'_>, version: u8) -> Result<EntryFacts, CodecError> {
    let mut facts = EntryFacts {
        status: member(reader, &RunStatus::ALL)?,
        created_at: Timestamp(reader.long()?),
        next_due: time(reader)?,
        ended_at: time(reader)?,
        priority: reader.number()?,
        awaiting: Awaiting::default(),
    };
    if version >= FIRST_VERSION_WITH_AWAITING {
        facts.awaiting = Awaiting {
            signals: reader.number()?,
            patterns: reader.number()?,
        };
    }
    Ok(facts)
}

/// Reads the entry of run `id`.
pub fn decode(id: &RunId, bytes: &[u8], large: LargeValues<'_>) -> Result<RunState, CodecError> {
    let reader = &mut Reader::new(bytes);
    let version = version(reader)?;
    let facts = read_facts(reader, version)?;
    let mut run = RunState {
        id: id.clone(),
        status: facts.status,
        created_at: facts.created_at,
        ended_at: facts.ended_at,
        priority: facts.priority,
        workflow: Arc::from(reader.text()?),
        version: reader.number()?,
        requested_version: reader.optional(Reader::number)?,
        input: value(reader, 0, large)?,
        tags: tags(reader)?,
        started_at: time(reader)?,
        deadline: time(reader)?,
        output: optional_value(reader, large)?,
        error: reader.optional(failure)?,
        revision: reader.long()?.cast_unsigned(),
        epoch: reader.number()?,
        sequence: reader.long()?.cast_unsigned(),
        traceparent: reader.optional(Reader::text)?.map(str::to_owned),
        steps: steps(reader, large)?,
        inbox: Inbox::default(),
        watches: Vec::new(),
        provenance: None,
        depth: 0,
    };
    if version >= FIRST_VERSION_WITH_INBOX {
        run.inbox = inbox(reader, large)?;
    }
    if version >= FIRST_VERSION_WITH_WATCHES {
        reader.items(|reader| {
            run.watches.push(WatchedKey {
                step: reader.number()?,
                key: json(reader)?,
            });
            Ok(())
        })?;
        run.provenance = reader.optional(provenance::read)?.map(Arc::new);
    }
    run.depth = match version >= FIRST_VERSION_WITH_DEPTH {
        true => reader.number()?,
        false => run.provenance.as_ref().map_or(0, |from| from.depth),
    };
    match reader.is_at_end() {
        true => Ok(run),
        false => Err(reader.malformed("more bytes than an entry has")),
    }
}

/// Numbers of the values that the entry keeps elsewhere, and of those that signals may have left
/// there when they were taken.
pub fn large_slots(id: &RunId, bytes: &[u8]) -> Result<Vec<u32>, CodecError> {
    let slots = std::cell::RefCell::new(Vec::new());
    let run = decode(id, bytes, &|slot| {
        slots.borrow_mut().push(slot);
        Some(Json::null())
    })?;
    let first = first_slot_of_signals(run.steps.len());
    let mut slots = slots.into_inner();
    slots.retain(|slot| *slot < first);
    slots.extend(first..first.saturating_add(run.inbox.places));
    Ok(slots)
}

/// Reads the tags of an entry and nothing else of it.
pub fn each_tag(bytes: &[u8], mut tell: impl FnMut(&str, &str)) -> Result<(), CodecError> {
    let reader = &mut Reader::new(bytes);
    let version = version(reader)?;
    read_facts(reader, version)?;
    reader.bytes()?;
    reader.long()?;
    reader.optional(Reader::long)?;
    match reader.long()? {
        0 => drop(reader.bytes()?),
        _ => drop(reader.long()?),
    }
    reader.items(|reader| {
        tell(reader.text()?, reader.text()?);
        Ok(())
    })
}

fn inbox(reader: &mut Reader<'_>, large: LargeValues<'_>) -> Result<Inbox, CodecError> {
    let mut inbox = Inbox::default();
    reader.items(|reader| {
        let name = reader.text()?;
        inbox.waiting.push(WaitingSignal {
            name: SignalName::parse(name)
                .map_err(|_| reader.malformed("a signal without a name"))?,
            id: reader.optional(signal_id)?,
            received_at: Timestamp(reader.long()?),
            place: reader.number()?,
            data: value(reader, 0, large)?,
        });
        Ok(())
    })?;
    reader.items(|reader| {
        inbox.ids.push_back(signal_id(reader)?);
        Ok(())
    })?;
    inbox.places = reader.number()?;
    Ok(inbox)
}

fn signal_id(reader: &mut Reader<'_>) -> Result<SignalId, CodecError> {
    let text = reader.text()?;
    SignalId::parse(text).map_err(|_| reader.malformed("no id of a signal"))
}

fn tags(reader: &mut Reader<'_>) -> Result<BTreeMap<String, String>, CodecError> {
    let mut tags = BTreeMap::new();
    reader.items(|reader| {
        tags.insert(reader.text()?.to_owned(), reader.text()?.to_owned());
        Ok(())
    })?;
    Ok(tags)
}

fn steps(reader: &mut Reader<'_>, large: LargeValues<'_>) -> Result<Vec<StepState>, CodecError> {
    let mut steps = Vec::new();
    reader.items(|reader| {
        steps.push(StepState {
            status: member(reader, &StepStatus::ALL)?,
            attempt: reader.number()?,
            scheduled_at: time(reader)?,
            started_at: time(reader)?,
            ended_at: time(reader)?,
            deadline: time(reader)?,
            heartbeat_due: time(reader)?,
            retry_at: time(reader)?,
            progress: reader.optional(Reader::double)?,
            output: optional_value(reader, large)?,
            error: reader.optional(failure)?,
        });
        Ok(())
    })?;
    Ok(steps)
}

fn member<T: Copy>(reader: &mut Reader<'_>, all: &[T]) -> Result<T, CodecError> {
    let place: usize = reader.number()?;
    all.get(place)
        .copied()
        .ok_or_else(|| reader.malformed("an unknown status"))
}

fn time(reader: &mut Reader<'_>) -> Result<Option<Timestamp>, CodecError> {
    reader.optional(|reader| reader.long().map(Timestamp))
}

fn optional_value(
    reader: &mut Reader<'_>,
    large: LargeValues<'_>,
) -> Result<Option<Json>, CodecError> {
    match reader.long()? {
        0 => Ok(None),
        branch => branch_value(reader, branch - 1, large).map(Some),
    }
}

fn value(reader: &mut Reader<'_>, first: i64, large: LargeValues<'_>) -> Result<Json, CodecError> {
    let branch = reader.long()? - first;
    branch_value(reader, branch, large)
}

fn branch_value(
    reader: &mut Reader<'_>,
    branch: i64,
    large: LargeValues<'_>,
) -> Result<Json, CodecError> {
    match branch {
        0 => json(reader),
        1 => {
            let slot = reader.number()?;
            large(slot).ok_or(CodecError::MissingValue { slot })
        }
        _ => Err(reader.malformed("an unknown branch of a union")),
    }
}

fn json(reader: &mut Reader<'_>) -> Result<Json, CodecError> {
    let text = reader.text()?;
    Json::from_text(text).map_err(|_| reader.malformed("a text that is not JSON"))
}

fn failure(reader: &mut Reader<'_>) -> Result<Failure, CodecError> {
    Ok(Failure {
        class: reader.text()?.to_owned(),
        message: reader.text()?.to_owned(),
        retryable: reader.optional(Reader::boolean)?,
        details: reader.optional(json)?,
        step: reader.optional(Reader::text)?.map(str::to_owned),
    })
}
