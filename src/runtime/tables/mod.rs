//! Compacted topics as tables, for the rules that join them: the latest value of each key.
//!
//! A rule at work holds a [`Table`] for each topic of its `enrich`; it is read while anybody holds
//! it, and forgotten with the last who does. [`followed`] reads topics of a cluster whole, `rows` is
//! what is kept of one.

pub mod followed;
mod rows;

use std::sync::Arc;

use crate::model::Json;
use crate::pattern::{Match, Rule};

/// Who has tables.
pub trait Tables: Send + Sync {
    /// The table over this topic, by its full name; read from the beginning where nobody holds it
    /// yet.
    fn open(&self, topic: &str) -> Arc<dyn Table>;

    /// Tells which tables can be asked.
    fn observe(&self) {}
}

/// One topic as a table.
pub trait Table: Send + Sync {
    /// The latest value of a key as far as the topic was read; `None`: it has none.
    ///
    /// # Errors
    /// See [`NoValue`].
    fn get(&self, key: &str) -> Result<Option<Json>, NoValue>;
}

/// Why nobody can say what the value of a key is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoValue {
    /// The table has not been read to the end that it had at first: ask again.
    Reading,
    /// It cannot be read, for this reason.
    Unavailable(String),
}

/// Without any table: every topic is empty.
pub struct NoTables;

impl Tables for NoTables {
    fn open(&self, _: &str) -> Arc<dyn Table> {
        Arc::new(NoTables)
    }
}

impl Table for NoTables {
    fn get(&self, _: &str) -> Result<Option<Json>, NoValue> {
        Ok(None)
    }
}

/// The tables that one rule joins, in the order of [`Rule::enrich`].
#[derive(Clone, Default)]
pub struct Joins(Vec<Arc<dyn Table>>);

impl Joins {
    pub fn of(rule: &Rule, tables: &dyn Tables) -> Self {
        let topics = rule.enrich.iter().map(|enrich| &enrich.topic);
        Self(topics.map(|topic| tables.open(topic)).collect())
    }

    /// What the rule joins to a match: null where the match has no key, or the topic none like it.
    ///
    /// # Errors
    /// Where one of the tables cannot be asked; where one is unavailable, that one says why.
    pub fn values(&self, rule: &Rule, found: &Match) -> Result<Vec<Json>, NoValue> {
        let mut values = Vec::with_capacity(self.0.len());
        let mut is_reading = false;
        for (table, key) in self.0.iter().zip(rule.lookups(found)) {
            match key.map_or(Ok(None), |key| table.get(&key)) {
                Ok(value) => values.push(value.unwrap_or_else(Json::null)),
                Err(NoValue::Reading) => is_reading = true,
                Err(unavailable) => return Err(unavailable),
            }
        }
        match is_reading {
            true => Err(NoValue::Reading),
            false => Ok(values),
        }
    }
}
