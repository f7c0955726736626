//! What goes to stdout: tables for people, one JSON or YAML document for programs. Talk goes to
//! stderr.

use std::borrow::Cow;
use std::io::{IsTerminal as _, Write as _};

use serde_json::Value;

use super::CliError;
use super::args::{Global, OutputFormat};
use crate::model::json::compact;

/// Format and manners of everything that is printed.
#[derive(Clone, Copy, Debug)]
pub struct Output {
    pub format: OutputFormat,
    color: bool,
    quiet: bool,
}

/// Colours of words in tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shade {
    Good,
    Bad,
    Busy,
    Faint,
}

impl Output {
    pub fn new(global: &Global) -> Self {
        let color = !global.no_color() && std::io::stdout().is_terminal();
        Self {
            format: global.format(),
            color,
            quiet: global.quiet,
        }
    }

    pub fn is_table(&self) -> bool {
        self.format == OutputFormat::Table
    }

    pub fn is_quiet(&self) -> bool {
        self.quiet
    }

    /// A line for people, unless they asked for quiet.
    pub fn say(&self, text: &str) {
        if !self.quiet {
            complain(text);
        }
    }

    /// One document: JSON on one line, or YAML.
    pub fn document(&self, value: &Value) {
        match self.format {
            OutputFormat::Yaml => {
                let text =
                    serde_saphyr::to_string(value).unwrap_or_else(|error| format!("# {error}\n"));
                write_out(&text);
            }
            OutputFormat::Json | OutputFormat::Table => self.line(&value.to_string()),
        }
    }

    /// A JSON document as the server sent it, on one line: fields keep their order, values their text.
    ///
    /// # Errors
    /// Where YAML is asked for, as [`yaml`].
    pub fn document_text(&self, json: &str) -> Result<(), CliError> {
        match self.format {
            OutputFormat::Yaml => write_out(&yaml(json)?),
            OutputFormat::Json | OutputFormat::Table => self.line(&compact(json)),
        }
        Ok(())
    }

    /// One element of a stream: a JSON line, or a YAML document with its separator.
    ///
    /// # Errors
    /// As [`Self::document_text`].
    pub fn stream_element(&self, json: &str) -> Result<(), CliError> {
        match self.format {
            OutputFormat::Yaml => write_out(&format!("---\n{}", yaml(json)?)),
            OutputFormat::Json | OutputFormat::Table => self.line(&compact(json)),
        }
        Ok(())
    }

    /// One line of text.
    pub fn line(&self, text: &str) {
        write_out(&format!("{text}\n"));
    }

    /// What is known of one thing by that name, in words from wherever.
    pub fn fact(&self, name: &str, words: &str) {
        self.line(&format!("{name:<10}{}", visible(words)));
    }

    /// Columns under a heading; known statuses are coloured. An empty table is a line on stderr.
    pub fn table(&self, heading: &[&str], rows: &[Vec<String>]) {
        if rows.is_empty() {
            self.say("nothing found");
            return;
        }
        let shown = |row: &Vec<String>| row.iter().map(|cell| visible(cell).into_owned()).collect();
        let rows: Vec<Vec<String>> = rows.iter().map(shown).collect();
        let mut widths: Vec<usize> = heading.iter().map(|title| title.chars().count()).collect();
        for row in &rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        let titles: Vec<String> = heading.iter().map(|title| (*title).to_owned()).collect();
        let mut text = self.row(&titles, &widths, true);
        for row in &rows {
            text.push_str(&self.row(row, &widths, false));
        }
        write_out(&text);
    }

    fn row(&self, cells: &[String], widths: &[usize], heading: bool) -> String {
        let mut line = String::new();
        for (place, (cell, width)) in cells.iter().zip(widths).enumerate() {
            let shade = if heading {
                Some(Shade::Faint)
            } else {
                shade_of(cell)
            };
            line.push_str(&self.paint(cell, shade));
            if place + 1 < cells.len() {
                line.extend(std::iter::repeat_n(' ', width - cell.chars().count() + 2));
            }
        }
        line.truncate(line.trim_end().len());
        line.push('\n');
        line
    }

    fn paint(&self, text: &str, shade: Option<Shade>) -> String {
        let Some(shade) = shade.filter(|_| self.color) else {
            return text.to_owned();
        };
        let code = match shade {
            Shade::Good => 32,
            Shade::Bad => 31,
            Shade::Busy => 33,
            Shade::Faint => 2,
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }

    /// A word in the colour of its status.
    pub fn status(&self, word: &str) -> String {
        self.paint(word, shade_of(word))
    }
}

fn shade_of(cell: &str) -> Option<Shade> {
    match cell {
        "completed" | "ok" | "created" => Some(Shade::Good),
        "failed" | "fault" | "invalid" | "missing" | "conflict" | "refused" | "unreachable" => {
            Some(Shade::Bad)
        }
        "running" | "scheduled" | "waiting" | "paused" => Some(Shade::Busy),
        "pending" | "skipped" | "cancelled" | "unchanged" | "-" => Some(Shade::Faint),
        _ => None,
    }
}

/// A line on stderr, quiet or not: what went wrong. Where nobody reads it, it is lost.
pub fn complain(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{}", visible_lines(text));
}

/// A reader that has seen enough (`partita list | head`) is no error; any other failure is one,
/// since what was asked for did not arrive.
pub fn write_out(text: &str) {
    let mut stdout = std::io::stdout().lock();
    let written = stdout
        .write_all(text.as_bytes())
        .and_then(|()| stdout.flush());
    match written {
        Ok(()) => {}
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => std::process::exit(0),
        Err(error) => {
            complain(&format!("partita: cannot write to stdout: {error}"));
            std::process::exit(1);
        }
    }
}

/// JSON of the server as YAML.
///
/// # Errors
/// In words, where a value is what no tree holds (see `tree`): YAML is written from one.
pub fn yaml(json: &str) -> Result<String, CliError> {
    let unfit = |error: String| {
        CliError::Failed(format!(
            "the answer cannot be shown as YAML: {error}\n-o json shows it as it is"
        ))
    };
    let value: Value = serde_json::from_str(json).map_err(|error| unfit(error.to_string()))?;
    serde_saphyr::to_string(&value).map_err(|error| unfit(error.to_string()))
}

/// Text from elsewhere, such as an agent's message, as a terminal may have it: characters that steer the
/// terminal or turn the direction of writing are escaped (`\n`, `\u{1b}`).
pub fn visible(text: &str) -> Cow<'_, str> {
    escape(text, |_| false)
}

/// As [`visible`], for text that may have several lines, and tabs.
pub fn visible_lines(text: &str) -> Cow<'_, str> {
    escape(text, |character| matches!(character, '\n' | '\t'))
}

fn escape(text: &str, is_fine: impl Fn(char) -> bool) -> Cow<'_, str> {
    let is_odd = |character: char| {
        let turns = matches!(character, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        (turns || character.is_control()) && !is_fine(character)
    };
    if !text.contains(is_odd) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len());
    for character in text.chars() {
        match is_odd(character) {
            true => shown.extend(character.escape_default()),
            false => shown.push(character),
        }
    }
    Cow::Owned(shown)
}

/// A member of a JSON object as a table shows it, [`visible`]; `-` where it is missing or null.
pub fn cell(value: &Value, member: &str) -> String {
    match value.get(member) {
        None | Some(Value::Null) => "-".to_owned(),
        Some(Value::String(text)) => visible(text).into_owned(),
        Some(other) => visible(&other.to_string()).into_owned(),
    }
}

/// Cuts the [`visible`] text to `most` characters, the last of which is then an ellipsis.
pub fn shorten(text: &str, most: usize) -> String {
    let text = visible(text);
    if text.chars().count() <= most {
        return text.into_owned();
    }
    text.chars()
        .take(most.saturating_sub(1))
        .chain(['…'])
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Output = Output {
        format: OutputFormat::Table,
        color: false,
        quiet: false,
    };

    #[test]
    fn columns_line_up_and_end_without_blanks() {
        let row = |a: &str, b: &str| vec![a.to_owned(), b.to_owned()];
        assert_eq!(PLAIN.row(&row("é", "x"), &[4, 5], false), "é     x\n");
        assert_eq!(PLAIN.row(&row("abcd", ""), &[4, 5], false), "abcd\n");
    }

    #[test]
    fn colours_only_where_asked_for() {
        assert_eq!(PLAIN.status("failed"), "failed");
        assert_eq!(
            Output {
                color: true,
                ..PLAIN
            }
            .status("failed"),
            "\x1b[31mfailed\x1b[0m"
        );
    }

    #[test]
    fn what_steers_a_terminal_is_escaped() {
        for (text, cell, line) in [
            (
                "\x1b[2J\x1b]0;x\x07",
                r"\u{1b}[2J\u{1b}]0;x\u{7}",
                r"\u{1b}[2J\u{1b}]0;x\u{7}",
            ),
            ("a\tb\r\nc", r"a\tb\r\nc", "a\tb\\r\nc"),
            ("\x7f\u{9b}1m", r"\u{7f}\u{9b}1m", r"\u{7f}\u{9b}1m"),
            ("\u{202e}\u{2066}", r"\u{202e}\u{2066}", r"\u{202e}\u{2066}"),
            (r"C:\é …", r"C:\é …", r"C:\é …"),
        ] {
            assert_eq!(visible(text), cell);
            assert_eq!(visible_lines(text), line);
        }
        assert_eq!(visible(&visible("\n")), r"\n");
        assert_eq!(shorten("\x1b\x1b", 7), r"\u{1b}…");
    }

    #[test]
    fn what_is_no_tree_is_no_yaml() {
        assert_eq!(yaml(r#"{"b":1,"a":[2]}"#).unwrap().matches('\n').count(), 3);
        for json in [r#"{"a":1e400}"#, r#"["\ud800"]"#] {
            let error = yaml(json).unwrap_err();
            assert_eq!(error.code(), 1);
            assert!(error.to_string().contains("as YAML"), "{error}");
        }
    }

    #[test]
    fn long_text_is_cut_at_a_character() {
        assert_eq!(shorten("äöüß", 3), "äö…");
        assert_eq!(shorten("äöü", 3), "äöü");
    }
}
