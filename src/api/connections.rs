//! The listener's end of the API: how many connections there may be, and how long one may take
//! over each part of an exchange. Without these bounds a few clients that trickle, or that never
//! come to an end, would hold the descriptors of the whole instance.
//!
//! A connection that finds no place is told so with 503. One whose request does not come in time
//! is told 408 and closed: the head is timed here, the body where it is read
//! ([`super::incoming`]). Between two requests it may be silent for a while; then it is closed
//! without a word, as HTTP has it. While a request is being answered nothing is timed but the
//! client's taking of the answer, so long polls and streams last as long as they need.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, HttpBody};
use axum::http::Request;
use hyper::body::{Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, Sleep, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use super::problem::Problem;
use crate::telemetry::names;

/// Bounds of the connections to one instance.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionLimits {
    /// Connections at one time; a long poll and a stream hold one each.
    pub max_connections: usize,
    /// From the first byte of a request (or from the connection's start) to the end of its head.
    pub header_timeout: Duration,
    /// From the end of a request's head to the end of its body.
    pub body_timeout: Duration,
    /// How long a connection may be silent between two requests.
    pub idle_timeout: Duration,
    /// How long a client may take nothing of an answer that is being sent.
    pub send_timeout: Duration,
}

impl Default for ConnectionLimits {
    fn default() -> Self {
        Self {
            max_connections: 512,
            header_timeout: Duration::from_secs(10),
            body_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(75),
            send_timeout: Duration::from_secs(30),
        }
    }
}

/// Of the buffer that a request's head must fit in, in bytes; a head that does not is 431.
const MAX_HEAD_BYTES: usize = 64 << 10;
/// Connections that are being refused at one time; further ones are closed without a word.
const MAX_REFUSALS: usize = 64;
/// How long a refused client may take to read why.
const REFUSAL_WITHIN: Duration = Duration::from_secs(2);
/// After a failure to accept, such as no descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// Accepts connections until `closing` is cancelled; then requests under way are finished, at
/// most for `grace`. `false` where that was not enough.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    limits: ConnectionLimits,
    closing: CancellationToken,
    grace: Duration,
) -> bool {
    let places = Arc::new(Semaphore::new(limits.max_connections));
    let refusals = Arc::new(Semaphore::new(MAX_REFUSALS));
    let mut open = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            () = closing.cancelled() => break,
            Some(_) = open.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        if let Ok(place) = Arc::clone(&places).try_acquire_owned() {
            let (router, closing) = (router.clone(), closing.clone());
            open.spawn(async move {
                let _place = place;
                connection(stream, router, limits, closing).await;
            });
            continue;
        }
        dropped("full");
        if let Ok(refusal) = Arc::clone(&refusals).try_acquire_owned() {
            open.spawn(async move {
                let _refusal = refusal;
                refuse(stream, limits.max_connections).await;
            });
        }
    }
    drop(listener);
    let all = async { while open.join_next().await.is_some() {} };
    timeout(grace, all).await.is_ok()
}

fn dropped(reason: &'static str) {
    metrics::counter!(names::HTTP_CONNECTIONS_DROPPED_TOTAL, "reason" => reason).increment(1);
}

/// Where a connection stands, and since when.
#[derive(Clone, Copy, Debug)]
struct Phase {
    at: At,
    since: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    /// Connected, nothing heard yet.
    Fresh,
    /// A request has begun to come.
    Head,
    /// A request is being read, answered or sent.
    Exchange,
    /// Between two requests.
    Idle,
}

type Phases = watch::Sender<Phase>;

fn enter(phases: &Phases, at: At) {
    let since = Instant::now();
    phases.send_replace(Phase { at, since });
}

/// One connection from its start to its end.
async fn connection(
    mut stream: TcpStream,
    router: Router,
    limits: ConnectionLimits,
    closing: CancellationToken,
) {
    // Answers are written whole; nothing is gained by waiting for more.
    let _ = stream.set_nodelay(true);
    let late = exchange(&mut stream, router, limits, closing).await;
    if late {
        dropped("header_timeout");
        let within = limits.header_timeout.as_secs_f64();
        let detail = format!("the head of the request did not come within {within} s");
        last_words(stream, &Problem::too_slow(detail)).await;
    }
}

/// Serves requests until either side has had enough; `true` where a request had begun and its
/// head did not come in time.
async fn exchange(
    stream: &mut TcpStream,
    router: Router,
    limits: ConnectionLimits,
    closing: CancellationToken,
) -> bool {
    let (at, since) = (At::Fresh, Instant::now());
    let phases = Arc::new(Phases::new(Phase { at, since }));
    let mut phase = phases.subscribe();
    let (reader, writer) = stream.split();
    let heard = Heard {
        reader,
        phases: Arc::clone(&phases),
    };
    let sending = Sending {
        writer,
        patience: limits.send_timeout,
        stalled: None,
    };
    let answering = TowerToHyperService::new(router);
    let service = service_fn(|request: Request<Incoming>| {
        enter(&phases, At::Exchange);
        let phases = Arc::clone(&phases);
        let answer = answering.call(request);
        async move {
            // Also where the answer is given up half way.
            let until_sent = UntilSent(phases);
            Ok::<_, std::convert::Infallible>(
                answer
                    .await
                    .unwrap_or_else(|never| match never {})
                    .map(|body| Watched {
                        body,
                        _until_sent: until_sent,
                    }),
            )
        }
    });
    let mut http = http1::Builder::new();
    http.header_read_timeout(None).max_buf_size(MAX_HEAD_BYTES);
    let mut served = std::pin::pin!(
        http.serve_connection(TokioIo::new(tokio::io::join(heard, sending)), service)
    );
    // A connection that is asked to close may still have an answer to get rid of.
    let mut asked_to_close = false;
    loop {
        let Phase { at, since } = *phase.borrow_and_update();
        let due = match at {
            At::Fresh | At::Head => Some(since + limits.header_timeout),
            At::Idle if asked_to_close => Some(since + limits.idle_timeout + limits.send_timeout),
            At::Idle => Some(since + limits.idle_timeout),
            At::Exchange => None,
        };
        let overdue = async {
            match due {
                Some(due) => sleep_until(due).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            // What is ready to be read or written goes before what is late.
            biased;
            ended = served.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(%error, "a connection ended early");
                }
                return false;
            }
            _ = phase.changed() => {}
            () = closing.cancelled(), if !asked_to_close => {
                asked_to_close = true;
                served.as_mut().graceful_shutdown();
            }
            () = overdue => match at {
                At::Head => return true,
                At::Idle if !asked_to_close => {
                    asked_to_close = true;
                    served.as_mut().graceful_shutdown();
                }
                At::Fresh | At::Idle | At::Exchange => return false,
            },
        }
    }
}

/// Tells a client that there is no place for it, once it has begun to ask: an answer that comes
/// before its question is none to many clients.
async fn refuse(stream: TcpStream, most: usize) {
    let asked = timeout(REFUSAL_WITHIN, stream.peek(&mut [0])).await;
    if matches!(asked, Ok(Ok(bytes)) if bytes > 0) {
        let full = Problem::unavailable(format!(
            "this instance serves {most} connections at a time (http.max_connections)"
        ));
        last_words(stream, &full).await;
    }
}

/// Writes a problem to a client that will get nothing else, and closes. What the client still
/// sends is read and thrown away: closing on unread bytes would take the answer away from it.
async fn last_words(mut stream: TcpStream, problem: &Problem) {
    let body = problem.text("/");
    let retry = problem
        .retry_after
        .map(|seconds| format!("retry-after: {seconds}\r\n"))
        .unwrap_or_default();
    let answer = format!(
        "HTTP/1.1 {}\r\ncontent-type: application/problem+json\r\ncontent-length: {}\r\n{retry}connection: close\r\n\r\n{body}",
        problem.status,
        body.len(),
    );
    let told = async {
        stream.write_all(answer.as_bytes()).await?;
        stream.shutdown().await?;
        let mut unread = [0; 4096];
        while stream.read(&mut unread).await? > 0 {}
        io::Result::Ok(())
    };
    // A client that is gone, or does not listen, misses it.
    let _ = timeout(REFUSAL_WITHIN, told).await;
}

/// The reading half: notices when a request begins to come.
struct Heard<R> {
    reader: R,
    phases: Arc<Phases>,
}

impl<R: AsyncRead + Unpin> AsyncRead for Heard<R> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = into.filled().len();
        ready!(Pin::new(&mut self.reader).poll_read(cx, into))?;
        let waiting = matches!(self.phases.borrow().at, At::Fresh | At::Idle);
        if waiting && into.filled().len() > before {
            enter(&self.phases, At::Head);
        }
        Poll::Ready(Ok(()))
    }
}

/// The writing half: fails where the client has taken nothing for `patience`.
struct Sending<W> {
    writer: W,
    patience: Duration,
    stalled: Option<Pin<Box<Sleep>>>,
}

impl<W> Sending<W> {
    fn timed<T>(
        &mut self,
        cx: &mut Context<'_>,
        polled: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.stalled = None;
            return polled;
        }
        let patience = self.patience;
        let stalled = self
            .stalled
            .get_or_insert_with(|| Box::pin(sleep(patience)));
        ready!(stalled.as_mut().poll(cx));
        dropped("send_timeout");
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<W: AsyncWrite + Unpin> AsyncWrite for Sending<W> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.writer).poll_write(cx, bytes);
        self.timed(cx, polled)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.writer).poll_write_vectored(cx, slices);
        self.timed(cx, polled)
    }

    fn is_write_vectored(&self) -> bool {
        self.writer.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.writer).poll_flush(cx);
        self.timed(cx, polled)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.writer).poll_shutdown(cx);
        self.timed(cx, polled)
    }
}

/// Ends the exchange when the answer has been handed over whole, or is given up.
struct UntilSent(Arc<Phases>);

impl Drop for UntilSent {
    fn drop(&mut self) {
        enter(&self.0, At::Idle);
    }
}

/// An answer's body, passed through as it is.
struct Watched {
    body: Body,
    _until_sent: UntilSent,
}

impl HttpBody for Watched {
    type Data = <Body as HttpBody>::Data;
    type Error = <Body as HttpBody>::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
