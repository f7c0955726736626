//! Records of all formats, and what rules see of them.

use std::sync::Arc;

use apache_avro::Schema;
use apache_avro::types::Value;
use apache_avro::writer::datum::GenericDatumWriter;
use proptest::prelude::*;

use super::*;

const ORDER: &str = r#"{"type":"record","name":"Order","namespace":"shop","fields":[
    {"name":"id","type":"string"},
    {"name":"price","type":{"type":"bytes","logicalType":"decimal","precision":9,"scale":2}},
    {"name":"at","type":{"type":"long","logicalType":"timestamp-micros"}},
    {"name":"day","type":{"type":"int","logicalType":"date"}},
    {"name":"note","type":["null","string"]},
    {"name":"kind","type":{"type":"enum","name":"Kind","symbols":["new","gone"]}},
    {"name":"tags","type":{"type":"map","values":"int"}},
    {"name":"lines","type":{"type":"array","items":{"type":"record","name":"Line","fields":[
        {"name":"sku","type":{"type":"string","logicalType":"uuid"}},
        {"name":"weight","type":"double"},
        {"name":"seal","type":{"type":"fixed","name":"Seal","size":2}}]}}},
    {"name":"other","type":["null","Kind"]},
    {"name":"due","type":{"type":"int","logicalType":"time-millis"}},
    {"name":"local","type":{"type":"long","logicalType":"local-timestamp-millis"}}]}"#;

struct Known(Arc<AvroSchema>);

impl Schemas for Known {
    fn by_id(&self, id: u32) -> Result<WriterSchema, NoSchema> {
        match id {
            7 => Ok(WriterSchema::Avro(self.0.clone())),
            8 => Ok(WriterSchema::Json),
            9 => Err(NoSchema::Unavailable("the registry is away".to_owned())),
            id => Err(NoSchema::Refused(format!("there is no schema {id}"))),
        }
    }

    fn by_fingerprint(&self, fingerprint: [u8; 8]) -> Result<Arc<AvroSchema>, NoSchema> {
        (fingerprint == self.0.fingerprint())
            .then(|| self.0.clone())
            .ok_or_else(|| NoSchema::Refused("an unknown fingerprint".to_owned()))
    }
}

fn known() -> Known {
    Known(Arc::new(AvroSchema::parse(ORDER).unwrap()))
}

fn text(text: &str) -> Value {
    Value::String(text.to_owned())
}

fn field(name: &str, value: Value) -> (String, Value) {
    (name.to_owned(), value)
}

/// An order by the library's own writer.
fn order() -> Vec<u8> {
    let line = Value::Record(vec![
        field(
            "sku",
            Value::Uuid("936da01f-9abd-4d9d-80c7-02af85c822a8".parse().unwrap()),
        ),
        field("weight", Value::Double(1.5)),
        field("seal", Value::Fixed(2, vec![0xff, 0x00])),
    ]);
    let price = apache_avro::Decimal::from([0x04_u8, 0xd2].as_slice());
    let value = Value::Record(vec![
        field("id", text("o\"1")),
        field("price", Value::Decimal(price)),
        field("at", Value::TimestampMicros(1_769_860_800_123_456)),
        field("day", Value::Date(20_484)),
        field("note", Value::Union(0, Box::new(Value::Null))),
        field("kind", Value::Enum(1, "gone".to_owned())),
        field(
            "tags",
            Value::Map([("a".to_owned(), Value::Int(-3))].into()),
        ),
        field("lines", Value::Array(vec![line.clone(), line])),
        field(
            "other",
            Value::Union(1, Box::new(Value::Enum(0, "new".to_owned()))),
        ),
        field("due", Value::TimeMillis(3_723_004)),
        field("local", Value::LocalTimestampMillis(0)),
    ]);
    let schema = Schema::parse_str(ORDER).unwrap();
    let writer = GenericDatumWriter::builder(&schema).build().unwrap();
    writer.write_value_to_vec(value).unwrap()
}

const ORDER_AS_JSON: &str = concat!(
    r#"{"id":"o\"1","price":12.34,"at":"2026-01-31T12:00:00.123Z","day":"2026-01-31","note":null,"#,
    r#""kind":"gone","tags":{"a":-3},"lines":["#,
    r#"{"sku":"936da01f-9abd-4d9d-80c7-02af85c822a8","weight":1.5,"seal":"/wA="},"#,
    r#"{"sku":"936da01f-9abd-4d9d-80c7-02af85c822a8","weight":1.5,"seal":"/wA="}],"#,
    r#""other":"new","due":"01:02:03.004","local":"1970-01-01T00:00:00.000"}"#
);

fn in_registry(id: u32, datum: &[u8]) -> Vec<u8> {
    [&[0], &id.to_be_bytes()[..], datum].concat()
}

fn single_object(datum: &[u8]) -> Vec<u8> {
    [&[0xc3, 0x01], &known().0.fingerprint()[..], datum].concat()
}

fn headers(given: &[(&str, &str)]) -> Vec<(String, Vec<u8>)> {
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), value.as_bytes().to_vec());
    given.iter().map(owned).collect()
}

fn read_with(
    value: Option<&[u8]>,
    given: &[(&str, &str)],
) -> Result<Option<DecodedEvent>, Refused> {
    let record = RawEvent {
        value,
        headers: &headers(given),
        timestamp: Some(Timestamp(5)),
    };
    decode(&record, &known(), 4_096)
}

type Headers<'a> = &'a [(&'a str, &'a str)];

const BINARY: Headers<'_> = &[
    ("ce_specversion", "1.0"),
    ("ce_type", "order.created"),
    ("ce_source", "/shop"),
    ("ce_id", "1"),
    ("ce_time", "1970-01-01T00:00:09Z"),
    ("ce_extra", "x"),
];
const CE: &str =
    r#"{"ce":{"type":"order.created","source":"/shop","id":"1","time":"1970-01-01T00:00:09.000Z"}"#;

#[test]
fn records_of_every_format_are_read() {
    let json = br#" {"a": 1} "#.to_vec();
    let envelope = br#"{"specversion":"1.0","type":"t","id":"1","source":"/s","data":{"a":1}}"#;
    let with_order = format!("{CE},{}", &ORDER_AS_JSON[1..]);
    let structured_type = (
        "content-type",
        "application/CloudEvents+json; charset=utf-8",
    );
    let table: &[(&[u8], Headers<'_>, &str, i64)] = &[
        (&json, &[], r#"{"a": 1}"#, 5),
        (&json, &[("content-type", "text/plain")], r#"{"a": 1}"#, 5),
        (&json, BINARY, &format!("{CE},\"a\": 1}}"), 9_000),
        (
            envelope,
            &[],
            r#"{"ce":{"type":"t","source":"/s","id":"1"},"a":1}"#,
            5,
        ),
        (
            envelope,
            &[structured_type],
            r#"{"ce":{"type":"t","source":"/s","id":"1"},"a":1}"#,
            5,
        ),
        (
            br#"{"specversion":"1.0","type":"t","time":"1970-01-01T00:00:01Z"}"#,
            &[structured_type],
            r#"{"ce":{"type":"t","time":"1970-01-01T00:00:01.000Z"}}"#,
            1_000,
        ),
        (&in_registry(7, &order()), &[], ORDER_AS_JSON, 5),
        (&in_registry(8, br#"{"a":1}"#), &[], r#"{"a":1}"#, 5),
        (
            &single_object(&order()),
            &[("content-type", "avro/binary")],
            ORDER_AS_JSON,
            5,
        ),
        (&in_registry(7, &order()), BINARY, &with_order, 9_000),
    ];
    for (value, headers, expected, at) in table {
        let read = read_with(Some(value), headers).unwrap().expect("an event");
        assert_eq!(read.payload.as_str(), *expected);
        assert_eq!(read.at, Some(Timestamp(*at)), "{expected}");
        let is_cloud_event = expected.starts_with(r#"{"ce":"#);
        assert_eq!(read.attributes.is_some(), is_cloud_event, "{expected}");
    }
}

#[test]
fn attributes_are_told() {
    let read = read_with(Some(b"{}"), BINARY).unwrap().unwrap();
    let attributes = read.attributes.expect("a CloudEvent");
    assert_eq!(attributes.kind.as_deref(), Some("order.created"));
    assert_eq!(attributes.source.as_deref(), Some("/shop"));
    assert_eq!(attributes.subject, None);
    assert_eq!(attributes.time, Some(Timestamp(9_000)));
}

#[test]
fn a_tombstone_is_no_event_unless_headers_tell_of_one() {
    assert_eq!(read_with(None, &[]).unwrap(), None);
    let read = read_with(None, BINARY).unwrap().expect("an event");
    assert_eq!(read.payload.as_str(), format!("{CE}}}"));
}

#[test]
fn what_cannot_be_read_says_why() {
    let cut = order();
    let long = format!("{{\"a\":\"{}\"}}", "x".repeat(5_000));
    let table: &[(&[u8], Headers<'_>, &str)] = &[
        (b"{", &[], "no JSON: EOF"),
        (b"", &[], "no JSON"),
        (b"\xff\xfe", &[], "byte 0 is not UTF-8"),
        (b"[1]", &[], "this is a list"),
        (b"7", &[], "this is a number"),
        (b"null", &[], "this is null"),
        (
            b"<a/>",
            &[("content-type", "text/xml")],
            "content-type is text/xml",
        ),
        (
            b"\x02a",
            &[("content-type", "application/avro")],
            "which schema",
        ),
        (b"\0\0\0", &[], "no schema id follows"),
        (b"\xc3\x01\x01", &[], "ends in its head"),
        (
            b"\xc3\x01\x01\x02\x03\x04\x05\x06\x07\x08",
            &[],
            "an unknown fingerprint",
        ),
        (&in_registry(5, b""), &[], "there is no schema 5"),
        (&in_registry(8, b"x"), &[], "no JSON"),
        (
            &in_registry(7, &cut[..cut.len() - 1]),
            &[],
            "does not go by its schema",
        ),
        (
            &in_registry(7, &[&cut[..], b"x"].concat()),
            &[],
            "more bytes than the schema says",
        ),
        (
            b"{}",
            &[("content-type", "application/cloudevents+json")],
            "`specversion` or `type`",
        ),
        (
            b"{}",
            &[("content-type", "application/cloudevents-batch+json")],
            "only",
        ),
        (
            b"{}",
            &[("content-type", "application/cloudevents+avro")],
            "only",
        ),
        (
            br#"{"specversion":"1.0","type":"t","data_base64":"AA=="}"#,
            &[],
            "data_base64",
        ),
        (
            br#"{"specversion":"1.0","type":"t","data":"x"}"#,
            &[],
            "this is a text",
        ),
        (long.as_bytes(), &[], "max_payload_bytes"),
    ];
    for (value, headers, expected) in table {
        match read_with(Some(value), headers) {
            Err(Refused::Unreadable(error)) => {
                assert!(error.message.contains(expected), "{expected}: {error}");
                let is_long = *expected == "max_payload_bytes";
                let class = if is_long {
                    class::PAYLOAD_TOO_LARGE
                } else {
                    MALFORMED
                };
                assert_eq!(error.class, class, "{expected}");
            }
            other => panic!("{expected}: {other:?}"),
        }
    }
}

#[test]
fn a_registry_that_is_away_condemns_nothing() {
    let refused = read_with(Some(&in_registry(9, b"")), &[]).unwrap_err();
    assert_eq!(
        refused,
        Refused::Unavailable("the registry is away".to_owned())
    );
}

#[test]
fn schemas_that_describe_no_event_are_refused() {
    for (schema, expected) in [
        (r#""string""#, "a record or a map"),
        (r#"{"type":"record"}"#, "no Avro schema"),
        ("{", "no Avro schema"),
    ] {
        let error = AvroSchema::parse(schema).unwrap_err();
        assert!(error.to_string().contains(expected), "{error}");
    }
}

/// A datum of a few bytes may ask for depth or for items without end.
#[test]
fn bytes_cannot_ask_for_more_than_is_allowed() {
    let list = r#"{"type":"record","name":"L","fields":[{"name":"next","type":["null","L"]}]}"#;
    let schema = AvroSchema::parse(list).unwrap();
    assert_eq!(
        schema.to_json(&[2, 2, 0], 1_000).unwrap(),
        r#"{"next":{"next":{"next":null}}}"#
    );
    assert_eq!(
        schema.to_json(&[2; 100_000], 1_000_000),
        Err(avro::DatumError::TooDeep)
    );
    let nulls = r#"{"type":"record","name":"N","fields":[{"name":"n","type":{"type":"array","items":"null"}}]}"#;
    let schema = AvroSchema::parse(nulls).unwrap();
    let endless = [
        0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01, 0,
    ];
    assert_eq!(
        schema.to_json(&endless, 1_000),
        Err(avro::DatumError::TooLarge(1_000))
    );
}

proptest! {
    #[test]
    fn no_bytes_break_the_reader(noise in prop::collection::vec(any::<u8>(), 0..64), kind in 0..4) {
        let value = match kind {
            0 => noise,
            1 => in_registry(7, &noise),
            2 => single_object(&noise),
            _ => [b"{", &noise[..]].concat(),
        };
        if let Ok(Some(event)) = read_with(Some(&value), &[]) {
            let begins = event.payload.as_str().as_bytes()[0];
            prop_assert_eq!(begins, b'{');
        }
    }

    #[test]
    fn a_damaged_datum_is_told_or_read(place in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut datum = order();
        let place = place.index(datum.len());
        datum[place] = byte;
        match read_with(Some(&in_registry(7, &datum)), &[]) {
            Ok(event) => prop_assert!(event.is_some()),
            Err(error) => prop_assert!(matches!(error, Refused::Unreadable(_))),
        }
    }
}
