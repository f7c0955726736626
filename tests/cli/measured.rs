//! `demo` and `bench`, whole and small: what they promise to print is there, and adds up. No figure of
//! time is held to anything but being one.

use serde_json::Value;

use crate::run;

#[track_caller]
fn number(from: &Value, path: &str) -> f64 {
    let value = from.pointer(path);
    value
        .and_then(Value::as_f64)
        .unwrap_or_else(|| panic!("{path} is {value:?} in {from:#}"))
}

/// A median and a hundredth that were measured: both there, in order, and neither nothing.
#[track_caller]
fn quantiles(from: &Value, path: &str) {
    let (p50, p99) = (
        number(from, &format!("{path}/p50")),
        number(from, &format!("{path}/p99")),
    );
    assert!(0.0 < p50 && p50 <= p99, "{path}: {p50} and {p99}");
}

#[test]
fn the_demo_runs_to_its_end_and_sums_up() {
    let ended = run(&["demo", "--runs", "20", "--json"]).code(0);
    let summary = ended.json();
    assert_eq!(number(&summary, "/runs_failed"), 0.0, "{summary:#}");
    // The small runs and the one that is followed.
    assert!(number(&summary, "/runs_completed") >= 21.0, "{summary:#}");
    assert!(number(&summary, "/steps_completed") >= 23.0, "{summary:#}");
    assert_eq!(number(&summary, "/matches"), 1.0, "{summary:#}");
    assert_eq!(number(&summary, "/runs_started_by_rules"), 1.0);
    assert!(number(&summary, "/steps_per_second") > 0.0);
    quantiles(&summary, "/start_to_task_ms");
    quantiles(&summary, "/reply_to_task_ms");
}

#[test]
fn a_bench_measures_the_engine_and_the_bare_loop_beside_it() {
    let flags = ["--runs", "30", "--rate", "30", "--waiting", "30", "--json"];
    let ended = run(&[&["bench", "--workers", "2"][..], &flags].concat()).code(0);
    let figures = ended.json();
    assert_eq!(figures["broker"]["kind"], "embedded");
    assert_eq!(number(&figures, "/runs_failed"), 0.0, "{figures:#}");
    // 200 to warm up and 30 each to settle, to time and to saturate, of five steps.
    assert_eq!(number(&figures, "/runs_completed"), 290.0, "{figures:#}");
    assert_eq!(number(&figures, "/steps_completed"), 1_450.0);
    for path in ["", "/ceiling"] {
        quantiles(&figures, &format!("{path}/start_to_task_ms"));
        quantiles(&figures, &format!("{path}/reply_to_task_ms"));
        assert!(number(&figures, &format!("{path}/steps_per_second")) > 0.0);
    }
    quantiles(&figures, "/state_op_ms");
    // The task, two events and the state of each step; together in one entry where steps meet.
    let records = number(&figures, "/ceiling/records_per_step");
    assert!((3.0..=5.0).contains(&records), "{records} records a step");
    for path in [
        "/ceiling/records_per_second",
        "/ceiling/record_bytes",
        "/ceiling_ratio",
        "/engine_cpu_seconds",
        "/steps_per_cpu_second",
        "/memory_bytes",
    ] {
        assert!(number(&figures, path) > 0.0, "{path} of {figures:#}");
    }
    number(&figures, "/memory_bytes_per_live_run");
    assert_eq!(number(&figures, "/live_runs_measured"), 30.0);
}

#[test]
fn a_bench_of_patterns_takes_events_from_a_topic_through_rules() {
    let flags = ["--events", "20000", "--other-rules", "2", "--json"];
    let figures = run(&[&["bench", "patterns"][..], &flags].concat())
        .code(0)
        .json();
    assert_eq!(number(&figures, "/events"), 20_000.0, "{figures:#}");
    assert_eq!(number(&figures, "/rules"), 4.0, "{figures:#}");
    assert!(number(&figures, "/signals") > 0.0, "{figures:#}");
}
