//! The whole state as bytes, and back: what a restart begins with, so that it need not replay everything.

use std::sync::Arc;

use super::codec::{CodecError, Decoder, Encoder};
use super::event::{decode_offset, encode_offsets};
use super::index::Entry;
use super::offsets::{Committed, GroupOffsets};
use super::partition::{Aborted, Partition};
use super::producer::{Producer, WrittenBatch};
use super::settings::TopicSettings;
use super::transaction::{Phase, Transaction};
use super::{State, Topic};

impl State {
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let mut to = Encoder(out);
        to.u32(self.next_partition);
        to.i64(self.next_producer_id);
        to.count(self.topics.len());
        for topic in self.topics.values() {
            to.text(&topic.name);
            to.uuid(topic.id);
            to.texts(&topic.configs);
            to.count(topic.partitions.len());
            for id in &topic.partitions {
                encode_partition(&mut to, &self.partitions[id]);
            }
        }
        to.count(self.transactions.len());
        for (name, transaction) in &self.transactions {
            to.text(name);
            encode_transaction(&mut to, transaction);
        }
        to.count(self.groups.len());
        for (name, group) in &self.groups {
            to.text(name);
            encode_group(&mut to, group);
        }
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<State, CodecError> {
        let mut from = Decoder(bytes);
        let mut state = State {
            next_partition: from.u32()?,
            next_producer_id: from.i64()?,
            ..State::default()
        };
        let topics = from.list(|from| {
            let (name, id, configs): (Arc<str>, _, _) =
                (from.text()?.into(), from.uuid()?, from.texts()?);
            let mut index = 0;
            let partitions = from.list(|from| {
                let partition = decode_partition(from, name.clone(), index);
                index += 1;
                partition
            })?;
            Ok((name, id, configs, partitions))
        })?;
        for (name, id, configs, partitions) in topics {
            state.names_by_id.insert(id, name.to_string());
            let ids = partitions.iter().map(|partition| partition.id).collect();
            state.touched.extend(&ids);
            let settings = TopicSettings::from_configs(&configs);
            state.topics.insert(
                name.to_string(),
                Topic {
                    name,
                    id,
                    partitions: ids,
                    configs,
                    settings,
                },
            );
            state.partitions.extend(
                partitions
                    .into_iter()
                    .map(|partition| (partition.id, partition)),
            );
        }
        for (name, transaction) in
            from.list(|from| Ok((from.text()?, decode_transaction(from)?)))?
        {
            state
                .transactional_ids
                .insert(transaction.producer_id, name.clone());
            state.transactions.insert(name, transaction);
        }
        state.groups = from
            .list(|from| Ok((from.text()?, decode_group(from)?)))?
            .into_iter()
            .collect();
        from.end()?;
        Ok(state)
    }
}

fn encode_partition(to: &mut Encoder<'_>, partition: &Partition) {
    to.u32(partition.id);
    to.i64(partition.log_start);
    to.i64(partition.log_end);
    to.i64(partition.compacted_to);
    to.i64(partition.tombstones_until);
    to.count(partition.entries.len());
    for entry in &partition.entries {
        entry.to_words().into_iter().for_each(|word| to.u64(word));
    }
    to.count(partition.producers.len());
    // In order, so that equal states have equal bytes.
    let mut producers: Vec<_> = partition.producers.iter().collect();
    producers.sort_unstable_by_key(|(id, _)| **id);
    for (id, producer) in producers {
        to.i64(*id);
        to.i16(producer.epoch);
        to.i64(producer.seen_at);
        to.i64(producer.transaction_start.unwrap_or(-1));
        to.count(producer.batches.len());
        for batch in &producer.batches {
            to.i32(batch.base_sequence);
            to.i32(batch.last_sequence);
            to.i64(batch.base_offset);
            to.i64(batch.timestamp);
        }
    }
    to.count(partition.aborted.len());
    for aborted in &partition.aborted {
        to.i64(aborted.producer_id);
        to.i64(aborted.first_offset);
        to.i64(aborted.last_offset);
    }
}

fn decode_partition(
    from: &mut Decoder<'_>,
    topic: Arc<str>,
    index: i32,
) -> Result<Partition, CodecError> {
    let mut partition = Partition::new(from.u32()?, topic, index);
    partition.log_start = from.i64()?;
    partition.log_end = from.i64()?;
    partition.compacted_to = from.i64()?;
    partition.tombstones_until = from.i64()?;
    partition.entries = from.list(|from| {
        Ok(Entry::from_words([
            from.u64()?,
            from.u64()?,
            from.u64()?,
            from.u64()?,
        ]))
    })?;
    partition.bytes = partition
        .entries
        .iter()
        .map(|entry| entry.read_bytes() as u64)
        .sum();
    let producers = from.list(|from| {
        let id = from.i64()?;
        let mut producer = Producer::new(from.i16()?, from.i64()?);
        producer.transaction_start = Some(from.i64()?).filter(|offset| *offset >= 0);
        let batch = |from: &mut Decoder<'_>| {
            Ok(WrittenBatch {
                base_sequence: from.i32()?,
                last_sequence: from.i32()?,
                base_offset: from.i64()?,
                timestamp: from.i64()?,
            })
        };
        producer.batches = from.list(batch)?.into();
        Ok((id, producer))
    })?;
    let opened = producers
        .iter()
        .filter_map(|(id, producer)| Some((producer.transaction_start?, *id)));
    partition.open = opened.collect();
    partition.producers = producers.into_iter().collect();
    partition.aborted = from.list(|from| {
        Ok(Aborted {
            producer_id: from.i64()?,
            first_offset: from.i64()?,
            last_offset: from.i64()?,
            later_begin_at: 0,
        })
    })?;
    partition.bound_aborted();
    Ok(partition)
}

fn encode_transaction(to: &mut Encoder<'_>, transaction: &Transaction) {
    to.i64(transaction.producer_id);
    to.i16(transaction.epoch);
    to.i16(transaction.timed_out_epoch.unwrap_or(-1));
    to.i32(transaction.timeout_ms);
    to.i64(transaction.changed_at);
    match &transaction.phase {
        Phase::Empty { renews: None } => to.u8(0),
        Phase::Empty {
            renews: Some((producer_id, epoch)),
        } => {
            to.u8(3);
            to.i64(*producer_id);
            to.i16(*epoch);
        }
        Phase::Open {
            since,
            partitions,
            groups,
        } => {
            to.u8(1);
            to.i64(*since);
            to.count(partitions.len());
            partitions.iter().for_each(|partition| to.u32(*partition));
            to.count(groups.len());
            groups.iter().for_each(|group| to.text(group));
        }
        Phase::Ended { committed } => {
            to.u8(2);
            to.bool(*committed);
        }
    }
}

fn decode_transaction(from: &mut Decoder<'_>) -> Result<Transaction, CodecError> {
    Ok(Transaction {
        producer_id: from.i64()?,
        epoch: from.i16()?,
        timed_out_epoch: Some(from.i16()?).filter(|epoch| *epoch >= 0),
        timeout_ms: from.i32()?,
        changed_at: from.i64()?,
        phase: match from.u8()? {
            0 => Phase::Empty { renews: None },
            1 => Phase::Open {
                since: from.i64()?,
                partitions: from.list(Decoder::u32)?.into_iter().collect(),
                groups: from.list(Decoder::text)?.into_iter().collect(),
            },
            2 => Phase::Ended {
                committed: from.bool()?,
            },
            3 => Phase::Empty {
                renews: Some((from.i64()?, from.i16()?)),
            },
            value => {
                return Err(CodecError::Unknown {
                    what: "phase of a transaction",
                    value,
                });
            }
        },
    })
}

fn encode_group(to: &mut Encoder<'_>, group: &GroupOffsets) {
    to.i64(group.changed_at);
    to.count(group.committed.len());
    for (topic, partitions) in &group.committed {
        to.text(topic);
        to.count(partitions.len());
        for (partition, committed) in partitions {
            to.i32(*partition);
            committed.encode(to);
        }
    }
    let pending: Vec<_> = group.pending().collect();
    to.count(pending.len());
    for (producer_id, entry) in pending {
        to.i64(producer_id);
        encode_offsets(to, &[entry]);
    }
}

fn decode_group(from: &mut Decoder<'_>) -> Result<GroupOffsets, CodecError> {
    let changed_at = from.i64()?;
    let committed = from.list(|from| {
        let topic = from.text()?;
        let partitions = from.list(|from| Ok((from.i32()?, Committed::decode(from)?)))?;
        Ok((topic, partitions.into_iter().collect()))
    })?;
    let mut group = GroupOffsets {
        committed: committed.into_iter().collect(),
        changed_at,
        ..GroupOffsets::default()
    };
    for (producer_id, offsets) in from.list(|from| Ok((from.i64()?, from.list(decode_offset)?)))? {
        group.keep(producer_id, offsets);
    }
    Ok(group)
}
