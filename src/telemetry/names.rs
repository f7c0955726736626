//! Every metric, once: name, unit, help, buckets. Names follow Prometheus practice (`_seconds`,
//! `_bytes`, `_total`); no label ever carries a run id, so the number of series is bounded by
//! the number of workflows, rules, agents, topics and partitions.

use metrics::Unit;

/// From the start of a run to its end. Labels: `workflow`, `status`.
pub const WORKFLOW_EXECUTION_SECONDS: &str = "workflow_execution_seconds";
/// Runs that completed. Label: `workflow`.
pub const WORKFLOW_SUCCESS_TOTAL: &str = "workflow_success_total";
/// Runs that failed or were cancelled. Labels: `workflow`, `class`.
pub const WORKFLOW_FAILURE_TOTAL: &str = "workflow_failure_total";
/// Runs that are running or paused on partitions owned here.
pub const ACTIVE_WORKFLOWS_COUNT: &str = "active_workflows_count";
/// From the dispatch of a task to the reply that ends its step. Label: `agent`.
pub const AGENT_COMMUNICATION_SECONDS: &str = "agent_communication_seconds";
/// One read, fold or write-behind of state. Label: `operation`.
pub const STATE_OPERATION_SECONDS: &str = "state_operation_seconds";
/// Resident memory of this process.
pub const ORCHESTRATION_MEMORY_BYTES: &str = "orchestration_memory_bytes";
/// Processor time of this process; 100 is one core.
pub const ORCHESTRATION_CPU_PERCENT: &str = "orchestration_cpu_percent";
/// Records of an input partition not yet taken. Labels: `topic`, `partition`.
pub const CONSUMER_LAG_RECORDS: &str = "partita_consumer_lag_records";
/// One transaction, from its first record to its commit.
pub const COMMIT_SECONDS: &str = "partita_commit_seconds";
/// Inputs in one transaction.
pub const BATCH_RECORDS: &str = "partita_batch_records";
/// Changelog records still to be replayed. Label: `partition`.
pub const RESTORE_RECORDS_REMAINING: &str = "partita_restore_records_remaining";
/// Changes of this instance's partitions.
pub const REBALANCES_TOTAL: &str = "partita_rebalances_total";
/// Offsets of inputs whose records were deleted before they were read. Label: `topic`.
pub const RECORDS_LOST_TOTAL: &str = "partita_records_lost_total";
/// Records sent to the dead-letter topic. Label: `class`.
pub const DEAD_LETTERS_TOTAL: &str = "partita_dead_letters_total";
/// Matches of a rule, those of rules in shadow too. Label: `rule` (`name@version`).
pub const PATTERN_MATCHES_TOTAL: &str = "partita_pattern_matches_total";
/// Events beyond a rule's `allowed_lateness`. Label: `rule`.
pub const PATTERN_LATE_EVENTS_TOTAL: &str = "partita_pattern_late_events_total";
/// Matches that `debounce` or `cooldown` held back for good. Label: `rule`.
pub const PATTERN_SUPPRESSED_TOTAL: &str = "partita_pattern_suppressed_total";
/// Conditions that had no answer. Label: `rule`.
pub const PATTERN_CONDITION_ERRORS_TOTAL: &str = "partita_pattern_condition_errors_total";
/// What was given up at a bound of a rule. Labels: `rule`, `limit`.
pub const PATTERN_OVERFLOWS_TOTAL: &str = "partita_pattern_overflows_total";
/// Keys dropped for want of events. Label: `rule`.
pub const PATTERN_IDLE_KEYS_TOTAL: &str = "partita_pattern_idle_keys_total";
/// Matches whose tables could not be had. Label: `rule`.
pub const PATTERN_UNJOINED_MATCHES_TOTAL: &str = "partita_pattern_unjoined_matches_total";
/// Rows of a topic that rules join. Label: `topic`.
pub const TABLE_ENTRIES: &str = "partita_table_entries";
/// About what such rows take in memory. Label: `topic`.
pub const TABLE_BYTES: &str = "partita_table_bytes";
/// Whether a topic that rules join was read to its end. Label: `topic`.
pub const TABLE_READY: &str = "partita_table_ready";
/// Records of such a topic that were passed over. Label: `topic`.
pub const TABLE_UNREADABLE_TOTAL: &str = "partita_table_unreadable_records_total";
/// Matches that stem from too many rules and act not. Label: `rule`.
pub const PATTERN_LOOPS_TOTAL: &str = "partita_pattern_loops_total";
/// Signals for rules that are not in force any more.
pub const PATTERN_OWNERLESS_SIGNALS_TOTAL: &str = "partita_pattern_ownerless_signals_total";
/// Replies that changed nothing. Label: `reason`.
pub const REPLIES_IGNORED_TOTAL: &str = "partita_replies_ignored_total";
/// Signals that changed nothing. Label: `reason`.
pub const SIGNALS_IGNORED_TOTAL: &str = "partita_signals_ignored_total";
/// Records that arrived in a partition that is not their run's. Label: `topic`.
pub const FORWARDED_RECORDS_TOTAL: &str = "partita_forwarded_records_total";
/// Runs that wait for a place under the limit.
pub const RUNS_PENDING: &str = "partita_runs_pending";
/// Steps that wait for something from outside. Label: `kind`.
pub const STEPS_WAITING: &str = "partita_steps_waiting";
/// Transactions given up and repeated. Label: `cause`.
pub const TRANSACTIONS_ABORTED_TOTAL: &str = "partita_transactions_aborted_total";
/// Encoded run entries held in memory.
pub const CACHE_BYTES: &str = "partita_cache_bytes";
/// Records of event topics taken in. Label: `topic`.
pub const INTAKE_EVENTS_TOTAL: &str = "partita_intake_events_total";
/// Events that a rule wanted. Label: `rule`.
pub const INTAKE_SIGNALS_TOTAL: &str = "partita_intake_signals_total";
/// Records of event topics that are no events. Dead letters all.
pub const INTAKE_UNREADABLE_TOTAL: &str = "partita_intake_unreadable_total";
/// Events that a rule wanted, but for its key. Label: `rule`.
pub const INTAKE_UNKEYED_TOTAL: &str = "partita_intake_unkeyed_total";
/// Partitions of event topics that wait for a schema of their records.
pub const INTAKE_HELD_PARTITIONS: &str = "partita_intake_held_partitions";
/// Events that a rule wanted and caused itself: it does not get them. Label: `rule`.
pub const INTAKE_OWN_TOTAL: &str = "partita_intake_own_total";
/// Topics that rules read and that are not there.
pub const INTAKE_MISSING_TOPICS: &str = "partita_intake_missing_topics";

/// Connections of the API turned away or cut off. Label: `reason`.
pub const HTTP_CONNECTIONS_DROPPED_TOTAL: &str = "partita_http_connections_dropped_total";

/// What a metric is; histograms carry the upper bounds of their buckets.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    Counter,
    Gauge,
    Histogram(&'static [f64]),
}

/// One metric as `/metrics` declares it.
#[derive(Clone, Copy, Debug)]
pub struct Metric {
    pub name: &'static str,
    pub kind: Kind,
    pub unit: Unit,
    pub help: &'static str,
    /// Label names, in the order of the reference page.
    pub labels: &'static [&'static str],
}

/// Runs last from milliseconds to days.
const RUN_BUCKETS: &[f64] = &[
    0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1_800.0,
    3_600.0, 21_600.0, 86_400.0,
];
/// Agents answer within milliseconds to hours.
const AGENT_BUCKETS: &[f64] = &[
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0,
    300.0, 3_600.0,
];
/// Reads and writes of state take microseconds to a few milliseconds.
const STATE_BUCKETS: &[f64] = &[
    0.000_001, 0.000_005, 0.000_01, 0.000_05, 0.000_1, 0.000_5, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5,
    1.0,
];
const COMMIT_BUCKETS: &[f64] = &[
    0.000_5, 0.001, 0.002, 0.003, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0,
];
const BATCH_BUCKETS: &[f64] = &[
    1.0, 2.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1_000.0, 2_500.0, 5_000.0, 10_000.0,
];

const fn counter(
    name: &'static str,
    help: &'static str,
    labels: &'static [&'static str],
) -> Metric {
    Metric {
        name,
        kind: Kind::Counter,
        unit: Unit::Count,
        help,
        labels,
    }
}

const fn gauge(
    name: &'static str,
    unit: Unit,
    help: &'static str,
    labels: &'static [&'static str],
) -> Metric {
    Metric {
        name,
        kind: Kind::Gauge,
        unit,
        help,
        labels,
    }
}

const fn histogram(
    name: &'static str,
    unit: Unit,
    buckets: &'static [f64],
    help: &'static str,
    labels: &'static [&'static str],
) -> Metric {
    Metric {
        name,
        kind: Kind::Histogram(buckets),
        unit,
        help,
        labels,
    }
}

/// The whole list, in the order of the reference page.
pub const METRICS: &[Metric] = &[
    histogram(
        WORKFLOW_EXECUTION_SECONDS,
        Unit::Seconds,
        RUN_BUCKETS,
        "Time from the start of a run to its end.",
        &["workflow", "status"],
    ),
    counter(
        WORKFLOW_SUCCESS_TOTAL,
        "Runs that completed.",
        &["workflow"],
    ),
    counter(
        WORKFLOW_FAILURE_TOTAL,
        "Runs that failed or were cancelled, by error class; `other` beyond 100 of them.",
        &["workflow", "class"],
    ),
    gauge(
        ACTIVE_WORKFLOWS_COUNT,
        Unit::Count,
        "Runs running or paused on the partitions owned here.",
        &[],
    ),
    histogram(
        AGENT_COMMUNICATION_SECONDS,
        Unit::Seconds,
        AGENT_BUCKETS,
        "Time from the dispatch of a task to the reply that ends its step.",
        &["agent"],
    ),
    histogram(
        STATE_OPERATION_SECONDS,
        Unit::Seconds,
        STATE_BUCKETS,
        "Time of one operation on run state.",
        &["operation"],
    ),
    gauge(
        ORCHESTRATION_MEMORY_BYTES,
        Unit::Bytes,
        "Resident memory of this process.",
        &[],
    ),
    gauge(
        ORCHESTRATION_CPU_PERCENT,
        Unit::Percent,
        "Processor time of this process since the last sample; 100 is one core.",
        &[],
    ),
    gauge(
        CONSUMER_LAG_RECORDS,
        Unit::Count,
        "Input records not yet processed.",
        &["topic", "partition"],
    ),
    histogram(
        COMMIT_SECONDS,
        Unit::Seconds,
        COMMIT_BUCKETS,
        "Time of one transaction, from its first record to its commit.",
        &[],
    ),
    histogram(
        BATCH_RECORDS,
        Unit::Count,
        BATCH_BUCKETS,
        "Inputs applied in one transaction.",
        &[],
    ),
    gauge(
        RESTORE_RECORDS_REMAINING,
        Unit::Count,
        "Changelog records still to be replayed before a partition starts.",
        &["partition"],
    ),
    counter(
        REBALANCES_TOTAL,
        "Changes of the partitions of this instance.",
        &[],
    ),
    counter(
        RECORDS_LOST_TOTAL,
        "Records of inputs that retention deleted before they were read, at most.",
        &["topic"],
    ),
    counter(
        DEAD_LETTERS_TOTAL,
        "Records sent to the dead-letter topic, by error class.",
        &["class"],
    ),
    counter(
        PATTERN_MATCHES_TOTAL,
        "Matches of rules, those in shadow too.",
        &["rule"],
    ),
    counter(
        PATTERN_LATE_EVENTS_TOTAL,
        "Events that came later than a rule allows, and went to the dead letters.",
        &["rule"],
    ),
    counter(
        PATTERN_SUPPRESSED_TOTAL,
        "Matches that a debounce or a cooldown held back for good.",
        &["rule"],
    ),
    counter(
        PATTERN_CONDITION_ERRORS_TOTAL,
        "Conditions that had no answer: a field is missing or of another type.",
        &["rule"],
    ),
    counter(
        PATTERN_OVERFLOWS_TOTAL,
        "Partial matches, events or matches given up at a bound of a rule.",
        &["rule", "limit"],
    ),
    counter(
        PATTERN_LOOPS_TOTAL,
        "Matches that stem from more rules than rules.max_depth, and act not.",
        &["rule"],
    ),
    counter(
        PATTERN_OWNERLESS_SIGNALS_TOTAL,
        "Signals for rules that are not in force any more.",
        &[],
    ),
    counter(
        PATTERN_IDLE_KEYS_TOTAL,
        "Keys of a rule that had no event for `idle_key_ttl` and were dropped.",
        &["rule"],
    ),
    counter(
        PATTERN_UNJOINED_MATCHES_TOTAL,
        "Matches that could not be joined with the tables of their rule, and are dead letters.",
        &["rule"],
    ),
    gauge(
        TABLE_ENTRIES,
        Unit::Count,
        "Keys of a topic that rules join.",
        &["topic"],
    ),
    gauge(
        TABLE_BYTES,
        Unit::Bytes,
        "Memory that a topic which rules join takes, about.",
        &["topic"],
    ),
    gauge(
        TABLE_READY,
        Unit::Count,
        "1 where a topic that rules join was read to the end that it had at first, else 0.",
        &["topic"],
    ),
    counter(
        TABLE_UNREADABLE_TOTAL,
        "Records of a topic that rules join which could not be read and were passed over.",
        &["topic"],
    ),
    counter(
        REPLIES_IGNORED_TOTAL,
        "Replies that changed nothing, by reason.",
        &["reason"],
    ),
    counter(
        SIGNALS_IGNORED_TOTAL,
        "Signals that changed nothing, by reason: duplicate, run_ended, not_awaited.",
        &["reason"],
    ),
    counter(
        FORWARDED_RECORDS_TOTAL,
        "Records forwarded to the partition of their run.",
        &["topic"],
    ),
    gauge(
        RUNS_PENDING,
        Unit::Count,
        "Runs accepted that wait for a place under max_concurrent_runs.",
        &[],
    ),
    gauge(
        STEPS_WAITING,
        Unit::Count,
        "Steps that wait now on the partitions owned here, for what: signal, pattern.",
        &["kind"],
    ),
    counter(
        TRANSACTIONS_ABORTED_TOTAL,
        "Transactions given up and repeated, by cause.",
        &["cause"],
    ),
    gauge(
        CACHE_BYTES,
        Unit::Bytes,
        "Encoded run entries held in memory.",
        &[],
    ),
    counter(
        INTAKE_EVENTS_TOTAL,
        "Records taken in from event topics.",
        &["topic"],
    ),
    counter(
        INTAKE_SIGNALS_TOTAL,
        "Events handed to the patterns, by the rule that wants them.",
        &["rule"],
    ),
    counter(
        INTAKE_OWN_TOTAL,
        "Events that a rule wanted and does not get, for it caused them itself.",
        &["rule"],
    ),
    counter(
        INTAKE_UNREADABLE_TOTAL,
        "Records of event topics that could not be read and are dead letters.",
        &[],
    ),
    counter(
        INTAKE_UNKEYED_TOTAL,
        "Events that a rule wants and that lack a value of its correlation key.",
        &["rule"],
    ),
    gauge(
        INTAKE_HELD_PARTITIONS,
        Unit::Count,
        "Partitions of event topics that wait for a schema of their records.",
        &[],
    ),
    gauge(
        INTAKE_MISSING_TOPICS,
        Unit::Count,
        "Topics that rules read and that do not exist yet.",
        &[],
    ),
    counter(
        HTTP_CONNECTIONS_DROPPED_TOTAL,
        "Connections of the API turned away or cut off, by reason: full, header_timeout, send_timeout.",
        &["reason"],
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_follow_prometheus_practice() {
        for (place, metric) in METRICS.iter().enumerate() {
            assert!(
                METRICS[..place]
                    .iter()
                    .all(|other| other.name != metric.name),
                "{} twice",
                metric.name
            );
            assert!(
                metric
                    .name
                    .bytes()
                    .all(|b| b.is_ascii_lowercase() || b == b'_'),
                "{}",
                metric.name
            );
            assert_eq!(
                metric.kind == Kind::Counter,
                metric.name.ends_with("_total"),
                "{}",
                metric.name
            );
            assert!(!metric.help.is_empty());
            assert!(
                metric.labels.iter().all(|label| !label.contains("run")),
                "{}",
                metric.name
            );
            if let Kind::Histogram(buckets) = metric.kind {
                assert!(
                    buckets.is_sorted() && !buckets.is_empty(),
                    "{}",
                    metric.name
                );
            }
        }
    }

    #[test]
    fn the_readme_lists_every_metric_as_it_is() {
        let readme = include_str!("../../README.md");
        for metric in METRICS {
            let kind = match metric.kind {
                Kind::Counter => "counter",
                Kind::Gauge => "gauge",
                Kind::Histogram(_) => "histogram",
            };
            let labels: Vec<_> = metric
                .labels
                .iter()
                .map(|label| format!("`{label}`"))
                .collect();
            let row = format!(
                "| `{}` | {kind} | {} | {} |",
                metric.name,
                labels.join(", "),
                metric.help
            );
            assert!(readme.contains(&row), "README.md lacks the row\n{row}");
        }
    }
}
