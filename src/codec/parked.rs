//! The entry of a reply that waits for its run: when it is due, and the record it came in, from
//! which the reply is read again.

use super::avro::{Reader, put_bytes, put_count, put_long, put_optional};
use super::{CodecError, header, input};
use crate::model::Timestamp;
use crate::model::{Origin, Parked};

const VERSION: u8 = 1;

pub fn encode(parked: &Parked) -> Vec<u8> {
    let origin = &parked.origin;
    let mut out = vec![VERSION];
    put_long(&mut out, parked.due.0);
    put_bytes(&mut out, origin.topic.as_bytes());
    put_long(&mut out, origin.partition.into());
    put_long(&mut out, origin.offset);
    for part in [&origin.key, &origin.value] {
        put_optional(&mut out, part.as_ref(), |out, bytes| put_bytes(out, bytes));
    }
    if !origin.headers.is_empty() {
        put_count(&mut out, origin.headers.len());
        for (name, value) in &origin.headers {
            put_bytes(&mut out, name.as_bytes());
            put_bytes(&mut out, value);
        }
    }
    put_count(&mut out, 0);
    out
}

pub fn decode(bytes: &[u8]) -> Result<Parked, CodecError> {
    let mut reader = Reader::new(bytes);
    let version = reader.byte()?;
    if version > VERSION {
        return Err(CodecError::TooNew {
            found: version,
            known: VERSION,
        });
    }
    let due = Timestamp(reader.long()?);
    let topic = reader.text()?.to_owned();
    let partition = reader.number()?;
    let offset = reader.long()?;
    let key = reader.optional(|reader| reader.bytes().map(<[u8]>::to_vec))?;
    let value = reader.optional(|reader| reader.bytes().map(<[u8]>::to_vec))?;
    let mut headers = Vec::new();
    reader.items(|reader| {
        headers.push((reader.text()?.to_owned(), reader.bytes()?.to_vec()));
        Ok(())
    })?;
    let origin = Origin {
        topic,
        partition,
        offset,
        key,
        value,
        headers,
    };
    let content_type = origin
        .headers
        .iter()
        .find(|(name, _)| name == header::CONTENT_TYPE);
    let content_type = content_type.map(|(_, value)| value.as_slice());
    let reply = input::reply(origin.key.as_deref(), origin.value.as_deref(), content_type)
        .map_err(|_| reader.malformed("a reply that cannot be read"))?;
    Ok(Parked { reply, due, origin })
}
