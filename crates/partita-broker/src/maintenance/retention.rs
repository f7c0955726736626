//! Retention: moves the start of partitions past what is too old or too much.

use std::collections::BTreeMap;

use crate::config::Config;
use crate::state::settings::TopicSettings;
use crate::state::{Event, Partition, PartitionId, State};
use crate::store::Store;

/// Producers that wrote nothing for this long are forgotten.
const PRODUCER_EXPIRY_MS: i64 = 24 * 60 * 60 * 1000;

/// `by_age`: whether it is time to look at the age of records.
pub(crate) fn enforce(store: &Store, config: &Config, now: i64, by_age: bool) {
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
                    let start = keep_from(partition, &topic.settings, now, by_age);
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
        events.extend(excess_producers(state, config.max_producers));
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
fn keep_from(partition: &Partition, settings: &TopicSettings, now: i64, by_age: bool) -> i64 {
    let oldest = settings.retention_ms.filter(|_| by_age);
    let oldest = oldest.map(|age| now.saturating_sub(age));
    let end = partition.view.last_stable();
    let mut bytes = partition.bytes;
    let mut start = partition.log_start;
    for entry in &partition.entries {
        let next = entry.last_offset() + 1;
        // Negative ones are of checkpoints from before it was noted when records without a timestamp were written.
        let too_old = oldest.is_some_and(|oldest| entry.max_timestamp < oldest);
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

/// Where more producers are remembered than may be: those that were silent the longest are forgotten, and some more, so
/// that not every round has to look for them. Never one in the middle of a transaction.
fn excess_producers(state: &State, limit: usize) -> Vec<Event> {
    let remembered: usize = state.partitions().map(|p| p.producers.len()).sum();
    if remembered <= limit {
        return Vec::new();
    }
    let idle = state.partitions().flat_map(|partition| {
        let idle = partition.producers.iter();
        let idle = idle.filter(|(_, producer)| producer.transaction_start.is_none());
        idle.map(|(id, producer)| (producer.seen_at, partition.id, *id))
    });
    let mut idle: Vec<(i64, PartitionId, i64)> = idle.collect();
    let excess = (remembered - limit + limit / 10).min(idle.len());
    if excess < idle.len() {
        idle.select_nth_unstable(excess);
        idle.truncate(excess);
    }
    let mut forgotten: BTreeMap<PartitionId, Vec<i64>> = BTreeMap::new();
    for (_, partition, producer) in idle {
        forgotten.entry(partition).or_default().push(producer);
    }
    let events = forgotten.into_iter();
    let events = events.map(|(partition, producers)| Event::ProducersForgotten {
        partition,
        producers,
    });
    events.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Sample, batch, topic_created};
    use crate::wal::Place;

    const HOUR: i64 = 3_600_000;

    /// Where a partition with these batches begins after a look at it; each was written at the instant given first and
    /// has the greatest timestamp given second.
    fn start_of(batches: &[(i64, i64)], now: i64) -> i64 {
        let store = Store::open(&Config::memory()).expect("memory opens");
        let settings = [("retention.ms".to_owned(), HOUR.to_string())];
        store.relocate(|state, _| {
            state.apply(
                0,
                &Event::TopicCreated {
                    name: "t".to_owned(),
                    id: uuid::Uuid::new_v4(),
                    partitions: 1,
                    configs: settings.into(),
                },
            );
            for (at, timestamp) in batches {
                let (mut header, _) = batch(Sample::plain(1));
                header.max_timestamp = *timestamp;
                let place = Place {
                    segment: 1,
                    position: 16,
                };
                let partition = 0;
                state.apply(
                    *at,
                    &Event::BatchAppended {
                        partition,
                        header,
                        place,
                    },
                );
            }
        });
        store.checkpoint().expect("memory takes it");
        let ((), durable) = store.write(|writer| writer.emit(topic_created("other", 1)));
        drop(durable);
        let look = |by_age| {
            store.read(|state| {
                let topic = state.topic("t").expect("it was created");
                let partition = state.partition("t", 0).expect("it was created");
                keep_from(partition, &topic.settings, now, by_age)
            })
        };
        assert_eq!(look(false), 0, "age counts only when it is looked at");
        look(true)
    }

    #[test]
    fn records_without_a_timestamp_are_as_old_as_their_writing() {
        let now = 100 * HOUR;
        assert_eq!(start_of(&[(now, 1000), (now, now)], now), 1);
        assert_eq!(start_of(&[(now, -1), (now, now)], now), 0);
        assert_eq!(start_of(&[(now, i64::MIN), (now, now)], now), 0);
        assert_eq!(start_of(&[(HOUR, -1), (HOUR, -1), (now, -1)], now), 2);
    }

    #[test]
    fn of_too_many_producers_those_silent_the_longest_are_forgotten() {
        let mut state = State::default();
        state.apply(1, &topic_created("t", 2));
        for number in 0..100i64 {
            let (header, _) = batch(Sample {
                producer_id: number,
                epoch: 0,
                sequence: 0,
                records: 1,
                // The first is in the middle of a transaction.
                transactional: number == 0,
            });
            let place = Place {
                segment: 1,
                position: 16,
            };
            let partition = (number % 2) as PartitionId;
            state.apply(
                number,
                &Event::BatchAppended {
                    partition,
                    header,
                    place,
                },
            );
        }
        assert!(excess_producers(&state, 100).is_empty());
        for event in excess_producers(&state, 50) {
            state.apply(1000, &event);
        }
        let mut left: Vec<i64> = state
            .partitions()
            .flat_map(|partition| partition.producers.keys().copied())
            .collect();
        left.sort_unstable();
        let expected: Vec<i64> = std::iter::once(0).chain(56..100).collect();
        assert_eq!(left, expected);
    }
}
