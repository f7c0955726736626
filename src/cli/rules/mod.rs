//! `rules`: rules over a file of events (`test`), without a server, and over what lies in their topics
//! (`backtest`); what those in force have done (`stats`).

mod backtest;
mod stats;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use serde_json::Value;

use super::args::{RulesCommand, RulesTestArgs};
use super::output::{Output, shorten};
use super::{CliError, Context};
use crate::instance::definition_defaults;
use crate::model::Timestamp;
use crate::pattern::Rule;
use crate::runtime::kinds::{self, Definition};
use crate::runtime::replay::replay;
use crate::runtime::unreadable::Unreadable;

pub async fn rules(context: &Context, command: RulesCommand) -> Result<(), CliError> {
    match command {
        RulesCommand::Test(args) => test(context, &args),
        RulesCommand::Backtest(args) => backtest::run(context, args).await,
        RulesCommand::Stats(args) => stats::run(context, args).await,
    }
}

fn test(context: &Context, args: &RulesTestArgs) -> Result<(), CliError> {
    let rules = rules_of_file(context, &args.rule)?;
    let against = args.against.as_deref();
    let against = against
        .map(|file| rules_of_file(context, file))
        .transpose()?;
    let events = read(&args.events)?;
    let advance_to = args.advance_to.as_deref();
    let advance_to = advance_to
        .map(|text| instant("--advance-to", text))
        .transpose()?;
    let most = context.config.runtime.max_payload_bytes;
    let replayed = |rules: &[Arc<Rule>]| {
        replay(rules, &events, advance_to, most)
            .map_err(|error| CliError::Usage(format!("{}: {error}", args.events.display())))
    };
    let found = replayed(&rules)?;
    let mut shown = found.document();
    if let Some(against) = against {
        shown["diff"] = found.findings.diff(&replayed(&against)?.findings);
    }
    show(context, &shown);
    if found.unreadable.count > 0 {
        let count = found.unreadable.count;
        context.output.say(&format!("{count} lines are unreadable"));
        say_unreadable(&context.output, &found.unreadable);
    }
    Ok(())
}

fn read(file: &Path) -> Result<String, CliError> {
    std::fs::read_to_string(file)
        .map_err(|error| CliError::Usage(format!("{}: cannot be read: {error}", file.display())))
}

/// The rules in a file of definitions; at least one.
fn rules_of_file(context: &Context, file: &Path) -> Result<Vec<Arc<Rule>>, CliError> {
    rules_of_text(context, &read(file)?, &file.display().to_string())
}

/// As [`rules_of_file`], from the text; `name` is for messages.
fn rules_of_text(context: &Context, text: &str, name: &str) -> Result<Vec<Arc<Rule>>, CliError> {
    let defaults = definition_defaults(&context.config);
    let definitions = kinds::parse(text, Some(name), &defaults)
        .map_err(|violations| CliError::Usage(violations.to_string()))?;
    let rules: Vec<Arc<Rule>> = definitions
        .iter()
        .filter_map(Definition::rule)
        .cloned()
        .collect();
    match rules.is_empty() {
        true => Err(CliError::Usage(format!("{name}: there is no rule in it"))),
        false => Ok(rules),
    }
}

/// What was found, as a document, or as a table and a line of counts; of a difference, which matches
/// came or went.
fn show(context: &Context, shown: &Value) {
    let output = &context.output;
    if !output.is_table() {
        return output.document(shown);
    }
    let diff = shown.get("diff");
    let marked = |mark: &str, list: &Value| -> Vec<Vec<String>> {
        let list = list.as_array().into_iter().flatten();
        list.map(|found| row(mark, found)).collect()
    };
    match diff {
        None => output.table(&COLUMNS[1..], &marked("", &shown["matches"])),
        Some(diff) => {
            let mut rows = marked("added", &diff["added"]);
            rows.extend(marked("removed", &diff["removed"]));
            output.table(&COLUMNS, &rows);
        }
    }
    let count = |of: &Value, name: &str| {
        let left_off = of["left_off"][name].as_u64().unwrap_or(0);
        of[name].as_array().map_or(0, Vec::len) as u64 + left_off
    };
    if let Some(diff) = diff {
        output.say(&format!(
            "{} matches added, {} removed, {} unchanged",
            count(diff, "added"),
            count(diff, "removed"),
            diff["unchanged"]
        ));
    }
    output.say(&format!(
        "{} matches, {} late events, {} partial matches timed out",
        count(shown, "matches"),
        count(shown, "late"),
        count(shown, "timed_out")
    ));
    tell_trouble(output, shown, count(shown, "unkeyed"));
}

/// What somebody who misses a match would want to know.
fn tell_trouble(output: &Output, shown: &Value, unkeyed: u64) {
    if unkeyed > 0 {
        output.say(&format!("{unkeyed} events have no usable key"));
    }
    if let Some(errors) = shown["condition_errors"].as_u64() {
        output.say(&format!(
            "{errors} conditions have no answer: a field is missing or of another type"
        ));
    }
    let mut dropped: BTreeMap<&str, u64> = BTreeMap::new();
    for overflow in shown["overflows"].as_array().into_iter().flatten() {
        let limit = overflow["limit"].as_str().unwrap_or_default();
        *dropped.entry(limit).or_default() += overflow["dropped"].as_u64().unwrap_or(0);
    }
    for (limit, dropped) in dropped {
        output.say(&format!("the limit {limit} is met: {dropped} given up"));
    }
}

/// The first of the records that cannot be read, and why.
fn say_unreadable(output: &Output, unreadable: &Unreadable) {
    if !output.is_table() {
        return;
    }
    for record in &unreadable.first {
        let place = match &record.place {
            Value::String(place) => place.clone(),
            line => format!("line {line}"),
        };
        let (class, message) = (&record.class, &record.message);
        output.say(&format!("{place}: {class}: {message}"));
    }
}

const COLUMNS: [&str; 6] = ["CHANGE", "RULE", "KEY", "AT", "EVENTS", "STARTS"];

fn row(mark: &str, found: &Value) -> Vec<String> {
    let row = [
        mark.to_owned(),
        found["rule"].as_str().unwrap_or_default().to_owned(),
        shorten(&found["key"].to_string(), 40),
        found["at"].as_str().unwrap_or_default().to_owned(),
        shorten(&found["events"].to_string(), 60),
        found["start"]["workflow"]
            .as_str()
            .unwrap_or("-")
            .to_owned(),
    ];
    let skipped = usize::from(mark.is_empty());
    row.into_iter().skip(skipped).collect()
}

/// RFC 3339, or milliseconds since 1970.
fn instant(flag: &str, text: &str) -> Result<Timestamp, CliError> {
    let millis = || text.parse().ok().map(Timestamp);
    Timestamp::parse(text).or_else(millis).ok_or_else(|| {
        CliError::Usage(format!(
            "{flag}: `{text}` is no time; write RFC 3339, such as 2026-01-31T12:00:00Z, or milliseconds since 1970"
        ))
    })
}
