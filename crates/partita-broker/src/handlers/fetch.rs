//! Fetch: plan under the lock, wait until there is enough or time is up, set memory aside, then read without the lock.
//!
//! A client that asks for a session is told session 0: each of its requests is complete in itself.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kafka_protocol::ResponseError;
use kafka_protocol::messages::fetch_request::FetchPartition;
use kafka_protocol::messages::fetch_response::{
    AbortedTransaction, FetchableTopicResponse, PartitionData,
};
use kafka_protocol::messages::{BrokerId, FetchRequest, FetchResponse, ProducerId};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::{check_leader_epoch, find_topic};
use crate::BrokerInner;
use crate::net::{AnswerMemory, Held, Turn};
use crate::reader::{Piece, gather};
use crate::state::{Partition, State};
use crate::view::View;
use crate::wal::LogHead;

/// What one partition will answer.
struct Planned {
    error: Option<ResponseError>,
    high_watermark: i64,
    last_stable: i64,
    log_start: i64,
    aborted: Option<Vec<AbortedTransaction>>,
    fetch_offset: i64,
    pieces: Vec<Piece>,
}

impl Planned {
    fn refused(error: ResponseError) -> Planned {
        Planned {
            error: Some(error),
            high_watermark: -1,
            last_stable: -1,
            log_start: -1,
            aborted: None,
            fetch_offset: -1,
            pieces: Vec::new(),
        }
    }
}

struct Plan {
    /// By topic and partition, in the order of the request.
    topics: Vec<Vec<Planned>>,
    bytes: usize,
    /// Bytes of the first batch: less would not help the reader.
    least: usize,
    /// An answer that shall not wait.
    urgent: bool,
    /// Where to wait for more.
    views: Vec<Arc<View>>,
}

pub(crate) async fn handle(
    broker: &Arc<BrokerInner>,
    mut request: FetchRequest,
    turn: &Turn,
) -> (FetchResponse, Option<Held>) {
    if request.session_id != 0 {
        // Nobody was given a session; a client that thinks so shall begin anew.
        let response =
            FetchResponse::default().with_error_code(ResponseError::FetchSessionIdNotFound.code());
        return (response, None);
    }
    leave_repeated_out(&mut request);
    let committed_only = request.isolation_level == 1;
    let limit = usize::try_from(request.max_bytes)
        .unwrap_or(0)
        .clamp(1, broker.config.fetch_max_bytes);
    let enough = usize::try_from(request.min_bytes).unwrap_or(0).min(limit);
    let plan_within = |limit| {
        broker
            .store
            .read_with_log(|state, log| plan(state, log, &request, committed_only, limit))
    };
    let plan_now = || plan_within(limit);
    let mut planned = plan_now();
    if planned.bytes < enough && !planned.urgent && request.max_wait_ms > 0 {
        let deadline = Instant::now() + Duration::from_millis(request.max_wait_ms as u64);
        let waiter = Arc::new(Notify::new());
        let mut waiting =
            Waiting::join(std::mem::take(&mut planned.views), &waiter, committed_only);
        loop {
            planned = plan_now();
            if planned.bytes >= enough || planned.urgent {
                break;
            }
            if !waiting.is_at(&planned.views) {
                // A topic was deleted and made anew: what comes, comes to the new one.
                let views = std::mem::take(&mut planned.views);
                waiting = Waiting::join(views, &waiter, committed_only);
                continue;
            }
            if tokio::time::timeout_at(deadline, waiter.notified())
                .await
                .is_err()
            {
                planned = plan_now();
                break;
            }
        }
        drop(waiting);
    }
    // What is planned may keep old records in memory: while this waits, it lets go of it, and plans again after.
    if planned.bytes > 0 && !turn.has_come() {
        drop(planned);
        turn.come().await;
        planned = plan_now();
    }
    let (planned, held) = set_memory_aside(&broker.answer_memory, planned, plan_within).await;
    respond(request, planned, held).await
}

/// A partition is answered once, however often a request names it. Its topic may be named several times.
fn leave_repeated_out(request: &mut FetchRequest) {
    let mut seen = HashSet::new();
    for topic in &mut request.topics {
        let (name, id) = (&topic.topic, topic.topic_id);
        topic
            .partitions
            .retain(|wanted| seen.insert((name.clone(), id, wanted.partition)));
    }
    request.topics.retain(|topic| !topic.partitions.is_empty());
}

/// Sets memory aside for what is planned, and plans less where less is free.
async fn set_memory_aside(
    memory: &AnswerMemory,
    mut planned: Plan,
    plan_within: impl Fn(usize) -> Plan,
) -> (Plan, Option<Held>) {
    while planned.bytes > 0 {
        let least = planned.least;
        let mut held = match memory.try_hold(least, planned.bytes) {
            Some(held) if held.bytes() >= planned.bytes => return (planned, Some(held)),
            Some(held) => held,
            None => {
                drop(planned);
                memory.hold(least).await
            }
        };
        planned = plan_within(held.bytes());
        // Unless batches were merged meanwhile, and the first is larger now than what is held for it.
        if planned.least <= least {
            held.shrink_to(planned.bytes);
            return (planned, Some(held));
        }
    }
    (planned, None)
}

/// Leaves the views again however the waiting ends.
struct Waiting<'w> {
    views: Vec<Arc<View>>,
    waiter: &'w Arc<Notify>,
}

impl<'w> Waiting<'w> {
    fn join(views: Vec<Arc<View>>, waiter: &'w Arc<Notify>, committed_only: bool) -> Waiting<'w> {
        views
            .iter()
            .for_each(|view| view.join(waiter, committed_only));
        Waiting { views, waiter }
    }

    fn is_at(&self, views: &[Arc<View>]) -> bool {
        let mut pairs = self.views.iter().zip(views);
        self.views.len() == views.len() && pairs.all(|(one, other)| Arc::ptr_eq(one, other))
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.views.iter().for_each(|view| view.leave(self.waiter));
    }
}

fn plan(
    state: &State,
    log: &LogHead,
    request: &FetchRequest,
    committed_only: bool,
    limit: usize,
) -> Plan {
    let mut plan = Plan {
        topics: Vec::with_capacity(request.topics.len()),
        bytes: 0,
        least: 0,
        urgent: false,
        views: Vec::new(),
    };
    for topic in &request.topics {
        let found = find_topic(state, &topic.topic, topic.topic_id);
        let mut partitions = Vec::with_capacity(topic.partitions.len());
        for wanted in &topic.partitions {
            let partition = found
                .and_then(|topic| {
                    state
                        .partition_of(topic, wanted.partition)
                        .ok_or(ResponseError::UnknownTopicOrPartition)
                })
                .and_then(|partition| {
                    check_leader_epoch(wanted.current_leader_epoch).map(|()| partition)
                });
            let planned = match partition {
                Ok(partition) => {
                    plan.views.push(partition.view.clone());
                    // The first batch of a response is sent whatever its size, lest a reader gets stuck before it.
                    let room = limit.saturating_sub(plan.bytes);
                    plan_partition(
                        partition,
                        log,
                        wanted,
                        committed_only,
                        room,
                        plan.bytes == 0,
                    )
                }
                Err(error) => Planned::refused(error),
            };
            plan.urgent |= planned.error.is_some();
            if plan.bytes == 0 {
                plan.least = planned.pieces.first().map_or(0, Piece::bytes);
            }
            plan.bytes += planned.pieces.iter().map(Piece::bytes).sum::<usize>();
            partitions.push(planned);
        }
        plan.topics.push(partitions);
    }
    plan
}

fn plan_partition(
    partition: &Partition,
    log: &LogHead,
    wanted: &FetchPartition,
    committed_only: bool,
    room: usize,
    first: bool,
) -> Planned {
    let (high_watermark, last_stable) = (
        partition.view.high_watermark(),
        partition.view.last_stable(),
    );
    let mut planned = Planned {
        error: None,
        high_watermark,
        last_stable,
        log_start: partition.log_start,
        aborted: committed_only.then(Vec::new),
        fetch_offset: wanted.fetch_offset,
        pieces: Vec::new(),
    };
    let from = wanted.fetch_offset;
    if from < partition.log_start || from > high_watermark {
        planned.error = Some(ResponseError::OffsetOutOfRange);
        return planned;
    }
    let end = if committed_only {
        last_stable
    } else {
        high_watermark
    };
    // A batch that was deleted in part may begin before the end and still be undecided.
    if from >= end {
        return planned;
    }
    let room = room.min(usize::try_from(wanted.partition_max_bytes).unwrap_or(0));
    let mut bytes = 0;
    let mut below = from;
    for entry in &partition.entries[partition.position(from)..] {
        let fits = bytes + entry.read_bytes() <= room || (first && bytes == 0);
        if entry.base_offset >= end || !fits {
            break;
        }
        let Some(piece) = Piece::of(entry, log) else {
            planned.error = Some(ResponseError::KafkaStorageError);
            break;
        };
        bytes += piece.bytes();
        below = entry.last_offset() + 1;
        planned.pieces.push(piece);
    }
    // Who gets no records needs to know of none that were aborted.
    if let Some(aborted) = &mut planned.aborted
        && !planned.pieces.is_empty()
    {
        let row = |aborted: &crate::state::partition::Aborted| {
            AbortedTransaction::default()
                .with_producer_id(ProducerId(aborted.producer_id))
                .with_first_offset(aborted.first_offset)
        };
        aborted.extend(partition.aborted_between(from, below).map(row));
    }
    planned
}

/// Reads what was planned and writes the response. Bytes that are not in memory are read on a thread that may wait.
async fn respond(
    request: FetchRequest,
    plan: Plan,
    held: Option<Held>,
) -> (FetchResponse, Option<Held>) {
    let cold = plan
        .topics
        .iter()
        .flatten()
        .flat_map(|planned| &planned.pieces)
        .any(|piece| !piece.is_in_memory());
    if !cold {
        return (build(request, plan), held);
    }
    // The memory goes along: the reading goes on even if its connection is gone.
    match tokio::task::spawn_blocking(move || (build(request, plan), held)).await {
        Ok(answer) => answer,
        Err(error) => {
            tracing::error!(%error, "reading for a fetch failed");
            let code = ResponseError::UnknownServerError.code();
            (FetchResponse::default().with_error_code(code), None)
        }
    }
}

fn build(request: FetchRequest, plan: Plan) -> FetchResponse {
    let topics = request.topics.into_iter().zip(plan.topics).map(|(topic, planned)| {
        let rows = topic.partitions.iter().zip(planned).map(|(wanted, planned)| {
            let read = gather(planned.pieces, planned.fetch_offset);
            let (error, records) = match read {
                Ok(records) => (planned.error, records),
                Err(error) => {
                    tracing::error!(topic = %topic.topic.0, partition = wanted.partition, %error, "reading the log failed");
                    (Some(ResponseError::KafkaStorageError), Bytes::new())
                }
            };
            PartitionData::default()
                .with_partition_index(wanted.partition)
                .with_error_code(error.map_or(0, |error| error.code()))
                .with_high_watermark(planned.high_watermark)
                .with_last_stable_offset(planned.last_stable)
                .with_log_start_offset(planned.log_start)
                .with_aborted_transactions(planned.aborted)
                .with_preferred_read_replica(BrokerId(-1))
                .with_records(Some(records))
        });
        FetchableTopicResponse::default().with_partitions(rows.collect()).with_topic(topic.topic).with_topic_id(topic.topic_id)
    });
    FetchResponse::default().with_responses(topics.collect())
}

#[cfg(test)]
mod tests;
