//! `history`: the lifecycle events of a run, as they are on the `events` topic.

use serde_json::Value;

use super::args::HistoryArgs;
use super::client::Api;
use super::output::{cell, shorten};
use super::{CliError, Context, run, sse, tree};

pub async fn history(context: &Context, args: HistoryArgs) -> Result<(), CliError> {
    let api = Api::new(&context.config.client.api)?;
    if args.follow {
        return follow(context, &api, &args.id).await;
    }
    let answer = api
        .get(&format!("{}/events", run::run_path(&args.id)?), &[])
        .await?;
    let events = answer.value()?;
    if !context.output.is_table() {
        context.output.document_text(&answer.text)?;
        return whole(&events);
    }
    let rows: Vec<_> = events["events"]
        .as_array()
        .into_iter()
        .flatten()
        .map(row)
        .collect();
    context
        .output
        .table(&["#", "TIME", "EVENT", "STEP", "ATTEMPT", "DETAIL"], &rows);
    whole(&events)
}

fn whole(history: &Value) -> Result<(), CliError> {
    if history["complete"] != false {
        return Ok(());
    }
    let found = history["events"].as_array().map_or(0, Vec::len);
    Err(CliError::Failed(format!(
        "the history is incomplete, with {found} of its events: the others were not found in time, or are no longer on the topic"
    )))
}

/// Prints events as they come, until the run has ended.
pub async fn follow(context: &Context, api: &Api, id: &str) -> Result<(), CliError> {
    let output = context.output;
    sse::follow(api, &format!("{}/events", run::run_path(id)?), |data| {
        let event = tree::read(data).unwrap_or(Value::Null);
        if output.is_table() {
            let cells = row(&event);
            output.line(&format!(
                "{:>4}  {}  {:<14}  {:<20}  {}",
                cells[0], cells[1], cells[2], cells[3], cells[5]
            ));
        } else {
            output.stream_element(data)?;
        }
        Ok(!is_last(&event))
    })
    .await
}

fn is_last(event: &Value) -> bool {
    let kind = event["type"].as_str().unwrap_or_default();
    matches!(
        kind,
        "partita.run.completed" | "partita.run.failed" | "partita.run.cancelled"
    )
}

fn row(event: &Value) -> Vec<String> {
    let data = &event["data"];
    let sequence = cell(event, "sequence");
    let kind = cell(event, "type");
    let detail = if data["error"].is_object() {
        format!(
            "{}: {}",
            cell(&data["error"], "class"),
            cell(&data["error"], "message")
        )
    } else if kind == "partita.run.signalled" {
        format!("{} {}", cell(data, "name"), data["data"])
    } else {
        let members = ["output", "signal", "reason", "progress", "note", "retry_at"];
        let told = members.iter().find(|member| !data[**member].is_null());
        told.map_or_else(
            || "-".to_owned(),
            |member| format!("{member} {}", data[*member]),
        )
    };
    vec![
        sequence.trim_start_matches('0').to_owned(),
        cell(event, "time"),
        kind.strip_prefix("partita.").unwrap_or(&kind).to_owned(),
        cell(data, "step_id"),
        cell(data, "attempt"),
        shorten(&detail, 80),
    ]
}
