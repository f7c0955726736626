//! Avro of others: a datum becomes JSON by its schema, without a tree in between. What bytes can
//! ask for is bounded: depth, and the size of what comes out.
//!
//! Logical types: instants are RFC 3339 in UTC with milliseconds (local ones without the `Z`), dates
//! `2026-01-31`, times of day `12:00:00.000`, decimals JSON numbers with all their digits, UUIDs
//! text, durations `{"months","days","millis"}`. Bytes are base64; numbers that JSON lacks (NaN,
//! infinities) are null.

use std::collections::HashMap;

use apache_avro::Schema;
use apache_avro::rabin::Rabin;
use apache_avro::schema::{InnerDecimalSchema, Name, UuidSchema};

use super::text;
use crate::codec::CodecError;
use crate::codec::avro::Reader;
use crate::model::Timestamp;

/// How deep a datum may nest.
const MAX_DEPTH: usize = 64;

/// A schema, ready to be read by.
#[derive(Debug)]
pub struct AvroSchema {
    /// The first is the whole.
    nodes: Vec<Node>,
    fingerprint: [u8; 8],
}

/// Why there is no schema to read by.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct SchemaError(pub String);

/// Why a datum cannot be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DatumError {
    #[error("the Avro datum does not go by its schema: {0}")]
    Malformed(#[from] CodecError),
    #[error("the Avro datum nests deeper than {MAX_DEPTH} levels")]
    TooDeep,
    #[error("the Avro datum gives more than {0} bytes of JSON")]
    TooLarge(usize),
}

type Place = usize;

#[derive(Debug)]
enum Node {
    Null,
    Boolean,
    Integer,
    Float,
    Double,
    Bytes,
    Text,
    Fixed(usize),
    Enum(Vec<String>),
    Array(Place),
    Map(Place),
    Union(Vec<Place>),
    Record(Vec<(String, Place)>),
    Decimal { scale: u32, size: Option<usize> },
    BigDecimal,
    Uuid { size: Option<usize> },
    Date,
    TimeOfDay { per_milli: i64 },
    Instant { per_milli: i64, is_local: bool },
    Duration,
}

impl AvroSchema {
    /// Reads a schema in its JSON form.
    ///
    /// # Errors
    /// Text that is no schema, or one whose values are no objects.
    pub fn parse(schema: &str) -> Result<Self, SchemaError> {
        let parsed = Schema::parse_str(schema)
            .map_err(|error| SchemaError(format!("this is no Avro schema: {error}")))?;
        let mut builder = Builder::default();
        let top = builder.add(&parsed)?;
        if !matches!(builder.nodes[top], Node::Record(_) | Node::Map(_)) {
            return Err(SchemaError(
                "an event is a record or a map, and the schema describes something else".to_owned(),
            ));
        }
        let bytes = parsed.fingerprint::<Rabin>().bytes.clone();
        let fingerprint = bytes
            .as_slice()
            .try_into()
            .map_err(|_| SchemaError("the fingerprint is not of 8 bytes".to_owned()))?;
        Ok(Self {
            nodes: builder.nodes,
            fingerprint,
        })
    }

    /// CRC-64-AVRO of the canonical form, as it stands in single-object encoding.
    pub fn fingerprint(&self) -> [u8; 8] {
        self.fingerprint
    }

    /// The datum as the text of a JSON object.
    ///
    /// # Errors
    /// Bytes that do not go by the schema, that nest too deep, or that give more than `max_bytes`.
    pub fn to_json(&self, datum: &[u8], max_bytes: usize) -> Result<String, DatumError> {
        let mut writer = Writer {
            nodes: &self.nodes,
            reader: Reader::new(datum),
            out: String::with_capacity(2 * datum.len().min(max_bytes)),
            max_bytes,
        };
        writer.value(0, 0)?;
        if !writer.reader.is_at_end() {
            let error = writer.reader.malformed("more bytes than the schema says");
            return Err(error.into());
        }
        Ok(writer.out)
    }
}

#[derive(Default)]
struct Builder {
    nodes: Vec<Node>,
    named: HashMap<String, Place>,
}

impl Builder {
    fn add(&mut self, schema: &Schema) -> Result<Place, SchemaError> {
        if let Schema::Ref { name } = schema {
            let known = self.named.get(&full(name)).copied();
            return known.ok_or_else(|| {
                SchemaError(format!(
                    "the schema refers to `{}`, which it does not describe",
                    full(name)
                ))
            });
        }
        let place = self.nodes.len();
        self.nodes.push(Node::Null);
        if let Some(name) = schema.name() {
            self.named.insert(full(name), place);
        }
        self.nodes[place] = self.node(schema)?;
        Ok(place)
    }

    fn node(&mut self, schema: &Schema) -> Result<Node, SchemaError> {
        let instant = |per_milli, is_local| Node::Instant {
            per_milli,
            is_local,
        };
        Ok(match schema {
            Schema::Null | Schema::Ref { .. } => Node::Null,
            Schema::Boolean => Node::Boolean,
            Schema::Int | Schema::Long => Node::Integer,
            Schema::Float => Node::Float,
            Schema::Double => Node::Double,
            Schema::Bytes => Node::Bytes,
            Schema::String | Schema::Uuid(UuidSchema::String) => Node::Text,
            Schema::Array(array) => Node::Array(self.add(&array.items)?),
            Schema::Map(map) => Node::Map(self.add(&map.types)?),
            Schema::Union(union) => {
                let variants = union.variants().iter().map(|variant| self.add(variant));
                Node::Union(variants.collect::<Result<_, _>>()?)
            }
            Schema::Record(record) => {
                let mut fields = Vec::with_capacity(record.fields.len());
                for field in &record.fields {
                    fields.push((field.name.clone(), self.add(&field.schema)?));
                }
                Node::Record(fields)
            }
            Schema::Enum(members) => Node::Enum(members.symbols.clone()),
            Schema::Fixed(fixed) => Node::Fixed(fixed.size),
            Schema::Decimal(decimal) => Node::Decimal {
                scale: u32::try_from(decimal.scale)
                    .map_err(|_| SchemaError("a decimal's scale is out of range".to_owned()))?,
                size: match &decimal.inner {
                    InnerDecimalSchema::Bytes => None,
                    InnerDecimalSchema::Fixed(fixed) => Some(fixed.size),
                },
            },
            Schema::BigDecimal => Node::BigDecimal,
            Schema::Uuid(UuidSchema::Bytes) => Node::Uuid { size: None },
            Schema::Uuid(UuidSchema::Fixed(fixed)) => Node::Uuid {
                size: Some(fixed.size),
            },
            Schema::Date => Node::Date,
            Schema::TimeMillis => Node::TimeOfDay { per_milli: 1 },
            Schema::TimeMicros => Node::TimeOfDay { per_milli: 1_000 },
            Schema::TimestampMillis => instant(1, false),
            Schema::TimestampMicros => instant(1_000, false),
            Schema::TimestampNanos => instant(1_000_000, false),
            Schema::LocalTimestampMillis => instant(1, true),
            Schema::LocalTimestampMicros => instant(1_000, true),
            Schema::LocalTimestampNanos => instant(1_000_000, true),
            Schema::Duration(_) => Node::Duration,
        })
    }
}

/// Whether RFC 3339 has a word for it: years 0 to 9999. Others stay numbers.
fn is_shown(at: Timestamp) -> bool {
    (-62_167_219_200_000..=253_402_300_799_999).contains(&at.0)
}

fn full(name: &Name) -> String {
    name.fullname(None)
}

struct Writer<'a> {
    nodes: &'a [Node],
    reader: Reader<'a>,
    out: String,
    max_bytes: usize,
}

impl Writer<'_> {
    fn value(&mut self, place: Place, depth: usize) -> Result<(), DatumError> {
        if depth > MAX_DEPTH {
            return Err(DatumError::TooDeep);
        }
        let nodes = self.nodes;
        match &nodes[place] {
            Node::Null => self.out.push_str("null"),
            Node::Boolean => {
                let value = self.reader.boolean()?;
                self.out.push_str(if value { "true" } else { "false" });
            }
            Node::Integer => {
                let value = self.reader.long()?;
                text::integer(&mut self.out, value);
            }
            Node::Float => {
                let bytes = self.reader.take(4)?.try_into().expect("four bytes");
                text::float32(&mut self.out, f32::from_le_bytes(bytes));
            }
            Node::Double => {
                let value = self.reader.double()?;
                text::float64(&mut self.out, value);
            }
            Node::Bytes => {
                let bytes = self.reader.bytes()?;
                text::base64(&mut self.out, bytes);
            }
            Node::Fixed(size) => {
                let bytes = self.reader.take(*size)?;
                text::base64(&mut self.out, bytes);
            }
            Node::Text => {
                let value = self.reader.text()?;
                text::string(&mut self.out, value);
            }
            Node::Enum(symbols) => {
                let place: usize = self.reader.number()?;
                let symbol = symbols.get(place);
                let symbol =
                    symbol.ok_or_else(|| self.reader.malformed("an unknown symbol of an enum"))?;
                text::string(&mut self.out, symbol);
            }
            Node::Union(variants) => {
                let place: usize = self.reader.number()?;
                let variant = variants.get(place);
                let variant =
                    variant.ok_or_else(|| self.reader.malformed("an unknown branch of a union"))?;
                self.value(*variant, depth + 1)?;
            }
            Node::Record(fields) => {
                self.out.push('{');
                for (number, (name, place)) in fields.iter().enumerate() {
                    if number > 0 {
                        self.out.push(',');
                    }
                    text::string(&mut self.out, name);
                    self.out.push(':');
                    self.value(*place, depth + 1)?;
                }
                self.out.push('}');
            }
            Node::Array(items) => self.items('[', ']', *items, false, depth)?,
            Node::Map(values) => self.items('{', '}', *values, true, depth)?,
            logical => self.logical(logical)?,
        }
        if self.out.len() > self.max_bytes {
            return Err(DatumError::TooLarge(self.max_bytes));
        }
        Ok(())
    }

    fn items(
        &mut self,
        open: char,
        close: char,
        place: Place,
        has_names: bool,
        depth: usize,
    ) -> Result<(), DatumError> {
        self.out.push(open);
        let mut is_first = true;
        loop {
            let count = self.reader.long()?;
            if count == 0 {
                break;
            }
            if count < 0 {
                // A negative count is followed by the block's size in bytes.
                self.reader.long()?;
            }
            // Each item writes at least a byte, so a count out of proportion ends at the bound.
            for _ in 0..count.unsigned_abs() {
                if !std::mem::take(&mut is_first) {
                    self.out.push(',');
                }
                if has_names {
                    let name = self.reader.text()?;
                    text::string(&mut self.out, name);
                    self.out.push(':');
                }
                self.value(place, depth + 1)?;
            }
        }
        self.out.push(close);
        Ok(())
    }

    fn logical(&mut self, node: &Node) -> Result<(), DatumError> {
        match node {
            Node::Decimal { scale, size } => {
                let bytes = match size {
                    Some(size) => self.reader.take(*size)?,
                    None => self.reader.bytes()?,
                };
                self.decimal(bytes, *scale)?;
            }
            Node::BigDecimal => {
                let mut inner = Reader::new(self.reader.bytes()?);
                let bytes = inner.bytes()?;
                let scale = inner.number()?;
                self.decimal(bytes, scale)?;
            }
            Node::Uuid { size } => {
                let bytes = match size {
                    Some(size) => self.reader.take(*size)?,
                    None => self.reader.bytes()?,
                };
                let uuid = uuid::Uuid::from_slice(bytes)
                    .map_err(|_| self.reader.malformed("a UUID that is not of 16 bytes"))?;
                text::string(&mut self.out, &uuid.hyphenated().to_string());
            }
            Node::Date => {
                let days = self.reader.long()?;
                let at = Timestamp(days.saturating_mul(86_400_000));
                match is_shown(at) {
                    true => {
                        let at = at.to_string();
                        text::string(&mut self.out, at.split('T').next().unwrap_or_default());
                    }
                    false => text::integer(&mut self.out, days),
                }
            }
            Node::TimeOfDay { per_milli } => {
                let at = Timestamp(self.reader.long()?.div_euclid(*per_milli)).to_string();
                let time = at.split('T').nth(1).unwrap_or_default();
                text::string(&mut self.out, time.trim_end_matches('Z'));
            }
            Node::Instant {
                per_milli,
                is_local,
            } => {
                let at = Timestamp(self.reader.long()?.div_euclid(*per_milli));
                if !is_shown(at) {
                    text::integer(&mut self.out, at.0);
                    return Ok(());
                }
                let at = at.to_string();
                let shown = if *is_local {
                    at.trim_end_matches('Z')
                } else {
                    &at
                };
                text::string(&mut self.out, shown);
            }
            Node::Duration => {
                let bytes = self.reader.take(12)?;
                let (parts, _) = bytes.as_chunks::<4>();
                for (part, name) in parts
                    .iter()
                    .zip(["{\"months\":", ",\"days\":", ",\"millis\":"])
                {
                    self.out.push_str(name);
                    text::integer(&mut self.out, u32::from_le_bytes(*part).into());
                }
                self.out.push('}');
            }
            _ => {}
        }
        Ok(())
    }

    fn decimal(&mut self, bytes: &[u8], scale: u32) -> Result<(), DatumError> {
        if !text::decimal(&mut self.out, bytes, scale) {
            let error = self.reader.malformed("a decimal of more than 38 digits");
            return Err(error.into());
        }
        Ok(())
    }
}
