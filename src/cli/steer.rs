//! `pause`, `resume`, `cancel` and `signal`.

use serde_json::json;

use super::args::{SignalArgs, SteerArgs};
use super::client::{Answer, Api, json_argument};
use super::output::{cell, complain};
use super::{CliError, Context, run};

/// Several runs: each is tried, until the server cannot be reached; the first error decides the
/// exit code, and what was done before is printed all the same.
pub async fn steer(context: &Context, verb: &str, args: SteerArgs) -> Result<(), CliError> {
    let api = Api::new(&context.config.client.api)?;
    let body = args
        .reason
        .map_or_else(|| json!({}), |reason| json!({"reason": reason}));
    let mut first_error = None;
    let mut runs = Vec::new();
    for id in &args.ids {
        let steered = match run::run_path(id) {
            Ok(path) => api.post(&format!("{path}:{verb}"), &body).await,
            Err(error) => Err(error),
        };
        match steered {
            Ok(answer) => runs.push(answer),
            Err(error) => {
                // The first one is told at the end.
                if first_error.is_some() {
                    complain(&format!("{id}: {error}"));
                }
                let is_away = matches!(error, CliError::Unreachable(_));
                first_error.get_or_insert((id, error));
                if is_away {
                    break;
                }
            }
        }
    }
    print(context, &runs, args.ids.len() == 1)?;
    match first_error {
        None => Ok(()),
        Some((_, error)) if args.ids.len() == 1 => Err(error),
        Some((id, error)) => Err(error.about(id)),
    }
}

/// `signal ID NAME [--data JSON] [--signal-id ID]`.
pub async fn signal(context: &Context, args: SignalArgs) -> Result<(), CliError> {
    let api = Api::new(&context.config.client.api)?;
    let mut body = json!({"name": args.name});
    if let Some(text) = &args.data {
        body["data"] = json_argument("--data", text)?;
    }
    if let Some(id) = args.signal_id {
        body["id"] = id.into();
    }
    let answer = api
        .post(&format!("{}:signal", run::run_path(&args.id)?), &body)
        .await?;
    print(context, &[answer], true)
}

fn print(context: &Context, runs: &[Answer], single: bool) -> Result<(), CliError> {
    let output = &context.output;
    if output.is_table() {
        for run in runs {
            let run = run.value()?;
            output.line(&format!(
                "{}  {}",
                cell(&run, "id"),
                output.status(&cell(&run, "status"))
            ));
        }
    } else if single {
        if let [run] = runs {
            output.document_text(&run.text)?;
        }
    } else {
        let texts: Vec<&str> = runs.iter().map(|run| run.text.as_str()).collect();
        output.document_text(&format!(r#"{{"runs":[{}]}}"#, texts.join(",")))?;
    }
    Ok(())
}
