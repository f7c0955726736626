//! The part of a run's entry that says where the run comes from. Records that one step took from
//! one topic stand together: a match of a hundred is a few hundred bytes in every entry of its run.

use super::CodecError;
use super::avro::{Reader, put_bytes, put_count, put_long};
use crate::model::{Contributor, Json, Provenance, Timestamp};

pub(super) fn put(out: &mut Vec<u8>, provenance: &Provenance) {
    put_bytes(out, provenance.rule.as_bytes());
    put_bytes(out, provenance.key.as_str().as_bytes());
    put_long(out, provenance.at.0);
    put_long(out, provenance.depth.into());
    let is_together = |a: &Contributor, b: &Contributor| (&a.step, &a.topic) == (&b.step, &b.topic);
    let groups = || provenance.events.chunk_by(is_together);
    if !provenance.events.is_empty() {
        put_count(out, groups().count());
        for group in groups() {
            put_bytes(out, group[0].step.as_bytes());
            put_bytes(out, group[0].topic.as_bytes());
            put_count(out, group.len());
            for event in group {
                put_long(out, event.partition.into());
                put_long(out, event.offset);
            }
            put_count(out, 0);
        }
    }
    put_count(out, 0);
    put_long(out, provenance.more.cast_signed());
}

pub(super) fn read(reader: &mut Reader<'_>) -> Result<Provenance, CodecError> {
    let rule = reader.text()?.to_owned();
    let key = reader.text()?;
    let key = Json::from_text(key).map_err(|_| reader.malformed("a text that is not JSON"))?;
    let (at, depth) = (Timestamp(reader.long()?), reader.number()?);
    let mut events = Vec::new();
    reader.items(|reader| {
        let (step, topic) = (reader.text()?, reader.text()?);
        reader.items(|reader| {
            events.push(Contributor {
                step: step.to_owned(),
                topic: topic.to_owned(),
                partition: reader.number()?,
                offset: reader.long()?,
            });
            Ok(())
        })
    })?;
    let more = reader.long()?.cast_unsigned();
    Ok(Provenance {
        rule,
        key,
        at,
        depth,
        events,
        more,
    })
}
