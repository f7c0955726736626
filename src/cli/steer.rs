//! `pause`, `resume`, `cancel` and `signal`.

use serde_json::{Value, json};

use super::args::{SignalArgs, SteerArgs};
use super::client::{Api, json_argument};
use super::output::cell;
use super::{CliError, Context, run};

/// Several runs: each is tried; the first error decides the exit code.
pub async fn steer(context: &Context, verb: &str, args: SteerArgs) -> Result<(), CliError> {
    let api = Api::new(&context.config.client.api)?;
    let body = args
        .reason
        .map_or_else(|| json!({}), |reason| json!({"reason": reason}));
    let mut first_error = None;
    let mut runs = Vec::new();
    for id in &args.ids {
        match api
            .post(&format!("{}:{verb}", run::run_path(id)), &body)
            .await
        {
            Ok(answer) => runs.push(answer.value()?),
            Err(error @ CliError::Unreachable(_)) => return Err(error),
            Err(error) => {
                if args.ids.len() > 1 {
                    context.output.say(&format!("{id}: {error}"));
                }
                first_error = first_error.or(Some(error));
            }
        }
    }
    print(context, runs, args.ids.len() == 1);
    first_error.map_or(Ok(()), Err)
}

/// `signal ID NAME [--data JSON]`.
pub async fn signal(context: &Context, args: SignalArgs) -> Result<(), CliError> {
    let api = Api::new(&context.config.client.api)?;
    let mut body = json!({"name": args.name});
    if let Some(text) = &args.data {
        body["data"] = json_argument("--data", text)?;
    }
    let answer = api
        .post(&format!("{}:signal", run::run_path(&args.id)), &body)
        .await?;
    print(context, vec![answer.value()?], true);
    Ok(())
}

fn print(context: &Context, mut runs: Vec<Value>, single: bool) {
    let output = &context.output;
    if output.is_table() {
        for run in &runs {
            output.line(&format!(
                "{}  {}",
                cell(run, "id"),
                output.status(&cell(run, "status"))
            ));
        }
    } else if single {
        if let Some(run) = runs.pop() {
            output.document(&run);
        }
    } else {
        output.document(&json!({"runs": runs}));
    }
}
