//! The table of what is applied: versions by kind and name, and the rules in force among them.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::kinds::{Definition, Kind, Program};
use crate::model::Timestamp;
use crate::pattern::{Rule, Target};

/// One applied definition.
#[derive(Debug)]
pub struct Stored {
    pub definition: Definition,
    pub applied_at: Timestamp,
}

type Versions = BTreeMap<u32, Arc<Stored>>;

/// All that is applied, as far as it was read.
pub(super) struct Table {
    by_name: HashMap<Kind, BTreeMap<Arc<str>, Versions>>,
    /// How often `live` became another list.
    generation: u64,
    live: Arc<[Arc<Rule>]>,
}

impl Default for Table {
    fn default() -> Self {
        Self {
            by_name: HashMap::new(),
            generation: 0,
            live: Arc::from([]),
        }
    }
}

impl Table {
    /// That version, or the highest where none is given.
    pub(super) fn get(&self, kind: Kind, name: &str, version: Option<u32>) -> Option<&Arc<Stored>> {
        let versions = self.by_name.get(&kind)?.get(name)?;
        match version {
            Some(version) => versions.get(&version),
            None => versions.last_key_value().map(|(_, stored)| stored),
        }
    }

    /// All versions of a kind, by name, the highest first.
    pub(super) fn list(&self, kind: Kind) -> impl Iterator<Item = &Arc<Stored>> {
        let names = self.by_name.get(&kind).into_iter().flatten();
        names.flat_map(|(_, versions)| versions.values().rev())
    }

    pub(super) fn insert(&mut self, stored: Stored) {
        let definition = &stored.definition;
        let (kind, name, version) = (
            definition.kind(),
            definition.name.clone(),
            definition.version,
        );
        let names = self.by_name.entry(kind).or_default();
        let versions = names.entry(name).or_default();
        versions.insert(version, Arc::new(stored));
        self.note();
    }

    pub(super) fn remove(&mut self, kind: Kind, name: &str, version: u32) {
        let Some(names) = self.by_name.get_mut(&kind) else {
            return;
        };
        if let Some(versions) = names.get_mut(name) {
            versions.remove(&version);
            if versions.is_empty() {
                names.remove(name);
            }
        }
        self.note();
    }

    /// The rules in force, by name, then those that steps of workflows imply: of every version that is
    /// applied, since runs pin theirs. And how often that list changed.
    pub(super) fn rules(&self) -> (u64, Arc<[Arc<Rule>]>) {
        (self.generation, self.live.clone())
    }

    /// That version of a rule, in force or not, and when it was applied; one that a step of a workflow
    /// implies was applied with that version of the workflow.
    pub(super) fn rule(&self, name: &str, version: u32) -> Option<(&Arc<Rule>, Timestamp)> {
        if let Some(stored) = self.get(Kind::Rule, name, Some(version)) {
            return Some((stored.definition.rule()?, stored.applied_at));
        }
        let (workflow, _) = name.split_once(':')?;
        let stored = self.get(Kind::Workflow, workflow, Some(version))?;
        let mut awaited = stored.definition.awaited.iter();
        let rule = awaited.find(|rule| *rule.name == *name)?;
        Some((rule, stored.applied_at))
    }

    fn note(&mut self) {
        let names = self.by_name.get(&Kind::Rule).into_iter().flatten();
        let awaited = self.list(Kind::Workflow);
        let awaited = awaited.flat_map(|stored| &stored.definition.awaited);
        let live: Vec<Arc<Rule>> = names
            .filter_map(|(_, versions)| versions.last_key_value())
            .filter_map(|(_, stored)| stored.definition.rule())
            .filter(|rule| rule.enabled)
            .chain(awaited)
            .cloned()
            .collect();
        let is_same = live.len() == self.live.len()
            && live
                .iter()
                .zip(self.live.iter())
                .all(|(one, two)| one.source == two.source);
        if !is_same {
            self.live = live.into();
            self.generation += 1;
        }
    }

    /// What is odd about a definition beside the others, though it can be applied: each a
    /// sentence.
    pub(super) fn warnings(&self, definition: &Definition) -> Vec<String> {
        let Program::Rule(rule) = &definition.program else {
            return Vec::new();
        };
        let is_unknown = |(name, version): &(&str, Option<u32>)| {
            self.get(Kind::Workflow, name, *version).is_none()
        };
        let unknown = rule.workflows().into_iter().filter(is_unknown);
        let started = unknown.map(|(name, version)| {
            let version = version.map_or(String::new(), |version| format!("@{version}"));
            format!(
                "rule `{}` starts workflow `{name}{version}`, which is not applied; until it is, its matches start nothing",
                rule.name
            )
        });
        let steered = rule.steers.iter().filter_map(|steer| {
            let Target::Tags { workflow, .. } = &steer.target else {
                return None;
            };
            let name = workflow.as_deref()?;
            is_unknown(&(name, None)).then(|| {
                let (rule, verb) = (&rule.name, steer.verb.name());
                format!(
                    "rule `{rule}` gives `{verb}` to runs of workflow `{name}`, which is not applied"
                )
            })
        });
        started.chain(steered).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::super::kinds::parse;
    use super::*;
    use crate::workflow::definition::Defaults;

    fn apply(table: &mut Table, text: &str) {
        apply_at(table, 0, text);
    }

    fn apply_at(table: &mut Table, at: i64, text: &str) {
        for definition in parse(text, None, &Defaults::default()).expect("a definition") {
            table.insert(Stored {
                definition,
                applied_at: Timestamp(at),
            });
        }
    }

    fn live(table: &Table) -> (u64, Vec<String>) {
        let (generation, rules) = table.rules();
        (generation, rules.iter().map(|rule| rule.id()).collect())
    }

    fn rule(name: &str, more: &str) -> String {
        format!("kind: rule\nname: {name}\ntopic: t\n{more}\nmatch: {{any: [{{id: a}}]}}\n")
    }

    #[test]
    fn the_highest_version_is_in_force_unless_it_is_disabled() {
        let mut table = Table::default();
        assert_eq!(live(&table), (0, vec![]));
        apply(&mut table, &rule("b", ""));
        apply(&mut table, &rule("a", ""));
        assert_eq!(live(&table), (2, vec!["a@1".into(), "b@1".into()]));
        apply(&mut table, &rule("a", "version: 3"));
        apply(&mut table, &rule("a", "version: 2"));
        assert_eq!(live(&table), (3, vec!["a@3".into(), "b@1".into()]));
        apply(&mut table, &rule("a", "version: 4\nenabled: false"));
        assert_eq!(live(&table), (4, vec!["b@1".into()]));
        let older = table.get(Kind::Rule, "a", Some(3)).expect("it drains");
        assert!(older.definition.rule().is_some_and(|rule| rule.enabled));
        table.remove(Kind::Rule, "a", 4);
        assert_eq!(live(&table), (5, vec!["a@3".into(), "b@1".into()]));
    }

    #[test]
    fn steps_that_await_patterns_imply_rules_as_long_as_their_version_is_there() {
        let mut table = Table::default();
        let workflow = |version: u32| {
            let pattern = "match: {any: [{id: a, topic: t}]}";
            format!(
                "{{kind: workflow, name: w, version: {version}, steps: [{{id: s, {pattern}}}]}}"
            )
        };
        apply_at(&mut table, 10, &rule("z", ""));
        apply_at(&mut table, 20, &workflow(1));
        apply_at(&mut table, 30, &workflow(2));
        let all = vec!["z@1".into(), "w:s@2".into(), "w:s@1".into()];
        assert_eq!(live(&table), (3, all));
        apply(
            &mut table,
            "{kind: workflow, name: other, steps: [{id: s, agent: x}]}",
        );
        assert_eq!(live(&table).0, 3, "nothing is implied by it");
        assert_eq!(table.list(Kind::Rule).count(), 1);
        assert!(
            table
                .rule("w:s", 1)
                .is_some_and(|(rule, _)| rule.is_awaited)
        );
        let applied = |name, version| table.rule(name, version).map(|(_, at)| at.0);
        assert_eq!((applied("z", 1), applied("z", 2)), (Some(10), None));
        assert_eq!((applied("w:s", 1), applied("w:s", 2)), (Some(20), Some(30)));
        table.remove(Kind::Workflow, "w", 1);
        assert_eq!(live(&table), (4, vec!["z@1".into(), "w:s@2".into()]));
        assert!(table.rule("w:s", 1).is_none() && table.rule("w:t", 2).is_none());
    }

    #[test]
    fn names_of_one_kind_leave_the_other_alone() {
        let mut table = Table::default();
        apply(&mut table, &rule("a", "start: {workflow: a}"));
        let found = parse(
            &rule("a", "start: {workflow: a}"),
            None,
            &Defaults::default(),
        );
        let found = found.expect("a rule");
        assert_eq!(table.warnings(&found[0]).len(), 1);
        let odd = "start: {route: {by: {x: \"${matches.a[0].x}\"}, table: [{x: 1, workflow: a}, \
                   {x: 2, workflow: b, version: 3}], otherwise: a}}\n\
                   cancel: {tag: {x: y}, workflow: c}";
        let found_odd = parse(&rule("odd", odd), None, &Defaults::default()).expect("a rule");
        let warnings = table.warnings(&found_odd[0]).join("\n");
        assert_eq!(warnings.lines().count(), 3, "{warnings}");
        for named in ["workflow `a`", "workflow `b@3`", "workflow `c`"] {
            assert!(warnings.contains(named), "{warnings}");
        }
        apply(
            &mut table,
            "{kind: workflow, name: a, steps: [{id: s, agent: x}]}",
        );
        assert_eq!(table.warnings(&found[0]), Vec::<String>::new());
        assert_eq!((table.list(Kind::Rule).count(), live(&table).0), (1, 1));
        table.remove(Kind::Workflow, "a", 1);
        assert!(table.get(Kind::Workflow, "a", None).is_none());
        assert!(table.get(Kind::Rule, "a", None).is_some());
    }
}
