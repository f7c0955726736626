//! The cases of the table suite, as every test of them reads them.

use std::path::{Path, PathBuf};

use serde_json::Value;

/// All cases with the files that they stand in, file by file.
pub fn cases() -> Vec<(PathBuf, Value)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/patterns");
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .expect("the folder is there")
        .map(|entry| entry.expect("it can be listed").path())
        .filter(|path| path.extension().is_some_and(|end| end == "yaml"))
        .collect();
    files.sort();
    let mut cases = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(&file).expect("a case file is text");
        let list: Vec<Value> = serde_saphyr::from_str(&text).expect("a case file is a list");
        cases.extend(list.into_iter().map(|case| (file.clone(), case)));
    }
    cases
}

/// The rule of a case, with the `kind` and the `name` that it may leave out.
pub fn rule_of(case: &Value) -> Value {
    let mut rule = case["rule"].clone();
    for (name, value) in [("kind", "rule"), ("name", "r")] {
        if rule.get(name).is_none() {
            rule[name] = value.into();
        }
    }
    rule
}

/// The headers of an event's record, which stand in it as `headers: {name: text}`.
pub fn headers_of(event: &Value) -> Vec<(String, Vec<u8>)> {
    let headers = event.get("headers").and_then(Value::as_object);
    let pairs = headers.into_iter().flatten();
    pairs
        .filter_map(|(name, value)| Some((name.clone(), value.as_str()?.as_bytes().to_vec())))
        .collect()
}

/// The same as kcat writes them: names and values in turn.
pub fn header_list(event: &Value) -> Value {
    let headers = event.get("headers").and_then(Value::as_object);
    let pairs = headers.into_iter().flatten();
    pairs
        .flat_map(|(name, value)| [name.as_str().into(), value.clone()])
        .collect()
}
