//! Rules over what lies in their topics already: what they would have found between two instants.
//! Nothing is started, no group is joined, nothing is committed.
//!
//! Records are decoded as the intake does it, shown to the rules by the same filter, and how far event
//! time has come is worked out by the patterns' own account of sources. Partitions are merged by the
//! records' timestamps ([`merge`](self)), which stand for the wall clock as well (`stage`): what was
//! idle then is idle now.

mod merge;
mod stage;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use merge::{Beginning, Merge, Part};
use stage::Stage;

use crate::codec::event::Schemas;
use crate::log::LogError;
use crate::log::kafka::ClientSettings;
use crate::log::kafka::range::{Edge, RangeFinder, Span};
use crate::model::Timestamp;
use crate::pattern::Rule;
use crate::pattern::trial::Findings;
use crate::runtime::unreadable::Unreadable;

/// Between two reports of progress.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// Records between two looks at the clock.
const LOOK_AFTER: u64 = 4_096;

/// What is read, and how.
#[derive(Clone, Debug)]
pub struct BacktestSettings {
    pub client: ClientSettings,
    /// Of the topics with events. Topics that are joined are read from their beginning.
    pub from: Edge,
    pub to: Edge,
    /// Where event time moves after the last record; `None`: to the end of all windows.
    pub advance_to: Option<Timestamp>,
    /// Of an event's JSON; a larger one is unreadable.
    pub max_payload_bytes: usize,
    /// The wall clock: a record that says to be of a later time was written by a clock that is ahead.
    pub now: Timestamp,
    /// Matches, late events and so on that are kept of each rule, each; all are counted.
    pub most: usize,
}

/// Why there is no result.
#[derive(Debug, thiserror::Error)]
pub enum BacktestError {
    #[error("there is no topic `{topic}`, which rule {rule} reads")]
    NoTopic { topic: Arc<str>, rule: String },
    #[error("Kafka does not answer: {0}")]
    Log(#[from] LogError),
    #[error("a schema is not at hand: {0}")]
    Schema(String),
}

/// What was found.
#[derive(Debug)]
pub struct Backtested {
    /// Of each set of rules, in their order.
    pub findings: Vec<Findings>,
    /// The ranges of the topics with events that were read.
    pub spans: Vec<Span>,
    /// Records in them, without those of aborted transactions.
    pub records: u64,
    pub unreadable: Unreadable,
}

/// How far it is.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    pub records: u64,
    /// Offsets of all ranges together; some of them may be no records.
    pub offsets: u64,
}

/// Runs sets of rules over the ranges of their topics, all in one pass; `tell` hears how far it is,
/// once a second. Whether the rules are in force, in shadow or a canary makes no difference.
///
/// # Errors
/// See [`BacktestError`].
pub fn backtest(
    settings: &BacktestSettings,
    schemas: &dyn Schemas,
    sets: &[Vec<Arc<Rule>>],
    tell: &mut dyn FnMut(Progress),
) -> Result<Backtested, BacktestError> {
    let finder = RangeFinder::new(settings.client.clone())?;
    let parts = parts(&finder, settings, sets)?;
    let spans: Vec<Span> = parts.iter().map(|part| part.span.clone()).collect();
    let offsets = parts
        .iter()
        .map(|part| u64::try_from(part.span.end - part.span.from).unwrap_or(0))
        .sum();
    let reader = finder.read(&spans)?;
    let mut stage = Stage::new(sets, settings.most, settings.now);
    let mut merge = Merge::new(reader, &parts, schemas, settings)?;
    let mut records = 0;
    let mut told = Instant::now();
    while let Some((place, head)) = merge.pop()? {
        stage.take(&parts[place], head);
        records += 1;
        if records % LOOK_AFTER == 0 && told.elapsed() >= TELL_EVERY {
            told = Instant::now();
            tell(Progress { records, offsets });
        }
    }
    Ok(stage.finish(settings.advance_to, merge.ranges()))
}

/// What is to be read: the topics with events, and those that are joined.
fn parts(
    finder: &RangeFinder,
    settings: &BacktestSettings,
    sets: &[Vec<Arc<Rule>>],
) -> Result<Vec<Part>, BacktestError> {
    let rules = || sets.iter().flatten();
    let names = |of: &dyn Fn(&Rule) -> Vec<Arc<str>>| -> BTreeSet<Arc<str>> {
        rules().flat_map(|rule| of(rule)).collect()
    };
    let with_events = names(&|rule| rule.topics.clone());
    let joined = names(&|rule| rule.enrich.iter().map(|it| it.topic.clone()).collect());
    let spans = |topic: &Arc<str>, from: Edge| {
        let found = finder.spans(topic, from, settings.to)?;
        found.ok_or_else(|| {
            let reads = |rule: &&Arc<Rule>| rule.topics.contains(topic);
            BacktestError::NoTopic {
                topic: topic.clone(),
                rule: rules()
                    .find(reads)
                    .map(|rule| rule.id())
                    .unwrap_or_default(),
            }
        })
    };
    let mut parts = Vec::new();
    for topic in with_events.union(&joined) {
        let is_joined = joined.contains(topic);
        let events = match with_events.contains(topic) {
            true => Some(spans(topic, settings.from)?),
            false => None,
        };
        let whole = match is_joined {
            // One that is not there is an empty table, as it is at run time.
            true if events.is_none() => finder
                .spans(topic, Edge::Earliest, settings.to)?
                .unwrap_or_default(),
            true => spans(topic, Edge::Earliest)?,
            false => events.clone().unwrap_or_default(),
        };
        for (place, span) in whole.into_iter().enumerate() {
            let of_events = events.as_ref().and_then(|events| events.get(place));
            parts.push(Part {
                events: of_events.map(|span| Beginning {
                    offset: span.from,
                    at: match settings.from {
                        Edge::At(time) => Some(time),
                        Edge::Earliest | Edge::Latest => None,
                    },
                }),
                span,
                is_joined,
            });
        }
    }
    Ok(parts)
}
