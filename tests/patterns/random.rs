//! Random rules over the whole grammar, as text, and random streams for them.

use std::sync::Arc;

use partita::model::cloud_event::Structured;
use partita::model::{Json, Timestamp};
use partita::pattern::{NoTime, Recorded, Rule, syntax};
use serde_json::{Value, json};

use crate::reference::Input;
use crate::tables;

mod numbers;

/// SplitMix64.
#[derive(Clone)]
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    pub fn percent(&mut self, chance: u64) -> bool {
        self.below(100) < chance
    }

    fn pick<'a>(&mut self, words: &[&'a str]) -> &'a str {
        words[self.below(words.len() as u64) as usize]
    }

    fn millis(&mut self, from: u64, to: u64) -> String {
        format!("{}ms", from + self.below(to - from))
    }
}

/// A rule as a person might write it. Some are refused: then `None`.
pub fn rule(random: &mut Random) -> (Value, Option<Arc<Rule>>) {
    let mut text = Writer {
        random,
        ids: Vec::new(),
        made: 0,
        has_topics: false,
        has_measures: false,
    }
    .rule();
    let mut parsed = parse(&text);
    // One that could skip nothing is refused.
    let emit = text.get_mut("emit").and_then(Value::as_object_mut);
    if let (None, Some(emit)) = (&parsed, emit) {
        emit.remove("after_match");
        parsed = parse(&text);
    }
    (text, parsed)
}

pub fn parse(text: &Value) -> Option<Arc<Rule>> {
    let rules = syntax::parse(&text.to_string(), None).ok()?;
    rules.into_iter().next()
}

struct Writer<'a> {
    random: &'a mut Random,
    /// Steps so far; `None`: of a group or an absent step, which no event stands under.
    ids: Vec<Option<String>>,
    made: u64,
    has_topics: bool,
    /// Whether conditions compare events with those before.
    has_measures: bool,
}

impl Writer<'_> {
    fn rule(&mut self) -> Value {
        let mut rule = json!({"kind": "rule", "name": "r", "topic": "t"});
        self.has_topics = self.random.percent(25);
        if self.random.percent(40) {
            rule["correlate"] = json!({"by": ["u"]});
        }
        let is_window = self.random.percent(15);
        self.has_measures = !is_window && self.random.percent(15);
        let shape = self.random.below(100);
        rule["match"] = match shape {
            _ if is_window => json!({"window": self.window()}),
            0..4 => json!({"any": self.conditions()}),
            4..16 => {
                let within = self.random.millis(2, 12);
                json!({"all": {"within": within, "conditions": self.conditions()}})
            }
            16..24 => {
                let mut count = self.condition(false);
                count["within"] = self.random.millis(2, 12).into();
                count["at_least"] = (1 + self.random.below(4)).into();
                json!({"count": count})
            }
            24..28 => {
                let (after, expect) = (self.condition(false), self.condition(false));
                let within = self.random.millis(2, 12);
                json!({"absent": {"within": within, "after": after, "expect": expect}})
            }
            _ => self.sequence(),
        };
        if !is_window && self.random.percent(50) {
            let id = self.ids[self.random.below(self.ids.len() as u64) as usize].clone();
            let strategy = match self.random.below(5) {
                0 => json!("no_skip"),
                1 => json!("skip_past_last"),
                2 => json!("skip_to_next"),
                3 => json!({"skip_to_first": id}),
                _ => json!({"skip_to_last": id}),
            };
            rule["emit"] = json!({"after_match": strategy});
        }
        let is_late = self.random.percent(20);
        let is_calm = self.random.percent(if is_late { 25 } else { 8 });
        if is_late {
            rule["time"] = json!({
                "out_of_order": self.random.millis(0, 6),
                "allowed_lateness": self.random.millis(0, 8),
            });
        }
        if is_calm {
            // Under a skip strategy a match may come out behind later ones, when nobody remembers
            // what its cooldown would have counted from.
            let may_cool = rule["emit"].is_null();
            let words: &[&str] = match self.random.below(3) {
                0 if may_cool => &["cooldown"],
                1 if may_cool => &["debounce", "cooldown"],
                _ => &["debounce"],
            };
            for word in words {
                rule["emit"][*word] = self.random.millis(1, 8).into();
            }
        }
        if self.random.percent(if is_window || self.has_measures {
            20
        } else {
            4
        }) {
            let ttl = self.random.millis(1, 30);
            rule["limits"] = json!({ "idle_key_ttl": ttl });
        }
        rule
    }

    fn sequence(&mut self) -> Value {
        let steps = self.steps(0);
        let mut sequence = json!({"steps": steps});
        if self.random.percent(85) {
            sequence["within"] = self.random.millis(2, 16).into();
        }
        json!({"sequence": sequence})
    }

    fn steps(&mut self, depth: u64) -> Vec<Value> {
        let count = match depth {
            0 => 1 + self.random.below(4),
            _ => 1 + self.random.below(2),
        };
        (0..count).map(|_| self.step(depth)).collect()
    }

    fn step(&mut self, depth: u64) -> Value {
        if depth < 2 && self.random.percent(14) {
            let id = self.id();
            self.bears_none(&id);
            let mut step = json!({"id": id, "group": self.steps(depth + 1)});
            self.quantify(&mut step, false);
            return step;
        }
        let mut step = self.condition(true);
        if self.random.percent(16) {
            step["absent"] = true.into();
            let id = step["id"].as_str().unwrap_or_default().to_owned();
            self.bears_none(&id);
            let of_itself = format!("matches.{id}");
            let test = step["where"].as_str();
            if test.is_some_and(|test| test.contains(&of_itself)) {
                step["where"] = "event.k == 'a'".into();
            }
            if self.random.percent(35) {
                step["next"] = "strict".into();
            } else if self.random.percent(12) {
                step["within_gap"] = self.random.millis(1, 8).into();
            }
            return step;
        }
        self.quantify(&mut step, true);
        if self.random.percent(7) {
            step["within_gap"] = self.random.millis(1, 8).into();
        }
        step
    }

    fn quantify(&mut self, step: &mut Value, is_event: bool) {
        let contiguities = ["strict", "relaxed", "relaxed", "any"];
        if self.random.percent(60) {
            step["next"] = self.random.pick(&contiguities).into();
        }
        if self.random.percent(22) {
            step["optional"] = true.into();
        }
        match self.random.below(10) {
            0..6 => return,
            6 => step["times"] = (2 + self.random.below(2)).into(),
            7 => {
                let min = 1 + self.random.below(2);
                let max = min + 1 + self.random.below(2);
                step["times"] = json!({"min": min, "max": max});
            }
            8 => step["times"] = json!({"min": 1 + self.random.below(2)}),
            _ => step["one_or_more"] = true.into(),
        }
        if self.random.percent(50) {
            step["inner"] = self.random.pick(&contiguities).into();
        }
        if is_event && self.random.percent(35) {
            step["greedy"] = true.into();
        }
        if is_event && self.random.percent(20) {
            step["until"] = self.expression(true).into();
        }
    }

    fn conditions(&mut self) -> Vec<Value> {
        let count = 1 + self.random.below(3);
        (0..count).map(|_| self.condition(false)).collect()
    }

    fn condition(&mut self, may_look_back: bool) -> Value {
        let id = self.id();
        let mut condition = json!({"id": id});
        let is_measured = self.has_measures && self.random.percent(60);
        if is_measured {
            let (word, mut measure) = self.measure();
            if self.random.percent(20) {
                measure["series"] = json!(["k"]);
            }
            condition[word] = measure;
        }
        if self.random.percent(if is_measured { 40 } else { 95 }) {
            condition["where"] = self.expression(may_look_back && !is_measured).into();
        }
        if self.has_topics && self.random.percent(40) {
            condition["topic"] = "s".into();
        }
        condition
    }

    fn id(&mut self) -> String {
        self.made += 1;
        let id = format!("s{}", self.made);
        self.ids.push(Some(id.clone()));
        id
    }

    fn bears_none(&mut self, id: &str) {
        let of_id = |known: &&mut Option<String>| known.as_deref() == Some(id);
        if let Some(known) = self.ids.iter_mut().find(of_id) {
            *known = None;
        }
    }

    fn expression(&mut self, may_look_back: bool) -> String {
        let kind = self.random.pick(&["a", "b", "c"]);
        let value = self.random.below(4);
        let back = self.random.below(self.ids.len().max(1) as u64) as usize;
        let back = self.ids.get(back).cloned().flatten();
        let may_look_back = may_look_back && back.is_some();
        let back = back.unwrap_or_default();
        match self.random.below(20) {
            0..11 => format!("event.k == '{kind}'"),
            11 => format!("event.v > {value}"),
            12 => format!("event.v != {value}"),
            13 => format!("event.k in ['a', '{kind}']"),
            14 => format!("event.k == '{kind}' || event.v == {value}"),
            15 => format!("!(event.k == '{kind}')"),
            16 => format!("event.k == '{kind}' && event.v <= {value}"),
            17 if may_look_back => format!("event.v >= matches.{back}[0].v"),
            18 if may_look_back => format!("event.k == '{kind}' && size(matches.{back}) < 2"),
            19 if may_look_back => format!("matches.{back}.all(e, e.k != event.k)"),
            _ => format!("event.k == '{kind}'"),
        }
    }
}

/// Events as in the tables: `t` is their time, `topic` their topic.
pub fn stream(random: &mut Random, is_disordered: bool, most: u64) -> Vec<Value> {
    let count = 1 + random.below(most);
    let mut time = 0;
    let mut events = Vec::new();
    for _ in 0..count {
        time += [0, 1, 1, 1, 2, 4][random.below(6) as usize];
        let back = if is_disordered && random.percent(35) {
            random.below(9)
        } else {
            0
        };
        let mut event = json!({"k": random.pick(&["a", "b", "c", "x"])});
        event["t"] = (100 + time - back.min(time + 50)).into();
        match random.below(48) {
            0..4 => {}
            4..8 => event["v"] = Value::Null,
            8..11 => event["v"] = "2".into(),
            11 => event["v"] = "true".into(),
            12 => event["v"] = true.into(),
            13..17 => event["v"] = 1.5.into(),
            17 => event["v"] = (-2).into(),
            _ => event["v"] = random.below(4).into(),
        }
        match random.below(24) {
            0 => {}
            1 => event["u"] = json!([1]),
            2..16 => event["u"] = 1.into(),
            _ => event["u"] = "two".into(),
        }
        if random.percent(20) {
            event["topic"] = "s".into();
        }
        events.push(event);
    }
    events
}

/// What `rule` reads of `events`.
pub fn inputs(rule: &Rule, events: &[Value]) -> Vec<Input> {
    let mut inputs = Vec::new();
    for (place, event) in events.iter().enumerate() {
        let name = event["topic"].as_str().unwrap_or("t");
        let Some(topic) = rule.topics.iter().position(|topic| **topic == *name) else {
            continue;
        };
        let recorded = event.get("t").map_or(Some(place as i64 + 1), Value::as_i64);
        let written = recorded.map(Timestamp);
        let mut recorded = written;
        let mut payload = Json::from(event.clone());
        if let Some(envelope) = Structured::read(payload.as_str()) {
            recorded = envelope.attributes.time.or(recorded);
            payload = envelope.payload();
        }
        let slots = rule.slots(topic as u16, &payload);
        let recorded = Recorded {
            at: recorded,
            written,
            headers: &tables::headers_of(event),
        };
        let at = rule.event_time(&slots, recorded);
        if let Err(NoTime::Ahead { .. }) = at {
            continue;
        }
        inputs.push(Input {
            topic: topic as u16,
            at: at.expect("the events of a case have times"),
            position: place as u64 + 1,
            slots,
            payload,
        });
    }
    inputs
}
