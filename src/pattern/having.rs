//! Conditions on the aggregates of a window.

use super::event::{Event, Scalar};
use super::predicate::{Nothing, Predicate, Scope, key_json};
use super::rule::{Aggregate, Rule, Window};
use crate::expr::{Bindings, Condition, Segment};
use crate::model::{Json, Timestamp};

/// A condition on the aggregates of a window.
#[derive(Clone, Debug)]
pub struct Having(Predicate);

/// The names of aggregates, and the key.
struct Aggregates<'a>(&'a [Aggregate], &'a dyn Scope);

impl Scope for Aggregates<'_> {
    fn slot(&mut self, _: &[Segment]) -> u16 {
        unreachable!("a condition on aggregates does not name `event`")
    }

    fn key(&self, name: &str) -> Option<u16> {
        self.1.key(name)
    }

    fn name(&self, _: &str) -> Option<u16> {
        None
    }

    fn root(&self, name: &str) -> Option<u16> {
        let found = self.0.iter().position(|of| *of.name == *name);
        found.and_then(|place| u16::try_from(place).ok())
    }
}

impl Having {
    /// `condition` names no more than `aggregates` and `key`.
    pub(super) fn new(condition: Condition, aggregates: &[Aggregate], scope: &dyn Scope) -> Self {
        Self(Predicate::new(
            0,
            condition,
            &mut Aggregates(aggregates, scope),
        ))
    }

    /// Whether it holds for the values of a window's aggregates; `None`: it has no answer, since
    /// one of them has no value.
    pub fn holds(
        &self,
        rule: &Rule,
        window: &Window,
        values: &[Scalar],
        key: &[Scalar],
    ) -> Option<bool> {
        let event = Event {
            topic: 0,
            at: Timestamp(0),
            position: 0,
            slots: values,
            payload: Json::none(),
        };
        let bindings = WindowBindings {
            rule,
            window,
            values,
            key,
        };
        self.0.answer(&event, key, &Nothing, &bindings)
    }
}

/// What the names of aggregates and `key` stand for.
struct WindowBindings<'a> {
    rule: &'a Rule,
    window: &'a Window,
    values: &'a [Scalar],
    key: &'a [Scalar],
}

impl Bindings for WindowBindings<'_> {
    fn lookup(&self, path: &[&str]) -> Option<(Json, usize)> {
        let name = *path.first()?;
        if name == "key" {
            return Some((key_json(self.rule, self.key), 1));
        }
        let place = self
            .window
            .aggregates
            .iter()
            .position(|of| *of.name == *name)?;
        let value = &self.values[place];
        (!matches!(value, Scalar::Missing)).then(|| (Json::from(value.to_json()), 1))
    }
}
