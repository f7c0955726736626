//! `list`: runs of all instances, newest first.

use serde_json::Value;

use super::args::ListArgs;
use super::client::Api;
use super::output::cell;
use super::{CliError, Context};

pub async fn list(context: &Context, args: ListArgs) -> Result<(), CliError> {
    let api = Api::new(&context.config.client.api)?;
    let mut query = vec![("limit", args.limit.to_string())];
    let given = [
        ("workflow", args.workflow),
        ("status", args.status),
        ("record", args.record),
        ("since", args.since),
        ("cursor", args.cursor),
    ];
    query.extend(
        given
            .into_iter()
            .filter_map(|(name, value)| Some((name, value?))),
    );
    query.extend(
        args.tags
            .into_iter()
            .map(|(key, value)| ("tag", format!("{key}:{value}"))),
    );
    let answer = api.get("/v1/runs", &query).await?;
    let output = &context.output;
    if !output.is_table() {
        return output.document_text(&answer.text);
    }
    let page = answer.value()?;
    let rows: Vec<_> = page["runs"]
        .as_array()
        .into_iter()
        .flatten()
        .map(row)
        .collect();
    output.table(
        &["RUN", "WORKFLOW", "STATUS", "PROGRESS", "CREATED", "ENDED"],
        &rows,
    );
    if let Some(cursor) = page["next_cursor"].as_str() {
        output.say(&format!("there are more: --cursor {cursor}"));
    }
    Ok(())
}

fn row(run: &Value) -> Vec<String> {
    vec![
        cell(run, "id"),
        format!("{}@{}", cell(run, "workflow"), cell(run, "version")),
        cell(run, "status"),
        format!("{:.0} %", run["progress"].as_f64().unwrap_or(0.0) * 100.0),
        cell(run, "created_at"),
        cell(run, "ended_at"),
    ]
}
