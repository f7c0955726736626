//! The rules of the house that a reader can rely on, checked by reading the sources: what the
//! pure rooms may not name, which way dependencies point, and how long a file may get.

use std::path::{Path, PathBuf};

/// Rooms that decide and never act: time is an argument, effects are returned.
const PURE: [&str; 6] = ["model", "expr", "document", "workflow", "pattern", "engine"];

/// What a pure room never names.
const IMPURE_WORDS: [&str; 8] = [
    "tokio",
    "rdkafka",
    "sled",
    "SystemTime",
    "Instant::now",
    "std::fs",
    "std::net",
    "std::thread",
];

/// Each room and the rooms it may name. A room that is not listed is a new one: put it here.
const MAY_NAME: [(&str, &[&str]); 19] = [
    ("model", &[]),
    ("expr", &["model"]),
    ("document", &["model", "expr"]),
    ("workflow", &["model", "expr", "document"]),
    ("pattern", &["model", "expr", "document"]),
    ("engine", &["model", "expr", "workflow", "pattern"]),
    ("codec", &["model"]),
    ("log", &["model"]),
    ("store", &["model"]),
    ("clock", &["model"]),
    ("topics", &["model", "log", "config"]),
    ("telemetry", &["model"]),
    ("config", ANY_BUT_DOORS),
    ("runtime", ANY_BUT_DOORS),
    ("agents", ANY_BUT_DOORS),
    ("agent", ANY_BUT_DOORS),
    ("instance", ANY),
    ("api", ANY),
    ("cli", ANY),
];

const ANY: &[&str] = &["*"];
/// Everything but the doors, `api` and `cli`.
const ANY_BUT_DOORS: &[&str] = &[
    "model",
    "expr",
    "document",
    "workflow",
    "pattern",
    "engine",
    "codec",
    "log",
    "store",
    "clock",
    "topics",
    "telemetry",
    "config",
    "runtime",
    "agents",
    "agent",
];

/// Lines of one source file.
const MAX_LINES: usize = 700;

struct Source {
    path: PathBuf,
    /// The first folder or file name under `src`.
    room: String,
    text: String,
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut folders = vec![root.clone()];
    let mut sources = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("src can be listed") {
            let path = entry.expect("src can be listed").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let under = path.strip_prefix(&root).expect("it is under src");
                let first = under
                    .components()
                    .next()
                    .expect("it has a name")
                    .as_os_str();
                let room = first.to_string_lossy().trim_end_matches(".rs").to_owned();
                let text = std::fs::read_to_string(&path).expect("a source is text");
                sources.push(Source { path, room, text });
            }
        }
    }
    assert!(
        sources.len() > 20,
        "the sources are under {}",
        root.display()
    );
    sources
}

/// Lines of the product with their numbers: no comments, nothing after `#[cfg(test)]`, and nothing
/// of a `tests.rs`, which stands behind one.
fn code(source: &Source) -> impl Iterator<Item = (usize, &str)> {
    let lines = source.text.lines().enumerate();
    let product = lines.take_while(|(_, line)| !line.trim_start().starts_with("#[cfg(test)]"));
    let is_test = source.path.ends_with("tests.rs");
    let is_code = move |line: &str| !is_test && !line.trim_start().starts_with("//");
    product
        .filter(move |(_, line)| is_code(line))
        .map(|(number, line)| (number + 1, line))
}

#[test]
fn pure_rooms_never_act() {
    let mut found = Vec::new();
    for source in sources()
        .iter()
        .filter(|source| PURE.contains(&source.room.as_str()))
    {
        for (number, line) in code(source) {
            for word in IMPURE_WORDS.iter().filter(|word| names(line, word)) {
                found.push(format!(
                    "{}:{number} names {word}: {}",
                    source.path.display(),
                    line.trim()
                ));
            }
        }
    }
    assert!(
        found.is_empty(),
        "a pure room takes time as an argument and returns effects:\n{}",
        found.join("\n")
    );
}

#[test]
fn dependencies_point_one_way() {
    let mut found = Vec::new();
    for source in sources()
        .iter()
        .filter(|source| !["main", "lib"].contains(&source.room.as_str()))
    {
        let listed = MAY_NAME.iter().find(|(room, _)| *room == source.room);
        let Some((_, allowed)) = listed else {
            found.push(format!(
                "{}: the room `{}` has no place in the order",
                source.path.display(),
                source.room
            ));
            continue;
        };
        if allowed.contains(&"*") {
            continue;
        }
        let text: Vec<&str> = code(source).map(|(_, line)| line).collect();
        for named in rooms_named(&text.join("\n")) {
            if named != source.room && !allowed.contains(&named) {
                let path = source.path.display();
                found.push(format!("{path}: `{}` may not name `{named}`", source.room));
            }
        }
    }
    assert!(found.is_empty(), "{}", found.join("\n"));
}

#[test]
fn no_file_outgrows_its_reader() {
    let long: Vec<String> = sources()
        .iter()
        .map(|source| (source.text.lines().count(), source))
        .filter(|(lines, _)| *lines > MAX_LINES)
        .map(|(lines, source)| format!("{}: {lines} lines", source.path.display()))
        .collect();
    assert!(
        long.is_empty(),
        "at most {MAX_LINES} lines a file:\n{}",
        long.join("\n")
    );
}

/// Whether the line has the word by itself, not as a part of a longer name.
fn names(line: &str, word: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(start, _)| {
        let before = line[..start].chars().next_back();
        let after = line[start + word.len()..].chars().next();
        !before.is_some_and(is_part) && !after.is_some_and(is_part)
    })
}

/// The rooms after each `crate::`, those in braces included (`use crate::{a, b::{c, d}};`).
fn rooms_named(text: &str) -> Vec<&str> {
    let mut named = Vec::new();
    for (start, _) in text.match_indices("crate::") {
        let rest = &text[start + "crate::".len()..];
        match rest.strip_prefix('{') {
            None => named.push(first_name(rest)),
            Some(list) => named.extend(members(list).into_iter().map(first_name)),
        }
    }
    named.retain(|room| MAY_NAME.iter().any(|(known, _)| known == room));
    named
}

fn first_name(text: &str) -> &str {
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    text.trim_start()
        .split(|c| !is_name(c))
        .next()
        .unwrap_or("")
}

/// What stands between the outermost commas, up to the brace that closes the list.
fn members(list: &str) -> Vec<&str> {
    let mut members = Vec::new();
    let (mut depth, mut begin) = (0, 0);
    for (place, c) in list.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth > 0 => depth -= 1,
            ',' | '}' if depth == 0 => {
                members.push(&list[begin..place]);
                begin = place + 1;
                if c == '}' {
                    break;
                }
            }
            _ => {}
        }
    }
    members
}

#[test]
fn rooms_are_found_in_lists_over_several_lines() {
    let text = "use crate::{\n    engine::{self, Batch},\n    model::Json,\n};\nuse crate::api::x;";
    assert_eq!(rooms_named(text), ["engine", "model", "api"]);
}
