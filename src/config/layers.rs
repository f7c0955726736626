//! The layers above the defaults: a YAML file whose keys keep their places, and the environment.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};
use serde_saphyr::Spanned;

use super::{ConfigError, Fault};

/// Keys whose members are free: anything may stand below them.
const OPEN: &[&str] = &["kafka.properties"];

/// Variables with names of their own, for keys that every deployment sets.
const SHORT_VARIABLES: &[(&str, &str)] = &[
    ("KAFKA_BROKERS", "kafka.brokers"),
    ("PARTITA_API", "client.api"),
];

/// Where a value came from.
#[derive(Clone, Debug)]
pub enum Origin {
    File {
        path: PathBuf,
        line: u64,
        column: u64,
    },
    Variable(String),
    Flag(&'static str),
}

/// Key path → the last layer that set it.
#[derive(Debug, Default)]
pub struct Sources(BTreeMap<String, Origin>);

impl Sources {
    pub fn set(&mut self, path: &str, origin: Origin) {
        self.0.insert(path.to_owned(), origin);
    }

    /// In words; the nearest key above where the key itself was set by nobody.
    pub fn origin(&self, path: &str) -> String {
        let mut path = path;
        loop {
            if let Some(origin) = self.0.get(path) {
                return origin.to_string();
            }
            match path.rfind('.') {
                Some(dot) => path = &path[..dot],
                None => return "configuration".to_owned(),
            }
        }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::File { path, line, column } => write!(f, "{}:{line}:{column}", path.display()),
            Origin::Variable(name) => write!(f, "environment variable {name}"),
            Origin::Flag(name) => write!(f, "flag {name}"),
        }
    }
}

/// A YAML value whose keys know their places.
enum Node {
    Scalar(Value),
    List(Vec<Node>),
    Map(Vec<(Spanned<String>, Node)>),
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(NodeVisitor)
    }
}

struct NodeVisitor;

impl<'de> Visitor<'de> for NodeVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Scalar(Value::Null))
    }

    fn visit_none<E>(self) -> Result<Node, E> {
        Ok(Node::Scalar(Value::Null))
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        Node::deserialize(deserializer)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Scalar(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
        Ok(Node::Scalar(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
        Ok(Node::Scalar(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Node, E> {
        Ok(Node::Scalar(value.into()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Node, E> {
        Ok(Node::Scalar(value.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Node, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Node::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Node, A::Error> {
        let mut map = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            map.push(entry);
        }
        Ok(Node::Map(map))
    }
}

/// Reads a file. Unknown keys become faults and are left out of what is returned.
///
/// # Errors
/// Where the file cannot be read or is not YAML.
pub fn read_file(
    path: &Path,
    known: &Value,
    sources: &mut Sources,
    faults: &mut Vec<Fault>,
) -> Result<Value, ConfigError> {
    let name = path.display().to_string();
    let text = std::fs::read_to_string(path)
        .map_err(|error| ConfigError::one(&name, format!("cannot be read: {error}")))?;
    let root: Option<Node> = serde_saphyr::from_str(&text).map_err(|error| {
        let place = error
            .location()
            .map(|at| format!("{name}:{}:{}", at.line(), at.column()));
        // The place is told by itself; the message repeats it at its head.
        let message = error.to_string();
        let first = message.lines().next().unwrap_or_default();
        let head = error
            .location()
            .map(|at| format!("line {} column {}: ", at.line(), at.column()));
        let words = head
            .and_then(|head| first.split_once(&head))
            .map_or(first, |(_, words)| words);
        ConfigError::one(
            place.unwrap_or(name.clone()),
            format!("not readable as YAML: {words}"),
        )
    })?;
    match root {
        None | Some(Node::Scalar(Value::Null)) => Ok(Value::Object(Map::new())),
        Some(Node::Map(entries)) => {
            let mut reader = FileReader {
                path,
                sources,
                faults,
            };
            Ok(reader.map(entries, "", Some(known)))
        }
        Some(_) => Err(ConfigError::one(
            name,
            "must be a map of groups such as `kafka:` and `runtime:`",
        )),
    }
}

struct FileReader<'a> {
    path: &'a Path,
    sources: &'a mut Sources,
    faults: &'a mut Vec<Fault>,
}

impl FileReader<'_> {
    /// `known`: the defaults below this map; `None` below an open key.
    fn map(
        &mut self,
        entries: Vec<(Spanned<String>, Node)>,
        above: &str,
        known: Option<&Value>,
    ) -> Value {
        let mut result = Map::new();
        for (key, node) in entries {
            let path = join(above, &key.value);
            let origin = Origin::File {
                path: self.path.to_owned(),
                line: key.referenced.line(),
                column: key.referenced.column(),
            };
            let default = known.and_then(|known| known.get(&key.value));
            if let (Some(group), None) = (known, default) {
                let message = unknown_key(&path, group, &key.value);
                self.faults.push(Fault {
                    origin: origin.to_string(),
                    message,
                });
                continue;
            }
            // Not set: a key as in `brokers: null`, a group as in `http:` with nothing below.
            if matches!(node, Node::Scalar(Value::Null)) {
                continue;
            }
            self.sources.set(&path, origin);
            let below = default.filter(|_| !OPEN.contains(&path.as_str()));
            let value = self.value(node, &path, below);
            result.insert(key.value, value);
        }
        Value::Object(result)
    }

    fn value(&mut self, node: Node, path: &str, known: Option<&Value>) -> Value {
        match node {
            Node::Scalar(value) => value,
            Node::List(items) => items
                .into_iter()
                .map(|item| self.value(item, path, None))
                .collect(),
            // A map where no map belongs is left to the type check of the key.
            Node::Map(entries) => self.map(entries, path, known.filter(|known| known.is_object())),
        }
    }
}

/// Takes `PARTITA_<GROUP>__<KEY>` and the short names. Variables without `__` are left alone:
/// Kubernetes sets such (`PARTITA_PORT`, …) for a service called `partita`.
pub fn read_environment(
    environment: impl IntoIterator<Item = (String, String)>,
    known: &Value,
    sources: &mut Sources,
    faults: &mut Vec<Fault>,
) -> Value {
    let mut layer = Value::Object(Map::new());
    let mut variables: Vec<_> = environment.into_iter().collect();
    variables.sort();
    for (name, text) in variables {
        let short = SHORT_VARIABLES
            .iter()
            .find(|(variable, _)| *variable == name)
            .map(|(_, path)| (*path).to_owned());
        let Some(path) = short.or_else(|| long_variable(&name)) else {
            continue;
        };
        let origin = Origin::Variable(name);
        match known.pointer(&format!("/{}", path.replace('.', "/"))) {
            Some(default) if default.is_array() => {
                let items = text
                    .split(',')
                    .map(str::trim)
                    .filter(|item| !item.is_empty());
                insert(&mut layer, &path, items.map(Value::from).collect());
            }
            Some(default) if !default.is_object() => {
                insert(&mut layer, &path, Value::String(text));
            }
            Some(_) if OPEN.contains(&path.as_str()) => match serde_json::from_str::<
                Map<String, Value>,
            >(&text)
            {
                Ok(members) => insert(&mut layer, &path, Value::Object(members)),
                Err(error) => faults.push(Fault {
                    origin: origin.to_string(),
                    message: format!(
                        "`{path}` takes a JSON object here, such as {{\"name\":\"value\"}}: {error}"
                    ),
                }),
            },
            Some(_) => faults.push(Fault {
                origin: origin.to_string(),
                message: format!(
                    "`{path}` is a group; set one of its keys, such as {}__…",
                    path.to_uppercase()
                ),
            }),
            None => {
                let (above, key) = path.rsplit_once('.').unwrap_or(("", &path));
                let group = known
                    .pointer(&format!("/{}", above.replace('.', "/")))
                    .unwrap_or(known);
                faults.push(Fault {
                    origin: origin.to_string(),
                    message: unknown_key(&path, group, key),
                });
                continue;
            }
        }
        sources.set(&path, origin);
    }
    layer
}

fn long_variable(name: &str) -> Option<String> {
    let rest = name.strip_prefix("PARTITA_")?;
    rest.contains("__")
        .then(|| rest.to_ascii_lowercase().replace("__", "."))
}

/// Puts `value` at a dotted path, making the maps on the way.
pub fn insert(root: &mut Value, path: &str, value: Value) {
    let mut at = root;
    for key in path.split('.') {
        if !at.is_object() {
            *at = Value::Object(Map::new());
        }
        at = at
            .as_object_mut()
            .expect("made above")
            .entry(key)
            .or_insert(Value::Null);
    }
    *at = value;
}

fn join(above: &str, key: &str) -> String {
    if above.is_empty() {
        key.to_owned()
    } else {
        format!("{above}.{key}")
    }
}

fn unknown_key(path: &str, group: &Value, key: &str) -> String {
    let names = group.as_object().into_iter().flat_map(Map::keys);
    let nearest = names
        .map(|name| (strsim::jaro_winkler(name, key), name))
        .max_by(|a, b| a.0.total_cmp(&b.0));
    match nearest {
        Some((likeness, name)) if likeness > 0.7 => {
            format!("unknown key `{path}`; did you mean `{name}`?")
        }
        _ => {
            let all: Vec<_> = group
                .as_object()
                .into_iter()
                .flat_map(Map::keys)
                .cloned()
                .collect();
            format!("unknown key `{path}`; known here: {}", all.join(", "))
        }
    }
}
