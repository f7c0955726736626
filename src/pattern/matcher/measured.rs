//! Conditions that compare an event with those before it in its series, in front of the machine of
//! any shape: an event that does not meet its gauge does not meet the condition.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};

use serde::{Deserialize, Serialize, Serializer};
use serde_json::{Map, Value};

use super::{Shaped, Step};
use crate::model::{Json, Timestamp};
use crate::pattern::event::Event;
use crate::pattern::gauge::{Gauge, Memory, Reading};
use crate::pattern::rule::{Measure, Rule};

#[derive(Debug)]
pub(super) struct Measured<M> {
    measures: Vec<Measure>,
    inner: M,
}

/// The series of one key, and what the machine behind keeps.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(from = "Stored<S>")]
pub(super) struct State<S> {
    /// By measure, then by the values that tell series apart, as JSON text.
    series: Vec<BTreeMap<Box<str>, Memory>>,
    /// Nothing is to be forgotten before this.
    due: Option<i64>,
    inner: S,
    /// By measure.
    #[serde(skip)]
    queues: Vec<Queue>,
}

/// Each series of a measure once, by the time of a value of it: of its newest, or of one before that where
/// nobody has looked since.
type Queue = BinaryHeap<Reverse<(i64, Box<str>)>>;

/// What is saved of it.
#[derive(Deserialize)]
struct Stored<S> {
    series: Vec<BTreeMap<Box<str>, Memory>>,
    due: Option<i64>,
    inner: S,
}

impl<S> From<Stored<S>> for State<S> {
    fn from(stored: Stored<S>) -> State<S> {
        let queue = |series: &BTreeMap<Box<str>, Memory>| {
            let entries = series.iter();
            entries
                .map(|(name, memory)| Reverse((memory.newest(), name.clone())))
                .collect()
        };
        State {
            queues: stored.series.iter().map(queue).collect(),
            series: stored.series,
            due: stored.due,
            inner: stored.inner,
        }
    }
}

impl<M> Measured<M> {
    pub(super) fn new(rule: &Rule, inner: M) -> Self {
        let lateness = i64::try_from(rule.time.allowed_lateness.0).unwrap_or(i64::MAX);
        let measures = rule.measures.iter().cloned().map(|measure| Measure {
            gauge: measure.gauge.with_lateness(lateness),
            ..measure
        });
        Self {
            measures: measures.collect(),
            inner,
        }
    }

    /// The condition's gauge, where the event meets it.
    fn read<S>(
        &self,
        place: usize,
        state: &mut State<S>,
        event: &Event<'_>,
        step: &mut Step<'_>,
    ) -> Option<Reading> {
        let measure = &self.measures[place];
        let Some(value) = event.slots[usize::from(measure.field)].number() else {
            step.out.condition_errors += 1;
            return None;
        };
        let series = &mut state.series[place];
        let name = series_name(measure, event);
        let is_new = !series.contains_key(&*name);
        if is_new {
            if series.len() >= step.rule.limits.max_partials_per_key {
                step.overflow("max_partials_per_key", 1);
                return None;
            }
            series.insert(name.clone(), measure.gauge.memory());
        }
        let memory = series.get_mut(&*name)?;
        let reading = observe(&measure.gauge, memory, event.at.0, value, step);
        let due = measure.gauge.forgotten_at(memory);
        state.due = Some(state.due.map_or(due, |before| before.min(due)));
        if is_new {
            state.queues[place].push(Reverse((memory.newest(), name)));
        }
        reading
    }

    fn forget<S>(&self, state: &mut State<S>, now: i64) {
        if state.due.is_none_or(|due| due > now) {
            return;
        }
        state.due = None;
        let of_measures = state.series.iter_mut().zip(&mut state.queues);
        for (measure, (series, queue)) in self.measures.iter().zip(of_measures) {
            let gauge = &measure.gauge;
            while let Some(Reverse((at, _))) = queue.peek() {
                let due = at.saturating_add(gauge.forget_after);
                if due > now {
                    state.due = state.due.into_iter().chain([due]).min();
                    break;
                }
                let Some(Reverse((_, name))) = queue.pop() else {
                    break;
                };
                match series.get(&name) {
                    Some(memory) if gauge.forgotten_at(memory) > now => {
                        queue.push(Reverse((memory.newest(), name)));
                    }
                    _ => drop(series.remove(&name)),
                }
            }
        }
    }
}

impl<M: Shaped> Shaped for Measured<M> {
    type State = State<M::State>;

    fn event(
        &self,
        state: &mut State<M::State>,
        event: &Event<'_>,
        mut met: u64,
        step: &mut Step<'_>,
    ) {
        state
            .series
            .resize_with(self.measures.len(), BTreeMap::default);
        state
            .queues
            .resize_with(self.measures.len(), Queue::default);
        let mut readings: Map<String, Value> = Map::new();
        for (place, measure) in self.measures.iter().enumerate() {
            if met >> measure.predicate & 1 == 0 {
                continue;
            }
            match self.read(place, state, event, step) {
                Some(reading) => {
                    let name = &step.rule.names[usize::from(measure.name)];
                    readings.insert(name.to_string(), reading.to_json());
                }
                None => met &= !(1 << measure.predicate),
            }
        }
        if readings.is_empty() {
            self.inner.event(&mut state.inner, event, met, step);
            return;
        }
        let payload = with_readings(event.payload, readings);
        let event = Event {
            payload: &payload,
            ..*event
        };
        self.inner.event(&mut state.inner, &event, met, step);
    }

    fn expire(&self, state: &mut State<M::State>, step: &mut Step<'_>) {
        self.forget(state, step.now.0);
        self.inner.expire(&mut state.inner, step);
    }

    fn deadline(&self, state: &State<M::State>) -> Option<Timestamp> {
        let due = state.due.map(Timestamp);
        self.inner
            .deadline(&state.inner)
            .into_iter()
            .chain(due)
            .min()
    }

    fn is_idle(&self, state: &State<M::State>) -> bool {
        state.series.iter().all(BTreeMap::is_empty) && self.inner.is_idle(&state.inner)
    }

    fn partials(&self, state: &State<M::State>) -> usize {
        self.inner.partials(&state.inner)
    }

    fn shed(&self, state: &mut State<M::State>, most: usize, step: &mut Step<'_>) {
        self.inner.shed(&mut state.inner, most, step);
    }
}

/// Judges a value, and says so where the series forgot another for its bound.
pub(super) fn observe(
    gauge: &Gauge,
    memory: &mut Memory,
    at: i64,
    value: f64,
    step: &mut Step<'_>,
) -> Option<Reading> {
    let before = memory.dropped();
    let reading = gauge.observe(memory, at, value);
    // A memory of another method begins anew, and counts from nothing.
    let dropped = memory.dropped().saturating_sub(before);
    if dropped > 0 {
        step.overflow("max_partials_per_key", dropped);
    }
    reading
}

fn series_name(measure: &Measure, event: &Event<'_>) -> Box<str> {
    if measure.series.is_empty() {
        return Box::default();
    }
    let values = measure.series.iter();
    let values = values.map(|slot| event.slots[usize::from(*slot)].whole().to_json());
    Value::Array(values.collect()).to_string().into()
}

/// An object with the attributes of a CloudEvent before all else, where [`depth`] looks for them.
///
/// [`depth`]: crate::model::cloud_event::depth
struct Attributed(Map<String, Value>);

impl Serialize for Attributed {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let is_first = |(name, _): &(&String, &Value)| *name == "ce";
        let rest = self.0.iter().filter(|member| !is_first(member));
        serializer.collect_map(self.0.iter().filter(is_first).chain(rest))
    }
}

/// The event as the match holds it: with what its conditions measured under `measured`.
fn with_readings(payload: &Json, readings: Map<String, Value>) -> Json {
    match payload.parse() {
        Ok(Value::Object(mut members)) => {
            members.insert("measured".to_owned(), Value::Object(readings));
            Json::from_serialize(&Attributed(members)).expect("its members have names")
        }
        _ => payload.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::cloud_event::depth;
    use crate::pattern::syntax;

    #[test]
    fn what_was_measured_does_not_hide_how_deep_an_event_is() {
        let payload = r#"{"ce":{"type":"t","partitadepth":3},"attempt":1}"#;
        let payload = Json::from_text(payload).expect("JSON");
        let readings = Map::from_iter([("up".to_owned(), Value::from(1))]);
        let shown = with_readings(&payload, readings);
        assert_eq!(depth(&shown), 3, "{shown:?}");
        let expected = r#"{"attempt":1,"ce":{"type":"t","partitadepth":3},"measured":{"up":1}}"#;
        assert_eq!(shown, Json::from_text(expected).expect("JSON"));
    }

    #[test]
    fn series_are_forgotten_after_their_newest_value_also_when_they_were_saved() {
        let rule =
            "{kind: rule, name: r, topic: t, match: {change: {field: v, by: 1, over: 100ms}}}";
        let rule = syntax::parse(rule, None).expect("a rule").remove(0);
        let measured = Measured::new(&rule, ());
        let gauge = &measured.measures[0].gauge;
        let mut state: State<()> = State {
            series: vec![BTreeMap::new()],
            queues: vec![Queue::default()],
            ..State::default()
        };
        for (name, at) in [("a", 10), ("b", 20), ("a", 30), ("c", 25)] {
            let (name, series): (Box<str>, _) = (name.into(), &mut state.series[0]);
            if !series.contains_key(&name) {
                state.queues[0].push(Reverse((at, name.clone())));
            }
            let memory = series.entry(name).or_insert_with(|| gauge.memory());
            gauge.observe(memory, at, 1.0);
        }
        state.due = Some(110);
        for (now, due, left) in [
            (109, Some(110), "abc"),
            (110, Some(120), "abc"),
            (120, Some(125), "ac"),
            (129, Some(130), "a"),
            (130, None, ""),
        ] {
            let saved = postcard::to_stdvec(&state).expect("plain data");
            let mut restored: State<()> = postcard::from_bytes(&saved).expect("it reads back");
            for state in [&mut state, &mut restored] {
                measured.forget(state, now);
                let names: String = state.series[0].keys().map(|name| &**name).collect();
                assert_eq!((state.due, names.as_str()), (due, left), "at {now}");
                assert_eq!(state.queues[0].len(), left.len(), "at {now}");
            }
        }
    }
}
