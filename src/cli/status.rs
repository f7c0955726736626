//! `status`: one run with its steps.

use serde_json::Value;

use super::args::StatusArgs;
use super::client::Api;
use super::output::{cell, shorten};
use super::{CliError, Context, run};
use crate::model::{Millis, Timestamp};

/// Records of a match that are shown to people.
const SHOWN_RECORDS: usize = 10;

pub async fn status(context: &Context, args: StatusArgs) -> Result<(), CliError> {
    let api = Api::new(&context.config.client.api)?;
    let answer = api.get(&run::run_path(&args.id)?, &[]).await?;
    if !context.output.is_table() {
        return context.output.document_text(&answer.text);
    }
    print(context, &answer.value()?);
    Ok(())
}

/// A few lines on the run, then its steps as a table.
pub fn print(context: &Context, run: &Value) {
    let output = &context.output;
    let status = cell(run, "status");
    let percent = run["progress"].as_f64().unwrap_or(0.0) * 100.0;
    output.fact("run", &cell(run, "id"));
    output.fact(
        "workflow",
        &format!("{}@{}", cell(run, "workflow"), cell(run, "version")),
    );
    output.line(&format!(
        "status    {}  {percent:.0} %",
        output.status(&status)
    ));
    let took = span_words(run, "started_at", "ended_at", "  took ");
    output.fact("created", &format!("{}{took}", cell(run, "created_at")));
    if let Some(tags) = run["tags"].as_object().filter(|tags| !tags.is_empty()) {
        let words: Vec<_> = tags
            .iter()
            .map(|(key, value)| format!("{key}={}", value.as_str().unwrap_or("?")))
            .collect();
        output.fact("tags", &words.join(" "));
    }
    if let Some(words) = match_words(&run["provenance"]) {
        output.fact("started", &words);
    }
    let error = &run["error"];
    if error.is_object() {
        let step = error["step"]
            .as_str()
            .map(|step| format!(" (step {step})"))
            .unwrap_or_default();
        let (class, message) = (cell(error, "class"), cell(error, "message"));
        output.fact("error", &format!("{class}: {message}{step}"));
    }
    for waiting in run["waiting_for"].as_array().into_iter().flatten() {
        output.fact("waits", &waiting_words(waiting));
    }
    let kept = run["signals"].as_array().into_iter().flatten();
    let kept: Vec<String> = kept.map(|signal| cell(signal, "name")).collect();
    if !kept.is_empty() {
        output.fact("signals", &shorten(&kept.join(", "), 200));
    }
    if !run["output"].is_null() {
        output.fact("output", &shorten(&run["output"].to_string(), 200));
    }
    output.line("");
    let rows: Vec<_> = run["steps"]
        .as_array()
        .into_iter()
        .flatten()
        .map(step_row)
        .collect();
    output.table(
        &["STEP", "STATUS", "AGENT", "ATTEMPT", "TOOK", "RESULT"],
        &rows,
    );
}

/// The match that started a run: its rule and key, and the records that made it; `None`: none did.
pub fn match_words(provenance: &Value) -> Option<String> {
    let rule = provenance["rule"].as_str()?;
    let events = provenance["events"].as_array().into_iter().flatten();
    let mut records: Vec<String> = events
        .map(|event| {
            let place = ["topic", "partition", "offset"].map(|member| cell(event, member));
            format!("{} {}", cell(event, "step"), place.join("/"))
        })
        .collect();
    let more = provenance["more"].as_u64().unwrap_or(0)
        + records.len().saturating_sub(SHOWN_RECORDS) as u64;
    records.truncate(SHOWN_RECORDS);
    if more > 0 {
        records.push(format!("{more} more"));
    }
    Some(format!(
        "by {rule} at {} for {}: {}",
        cell(provenance, "at"),
        provenance["key"],
        records.join(", ")
    ))
}

fn waiting_words(waiting: &Value) -> String {
    let mut words = cell(waiting, "kind");
    for (member, before) in [
        ("signal", " "),
        ("step", " of step "),
        ("agent", " at "),
        ("since", " since "),
        ("until", " until "),
    ] {
        if let Some(text) = waiting[member].as_str() {
            words.push_str(before);
            words.push_str(text);
        }
    }
    if let Some(key) = waiting["key"].as_array().filter(|key| !key.is_empty()) {
        let key: Vec<String> = key.iter().map(Value::to_string).collect();
        words.push_str(&format!(" for {}", key.join(", ")));
    }
    words
}

fn step_row(step: &Value) -> Vec<String> {
    let result = if step["error"].is_object() {
        format!(
            "{}: {}",
            cell(&step["error"], "class"),
            cell(&step["error"], "message")
        )
    } else if step["output"].is_null() {
        "-".to_owned()
    } else {
        step["output"].to_string()
    };
    let took = span_words(step, "scheduled_at", "ended_at", "");
    vec![
        cell(step, "id"),
        cell(step, "status"),
        cell(step, "agent"),
        cell(step, "attempt"),
        if took.is_empty() {
            "-".to_owned()
        } else {
            took
        },
        shorten(&result, 60),
    ]
}

/// `before` and the time between two members; empty where one is missing.
fn span_words(value: &Value, from: &str, to: &str, before: &str) -> String {
    let time = |member: &str| value[member].as_str().and_then(Timestamp::parse);
    match (time(from), time(to)) {
        (Some(from), Some(to)) => format!("{before}{}", short_span(to.since(from))),
        _ => String::new(),
    }
}

/// Two leading units at most: `85ms`, `1.2s`, `3m05s`, `2h07m`.
pub fn short_span(span: Millis) -> String {
    match span.0 {
        millis @ 0..1_000 => format!("{millis}ms"),
        millis @ 1_000..60_000 => format!("{}.{}s", millis / 1_000, millis % 1_000 / 100),
        millis @ 60_000..3_600_000 => format!("{}m{:02}s", millis / 60_000, millis / 1_000 % 60),
        millis => format!("{}h{:02}m", millis / 3_600_000, millis / 60_000 % 60),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_match_is_told_in_a_line() {
        let event = |offset| json!({"step": "s", "topic": "t.u", "partition": 1, "offset": offset});
        let told = |events: Vec<Value>| {
            let provenance =
                json!({"rule": "r@1", "at": "T", "key": {"k": 1}, "events": events, "more": 2});
            match_words(&provenance).unwrap()
        };
        assert_eq!(
            told(vec![event(7)]),
            r#"by r@1 at T for {"k":1}: s t.u/1/7, 2 more"#
        );
        let many = told((0..12).map(event).collect());
        assert!(many.ends_with("s t.u/1/9, 4 more"), "{many}");
        assert_eq!(match_words(&json!({"rule": null})), None);
    }

    #[test]
    fn spans_are_short() {
        for (millis, text) in [
            (85, "85ms"),
            (1_250, "1.2s"),
            (185_000, "3m05s"),
            (7_620_000, "2h07m"),
        ] {
            assert_eq!(short_span(Millis(millis)), text);
        }
    }
}
