//! A rule tried over events of the past: what would have come of them, as people read it, and in what
//! another version would have found otherwise. Nothing is started.

use std::collections::HashMap;

use rustc_hash::FxHashMap;
use serde_json::{Map, Value, json};

use std::sync::Arc;

use super::event::{Event, Taken};
use super::matcher::Matcher;
use super::output::{Match, Outputs, TimedOut};
use super::predicate::key_json;
use super::route::Destination;
use super::rule::{Rule, Shape};
use crate::expr::ExprError;
use crate::model::{Json, Timestamp};

/// Shows where an event lies, from its topic and its [`Event::position`].
pub type Place = fn(&str, u64) -> Value;

/// Names of matches are derived within this space of names.
const SPACE: uuid::Uuid = uuid::uuid!("0b4a7f53-5f4e-5d0c-8a3b-94e1c02d7a65");

/// A rule at work on events that somebody hands in, and what came of it so far.
#[derive(Debug)]
pub struct Trial {
    matcher: Matcher,
    joined: Joined,
    place: Place,
    out: Outputs,
    findings: Findings,
}

/// What came of a trial, or of several. Of each kind the first so many are kept, and all are counted.
#[derive(Clone, Debug)]
pub struct Findings {
    matches: List,
    /// Of every match, in the order of the list: what it is known by.
    identities: Vec<u128>,
    late: List,
    timed_out: List,
    unkeyed: List,
    own: List,
    overflows: List,
    /// Conditions without an answer.
    condition_errors: u64,
}

#[derive(Clone, Debug)]
struct List {
    most: usize,
    first: Vec<Value>,
    all: usize,
}

/// The latest values of the topics that a rule joins, by key.
#[derive(Debug)]
struct Joined(Vec<HashMap<String, Json>>);

impl Trial {
    /// With empty state. Of matches, of late events and so on, `most` are kept each.
    pub fn new(rule: Arc<Rule>, place: Place, most: usize) -> Self {
        Self {
            joined: Joined(rule.enrich.iter().map(|_| HashMap::new()).collect()),
            matcher: Matcher::new(rule, true),
            place,
            out: Outputs::default(),
            findings: Findings::new(most),
        }
    }

    pub fn rule(&self) -> &Arc<Rule> {
        self.matcher.rule()
    }

    /// Takes a record of a topic; without a value it removes the key. What matches from now on is
    /// joined with it, where the rule joins that topic.
    pub fn join(&mut self, topic: &str, key: &str, value: Option<&Json>) {
        let enrich = &self.matcher.rule().enrich;
        for (enrich, table) in enrich.iter().zip(&mut self.joined.0) {
            if *enrich.topic == *topic {
                match value {
                    Some(value) => table.insert(key.to_owned(), value.clone()),
                    None => table.remove(key),
                };
            }
        }
    }

    /// Takes the next event of a stream that tells by itself how far time has come, as
    /// [`Matcher::push`] does.
    pub fn push(&mut self, event: &Event<'_>) {
        self.matcher.push(event, &mut self.out);
        self.note(event.topic);
    }

    /// Takes an event of one source among several; how far time has come, [`Trial::observe`] says.
    pub fn offer(&mut self, event: &Event<'_>) {
        self.matcher.offer(event, &mut self.out);
        self.note(event.topic);
    }

    /// Takes an event that meets no condition: those without an answer are counted.
    pub fn pass_over(&mut self, event: &Event<'_>) {
        self.matcher.pass_over(event, &mut self.out);
        self.note(event.topic);
    }

    /// Every source has come to `latest`.
    pub fn observe(&mut self, latest: Timestamp) {
        self.matcher.observe(latest, &mut self.out);
        self.note(0);
    }

    /// Takes note of an event without a usable correlation key.
    pub fn note_unkeyed(&mut self, topic: &str, position: u64) {
        let place = self.place;
        self.findings.unkeyed.push(|| place(topic, position));
    }

    /// Takes note of an event that the rule does not get, for it caused it itself.
    pub fn note_own(&mut self, topic: &str, position: u64) {
        let place = self.place;
        self.findings.own.push(|| place(topic, position));
    }

    /// There are no more events: time moves on to `advance_to`, or to the end of all windows.
    pub fn finish(mut self, advance_to: Option<Timestamp>) -> Findings {
        if let Some(end) = advance_to.or_else(|| self.matcher.end_of_windows()) {
            self.matcher.advance(end, &mut self.out);
            self.note(0);
        }
        self.findings
    }

    /// Takes over what came out; events that were late or had no key are of this topic.
    fn note(&mut self, topic: u16) {
        let rule = self.matcher.rule();
        let (out, findings) = (&mut self.out, &mut self.findings);
        let (place, joined) = (self.place, &self.joined);
        for found in out.matches.drain(..) {
            findings.identities.push(identity(rule, &found, place));
            let show = || shown(rule, &found, &joined.of(rule, &found), place);
            findings.matches.push(show);
        }
        for partial in out.timed_out.drain(..) {
            let show = || shown_timed_out(rule, &partial, place);
            findings.timed_out.push(show);
        }
        let topic = rule.topics.get(usize::from(topic));
        let topic = topic.map_or("", |topic| &**topic);
        for position in out.late.drain(..) {
            findings.late.push(|| place(topic, position));
        }
        for position in out.unkeyed.drain(..) {
            findings.unkeyed.push(|| place(topic, position));
        }
        for overflow in out.overflows.drain(..) {
            let show =
                || json!({"at": overflow.at, "limit": overflow.limit, "dropped": overflow.dropped});
            findings.overflows.push(show);
        }
        findings.condition_errors += std::mem::take(&mut out.condition_errors);
    }
}

impl Joined {
    fn of(&self, rule: &Rule, found: &Match) -> Vec<Json> {
        let keys = rule.lookups(found).into_iter();
        let values = keys.zip(&self.0).map(|(key, table)| {
            let value = key.and_then(|key| table.get(&key).cloned());
            value.unwrap_or_else(Json::null)
        });
        values.collect()
    }
}

impl Findings {
    /// None yet. Of each kind the first `most` are kept.
    pub fn new(most: usize) -> Self {
        let list = || List {
            most,
            first: Vec::new(),
            all: 0,
        };
        Self {
            matches: list(),
            identities: Vec::new(),
            late: list(),
            timed_out: list(),
            unkeyed: list(),
            own: list(),
            overflows: list(),
            condition_errors: 0,
        }
    }

    /// How many matches there were.
    pub fn matches(&self) -> usize {
        self.matches.all
    }

    /// Appends what another rule found.
    pub fn append(&mut self, other: Findings) {
        // Of the matches that are shown, a prefix: so each stays beside its identity.
        if self.matches.first.len() < self.matches.all {
            self.matches.most = self.matches.first.len();
        }
        self.identities.extend(other.identities);
        self.matches.append(other.matches);
        self.late.append(other.late);
        self.timed_out.append(other.timed_out);
        self.unkeyed.append(other.unkeyed);
        self.own.append(other.own);
        self.overflows.append(other.overflows);
        self.condition_errors += other.condition_errors;
    }

    /// `matches`, `late` and `timed_out`; `unkeyed`, `own` and `overflows` where there are any;
    /// `condition_errors`, the number of conditions without an answer, where there is one; and in
    /// `left_off`, by list, how many are not shown.
    pub fn document(&self) -> Value {
        let mut document = json!({
            "matches": self.matches.first,
            "late": self.late.first,
            "timed_out": self.timed_out.first,
        });
        for (name, list) in [
            ("unkeyed", &self.unkeyed),
            ("own", &self.own),
            ("overflows", &self.overflows),
        ] {
            if list.all > 0 {
                document[name] = json!(list.first);
            }
        }
        if self.condition_errors > 0 {
            document["condition_errors"] = self.condition_errors.into();
        }
        for (name, list) in [
            ("matches", &self.matches),
            ("late", &self.late),
            ("timed_out", &self.timed_out),
            ("unkeyed", &self.unkeyed),
            ("own", &self.own),
            ("overflows", &self.overflows),
        ] {
            list.tell_left_off(name, &mut document);
        }
        document
    }

    /// What these have and `before` has not (`added`), the other way round (`removed`), and how many
    /// matches both have (`unchanged`). Matches are the same where rule, key and records are, and of
    /// windows the time, whatever the conditions are called that took the records.
    pub fn diff(&self, before: &Findings) -> Value {
        let mut left: FxHashMap<u128, usize> = FxHashMap::default();
        for identity in &before.identities {
            *left.entry(*identity).or_default() += 1;
        }
        let mut added = List::like(&self.matches);
        let mut unchanged = 0;
        for (place, identity) in self.identities.iter().enumerate() {
            match left.get_mut(identity).filter(|left| **left > 0) {
                Some(left) => {
                    *left -= 1;
                    unchanged += 1;
                }
                None => added.pick(&self.matches, place),
            }
        }
        let mut removed = List::like(&before.matches);
        for (place, identity) in before.identities.iter().enumerate() {
            if let Some(left) = left.get_mut(identity).filter(|left| **left > 0) {
                *left -= 1;
                removed.pick(&before.matches, place);
            }
        }
        let mut diff = json!({
            "added": added.first,
            "removed": removed.first,
            "unchanged": unchanged,
        });
        added.tell_left_off("added", &mut diff);
        removed.tell_left_off("removed", &mut diff);
        diff
    }
}

impl List {
    fn like(other: &List) -> Self {
        Self {
            most: other.most,
            first: Vec::new(),
            all: 0,
        }
    }

    fn push(&mut self, show: impl FnOnce() -> Value) {
        if self.first.len() < self.most {
            self.first.push(show());
        }
        self.all += 1;
    }

    /// Takes what stands at `place` in the other list, where it is shown there.
    fn pick(&mut self, of: &List, place: usize) {
        self.first.extend(of.first.get(place).cloned());
        self.all += 1;
    }

    fn append(&mut self, other: List) {
        let room = self.most.saturating_sub(self.first.len());
        self.first.extend(other.first.into_iter().take(room));
        self.all += other.all;
    }

    fn tell_left_off(&self, name: &str, document: &mut Value) {
        if self.all > self.first.len() {
            document["left_off"][name] = json!(self.all - self.first.len());
        }
    }
}

/// What a match is known by: the rule's name, the key, the records, and of a window its time, since
/// windows that close one after the other may end with one and the same event.
fn identity(rule: &Rule, found: &Match, place: Place) -> u128 {
    let mut records: Vec<String> = found
        .events
        .iter()
        .map(|(name, taken)| place(rule.topic_of(*name), taken.position).to_string())
        .collect();
    records.sort_unstable();
    let at = matches!(rule.shape, Shape::Window(_)).then_some(found.at);
    let key = key_json(rule, &found.key);
    let name = json!([&*rule.name, key.as_str(), records, at]).to_string();
    uuid::Uuid::new_v5(&SPACE, name.as_bytes()).as_u128()
}

fn shown(rule: &Rule, found: &Match, joined: &[Json], place: Place) -> Value {
    let mut shown = json!({
        "rule": &*rule.name,
        "key": key_json(rule, &found.key).parse::<Value>().unwrap_or(Value::Null),
        "at": found.at,
        "events": places_of(rule, &found.events, place),
        "start": null,
    });
    let start = rule.start.as_ref();
    let start = start.map(|start| start.request(rule, found, joined));
    let commands = rule.steers.iter();
    let commands: Vec<Result<Value, ExprError>> = commands
        .map(|steer| steer.request(rule, found, joined))
        .collect();
    // A match does all that its rule says, or nothing.
    let mut parts = start.iter().chain(&commands);
    let failed = parts.find_map(|part| part.as_ref().err());
    let failed = failed.map(|error| format!("the match does nothing: {error}"));
    let told = |part: Result<Value, ExprError>| match (part, &failed) {
        (Err(error), _) => Err(error.to_string()),
        (Ok(_), Some(failed)) => Err(failed.clone()),
        (Ok(part), None) => Ok(part),
    };
    if let (Some(start), Some(request)) = (&rule.start, start) {
        let workflow = match &start.to {
            Destination::Workflow(workflow) => Some(&*workflow.name),
            Destination::Route(_) => None,
        };
        let failed = |error: String| json!({"workflow": workflow, "error": error});
        shown["start"] = told(request).unwrap_or_else(failed);
    }
    if !rule.steers.is_empty() {
        let commands = rule.steers.iter().zip(commands).map(|(steer, command)| {
            let failed = |error: String| json!({"type": steer.verb.name(), "error": error});
            told(command).unwrap_or_else(failed)
        });
        shown["commands"] = commands.collect();
    }
    shown
}

fn shown_timed_out(rule: &Rule, partial: &TimedOut, place: Place) -> Value {
    json!({"at": partial.at, "events": places_of(rule, &partial.events, place)})
}

fn places_of(rule: &Rule, events: &[(u16, Taken)], place: Place) -> Value {
    let mut places: Map<String, Value> = Map::new();
    for (name, taken) in events {
        let known = rule.names[usize::from(*name)].to_string();
        if let Some(places) = places
            .entry(known)
            .or_insert_with(|| json!([]))
            .as_array_mut()
        {
            places.push(place(rule.topic_of(*name), taken.position));
        }
    }
    Value::Object(places)
}
