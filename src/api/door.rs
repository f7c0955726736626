//! What the API asks of the runtime, so that handlers can be tested against a fake.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::sync::mpsc;

use crate::model::{Command, Reply, RunId, RunState};
use crate::runtime::membership::Ownership;
use crate::runtime::patterns::stats::RuleStats;
use crate::runtime::{
    Answered, EventsTail, Handle, History, HistoryEvent, ListCursor, Readiness, RunFilter, RunPage,
    SubmitError,
};

/// The runtime as the API sees it; each method is the one of [`Handle`] by that name.
pub trait Runs: Ownership + 'static {
    fn submit(
        &self,
        command: Command,
        traceparent: Option<String>,
    ) -> BoxFuture<'_, Result<Answered, SubmitError>>;
    fn answer(
        &self,
        reply: Reply,
        traceparent: Option<String>,
    ) -> BoxFuture<'_, Result<Answered, SubmitError>>;
    fn run(&self, id: &RunId) -> Result<Option<RunState>, SubmitError>;
    fn wait_for_end(
        &self,
        id: RunId,
        at_most: Duration,
    ) -> BoxFuture<'_, Result<Option<RunState>, SubmitError>>;
    fn list(
        &self,
        filter: &RunFilter,
        limit: usize,
        after: Option<&ListCursor>,
    ) -> Result<RunPage, SubmitError>;
    fn history(&self, id: RunId, from_sequence: u64)
    -> BoxFuture<'_, Result<History, SubmitError>>;
    fn follow(
        &self,
        id: RunId,
        from_sequence: u64,
    ) -> BoxFuture<'_, Result<mpsc::Receiver<HistoryEvent>, SubmitError>>;
    fn events_tail(
        &self,
        positions: BTreeMap<i32, i64>,
    ) -> BoxFuture<'_, Result<EventsTail, SubmitError>>;
    fn partition_of(&self, id: &RunId) -> i32;
    fn partitions(&self) -> i32;
    fn readiness(&self) -> Readiness;
    fn rule_stats(&self) -> Vec<RuleStats>;
}

impl Runs for Handle {
    fn submit(
        &self,
        command: Command,
        traceparent: Option<String>,
    ) -> BoxFuture<'_, Result<Answered, SubmitError>> {
        Box::pin(Handle::submit(self, command, traceparent))
    }

    fn answer(
        &self,
        reply: Reply,
        traceparent: Option<String>,
    ) -> BoxFuture<'_, Result<Answered, SubmitError>> {
        Box::pin(Handle::answer(self, reply, traceparent))
    }

    fn run(&self, id: &RunId) -> Result<Option<RunState>, SubmitError> {
        Handle::run(self, id)
    }

    fn wait_for_end(
        &self,
        id: RunId,
        at_most: Duration,
    ) -> BoxFuture<'_, Result<Option<RunState>, SubmitError>> {
        Box::pin(async move { Handle::wait_for_end(self, &id, at_most).await })
    }

    fn list(
        &self,
        filter: &RunFilter,
        limit: usize,
        after: Option<&ListCursor>,
    ) -> Result<RunPage, SubmitError> {
        Handle::list(self, filter, limit, after)
    }

    fn history(
        &self,
        id: RunId,
        from_sequence: u64,
    ) -> BoxFuture<'_, Result<History, SubmitError>> {
        Box::pin(async move { Handle::history(self, &id, from_sequence).await })
    }

    fn follow(
        &self,
        id: RunId,
        from_sequence: u64,
    ) -> BoxFuture<'_, Result<mpsc::Receiver<HistoryEvent>, SubmitError>> {
        Box::pin(async move { Handle::follow(self, &id, from_sequence).await })
    }

    fn events_tail(
        &self,
        positions: BTreeMap<i32, i64>,
    ) -> BoxFuture<'_, Result<EventsTail, SubmitError>> {
        Box::pin(Handle::events_tail(self, positions))
    }

    fn partition_of(&self, id: &RunId) -> i32 {
        Handle::partition_of(self, id)
    }

    fn partitions(&self) -> i32 {
        Handle::partitions(self)
    }

    fn readiness(&self) -> Readiness {
        Handle::readiness(self)
    }

    fn rule_stats(&self) -> Vec<RuleStats> {
        Handle::rule_stats(self)
    }
}
