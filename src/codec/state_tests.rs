//! The hand-written encoding against apache-avro's, by the schema that we publish.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use apache_avro::Schema;
use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::types::Value;
use apache_avro::writer::datum::GenericDatumWriter;
use proptest::prelude::*;
use proptest::strategy::ValueTree;

use super::awaiting::Awaiting;
use super::state;
use crate::model::{
    Contributor, Failure, Inbox, Json, Provenance, RunId, RunState, RunStatus, SignalId,
    SignalName, StepState, StepStatus, Timestamp, WaitingSignal, WatchedKey,
};

fn schema() -> Schema {
    Schema::parse_str(include_str!("../../schemas/state.avsc")).expect("a valid schema")
}

fn json() -> impl Strategy<Value = Json> {
    prop_oneof![
        Just(Json::null()),
        "[a-zé\"\\\\]{0,12}".prop_map(|text| Json::from_serialize(&text).unwrap()),
        any::<i32>().prop_map(|number| Json::from_serialize(&number).unwrap()),
        Just(Json::from_serialize(&"x".repeat(state::INLINE_BYTES)).unwrap()),
    ]
}

fn time() -> impl Strategy<Value = Option<Timestamp>> {
    prop::option::of((0..4_000_000_000_000_i64).prop_map(Timestamp))
}

fn failure() -> impl Strategy<Value = Failure> {
    let step = prop::option::of("[a-z]{1,5}".prop_map(String::from));
    let details = prop::option::of(json());
    (
        "[a-z_]{1,9}",
        ".{0,9}",
        prop::option::of(any::<bool>()),
        details,
        step,
    )
        .prop_map(|(class, message, retryable, details, step)| Failure {
            class,
            message,
            retryable,
            details,
            step,
        })
}

fn step() -> impl Strategy<Value = StepState> {
    let times = (time(), time(), time(), time(), time(), time());
    let results = (
        prop::option::of(0.0..1.0_f64),
        prop::option::of(json()),
        prop::option::of(failure()),
    );
    (
        prop::sample::select(&StepStatus::ALL[..]),
        any::<u32>(),
        times,
        results,
    )
        .prop_map(
            |(status, attempt, times, (progress, output, error))| StepState {
                status,
                attempt,
                scheduled_at: times.0,
                started_at: times.1,
                ended_at: times.2,
                deadline: times.3,
                heartbeat_due: times.4,
                retry_at: times.5,
                progress,
                output,
                error,
            },
        )
}

fn signal() -> impl Strategy<Value = WaitingSignal> {
    let id = prop::option::of("[a-z]{1,4}");
    ("[a-z]{1,4}", json(), id, 0..4_000_000_000_000_i64).prop_map(|(name, data, id, at)| {
        WaitingSignal {
            name: SignalName::parse(&name).unwrap(),
            data,
            id: id.map(|id| SignalId::parse(&id).unwrap()),
            received_at: Timestamp(at),
            place: 0,
        }
    })
}

fn inbox() -> impl Strategy<Value = Inbox> {
    let taken = prop::collection::vec(any::<bool>(), 4);
    let signals = prop::collection::vec(signal(), 0..4);
    (signals, taken, prop::collection::vec("[a-z]{1,4}", 0..3)).prop_map(|(signals, taken, ids)| {
        let mut inbox = Inbox::default();
        signals.into_iter().for_each(|signal| inbox.put(signal));
        let mut taken = taken.into_iter();
        inbox.waiting.retain(|_| !taken.next().unwrap_or_default());
        ids.iter()
            .for_each(|id| inbox.remember(SignalId::parse(id).unwrap()));
        inbox
    })
}

fn provenance() -> impl Strategy<Value = Provenance> {
    let event =
        ("[ab]", "[xy]", 0..9_i32, 0..i64::MAX).prop_map(|(step, topic, partition, offset)| {
            Contributor {
                step,
                topic,
                partition,
                offset,
            }
        });
    let events = prop::collection::vec(event, 0..6);
    let numbers = (any::<i64>(), any::<u32>(), 0..i64::MAX as u64);
    ("[a-z]{1,9}@[1-9]", "[a-zé]{0,4}", numbers, events).prop_map(
        |(rule, key, (at, depth, more), events)| Provenance {
            rule,
            key: Json::from_serialize(&BTreeMap::from([("k", key)])).unwrap(),
            at: Timestamp(at),
            depth,
            events,
            more,
        },
    )
}

fn provenance_value(provenance: &Provenance) -> Value {
    let mut groups: Vec<(&str, &str, Vec<Value>)> = Vec::new();
    for event in &provenance.events {
        let place = record(vec![
            ("partition", Value::Long(event.partition.into())),
            ("offset", Value::Long(event.offset)),
        ]);
        match groups.last_mut() {
            Some((step, topic, places)) if *step == event.step && *topic == event.topic => {
                places.push(place);
            }
            _ => groups.push((&event.step, &event.topic, vec![place])),
        }
    }
    let groups = groups.into_iter().map(|(step, topic, places)| {
        record(vec![
            ("step", text(step)),
            ("topic", text(topic)),
            ("records", Value::Array(places)),
        ])
    });
    record(vec![
        ("rule", text(&provenance.rule)),
        ("key", text(provenance.key.as_str())),
        ("at", Value::Long(provenance.at.0)),
        ("depth", Value::Long(provenance.depth.into())),
        ("events", Value::Array(groups.collect())),
        ("more", Value::Long(provenance.more.cast_signed())),
    ])
}

fn run() -> impl Strategy<Value = RunState> {
    let names = ("[a-z_]{1,20}", any::<u32>(), prop::option::of(any::<u32>()));
    let content = (
        json(),
        prop::collection::btree_map("[a-z]{1,4}", "[a-z]{0,4}", 0..3),
        any::<i32>(),
    );
    let times = (
        (0..4_000_000_000_000_i64).prop_map(Timestamp),
        time(),
        time(),
        time(),
    );
    let results = (prop::option::of(json()), prop::option::of(failure()));
    let counts = (
        0..i64::MAX as u64,
        any::<u32>(),
        0..i64::MAX as u64,
        prop::option::of("[0-9a-f-]{55}"),
    );
    let watch = (0..5_usize, prop::collection::vec(any::<i32>(), 0..3)).prop_map(|(step, key)| {
        WatchedKey {
            step,
            key: Json::from_serialize(&key).unwrap(),
        }
    });
    let watches = prop::collection::vec(watch, 0..3);
    let steps = (
        prop::collection::vec(step(), 0..5),
        inbox(),
        watches,
        prop::option::of(provenance()),
        any::<u32>(),
    );
    (
        prop::sample::select(&RunStatus::ALL[..]),
        names,
        content,
        times,
        results,
        counts,
        steps,
    )
        .prop_map(
            |(status, names, (input, tags, priority), times, (output, error), counts, steps)| {
                RunState {
                    id: RunId::parse("some.run").unwrap(),
                    workflow: names.0.as_str().into(),
                    version: names.1,
                    requested_version: names.2,
                    status,
                    input,
                    tags,
                    priority,
                    created_at: times.0,
                    started_at: times.1,
                    ended_at: times.2,
                    deadline: times.3,
                    output,
                    error,
                    revision: counts.0,
                    epoch: counts.1,
                    sequence: counts.2,
                    traceparent: counts.3,
                    steps: steps.0,
                    inbox: steps.1,
                    watches: steps.2,
                    provenance: steps.3.map(Arc::new),
                    depth: steps.4,
                }
            },
        )
}

fn optional(value: Option<Value>) -> Value {
    match value {
        None => Value::Union(0, Box::new(Value::Null)),
        Some(value) => Value::Union(1, Box::new(value)),
    }
}

fn text(text: &str) -> Value {
    Value::String(text.to_owned())
}

fn instant(time: Option<Timestamp>) -> Value {
    optional(time.map(|time| Value::Long(time.0)))
}

fn payload(first: u32, slot: i32, value: &Json) -> Value {
    match value.len() <= state::INLINE_BYTES {
        true => Value::Union(first, Box::new(text(value.as_str()))),
        false => Value::Union(first + 1, Box::new(Value::Int(slot))),
    }
}

fn optional_payload(slot: i32, value: Option<&Json>) -> Value {
    value.map_or(Value::Union(0, Box::new(Value::Null)), |value| {
        payload(1, slot, value)
    })
}

fn record(fields: Vec<(&str, Value)>) -> Value {
    Value::Record(
        fields
            .into_iter()
            .map(|(name, value)| (name.to_owned(), value))
            .collect(),
    )
}

fn failure_value(failure: &Failure) -> Value {
    record(vec![
        ("class", text(&failure.class)),
        ("message", text(&failure.message)),
        ("retryable", optional(failure.retryable.map(Value::Boolean))),
        (
            "details",
            optional(
                failure
                    .details
                    .as_ref()
                    .map(|details| text(details.as_str())),
            ),
        ),
        ("step", optional(failure.step.as_deref().map(text))),
    ])
}

fn step_value(slot: i32, step: &StepState) -> Value {
    let place = StepStatus::ALL
        .iter()
        .position(|status| *status == step.status)
        .unwrap();
    record(vec![
        (
            "status",
            Value::Enum(place as u32, step.status.name().to_owned()),
        ),
        ("attempt", Value::Long(step.attempt.into())),
        ("scheduled_at", instant(step.scheduled_at)),
        ("started_at", instant(step.started_at)),
        ("ended_at", instant(step.ended_at)),
        ("deadline", instant(step.deadline)),
        ("heartbeat_due", instant(step.heartbeat_due)),
        ("retry_at", instant(step.retry_at)),
        ("progress", optional(step.progress.map(Value::Double))),
        ("output", optional_payload(slot, step.output.as_ref())),
        ("error", optional(step.error.as_ref().map(failure_value))),
    ])
}

fn signal_value(first_slot: i32, signal: &WaitingSignal) -> Value {
    let slot = first_slot + i32::try_from(signal.place).unwrap();
    let id = signal.id.as_ref();
    record(vec![
        ("name", text(signal.name.as_str())),
        ("id", optional(id.map(|id| text(id.as_str())))),
        ("received_at", Value::Long(signal.received_at.0)),
        ("place", Value::Long(signal.place.into())),
        ("data", payload(0, slot, &signal.data)),
    ])
}

fn watch_value(watch: &WatchedKey) -> Value {
    record(vec![
        ("step", Value::Int(i32::try_from(watch.step).unwrap())),
        ("key", text(watch.key.as_str())),
    ])
}

/// The run as apache-avro sees it.
fn avro_value(run: &RunState) -> Value {
    let place = RunStatus::ALL
        .iter()
        .position(|status| *status == run.status)
        .unwrap();
    let tags: HashMap<String, Value> = run
        .tags
        .iter()
        .map(|(name, value)| (name.clone(), text(value)))
        .collect();
    let steps = run.steps.iter().enumerate();
    let first_slot = 2 + run.steps.len() as i32;
    let signals = run.inbox.waiting.iter();
    let ids = run.inbox.ids.iter();
    let awaiting = Awaiting::of(run);
    record(vec![
        (
            "status",
            Value::Enum(place as u32, run.status.name().to_owned()),
        ),
        ("created_at", Value::Long(run.created_at.0)),
        ("next_due", instant(run.next_due())),
        ("ended_at", instant(run.ended_at)),
        ("priority", Value::Int(run.priority)),
        ("awaited_signals", Value::Long(awaiting.signals.into())),
        ("awaited_patterns", Value::Long(awaiting.patterns.into())),
        ("workflow", text(&run.workflow)),
        ("version", Value::Long(run.version.into())),
        (
            "requested_version",
            optional(
                run.requested_version
                    .map(|version| Value::Long(version.into())),
            ),
        ),
        ("input", payload(0, 0, &run.input)),
        ("tags", Value::Map(tags)),
        ("started_at", instant(run.started_at)),
        ("deadline", instant(run.deadline)),
        ("output", optional_payload(1, run.output.as_ref())),
        ("error", optional(run.error.as_ref().map(failure_value))),
        ("revision", Value::Long(run.revision.cast_signed())),
        ("epoch", Value::Long(run.epoch.into())),
        ("sequence", Value::Long(run.sequence.cast_signed())),
        (
            "traceparent",
            optional(run.traceparent.as_deref().map(text)),
        ),
        (
            "steps",
            Value::Array(
                steps
                    .map(|(place, step)| step_value(2 + place as i32, step))
                    .collect(),
            ),
        ),
        (
            "signals",
            Value::Array(
                signals
                    .map(|signal| signal_value(first_slot, signal))
                    .collect(),
            ),
        ),
        (
            "signal_ids",
            Value::Array(ids.map(|id| text(id.as_str())).collect()),
        ),
        ("signal_places", Value::Long(run.inbox.places.into())),
        (
            "watches",
            Value::Array(run.watches.iter().map(watch_value).collect()),
        ),
        (
            "provenance",
            optional(run.provenance.as_deref().map(provenance_value)),
        ),
        ("depth", Value::Long(run.depth.into())),
    ])
}

fn encoded(run: &RunState) -> (Vec<u8>, BTreeMap<u32, Json>) {
    let (mut bytes, mut large) = (Vec::new(), Vec::new());
    state::encode(run, &mut bytes, &mut large);
    (bytes, large.into_iter().collect())
}

proptest! {
    #[test]
    fn an_entry_is_what_avro_says_it_is(run in run()) {
        let schema = schema();
        let (bytes, large) = encoded(&run);
        prop_assert_eq!(bytes[0], state::VERSION);
        let expected = avro_value(&run);
        let reader = GenericDatumReader::builder(&schema).build().unwrap();
        prop_assert_eq!(reader.read_value(&mut &bytes[1..]).unwrap(), expected.clone());

        let mut theirs = vec![state::VERSION];
        let writer = GenericDatumWriter::builder(&schema).build().unwrap();
        theirs.extend(writer.write_value_to_vec(expected).unwrap());
        let find = |slot| large.get(&slot).cloned();
        prop_assert_eq!(state::decode(&run.id, &theirs, &find).unwrap(), run.clone());
        prop_assert_eq!(state::facts(&run.id, &bytes).unwrap(), state::EntryFacts::of(&run));
        let first = 2 + u32::try_from(run.steps.len()).unwrap();
        let of_signals = first..first + run.inbox.places;
        let slots: Vec<u32> = large.range(..first).map(|(slot, _)| *slot).chain(of_signals).collect();
        let mut found = state::large_slots(&run.id, &bytes).unwrap();
        found.sort_unstable();
        prop_assert_eq!(&found, &slots);
        prop_assert!(large.keys().all(|slot| found.contains(slot)));
        let mut tags = BTreeMap::new();
        let note = |key: &str, value: &str| drop(tags.insert(key.to_owned(), value.to_owned()));
        state::each_tag(&bytes, note).unwrap();
        prop_assert_eq!(tags, run.tags.clone());
    }

    #[test]
    fn no_bytes_make_the_decoder_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = state::decode(&RunId::parse("r").unwrap(), &bytes, &|_| None);
    }

    #[test]
    fn an_entry_cut_short_is_an_error(run in run(), cut in 0.0..1.0_f64) {
        let (bytes, large) = encoded(&run);
        let end = (bytes.len() as f64 * cut) as usize;
        prop_assert!(state::decode(&run.id, &bytes[..end], &|slot| large.get(&slot).cloned()).is_err());
    }
}

/// An entry as version 1 wrote it: two steps, the second of which waits for its retry.
const VERSION_1: &str = "010280a0d5edee6602a0bfd5edee660003086c696e65060206000e7b2261223a317d02087465616d067265640002c8a1d5edee6602c0eff9edee6600000e0018026e30302d30616637363531393136636434336464383434386562323131633830333139632d623761643662373136393230333333312d303104080202e8a7d5edee66000002c8fcd8edee66000000020a5b312c325d00060402e8a7d5edee66000002c8fcd8edee660002a0bfd5edee660000020a666c616b79046e6f00000000";

/// Fields that came with a version.
const CAME_WITH: [(u8, &[&str]); 3] = [
    (2, &["signals", "signal_ids", "signal_places"]),
    (3, &["watches", "provenance"]),
    (4, &["awaited_signals", "awaited_patterns", "depth"]),
];

/// The run's entry as that version wrote it, and what it leaves to other entries.
fn written_by(version: u8, run: &RunState) -> (Vec<u8>, BTreeMap<u32, Json>) {
    let later = CAME_WITH.iter().filter(|(since, _)| *since > version);
    let later: Vec<&str> = later.flat_map(|(_, names)| *names).copied().collect();
    let mut schema: serde_json::Value = serde_json::to_value(schema()).unwrap();
    let fields = schema["fields"].as_array_mut().unwrap();
    fields.retain(|field| !later.contains(&field["name"].as_str().unwrap()));
    let schema = Schema::parse(&schema).unwrap();
    let Value::Record(mut fields) = avro_value(run) else {
        panic!("a run is a record");
    };
    fields.retain(|(name, _)| !later.contains(&name.as_str()));
    let writer = GenericDatumWriter::builder(&schema).build().unwrap();
    let mut bytes = vec![version];
    bytes.extend(writer.write_value_to_vec(Value::Record(fields)).unwrap());
    (bytes, encoded(run).1)
}

fn fifty_runs() -> impl Iterator<Item = RunState> {
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    (0..50).map(move |_| run().new_tree(&mut runner).unwrap().current())
}

#[test]
fn an_entry_of_version_2_is_read_and_nothing_in_it_has_to_do_with_rules() {
    for mut run in fifty_runs() {
        run.provenance = None;
        run.watches.clear();
        run.depth = 0;
        let (bytes, large) = written_by(2, &run);
        let find = |slot| large.get(&slot).cloned();
        assert_eq!(state::decode(&run.id, &bytes, &find).unwrap(), run);
        assert_eq!(
            state::facts(&run.id, &bytes).unwrap(),
            state::EntryFacts::of(&run)
        );
    }
}

#[test]
fn an_entry_of_version_3_is_read_and_is_as_deep_as_its_start() {
    for mut run in fifty_runs() {
        let (bytes, large) = written_by(3, &run);
        run.depth = run.provenance.as_ref().map_or(0, |from| from.depth);
        let find = |slot| large.get(&slot).cloned();
        assert_eq!(state::decode(&run.id, &bytes, &find).unwrap(), run);
        assert_eq!(
            state::facts(&run.id, &bytes).unwrap(),
            state::EntryFacts::of(&run)
        );
    }
}

#[test]
fn an_entry_of_version_1_is_read_and_has_no_signals() {
    let digits = VERSION_1.as_bytes().chunks(2);
    let bytes: Vec<u8> = digits
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect();
    assert_eq!(bytes[0], 1);
    let id = RunId::parse("some.run").unwrap();
    let run = state::decode(&id, &bytes, &|_| None).unwrap();
    assert_eq!((run.version, run.revision, run.sequence), (3, 7, 12));
    assert_eq!(run.tags["team"], "red");
    assert_eq!(run.steps[0].output, Some(Json::from_text("[1,2]").unwrap()));
    assert_eq!(run.steps[1].retry_at, Some(Timestamp(1_767_225_602_000)));
    assert!(!run.steps[1].is_awaiting());
    assert_eq!(run.inbox, Inbox::default());
    assert_eq!(
        state::facts(&run.id, &bytes).unwrap(),
        state::EntryFacts::of(&run)
    );
    // Written anew it says the same.
    let (again, _) = encoded(&run);
    assert_eq!(again[0], state::VERSION);
    assert_eq!(state::decode(&id, &again, &|_| None).unwrap(), run);
}
