//! The table of what is applied: versions by kind and name, and the rules in force among them.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::kinds::{Definition, Kind, Program};
use super::rules::{Draining, RuleSet};
use super::task_topics;
use crate::model::Timestamp;
use crate::pattern::{OnUpdate, Rule, Target};

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
    rules: RuleSet,
}

impl Default for Table {
    fn default() -> Self {
        Self {
            by_name: HashMap::new(),
            rules: RuleSet::empty(),
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

    /// The rules as they stand. Of those that steps of workflows imply every version that is applied is
    /// in force, since runs pin theirs.
    pub(super) fn rules(&self) -> &RuleSet {
        &self.rules
    }

    /// Whether there is any rule, in force or not.
    pub(super) fn has_rules(&self) -> bool {
        let of_names = self.by_name.get(&Kind::Rule);
        !self.rules.in_force.is_empty() || of_names.is_some_and(|names| !names.is_empty())
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
        let (mut in_force, mut draining) = (Vec::new(), Vec::new());
        for (_, versions) in self.by_name.get(&Kind::Rule).into_iter().flatten() {
            let mut above: Option<&Stored> = None;
            for stored in versions.values().rev() {
                // One that was applied below a higher one was never in force.
                if above.is_some_and(|above| above.applied_at <= stored.applied_at) {
                    continue;
                }
                // Below one that is switched off nothing takes events.
                let Some(rule) = stored.definition.rule().filter(|rule| rule.enabled) else {
                    break;
                };
                match above {
                    None => in_force.push(rule.clone()),
                    Some(above) if rule.on_update == OnUpdate::Drain => {
                        draining.push(Draining::new(rule, above.applied_at));
                    }
                    Some(_) => {}
                }
                above = Some(stored);
            }
        }
        let awaited = self.list(Kind::Workflow);
        in_force.extend(
            awaited
                .flat_map(|stored| &stored.definition.awaited)
                .cloned(),
        );
        let known = &self.rules;
        let is_same = in_force
            .iter()
            .map(|rule| &rule.source)
            .eq(known.in_force.iter().map(|rule| &rule.source))
            && draining
                .iter()
                .map(|one| (&one.rule.source, one.until))
                .eq(known
                    .draining
                    .iter()
                    .map(|one| (&one.rule.source, one.until)));
        if !is_same {
            self.rules = RuleSet {
                generation: known.generation + 1,
                in_force: in_force.into(),
                draining: draining.into(),
            };
        }
    }

    /// An agent that the definition is the first to name and that cannot have a topic beside that of another,
    /// and that other one.
    pub(super) fn collision(&self, definition: &Definition) -> Option<(String, String)> {
        let agents = definition.workflow()?.agents();
        let applied = || {
            let workflows = self.list(Kind::Workflow).map(|stored| &stored.definition);
            workflows.flat_map(|known| {
                let agents = known.workflow().map(|workflow| workflow.agents());
                agents
                    .into_iter()
                    .flatten()
                    .map(move |agent| (agent, known))
            })
        };
        agents.into_iter().find_map(|agent| {
            if applied().any(|(known, _)| known == agent) {
                return None;
            }
            let (other, of) = applied().find(|(known, _)| task_topics::collide(known, agent))?;
            let other = format!("that of agent `{other}` of {}", of.title());
            Some((agent.to_owned(), other))
        })
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
        let whole = rule.canary.iter().filter(|_| rule.correlate.is_empty());
        let whole = whole.map(|canary| {
            format!(
                "rule `{}` has a canary of {} % of its keys and no `correlate`: all its events have one key, so it acts for all of them or for none",
                rule.name, canary.percent
            )
        });
        started.chain(steered).chain(whole).collect()
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
        let rules = table.rules();
        let in_force = rules.in_force.iter().map(|rule| rule.id());
        (rules.generation, in_force.collect())
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
    fn versions_below_the_one_in_force_drain_if_they_were_in_force_and_say_so() {
        let mut table = Table::default();
        let draining = |table: &Table| -> Vec<(String, i64)> {
            let draining = table.rules().draining.iter();
            draining.map(|one| (one.rule.id(), one.until.0)).collect()
        };
        let lasting = |version: u32, more: &str| {
            format!(
                "kind: rule\nname: a\ntopic: t\nversion: {version}\n{more}\n\
                 match: {{count: {{id: x, at_least: 2, within: 5m}}}}\n"
            )
        };
        apply_at(&mut table, 1_000, &lasting(1, ""));
        assert_eq!(draining(&table), []);
        apply_at(&mut table, 2_000, &lasting(3, "time: {out_of_order: 7s}"));
        let first = ("a@1".to_owned(), 2_000 + 300_000 + 60_000);
        assert_eq!(draining(&table), std::slice::from_ref(&first));
        apply_at(&mut table, 3_000, &lasting(2, ""));
        let second = "it was never in force";
        assert_eq!(draining(&table), std::slice::from_ref(&first), "{second}");
        table.remove(Kind::Rule, "a", 2);
        apply_at(&mut table, 4_000, &lasting(4, "on_update: drop"));
        let third = ("a@3".to_owned(), 4_000 + 300_000 + 7_000 + 60_000);
        assert_eq!(draining(&table), [third.clone(), first.clone()]);
        apply_at(&mut table, 5_000, &lasting(5, ""));
        assert_eq!(draining(&table), [third, first]);
        let set = table.rules();
        let reading = |at| set.reading(Timestamp(at)).map(|rule| rule.id()).collect();
        let reading: Vec<Vec<String>> = [6_000, 362_000, 371_000].map(reading).into();
        let read = [&["a@5", "a@3", "a@1"][..], &["a@5", "a@3"], &["a@5"]];
        assert_eq!(reading, read);
        apply_at(&mut table, 6_000, &lasting(6, "enabled: false"));
        assert_eq!(draining(&table), [], "the rule is switched off");
        let endless =
            "match: {window: {type: session, gap: 5m, aggregate: {n: count}, having: n > 1}}";
        let endless = format!("kind: rule\nname: b\ntopic: t\n{endless}\n");
        apply_at(&mut table, 7_000, &endless);
        apply_at(&mut table, 8_000, &format!("{endless}version: 2\n"));
        let a_day = 8_000 + 86_400_000;
        assert_eq!(draining(&table), [("b@1".to_owned(), a_day)]);
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
        let warnings = |more: &str| {
            let found = parse(&rule("part", more), None, &Defaults::default()).expect("a rule");
            table.warnings(&found[0])
        };
        let canary = "canary: {percent: 10, by: key}";
        let of_one_key = warnings(canary);
        assert_eq!(of_one_key.len(), 1, "{of_one_key:?}");
        assert!(of_one_key[0].contains("no `correlate`"), "{of_one_key:?}");
        let of_many = warnings(&format!("{canary}\ncorrelate: [user]"));
        assert_eq!(of_many, Vec::<String>::new());
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
