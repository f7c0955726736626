//! Produce: check each batch outside the lock, judge and append all of them under it, answer when they are durable.

use std::sync::Arc;

use bytes::Bytes;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::produce_request::{PartitionProduceData, TopicProduceData};
use kafka_protocol::messages::produce_response::{PartitionProduceResponse, TopicProduceResponse};
use kafka_protocol::messages::{ProduceRequest, ProduceResponse};
use kafka_protocol::protocol::StrBytes;

use super::find_topic;
use crate::BrokerInner;
use crate::batch::{BatchError, BatchHeader};
use crate::net::RequestContext;
use crate::records;
use crate::state::producer::Verdict;
use crate::state::{Partition, State, Topic};
use crate::store::Writer;

/// Where a batch was put, or why it was not.
struct Written {
    base_offset: i64,
    append_time: i64,
    log_start: i64,
}

/// An error code, and what to tell a human.
type Refusal = (ResponseError, Option<String>);

/// A batch after the checks that need no state.
type Checked = Result<BatchHeader, Refusal>;

type Outcome = Result<Written, Refusal>;

pub(crate) async fn handle(
    broker: &Arc<BrokerInner>,
    _context: &RequestContext,
    _version: i16,
    request: ProduceRequest,
) -> ProduceResponse {
    let transactional_id = request.transactional_id.as_ref().map(|id| id.as_str());
    // Looking inside a batch takes time: which need it is asked first, so that it is done outside the lock.
    let rules: Vec<Rules> = broker.store.read(|state| {
        let topics = request.topic_data.iter();
        let found = topics.map(|topic| find_topic(state, &topic.name, topic.topic_id));
        found.map(|topic| Rules::of(topic.ok(), broker)).collect()
    });
    let check_topic = |(topic, rules): (&TopicProduceData, Rules)| {
        let each = |data: &PartitionProduceData| {
            check(broker, request.acks, data.records.as_ref(), &rules)
        };
        topic.partition_data.iter().map(each).collect()
    };
    let checked: Vec<Vec<Checked>> = request
        .topic_data
        .iter()
        .zip(rules)
        .map(check_topic)
        .collect();
    if broker.store.backlog() > broker.config.max_backlog_bytes {
        return answer(&request, |_, _| {
            Err((
                ResponseError::KafkaStorageError,
                Some("the disk does not keep up".to_owned()),
            ))
        });
    }
    let (outcomes, durable) = broker.store.write(|writer| {
        let mut outcomes: Vec<Vec<Outcome>> = Vec::with_capacity(checked.len());
        for (topic, headers) in request.topic_data.iter().zip(checked) {
            let append = |(data, header): (&PartitionProduceData, Checked)| {
                let header = header?;
                let found = find_topic(writer.state(), &topic.name, topic.topic_id);
                let name = found.map_err(|error| (error, None))?.name.clone();
                let records = data.records.as_ref();
                append(
                    writer,
                    transactional_id,
                    &name,
                    data.index,
                    &header,
                    records,
                )
            };
            outcomes.push(
                topic
                    .partition_data
                    .iter()
                    .zip(headers)
                    .map(append)
                    .collect(),
            );
        }
        outcomes
    });
    let durable = durable.wait().await;
    let mut outcomes = outcomes.into_iter().map(Vec::into_iter).collect::<Vec<_>>();
    answer(&request, |topic, _| {
        let outcome = outcomes[topic]
            .next()
            .unwrap_or(Err((ResponseError::UnknownServerError, None)));
        match &durable {
            Err(error) => outcome.and(Err((
                ResponseError::KafkaStorageError,
                Some(error.to_string()),
            ))),
            Ok(()) => outcome,
        }
    })
}

/// What a topic wants of its batches.
struct Rules {
    max_bytes: usize,
    needs_keys: bool,
}

impl Rules {
    /// A topic that is not there has its own error, later.
    fn of(topic: Option<&Topic>, broker: &BrokerInner) -> Rules {
        let settings = topic.map(|topic| &topic.settings);
        let own = settings.and_then(|settings| settings.max_message_bytes);
        Rules {
            max_bytes: own.unwrap_or(broker.config.message_max_bytes),
            needs_keys: settings.is_some_and(|settings| settings.compact),
        }
    }
}

/// What can be said of a batch without looking at the state.
fn check(broker: &BrokerInner, acks: i16, records: Option<&Bytes>, rules: &Rules) -> Checked {
    if !matches!(acks, -1..=1) {
        return Err((ResponseError::InvalidRequiredAcks, None));
    }
    let bytes = records.map_or(&[][..], |records| &records[..]);
    let checked = BatchHeader::check(bytes)
        .and_then(|header| records::check_count(&header, bytes).map(|()| header));
    let header = checked.map_err(|error| {
        let code = match error {
            BatchError::Magic(_) => ResponseError::UnsupportedForMessageFormat,
            BatchError::Compression(_) => ResponseError::UnsupportedCompressionType,
            BatchError::Count { .. }
            | BatchError::Records(_)
            | BatchError::Control
            | BatchError::Producer { .. } => ResponseError::InvalidRecord,
            _ => ResponseError::CorruptMessage,
        };
        (code, Some(error.to_string()))
    })?;
    if header.bytes as usize != bytes.len() {
        let message = "a partition of a request has exactly one batch".to_owned();
        return Err((ResponseError::InvalidRecord, Some(message)));
    }
    if bytes.len() > rules.max_bytes {
        let message = format!(
            "a batch of {} bytes is larger than the topic's limit of {}",
            bytes.len(),
            rules.max_bytes
        );
        return Err((ResponseError::MessageTooLarge, Some(message)));
    }
    if rules.needs_keys {
        let all_keyed = all_have_keys(broker, &header, bytes)
            .map_err(|error| (ResponseError::CorruptMessage, Some(error.to_string())))?;
        if !all_keyed {
            let message = "the topic is compacted: each record needs a key".to_owned();
            return Err((ResponseError::InvalidRecord, Some(message)));
        }
    }
    Ok(header)
}

fn all_have_keys(
    broker: &BrokerInner,
    header: &BatchHeader,
    bytes: &[u8],
) -> Result<bool, BatchError> {
    // Few bytes may decompress to very many: one batch at a time.
    let is_compressed = header.compression() != 0;
    let _place = is_compressed.then(|| broker.inspection.lock());
    records::all_have_keys(header, bytes, broker.config.max_decompressed_bytes)
}

/// Judges a checked batch by the state, and appends it when there is nothing against it.
fn append(
    writer: &mut Writer<'_>,
    transactional_id: Option<&str>,
    topic: &str,
    index: i32,
    header: &BatchHeader,
    records: Option<&Bytes>,
) -> Outcome {
    let refuse = |error| Err((error, None));
    let state = writer.state();
    let Some((topic, partition)) = state
        .topic(topic)
        .and_then(|topic| Some((topic, state.partition_of(topic, index)?)))
    else {
        return refuse(ResponseError::UnknownTopicOrPartition);
    };
    let settings = &topic.settings;
    if header.is_transactional() || header.producer_id >= 0 {
        check_producer(state, partition, transactional_id, header)
            .map_err(|error| (error, None))?;
    }
    let log_start = partition.log_start;
    match partition.judge(header) {
        Verdict::Append => {}
        Verdict::Duplicate {
            base_offset,
            timestamp,
        } => {
            return Ok(Written {
                base_offset,
                append_time: timestamp,
                log_start,
            });
        }
        Verdict::OutOfOrder => return refuse(ResponseError::OutOfOrderSequenceNumber),
        Verdict::Fenced => return refuse(ResponseError::InvalidProducerEpoch),
    }
    let bytes = records.map_or(&[][..], |records| &records[..]);
    let (id, append_time) = (partition.id, settings.append_time);
    let Some(base_offset) = writer.append_batch(id, header, append_time, bytes) else {
        return refuse(ResponseError::UnknownTopicOrPartition);
    };
    Ok(Written {
        base_offset,
        append_time: if append_time { writer.now } else { -1 },
        log_start,
    })
}

/// A transactional batch needs the open transaction of the current producer, with this partition in it; any other
/// batch must not come from a producer in the middle of a transaction here.
fn check_producer(
    state: &State,
    partition: &Partition,
    transactional_id: Option<&str>,
    header: &BatchHeader,
) -> Result<(), ResponseError> {
    let owner = state.transaction_of(header.producer_id);
    if !header.is_transactional() {
        let in_transaction = |_: &_| {
            partition
                .producers
                .get(&header.producer_id)
                .is_some_and(|p| p.transaction_start.is_some())
        };
        return if owner.as_ref().is_some_and(in_transaction) {
            Err(ResponseError::InvalidTxnState)
        } else {
            Ok(())
        };
    }
    let Some((name, transaction)) = owner else {
        return Err(ResponseError::InvalidProducerIdMapping);
    };
    if transactional_id != Some(name) {
        return Err(ResponseError::InvalidProducerIdMapping);
    }
    if transaction.epoch != header.producer_epoch {
        return Err(ResponseError::InvalidProducerEpoch);
    }
    if !transaction.holds(partition.id) {
        return Err(ResponseError::InvalidTxnState);
    }
    Ok(())
}

/// Builds the response; `outcome` is asked once for each partition, in the order of the request.
fn answer(
    request: &ProduceRequest,
    mut outcome: impl FnMut(usize, usize) -> Outcome,
) -> ProduceResponse {
    let topics = request.topic_data.iter().enumerate().map(|(t, topic)| {
        let partitions = topic.partition_data.iter().enumerate().map(|(p, data)| {
            let response = PartitionProduceResponse::default().with_index(data.index);
            match outcome(t, p) {
                Ok(written) => response
                    .with_base_offset(written.base_offset)
                    .with_log_append_time_ms(written.append_time)
                    .with_log_start_offset(written.log_start),
                Err((error, message)) => response
                    .with_error_code(error.code())
                    .with_error_message(message.map(StrBytes::from_string))
                    .with_base_offset(-1)
                    .with_log_append_time_ms(-1)
                    .with_log_start_offset(-1),
            }
        });
        TopicProduceResponse::default()
            .with_name(topic.name.clone())
            .with_topic_id(topic.topic_id)
            .with_partition_responses(partitions.collect())
    });
    ProduceResponse::default().with_responses(topics.collect())
}

#[cfg(test)]
mod tests {
    use kafka_protocol::messages::TopicName;

    use super::*;
    use crate::batch::seal;
    use crate::state::Event;
    use crate::testing::{Sample, batch};
    use crate::{Broker, Config};

    #[tokio::test]
    async fn a_batch_that_is_too_large_is_not_decompressed() {
        let broker = Broker::start(Config::memory()).await.expect("starts");
        let settings = [("cleanup.policy", "compact"), ("max.message.bytes", "1000")];
        let ((), durable) = broker.inner.store.write(|writer| {
            writer.emit(Event::TopicCreated {
                name: "t".to_owned(),
                id: uuid::Uuid::new_v4(),
                partitions: 1,
                configs: settings
                    .map(|(name, value)| (name.to_owned(), value.to_owned()))
                    .into(),
            });
        });
        durable.wait().await.expect("memory takes it");
        let send = async |records| {
            let (_, mut bytes) = batch(Sample::plain(records));
            // It says that it is compressed, and is not.
            bytes[22] = 1;
            seal(&mut bytes);
            let data = PartitionProduceData::default().with_records(Some(bytes.into()));
            let topic = TopicProduceData::default()
                .with_name(TopicName(StrBytes::from_static_str("t")))
                .with_partition_data(vec![data]);
            let request = ProduceRequest::default()
                .with_acks(-1)
                .with_topic_data(vec![topic]);
            let context = RequestContext {
                client_id: String::new(),
                client_host: String::new(),
            };
            let response = handle(&broker.inner, &context, 9, request).await;
            response.responses[0].partition_responses[0].error_code
        };
        assert_eq!(send(10).await, ResponseError::CorruptMessage.code());
        assert_eq!(send(100).await, ResponseError::MessageTooLarge.code());
    }
}
