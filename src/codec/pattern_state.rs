//! Entries of `pattern-state` (`schemas/pattern-state.avsc`): one version byte, then Avro.

use super::CodecError;
use super::avro::{Reader, put_bytes, put_count, put_long, put_optional};
use crate::model::Timestamp;

/// Version of the schema that this program writes and reads.
pub const VERSION: u8 = 1;

/// What an entry is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum PatternKey {
    /// A piece of the state of one correlation key.
    State {
        /// `<rule>@<version>`.
        rule: String,
        /// The values of `correlate.by`: the text of a JSON array.
        key: String,
        part: u32,
    },
    /// How far event time has come for a rule.
    Progress { rule: String },
    /// How far event time has come at the sources.
    Sources,
    /// A step waits for the pattern that its rule describes.
    Watch {
        /// `<rule>@<version>`.
        rule: String,
        /// Who waits: the text of a [`TaskId`](crate::model::TaskId).
        attempt: String,
        /// What the events must have: the text of a JSON array.
        key: String,
    },
    /// A piece of a match that waits for the tables which its rule joins.
    Held {
        rule: String,
        /// Of the matches that wait, in the order in which they were found.
        number: u64,
        part: u32,
    },
}

impl PatternKey {
    /// The rule that it is about, as `<rule>@<version>`.
    pub fn rule(&self) -> Option<&str> {
        match self {
            PatternKey::State { rule, .. }
            | PatternKey::Progress { rule }
            | PatternKey::Watch { rule, .. }
            | PatternKey::Held { rule, .. } => Some(rule),
            PatternKey::Sources => None,
        }
    }

    pub fn to_bytes(&self) -> Vec<u8> {
        match self {
            PatternKey::State { rule, key, part } => format!("key/{part}/{rule}/{key}"),
            PatternKey::Progress { rule } => format!("rule/{rule}"),
            PatternKey::Sources => "sources".to_owned(),
            PatternKey::Watch { rule, attempt, key } => format!("watch/{attempt}/{rule}/{key}"),
            PatternKey::Held { rule, number, part } => format!("held/{part}/{number}/{rule}"),
        }
        .into_bytes()
    }

    /// Reads a key; `None` where it is none of ours. Names of rules and runs hold no slash.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok()?;
        match text.split_once('/') {
            None if text == "sources" => Some(PatternKey::Sources),
            Some(("rule", rule)) => Some(PatternKey::Progress {
                rule: rule.to_owned(),
            }),
            Some(("key", rest)) => {
                let (part, rest) = rest.split_once('/')?;
                let (rule, key) = rest.split_once('/')?;
                Some(PatternKey::State {
                    rule: rule.to_owned(),
                    key: key.to_owned(),
                    part: part.parse().ok()?,
                })
            }
            Some(("watch", rest)) => {
                let (attempt, rest) = rest.split_once('/')?;
                let (rule, key) = rest.split_once('/')?;
                Some(PatternKey::Watch {
                    rule: rule.to_owned(),
                    attempt: attempt.to_owned(),
                    key: key.to_owned(),
                })
            }
            Some(("held", rest)) => {
                let (part, rest) = rest.split_once('/')?;
                let (number, rule) = rest.split_once('/')?;
                Some(PatternKey::Held {
                    rule: rule.to_owned(),
                    number: number.parse().ok()?,
                    part: part.parse().ok()?,
                })
            }
            _ => None,
        }
    }
}

/// The value of a [`PatternKey::Watch`]: its key says all.
pub fn encode_watch() -> Vec<u8> {
    vec![VERSION]
}

/// A piece of the state of a key, or of a match that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece<'a> {
    /// Pieces in all where this is the first, else 0.
    pub parts: u32,
    pub state: &'a [u8],
}

/// How far event time has come at one partition of a source topic.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceTime {
    pub topic: String,
    pub partition: i32,
    /// Of the topic.
    pub partitions: i32,
    /// As [`Signal::Watermark`](crate::model::signal::Signal::Watermark) has it.
    pub clock: String,
    pub at: Timestamp,
}

/// Event times of a rule, as a matcher keeps them: watermark, latest, now.
pub type Times = [Option<Timestamp>; 3];

/// Tells what a rule says from what another of its name and version says.
pub type Definition = [u8; 16];

pub fn encode_piece(piece: Piece<'_>) -> Vec<u8> {
    let mut out = Vec::with_capacity(piece.state.len() + 8);
    out.push(VERSION);
    put_long(&mut out, piece.parts.into());
    put_bytes(&mut out, piece.state);
    out
}

/// # Errors
/// Bytes that [`encode_piece`] did not write, or that a newer program wrote.
pub fn decode_piece(bytes: &[u8]) -> Result<Piece<'_>, CodecError> {
    let mut reader = checked(bytes)?;
    Ok(Piece {
        parts: reader.number()?,
        state: reader.bytes()?,
    })
}

pub fn encode_times(times: Times, definition: Definition) -> Vec<u8> {
    let mut out = vec![VERSION];
    for time in times {
        put_optional(&mut out, time, |out, time| put_long(out, time.0));
    }
    put_optional(&mut out, Some(&definition), |out, it| put_bytes(out, it));
    out
}

/// Without a definition where a program wrote it that knew of none.
///
/// # Errors
/// Bytes that [`encode_times`] did not write, or that a newer program wrote.
pub fn decode_times(bytes: &[u8]) -> Result<(Times, Option<Definition>), CodecError> {
    let mut reader = checked(bytes)?;
    let mut times = Times::default();
    for time in &mut times {
        *time = reader.optional(|reader| reader.long().map(Timestamp))?;
    }
    if reader.is_at_end() {
        return Ok((times, None));
    }
    let definition = reader.optional(|reader| {
        let bytes = reader.bytes()?;
        let definition = bytes.try_into();
        definition.map_err(|_| reader.malformed("a definition that is not of 16 bytes"))
    })?;
    Ok((times, definition))
}

pub fn encode_sources(sources: &[SourceTime]) -> Vec<u8> {
    let mut out = vec![VERSION];
    if !sources.is_empty() {
        put_count(&mut out, sources.len());
        for source in sources {
            put_bytes(&mut out, source.topic.as_bytes());
            put_long(&mut out, source.partition.into());
            put_long(&mut out, source.partitions.into());
            put_bytes(&mut out, source.clock.as_bytes());
            put_long(&mut out, source.at.0);
        }
    }
    put_count(&mut out, 0);
    out
}

/// # Errors
/// Bytes that [`encode_sources`] did not write, or that a newer program wrote.
pub fn decode_sources(bytes: &[u8]) -> Result<Vec<SourceTime>, CodecError> {
    let mut reader = checked(bytes)?;
    let mut sources = Vec::new();
    reader.items(|reader| {
        sources.push(SourceTime {
            topic: reader.text()?.to_owned(),
            partition: reader.number()?,
            partitions: reader.number()?,
            clock: reader.text()?.to_owned(),
            at: Timestamp(reader.long()?),
        });
        Ok(())
    })?;
    Ok(sources)
}

/// Whether this program reads what was written.
///
/// # Errors
/// [`CodecError::TooNew`], where a newer program wrote it.
pub fn check_version(bytes: &[u8]) -> Result<(), CodecError> {
    match bytes.first() {
        Some(_) => checked(bytes).map(drop),
        None => Ok(()),
    }
}

fn checked(bytes: &[u8]) -> Result<Reader<'_>, CodecError> {
    let mut reader = Reader::new(bytes);
    match reader.byte()? {
        found if found > VERSION => Err(CodecError::TooNew {
            found,
            known: VERSION,
        }),
        _ => Ok(reader),
    }
}

#[cfg(test)]
mod tests {
    use apache_avro::Schema;
    use apache_avro::reader::datum::GenericDatumReader;

    use super::*;

    fn schemas() -> Vec<Schema> {
        let text = include_str!("../../schemas/pattern-state.avsc");
        let list: Vec<serde_json::Value> = serde_json::from_str(text).expect("JSON");
        let parse = |value: &serde_json::Value| Schema::parse(value).expect("a valid schema");
        list.iter().map(parse).collect()
    }

    fn assert_avro_reads(schema: &Schema, bytes: &[u8]) {
        let reader = GenericDatumReader::builder(schema)
            .build()
            .expect("a reader");
        let mut rest = &bytes[1..];
        reader
            .read_value(&mut rest)
            .expect("it is as the schema says");
        assert!(rest.is_empty());
    }

    #[test]
    fn keys_read_back() {
        for key in [
            PatternKey::State {
                rule: "a.b-c@7".to_owned(),
                key: r#"["x/y",1]"#.to_owned(),
                part: 12,
            },
            PatternKey::Progress {
                rule: "a@1".to_owned(),
            },
            PatternKey::Sources,
            PatternKey::Watch {
                rule: "a:b@2".to_owned(),
                attempt: "run.b.0.1".to_owned(),
                key: r#"["x/y"]"#.to_owned(),
            },
            PatternKey::Held {
                rule: "a.b-c@7".to_owned(),
                number: 40,
                part: 1,
            },
        ] {
            assert_eq!(PatternKey::parse(&key.to_bytes()), Some(key));
        }
        for other in [
            "",
            "key/x/a@1/[]",
            "key/1/a@1",
            "other",
            "sources/1",
            "held/0/a@1",
        ] {
            assert_eq!(PatternKey::parse(other.as_bytes()), None, "{other}");
        }
    }

    #[test]
    fn entries_read_back_and_are_as_their_schemas_say() {
        let schemas = schemas();
        let piece = Piece {
            parts: 3,
            state: b"state",
        };
        let bytes = encode_piece(piece);
        assert_eq!(decode_piece(&bytes), Ok(piece));
        assert_avro_reads(&schemas[0], &bytes);
        let times = [Some(Timestamp(-5)), None, Some(Timestamp(1 << 40))];
        let bytes = encode_times(times, [7; 16]);
        assert_eq!(decode_times(&bytes), Ok((times, Some([7; 16]))));
        assert_avro_reads(&schemas[1], &bytes);
        // As earlier versions wrote it.
        let before = &bytes[..bytes.len() - 18];
        assert_eq!(decode_times(before), Ok((times, None)));
        let source = |partition| SourceTime {
            topic: "prices".to_owned(),
            partition,
            partitions: 2,
            clock: "at".to_owned(),
            at: Timestamp(7),
        };
        for sources in [vec![], vec![source(0), source(1)]] {
            let bytes = encode_sources(&sources);
            assert_eq!(decode_sources(&bytes), Ok(sources));
            assert_avro_reads(&schemas[2], &bytes);
        }
        assert_avro_reads(&schemas[3], &encode_watch());
        let newer = decode_times(&[VERSION + 1, 0, 0, 0]);
        assert!(matches!(newer, Err(CodecError::TooNew { .. })), "{newer:?}");
        assert!(decode_sources(&[VERSION, 4]).is_err());
    }
}
