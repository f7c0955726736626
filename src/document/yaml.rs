//! From text to trees. YAML 1.2 by its core schema; JSON is a part of it, so one reader does for
//! both and both have lines and columns.

use std::borrow::Cow;
use std::collections::HashMap;

use serde_json::Number;
use serde_saphyr::granit_parser::{Event, Options, Parser, ScalarStyle, Span, Tag};

use super::node::{Key, Node, Position, Value};
use super::violation::Report;

/// Values in one file, those that aliases repeat counted each time.
const MAX_NODES: usize = 100_000;

/// Collections within collections.
const MAX_DEPTH: usize = 64;

/// Longest name of a mapping's entry in flow style, in characters.
const MAX_KEY_LENGTH: usize = 65_536;

/// The documents of a file that have content. Faults go to the report; reading ends at the first
/// that leaves the structure in doubt.
pub(crate) fn read(text: &str, report: &mut Report<'_>) -> Vec<Node> {
    let mut options = Options::default();
    options.set_emit_comments(false);
    options.simple_key_max_lookahead = MAX_KEY_LENGTH;
    let mut builder = Builder {
        report,
        open: Vec::new(),
        done: Vec::new(),
        anchors: HashMap::new(),
        nodes: 0,
    };
    for next in Parser::new_from_str_with_options(text, options) {
        match next {
            Ok((event, span)) => {
                if builder.event(event, &span).is_err() {
                    break;
                }
            }
            Err(error) => {
                let marker = error.marker();
                let at = Position {
                    line: marker.line().max(1),
                    column: marker.col() + 1,
                };
                builder.report.add(
                    at,
                    "",
                    format!("not readable as YAML or JSON: {}", error.info()),
                );
                break;
            }
        }
    }
    builder.done
}

/// Reading cannot go on.
struct Stop;

struct Builder<'r, 'a> {
    report: &'r mut Report<'a>,
    open: Vec<Collection>,
    done: Vec<Node>,
    anchors: HashMap<usize, (Node, usize)>,
    nodes: usize,
}

/// A collection whose end has not come yet.
struct Collection {
    at: Position,
    anchor: usize,
    nodes_before: usize,
    content: Content,
}

enum Content {
    List(Vec<Node>),
    Map {
        members: Vec<(Key, Node)>,
        key: Option<PendingKey>,
    },
}

/// The entry whose value comes next; without a name, its value is dropped.
struct PendingKey {
    at: Position,
    name: Option<String>,
}

impl Builder<'_, '_> {
    fn event(&mut self, event: Event<'_>, span: &Span) -> Result<(), Stop> {
        let at = Position {
            line: span.start.line(),
            column: span.start.col() + 1,
        };
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let value = self.scalar(text, style, tag.as_deref(), at);
                let source = span
                    .start
                    .byte_offset()
                    .zip(span.end.byte_offset())
                    .map(|(start, end)| start..end);
                let node = Node { at, source, value };
                self.count(1, at)?;
                self.remember(anchor, &node, 1);
                self.add(node);
            }
            Event::SequenceStart(_, anchor, tag) => {
                self.refuse_tag(tag.as_deref(), at);
                self.begin(at, anchor, Content::List(Vec::new()))?;
            }
            Event::MappingStart(_, anchor, tag) => {
                self.refuse_tag(tag.as_deref(), at);
                self.begin(
                    at,
                    anchor,
                    Content::Map {
                        members: Vec::new(),
                        key: None,
                    },
                )?;
            }
            Event::SequenceEnd | Event::MappingEnd => self.end(),
            Event::Alias(anchor) => {
                let Some((node, size)) = self.anchors.get(&anchor).cloned() else {
                    self.report
                        .add(at, "", "this alias refers to a value that contains it");
                    return Err(Stop);
                };
                self.count(size, at)?;
                self.add(node);
            }
            Event::DocumentEnd => self.anchors.clear(),
            _ => {}
        }
        Ok(())
    }

    fn count(&mut self, nodes: usize, at: Position) -> Result<(), Stop> {
        self.nodes += nodes;
        if self.nodes > MAX_NODES {
            self.report
                .add(at, "", format!("the file has more than {MAX_NODES} values"));
            return Err(Stop);
        }
        Ok(())
    }

    fn begin(&mut self, at: Position, anchor: usize, content: Content) -> Result<(), Stop> {
        if self.open.len() >= MAX_DEPTH {
            self.report
                .add(at, "", format!("nested deeper than {MAX_DEPTH} levels"));
            return Err(Stop);
        }
        let nodes_before = self.nodes;
        self.count(1, at)?;
        self.open.push(Collection {
            at,
            anchor,
            nodes_before,
            content,
        });
        Ok(())
    }

    fn end(&mut self) {
        let Some(closed) = self.open.pop() else {
            return;
        };
        let value = match closed.content {
            Content::List(items) => Value::List(items),
            Content::Map { members, .. } => Value::Map(members),
        };
        let node = Node {
            at: closed.at,
            source: None,
            value,
        };
        self.remember(closed.anchor, &node, self.nodes - closed.nodes_before);
        self.add(node);
    }

    fn remember(&mut self, anchor: usize, node: &Node, size: usize) {
        if anchor != 0 {
            self.anchors.insert(anchor, (node.clone(), size));
        }
    }

    fn add(&mut self, node: Node) {
        let Some(collection) = self.open.last_mut() else {
            // An empty document is no definition and no fault.
            if !matches!(node.value, Value::Null) {
                self.done.push(node);
            }
            return;
        };
        match &mut collection.content {
            Content::List(items) => items.push(node),
            Content::Map { members, key } => match key.take() {
                None => *key = Some(pending_key(node, members, self.report)),
                Some(PendingKey {
                    at,
                    name: Some(name),
                }) => members.push((Key { at, name }, node)),
                Some(PendingKey { name: None, .. }) => {}
            },
        }
    }

    fn refuse_tag(&mut self, tag: Option<&Tag>, at: Position) {
        if let Some(tag) = tag
            && !tag.is_yaml_core_schema()
        {
            self.report.add(
                at,
                "",
                format!(
                    "the tag `{}` has no meaning here; remove it",
                    tag.original()
                ),
            );
        }
    }

    fn scalar(
        &mut self,
        text: Cow<'_, str>,
        style: ScalarStyle,
        tag: Option<&Tag>,
        at: Position,
    ) -> Value {
        self.refuse_tag(tag, at);
        let is_string = tag.is_some_and(|tag| tag.is_yaml_core_schema_tag("str"));
        if style != ScalarStyle::Plain || is_string {
            return Value::String(text.into_owned());
        }
        match &*text {
            "" | "~" | "null" | "Null" | "NULL" => Value::Null,
            "true" | "True" | "TRUE" => Value::Bool(true),
            "false" | "False" | "FALSE" => Value::Bool(false),
            ".inf" | ".Inf" | ".INF" | "-.inf" | "-.Inf" | "-.INF" | "+.inf" | ".nan" | ".NaN"
            | ".NAN" => {
                self.report.add(
                    at,
                    "",
                    format!("`{text}` has no form in JSON; write a number, or quote it"),
                );
                Value::Null
            }
            _ => match number(&text) {
                Some(number) => Value::Number(number),
                None => Value::String(text.into_owned()),
            },
        }
    }
}

fn pending_key(node: Node, members: &[(Key, Node)], report: &mut Report<'_>) -> PendingKey {
    let name = match node.value {
        Value::String(text) if text == "<<" => {
            report.add(
                node.at,
                "",
                "merge keys (`<<`) are not supported; write the entries out",
            );
            None
        }
        Value::String(text) => Some(text),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(value) => Some(value.to_string()),
        Value::Null => Some("null".to_owned()),
        Value::List(_) | Value::Map(_) => {
            report.add(
                node.at,
                "",
                format!("a key must be a string, not {}", node.described()),
            );
            None
        }
    };
    if let Some(name) = &name
        && let Some((first, _)) = members.iter().find(|(key, _)| key.name == *name)
    {
        report.add(
            node.at,
            "",
            format!(
                "the key `{name}` is already given on line {}",
                first.at.line
            ),
        );
        return PendingKey {
            at: node.at,
            name: None,
        };
    }
    PendingKey { at: node.at, name }
}

/// A number by the core schema; numbers too large for 64 bits become doubles.
fn number(text: &str) -> Option<Number> {
    if let Some(digits) = text.strip_prefix("0x") {
        return u64::from_str_radix(digits, 16).ok().map(Number::from);
    }
    if let Some(digits) = text.strip_prefix("0o") {
        return u64::from_str_radix(digits, 8).ok().map(Number::from);
    }
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    if !digits.bytes().any(|byte| byte.is_ascii_digit())
        || !digits.starts_with(|first: char| first.is_ascii_digit() || first == '.')
        || !digits
            .bytes()
            .all(|byte| byte.is_ascii_digit() || b".eE+-".contains(&byte))
    {
        return None;
    }
    if let Ok(integer) = text.parse::<i64>() {
        return Some(Number::from(integer));
    }
    if let Ok(integer) = text.parse::<u64>() {
        return Some(Number::from(integer));
    }
    text.parse::<f64>().ok().and_then(Number::from_f64)
}
