//! `rules stats`: what the rules in force have done and hold, over all instances.

use serde_json::Value;

use crate::cli::args::RulesStatsArgs;
use crate::cli::client::Api;
use crate::cli::output::cell;
use crate::cli::status::short_span;
use crate::cli::{CliError, Context};
use crate::model::Millis;

pub async fn run(context: &Context, args: RulesStatsArgs) -> Result<(), CliError> {
    let api = Api::new(&context.config.client.api)?;
    let query: Vec<_> = args.rule.into_iter().map(|rule| ("rule", rule)).collect();
    let answer = api.get("/v1/rules/stats", &query).await?;
    let stats = answer.value()?;
    let output = &context.output;
    for instance in stats["unanswered"].as_array().into_iter().flatten() {
        output.say(&format!(
            "without instance {}, which did not answer: {}",
            cell(instance, "instance"),
            cell(instance, "reason")
        ));
    }
    if !output.is_table() {
        return output.document_text(&answer.text);
    }
    let rules = stats["rules"].as_array().into_iter().flatten();
    let rows: Vec<Vec<String>> = rules.map(row).collect();
    output.table(&COLUMNS, &rows);
    for instance in stats["instances"].as_array().into_iter().flatten() {
        output.say(&format!(
            "counted by instance {} since {}",
            cell(instance, "instance"),
            cell(instance, "since")
        ));
    }
    Ok(())
}

const COLUMNS: [&str; 14] = [
    "RULE",
    "STATE",
    "EVENTS",
    "MATCHES",
    "ACTED",
    "LATE",
    "HELD BACK",
    "ERRORS",
    "OVERFLOWS",
    "KEYS",
    "PARTIALS",
    "BUFFERED",
    "LAST MATCH",
    "BEHIND",
];

fn row(rule: &Value) -> Vec<String> {
    let state = match rule["canary_percent"].as_f64() {
        Some(percent) => format!("{} {percent} %", cell(rule, "state")),
        None => cell(rule, "state"),
    };
    let overflows = rule["overflows"].as_object().into_iter().flatten();
    let overflows: u64 = overflows.filter_map(|(_, count)| count.as_u64()).sum();
    let behind = rule["behind_ms"].as_i64();
    let behind = behind.map(|millis| short_span(Millis(millis.max(0).unsigned_abs())));
    let mut row = vec![
        format!("{}@{}", cell(rule, "rule"), cell(rule, "version")),
        state,
    ];
    let counts = [
        "events",
        "matches",
        "acted",
        "late",
        "suppressed",
        "condition_errors",
    ];
    row.extend(counts.map(|name| cell(rule, name)));
    row.push(overflows.to_string());
    row.extend(["keys", "partials", "buffered", "last_match_at"].map(|name| cell(rule, name)));
    row.push(behind.unwrap_or_else(|| "-".to_owned()));
    row
}
