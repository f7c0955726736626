//! What several rooms need for their tests.

use bytes::BytesMut;
use kafka_protocol::indexmap::IndexMap;
use kafka_protocol::records::{
    Compression, Record, RecordBatchEncoder, RecordEncodeOptions, TimestampType,
};

use crate::batch::BatchHeader;
use crate::state::Event;

/// A topic comes to be, with the settings that all have.
pub(crate) fn topic_created(name: &str, partitions: i32) -> Event {
    Event::TopicCreated {
        name: name.to_owned(),
        id: uuid::Uuid::new_v4(),
        partitions,
        configs: Default::default(),
    }
}

/// What tells one batch from another here.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sample {
    pub(crate) producer_id: i64,
    pub(crate) epoch: i16,
    pub(crate) sequence: i32,
    pub(crate) records: i32,
    pub(crate) transactional: bool,
}

impl Sample {
    /// Of a producer that is not idempotent.
    pub(crate) fn plain(records: i32) -> Sample {
        Sample {
            producer_id: -1,
            epoch: -1,
            sequence: -1,
            records,
            transactional: false,
        }
    }
}

/// A batch as a client sends it.
pub(crate) fn batch(sample: Sample) -> (BatchHeader, Vec<u8>) {
    let record = |number: i32| Record {
        transactional: sample.transactional,
        control: false,
        delete_horizon: false,
        partition_leader_epoch: -1,
        producer_id: sample.producer_id,
        producer_epoch: sample.epoch,
        timestamp_type: TimestampType::Creation,
        offset: i64::from(number),
        sequence: sample.sequence.max(0) + number,
        timestamp: 1_000 + i64::from(number),
        key: Some(format!("key-{number}").into()),
        value: Some("value".into()),
        headers: IndexMap::new(),
    };
    let records: Vec<Record> = (0..sample.records).map(record).collect();
    let mut bytes = BytesMut::new();
    let options = RecordEncodeOptions {
        version: 2,
        compression: Compression::None,
    };
    RecordBatchEncoder::encode(&mut bytes, &records, &options).unwrap();
    let mut bytes = bytes.to_vec();
    if sample.producer_id < 0 {
        bytes[53..57].copy_from_slice(&(-1i32).to_be_bytes());
        crate::batch::seal(&mut bytes);
    }
    let header = BatchHeader::check(&bytes).unwrap();
    (header, bytes)
}
