//! Interning: topics, fields and names become places while a rule is read.

use std::sync::Arc;

use crate::document::fields::{Fields, join};
use crate::document::node::{Key, Node, Position, Value};
use crate::document::violation::Report;
use crate::expr::{Condition, Names, Path, Segment, Template, is_identifier, is_word, nearest};
use crate::pattern::predicate::{Predicate, Scope};
use crate::pattern::rule::{Limits, MAX_CONDITIONS, Measure};

const CONDITION_NAMES: Names<'static> = Names {
    known: &["event", "key", "matches"],
    refused: &[],
};

const RESULT_NAMES: Names<'static> = Names {
    known: &["key", "matches", "rule"],
    refused: &[(
        "event",
        "has no value after a match; write `matches.<id>[0]` for the first event of a condition",
    )],
};

pub(super) struct Builder<'n> {
    default_topic: Option<&'n str>,
    pub(super) topics: Vec<Arc<str>>,
    pub(super) fields: Vec<Vec<Segment>>,
    mapped: Vec<Mapped<'n>>,
    pub(super) correlate: Vec<(Arc<str>, u16)>,
    pub(super) names: Vec<Arc<str>>,
    /// Of groups and absent steps: no event of a match stands under them.
    eventless: Vec<u16>,
    pub(super) predicates: Vec<Predicate>,
    pub(super) measures: Vec<Measure>,
    pub(super) limits: Limits,
    /// Names that actions may read beside those of the match: of enrichments.
    pub(super) joined: Vec<Arc<str>>,
}

/// A slot whose field is called differently in different topics.
struct Mapped<'n> {
    slot: u16,
    at: Position,
    path: String,
    fields: Vec<(&'n Key, Vec<Segment>)>,
}

impl<'n> Builder<'n> {
    pub(super) fn new(default_topic: Option<&'n str>, limits: Limits) -> Self {
        Self {
            default_topic,
            topics: Vec::new(),
            fields: Vec::new(),
            mapped: Vec::new(),
            correlate: Vec::new(),
            names: Vec::new(),
            eventless: Vec::new(),
            predicates: Vec::new(),
            measures: Vec::new(),
            limits,
            joined: Vec::new(),
        }
    }

    /// The place of a name that this entry gives by `id`, or that is made up where it gives none.
    pub(super) fn register(
        &mut self,
        fields: &Fields<'_>,
        what: &str,
        report: &mut Report<'_>,
    ) -> u16 {
        let made_up = || format!("{what}_{}", self.names.len() + 1);
        let id = match fields.string("id", report) {
            None => made_up(),
            Some((id, node)) => {
                let path = fields.path_of("id");
                if !is_identifier(id) {
                    let message = format!(
                        "`{}` is no id: a letter or _, then letters, digits or _",
                        id.chars().take(60).collect::<String>()
                    );
                    report.add(node.at, &path, message);
                } else if is_word(id) {
                    report.add(node.at, &path, unreadable(id, "an id"));
                } else if self.name(id).is_some() {
                    report.add(node.at, &path, format!("the id `{id}` is taken already"));
                }
                id.to_owned()
            }
        };
        self.names.push(Arc::from(id));
        place(self.names.len() - 1)
    }

    /// No event of a match will stand under this name.
    pub(super) fn bears_none(&mut self, name: u16) {
        self.eventless.push(name);
    }

    /// The ids that events of a match stand under.
    fn bearing(&self) -> Vec<&str> {
        let names = (0..).zip(&self.names);
        let bearing = names.filter(|(place, _)| !self.eventless.contains(place));
        bearing.map(|(_, name)| &**name).collect()
    }

    /// The place of an id that events of a match stand under; else what is wrong with it, beginning with
    /// `unknown` where nobody has it, and the remedy.
    pub(super) fn bearing_name(
        &self,
        id: &str,
        unknown: &str,
    ) -> Result<u16, (String, Option<String>)> {
        let known = self.bearing();
        let found = self.name(id);
        if let Some(place) = found.filter(|_| known.contains(&id)) {
            return Ok(place);
        }
        let message = match found {
            None => format!("{unknown} `{id}`"),
            Some(_) => format!(
                "no event stands under `{id}`: it is the id of a group or of an absent step"
            ),
        };
        Err((message, remedy(id, &known)))
    }

    /// The place of a name that is the shape's own.
    pub(super) fn name_of_shape(&mut self, shape: &str) -> u16 {
        self.names.push(Arc::from(shape));
        place(self.names.len() - 1)
    }

    /// The place of the rule's topic, for a shape that has none of its own.
    pub(super) fn rule_topic(&mut self, node: &Node, report: &mut Report<'_>) -> Option<u16> {
        let Some(topic) = self.default_topic else {
            let remedy = Some("give the rule a `topic`".to_owned());
            report.add_with(
                node.at,
                "match",
                "this does not say which topic it reads",
                remedy,
            );
            return None;
        };
        Some(self.intern_topic(topic))
    }

    fn intern_topic(&mut self, topic: &str) -> u16 {
        let known = self.topics.iter().position(|known| **known == *topic);
        place(known.unwrap_or_else(|| {
            self.topics.push(Arc::from(topic));
            self.topics.len() - 1
        }))
    }

    /// The slot of a field: its path, or a mapping of topics to paths. Which topics the rule reads is
    /// known later ([`Builder::fields_by_topic`]).
    pub(super) fn field(
        &mut self,
        node: &'n Node,
        path: &str,
        report: &mut Report<'_>,
    ) -> Option<u16> {
        let members = match &node.value {
            Value::String(text) => return Some(self.slot(&field_path(text))),
            Value::Map(members) => members,
            _ => {
                let message = format!(
                    "a field is its name, or a mapping of topics to names such as `{{orders: placed_at}}`, not {}",
                    node.described()
                );
                report.add(node.at, path, message);
                return None;
            }
        };
        let mut fields = Vec::new();
        for (topic, field) in members {
            let name = field.as_str();
            match name.filter(|name| !name.split('.').any(str::is_empty)) {
                Some(name) => fields.push((topic, field_path(name))),
                None => {
                    let found =
                        name.map_or(field.described().to_owned(), |name| format!("`{name}`"));
                    let message = format!(
                        "the field in the topic `{}` is a name such as `account.user_id`, not {found}",
                        topic.name
                    );
                    report.add(field.at, &join(path, &topic.name), message);
                    return None;
                }
            }
        }
        // A path that no expression can write: the slot is nobody else's.
        self.fields.push(Vec::new());
        let slot = place(self.fields.len() - 1);
        self.mapped.push(Mapped {
            slot,
            at: node.at,
            path: path.to_owned(),
            fields,
        });
        Some(slot)
    }

    /// The paths of all fields in each topic, where some field is called differently in them; every such
    /// field has a name in every topic that the rule reads, and in no other.
    pub(super) fn fields_by_topic(&self, report: &mut Report<'_>) -> Vec<Vec<Vec<Segment>>> {
        if self.mapped.is_empty() {
            return Vec::new();
        }
        let mut by_topic = vec![self.fields.clone(); self.topics.len()];
        for mapped in &self.mapped {
            for (topic, fields) in self.topics.iter().zip(&mut by_topic) {
                match mapped.fields.iter().find(|(key, _)| *key.name == **topic) {
                    Some((_, path)) => fields[usize::from(mapped.slot)].clone_from(path),
                    None => {
                        let message = format!(
                            "this does not say what the field is called in the topic `{topic}`"
                        );
                        let remedy = Some(format!("add `{topic}: FIELD`"));
                        report.add_with(mapped.at, &mapped.path, message, remedy);
                    }
                }
            }
            for (key, _) in &mapped.fields {
                if self.topics.iter().any(|topic| **topic == *key.name) {
                    continue;
                }
                let topics = || self.topics.iter().map(|topic| &**topic);
                let remedy = match nearest(&key.name, topics()) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => format!("it reads {}", topics().collect::<Vec<_>>().join(", ")),
                };
                let message = format!("the rule does not read the topic `{}`", key.name);
                report.add_with(
                    key.at,
                    &join(&mapped.path, &key.name),
                    message,
                    Some(remedy),
                );
            }
        }
        by_topic
    }

    /// The place of the topic that an entry reads: its own, or the rule's.
    pub(super) fn topic(&mut self, fields: &Fields<'_>, report: &mut Report<'_>) -> Option<u16> {
        let topic = match fields.get("topic") {
            Some(_) => fields.topic("topic", report)?,
            None => match self.default_topic {
                Some(topic) => topic,
                None => {
                    let remedy = "give it a `topic`, or give the rule one for all".to_owned();
                    report.add_with(
                        fields.at,
                        &fields.path,
                        "this does not say which topic it reads",
                        Some(remedy),
                    );
                    return None;
                }
            },
        };
        Some(self.intern_topic(topic))
    }

    /// The place of the condition that stands under `name`, on events of `topic` and, where any are
    /// given, of these CloudEvents types; without any condition every event meets it.
    pub(super) fn predicate(
        &mut self,
        fields: &Fields<'_>,
        name: &str,
        types: &[&str],
        topic: u16,
        report: &mut Report<'_>,
    ) -> Option<u16> {
        let path = fields.path_of(name);
        let predicate = match fields.get(name) {
            None if types.is_empty() => Predicate::always(topic),
            None => {
                let condition = Condition::compile(&of_types(types, None), &CONDITION_NAMES);
                let at = fields.entry("type").map_or(fields.at, |(_, node)| node.at);
                match condition {
                    Ok(condition) => Predicate::new(topic, condition, self),
                    Err(error) => {
                        report.add(at, &fields.path_of("type"), error.to_string());
                        return None;
                    }
                }
            }
            Some(node) => {
                let text = condition_text(node, &path, report)?;
                let condition = match Condition::compile(text, &CONDITION_NAMES) {
                    Ok(condition) => condition,
                    Err(error) => {
                        report.add_expression_error(&error, node, text, &path);
                        return None;
                    }
                };
                for read in condition.paths() {
                    let at = report.locate(node, text, read.offset);
                    self.check(read, at, &path, report);
                }
                let whole = match types {
                    [] => Ok(condition),
                    types => Condition::compile(&of_types(types, Some(text)), &CONDITION_NAMES),
                };
                match whole {
                    Ok(condition) => Predicate::new(topic, condition, self),
                    Err(error) => {
                        report.add(node.at, &path, error.to_string());
                        return None;
                    }
                }
            }
        };
        if self.predicates.len() >= MAX_CONDITIONS {
            let at = fields.get(name).map_or(fields.at, |node| node.at);
            let message = format!("a rule has at most {MAX_CONDITIONS} conditions");
            report.add(at, &path, message);
            return None;
        }
        self.predicates.push(predicate);
        Some(place(self.predicates.len() - 1))
    }

    /// A value with expressions over what a match holds.
    pub(super) fn template(
        &self,
        node: &Node,
        path: &str,
        report: &mut Report<'_>,
    ) -> Option<Template> {
        let known = RESULT_NAMES.known.iter().copied();
        let known: Vec<&str> = known
            .chain(self.joined.iter().map(|name| &**name))
            .collect();
        let names = Names {
            known: &known,
            ..RESULT_NAMES
        };
        match Template::compile(&node.to_json(), &names) {
            Ok(template) => {
                for read in template.paths() {
                    self.check(read, node.at, path, report);
                }
                Some(template)
            }
            Err(errors) => {
                for error in errors {
                    let suggestion = error
                        .suggestion
                        .as_ref()
                        .map(|near| format!("did you mean `{near}`?"));
                    report.add_with(node.at, path, error.to_string(), suggestion);
                }
                None
            }
        }
    }

    /// Whether the conditions and the parts of the key that an expression reads are there.
    pub(super) fn check(
        &self,
        read: &Path,
        at: crate::document::node::Position,
        path: &str,
        report: &mut Report<'_>,
    ) {
        let (message, remedy) = match (read.name(0), read.name(1)) {
            (Some("matches"), Some(id)) => {
                let unknown = "there is no condition or step before this with the id";
                match self.bearing_name(id, unknown) {
                    Ok(_) => return,
                    Err(fault) => fault,
                }
            }
            (Some("key"), Some(name)) if self.key(name).is_none() => {
                let known: Vec<&str> = self.correlate.iter().map(|(name, _)| &**name).collect();
                let message = format!("`correlate.by` does not name `{name}`");
                (message, remedy(name, &known))
            }
            _ => return,
        };
        report.add_with(at, path, message, remedy);
    }
}

/// Why a word of expressions cannot be `what`.
pub(super) fn unreadable(word: &str, what: &str) -> String {
    format!(
        "`{word}` cannot be {what}: no expression could read it, since `{word}` is a word of theirs"
    )
}

/// What else could have been meant.
fn remedy(name: &str, known: &[&str]) -> Option<String> {
    match nearest(name, known.iter().copied()) {
        Some(near) => Some(format!("did you mean `{near}`?")),
        None if known.is_empty() => None,
        None => Some(format!("there are {}", known.join(", "))),
    }
}

impl Scope for Builder<'_> {
    fn slot(&mut self, path: &[Segment]) -> u16 {
        let known = self.fields.iter().position(|known| known == path);
        place(known.unwrap_or_else(|| {
            self.fields.push(path.to_vec());
            self.fields.len() - 1
        }))
    }

    fn key(&self, name: &str) -> Option<u16> {
        let found = self
            .correlate
            .iter()
            .position(|(known, _)| **known == *name);
        found.map(place)
    }

    fn name(&self, id: &str) -> Option<u16> {
        self.names.iter().position(|name| **name == *id).map(place)
    }
}

/// What stands as a condition, as an expression.
pub(super) fn condition_text<'n>(
    node: &'n Node,
    path: &str,
    report: &mut Report<'_>,
) -> Option<&'n str> {
    match &node.value {
        Value::String(text) => Some(text),
        Value::Bool(true) => Some("true"),
        Value::Bool(false) => Some("false"),
        _ => {
            let message = format!(
                "a condition is an expression such as `event.amount > 100`, not {}",
                node.described()
            );
            report.add(node.at, path, message);
            None
        }
    }
}

/// A condition on the CloudEvents type, and what else must hold.
fn of_types(types: &[&str], condition: Option<&str>) -> String {
    let types: Vec<String> = types.iter().map(|name| format!("{name:?}")).collect();
    let is_one = format!(
        "has(event.ce.type) && event.ce.type in [{}]",
        types.join(", ")
    );
    match condition.map(str::trim) {
        None => is_one,
        Some(condition) => {
            let inner = condition
                .strip_prefix("${")
                .and_then(|it| it.strip_suffix('}'));
            format!("{is_one} && ({})", inner.unwrap_or(condition))
        }
    }
}

/// A field as people write it: `symbol` or `customer.id`.
pub(super) fn field_path(text: &str) -> Vec<Segment> {
    text.split('.')
        .map(|name| Segment::Name(name.to_owned()))
        .collect()
}

fn place(place: usize) -> u16 {
    u16::try_from(place).expect("a file of one megabyte names fewer")
}
