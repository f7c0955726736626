//! Definitions as documents, whatever they define: from the text that a person wrote to trees that
//! know their places, and to all that is wrong with them, each fault with its line, its column and
//! what would be right.
//!
//! In the order in which data passes: [`read`] bounds a file and hands it to `yaml`, which reads
//! YAML or JSON into trees of `node`s; `fields` reads a mapping by its known keys, aliases and
//! types, [`duration`] the spans of time in it; `canonical` writes the one JSON form that is stored
//! and compared; `violation` collects what is wrong on the way.

pub(crate) mod canonical;
pub mod duration;
pub(crate) mod fields;
pub(crate) mod node;
pub(crate) mod violation;
mod yaml;

pub use violation::{Violation, Violations};

use node::{Node, Position};
use violation::Report;

/// Longest file of definitions, in bytes.
pub const MAX_FILE_BYTES: usize = 1024 * 1024;

/// Longest name of a definition or of a part of one, in bytes.
pub const MAX_NAME_LENGTH: usize = 200;

/// Longest name of a topic, in bytes: Kafka's own limit.
pub const MAX_TOPIC_LENGTH: usize = 249;

/// The documents of a file that have content, one or many (`---` between them), YAML or JSON, and
/// the report that further faults go to. A file without any is a fault. `file` is its name for
/// messages.
pub(crate) fn read<'a>(text: &'a str, file: Option<&'a str>) -> (Vec<Node>, Report<'a>) {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut report = Report::new(text, file);
    let start = Position { line: 1, column: 1 };
    if text.len() > MAX_FILE_BYTES {
        let message = format!(
            "the file has {} bytes; {MAX_FILE_BYTES} are allowed",
            text.len()
        );
        report.add(start, "", message);
        return (Vec::new(), report);
    }
    let documents = yaml::read(text, &mut report);
    if documents.is_empty() && report.count() == 0 {
        report.add(start, "", "there is no definition in this file");
    }
    (documents, report)
}
