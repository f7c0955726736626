//! `validate` and `apply`: definitions in files and folders.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::args::{ApplyArgs, ValidateArgs};
use super::client::{Api, segment};
use super::output::visible_lines;
use super::{CliError, Context};
use crate::instance::definition_defaults;
use crate::runtime::kinds::{self, Definition, Kind};
use crate::workflow::definition::{Defaults, Violation};

/// What reading files came to: every definition that is good, every fault of those that are not.
pub struct Gathered {
    pub definitions: Vec<(PathBuf, Definition)>,
    pub violations: Vec<Violation>,
}

impl Gathered {
    /// Puts kinds into the order in which they are best applied; within a kind nothing moves.
    pub fn sort(&mut self) {
        let rank = |definition: &Definition| {
            let kind = definition.kind();
            Kind::ALL.iter().position(|known| *known == kind)
        };
        self.definitions
            .sort_by_key(|(_, definition)| rank(definition));
    }

    /// Whether a warning is about a workflow that is among these files.
    fn answers(&self, warning: &str) -> bool {
        let is_named = |definition: &Definition| {
            let (name, version) = (&definition.name, definition.version);
            definition.kind() == Kind::Workflow
                && [
                    format!("workflow `{name}`"),
                    format!("workflow `{name}@{version}`"),
                ]
                .iter()
                .any(|words| warning.contains(words))
        };
        self.definitions.iter().any(|(_, found)| is_named(found))
    }
}

/// `validate PATH…`.
pub fn validate(context: &Context, args: ValidateArgs) -> Result<(), CliError> {
    let gathered = gather(&args.paths, &definition_defaults(&context.config))?;
    let output = &context.output;
    if output.is_table() {
        for (path, definition) in &gathered.definitions {
            let (path, name) = (path.display(), definition.title());
            output.line(&format!("{path}: {name} {}", output.status("ok")));
        }
    } else {
        let definitions: Vec<_> = gathered
            .definitions
            .iter()
            .map(|(path, found)| identity(path, found))
            .collect();
        output.document(&json!({
            "valid": gathered.violations.is_empty(),
            "definitions": definitions,
            "violations": gathered.violations,
        }));
    }
    refuse(&gathered.violations)
}

/// `apply PATH… [--dry-run]`. Nothing is applied where anything is wrong; workflows go before the
/// rules that start them.
pub async fn apply(context: &Context, args: ApplyArgs) -> Result<(), CliError> {
    let mut gathered = gather(&args.paths, &definition_defaults(&context.config))?;
    if !gathered.violations.is_empty() && !context.output.is_table() {
        context
            .output
            .document(&json!({"applied": [], "violations": gathered.violations}));
    }
    refuse(&gathered.violations)?;
    gathered.sort();
    let api = Api::new(&context.config.client.api)?;
    let mut applied = Vec::new();
    let mut first_error = None;
    for (path, definition) in &gathered.definitions {
        let result = put(&api, definition, args.dry_run).await;
        let (word, message, mut warnings) = match &result {
            Ok(done) => (done.word, None, done.warnings.clone()),
            Err(error) => (word_of(error), Some(error.to_string()), Vec::new()),
        };
        if args.dry_run {
            // What a dry run has not applied yet is not missing.
            warnings.retain(|warning| !gathered.answers(warning));
        }
        if context.output.is_table() {
            let name = definition.title();
            let note = if args.dry_run { " (dry run)" } else { "" };
            let reason = message.as_ref().map(|message| format!(": {message}"));
            context.output.line(&format!(
                "{name}: {}{note}{}",
                context.output.status(word),
                visible_lines(&reason.unwrap_or_default())
            ));
        }
        for warning in &warnings {
            context.output.say(&format!("warning: {warning}"));
        }
        let mut entry = identity(path, definition);
        entry["result"] = word.into();
        if let Some(message) = message {
            entry["message"] = message.into();
        }
        if !warnings.is_empty() {
            entry["warnings"] = warnings.into();
        }
        applied.push(entry);
        if let Err(error) = result {
            let is_away = matches!(error, CliError::Unreachable(_));
            first_error = first_error.or(Some(error));
            if is_away {
                // What follows would fare no better; what was applied is told below.
                break;
            }
        }
    }
    if !context.output.is_table() {
        context
            .output
            .document(&json!({"applied": applied, "dry_run": args.dry_run}));
    }
    first_error.map_or(Ok(()), Err)
}

/// What an apply that failed came to.
fn word_of(error: &CliError) -> &'static str {
    match error {
        CliError::NotFoundOrConflict(_) => "conflict",
        CliError::Usage(_) | CliError::Config(_) => "refused",
        CliError::Unreachable(_) => "unreachable",
        CliError::Failed(_) | CliError::Interrupted => "failed",
    }
}

/// What an apply came to.
pub struct Put {
    /// `created` or `unchanged`.
    pub word: &'static str,
    /// What is odd and no fault, each a sentence.
    pub warnings: Vec<String>,
}

/// Applies one definition.
pub async fn put(api: &Api, definition: &Definition, dry_run: bool) -> Result<Put, CliError> {
    let name = format!("{}@{}", definition.name, definition.version);
    let kind = definition.kind().name();
    let path = format!("/v1/definitions/{kind}/{}", segment(&name));
    let source = definition.source.as_str().to_owned();
    if dry_run {
        // Whether it is there already is what a dry run is asked for.
        let there = api.get(&path, &[]).await;
        let answer = api.put(&format!("{path}?dry_run=true"), source).await?;
        let word = match there {
            Ok(_) => "unchanged",
            Err(CliError::NotFoundOrConflict(_)) => "created",
            Err(error) => return Err(error),
        };
        return Ok(Put {
            word,
            warnings: answer.warnings,
        });
    }
    let answer = api.put(&path, source).await?;
    Ok(Put {
        word: if answer.status.as_u16() == 201 {
            "created"
        } else {
            "unchanged"
        },
        warnings: answer.warnings,
    })
}

fn identity(path: &Path, definition: &Definition) -> Value {
    json!({
        "file": path.display().to_string(),
        "kind": definition.kind().name(),
        "name": &*definition.name,
        "version": definition.version,
    })
}

fn refuse(violations: &[Violation]) -> Result<(), CliError> {
    if violations.is_empty() {
        return Ok(());
    }
    let lines: Vec<_> = violations.iter().map(ToString::to_string).collect();
    Err(CliError::Usage(format!(
        "{} found\n{}",
        count_of(violations.len(), "fault"),
        lines.join("\n")
    )))
}

fn count_of(count: usize, word: &str) -> String {
    if count == 1 {
        format!("1 {word}")
    } else {
        format!("{count} {word}s")
    }
}

/// Reads all files that the paths name, folders with everything below them.
pub fn gather(paths: &[PathBuf], defaults: &Defaults) -> Result<Gathered, CliError> {
    let mut gathered = Gathered {
        definitions: Vec::new(),
        violations: Vec::new(),
    };
    for file in files_of(paths)? {
        let bytes = std::fs::read(&file).map_err(|error| {
            CliError::Usage(format!("{}: cannot be read: {error}", file.display()))
        })?;
        let text = match String::from_utf8(bytes) {
            Ok(text) => text,
            Err(error) => {
                gathered.violations.push(not_text(&file, &error));
                continue;
            }
        };
        match kinds::check(&text, Some(&file.display().to_string()), defaults) {
            Ok(found) => gathered
                .definitions
                .extend(found.into_iter().map(|found| (file.clone(), found))),
            Err(violations) => gathered.violations.extend(violations.0),
        }
    }
    Ok(gathered)
}

/// One file that is no text hides nothing of the others.
fn not_text(file: &Path, error: &std::string::FromUtf8Error) -> Violation {
    let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
    let good = String::from_utf8_lossy(good);
    let last_line = good.rsplit('\n').next().unwrap_or_default();
    Violation {
        file: Some(file.display().to_string()),
        line: good.matches('\n').count() + 1,
        column: last_line.chars().count() + 1,
        path: String::new(),
        message: "from here on the file is no UTF-8".to_owned(),
        suggestion: Some("save it as UTF-8".to_owned()),
    }
}

/// Files as they are named; of folders, what ends in `.yaml`, `.yml` or `.json`, by name.
pub fn files_of(paths: &[PathBuf]) -> Result<Vec<PathBuf>, CliError> {
    let mut files = Vec::new();
    for path in paths {
        if path.is_dir() {
            let before = files.len();
            walk(path, &mut files)?;
            if files.len() == before {
                return Err(CliError::Usage(format!(
                    "{}: no *.yaml, *.yml or *.json in this folder",
                    path.display()
                )));
            }
        } else if path.is_file() {
            files.push(path.clone());
        } else {
            return Err(CliError::Usage(format!(
                "{}: there is no such file or folder",
                path.display()
            )));
        }
    }
    Ok(files)
}

fn walk(folder: &Path, files: &mut Vec<PathBuf>) -> Result<(), CliError> {
    let unreadable =
        |error| CliError::Usage(format!("{}: cannot be read: {error}", folder.display()));
    let mut entries: Vec<_> = std::fs::read_dir(folder)
        .and_then(|entries| {
            entries
                .map(|entry| entry.map(|entry| entry.path()))
                .collect::<Result<_, _>>()
        })
        .map_err(unreadable)?;
    entries.sort();
    for path in entries {
        let kind = std::fs::symlink_metadata(&path)
            .map_err(unreadable)?
            .file_type();
        if kind.is_dir() {
            walk(&path, files)?;
        } else if path
            .extension()
            .is_some_and(|end| ["yaml", "yml", "json"].iter().any(|known| end == *known))
        {
            files.push(path);
        }
    }
    Ok(())
}
