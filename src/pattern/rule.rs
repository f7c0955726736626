//! A rule that passed all checks: immutable, shared by every matcher of it.

use std::sync::Arc;

use super::predicate::Predicate;
use crate::expr::{Segment, Template};
use crate::model::{Json, Millis};

/// Most conditions, steps and `until`s of one rule; a set of them fits into a word.
pub const MAX_CONDITIONS: usize = 64;

/// A rule.
#[derive(Clone, Debug)]
pub struct Rule {
    pub name: Arc<str>,
    /// From 1.
    pub version: u32,
    pub description: Option<String>,
    /// The canonical form; equal texts say the same.
    pub source: Json,
    /// What it reads; [`Event::topic`](super::Event::topic) is a place in this list.
    pub topics: Vec<Arc<str>>,
    /// Paths of fields within an event, without the leading `event`; a slot each.
    pub fields: Vec<Vec<Segment>>,
    /// `correlate.by`: names as written, and their slots.
    pub correlate: Vec<(Arc<str>, u16)>,
    pub time: Time,
    /// Conditions, steps and groups by their ids; names of [`Match::events`](super::Match::events).
    pub names: Vec<Arc<str>>,
    pub predicates: Vec<Predicate>,
    pub shape: Shape,
    pub emit: Emit,
    pub limits: Limits,
    pub start: Option<Start>,
    pub mode: Mode,
    pub on_update: OnUpdate,
}

/// Where event time comes from, and how far it may be out of order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Time {
    /// Slot of the field that holds it; `None`: the record's own time.
    pub field: Option<u16>,
    pub out_of_order: Millis,
    /// How long beyond `out_of_order` an event is still taken, after what it should have preceded.
    pub allowed_lateness: Millis,
    /// An idle source stops holding time back after this.
    pub idle_after: Option<Millis>,
}

/// What a rule looks for.
#[derive(Clone, Debug)]
pub enum Shape {
    /// One event that meets one of the conditions; one match for each condition met.
    Any {
        conditions: Vec<Condition>,
    },
    /// An event for each condition, in any order, the last less than `within` after the first.
    All {
        within: Millis,
        conditions: Vec<Condition>,
    },
    /// `at_least` events of the condition, the last less than `within` after the first.
    Count {
        within: Millis,
        at_least: u32,
        condition: Condition,
    },
    Sequence(Sequence),
}

/// A name and a place in [`Rule::predicates`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Condition {
    /// Place in [`Rule::names`].
    pub name: u16,
    pub predicate: u16,
}

/// Steps one after the other.
#[derive(Clone, Debug)]
pub struct Sequence {
    /// From the first event to the last, half open.
    pub within: Option<Millis>,
    pub steps: Vec<Step>,
}

/// One step of a sequence.
#[derive(Clone, Debug)]
pub struct Step {
    /// Place in [`Rule::names`].
    pub name: u16,
    pub part: Part,
    /// Contiguity to the step before.
    pub next: Contiguity,
    /// Contiguity between the occurrences of this step.
    pub inner: Contiguity,
    pub times: Times,
    pub optional: bool,
    pub greedy: bool,
    /// Place in [`Rule::predicates`]: ends the repetition.
    pub until: Option<u16>,
    /// Longest gap from the event before, half open.
    pub within_gap: Option<Millis>,
}

/// What a step consists of.
#[derive(Clone, Debug)]
pub enum Part {
    /// Events that meet this predicate.
    Event(u16),
    /// No event that meets this predicate.
    Absent(u16),
    Group(Vec<Step>),
}

/// How closely one event follows another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Contiguity {
    /// The very next event of the rule's topics and key.
    Strict,
    /// The next that fits.
    #[default]
    Relaxed,
    /// Any that fits, also past others that fit.
    Any,
}

/// How often a step occurs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    pub min: u32,
    /// `None`: without end, up to `limits.max_kleene`.
    pub max: Option<u32>,
}

impl Times {
    pub const ONCE: Times = Times {
        min: 1,
        max: Some(1),
    };
}

/// When and how often matches come out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Emit {
    pub after_match: Skip,
    /// A match waits until its key had no other for so long; the last one comes out.
    pub debounce: Option<Millis>,
    /// After a match, those of its key within this are dropped.
    pub cooldown: Option<Millis>,
}

/// What happens to partial matches of the key after a match. Flink CEP's strategies.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Skip {
    #[default]
    None,
    PastLast,
    ToNext,
    /// Place in [`Rule::names`].
    ToFirst(u16),
    ToLast(u16),
}

/// Bounds of the state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Partial matches, or held events where a shape needs none, of one key.
    pub max_partials_per_key: usize,
    /// Occurrences of a step without a maximum of its own.
    pub max_kleene: u32,
    pub max_keys: usize,
    /// Matches that one event may complete.
    pub max_results_per_event: usize,
    pub on_overflow: OnOverflow,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_partials_per_key: 100_000,
            max_kleene: 1_000,
            max_keys: 1_000_000,
            max_results_per_event: 100_000,
            on_overflow: OnOverflow::DropOldest,
        }
    }
}

/// What gives way at a bound; it is reported either way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnOverflow {
    DropOldest,
    DropNewest,
}

/// The run that a match starts.
#[derive(Clone, Debug)]
pub struct Start {
    pub workflow: Arc<str>,
    pub version: Option<u32>,
    /// May begin with `key`, `matches` and `rule`.
    pub input: Option<Template>,
    pub priority: Option<i32>,
    pub tags: Vec<(String, Template)>,
}

/// Whether matches start anything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    #[default]
    Live,
    /// Matches are recorded and start nothing.
    Shadow,
}

/// What becomes of the old version's partial matches when a new version is applied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnUpdate {
    #[default]
    Drain,
    Drop,
}
