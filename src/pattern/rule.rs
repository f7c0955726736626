//! A rule that passed all checks: immutable, shared by every matcher of it.

use std::sync::Arc;

use super::aggregate::{Function, Summary};
use super::event::Scalar;
use super::gauge::Gauge;
use super::having::Having;
use super::predicate::Predicate;
use super::route::{Destination, Workflow};
use crate::expr::{Segment, Template};
use crate::model::cloud_event::Attributes;
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
    /// By topic, where some slot has another path in each: all paths as they are there. Else empty.
    pub fields_by_topic: Vec<Vec<Vec<Segment>>>,
    /// `correlate.by`: names as written, and their slots.
    pub correlate: Vec<(Arc<str>, u16)>,
    pub time: Time,
    /// Conditions, steps and groups by their ids; names of [`Match::events`](super::Match::events).
    pub names: Vec<Arc<str>>,
    pub predicates: Vec<Predicate>,
    /// Conditions that compare an event with those before it in its series.
    pub measures: Vec<Measure>,
    pub shape: Shape,
    pub emit: Emit,
    pub limits: Limits,
    pub start: Option<Start>,
    /// Commands to other runs; all of them, beside the start.
    pub steers: Vec<Steer>,
    /// Topics that are joined to a match.
    pub enrich: Vec<Enrich>,
    /// The part of the keys that the rule acts for; without one all.
    pub canary: Option<Canary>,
    /// `false`: applied and not in force.
    pub enabled: bool,
    pub mode: Mode,
    pub on_update: OnUpdate,
    /// A step of a workflow implies it: events matter while somebody watches their key.
    pub is_awaited: bool,
}

impl Rule {
    /// `<name>@<version>`.
    pub fn id(&self) -> String {
        format!("{}@{}", self.name, self.version)
    }

    /// Whether an event with these attributes stems from this rule, in any version. A rule takes no
    /// event that itself caused.
    pub fn has_caused(&self, event: Option<&Attributes>) -> bool {
        let author = event.and_then(|event| event.rule.as_deref());
        let name = author.and_then(|id| id.rsplit_once('@'));
        name.is_some_and(|(name, _)| *name == *self.name)
    }

    /// The paths of the fields in events of a topic, by the topic's place.
    pub fn fields_in(&self, topic: u16) -> &[Vec<Segment>] {
        let of_topic = self.fields_by_topic.get(usize::from(topic));
        of_topic.unwrap_or(&self.fields)
    }

    /// How long after what began it a match may take an event, or a window one after its first; `None`:
    /// as long as it likes.
    pub fn reach(&self) -> Option<Millis> {
        match &self.shape {
            Shape::Any { .. } => Some(Millis(0)),
            Shape::All { within, .. } | Shape::Count { within, .. } => Some(*within),
            Shape::Sequence(sequence) => sequence.within,
            Shape::Window(window) => match window.span {
                Span::Session { .. } => None,
                span => Some(span.reach()),
            },
        }
    }

    /// The workflows that matches start, with the version where one is asked for.
    pub fn workflows(&self) -> Vec<(&str, Option<u32>)> {
        let mut found: Vec<(&str, Option<u32>)> = Vec::new();
        fn named(workflow: &Workflow) -> (&str, Option<u32>) {
            (&workflow.name, workflow.version)
        }
        match self.start.as_ref().map(|start| &start.to) {
            None => {}
            Some(Destination::Workflow(workflow)) => found.push(named(workflow)),
            Some(Destination::Route(route)) => {
                for choice in route.choices() {
                    let workflow = named(&choice.workflow);
                    if !found.contains(&workflow) {
                        found.push(workflow);
                    }
                }
            }
        }
        found
    }
}

impl Rule {
    /// The topic of the events that a name of [`Rule::names`] stands for; empty for a group.
    pub fn topic_of(&self, name: u16) -> &str {
        let predicate = match &self.shape {
            Shape::Any { conditions } | Shape::All { conditions, .. } => {
                let of_name = conditions.iter().find(|condition| condition.name == name);
                of_name.map(|condition| condition.predicate)
            }
            Shape::Count { condition, .. } => Some(condition.predicate),
            Shape::Sequence(sequence) => predicate_of(&sequence.steps, name),
            Shape::Window(window) => Some(window.predicate),
        };
        let topic = predicate.map(|place| self.predicates[usize::from(place)].topic);
        topic.map_or("", |topic| &self.topics[usize::from(topic)])
    }
}

fn predicate_of(steps: &[Step], name: u16) -> Option<u16> {
    steps.iter().find_map(|step| match &step.part {
        Part::Group(steps) => predicate_of(steps, name),
        Part::Event(predicate) | Part::Absent(predicate) if step.name == name => Some(*predicate),
        Part::Event(_) | Part::Absent(_) => None,
    })
}

/// What event time is read from.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum TimeSource {
    /// The record's own time.
    #[default]
    Record,
    /// The field of this slot.
    Field(u16),
    /// The header of this name.
    Header(Arc<str>),
}

/// Where event time comes from, and how far it may be out of order.
#[derive(Clone, Debug, PartialEq)]
pub struct Time {
    pub source: TimeSource,
    pub out_of_order: Millis,
    /// How long beyond `out_of_order` an event is still taken, after what it should have preceded.
    pub allowed_lateness: Millis,
    /// A source from which nothing came for so long stops holding time back.
    pub idle_after: Millis,
    /// An event whose time is further ahead of when its record was written is refused.
    pub max_ahead: Millis,
}

impl Time {
    /// As large as the differences of time zones, which clocks that were set wrong are off by.
    pub const MAX_AHEAD: Millis = Millis(24 * 3_600_000);
}

impl Default for Time {
    fn default() -> Self {
        Self {
            source: TimeSource::default(),
            out_of_order: Millis(0),
            allowed_lateness: Millis(0),
            idle_after: Millis(60_000),
            max_ahead: Self::MAX_AHEAD,
        }
    }
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
    /// A span of event time whose aggregates meet a threshold.
    Window(Window),
}

/// A condition's comparison of an event with those before it. Where the event meets the rest of the
/// condition it enters the series, and it meets the whole if the gauge says so.
#[derive(Clone, Debug)]
pub struct Measure {
    /// Place in [`Rule::predicates`].
    pub predicate: u16,
    /// The condition's place in [`Rule::names`].
    pub name: u16,
    /// Slot of the value.
    pub field: u16,
    /// Slots of what tells series of one key apart.
    pub series: Vec<u16>,
    pub gauge: Gauge,
}

/// Windows of the events of one condition, and what their aggregates must meet.
#[derive(Clone, Debug)]
pub struct Window {
    /// Place in [`Rule::names`].
    pub name: u16,
    /// Place in [`Rule::predicates`].
    pub predicate: u16,
    pub span: Span,
    /// Whether a window matches as soon as it meets the threshold, once; else it does at its close.
    pub early: bool,
    /// Slots of the fields that are aggregated; `None`: events are counted. At least one.
    pub samples: Vec<Option<u16>>,
    /// At least one.
    pub aggregates: Vec<Aggregate>,
    pub having: Option<Having>,
    /// What the aggregate at this place is compared by with those of the windows before.
    pub gauge: Option<(u16, Gauge)>,
}

/// Which events are together in a window. All in ms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Span {
    /// One window after the other, aligned to the epoch.
    Tumbling { size: i64 },
    /// Windows of `size`, one beginning at each `every`.
    Hopping { size: i64, every: i64 },
    /// The last `size` at each event.
    Trailing { size: i64 },
    /// Events less than `gap` apart.
    Session { gap: i64 },
}

impl Span {
    /// How long after its first or its last event a window may close, at most.
    pub fn reach(self) -> Millis {
        let (Span::Tumbling { size: reach }
        | Span::Hopping { size: reach, .. }
        | Span::Trailing { size: reach }
        | Span::Session { gap: reach }) = self;
        Millis(reach.unsigned_abs())
    }
}

/// One aggregate of a window, by the name that conditions and `matches` know it by.
#[derive(Clone, Debug)]
pub struct Aggregate {
    pub name: Arc<str>,
    pub function: Function,
    /// Place in [`Window::samples`].
    pub sample: u16,
}

impl Aggregate {
    /// Its value of what `summary` holds; missing where it is not defined, such as the average of
    /// no values.
    pub fn value(&self, summary: &Summary) -> Scalar {
        match (self.function, self.function.of(summary)) {
            (_, None) => Scalar::Missing,
            (Function::Count | Function::Distinct, Some(count)) => Scalar::Int(count as i64),
            (_, Some(value)) => Scalar::Float(value),
        }
    }
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

impl Sequence {
    /// The longest of the steps' `within_gap`.
    pub fn longest_gap(&self) -> Millis {
        fn of(steps: &[Step]) -> Millis {
            let gaps = steps.iter().map(|step| {
                let inner = match &step.part {
                    Part::Group(steps) => of(steps),
                    Part::Event(_) | Part::Absent(_) => Millis(0),
                };
                step.within_gap.unwrap_or_default().max(inner)
            });
            gaps.max().unwrap_or_default()
        }
        of(&self.steps)
    }
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
    /// The same of all keys of one matcher.
    pub max_partials: usize,
    /// Occurrences of a step without a maximum of its own.
    pub max_kleene: u32,
    /// Keys of one matcher.
    pub max_keys: usize,
    /// Events of one matcher that wait for the watermark.
    pub max_buffered_events: usize,
    /// Matches that one event may complete.
    pub max_results_per_event: usize,
    /// What is known of a key is dropped when it had no event for so long, in event time; `None`:
    /// only as each part of it runs out.
    pub idle_key_ttl: Option<Millis>,
    pub on_overflow: OnOverflow,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_partials_per_key: 100_000,
            max_partials: 10_000_000,
            max_kleene: 1_000,
            max_keys: 1_000_000,
            max_buffered_events: 1_000_000,
            max_results_per_event: 100_000,
            idle_key_ttl: None,
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
    pub to: Destination,
    /// May begin with `key`, `matches`, `rule` and the names of enrichments.
    pub input: Option<Template>,
    pub priority: Option<i32>,
    pub tags: Vec<(String, Template)>,
}

/// A command to runs that are under way.
#[derive(Clone, Debug)]
pub struct Steer {
    pub verb: Verb,
    pub target: Target,
}

/// What a command does. Its templates may begin with `key`, `matches`, `rule` and the names of
/// enrichments.
#[derive(Clone, Debug)]
pub enum Verb {
    Signal {
        name: Template,
        data: Option<Template>,
    },
    Cancel {
        reason: Option<Template>,
    },
    Pause {
        reason: Option<Template>,
    },
    Resume {
        reason: Option<Template>,
    },
}

impl Verb {
    /// As it stands in the `type` of a command.
    pub fn name(&self) -> &'static str {
        match self {
            Verb::Signal { .. } => "signal",
            Verb::Cancel { .. } => "cancel",
            Verb::Pause { .. } => "pause",
            Verb::Resume { .. } => "resume",
        }
    }
}

/// Which runs a command is for.
#[derive(Clone, Debug)]
pub enum Target {
    /// The run of this id.
    Run(Template),
    /// Every run that has all of these tags (at least one) and is of this workflow, in whatever
    /// version; `None`: of any.
    Tags {
        tags: Vec<(String, Template)>,
        workflow: Option<Arc<str>>,
    },
}

/// The latest value of a key of a compacted topic, as of the match.
#[derive(Clone, Debug)]
pub struct Enrich {
    pub topic: Arc<str>,
    /// What templates know it by; null where the topic has no such key.
    pub name: Arc<str>,
    pub key: Template,
}

/// A rule that acts for a part of its keys, chosen by their hash; for the others its matches are
/// recorded only.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Canary {
    /// 0 to 100.
    pub percent: f64,
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
