//! Retention: moves the start of partitions past what is too old or too much.

use crate::config::Config;
use crate::state::settings::TopicSettings;
use crate::state::{Event, Partition};
use crate::store::Store;

/// Producers that wrote nothing for this long are forgotten.
const PRODUCER_EXPIRY_MS: i64 = 24 * 60 * 60 * 1000;

pub(crate) fn enforce(store: &Store, config: &Config, now: i64) {
    let ((), durable) = store.write(|writer| {
        let mut events = Vec::new();
        let state = writer.state();
        for topic in state.topics() {
            for partition in topic
                .partitions
                .iter()
                .filter_map(|id| state.partition_by_id(*id))
            {
                if topic.settings.delete {
                    let start = keep_from(partition, &topic.settings, now);
                    if start > partition.log_start {
                        events.push(Event::LogStartMoved {
                            partition: partition.id,
                            offset: start,
                        });
                    }
                }
                let idle: Vec<i64> = idle_producers(partition, now);
                if !idle.is_empty() {
                    events.push(Event::ProducersForgotten {
                        partition: partition.id,
                        producers: idle,
                    });
                }
            }
        }
        let expiry = config.transactional_id_expiry.as_millis() as i64;
        for (name, transaction) in state.transactions() {
            if !transaction.is_open() && now - transaction.changed_at > expiry {
                events.push(Event::TransactionalIdForgotten {
                    transactional_id: name.to_owned(),
                });
            }
        }
        events.into_iter().for_each(|event| writer.emit(event));
    });
    // Nobody waits for retention: it is as good when it is durable later.
    drop(durable);
}

/// The first offset to keep. Never past the last stable offset, and never past what is durable.
fn keep_from(partition: &Partition, settings: &TopicSettings, now: i64) -> i64 {
    let end = partition.view.last_stable();
    let mut bytes = partition.bytes;
    let mut start = partition.log_start;
    for entry in &partition.entries {
        let next = entry.last_offset() + 1;
        let too_old = settings
            .retention_ms
            .is_some_and(|age| entry.max_timestamp < now - age);
        // As with segments, the entry that crosses the limit stays: at least the limit is kept.
        let length = entry.read_bytes() as u64;
        let too_much = settings
            .retention_bytes
            .is_some_and(|limit| bytes - length >= limit);
        if next > end || !(too_old || too_much) {
            break;
        }
        bytes -= length;
        start = next;
    }
    start
}

fn idle_producers(partition: &Partition, now: i64) -> Vec<i64> {
    let idle = partition.producers.iter().filter(|(_, producer)| {
        producer.transaction_start.is_none() && now - producer.seen_at > PRODUCER_EXPIRY_MS
    });
    idle.map(|(id, _)| *id).collect()
}
