//! Which rules want an event: the rules that read a topic, told apart as far as possible by one
//! look at the event. Conditions often ask for one value of one field (`event.kind == 'login'`);
//! rules are found by that value, so those that ask for others cost nothing.
//!
//! What a rule wants is what its matcher would do something with ([`Matcher::interest`]): events
//! that meet a condition which looks at the event alone, or every event of the topic.

use std::fmt::Write;
use std::sync::Arc;

use rustc_hash::FxHashMap;

use super::event::{Event, Recorded, Scalar, plain_string};
use super::fields::{NoTime, header_time, scalar_time, text_at, value_at, values_at};
use super::matcher::Matcher;
use super::predicate::Nothing;
use super::rule::{Rule, Time, TimeSource};
use crate::expr::Segment;
use crate::model::{Json, Millis, Timestamp};

/// The rules of an instance by the topics that they read. Immutable: rules that change make a new
/// one.
#[derive(Debug, Default)]
pub struct Filter {
    topics: FxHashMap<Arc<str>, TopicFilter>,
}

/// The rules that read one topic.
#[derive(Debug, Default)]
pub struct TopicFilter {
    readers: Vec<Reader>,
    /// Places of readers that are asked about every event.
    always: Vec<u32>,
    by_value: Vec<Dispatch>,
    clocks: Vec<Clock>,
}

/// Readers that only an event with one of these values of a field can matter to.
#[derive(Debug)]
struct Dispatch {
    path: Vec<Segment>,
    /// By text, which is what conditions mostly ask for: found without making a value.
    by_text: FxHashMap<Arc<str>, Vec<u32>>,
    /// By everything else.
    by_scalar: FxHashMap<Scalar, Vec<u32>>,
}

impl Dispatch {
    fn readers_of(&mut self, value: Scalar) -> &mut Vec<u32> {
        match value {
            Scalar::Text(text) => self.by_text.entry(text).or_default(),
            value => self.by_scalar.entry(value).or_default(),
        }
    }

    /// Whoever asks for the value that an event has; `text` is its JSON, `None` where it has none.
    fn readers(&self, text: Option<&str>) -> &[u32] {
        let found = match text.and_then(plain_string) {
            Some(plain) => self.by_text.get(plain),
            None => match text.map_or(Scalar::Missing, Scalar::from_json) {
                Scalar::Text(text) => self.by_text.get(&text),
                value => self.by_scalar.get(&value),
            },
        };
        found.map_or(&[], Vec::as_slice)
    }
}

#[derive(Debug)]
struct Reader {
    rule: Arc<Rule>,
    /// Place of the topic in the rule's list.
    topic: u16,
    predicates: Vec<u16>,
    every_event: bool,
    begins: bool,
}

/// What event time is read from.
#[derive(Clone, Debug, PartialEq)]
pub struct Clock {
    /// As [`Rule::clocks`] has it.
    pub name: String,
    reads: Reads,
    max_ahead: Millis,
}

#[derive(Clone, Debug, PartialEq)]
enum Reads {
    Record,
    Field(Vec<Segment>),
    Header(Arc<str>),
}

/// What a rule makes of an event.
#[derive(Clone, Debug)]
pub enum Verdict<'f> {
    Wanted {
        rule: &'f Arc<Rule>,
        /// The values of `correlate.by` as a JSON array. Equal keys have equal texts.
        key: String,
        at: Timestamp,
        /// Whether the rule is in force: the event may begin something.
        begins: bool,
    },
    /// A value of `correlate.by` is missing, null, a list or an object.
    Unkeyed { rule: &'f Arc<Rule> },
    /// It has no event time that the rule goes by, and why.
    Timeless { rule: &'f Arc<Rule>, why: NoTime },
}

impl Verdict<'_> {
    pub fn rule(&self) -> &Arc<Rule> {
        match self {
            Verdict::Wanted { rule, .. }
            | Verdict::Unkeyed { rule }
            | Verdict::Timeless { rule, .. } => rule,
        }
    }
}

impl Filter {
    /// For rules in force.
    pub fn new(rules: &[Arc<Rule>]) -> Self {
        let mut filter = Self::default();
        for rule in rules {
            filter.add(rule, true);
        }
        filter
    }

    /// A version that another takes the place of: events go on with what began before. Those that it
    /// cannot read are not told of, for the other may say the same.
    pub fn add_draining(&mut self, rule: &Arc<Rule>) {
        self.add(rule, false);
    }

    fn add(&mut self, rule: &Arc<Rule>, begins: bool) {
        let matcher = Matcher::new(rule.clone(), false);
        for (place, topic) in (0..).zip(&rule.topics) {
            let (predicates, every_event) = matcher.interest(place);
            let reader = Reader {
                rule: rule.clone(),
                topic: place,
                predicates: predicates.to_vec(),
                every_event,
                begins,
            };
            self.topics.entry(topic.clone()).or_default().add(reader);
        }
    }

    /// The topics that rules read, in no order.
    pub fn topics(&self) -> impl Iterator<Item = &Arc<str>> {
        self.topics.keys()
    }

    pub fn topic(&self, name: &str) -> Option<&TopicFilter> {
        self.topics.get(name)
    }
}

impl TopicFilter {
    fn add(&mut self, reader: Reader) {
        let clock = reader.rule.clock_of(reader.topic);
        if !self.clocks.contains(&clock) {
            self.clocks.push(clock);
        }
        let place = u32::try_from(self.readers.len()).unwrap_or(u32::MAX);
        match reader.required() {
            None => self.always.push(place),
            Some(required) => {
                for (path, values) in required {
                    self.dispatch(path, values, place);
                }
            }
        }
        self.readers.push(reader);
    }

    fn dispatch(&mut self, path: &[Segment], values: Vec<Scalar>, reader: u32) {
        let known = self.by_value.iter().position(|known| known.path == path);
        let known = known.unwrap_or_else(|| {
            self.by_value.push(Dispatch {
                path: path.to_vec(),
                by_text: FxHashMap::default(),
                by_scalar: FxHashMap::default(),
            });
            self.by_value.len() - 1
        });
        for value in values {
            let readers = self.by_value[known].readers_of(value);
            if readers.last() != Some(&reader) {
                readers.push(reader);
            }
        }
    }

    /// The clocks that rules on this topic go by, each once.
    pub fn clocks(&self) -> &[Clock] {
        &self.clocks
    }

    /// Tells what each rule that may want the event makes of it, in the order of the rules.
    pub fn select<'f>(
        &'f self,
        payload: &Json,
        recorded: Recorded<'_>,
        each: &mut dyn FnMut(Verdict<'f>),
    ) {
        let mut asked = self.always.clone();
        for dispatch in &self.by_value {
            asked.extend(dispatch.readers(text_at(payload.as_str(), &dispatch.path)));
        }
        asked.sort_unstable();
        asked.dedup();
        let mut slots = Vec::new();
        for place in asked {
            let reader = &self.readers[place as usize];
            if let Some(verdict) = reader.verdict(payload, recorded, &mut slots) {
                each(verdict);
            }
        }
    }
}

impl Clock {
    /// The time of an event by this clock, where it has one that rules go by.
    pub fn read(&self, payload: &Json, recorded: Recorded<'_>) -> Option<Timestamp> {
        let at = match &self.reads {
            Reads::Record => recorded.at,
            Reads::Field(path) => scalar_time(&value_at(payload.as_str(), path)),
            Reads::Header(name) => recorded.header(name).and_then(header_time),
        };
        at.filter(|at| recorded.is_passed(*at, self.max_ahead).is_none())
    }
}

impl Reader {
    /// The field and values that each condition asks for, where every one asks for some.
    fn required(&self) -> Option<Vec<(&[Segment], Vec<Scalar>)>> {
        if self.every_event {
            return None;
        }
        let of = |place: &u16| {
            let (slot, values) = self.rule.predicates[usize::from(*place)].requires()?;
            let fields = self.rule.fields_in(self.topic);
            Some((&*fields[usize::from(slot)], values))
        };
        self.predicates.iter().map(of).collect()
    }

    fn verdict<'f>(
        &'f self,
        payload: &Json,
        recorded: Recorded<'_>,
        slots: &mut Vec<Scalar>,
    ) -> Option<Verdict<'f>> {
        let rule = &self.rule;
        values_at(payload.as_str(), rule.fields_in(self.topic), slots);
        let key: Vec<Scalar> = rule
            .correlate
            .iter()
            .map(|(_, slot)| slots[usize::from(*slot)].clone())
            .collect();
        let event = Event {
            topic: self.topic,
            at: recorded.at.unwrap_or(Timestamp::ZERO),
            position: 0,
            slots,
            payload,
        };
        let holds = |place: &u16| {
            let predicate = &rule.predicates[usize::from(*place)];
            predicate.holds(rule, &event, &key, &Nothing) == Some(true)
        };
        if !self.every_event && !self.predicates.iter().any(holds) {
            return None;
        }
        let verdict = if !key.iter().all(Scalar::is_key) {
            Verdict::Unkeyed { rule }
        } else {
            match rule.event_time(slots, recorded) {
                Ok(at) => Verdict::Wanted {
                    rule,
                    key: key_text(&key),
                    at,
                    begins: self.begins,
                },
                Err(why) => Verdict::Timeless { rule, why },
            }
        };
        (self.begins || matches!(verdict, Verdict::Wanted { .. })).then_some(verdict)
    }
}

impl Rule {
    /// Names what the rule reads event time from, by the places of its topics: empty for the record's
    /// own time, the path of `time.field`, such as `order.placed_at` or `times[0]`, or a dot and the name of
    /// `time.header`, for no path begins with a dot; behind it `time.max_ahead` in ms, such as ` +5000`,
    /// where it is not the usual one. Rules with one name share one watermark of a source.
    pub fn clocks(&self) -> Vec<String> {
        (0..)
            .zip(&self.topics)
            .map(|(topic, _)| self.clock_of(topic).name)
            .collect()
    }

    fn clock_of(&self, topic: u16) -> Clock {
        let (mut name, reads) = match &self.time.source {
            TimeSource::Record => (String::new(), Reads::Record),
            TimeSource::Field(slot) => {
                let path = &self.fields_in(topic)[usize::from(*slot)];
                (path_text(path), Reads::Field(path.clone()))
            }
            TimeSource::Header(name) => (format!(".{name}"), Reads::Header(name.clone())),
        };
        let max_ahead = self.time.max_ahead;
        if max_ahead != Time::MAX_AHEAD {
            let _ = write!(name, " +{}", max_ahead.0);
        }
        Clock {
            name,
            reads,
            max_ahead,
        }
    }
}

fn path_text(path: &[Segment]) -> String {
    let mut text = String::new();
    for segment in path {
        match segment {
            Segment::Name(part) if text.is_empty() => text.push_str(part),
            Segment::Name(part) => {
                let _ = write!(text, ".{part}");
            }
            Segment::Index(index) => {
                let _ = write!(text, "[{index}]");
            }
        }
    }
    text
}

/// A correlation key as a JSON array. Whole numbers are written as integers, for `1` and `1.0` are
/// one key.
pub fn key_text(key: &[Scalar]) -> String {
    let mut text = String::from("[");
    for (place, value) in key.iter().enumerate() {
        if place > 0 {
            text.push(',');
        }
        let _ = write!(text, "{}", value.whole().to_json());
    }
    text.push(']');
    text
}

#[cfg(test)]
mod tests;
