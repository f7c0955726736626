//! `list`: runs of all instances, newest first.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

use super::args::ListArgs;
use super::client::{Api, each_tag_once};
use super::output::cell;
use super::{CliError, Context, tree};

/// Runs, and from where on there are more.
#[derive(Serialize, Deserialize)]
struct Page {
    runs: Vec<Box<RawValue>>,
    next_cursor: Option<String>,
}

pub async fn list(context: &Context, args: ListArgs) -> Result<(), CliError> {
    let api = Api::new(&context.config.client.api)?;
    let query = query_of(&args)?;
    let page = runs(&api, query, args.limit as usize, args.cursor).await?;
    let output = &context.output;
    if !output.is_table() {
        let text = serde_json::to_string(&page).expect("a page serialises");
        return output.document_text(&text);
    }
    let rows: Vec<_> = page.runs.iter().map(|run| row(run)).collect();
    output.table(
        &["RUN", "WORKFLOW", "STATUS", "PROGRESS", "CREATED", "ENDED"],
        &rows,
    );
    if let Some(cursor) = page.next_cursor {
        output.say(&format!("there are more: --cursor {cursor}"));
    }
    Ok(())
}

/// Which runs are asked for.
fn query_of(args: &ListArgs) -> Result<Vec<(&'static str, String)>, CliError> {
    each_tag_once(&args.tags)?;
    let given = [
        ("workflow", &args.workflow),
        ("status", &args.status),
        ("record", &args.record),
        ("since", &args.since),
    ];
    let mut query: Vec<_> = given
        .into_iter()
        .filter_map(|(name, value)| Some((name, value.clone()?)))
        .collect();
    for (key, value) in &args.tags {
        if key.contains(':') {
            return Err(CliError::Usage(format!(
                "--tag: the key `{key}` has a colon; runs cannot be listed by such a tag"
            )));
        }
        query.push(("tag", format!("{key}:{value}")));
    }
    Ok(query)
}

/// The first `limit` runs behind `cursor`, of as many pages as that takes: the server may end one early.
async fn runs(
    api: &Api,
    query: Vec<(&str, String)>,
    limit: usize,
    cursor: Option<String>,
) -> Result<Page, CliError> {
    let mut all = Page {
        runs: Vec::new(),
        next_cursor: cursor,
    };
    loop {
        let left = limit - all.runs.len();
        let mut query = [vec![("limit", left.to_string())], query.clone()].concat();
        query.extend(all.next_cursor.map(|cursor| ("cursor", cursor)));
        let page: Page = api.get("/v1/runs", &query).await?.read()?;
        // From a page without runs there is no way on.
        let ended = page.next_cursor.is_none() || page.runs.is_empty();
        all.runs.extend(page.runs);
        all.next_cursor = page.next_cursor;
        if ended || all.runs.len() >= limit {
            return Ok(all);
        }
    }
}

fn row(run: &RawValue) -> Vec<String> {
    let run = &tree::read(run.get()).unwrap_or(Value::Null);
    vec![
        cell(run, "id"),
        format!("{}@{}", cell(run, "workflow"), cell(run, "version")),
        cell(run, "status"),
        format!("{:.0} %", run["progress"].as_f64().unwrap_or(0.0) * 100.0),
        cell(run, "created_at"),
        cell(run, "ended_at"),
    ]
}
