//! Records of `signals` (`schemas/signal.avsc`): one version byte, then Avro. Written for every
//! event that a rule wants, so without trees and without owning anything.

use super::CodecError;
use super::avro::{Reader, put_bytes, put_count, put_long};
use crate::model::signal::Signal;
use crate::model::{Json, TaskId, Timestamp, Watch};

/// Version of the schema that this program knows; it reads all up to it.
pub const VERSION: u8 = 3;

/// What an event and a watermark are written as: an instance that knows no watches reads them.
const BEFORE_WATCHES: u8 = 1;

/// What a watch is written as: an instance that knows no further events reads it.
const BEFORE_FURTHER: u8 = 2;

const EVENT: usize = 0;
const WATERMARK: usize = 1;
const WATCH: usize = 2;
const UNWATCH: usize = 3;
const FURTHER: usize = 4;

/// No version will ever be so high: what begins like this is text that somebody wrote here.
const LEAST_PRINTABLE: u8 = b' ';

/// What [`Signal::Event`] holds, borrowed.
#[derive(Clone, Copy, Debug)]
pub struct EventParts<'a> {
    pub rule: &'a str,
    pub version: u32,
    pub key: &'a [u8],
    pub topic: &'a str,
    pub partition: i32,
    pub offset: i64,
    pub at: Timestamp,
    pub payload: &'a Json,
    pub begins: bool,
}

/// What [`Signal::Watermark`] holds, borrowed.
#[derive(Clone, Copy, Debug)]
pub struct WatermarkParts<'a> {
    pub topic: &'a str,
    pub partition: i32,
    pub partitions: i32,
    pub clock: &'a str,
    pub at: Timestamp,
}

/// Appends the value of a signal's record.
pub fn encode(signal: &Signal, out: &mut Vec<u8>) {
    match signal {
        Signal::Event {
            rule,
            version,
            key,
            topic,
            partition,
            offset,
            at,
            payload,
            begins,
        } => encode_event(
            &EventParts {
                rule,
                version: *version,
                key,
                topic,
                partition: *partition,
                offset: *offset,
                at: *at,
                payload,
                begins: *begins,
            },
            out,
        ),
        Signal::Watermark {
            topic,
            partition,
            partitions,
            clock,
            at,
        } => encode_watermark(
            &WatermarkParts {
                topic,
                partition: *partition,
                partitions: *partitions,
                clock,
                at: *at,
            },
            out,
        ),
        Signal::Watch(watch) => encode_watch(watch, WATCH, out),
        Signal::Unwatch(watch) => encode_watch(watch, UNWATCH, out),
    }
}

fn encode_watch(watch: &Watch, branch: usize, out: &mut Vec<u8>) {
    out.push(BEFORE_FURTHER);
    put_count(out, branch);
    put_bytes(out, watch.rule.as_bytes());
    put_long(out, watch.version.into());
    put_bytes(out, watch.key.as_str().as_bytes());
    put_bytes(out, watch.attempt.to_string().as_bytes());
}

fn watch(reader: &mut Reader<'_>) -> Result<Watch, CodecError> {
    Ok(Watch {
        rule: reader.text()?.to_owned(),
        version: reader.number()?,
        key: json(reader)?,
        attempt: {
            let text = reader.text()?;
            TaskId::parse(text).ok_or_else(|| reader.malformed("no attempt of a step"))?
        },
    })
}

fn json(reader: &mut Reader<'_>) -> Result<Json, CodecError> {
    let text = reader.text()?;
    Json::from_text(text).map_err(|_| reader.malformed("a text that is not JSON"))
}

/// Appends the value of an event's record.
pub fn encode_event(event: &EventParts<'_>, out: &mut Vec<u8>) {
    let (version, branch) = match event.begins {
        true => (BEFORE_WATCHES, EVENT),
        false => (VERSION, FURTHER),
    };
    out.push(version);
    put_count(out, branch);
    put_bytes(out, event.rule.as_bytes());
    put_long(out, event.version.into());
    put_bytes(out, event.key);
    put_bytes(out, event.topic.as_bytes());
    put_long(out, event.partition.into());
    put_long(out, event.offset);
    put_long(out, event.at.0);
    put_bytes(out, event.payload.as_str().as_bytes());
}

/// Appends the value of a watermark's record.
pub fn encode_watermark(watermark: &WatermarkParts<'_>, out: &mut Vec<u8>) {
    out.push(BEFORE_WATCHES);
    put_count(out, WATERMARK);
    put_bytes(out, watermark.topic.as_bytes());
    put_long(out, watermark.partition.into());
    put_long(out, watermark.partitions.into());
    put_bytes(out, watermark.clock.as_bytes());
    put_long(out, watermark.at.0);
}

/// Reads the value of a signal's record.
///
/// # Errors
/// Bytes that [`encode`] did not write, or that a newer program wrote.
pub fn decode(bytes: &[u8]) -> Result<Signal, CodecError> {
    let mut reader = Reader::new(bytes);
    let version = reader.byte()?;
    if version >= LEAST_PRINTABLE {
        return Err(reader.malformed("no version of a signal"));
    }
    if version > VERSION {
        return Err(CodecError::TooNew {
            found: version,
            known: VERSION,
        });
    }
    let signal = match reader.number::<usize>()? {
        branch @ (EVENT | FURTHER) => Signal::Event {
            rule: reader.text()?.to_owned(),
            version: reader.number()?,
            key: reader.text()?.as_bytes().to_vec(),
            topic: reader.text()?.to_owned(),
            partition: reader.number()?,
            offset: reader.long()?,
            at: Timestamp(reader.long()?),
            payload: json(&mut reader)?,
            begins: branch == EVENT,
        },
        WATERMARK => Signal::Watermark {
            topic: reader.text()?.to_owned(),
            partition: reader.number()?,
            partitions: reader.number()?,
            clock: reader.text()?.to_owned(),
            at: Timestamp(reader.long()?),
        },
        WATCH => Signal::Watch(watch(&mut reader)?),
        UNWATCH => Signal::Unwatch(watch(&mut reader)?),
        _ => return Err(reader.malformed("an unknown branch of a union")),
    };
    match reader.is_at_end() {
        true => Ok(signal),
        false => Err(reader.malformed("more bytes than a signal has")),
    }
}

/// Appends the key of the record of an event or a watch, which decides on its partition: `<rule>@<version>/<key>`.
pub fn put_event_key(rule: &str, version: u32, key: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(rule.as_bytes());
    out.push(b'@');
    out.extend_from_slice(itoa::Buffer::new().format(version).as_bytes());
    out.push(b'/');
    out.extend_from_slice(key);
}

/// Appends the key of a watermark's record: `<topic>/<partition>/<clock>`.
pub fn put_watermark_key(watermark: &WatermarkParts<'_>, out: &mut Vec<u8>) {
    out.extend_from_slice(watermark.topic.as_bytes());
    out.push(b'/');
    out.extend_from_slice(itoa::Buffer::new().format(watermark.partition).as_bytes());
    out.push(b'/');
    out.extend_from_slice(watermark.clock.as_bytes());
}

#[cfg(test)]
mod tests {
    use apache_avro::Schema;
    use apache_avro::reader::datum::GenericDatumReader;
    use apache_avro::types::Value;
    use apache_avro::writer::datum::GenericDatumWriter;
    use proptest::prelude::*;

    use super::*;

    fn schema() -> Schema {
        Schema::parse_str(include_str!("../../schemas/signal.avsc")).expect("a valid schema")
    }

    fn signal() -> impl Strategy<Value = Signal> {
        let place = ("[a-z.-]{1,12}", 0..i32::MAX);
        let payload = prop::collection::btree_map("[a-zé]{0,4}", any::<i64>(), 0..4)
            .prop_map(|fields| Json::from_serialize(&fields).unwrap());
        let key = prop::collection::vec("[a-z\"é ]{0,6}", 0..3)
            .prop_map(|values| serde_json::to_vec(&values).unwrap());
        let event = (
            ("[a-z_]{1,12}", any::<u32>(), key),
            place.clone(),
            (0..i64::MAX, any::<i64>(), payload, any::<bool>()),
        )
            .prop_map(
                |((rule, version, key), (topic, partition), (offset, at, payload, begins))| {
                    Signal::Event {
                        rule,
                        version,
                        key,
                        topic,
                        partition,
                        offset,
                        at: Timestamp(at),
                        payload,
                        begins,
                    }
                },
            );
        let watermark = (
            place,
            1..i32::MAX,
            "([a-z]{1,5}(\\.[a-z]{1,5})?)?",
            any::<i64>(),
        )
            .prop_map(
                |((topic, partition), partitions, clock, at)| Signal::Watermark {
                    topic,
                    partition,
                    partitions,
                    clock,
                    at: Timestamp(at),
                },
            );
        let attempt = (
            "[a-z][a-z.-]{0,8}",
            "[a-z_]{1,5}",
            any::<u32>(),
            any::<u32>(),
        );
        let key = prop::collection::vec(any::<i64>(), 0..3);
        let watch = ("[a-z]{1,5}:[a-z_]{1,5}", any::<u32>(), key, attempt).prop_map(
            |(rule, version, key, (run, step, epoch, attempt))| Watch {
                rule,
                version,
                key: Json::from_serialize(&key).unwrap(),
                attempt: TaskId {
                    run: crate::model::RunId::parse(&run).unwrap(),
                    step,
                    epoch,
                    attempt,
                },
            },
        );
        let watches = prop_oneof![
            watch.clone().prop_map(Signal::Watch),
            watch.prop_map(Signal::Unwatch)
        ];
        prop_oneof![event, watermark, watches]
    }

    proptest! {
        #[test]
        fn a_signal_reads_back(signal in signal()) {
            let mut bytes = Vec::new();
            encode(&signal, &mut bytes);
            prop_assert_eq!(decode(&bytes), Ok(signal));
        }

        #[test]
        fn the_schema_reads_and_writes_what_we_do(signal in signal()) {
            let mut bytes = Vec::new();
            encode(&signal, &mut bytes);
            let schema = schema();
            let mut datum = &bytes[1..];
            let reader = GenericDatumReader::builder(&schema).build().unwrap();
            let value: Value = reader.read_value(&mut datum).unwrap();
            prop_assert!(datum.is_empty());
            let writer = GenericDatumWriter::builder(&schema).build().unwrap();
            prop_assert_eq!(&writer.write_value_to_vec(value).unwrap()[..], &bytes[1..]);
        }

        #[test]
        fn no_bytes_break_the_reader(
            signal in signal(),
            place in any::<prop::sample::Index>(),
            byte in any::<u8>(),
            noise in prop::collection::vec(any::<u8>(), 0..64),
        ) {
            let mut bytes = Vec::new();
            encode(&signal, &mut bytes);
            for length in 0..bytes.len() {
                prop_assert!(decode(&bytes[..length]).is_err());
            }
            let place = place.index(bytes.len());
            bytes[place] = byte;
            let _ = decode(&bytes);
            let _ = decode(&noise);
        }
    }

    #[test]
    fn a_newer_signal_and_trailing_bytes_are_told() {
        assert_eq!(
            decode(&[4, 0]),
            Err(CodecError::TooNew { found: 4, known: 3 })
        );
        let text = decode(b"{}");
        assert!(
            matches!(text, Err(CodecError::Malformed { .. })),
            "{text:?}"
        );
        let mut bytes = Vec::new();
        let watermark = WatermarkParts {
            topic: "t",
            partition: 0,
            partitions: 1,
            clock: "",
            at: Timestamp(7),
        };
        encode_watermark(&watermark, &mut bytes);
        bytes.push(0);
        assert!(matches!(decode(&bytes), Err(CodecError::Malformed { .. })));
    }

    #[test]
    fn keys_name_rule_version_and_values() {
        let mut key = Vec::new();
        put_event_key("fraud", 3, br#"["a",1]"#, &mut key);
        assert_eq!(key, br#"fraud@3/["a",1]"#);
    }
}
