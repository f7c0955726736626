//! The closed list of what can happen to the broker's state, and the bytes of each in the log.

use std::collections::BTreeMap;

use uuid::Uuid;

use super::codec::{CodecError, Decoder, Encoder};
use super::offsets::Committed;
use crate::batch::BatchHeader;
use crate::wal::Place;

/// The number by which the log names a partition: given out once, never reused.
pub(crate) type PartitionId = u32;

/// An offset of a group in a partition of a topic, by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OffsetEntry {
    pub(crate) topic: String,
    pub(crate) partition: i32,
    pub(crate) committed: Committed,
}

/// One thing that happened. The instant (milliseconds since the epoch) travels beside it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Event {
    /// A batch of records, at `place`, whose base offset is the partition's end.
    BatchAppended {
        partition: PartitionId,
        header: BatchHeader,
        place: Place,
    },
    TopicCreated {
        name: String,
        id: Uuid,
        partitions: i32,
        configs: BTreeMap<String, String>,
    },
    TopicDeleted {
        name: String,
    },
    /// The topic now has `total` partitions.
    PartitionsAdded {
        name: String,
        total: i32,
    },
    /// These are now all the settings of the topic that differ from the defaults.
    TopicConfigured {
        name: String,
        configs: BTreeMap<String, String>,
    },
    /// An idempotent producer without transactions was given this id.
    ProducerIdAllotted {
        producer_id: i64,
    },
    /// A transactional id has (again) a producer; no transaction is open.
    TransactionalProducer {
        transactional_id: String,
        producer_id: i64,
        epoch: i16,
        timeout_ms: i32,
        /// Its id and epoch until then, where the producer said who it was and asked to go on.
        renews: Option<(i64, i16)>,
    },
    /// Opens the transaction if it is not open.
    PartitionsJoined {
        transactional_id: String,
        partitions: Vec<PartitionId>,
    },
    /// Opens the transaction if it is not open.
    GroupJoined {
        transactional_id: String,
        group: String,
    },
    /// Offsets that count when the open transaction commits.
    OffsetsPending {
        transactional_id: String,
        group: String,
        offsets: Vec<OffsetEntry>,
    },
    /// One record ends the transaction everywhere: markers in all its partitions, offsets of all its groups.
    /// `epoch` is the producer's from now on (one more than before when somebody is being fenced off).
    TransactionEnded {
        transactional_id: String,
        committed: bool,
        epoch: i16,
    },
    TransactionalIdForgotten {
        transactional_id: String,
    },
    OffsetsCommitted {
        group: String,
        offsets: Vec<OffsetEntry>,
    },
    OffsetsDeleted {
        group: String,
        partitions: Vec<(String, i32)>,
    },
    GroupDeleted {
        group: String,
    },
    /// Records below `offset` are gone.
    LogStartMoved {
        partition: PartitionId,
        offset: i64,
    },
    /// What was remembered of idle producers of a partition is forgotten.
    ProducersForgotten {
        partition: PartitionId,
        producers: Vec<i64>,
    },
}

/// Kind bytes: part of the file format, never renumbered.
pub(crate) mod kind {
    pub(crate) const BATCH_APPENDED: u8 = 1;
    pub(super) const TOPIC_CREATED: u8 = 2;
    pub(super) const TOPIC_DELETED: u8 = 3;
    pub(super) const PARTITIONS_ADDED: u8 = 4;
    pub(super) const TOPIC_CONFIGURED: u8 = 5;
    pub(super) const PRODUCER_ID_ALLOTTED: u8 = 6;
    pub(super) const TRANSACTIONAL_PRODUCER: u8 = 7;
    pub(super) const PARTITIONS_JOINED: u8 = 8;
    pub(super) const GROUP_JOINED: u8 = 9;
    pub(super) const OFFSETS_PENDING: u8 = 10;
    pub(super) const TRANSACTION_ENDED: u8 = 11;
    pub(super) const TRANSACTIONAL_ID_FORGOTTEN: u8 = 12;
    pub(super) const OFFSETS_COMMITTED: u8 = 13;
    pub(super) const OFFSETS_DELETED: u8 = 14;
    pub(super) const GROUP_DELETED: u8 = 15;
    pub(super) const LOG_START_MOVED: u8 = 16;
    pub(super) const PRODUCERS_FORGOTTEN: u8 = 17;
    pub(super) const PRODUCER_RENEWED: u8 = 18;
}

impl Event {
    /// Appends kind and body. A batch is written by the log itself, which has its bytes.
    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let mut to = Encoder(out);
        match self {
            Event::BatchAppended { .. } => {
                unreachable!("the log writes batches from their own bytes")
            }
            Event::TopicCreated {
                name,
                id,
                partitions,
                configs,
            } => {
                to.u8(kind::TOPIC_CREATED);
                to.text(name);
                to.uuid(*id);
                to.i32(*partitions);
                to.texts(configs);
            }
            Event::TopicDeleted { name } => {
                to.u8(kind::TOPIC_DELETED);
                to.text(name);
            }
            Event::PartitionsAdded { name, total } => {
                to.u8(kind::PARTITIONS_ADDED);
                to.text(name);
                to.i32(*total);
            }
            Event::TopicConfigured { name, configs } => {
                to.u8(kind::TOPIC_CONFIGURED);
                to.text(name);
                to.texts(configs);
            }
            Event::ProducerIdAllotted { producer_id } => {
                to.u8(kind::PRODUCER_ID_ALLOTTED);
                to.i64(*producer_id);
            }
            Event::TransactionalProducer {
                transactional_id,
                producer_id,
                epoch,
                timeout_ms,
                renews,
            } => {
                to.u8(match renews {
                    None => kind::TRANSACTIONAL_PRODUCER,
                    Some(_) => kind::PRODUCER_RENEWED,
                });
                to.text(transactional_id);
                to.i64(*producer_id);
                to.i16(*epoch);
                to.i32(*timeout_ms);
                if let Some((producer_id, epoch)) = renews {
                    to.i64(*producer_id);
                    to.i16(*epoch);
                }
            }
            Event::PartitionsJoined {
                transactional_id,
                partitions,
            } => {
                to.u8(kind::PARTITIONS_JOINED);
                to.text(transactional_id);
                to.count(partitions.len());
                partitions.iter().for_each(|partition| to.u32(*partition));
            }
            Event::GroupJoined {
                transactional_id,
                group,
            } => {
                to.u8(kind::GROUP_JOINED);
                to.text(transactional_id);
                to.text(group);
            }
            Event::OffsetsPending {
                transactional_id,
                group,
                offsets,
            } => {
                to.u8(kind::OFFSETS_PENDING);
                to.text(transactional_id);
                to.text(group);
                encode_offsets(&mut to, offsets);
            }
            Event::TransactionEnded {
                transactional_id,
                committed,
                epoch,
            } => {
                to.u8(kind::TRANSACTION_ENDED);
                to.text(transactional_id);
                to.bool(*committed);
                to.i16(*epoch);
            }
            Event::TransactionalIdForgotten { transactional_id } => {
                to.u8(kind::TRANSACTIONAL_ID_FORGOTTEN);
                to.text(transactional_id);
            }
            Event::OffsetsCommitted { group, offsets } => {
                to.u8(kind::OFFSETS_COMMITTED);
                to.text(group);
                encode_offsets(&mut to, offsets);
            }
            Event::OffsetsDeleted { group, partitions } => {
                to.u8(kind::OFFSETS_DELETED);
                to.text(group);
                to.count(partitions.len());
                for (topic, partition) in partitions {
                    to.text(topic);
                    to.i32(*partition);
                }
            }
            Event::GroupDeleted { group } => {
                to.u8(kind::GROUP_DELETED);
                to.text(group);
            }
            Event::LogStartMoved { partition, offset } => {
                to.u8(kind::LOG_START_MOVED);
                to.u32(*partition);
                to.i64(*offset);
            }
            Event::ProducersForgotten {
                partition,
                producers,
            } => {
                to.u8(kind::PRODUCERS_FORGOTTEN);
                to.u32(*partition);
                to.count(producers.len());
                producers.iter().for_each(|producer| to.i64(*producer));
            }
        }
    }

    /// Reads what [`Event::encode`] wrote.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Event, CodecError> {
        let mut from = Decoder(bytes);
        let event = match from.u8()? {
            kind::TOPIC_CREATED => Event::TopicCreated {
                name: from.text()?,
                id: from.uuid()?,
                partitions: from.i32()?,
                configs: from.texts()?,
            },
            kind::TOPIC_DELETED => Event::TopicDeleted { name: from.text()? },
            kind::PARTITIONS_ADDED => Event::PartitionsAdded {
                name: from.text()?,
                total: from.i32()?,
            },
            kind::TOPIC_CONFIGURED => Event::TopicConfigured {
                name: from.text()?,
                configs: from.texts()?,
            },
            kind::PRODUCER_ID_ALLOTTED => Event::ProducerIdAllotted {
                producer_id: from.i64()?,
            },
            found @ (kind::TRANSACTIONAL_PRODUCER | kind::PRODUCER_RENEWED) => {
                Event::TransactionalProducer {
                    transactional_id: from.text()?,
                    producer_id: from.i64()?,
                    epoch: from.i16()?,
                    timeout_ms: from.i32()?,
                    renews: match found {
                        kind::PRODUCER_RENEWED => Some((from.i64()?, from.i16()?)),
                        _ => None,
                    },
                }
            }
            kind::PARTITIONS_JOINED => Event::PartitionsJoined {
                transactional_id: from.text()?,
                partitions: from.list(Decoder::u32)?,
            },
            kind::GROUP_JOINED => Event::GroupJoined {
                transactional_id: from.text()?,
                group: from.text()?,
            },
            kind::OFFSETS_PENDING => Event::OffsetsPending {
                transactional_id: from.text()?,
                group: from.text()?,
                offsets: from.list(decode_offset)?,
            },
            kind::TRANSACTION_ENDED => Event::TransactionEnded {
                transactional_id: from.text()?,
                committed: from.bool()?,
                epoch: from.i16()?,
            },
            kind::TRANSACTIONAL_ID_FORGOTTEN => Event::TransactionalIdForgotten {
                transactional_id: from.text()?,
            },
            kind::OFFSETS_COMMITTED => Event::OffsetsCommitted {
                group: from.text()?,
                offsets: from.list(decode_offset)?,
            },
            kind::OFFSETS_DELETED => Event::OffsetsDeleted {
                group: from.text()?,
                partitions: from.list(|from| Ok((from.text()?, from.i32()?)))?,
            },
            kind::GROUP_DELETED => Event::GroupDeleted {
                group: from.text()?,
            },
            kind::LOG_START_MOVED => Event::LogStartMoved {
                partition: from.u32()?,
                offset: from.i64()?,
            },
            kind::PRODUCERS_FORGOTTEN => Event::ProducersForgotten {
                partition: from.u32()?,
                producers: from.list(Decoder::i64)?,
            },
            value => {
                return Err(CodecError::Unknown {
                    what: "event",
                    value,
                });
            }
        };
        from.end()?;
        Ok(event)
    }
}

pub(crate) fn encode_offsets(to: &mut Encoder<'_>, offsets: &[OffsetEntry]) {
    to.count(offsets.len());
    for entry in offsets {
        to.text(&entry.topic);
        to.i32(entry.partition);
        entry.committed.encode(to);
    }
}

pub(crate) fn decode_offset(from: &mut Decoder<'_>) -> Result<OffsetEntry, CodecError> {
    Ok(OffsetEntry {
        topic: from.text()?,
        partition: from.i32()?,
        committed: Committed::decode(from)?,
    })
}
