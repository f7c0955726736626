//! What a match leads to: the run that it starts, and the runs that it steers.

use serde_json::{Map, Value, json};

use super::event::Scalar;
use super::output::Match;
use super::predicate::{key_json, matches_json};
use super::route::Destination;
use super::rule::{Rule, Start, Steer, Target, Verb};
use crate::expr::{Bindings, ExprError, Template};
use crate::model::{Json, RunId};

impl Rule {
    /// A correlation key as an object of the names in `correlate.by`.
    pub fn key_object(&self, key: &[Scalar]) -> Json {
        key_json(self, key)
    }

    /// What the rule joins to a match: for each of [`Rule::enrich`] the key to look up, as text;
    /// `None` where the match has no such key.
    pub fn lookups(&self, found: &Match) -> Vec<Option<String>> {
        let bindings = Bound {
            rule: self,
            found,
            joined: &[],
        };
        let lookup = |key: &Template| match key.render(&bindings).ok()?.parse().ok()? {
            Value::Null => None,
            Value::String(text) => Some(text),
            Value::Number(number) => Some(match number.as_f64().filter(|_| number.is_f64()) {
                // As keys are compared, however the number was spelt.
                Some(value) => Scalar::Float(value).whole().to_json().to_string(),
                None => number.to_string(),
            }),
            other => Some(other.to_string()),
        };
        self.enrich
            .iter()
            .map(|enrich| lookup(&enrich.key))
            .collect()
    }
}

impl Start {
    /// The workflow and its input for a match, with `version`, `priority` and `tags` where the
    /// rule gives them; null where its route drops the match. `joined` are the values of
    /// [`Rule::lookups`], null where there is none.
    ///
    /// # Errors
    /// Where an expression has no value.
    pub fn request(&self, rule: &Rule, found: &Match, joined: &[Json]) -> Result<Value, ExprError> {
        let bindings = Bound {
            rule,
            found,
            joined,
        };
        let (workflow, priority) = match &self.to {
            Destination::Workflow(workflow) => (workflow, None),
            Destination::Route(route) => {
                let value = |(_, template): &(_, Template)| match template.render(&bindings) {
                    Ok(json) => Scalar::from_json(json.as_str()),
                    Err(_) => Scalar::Missing,
                };
                let values: Vec<Scalar> = route.columns.iter().map(value).collect();
                match route.choose(&values) {
                    Some(choice) => (&choice.workflow, choice.priority),
                    None => return Ok(Value::Null),
                }
            }
        };
        let input = rendered(self.input.as_ref(), &bindings)?;
        let mut request = json!({"workflow": &*workflow.name, "input": input});
        if let Some(version) = workflow.version {
            request["version"] = version.into();
        }
        if let Some(priority) = priority.or(self.priority) {
            request["priority"] = priority.into();
        }
        if !self.tags.is_empty() {
            request["tags"] = tags(&self.tags, &bindings)?;
        }
        Ok(request)
    }
}

impl Steer {
    /// The command for a match, as it stands in a record of commands: `type`, `run_id` or `tags`
    /// (with `workflow` where the rule names one), and of a signal `name` and `data`, else `reason`.
    ///
    /// # Errors
    /// Where an expression has no value, a tag is no text, or an id is none of a run.
    pub fn request(&self, rule: &Rule, found: &Match, joined: &[Json]) -> Result<Value, ExprError> {
        let bindings = Bound {
            rule,
            found,
            joined,
        };
        let mut command = json!({"type": self.verb.name()});
        match &self.target {
            Target::Run(id) => {
                let id = text(id, &bindings)?;
                RunId::parse(id.as_str().unwrap_or_default())
                    .map_err(|error| fault(error.to_string()))?;
                command["run_id"] = id;
            }
            Target::Tags { tags: of, workflow } => {
                command["tags"] = tags(of, &bindings)?;
                if let Some(workflow) = workflow {
                    command["workflow"] = (**workflow).into();
                }
            }
        }
        match &self.verb {
            Verb::Signal { name, data } => {
                command["name"] = text(name, &bindings)?;
                command["data"] = rendered(data.as_ref(), &bindings)?;
            }
            Verb::Cancel { reason } | Verb::Pause { reason } | Verb::Resume { reason } => {
                if let Some(reason) = reason {
                    command["reason"] = text(reason, &bindings)?;
                }
            }
        }
        Ok(command)
    }
}

fn rendered(template: Option<&Template>, bindings: &Bound<'_>) -> Result<Value, ExprError> {
    let Some(template) = template else {
        return Ok(Value::Null);
    };
    let json = template.render(bindings)?;
    // An event may be nested deeper than a tree is read: what reads it whole has no value then.
    json.parse()
        .map_err(|error: serde_json::Error| fault(format!("the value cannot be read: {error}")))
}

fn fault(message: String) -> ExprError {
    ExprError {
        message,
        expression: String::new(),
        offset: None,
        suggestion: None,
    }
}

/// What must be text; numbers and booleans are written out.
fn text(template: &Template, bindings: &Bound<'_>) -> Result<Value, ExprError> {
    match rendered(Some(template), bindings)? {
        text @ Value::String(_) => Ok(text),
        other @ (Value::Number(_) | Value::Bool(_)) => Ok(other.to_string().into()),
        _ => Err(fault(
            "an id, a tag, a name or a reason is text; this is null, a list or a map".to_owned(),
        )),
    }
}

fn tags(of: &[(String, Template)], bindings: &Bound<'_>) -> Result<Value, ExprError> {
    let mut tags = Map::new();
    for (name, template) in of {
        tags.insert(name.clone(), text(template, bindings)?);
    }
    Ok(Value::Object(tags))
}

struct Bound<'a> {
    rule: &'a Rule,
    found: &'a Match,
    joined: &'a [Json],
}

impl Bindings for Bound<'_> {
    fn lookup(&self, path: &[&str]) -> Option<(Json, usize)> {
        let json = match *path.first()? {
            "key" => key_json(self.rule, &self.found.key),
            "matches" => matches_json(self.rule, |name| self.found.taken(name)),
            "rule" => Json::from(json!({
                "name": &*self.rule.name,
                "version": self.rule.version,
                "at": self.found.at,
            })),
            name => {
                let mut enrich = self.rule.enrich.iter();
                let place = enrich.position(|enrich| *enrich.name == *name)?;
                self.joined.get(place).cloned().unwrap_or_else(Json::null)
            }
        };
        Some((json, 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Timestamp;
    use crate::pattern::{Event, Matcher, Outputs, syntax};

    #[test]
    fn an_input_that_no_tree_can_hold_is_an_error_and_not_null() {
        let rule = "{kind: rule, name: r, topic: t, match: {any: [{id: a}]}, \
                    start: {workflow: w, input: {all: '${matches.a[0]}', n: '${matches.a[0].n}'}}}";
        let rule = syntax::parse(rule, None).expect("a rule").remove(0);
        let requested = |depth: usize| {
            let (open, close) = ("[".repeat(depth), "]".repeat(depth));
            let event = format!(r#"{{"n":1,"deep":{open}{close}}}"#);
            let payload = Json::from_text(&event).expect("JSON");
            let mut out = Outputs::default();
            let event = Event {
                topic: 0,
                at: Timestamp(1),
                position: 0,
                slots: &rule.slots(0, &payload),
                payload: &payload,
            };
            Matcher::new(rule.clone(), false).push(&event, &mut out);
            let start = rule.start.as_ref().expect("it starts a workflow");
            start.request(&rule, &out.matches[0], &[])
        };
        let request = requested(100).expect("a tree holds it");
        assert_eq!(request["input"]["n"], 1);
        assert!(request["input"]["all"]["deep"].is_array());
        let error = requested(300).expect_err("it is too deep").to_string();
        assert!(error.contains("cannot be read"), "{error}");
    }
}
