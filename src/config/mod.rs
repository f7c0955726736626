//! Configuration: defaults ← file ← environment ← flags, each over the one before.
//!
//! [`settings`] is the tree of keys with their defaults; `config/partita.yaml` documents the same
//! tree and a test keeps the two equal. [`layers`] reads the file (with line and column of each
//! key) and the environment; [`bounds`] says which values a key may take. [`load`] merges the
//! layers and reports everything that is wrong at once, each fault with the place it came from.

mod bounds;
mod layers;
mod settings;
mod values;

use std::path::{Path, PathBuf};

use figment::Figment;
use figment::providers::Serialized;
use serde_json::{Map, Value};

pub use settings::{
    AgentsSettings, BackoffSettings, ClientSettings, Config, EchoAgentSettings, EventsSettings,
    HttpAgentSettings, HttpSettings, KafkaSettings, RetrySettings, RulesSettings, RuntimeSettings,
    SaslMechanism, SchemaRegistrySettings, SecuritySettings, StoreSettings, TelemetrySettings,
    TopicsSettings,
};
pub use values::{Secret, Span};

use layers::{Origin, Sources};

/// The file that is read where none is named.
pub const DEFAULT_FILE: &str = "config/partita.yaml";

/// Everything that is wrong with the configuration, in the order of its keys.
#[derive(Debug, thiserror::Error)]
#[error("{}", self.to_lines())]
pub struct ConfigError {
    pub faults: Vec<Fault>,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq)]
pub struct Fault {
    /// `file:line:column`, `environment variable X` or `flag --x`.
    pub origin: String,
    pub message: String,
}

impl ConfigError {
    fn to_lines(&self) -> String {
        self.faults
            .iter()
            .map(|fault| format!("{}: {}", fault.origin, fault.message))
            .collect::<Vec<_>>()
            .join("\n")
    }

    fn one(origin: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            faults: vec![Fault {
                origin: origin.into(),
                message: message.into(),
            }],
        }
    }
}

/// A value that a flag of the command line sets: key path, flag name, value.
#[derive(Clone, Debug)]
pub struct Override {
    pub path: &'static str,
    pub flag: &'static str,
    pub value: Value,
}

impl Override {
    pub fn new(path: &'static str, flag: &'static str, value: impl Into<Value>) -> Self {
        Self {
            path,
            flag,
            value: value.into(),
        }
    }
}

/// Reads the configuration. `file` must exist where it is given; without it [`DEFAULT_FILE`] is
/// read if it is there. `environment` is what `std::env::vars` yields.
///
/// # Errors
/// All faults at once: a file that cannot be read, unknown keys with the nearest known one, values
/// of the wrong type or out of bounds.
pub fn load(
    file: Option<&Path>,
    environment: impl IntoIterator<Item = (String, String)>,
    overrides: &[Override],
) -> Result<Config, ConfigError> {
    let known = serde_json::to_value(Config::default()).expect("settings are plain data");
    let mut sources = Sources::default();
    let mut faults = Vec::new();
    let mut figment = Figment::from(Serialized::defaults(&known));

    if let Some(path) = chosen_file(file)? {
        let layer = layers::read_file(&path, &known, &mut sources, &mut faults)?;
        figment = figment.merge(Serialized::globals(layer));
    }
    let layer = layers::read_environment(environment, &known, &mut sources, &mut faults);
    figment = figment.merge(Serialized::globals(layer));
    let mut layer = Value::Object(Map::new());
    for set in overrides {
        layers::insert(&mut layer, set.path, set.value.clone());
        sources.set(set.path, Origin::Flag(set.flag));
    }
    figment = figment.merge(Serialized::globals(layer));

    match figment.extract_lossy::<Config>() {
        Ok(config) => {
            bounds::check(&config, &sources, &mut faults);
            if faults.is_empty() {
                Ok(config)
            } else {
                Err(ConfigError { faults })
            }
        }
        Err(error) => {
            for one in error {
                let path = one.path.join(".");
                faults.push(Fault {
                    origin: sources.origin(&path),
                    message: format!("`{path}` {}", kind_words(&one.kind)),
                });
            }
            Err(ConfigError { faults })
        }
    }
}

/// What a value of the wrong type is, and what would be right, without the names of our types.
fn kind_words(kind: &figment::error::Kind) -> String {
    use figment::error::{Actual, Kind};
    let (Kind::InvalidType(found, expected) | Kind::InvalidValue(found, expected)) = kind else {
        return format!("is wrong: {kind}");
    };
    let found = match found {
        Actual::Bool(value) => value.to_string(),
        Actual::Unsigned(value) => value.to_string(),
        Actual::Signed(value) => value.to_string(),
        Actual::Float(value) => value.to_string(),
        Actual::Str(value) => format!("`{value}`"),
        Actual::Seq => "a list".to_owned(),
        Actual::Map => "a mapping".to_owned(),
        Actual::Unit | Actual::Option => "null".to_owned(),
        other => other.to_string(),
    };
    let wanted = match expected.as_str() {
        "u8" | "u16" | "u32" | "u64" | "usize" => "a whole number",
        "i32" | "i64" | "isize" => "a whole number, with or without a sign",
        "f32" | "f64" => "a number",
        "bool" | "a boolean" => "true or false",
        "a string" => "a text",
        "a sequence" => "a list",
        "a map" => "a mapping",
        other => other,
    };
    format!("is {found}; write {wanted}")
}

fn chosen_file(file: Option<&Path>) -> Result<Option<PathBuf>, ConfigError> {
    match file {
        Some(path) if path.is_file() => Ok(Some(path.to_owned())),
        Some(path) => Err(ConfigError::one(
            path.display().to_string(),
            "there is no such file; name one that exists with --config",
        )),
        None => Ok(Some(PathBuf::from(DEFAULT_FILE)).filter(|path| path.is_file())),
    }
}

#[cfg(test)]
mod tests;
