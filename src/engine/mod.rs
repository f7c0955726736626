//! One partition of the orchestrator, pure. The runtime makes a [`Batch`] over committed state
//! (a [`StateView`]), applies each input to it, and finishes it: runs that wait for a place are
//! admitted, and what comes out is [`Finished`]: the [`Changes`] of state and the [`Effect`]s in
//! order. It commits changes, effects and input positions in one Kafka transaction, or drops all
//! three; a batch that is dropped has changed nothing.
//!
//! `batch` takes inputs apart: commands (starts, verbs and signals; for one run or, in `selected`,
//! for all that have some tags), replies (which wait in `parking` while their run is not known),
//! ticks; the run itself is moved on by [`crate::workflow::transition`]. `overlay` holds the runs
//! that the batch has touched; `admission` counts places and fills them.

mod admission;
mod batch;
mod overlay;
mod parking;
mod selected;

pub use batch::{Batch, TAGS};

pub use crate::model::{Origin, Parked, ParkedKey};
pub use crate::workflow::effect::{self, Effect, Emitted, IgnoredReply, Outcome, Refusal};

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::model::{Command, Millis, Reply, RunId, RunState, Selected};
use crate::workflow::Workflow;

/// The engine of one partition: its bounds and the definitions it asks for. Holds no state of
/// runs; making one is cheap.
pub struct Engine {
    config: EngineConfig,
    definitions: Arc<dyn Definitions>,
}

impl Engine {
    pub fn new(config: EngineConfig, definitions: Arc<dyn Definitions>) -> Self {
        Self {
            config,
            definitions,
        }
    }

    /// An empty batch over committed state.
    pub fn batch<'a>(&'a self, view: &'a dyn StateView) -> Batch<'a> {
        Batch::new(&self.config, self.definitions.as_ref(), view)
    }
}

/// One thing for the engine to act on.
#[derive(Clone, Debug)]
pub enum Input {
    Command {
        command: Command,
        traceparent: Option<String>,
        /// Somebody waits for the answer, so a refusal is told to them. Where nobody does (the
        /// record was simply produced), a refused record is a dead letter as well.
        caller_waits: bool,
    },
    /// An order for the runs of this partition that have its tags.
    Selected(Selected),
    Reply(Reply),
    /// Something of this run has fallen due ([`RunState::next_due`]).
    Tick(RunId),
    /// The parked reply of this entry has waited long enough for its run.
    Unpark(ParkedKey),
}

/// Committed state, as the engine may read it.
pub trait StateView {
    /// A decoded copy of the run's entry, live or ended.
    fn run(&self, id: &RunId) -> Option<RunState>;
    /// Replies that wait for this run to become known, in order of arrival.
    fn parked(&self, run: &RunId) -> Vec<(ParkedKey, Parked)>;
    /// Runs with status running or paused.
    fn live_runs(&self) -> usize;
    /// Up to `limit` pending runs, by priority (highest first), then creation, then id.
    fn pending(&self, limit: usize) -> Vec<RunId>;
    /// The first `limit` runs, by id and after `after`, that have not ended and have all of these
    /// tags. By chance there may be one among them that has not.
    fn tagged(
        &self,
        tags: &BTreeMap<String, String>,
        after: Option<&RunId>,
        limit: usize,
    ) -> Vec<RunId>;
}

/// Definitions as the engine asks for them.
pub trait Definitions: Send + Sync {
    /// That version, or the highest applied one where none is given.
    fn workflow(&self, name: &str, version: Option<u32>) -> Option<Arc<Workflow>>;
}

/// Bounds and defaults of the engine, from configuration.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// Of the JSON text of input, inputs and output, in bytes.
    pub max_payload_bytes: usize,
    /// Running and paused runs of this partition; further ones are pending.
    pub max_live_runs: usize,
    /// How long a reply may wait for its run.
    pub park_for: Millis,
    /// At most so many parked replies of one run; further ones are dead letters.
    pub max_parked_per_run: usize,
    /// At most so many signals of one run that no step has taken; further ones are refused.
    pub max_signals_per_run: usize,
    /// At most so many runs are looked at for one order that names tags; the rest is for a record
    /// of its own. At least 1.
    pub max_selected: usize,
}

/// What a batch leaves behind.
#[derive(Debug, Default)]
pub struct Finished {
    pub changes: Changes,
    /// In the order in which they came about, each with the input that caused it.
    pub effects: Vec<Emitted>,
}

/// What one batch of inputs has changed, over committed state.
#[derive(Debug, Default)]
pub struct Changes {
    /// Runs as they stand now, each once, in the order of their first touch.
    pub runs: Vec<RunState>,
    /// `Some`: park it; `None`: it is gone. Each key once.
    pub parked: Vec<(ParkedKey, Option<Parked>)>,
}
