//! `rules test`: a rule over a file of events, without a server.

use serde_json::{Value, json};

use super::args::{RulesCommand, RulesTestArgs};
use super::output::shorten;
use super::{CliError, Context};
use crate::instance::definition_defaults;
use crate::model::Timestamp;
use crate::pattern::replay;
use crate::runtime::kinds::{self, Definition};

pub fn rules(context: &Context, command: RulesCommand) -> Result<(), CliError> {
    match command {
        RulesCommand::Test(args) => test(context, &args),
    }
}

fn test(context: &Context, args: &RulesTestArgs) -> Result<(), CliError> {
    let read = |path: &std::path::Path| {
        std::fs::read_to_string(path).map_err(|error| {
            CliError::Usage(format!("{}: cannot be read: {error}", path.display()))
        })
    };
    let file = args.rule.display().to_string();
    let defaults = definition_defaults(&context.config);
    let definitions = kinds::parse(&read(&args.rule)?, Some(&file), &defaults)
        .map_err(|violations| CliError::Usage(violations.to_string()))?;
    let rules: Vec<_> = definitions.iter().filter_map(Definition::rule).collect();
    if rules.is_empty() {
        return Err(CliError::Usage(format!(
            "{file}: there is no rule in this file"
        )));
    }
    let events = read(&args.events)?;
    let advance_to = args.advance_to.as_deref().map(instant).transpose()?;
    let mut shown = json!({"matches": [], "late": [], "timed_out": []});
    for rule in rules {
        let found = replay::replay(rule, &events, advance_to)
            .map_err(|error| CliError::Usage(format!("{}: {error}", args.events.display())))?;
        for (name, list) in found.as_object().into_iter().flatten() {
            let target = &mut shown[name.as_str()];
            if target.is_null() {
                *target = json!([]);
            }
            if let (Some(target), Some(list)) = (target.as_array_mut(), list.as_array()) {
                target.extend(list.iter().cloned());
            }
        }
    }
    if !context.output.is_table() {
        context.output.document(&shown);
        return Ok(());
    }
    let rows: Vec<Vec<String>> = shown["matches"]
        .as_array()
        .into_iter()
        .flatten()
        .map(row)
        .collect();
    context
        .output
        .table(&["RULE", "KEY", "AT", "EVENTS", "STARTS"], &rows);
    let count = |name: &str| shown[name].as_array().map_or(0, Vec::len);
    context.output.say(&format!(
        "{} matches, {} late events, {} partial matches timed out",
        count("matches"),
        count("late"),
        count("timed_out")
    ));
    Ok(())
}

fn row(found: &Value) -> Vec<String> {
    vec![
        found["rule"].as_str().unwrap_or_default().to_owned(),
        shorten(&found["key"].to_string(), 40),
        found["at"].as_str().unwrap_or_default().to_owned(),
        shorten(&found["events"].to_string(), 60),
        found["start"]["workflow"]
            .as_str()
            .unwrap_or("-")
            .to_owned(),
    ]
}

/// RFC 3339, or milliseconds since 1970.
fn instant(text: &str) -> Result<Timestamp, CliError> {
    let millis = || text.parse().ok().map(Timestamp);
    Timestamp::parse(text).or_else(millis).ok_or_else(|| {
        CliError::Usage(format!(
            "--advance-to: `{text}` is no time; write RFC 3339, such as 2026-01-31T12:00:00Z, or milliseconds since 1970"
        ))
    })
}
