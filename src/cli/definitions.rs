//! `get` and `delete`: definitions as the server holds them.

use serde_json::Value;

use super::args::{DeleteArgs, GetArgs, OutputFormat};
use super::client::{Api, segment};
use super::output::{cell, shorten, yaml};
use super::{CliError, Context};

/// `get KIND [NAME[@VERSION]]`.
pub async fn get(context: &Context, args: GetArgs) -> Result<(), CliError> {
    let api = Api::new(&context.config.client.api)?;
    let kind = singular(&args.kind);
    let output = &context.output;
    let Some(name) = args.name else {
        let answer = api
            .get(&format!("/v1/definitions/{}", segment(&kind)), &[])
            .await?;
        if !output.is_table() {
            return output.document_text(&answer.text);
        }
        let list = answer.value()?;
        let rows: Vec<_> = list["definitions"]
            .as_array()
            .into_iter()
            .flatten()
            .map(if kind == "rule" { rule } else { row })
            .collect();
        let columns = if kind == "rule" {
            &["NAME", "VERSION", "SHAPE", "STARTS", "MODE", "DESCRIPTION"][..]
        } else {
            &["NAME", "VERSION", "STEPS", "DESCRIPTION"]
        };
        output.table(columns, &rows);
        return Ok(());
    };
    let answer = api
        .get(
            &format!("/v1/definitions/{}/{}", segment(&kind), segment(&name)),
            &[],
        )
        .await?;
    if output.format == OutputFormat::Json {
        return output.document_text(&answer.text);
    }
    // A definition is read best as what people write: YAML.
    output.line(yaml(&answer.text)?.trim_end());
    Ok(())
}

fn row(definition: &Value) -> Vec<String> {
    let steps = definition["steps"].as_array().map_or(0, Vec::len);
    vec![
        cell(definition, "name"),
        cell(definition, "version"),
        steps.to_string(),
        shorten(&cell(definition, "description"), 60),
    ]
}

fn rule(definition: &Value) -> Vec<String> {
    let shapes = definition["match"].as_object();
    let mode = if definition["enabled"] == false {
        "disabled"
    } else {
        definition["mode"].as_str().unwrap_or("live")
    };
    let starts = definition["start"]["workflow"].as_str();
    vec![
        cell(definition, "name"),
        cell(definition, "version"),
        shapes
            .and_then(|shapes| shapes.keys().next().cloned())
            .unwrap_or_default(),
        starts.unwrap_or("-").to_owned(),
        mode.to_owned(),
        shorten(&cell(definition, "description"), 60),
    ]
}

/// `delete KIND NAME@VERSION`.
pub async fn delete(context: &Context, args: DeleteArgs) -> Result<(), CliError> {
    if !args
        .name
        .rsplit_once('@')
        .is_some_and(|(name, version)| !name.is_empty() && version.parse::<u32>().is_ok())
    {
        return Err(CliError::Usage(format!(
            "`{}` names no version; write NAME@VERSION, such as {}@1",
            args.name, args.name
        )));
    }
    let api = Api::new(&context.config.client.api)?;
    let kind = singular(&args.kind);
    api.delete(&format!(
        "/v1/definitions/{}/{}",
        segment(&kind),
        segment(&args.name)
    ))
    .await?;
    context.output.say(&format!("{kind} {} deleted", args.name));
    if !context.output.is_table() {
        context
            .output
            .document(&serde_json::json!({"kind": kind, "name": args.name, "deleted": true}));
    }
    Ok(())
}

/// `workflows` is as good as `workflow`.
fn singular(kind: &str) -> String {
    kind.strip_suffix('s').unwrap_or(kind).to_owned()
}
