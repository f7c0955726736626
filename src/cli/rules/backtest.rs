//! `rules backtest`: rules over what lies in their topics, between two instants.

use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};

use super::{instant, rules_of_file, rules_of_text, say_unreadable, show};
use crate::cli::args::RulesBacktestArgs;
use crate::cli::client::{Api, segment};
use crate::cli::{CliError, Context};
use crate::clock::{Clock, SystemClock};
use crate::document::duration;
use crate::instance::event_schemas;
use crate::log::kafka::range::{Edge, Span};
use crate::log::{ErrorClass, LogError};
use crate::model::Timestamp;
use crate::pattern::Rule;
use crate::runtime::backtest::{BacktestError, BacktestSettings, Backtested, Progress, backtest};
use crate::runtime::intake::schemas::KnownSchemas;

impl From<BacktestError> for CliError {
    fn from(error: BacktestError) -> Self {
        match &error {
            BacktestError::NoTopic { .. } => CliError::NotFoundOrConflict(error.to_string()),
            BacktestError::Log(LogError {
                class: ErrorClass::Fatal,
                ..
            }) => CliError::Failed(error.to_string()),
            BacktestError::Log(_) => CliError::Unreachable(format!(
                "{error}\nname the brokers with --kafka or KAFKA_BROKERS"
            )),
            BacktestError::Schema(_) => CliError::Unreachable(error.to_string()),
        }
    }
}

pub async fn run(context: &Context, args: RulesBacktestArgs) -> Result<(), CliError> {
    let now = SystemClock.now();
    let advance_to = args.advance_to.as_deref();
    let from = edge("--from", &args.from, now)?;
    let to = edge("--to", &args.to, now)?;
    if let (Edge::At(first), Edge::At(last)) = (from, to)
        && last < first
    {
        return Err(CliError::Usage(format!(
            "--to {last} lies before --from {first}"
        )));
    }
    let settings = BacktestSettings {
        client: context.config.kafka.client_settings(),
        from,
        to,
        advance_to: advance_to
            .map(|text| instant("--advance-to", text))
            .transpose()?,
        max_payload_bytes: context.config.runtime.max_payload_bytes,
        now,
        most: args.limit_matches,
    };
    let mut sets = vec![rules_of(context, &args.rule).await?];
    if let Some(against) = &args.against {
        sets.push(rules_of(context, against).await?);
    }
    let schemas = event_schemas(&context.config);
    let output = context.output;
    let work = move || {
        let schemas =
            KnownSchemas::new(schemas).map_err(|error| CliError::Usage(error.to_string()))?;
        let mut tell = |progress: Progress| {
            let Progress { records, offsets } = progress;
            output.say(&format!("{records} records read, of {offsets} at most"));
        };
        Ok::<_, CliError>(backtest(&settings, &schemas, &sets, &mut tell)?)
    };
    let done = tokio::task::spawn_blocking(work).await;
    let done =
        done.map_err(|error| CliError::Failed(format!("the backtest broke off: {error}")))??;
    show(context, &document(&done));
    say_rest(context, &done);
    Ok(())
}

fn document(done: &Backtested) -> Value {
    let mut sets = done.findings.iter();
    let found = sets.next().expect("at least the rules asked about");
    let mut document = found.document();
    if let Some(against) = sets.next() {
        document["diff"] = found.diff(against);
    }
    document["records"] = done.records.into();
    document["unreadable"] = done.unreadable.document();
    document["ranges"] = done.spans.iter().map(range).collect();
    document
}

fn range(span: &Span) -> Value {
    json!({
        "topic": &*span.at.topic,
        "partition": span.at.partition,
        "from": span.from,
        "end": span.end,
    })
}

fn say_rest(context: &Context, done: &Backtested) {
    let output = &context.output;
    output.say(&format!(
        "{} records in {} partitions, {} unreadable",
        done.records,
        done.spans.len(),
        done.unreadable.count
    ));
    say_unreadable(output, &done.unreadable);
}

/// The rules of a file; or that rule, in that version or the highest, as the server has it.
async fn rules_of(context: &Context, named: &str) -> Result<Vec<Arc<Rule>>, CliError> {
    let path = Path::new(named);
    let endings = ["yaml", "yml", "json"];
    let ending = path.extension().and_then(|ending| ending.to_str());
    let is_file = path.is_file()
        || named.contains('/')
        || ending.is_some_and(|ending| endings.contains(&ending));
    if is_file {
        return rules_of_file(context, path);
    }
    let api = Api::new(&context.config.client.api)?;
    let path = format!("/v1/definitions/rule/{}", segment(named));
    let answer = api.get(&path, &[]).await?;
    rules_of_text(context, &answer.text, named)
}

/// `earliest`, `latest`, a span back from now, or an instant.
fn edge(flag: &str, text: &str, now: Timestamp) -> Result<Edge, CliError> {
    match text {
        "earliest" => return Ok(Edge::Earliest),
        "latest" => return Ok(Edge::Latest),
        _ => {}
    }
    let back = text.strip_prefix('-').map(duration::parse);
    if let Some(Ok(span)) = back {
        return Ok(Edge::At(now - span));
    }
    let at = instant(flag, text).map_err(|error| {
        CliError::Usage(format!(
            "{error}, a span back from now, such as -1h, earliest or latest"
        ))
    })?;
    Ok(Edge::At(at))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edges_are_instants_spans_and_words() {
        let now = Timestamp(10_000_000);
        for (text, expected) in [
            ("earliest", Edge::Earliest),
            ("latest", Edge::Latest),
            ("-1h", Edge::At(Timestamp(6_400_000))),
            ("1970-01-01T00:00:01Z", Edge::At(Timestamp(1_000))),
            ("1769860800000", Edge::At(Timestamp(1_769_860_800_000))),
        ] {
            assert_eq!(edge("--from", text, now).ok(), Some(expected), "{text}");
        }
        let error = edge("--to", "tomorrow", now)
            .expect_err("no time")
            .to_string();
        assert!(
            error.starts_with("--to: `tomorrow` is no time")
                && error.ends_with("earliest or latest"),
            "{error}"
        );
        assert!(edge("--to", "-1 hour", now).is_err());
    }
}
