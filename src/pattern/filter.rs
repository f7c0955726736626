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
mod tests {
    use super::*;
    use crate::pattern::syntax;

    fn rule(text: &str) -> Arc<Rule> {
        let text = format!("kind: rule\n{text}");
        let rules = syntax::parse(&text, None).expect("a valid rule");
        rules.into_iter().next().expect("one rule")
    }

    /// `name: key at`, `name: unkeyed` or `name: timeless` of the rules that want the event.
    fn selected(filter: &Filter, topic: &str, event: &str) -> Vec<String> {
        let payload = Json::from_text(event).unwrap();
        let mut found = Vec::new();
        let Some(filter) = filter.topic(topic) else {
            return found;
        };
        filter.select(&payload, Some(Timestamp(7)).into(), &mut |verdict| {
            found.push(match verdict {
                Verdict::Wanted { rule, key, at, .. } => format!("{}: {key} {}", rule.name, at.0),
                Verdict::Unkeyed { rule } => format!("{}: unkeyed", rule.name),
                Verdict::Timeless { rule, .. } => format!("{}: timeless", rule.name),
            });
        });
        found
    }

    fn filter() -> Filter {
        Filter::new(&[
            rule(
                "name: first\nmatch: {any: [{id: a, topic: t, where: \"event.kind == 'x' && event.n > 1\"}, {id: b, topic: u}]}",
            ),
            rule(
                "name: keyed\ncorrelate: {by: [user, n]}\nmatch: {any: [{id: a, topic: t, where: \"event.kind in ['x', 'y']\"}]}",
            ),
            rule(
                "name: timed\ntime: {field: at.begin}\nmatch: {any: [{id: a, topic: t, where: \"event.n == 1\"}]}",
            ),
            rule(
                "name: strict\nmatch: {sequence: {within: 1m, steps: [{id: a, topic: t, where: \"event.kind == 'x'\"}, {id: b, topic: t, next: strict, where: \"event.kind == 'q'\"}]}}",
            ),
            rule(
                "name: back\nmatch: {sequence: {within: 1m, steps: [{id: a, topic: t, where: \"event.kind == 'x'\"}, {id: b, topic: u, where: \"event.n == matches.a[0].n\"}]}}",
            ),
        ])
    }

    #[test]
    fn rules_get_what_their_matchers_look_at() {
        let filter = filter();
        let check = |topic: &str, event: &str, expected: &[&str]| {
            assert_eq!(selected(&filter, topic, event), expected, "{topic} {event}");
        };
        check(
            "t",
            r#"{"kind":"x","n":2}"#,
            &[
                "first: [] 7",
                "keyed: unkeyed",
                "strict: [] 7",
                "back: [] 7",
            ],
        );
        check(
            "t",
            r#"{"kind":"x","n":0,"user":"u"}"#,
            &["keyed: [\"u\",0] 7", "strict: [] 7", "back: [] 7"],
        );
        check(
            "t",
            r#"{"kind":"y","n":2.0,"user":true}"#,
            &["keyed: [true,2] 7", "strict: [] 7"],
        );
        check(
            "t",
            r#"{"kind":"y","n":2.5,"user":"é\""}"#,
            &["keyed: [\"é\\\"\",2.5] 7", "strict: [] 7"],
        );
        check("t", r#"{"kind":"z"}"#, &["strict: [] 7"]);
        check("t", r#"{"kind":["x"]}"#, &["strict: [] 7"]);
        check("t", r#"{"n":1}"#, &["timed: timeless", "strict: [] 7"]);
        check(
            "t",
            r#"{"n":1.0,"at":{"begin":12}}"#,
            &["timed: [] 12", "strict: [] 7"],
        );
        check("u", "{}", &["first: [] 7", "back: [] 7"]);
        check("v", r#"{"kind":"x"}"#, &[]);
    }

    #[test]
    fn clocks_are_told_apart_once_each() {
        let filter = filter();
        let clocks = filter.topic("t").expect("read").clocks();
        let names: Vec<&str> = clocks.iter().map(|clock| clock.name.as_str()).collect();
        assert_eq!(names, ["", "at.begin"]);
        let event = Json::from_text(r#"{"at":{"begin":"1970-01-01T00:00:01Z"}}"#).unwrap();
        let times: Vec<_> = clocks
            .iter()
            .map(|clock| clock.read(&event, Some(Timestamp(7)).into()))
            .collect();
        assert_eq!(times, [Some(Timestamp(7)), Some(Timestamp(1_000))]);
        let empty = Json::from_text("{}").unwrap();
        assert_eq!(clocks[1].read(&empty, None.into()), None);
    }

    /// A header is no field of the same name, neither for its event time nor for its watermark.
    #[test]
    fn a_header_is_a_clock_of_its_own() {
        let filter = Filter::new(&[
            rule("name: h\ntime: {header: sent}\nmatch: {any: [{id: a, topic: t}]}"),
            rule("name: f\ntime: {field: sent}\nmatch: {any: [{id: a, topic: t}]}"),
            rule("name: i\ntime: {header: sent}\nmatch: {any: [{id: a, topic: t}]}"),
        ]);
        let of_topic = filter.topic("t").expect("read");
        let event = Json::from_text(r#"{"sent":3}"#).unwrap();
        let said = |values: &[&[u8]]| {
            let headers: Vec<(String, Vec<u8>)> = values
                .iter()
                .map(|value| ("sent".to_owned(), value.to_vec()))
                .chain([("Sent".to_owned(), b"1".to_vec())])
                .collect();
            let recorded = Recorded {
                at: Some(Timestamp(7)),
                headers: &headers,
                ..Recorded::default()
            };
            let clocks = of_topic.clocks().iter();
            let times: Vec<_> = clocks
                .map(|clock| (&*clock.name, clock.read(&event, recorded).map(|at| at.0)))
                .collect();
            let mut verdicts = Vec::new();
            of_topic.select(&event, recorded, &mut |verdict| {
                verdicts.push(match verdict {
                    Verdict::Wanted { at, .. } => Ok(at.0),
                    Verdict::Timeless { why, .. } => Err(why.to_string()),
                    Verdict::Unkeyed { .. } => panic!("it has no key"),
                });
            });
            assert_eq!(times[1], ("sent", Some(3)));
            assert_eq!(verdicts[1], Ok(3));
            assert_eq!(verdicts[0], verdicts[2]);
            assert_eq!((times.len(), times[0].0), (2, ".sent"));
            assert_eq!(times[0].1, verdicts[0].as_ref().ok().copied());
            verdicts.swap_remove(0)
        };
        assert_eq!(said(&[b"12"]), Ok(12));
        assert_eq!(said(&[b"12.9"]), Ok(12));
        assert_eq!(said(&[b"-1"]), Ok(-1));
        assert_eq!(said(&[b"1970-01-01T00:00:01Z"]), Ok(1_000));
        assert_eq!(said(&[b"12", b"13"]), Ok(13), "the last counts");
        for (values, found) in [
            (&[][..], "`sent` of event time is missing;"),
            (&[&b""[..]], "is \"\";"),
            (&[b"soon"], "is \"soon\";"),
            (&[b"true"], "is \"true\";"),
            (&[b"\"12\""], "is \"\\\"12\\\"\";"),
            (&[&[0xff]], "is not UTF-8;"),
        ] {
            let why = said(values).expect_err("no time");
            assert!(why.contains(found), "{why}");
        }
    }

    /// What is refused for one rule moves no watermark of it, and another may allow more.
    #[test]
    fn an_event_that_is_too_far_ahead_of_its_record_says_nothing_about_time() {
        let filter = Filter::new(&[
            rule("name: usual\ntime: {field: sent}\nmatch: {any: [{id: a, topic: t}]}"),
            rule(
                "name: strict\ntime: {field: sent, max_ahead: 5s}\nmatch: {any: [{id: a, topic: t}]}",
            ),
            rule("name: own\ntime: {max_ahead: 0s}\nmatch: {any: [{id: a, topic: t}]}"),
        ]);
        let of_topic = filter.topic("t").expect("read");
        let names: Vec<&str> = of_topic.clocks().iter().map(|it| &*it.name).collect();
        assert_eq!(names, ["sent", "sent +5000", " +0"]);
        let day = Time::MAX_AHEAD.0 as i64;
        let taken = |sent: i64, at: i64, written: Option<i64>| {
            let event = Json::from_text(&format!("{{\"sent\":{sent}}}")).unwrap();
            let recorded = Recorded {
                at: Some(Timestamp(at)),
                written: written.map(Timestamp),
                headers: &[],
            };
            let mut taken = Vec::new();
            of_topic.select(&event, recorded, &mut |verdict| {
                taken.push(match verdict {
                    Verdict::Wanted { .. } => true,
                    Verdict::Timeless { why, .. } => {
                        assert_eq!(why.class(), "event_time_ahead");
                        false
                    }
                    Verdict::Unkeyed { .. } => panic!("it has no key"),
                });
            });
            let clocks = of_topic.clocks().iter();
            let told: Vec<bool> = clocks
                .map(|it| it.read(&event, recorded).is_some())
                .collect();
            assert_eq!(told, taken);
            taken
        };
        assert_eq!(taken(1_000, 1_000, Some(1_000)), [true, true, true]);
        assert_eq!(taken(6_000, 1_000, Some(1_000)), [true, true, true]);
        assert_eq!(taken(6_001, 1_001, Some(1_000)), [true, false, false]);
        assert_eq!(taken(day, 0, Some(0)), [true, false, true]);
        assert_eq!(taken(day + 1, 0, Some(0)), [false, false, true]);
        assert_eq!(taken(i64::MAX, 0, Some(0)), [false, false, true]);
        assert_eq!(taken(i64::MIN, -day, Some(day)), [true, true, true]);
        assert_eq!(taken(i64::MAX, i64::MAX, None), [true, true, true]);
    }

    /// A thousand rules that ask for other values are never looked at.
    #[test]
    fn an_event_is_shown_to_those_alone_that_ask_for_its_value() {
        let rules: Vec<Arc<Rule>> = (0..1_000)
            .map(|number| {
                rule(&format!(
                    "name: r{number}\nmatch: {{any: [{{id: a, topic: t, where: \"event.n > 0 && event.kind == 'k{number}'\"}}]}}"
                ))
            })
            .collect();
        let filter = Filter::new(&rules);
        let of_topic = filter.topic("t").expect("read");
        assert!(of_topic.always.is_empty());
        assert_eq!(of_topic.by_value.len(), 1);
        assert_eq!(of_topic.by_value[0].by_text.len(), 1_000);
        assert_eq!(
            selected(&filter, "t", r#"{"kind":"k77","n":1}"#),
            ["r77: [] 7"]
        );
        assert!(selected(&filter, "t", r#"{"kind":"k77","n":0}"#).is_empty());
    }

    /// Whoever is found by value is found by asking everybody, and the other way round.
    #[test]
    fn the_index_changes_nothing() {
        let conditions = [
            "event.a == 1",
            "event.a == 1.0 || event.b == 'x'",
            "1 == event.a && event.b != 'x'",
            "event.b in ['x', 'y'] && event.c",
            "event.b == 'x' && event.b == 'y'",
            "event.a == null",
            "has(event.c) && event.a == 2",
            "!(event.a == 1)",
            "event.b == event.a",
            "event.b.startsWith('x')",
        ];
        let rules: Vec<Arc<Rule>> = (0..)
            .zip(conditions)
            .map(|(number, condition)| {
                rule(&format!(
                    "name: r{number}\nmatch: {{any: [{{id: a, topic: t, where: \"{condition}\"}}]}}"
                ))
            })
            .collect();
        let filter = Filter::new(&rules);
        let mut asking_everybody = Filter::new(&rules);
        let of_topic = asking_everybody.topics.get_mut("t").expect("read");
        of_topic.by_value.clear();
        of_topic.always = (0..).take(conditions.len()).collect();
        let values = [
            "1", "1.0", "2", "null", "\"x\"", "\"y\"", "true", "[1]", "{}",
        ];
        let members = |name: &str| {
            let mut members: Vec<String> = values
                .iter()
                .map(|value| format!("\"{name}\":{value},"))
                .collect();
            members.push(String::new());
            members
        };
        let mut wanted = 0;
        for (a, b, c) in members("a")
            .iter()
            .flat_map(|a| members("b").into_iter().map(move |b| (a.clone(), b)))
            .flat_map(|(a, b)| {
                members("c")
                    .into_iter()
                    .map(move |c| (a.clone(), b.clone(), c))
            })
        {
            let event = format!("{{{a}{b}{c}\"d\":0}}");
            let found = selected(&filter, "t", &event);
            assert_eq!(found, selected(&asking_everybody, "t", &event), "{event}");
            wanted += found.len();
        }
        assert!(wanted > 1_000, "{wanted}");
    }
}
