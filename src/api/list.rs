//! `GET /v1/runs`: every instance lists the runs of its own partitions, and whoever was asked
//! merges the pages, newest first. The cursor names the last run of a page, so pages neither
//! repeat nor lose a run while others start.

use std::collections::{BTreeSet, HashSet};
use std::time::{Duration, Instant};

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Response;
use futures_util::future::try_join_all;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::Api;
use super::incoming::{FORWARDED, Incoming};
use super::problem::Problem;
use super::runs::{json_response, view_json};
use crate::model::{RecordPlace, RunId, RunStatus, Timestamp};
use crate::runtime::membership::Member;
use crate::runtime::{ListCursor, RunFilter, SubmitError};

const DEFAULT_LIMIT: usize = 100;
const LARGEST_LIMIT: usize = 1_000;
/// A page ends early when the runs that one instance has for it come to so many bytes of JSON.
const PAGE_BYTES: usize = 8 << 20;
/// How long another instance may take for its page.
const PAGE_WITHIN: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(200);

/// A page, on the way out and as another instance answers it.
#[derive(Serialize, Deserialize)]
struct Page {
    runs: Vec<Box<RawValue>>,
    next_cursor: Option<String>,
}

/// A run of a page, with what the order goes by.
struct Row {
    place: ListCursor,
    json: Box<RawValue>,
}

/// The runs of some partitions, newest first.
struct Rows {
    rows: Vec<Row>,
    /// There are others behind the last.
    more: bool,
}

/// What of a run's view the order needs.
#[derive(Deserialize)]
struct Place {
    id: RunId,
    created_at: Timestamp,
}

/// Why pages could not be put together this time; worth another try.
struct Incomplete(String);

/// `GET /v1/runs`.
pub async fn list(State(api): State<Api>, request: Incoming) -> Result<Response, Problem> {
    let query = ListQuery::read(&request)?;
    let page = if request.forwarded() {
        page_of(vec![own_rows(&api, &query).await?], query.limit)
    } else {
        let target = request
            .uri
            .path_and_query()
            .map_or("/v1/runs", |target| target.as_str());
        all_pages(&api, &query, target).await?
    };
    Ok(json_response(
        StatusCode::OK,
        serde_json::to_string(&page).expect("a page serialises"),
    ))
}

#[derive(Clone, Debug)]
struct ListQuery {
    filter: RunFilter,
    limit: usize,
    after: Option<ListCursor>,
}

impl ListQuery {
    fn read(request: &Incoming) -> Result<Self, Problem> {
        let mut query = Self {
            filter: RunFilter::default(),
            limit: DEFAULT_LIMIT,
            after: None,
        };
        for (name, value) in request.query(
            &[
                "workflow", "status", "record", "since", "until", "limit", "cursor",
            ],
            &["tag"],
        )? {
            match name.as_str() {
                "workflow" => query.filter.workflow = Some(value),
                "status" => query.filter.status = Some(status(&value)?),
                "record" => query.filter.record = Some(record(&value)?),
                "tag" => {
                    let wrong =
                        || Problem::bad_request(format!("`tag` is `{value}`; write key:value"));
                    let (key, value) = value.split_once(':').ok_or_else(wrong)?;
                    let tags = &mut query.filter.tags;
                    if tags.insert(key.to_owned(), value.to_owned()).is_some() {
                        return Err(Problem::bad_request(format!(
                            "the tag `{key}` is given twice; a run has one value of it"
                        )));
                    }
                }
                "since" => query.filter.since = Some(time(&name, &value)?),
                "until" => query.filter.until = Some(time(&name, &value)?),
                "limit" => {
                    let limit = value
                        .parse()
                        .ok()
                        .filter(|limit| (1..=LARGEST_LIMIT).contains(limit));
                    query.limit = limit.ok_or_else(|| {
                        Problem::bad_request(format!(
                            "`limit` is `{value}`; write a number from 1 to {LARGEST_LIMIT}"
                        ))
                    })?;
                }
                _ => {
                    let cursor = read_cursor(&value);
                    query.after = Some(cursor.ok_or_else(|| {
                        Problem::bad_request("`cursor` is none of ours; give `next_cursor` of the page before as it is")
                    })?);
                }
            }
        }
        Ok(query)
    }
}

fn status(text: &str) -> Result<RunStatus, Problem> {
    RunStatus::ALL
        .into_iter()
        .find(|status| status.name() == text)
        .ok_or_else(|| {
            let names: Vec<&str> = RunStatus::ALL.iter().map(|status| status.name()).collect();
            Problem::bad_request(format!(
                "`status` is `{text}`; a run is one of {}",
                names.join(", ")
            ))
        })
}

fn record(text: &str) -> Result<RecordPlace, Problem> {
    RecordPlace::parse(text).ok_or_else(|| {
        Problem::bad_request(format!(
            "`record` is `{text}`; write TOPIC/PARTITION/OFFSET, such as stock.prices/0/17"
        ))
    })
}

fn time(name: &str, text: &str) -> Result<Timestamp, Problem> {
    // A `+` that nobody encoded arrives as a blank.
    Timestamp::parse(&text.replace(' ', "+")).ok_or_else(|| {
        Problem::bad_request(format!(
            "`{name}` is `{text}`; write a time in RFC 3339, such as 2026-01-31T12:00:00Z"
        ))
    })
}

/// The runs of the partitions owned here. On a thread for such work: stores are read.
async fn own_rows(api: &Api, query: &ListQuery) -> Result<Rows, SubmitError> {
    let (api, query) = (api.clone(), query.clone());
    let read = tokio::task::spawn_blocking(move || read_rows(&api, &query));
    match read.await {
        Ok(rows) => rows,
        Err(failed) => std::panic::resume_unwind(failed.into_panic()),
    }
}

fn read_rows(api: &Api, query: &ListQuery) -> Result<Rows, SubmitError> {
    let page = api
        .runs()
        .list(&query.filter, query.limit, query.after.as_ref())?;
    let mut more = page.next.is_some();
    let (mut rows, mut bytes) = (Vec::new(), 0);
    let mut runs = page.runs.into_iter();
    for run in runs.by_ref() {
        let json = RawValue::from_string(view_json(api, &run)).expect("a view is JSON");
        bytes += json.get().len();
        let place = ListCursor {
            created_at: run.created_at,
            run: run.id,
        };
        rows.push(Row { place, json });
        if bytes >= PAGE_BYTES {
            break;
        }
    }
    more |= runs.next().is_some();
    Ok(Rows { rows, more })
}

/// Merges what there is of each instance.
fn page_of(sources: Vec<Rows>, limit: usize) -> Page {
    let mut more = sources.iter().any(|source| source.more);
    // Nobody knows what those that have more have behind their last: the page ends where the first of them
    // does.
    let ends = sources.iter().filter(|source| source.more);
    let end = ends.filter_map(|source| Some(source.rows.last()?.place.clone()));
    let end = end.max();
    let rows = sources.into_iter().flat_map(|source| source.rows);
    let mut rows: Vec<Row> = match end {
        None => rows.collect(),
        Some(end) => rows.filter(|row| row.place >= end).collect(),
    };
    rows.sort_by(|a, b| b.place.cmp(&a.place));
    // While a partition moves, two instances may both list it.
    let mut seen = HashSet::new();
    rows.retain(|row| seen.insert(row.place.run.clone()));
    more |= rows.len() > limit;
    rows.truncate(limit);
    let next_cursor = rows
        .last()
        .filter(|_| more)
        .map(|row| write_cursor(&row.place));
    Page {
        runs: rows.into_iter().map(|row| row.json).collect(),
        next_cursor,
    }
}

/// Pages of all instances, merged. Tried again for a little while where a partition has no owner
/// or an owner does not answer; then 503, because a list with holes would look complete.
async fn all_pages(api: &Api, query: &ListQuery, target: &str) -> Result<Page, Problem> {
    let deadline = Instant::now() + api.settings().owner_patience;
    loop {
        match one_try(api, query, target).await? {
            Ok(page) => return Ok(page),
            Err(Incomplete(why))
                if Instant::now() + PAUSE >= deadline || api.closing().is_cancelled() =>
            {
                return Err(Problem::unavailable(format!(
                    "the list would have holes: {why}"
                )));
            }
            Err(Incomplete(_)) => tokio::time::sleep(PAUSE).await,
        }
    }
}

async fn one_try(
    api: &Api,
    query: &ListQuery,
    target: &str,
) -> Result<Result<Page, Incomplete>, Problem> {
    let others = api.membership().others();
    if let Some(why) = uncovered(api, &others) {
        return Ok(Err(Incomplete(why)));
    }
    let mut sources = match own_rows(api, query).await {
        Ok(own) => vec![own],
        Err(error @ (SubmitError::NotReady { .. } | SubmitError::NotOwner { .. })) => {
            return Ok(Err(Incomplete(error.to_string())));
        }
        Err(other) => return Err(other.into()),
    };
    let owners = others.iter().filter(|member| !member.partitions.is_empty());
    match try_join_all(owners.map(|member| page_from(api, member, target))).await {
        Ok(pages) => {
            sources.extend(pages);
            Ok(Ok(page_of(sources, query.limit)))
        }
        Err(incomplete) => Ok(Err(incomplete)),
    }
}

/// Why not every partition has an owner whose state is there; `None`: all have.
fn uncovered(api: &Api, others: &[Member]) -> Option<String> {
    let all = api.runs().partitions();
    if all == 0 {
        return Some("the broker has not told the partitions yet".to_owned());
    }
    let own = api
        .runs()
        .owned()
        .into_iter()
        .filter(|owned| owned.restored)
        .map(|owned| owned.partition);
    let theirs = others
        .iter()
        .flat_map(|member| &member.partitions)
        .filter(|owned| owned.restored)
        .map(|owned| owned.partition);
    let covered: BTreeSet<i32> = own.chain(theirs).collect();
    let missing: Vec<String> = (0..all)
        .filter(|partition| !covered.contains(partition))
        .map(|p| p.to_string())
        .collect();
    (!missing.is_empty()).then(|| format!("no instance has partition {}", missing.join(", ")))
}

async fn page_from(api: &Api, member: &Member, target: &str) -> Result<Rows, Incomplete> {
    let because = |why: String| {
        Incomplete(format!(
            "instance {} did not answer: {why}",
            member.instance
        ))
    };
    let asked = api
        .0
        .http
        .get(format!("{}{target}", member.api))
        .header(FORWARDED, api.membership().instance())
        .timeout(PAGE_WITHIN)
        .send()
        .await
        .and_then(reqwest::Response::error_for_status)
        .map_err(|error| because(error.to_string()))?;
    let page: Page = asked
        .json()
        .await
        .map_err(|error| because(error.to_string()))?;
    let more = page.next_cursor.is_some();
    let mut rows = Vec::with_capacity(page.runs.len());
    for json in page.runs {
        let place: Place =
            serde_json::from_str(json.get()).map_err(|error| because(error.to_string()))?;
        rows.push(Row {
            place: ListCursor {
                created_at: place.created_at,
                run: place.id,
            },
            json,
        });
    }
    Ok(Rows { rows, more })
}

/// Whether any run of this workflow that has not ended pins one of `versions`, over all instances.
pub async fn any_live_run_pins(
    api: &Api,
    workflow: &str,
    versions: &[u32],
) -> Result<Option<String>, Problem> {
    #[derive(Deserialize)]
    struct Pinned {
        id: String,
        version: u32,
    }
    for status in RunStatus::ALL
        .into_iter()
        .filter(|status| !status.is_ended())
    {
        let filter = RunFilter {
            workflow: Some(workflow.to_owned()),
            status: Some(status),
            ..RunFilter::default()
        };
        let mut query = ListQuery {
            filter,
            limit: LARGEST_LIMIT,
            after: None,
        };
        loop {
            let page = all_pages(
                api,
                &query,
                &target_of(workflow, status, query.after.as_ref()),
            )
            .await?;
            for run in &page.runs {
                let run: Pinned = serde_json::from_str(run.get()).map_err(|error| {
                    Problem::unavailable(format!("a run of a page cannot be read: {error}"))
                })?;
                if versions.contains(&run.version) {
                    return Ok(Some(run.id));
                }
            }
            query.after = page.next_cursor.as_deref().and_then(read_cursor);
            if query.after.is_none() {
                break;
            }
        }
    }
    Ok(None)
}

fn target_of(workflow: &str, status: RunStatus, after: Option<&ListCursor>) -> String {
    let mut url = reqwest::Url::parse("http://instance/v1/runs").expect("a constant URL is valid");
    let limit = LARGEST_LIMIT.to_string();
    url.query_pairs_mut().extend_pairs([
        ("workflow", workflow),
        ("status", status.name()),
        ("limit", &limit),
    ]);
    if let Some(after) = after {
        url.query_pairs_mut()
            .append_pair("cursor", &write_cursor(after));
    }
    format!("{}?{}", url.path(), url.query().unwrap_or_default())
}

/// Hexadecimal of `<milliseconds>/<run id>`.
fn write_cursor(cursor: &ListCursor) -> String {
    use std::fmt::Write;
    let plain = format!("{}/{}", cursor.created_at.0, cursor.run);
    plain
        .bytes()
        .fold(String::with_capacity(plain.len() * 2), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
}

fn read_cursor(text: &str) -> Option<ListCursor> {
    if !text.is_ascii() || !text.len().is_multiple_of(2) {
        return None;
    }
    let bytes: Option<Vec<u8>> = (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).ok())
        .collect();
    let plain = String::from_utf8(bytes?).ok()?;
    let (millis, run) = plain.split_once('/')?;
    Some(ListCursor {
        created_at: Timestamp(millis.parse().ok()?),
        run: RunId::parse(run).ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(at: i64, id: &str) -> Row {
        let place = ListCursor {
            created_at: Timestamp(at),
            run: RunId::parse(id).unwrap(),
        };
        Row {
            place,
            json: RawValue::from_string(format!("\"{id}\"")).unwrap(),
        }
    }

    #[test]
    fn a_cursor_reads_back() {
        let cursor = ListCursor {
            created_at: Timestamp(1_795_219_200_123),
            run: RunId::parse("a.b~c-1").unwrap(),
        };
        assert_eq!(read_cursor(&write_cursor(&cursor)), Some(cursor));
        for wrong in ["", "zz", "abc", "é", "00"] {
            assert_eq!(read_cursor(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn pages_merge_newest_first_without_doubles() {
        let rows = vec![
            row(1, "a"),
            row(3, "c"),
            row(2, "b"),
            row(3, "c"),
            row(3, "d"),
        ];
        let page = page_of(vec![Rows { rows, more: false }], 3);
        let ids: Vec<&str> = page.runs.iter().map(|run| run.get()).collect();
        assert_eq!(ids, ["\"d\"", "\"c\"", "\"b\""]);
        assert_eq!(
            read_cursor(&page.next_cursor.unwrap())
                .unwrap()
                .run
                .as_str(),
            "b"
        );
        let only = Rows {
            rows: vec![row(1, "a")],
            more: false,
        };
        assert!(page_of(vec![only], 1).next_cursor.is_none());
    }

    #[test]
    fn a_page_ends_where_the_first_instance_has_more() {
        // The first stopped early, for its runs are large: behind `d` it may have others.
        let early = Rows {
            rows: vec![row(5, "f"), row(4, "d")],
            more: true,
        };
        let whole = Rows {
            rows: vec![row(4, "e"), row(3, "c"), row(1, "a")],
            more: false,
        };
        let page = page_of(vec![early, whole], 100);
        let ids: Vec<&str> = page.runs.iter().map(|run| run.get()).collect();
        assert_eq!(ids, ["\"f\"", "\"e\"", "\"d\""]);
        let next = read_cursor(&page.next_cursor.expect("there is more"));
        assert_eq!(next.expect("ours").run.as_str(), "d");
    }
}
