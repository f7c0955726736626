//! One connection: frames in, answers out, in the same order.
//!
//! Each request is started (polled once) as soon as it arrives, so that its effects happen in the order of arrival
//! and a slow one (a long poll, a group that waits for its members, an fsync) does not keep the next from starting.
//! Answers leave in the order of the requests, as clients expect.
//!
//! A connection holds memory: what has come of a frame, requests at work, answers that are not taken. So each of them
//! has its time, after which the connection is closed.

use std::collections::VecDeque;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

use super::RequestContext;
use super::dispatch::{self, Answer, Request, RequestError};
use super::turn::Answered;
use crate::BrokerInner;

/// Bytes asked of the socket at a time while no frame announces more.
const READ_BYTES: usize = 32 << 10;

/// After a larger frame than this its buffer is not used again: a connection that once sent much would keep it.
const KEPT_BYTES: usize = 2 << 20;

#[derive(Debug, thiserror::Error)]
enum ConnectionError {
    #[error("a frame of {length} bytes is announced; the limit is {limit}")]
    FrameLength { length: i64, limit: usize },
    #[error(transparent)]
    Request(#[from] RequestError),
    #[error("nothing came or went for {0:?}")]
    Idle(Duration),
    #[error("a frame was begun and not finished within {time:?}; {arrived} bytes of it came")]
    Unfinished { arrived: usize, time: Duration },
    #[error("the client did not take an answer of {bytes} bytes within {time:?}")]
    NotTaken { bytes: usize, time: Duration },
    #[error(transparent)]
    Io(#[from] std::io::Error),
}

type Answering = Pin<Box<dyn Future<Output = Result<Option<Answer>, RequestError>> + Send>>;

/// A request that was started: still going, or answered and waiting for its turn.
enum Started {
    Going(Answering),
    Done(Option<Answer>),
    /// The connection ends here, after the answers to requests before it.
    Refused(RequestError),
}

struct InFlight {
    started: Started,
    request_bytes: usize,
}

/// Serves one client until it leaves or breaks the protocol.
pub(super) async fn serve(stream: TcpStream, peer: SocketAddr, broker: Arc<BrokerInner>) {
    let _ = stream.set_nodelay(true);
    match run(stream, peer, broker).await {
        Ok(()) => tracing::debug!(%peer, "connection closed"),
        Err(ConnectionError::Io(error)) => tracing::debug!(%peer, %error, "connection lost"),
        Err(error @ ConnectionError::Idle(_)) => {
            tracing::debug!(%peer, %error, "closing the connection");
        }
        Err(error) => tracing::warn!(%peer, %error, "closing the connection"),
    }
}

async fn run(
    mut stream: TcpStream,
    peer: SocketAddr,
    broker: Arc<BrokerInner>,
) -> Result<(), ConnectionError> {
    let (mut reader, mut writer) = stream.split();
    let mut context = Arc::new(RequestContext {
        client_id: String::new(),
        client_host: format!("/{}", peer.ip()),
    });
    let mut input = BytesMut::with_capacity(READ_BYTES);
    let mut waiting: VecDeque<InFlight> = VecDeque::new();
    let mut waiting_bytes = 0;
    let mut output: Vec<Answer> = Vec::new();
    let answered = Answered::default();
    let max_idle = broker.config.connections_max_idle;
    // When the last whole frame came or went, or the present one began.
    let mut moved_at = Instant::now();
    // Looks every so often whether that is too long ago; to set it anew for each frame would cost more.
    let idle_check = sleep(max_idle);
    tokio::pin!(idle_check);
    loop {
        // Start every whole frame that has arrived, as far as the limits on work in flight allow.
        while has_room(&broker, &waiting, waiting_bytes) {
            let Some(frame) = take_frame(&mut input, broker.config.max_frame_bytes)? else {
                break;
            };
            moved_at = Instant::now();
            let request_bytes = frame.len();
            let request = Request::parse(frame)?;
            if let Some(id) = request
                .client_id
                .as_deref()
                .filter(|id| *id != context.client_id)
            {
                context = Arc::new(RequestContext {
                    client_id: id.to_owned(),
                    client_host: context.client_host.clone(),
                });
            }
            let turn = answered.turn(waiting.len());
            let going: Answering = Box::pin(dispatch::answer(
                broker.clone(),
                context.clone(),
                request,
                turn,
            ));
            let mut entry = InFlight {
                started: Started::Going(going),
                request_bytes,
            };
            std::future::poll_fn(|task| Poll::Ready(advance(&mut entry, task))).await?;
            waiting_bytes += request_bytes;
            waiting.push_back(entry);
        }
        while let Some(InFlight {
            started: Started::Done(_),
            ..
        }) = waiting.front()
        {
            if let Some(InFlight {
                started: Started::Done(answer),
                request_bytes,
            }) = waiting.pop_front()
            {
                waiting_bytes -= request_bytes;
                answered.one_more();
                output.extend(answer);
            }
        }
        for Answer { frame, held } in output.drain(..) {
            let (bytes, time) = (frame.len(), broker.config.max_answer_time);
            timeout(time, writer.write_all(&frame))
                .await
                .map_err(|_| ConnectionError::NotTaken { bytes, time })??;
            moved_at = Instant::now();
            drop(held);
        }
        if let Some(InFlight {
            started: Started::Refused(_),
            ..
        }) = waiting.front()
            && let Some(InFlight {
                started: Started::Refused(error),
                ..
            }) = waiting.pop_front()
        {
            return Err(error.into());
        }
        let can_read = has_room(&broker, &waiting, waiting_bytes);
        if can_read && take_would_succeed(&input) {
            continue;
        }
        reserve(&mut input);
        tokio::select! {
            read = reader.read_buf(&mut input), if can_read => {
                let read = read?;
                if read == 0 {
                    return Ok(());
                }
                if read == input.len() {
                    moved_at = Instant::now();
                }
            }
            result = std::future::poll_fn(|task| poll_front(&mut waiting, task)), if !waiting.is_empty() => result?,
            () = &mut idle_check => {
                let left = max_idle.saturating_sub(moved_at.elapsed());
                if left.is_zero() {
                    return Err(match input.len() {
                        0 => ConnectionError::Idle(max_idle),
                        arrived => ConnectionError::Unfinished { arrived, time: max_idle },
                    });
                }
                idle_check.set(sleep(left));
            }
        }
    }
}

/// Whether another request may start: neither the requests at work nor the answers that wait may grow without end.
fn has_room(broker: &BrokerInner, waiting: &VecDeque<InFlight>, request_bytes: usize) -> bool {
    let answer_bytes = |entry: &InFlight| match &entry.started {
        Started::Done(Some(answer)) => answer.frame.len(),
        _ => 0,
    };
    let is_refused = |entry: &InFlight| matches!(entry.started, Started::Refused(_));
    waiting.len() < broker.config.max_requests_in_flight
        && !waiting.iter().any(is_refused)
        && request_bytes + waiting.iter().map(answer_bytes).sum::<usize>()
            < broker.config.max_request_bytes_in_flight
}

/// Polls one request; what it answers is kept for its turn.
fn advance(entry: &mut InFlight, task: &mut Context<'_>) -> Result<(), RequestError> {
    if let Started::Going(future) = &mut entry.started
        && let Poll::Ready(answer) = future.as_mut().poll(task)
    {
        entry.started = match answer {
            Ok(answer) => Started::Done(answer),
            Err(error @ RequestError::Unanswered { .. }) => Started::Refused(error),
            Err(error) => return Err(error),
        };
    }
    Ok(())
}

/// Ready when the oldest request has its answer. The younger ones are polled too: some need it to make progress.
fn poll_front(
    waiting: &mut VecDeque<InFlight>,
    task: &mut Context<'_>,
) -> Poll<Result<(), RequestError>> {
    for entry in waiting.iter_mut() {
        if let Err(error) = advance(entry, task) {
            return Poll::Ready(Err(error));
        }
    }
    match waiting.front() {
        Some(InFlight {
            started: Started::Going(_),
            ..
        }) => Poll::Pending,
        _ => Poll::Ready(Ok(())),
    }
}

fn announced_length(input: &BytesMut) -> Option<i32> {
    input
        .first_chunk::<4>()
        .map(|prefix| i32::from_be_bytes(*prefix))
}

fn take_would_succeed(input: &BytesMut) -> bool {
    announced_length(input).is_some_and(|length| length < 0 || input.len() - 4 >= length as usize)
}

/// Cuts the next whole frame off the input; refuses one that is announced too long before a byte of it is kept.
fn take_frame(input: &mut BytesMut, limit: usize) -> Result<Option<Bytes>, ConnectionError> {
    let Some(length) = announced_length(input) else {
        return Ok(None);
    };
    if length < 0 || length as usize > limit {
        return Err(ConnectionError::FrameLength {
            length: length as i64,
            limit,
        });
    }
    if input.len() - 4 < length as usize {
        return Ok(None);
    }
    let mut frame = input.split_to(4 + length as usize);
    if frame.len() > KEPT_BYTES {
        let rest = std::mem::replace(input, BytesMut::with_capacity(READ_BYTES));
        input.extend_from_slice(&rest);
    }
    Ok(Some(frame.split_off(4).freeze()))
}

/// Makes room for the rest of an announced frame at once, else for one read.
fn reserve(input: &mut BytesMut) {
    let missing = announced_length(input).map_or(0, |length| {
        (4 + length.max(0) as usize).saturating_sub(input.len())
    });
    // An announced length is a promise, not data: grow by what has really arrived, doubling, up to the promise.
    input.reserve(missing.min(input.len().max(READ_BYTES)).max(READ_BYTES / 4));
}
