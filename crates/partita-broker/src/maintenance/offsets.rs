//! Forgets the committed offsets of groups that nobody has been in for a long time.

use std::collections::HashMap;
use std::sync::Weak;
use std::time::{Duration, Instant};

use crate::BrokerInner;
use crate::group::GroupState;
use crate::state::Event;
use crate::state::offsets::GroupOffsets;
use crate::store::now_ms;

/// How often to look, whatever the retention.
const SHORTEST_ROUND: Duration = Duration::from_millis(100);
const LONGEST_ROUND: Duration = Duration::from_secs(60 * 60);

/// Looks now and then, until the broker is gone.
pub(crate) async fn watch(broker: Weak<BrokerInner>) {
    let mut idle_since = HashMap::new();
    loop {
        let Some(retention) = broker
            .upgrade()
            .map(|broker| broker.config.offsets_retention)
        else {
            return;
        };
        tokio::time::sleep((retention / 10).clamp(SHORTEST_ROUND, LONGEST_ROUND)).await;
        match broker.upgrade() {
            Some(broker) if broker.store.is_offline() => {}
            Some(broker) => go_round(&broker, &mut idle_since),
            None => return,
        }
    }
}

/// A group that read nothing new for months may still have members, and after a restart of the broker they need a
/// moment to come back: only the time in which this process saw no members counts.
fn go_round(broker: &BrokerInner, idle_since: &mut HashMap<String, Instant>) {
    let retention = broker.config.offsets_retention;
    let quiet_since = now_ms().saturating_sub(retention.as_millis() as i64);
    let groups: Vec<(String, bool)> = broker.store.read(|state| {
        let all = state.groups();
        all.map(|(name, group)| (name.to_owned(), is_quiet(group, quiet_since)))
            .collect()
    });
    let mut seen = HashMap::with_capacity(groups.len());
    for (name, is_quiet) in groups {
        let description = broker.groups.describe(&name);
        if description.is_some_and(|group| group.state != GroupState::Empty) {
            continue;
        }
        let since = idle_since.remove(&name).unwrap_or_else(Instant::now);
        if is_quiet && since.elapsed() >= retention {
            forget(broker, &name, quiet_since);
        } else {
            seen.insert(name, since);
        }
    }
    *idle_since = seen;
}

fn forget(broker: &BrokerInner, name: &str, quiet_since: i64) {
    // A member, or a commit, may have come this very moment: then the group stays.
    let forget_offsets = |_| {
        broker.store.write(|writer| {
            let group = writer.state().group(name);
            let is_quiet = group.is_some_and(|group| is_quiet(group, quiet_since));
            if is_quiet {
                let group = name.to_owned();
                writer.emit(Event::GroupDeleted { group });
            }
            is_quiet
        })
    };
    // Nobody waits for it: it is as good when it is durable later.
    if let Ok((true, _durable)) = broker.groups.delete(name, forget_offsets) {
        tracing::info!(
            group = name,
            "nobody was in this group for long: its offsets are forgotten"
        );
    }
}

fn is_quiet(group: &GroupOffsets, since: i64) -> bool {
    group.changed_at < since && group.pending.is_empty()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::group::{JoinRequest, Protocol};
    use crate::state::event::OffsetEntry;
    use crate::state::offsets::Committed;
    use crate::{Broker, Config};

    fn commit(broker: &Arc<BrokerInner>, group: &str) {
        let ((), durable) = broker.store.write(|writer| {
            let committed = Committed {
                offset: 1,
                leader_epoch: -1,
                metadata: String::new(),
            };
            writer.emit(Event::OffsetsCommitted {
                group: group.to_owned(),
                offsets: vec![OffsetEntry {
                    topic: "t".to_owned(),
                    partition: 0,
                    committed,
                }],
            });
        });
        drop(durable);
    }

    #[tokio::test]
    async fn offsets_go_when_nobody_is_in_the_group_and_stay_while_somebody_is() {
        let mut config = Config::memory();
        config.offsets_retention = Duration::from_millis(200);
        let broker = Broker::start(config).await.expect("starts");
        let request = JoinRequest {
            group_id: "inhabited".to_owned(),
            member_id: String::new(),
            instance_id: None,
            client_id: "client".to_owned(),
            client_host: String::new(),
            session_timeout_ms: 600_000,
            rebalance_timeout_ms: 600_000,
            protocol_type: "consumer".to_owned(),
            protocols: vec![Protocol {
                name: "range".to_owned(),
                metadata: bytes::Bytes::new(),
            }],
            requires_known_member_id: false,
            supports_skipping_assignment: true,
            unique: "1".to_owned(),
        };
        broker.inner.groups.join(request).await.expect("joins");
        commit(&broker.inner, "inhabited");
        commit(&broker.inner, "deserted");
        let has = |group: &str| {
            broker
                .inner
                .store
                .read(|state| state.group(group).is_some())
        };
        let start = Instant::now();
        while has("deserted") {
            assert!(
                start.elapsed() < Duration::from_secs(60),
                "it is still there"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        assert!(has("inhabited"));
    }
}
