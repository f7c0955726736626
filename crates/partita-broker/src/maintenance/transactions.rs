//! Aborts transactions that stay open for longer than their producer said they would.

use std::sync::Weak;
use std::time::Duration;

use crate::BrokerInner;
use crate::state::Event;

/// How often deadlines are looked at: the most by which an abort is late.
const INTERVAL: Duration = Duration::from_millis(100);

/// Runs until the broker is gone.
pub(crate) async fn watch(broker: Weak<BrokerInner>) {
    let mut ticks = tokio::time::interval(INTERVAL);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let Some(broker) = broker.upgrade() else {
            return;
        };
        if broker.store.is_offline() {
            continue;
        }
        let (aborted, durable) = broker.store.write(|writer| {
            let now = writer.now;
            let late = |transaction: &crate::state::transaction::Transaction| {
                transaction.deadline().is_some_and(|at| at <= now)
            };
            let late: Vec<_> = writer
                .state()
                .transactions()
                .filter(|(_, transaction)| late(transaction))
                .map(|(name, transaction)| (name.to_owned(), transaction.epoch.saturating_add(1)))
                .collect();
            for (transactional_id, epoch) in &late {
                let transactional_id = transactional_id.clone();
                // The next epoch fences the producer off, wherever it may be.
                writer.emit(Event::TransactionEnded {
                    transactional_id,
                    committed: false,
                    epoch: *epoch,
                });
            }
            late
        });
        if aborted.is_empty() {
            continue;
        }
        for (transactional_id, _) in &aborted {
            tracing::warn!(
                transactional_id,
                "aborted a transaction that was open for too long"
            );
        }
        if let Err(error) = durable.wait().await {
            tracing::error!(%error, "the abort of late transactions is not durable yet");
        }
    }
}
