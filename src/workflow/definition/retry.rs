//! `retry`, `on_error` and their aliases. A step's retry overrides the workflow's key by key, and
//! that the configured default.

use serde_json::{Map, Value as Json};

use crate::document::duration;
use crate::document::fields::{Field, Fields, alias, field, join};
use crate::document::node::{Node, Position, Value};
use crate::document::violation::Report;
use crate::model::Millis;
use crate::workflow::program::{Action, Backoff, OnError, RetryPolicy};

/// Keys of a workflow and of a step that say how it is tried again.
pub(super) const RETRY: Field = alias("retry", &["retry_config"]);
pub(super) const RETRY_COUNT: Field = field("retry_count");

pub(super) const RETRY_FIELDS: &[Field] = &[
    field("max_attempts"),
    field("retry_count"),
    field("backoff"),
    field("backoff_multiplier"),
    field("retry_on"),
];

pub(super) const BACKOFF_FIELDS: &[Field] = &[field("initial"), field("multiplier"), field("max")];

const PLANNED_ACTIONS: [&str; 4] = ["compensate", "pause", "fallback", "goto"];

/// The keys of a `retry` that were given.
#[derive(Clone, Debug, Default)]
pub(super) struct RetrySpec {
    at: Option<Position>,
    path: String,
    max_attempts: Option<u32>,
    initial: Option<Millis>,
    multiplier: Option<f64>,
    max: Option<Millis>,
    retry_on: Option<Vec<String>>,
}

impl RetrySpec {
    /// Reads `retry` and `retry_count` of a workflow or a step.
    pub(super) fn read(owner: &Fields<'_>, report: &mut Report<'_>) -> Self {
        let mut spec = RetrySpec::default();
        if let Some((key, node)) = owner.entry("retry") {
            let path = join(&owner.path, &key.name);
            spec.at = Some(node.at);
            spec.path = path.clone();
            if let Some(fields) = Fields::read(node, &path, "a retry", RETRY_FIELDS, &[], report) {
                spec.read_fields(&fields, report);
            }
        }
        if let Some((key, node)) = owner.entry("retry_count") {
            let count = owner.integer("retry_count", 0..=u32::MAX - 1, report);
            if spec.max_attempts.is_some() {
                let message = "`retry_count` and `retry.max_attempts` say the same (attempts = retries + 1); give one of them";
                report.add(key.at, &join(&owner.path, &key.name), message);
            }
            spec.max_attempts = spec.max_attempts.or(count.map(|count| count + 1));
            if spec.at.is_none() {
                spec.at = Some(node.at);
                spec.path = join(&owner.path, &key.name);
            }
        }
        spec
    }

    /// Whether the owner says anything of retries.
    pub(super) fn is_given(&self) -> bool {
        self.at.is_some()
    }

    fn read_fields(&mut self, fields: &Fields<'_>, report: &mut Report<'_>) {
        fields.refuse_both("max_attempts", "retry_count", report);
        self.max_attempts = fields.integer("max_attempts", 1..=u32::MAX, report);
        if self.max_attempts.is_none() {
            self.max_attempts = fields
                .integer("retry_count", 0..=u32::MAX - 1, report)
                .map(|count| count + 1);
        }
        self.multiplier = fields.number("backoff_multiplier", 1.0, report);
        if let Some((key, node)) = fields.entry("backoff")
            && let Some(backoff) = Fields::read(
                node,
                &join(&fields.path, &key.name),
                "a backoff",
                BACKOFF_FIELDS,
                &[],
                report,
            )
        {
            self.initial = backoff.duration("initial", report);
            self.max = backoff.duration("max", report);
            let multiplier = backoff.number("multiplier", 1.0, report);
            if self.multiplier.is_some() && backoff.get("multiplier").is_some() {
                let (key, _) = fields.entry("backoff_multiplier").expect("it was read");
                let message =
                    "`backoff_multiplier` and `backoff.multiplier` mean the same; give one of them";
                report.add(key.at, &join(&fields.path, &key.name), message);
            }
            self.multiplier = self.multiplier.or(multiplier);
        }
        let classes = fields.strings("retry_on", report);
        self.retry_on = classes.map(|classes| {
            classes
                .into_iter()
                .map(|(class, _)| class.to_owned())
                .collect()
        });
    }

    /// In the canonical form: only what was given, under its name.
    pub(super) fn canonical(&self) -> Option<Json> {
        let mut backoff = Map::new();
        let mut retry = Map::new();
        insert(&mut backoff, "initial", self.initial.map(duration::write));
        insert(&mut backoff, "multiplier", self.multiplier);
        insert(&mut backoff, "max", self.max.map(duration::write));
        insert(&mut retry, "max_attempts", self.max_attempts);
        insert(
            &mut retry,
            "backoff",
            (!backoff.is_empty()).then_some(backoff),
        );
        insert(&mut retry, "retry_on", self.retry_on.clone());
        (!retry.is_empty()).then_some(Json::Object(retry))
    }

    /// This over `base`, key by key. A backoff that begins above its end is refused where this
    /// spec is what makes it so.
    pub(super) fn merge(&self, base: &RetryPolicy, report: &mut Report<'_>) -> RetryPolicy {
        let backoff = Backoff {
            initial: self.initial.unwrap_or(base.backoff.initial),
            multiplier: self.multiplier.unwrap_or(base.backoff.multiplier),
            max: self.max.unwrap_or(base.backoff.max),
        };
        if let Some(at) = self.at
            && backoff.initial > backoff.max
            && (self.initial.is_some() || self.max.is_some())
        {
            let inherited = |own: Option<Millis>| {
                if own.is_none() {
                    " (not given here, so taken over)"
                } else {
                    ""
                }
            };
            let message = format!(
                "the backoff begins at {}{}, which exceeds its maximum of {}{}",
                duration::write(backoff.initial),
                inherited(self.initial),
                duration::write(backoff.max),
                inherited(self.max),
            );
            report.add_with(
                at,
                &join(&self.path, "backoff"),
                message,
                Some("raise `max` or lower `initial`".to_owned()),
            );
        }
        RetryPolicy {
            max_attempts: self.max_attempts.unwrap_or(base.max_attempts),
            backoff,
            retry_on: self.retry_on.clone().or_else(|| base.retry_on.clone()),
        }
    }
}

fn insert(map: &mut Map<String, Json>, name: &str, value: Option<impl Into<Json>>) {
    if let Some(value) = value {
        map.insert(name.to_owned(), value.into());
    }
}

/// Reads `on_error`: actions by class of error.
pub(super) fn on_error(node: &Node, path: &str, report: &mut Report<'_>) -> OnError {
    let mut on_error = OnError::default();
    let Value::Map(members) = &node.value else {
        let suggestion = node
            .as_str()
            .map(|action| format!("write `on_error: {{default: {action}}}`"));
        let message = format!(
            "`on_error` maps classes of errors to actions; this is {}",
            node.described()
        );
        report.add_with(node.at, path, message, suggestion);
        return on_error;
    };
    for (key, node) in members {
        let path = join(path, &key.name);
        let Some(action) = action(node, &path, report) else {
            continue;
        };
        if key.name == "default" {
            on_error.default = Some(action);
        } else {
            on_error.by_class.insert(key.name.clone(), action);
        }
    }
    on_error
}

fn action(node: &Node, path: &str, report: &mut Report<'_>) -> Option<Action> {
    let name = match &node.value {
        Value::String(name) => name.as_str(),
        Value::Map(members) => members.first().map_or("", |(key, _)| key.name.as_str()),
        _ => {
            report.add(
                node.at,
                path,
                format!(
                    "an action is `retry`, `skip` or `fail`, not {}",
                    node.described()
                ),
            );
            return None;
        }
    };
    match (name, &node.value) {
        ("retry", Value::String(_)) => Some(Action::Retry),
        ("skip", Value::String(_)) => Some(Action::Skip),
        ("fail", Value::String(_)) => Some(Action::Fail),
        (name, _) if PLANNED_ACTIONS.contains(&name) => {
            report.add(
                node.at,
                path,
                format!(
                    "the action `{name}` is not there yet; there are `retry`, `skip` and `fail`"
                ),
            );
            None
        }
        (name, _) => {
            let suggestion = crate::expr::nearest(name, ["retry", "skip", "fail"])
                .map(|near| format!("did you mean `{near}`?"));
            report.add_with(
                node.at,
                path,
                format!("unknown action `{name}`; there are `retry`, `skip` and `fail`"),
                suggestion,
            );
            None
        }
    }
}
