//! Histories of runs and the live stream of all events. Both come from the `events` topic, so
//! they are what any Kafka client would read; a stream of server-sent events carries each
//! CloudEvent as `data`, its type as `event` and a resumable position as `id`.

use std::collections::{BTreeMap, HashSet};
use std::convert::Infallible;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream::{Stream, StreamExt};
use serde::Deserialize;
use tokio::sync::OwnedSemaphorePermit;
use tokio_stream::wrappers::ReceiverStream;

use super::Api;
use super::incoming::{Incoming, Segments, run_id};
use super::owner::{self, Local};
use super::problem::{Problem, unknown_run};
use super::runs::json_response;
use crate::model::json::compact;
use crate::model::{EventKind, RunId, rule_event};
use crate::runtime::{History, LiveEvent};

/// A comment line on streams that are silent for so long, so that proxies keep them open.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// `GET /v1/runs/{id}/events`: the whole history as JSON (`complete` says whether it is that), or with `Accept: text/event-stream` a
/// stream that ends with the run. `Last-Event-ID` (or `?from_sequence=`) resumes.
pub async fn history(
    State(api): State<Api>,
    Segments(run): Segments<String>,
    request: Incoming,
) -> Result<Response, Problem> {
    let id = run_id(&run)?;
    let mut from = resumed_sequence(&request, &id)?;
    for (_, value) in request.query(&["from_sequence"], &[])? {
        from = value.parse().ok().filter(|from| *from > 0).ok_or_else(|| {
            Problem::bad_request(format!(
                "`from_sequence` is `{value}`; write a number from 1"
            ))
        })?;
    }
    owner::answer(&api, &id, &request, || async {
        match Local::of(api.runs().run(&id)) {
            Local::Moved => return Local::Moved,
            Local::Done(Err(problem)) => return Local::Done(Err(problem)),
            Local::Done(Ok(None)) => return Local::Done(Err(unknown_run(id.as_str()))),
            Local::Done(Ok(Some(_))) => {}
        }
        if !request.wants_events() {
            return whole_history(&api, &id, from).await;
        }
        let permit = match stream_permit(&api) {
            Ok(permit) => permit,
            Err(problem) => return Local::Done(Err(problem)),
        };
        match Local::of(api.runs().follow(id.clone(), from).await) {
            Local::Moved => Local::Moved,
            Local::Done(Err(problem)) => Local::Done(Err(problem)),
            Local::Done(Ok(events)) => {
                let told = ReceiverStream::new(events).map(|event| {
                    let name = format!("{}/{}", event.run, event.sequence);
                    Ok(sse_event(name, &event.kind, &event.json))
                });
                Local::Done(Ok(sse(&api, permit, told)))
            }
        }
    })
    .await
}

async fn whole_history(api: &Api, id: &RunId, from: u64) -> Local<Result<Response, Problem>> {
    match Local::of(api.runs().history(id.clone(), from).await) {
        Local::Moved => Local::Moved,
        Local::Done(Err(problem)) => Local::Done(Err(problem)),
        Local::Done(Ok(History { events, complete })) => {
            let all: Vec<_> = events.iter().map(|event| compact(&event.json)).collect();
            let all = all.join(",");
            Local::Done(Ok(json_response(
                StatusCode::OK,
                format!(r#"{{"events":[{all}],"complete":{complete}}}"#),
            )))
        }
    }
}

/// The sequence after `Last-Event-ID`, which is `<run id>/<sequence>`; 1 without.
fn resumed_sequence(request: &Incoming, run: &RunId) -> Result<u64, Problem> {
    let Some(id) = last_event_id(request) else {
        return Ok(1);
    };
    let sequence = id
        .strip_prefix(run.as_str())
        .and_then(|rest| rest.strip_prefix('/'))
        .and_then(|text| text.parse::<u64>().ok());
    let next = sequence.and_then(|sequence| sequence.checked_add(1));
    next.ok_or_else(|| {
        Problem::bad_request(format!(
            "`Last-Event-ID` is `{id}`; here it is `{run}/<sequence>`, as the stream gave it"
        ))
    })
}

fn last_event_id(request: &Incoming) -> Option<&str> {
    let id = request.headers.get("last-event-id")?.to_str().ok()?;
    (!id.is_empty()).then_some(id)
}

/// `GET /v1/events`: the events of all runs and rules from now on, or from `Last-Event-ID` on.
pub async fn live(State(api): State<Api>, request: Incoming) -> Result<Response, Problem> {
    let mut types = HashSet::new();
    let mut workflows = HashSet::new();
    for (name, value) in request.query(&[], &["type", "workflow"])? {
        if name == "workflow" {
            workflows.insert(value);
            continue;
        }
        let mut known = EventKind::ALL.map(EventKind::name).to_vec();
        known.extend(rule_event::TYPES);
        if !known.contains(&value.as_str()) {
            return Err(Problem::bad_request(format!(
                "there is no event type `{value}`; types are {}",
                known.join(", ")
            )));
        }
        types.insert(value);
    }
    let positions = match last_event_id(&request) {
        Some(id) => read_positions(id).ok_or_else(|| {
            Problem::bad_request(format!("`Last-Event-ID` is `{id}`, which is no position of this stream; give it as the stream gave it"))
        })?,
        None => BTreeMap::new(),
    };
    let permit = stream_permit(&api)?;
    let tail = api.runs().events_tail(positions).await?;
    // Of all partitions from the first event on, so that resuming misses none.
    let mut positions = tail.from;
    let told = ReceiverStream::new(tail.events).filter_map(move |event| {
        positions.insert(event.partition, event.offset + 1);
        let wanted = (types.is_empty() || types.contains(&event.kind)) && is_of(&event, &workflows);
        let told = wanted.then(|| {
            Ok(sse_event(
                write_positions(&positions),
                &event.kind,
                &event.json,
            ))
        });
        std::future::ready(told)
    });
    Ok(sse(&api, permit, told))
}

fn is_of(event: &LiveEvent, workflows: &HashSet<String>) -> bool {
    #[derive(Deserialize)]
    struct Data {
        workflow: String,
    }
    #[derive(Deserialize)]
    struct OfWorkflow {
        data: Data,
    }
    workflows.is_empty()
        || serde_json::from_str::<OfWorkflow>(&event.json)
            .is_ok_and(|event| workflows.contains(&event.data.workflow))
}

/// `<partition>-<next offset>` of each partition, joined by `.`.
fn write_positions(positions: &BTreeMap<i32, i64>) -> String {
    let all: Vec<String> = positions
        .iter()
        .map(|(partition, offset)| format!("{partition}-{offset}"))
        .collect();
    all.join(".")
}

fn read_positions(text: &str) -> Option<BTreeMap<i32, i64>> {
    text.split('.')
        .map(|part| {
            let (partition, offset) = part.split_once('-')?;
            let partition = partition.parse().ok().filter(|partition| *partition >= 0)?;
            Some((
                partition,
                offset.parse().ok().filter(|offset| *offset >= 0)?,
            ))
        })
        .collect()
}

fn sse_event(id: String, kind: &str, json: &str) -> Event {
    // Payloads may have line breaks, and a line break ends a field of the stream.
    Event::default().id(id).event(kind).data(compact(json))
}

fn stream_permit(api: &Api) -> Result<OwnedSemaphorePermit, Problem> {
    std::sync::Arc::clone(&api.0.streams)
        .try_acquire_owned()
        .map_err(|_| {
            Problem::new(
                StatusCode::TOO_MANY_REQUESTS,
                "too-many-streams",
                "Too many streams are open",
                format!(
                    "this instance serves {} streams at a time",
                    api.settings().max_streams
                ),
            )
            .retry_after(5)
        })
}

/// The stream as a response: it ends with its events, or when the server shuts down.
fn sse(
    api: &Api,
    permit: OwnedSemaphorePermit,
    events: impl Stream<Item = Result<Event, Infallible>> + Send + 'static,
) -> Response {
    let closing = api.closing().clone();
    let until_closed = async move { closing.cancelled().await };
    let events = async_stream_with(permit, events.take_until(Box::pin(until_closed)));
    let mut response = Sse::new(events)
        .keep_alive(KeepAlive::new().interval(KEEP_ALIVE))
        .into_response();
    response
        .headers_mut()
        .insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// The same stream, holding its place among the open streams as long as it lives.
fn async_stream_with<S: Stream>(
    permit: OwnedSemaphorePermit,
    events: S,
) -> impl Stream<Item = S::Item> {
    events.map(move |event| {
        let _held = &permit;
        event
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_read_back() {
        let positions = BTreeMap::from([(0, 12), (7, 0)]);
        assert_eq!(
            read_positions(&write_positions(&positions)),
            Some(positions)
        );
        for wrong in ["", "x", "1-", "-1-2", "1-2."] {
            assert_eq!(read_positions(wrong), None, "{wrong}");
        }
    }
}
