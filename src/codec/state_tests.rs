//! The hand-written encoding against apache-avro's, by the schema that we publish.

use std::collections::{BTreeMap, HashMap};

use apache_avro::Schema;
use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::types::Value;
use apache_avro::writer::datum::GenericDatumWriter;
use proptest::prelude::*;

use super::state;
use crate::model::{Failure, Json, RunId, RunState, RunStatus, StepState, StepStatus, Timestamp};

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
    let steps = prop::collection::vec(step(), 0..5);
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
                    steps,
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
    record(vec![
        (
            "status",
            Value::Enum(place as u32, run.status.name().to_owned()),
        ),
        ("created_at", Value::Long(run.created_at.0)),
        ("next_due", instant(run.next_due())),
        ("ended_at", instant(run.ended_at)),
        ("priority", Value::Int(run.priority)),
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
        prop_assert_eq!(state::facts(&bytes).unwrap(), state::EntryFacts::of(&run));
        let slots: Vec<u32> = large.keys().copied().collect();
        let mut found = state::large_slots(&run.id, &bytes).unwrap();
        found.sort_unstable();
        prop_assert_eq!(found, slots);
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
