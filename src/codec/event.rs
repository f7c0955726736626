//! Records of users' event topics: CloudEvents (binary and structured), plain JSON, and Avro, bare
//! of any envelope or as the data of a CloudEvent in binary mode. The bytes decide where headers
//! are silent: Avro's single-object marker, the zero byte of schema registries, else JSON.

pub mod avro;
mod text;

#[cfg(test)]
mod tests;

use std::sync::Arc;

pub use avro::{AvroSchema, SchemaError};

use super::header;
use super::input::{MALFORMED, Unreadable};
use crate::model::cloud_event::{Attributes, Structured};
use crate::model::{Json, Timestamp, class};

/// A record as it came.
#[derive(Clone, Copy, Debug)]
pub struct RawEvent<'a> {
    pub value: Option<&'a [u8]>,
    pub headers: &'a [(String, Vec<u8>)],
    /// The record's own timestamp.
    pub timestamp: Option<Timestamp>,
}

/// What rules see of a record.
#[derive(Clone, Debug, PartialEq)]
pub struct DecodedEvent {
    /// An object. Of a CloudEvent its data, with the attributes under `ce`.
    pub payload: Json,
    /// Of a CloudEvent.
    pub attributes: Option<Attributes>,
    /// The `time` of a CloudEvent, else the record's timestamp.
    pub at: Option<Timestamp>,
}

/// How the value that a registry's id names is written.
#[derive(Clone, Debug)]
pub enum WriterSchema {
    Avro(Arc<AvroSchema>),
    /// JSON Schema: JSON stands behind the id.
    Json,
}

/// Why the schema of a record is not at hand.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoSchema {
    /// It will not be there later either: the record is a dead letter, with this sentence.
    #[error("{0}")]
    Refused(String),
    /// Whoever knows it does not answer now: the record is to be read again.
    #[error("{0}")]
    Unavailable(String),
}

/// Who knows the schemas of others.
pub trait Schemas {
    /// The schema of a registry's id.
    ///
    /// # Errors
    /// See [`NoSchema`].
    fn by_id(&self, id: u32) -> Result<WriterSchema, NoSchema>;

    /// The schema with this CRC-64-AVRO fingerprint, as it stands in single-object encoding.
    ///
    /// # Errors
    /// See [`NoSchema`].
    fn by_fingerprint(&self, fingerprint: [u8; 8]) -> Result<Arc<AvroSchema>, NoSchema>;
}

/// Why a record is no event.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// A dead letter.
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
    /// To be tried again: nothing is known about the record yet.
    #[error("{0}")]
    Unavailable(String),
}

fn unreadable(message: impl Into<String>) -> Refused {
    Refused::Unreadable(super::input::unreadable(message))
}

/// Reads a record; `None`: a tombstone, which tells of no event. The payload is at most
/// `max_bytes` of JSON.
///
/// # Errors
/// See [`Refused`].
pub fn decode(
    record: &RawEvent<'_>,
    schemas: &dyn Schemas,
    max_bytes: usize,
) -> Result<Option<DecodedEvent>, Refused> {
    let decoded = read(record, schemas, max_bytes)?;
    match &decoded {
        Some(event) if event.payload.len() > max_bytes => Err(too_large(format!(
            "the event has {} bytes of JSON; runtime.max_payload_bytes allows {max_bytes}",
            event.payload.len()
        ))),
        _ => Ok(decoded),
    }
}

fn read(
    record: &RawEvent<'_>,
    schemas: &dyn Schemas,
    max_bytes: usize,
) -> Result<Option<DecodedEvent>, Refused> {
    let media = media_type(record.headers);
    if let Some(format) = media.strip_prefix("application/cloudevents") {
        return structured(record, format).map(Some);
    }
    let attributes = binary_attributes(record.headers);
    let Some(value) = record.value else {
        return Ok(attributes.map(|attributes| cloud_event(attributes, None, record.timestamp)));
    };
    let data = data(value, &media, schemas, max_bytes)?;
    if let Some(attributes) = attributes {
        return Ok(Some(cloud_event(attributes, Some(&data), record.timestamp)));
    }
    if let Some(envelope) = Structured::read(data.as_str()) {
        return opened(&envelope, record.timestamp).map(Some);
    }
    Ok(Some(DecodedEvent {
        payload: data,
        attributes: None,
        at: record.timestamp,
    }))
}

fn structured(record: &RawEvent<'_>, format: &str) -> Result<DecodedEvent, Refused> {
    if format != "+json" {
        return Err(unreadable(format!(
            "content-type is application/cloudevents{format}; of structured CloudEvents only \
             application/cloudevents+json is read"
        )));
    }
    let value = record
        .value
        .ok_or_else(|| unreadable("a structured CloudEvent without a value"))?;
    let text = utf8(value)?;
    let json = Json::from_text(text).map_err(|error| no_json(&error))?;
    let envelope = Structured::read(json.as_str()).ok_or_else(|| {
        unreadable("content-type says CloudEvent, and `specversion` or `type` is missing")
    })?;
    opened(&envelope, record.timestamp)
}

fn opened(envelope: &Structured, recorded: Option<Timestamp>) -> Result<DecodedEvent, Refused> {
    match &envelope.data {
        Some(data) => {
            check_object(data)?;
        }
        None if envelope.has_base64 => {
            return Err(unreadable(
                "the CloudEvent carries `data_base64`, which rules cannot look into; send the data \
                 as JSON in `data`, or in binary mode",
            ));
        }
        None => {}
    }
    Ok(cloud_event(
        envelope.attributes.clone(),
        envelope.data.as_ref(),
        recorded,
    ))
}

fn cloud_event(
    attributes: Attributes,
    data: Option<&Json>,
    recorded: Option<Timestamp>,
) -> DecodedEvent {
    DecodedEvent {
        payload: match data {
            Some(data) => attributes.beside(data),
            None => attributes.alone(),
        },
        at: attributes.time.or(recorded),
        attributes: Some(attributes),
    }
}

/// The attributes in headers `ce_<name>`; none where the record is no CloudEvent in binary mode.
fn binary_attributes(headers: &[(String, Vec<u8>)]) -> Option<Attributes> {
    let mut attributes = Attributes::default();
    let mut is_event = false;
    for (name, value) in headers {
        let Some(name) = name.strip_prefix("ce_") else {
            continue;
        };
        is_event |= matches!(name, "specversion" | "type");
        if let Ok(value) = std::str::from_utf8(value) {
            attributes.set(name, value);
        }
    }
    is_event.then_some(attributes)
}

/// The media type without its parameters, in lower case; empty where there is none.
fn media_type(headers: &[(String, Vec<u8>)]) -> String {
    let found = headers
        .iter()
        .find(|(name, _)| name.eq_ignore_ascii_case(header::CONTENT_TYPE));
    let text = found.map_or(&[][..], |(_, value)| value.as_slice());
    let text = String::from_utf8_lossy(text);
    let media = text.split(';').next().unwrap_or_default();
    media.trim().to_ascii_lowercase()
}

fn data(
    value: &[u8],
    media: &str,
    schemas: &dyn Schemas,
    max_bytes: usize,
) -> Result<Json, Refused> {
    let data = match value {
        // Avro's single-object encoding; no JSON begins like this, nor with the next.
        [0xc3, 0x01, rest @ ..] => {
            let (fingerprint, datum) = rest.split_first_chunk::<8>().ok_or_else(|| {
                unreadable("Avro in single-object encoding that ends in its head")
            })?;
            let schema = schemas.by_fingerprint(*fingerprint)?;
            from_avro(&schema, datum, max_bytes)?
        }
        // The wire format of schema registries.
        [0, rest @ ..] => {
            let (id, datum) = rest.split_first_chunk::<4>().ok_or_else(|| {
                unreadable("the first byte is that of a schema registry, and no schema id follows")
            })?;
            match schemas.by_id(u32::from_be_bytes(*id))? {
                WriterSchema::Avro(schema) => from_avro(&schema, datum, max_bytes)?,
                WriterSchema::Json => {
                    Json::from_text(utf8(datum)?).map_err(|error| no_json(&error))?
                }
            }
        }
        _ if media.contains("avro") => {
            return Err(unreadable(format!(
                "content-type is {media}, and the value has neither the head of Avro's \
                 single-object encoding nor the schema id of a registry: nothing says which schema \
                 it goes by"
            )));
        }
        json => Json::from_text(utf8(json)?).map_err(|error| match media {
            "" | "application/json" => no_json(&error),
            media => unreadable(format!("content-type is {media}; events are JSON or Avro")),
        })?,
    };
    check_object(&data)?;
    Ok(data)
}

fn from_avro(schema: &AvroSchema, datum: &[u8], max_bytes: usize) -> Result<Json, Refused> {
    let text = schema
        .to_json(datum, max_bytes)
        .map_err(|error| match error {
            avro::DatumError::TooLarge(_) => too_large(format!(
                "the event has more than {max_bytes} bytes as JSON, which runtime.max_payload_bytes \
                 allows"
            )),
            error => unreadable(error.to_string()),
        })?;
    Json::from_text(&text).map_err(|error| no_json(&error))
}

fn check_object(data: &Json) -> Result<(), Refused> {
    let found = match data.as_str().as_bytes().first() {
        Some(b'{') => return Ok(()),
        Some(b'[') => "a list",
        Some(b'"') => "a text",
        Some(b't' | b'f') => "a boolean",
        Some(b'n') => "null",
        _ => "a number",
    };
    Err(unreadable(format!(
        "an event is a JSON object, and this is {found}"
    )))
}

fn utf8(value: &[u8]) -> Result<&str, Refused> {
    std::str::from_utf8(value).map_err(|error| {
        unreadable(format!(
            "the value is neither Avro nor JSON: byte {} is not UTF-8",
            error.valid_up_to()
        ))
    })
}

fn no_json(error: &serde_json::Error) -> Refused {
    unreadable(format!("the value is no JSON: {error}"))
}

fn too_large(message: String) -> Refused {
    Refused::Unreadable(Unreadable {
        class: class::PAYLOAD_TOO_LARGE,
        message,
    })
}

impl From<NoSchema> for Refused {
    fn from(error: NoSchema) -> Self {
        match error {
            NoSchema::Refused(message) => Refused::Unreadable(Unreadable {
                class: MALFORMED,
                message,
            }),
            NoSchema::Unavailable(message) => Refused::Unavailable(message),
        }
    }
}
