//! What bounds the results of one event bounds the work for it as well.

use partita::pattern::syntax;
use partita::runtime::replay::replay;
use serde_json::{Value, json};

/// Events of each kind before the last: their combinations are more than anybody could walk through.
const OF_EACH: usize = 200;

fn replayed(steps: &[&str], events: &[&str]) -> Value {
    let steps = steps.iter().map(|kind| {
        let condition = format!("event.k == '{kind}'");
        json!({"id": kind, "where": condition, "next": "any"})
    });
    let rule = json!({
        "kind": "rule",
        "name": "r",
        "topic": "t",
        "match": {"sequence": {"steps": steps.collect::<Vec<_>>(), "within": "1h"}},
        "limits": {"max_results_per_event": 3},
    });
    let rules = syntax::parse(&rule.to_string(), None).expect("a rule");
    let lines = events.iter().enumerate().map(|(place, kind)| {
        let payload = json!({ "k": kind }).to_string();
        json!({"topic": "t", "ts": place, "payload": payload}).to_string()
    });
    let lines: Vec<String> = lines.collect();
    let found = replay(&rules, &lines.join("\n"), None, 1 << 20);
    found.expect("these are events").document()
}

fn of_each(kinds: &[&'static str]) -> Vec<&'static str> {
    let each = kinds.iter().map(|kind| [*kind; OF_EACH]);
    each.flatten().collect()
}

fn count(found: &Value, list: &str) -> usize {
    found[list].as_array().map_or(0, Vec::len)
}

#[test]
fn an_event_that_ends_more_matches_than_it_may_walks_through_no_others() {
    let mut events = of_each(&["a", "b", "c", "d"]);
    events.push("e");
    let found = replayed(&["a", "b", "c", "d", "e"], &events);
    assert_eq!(count(&found, "matches"), 3);
    let dropped = (OF_EACH as u64).pow(4) - 3;
    assert_eq!(found["overflows"][0]["dropped"], dropped);
}

#[test]
fn what_no_event_can_end_any_more_is_not_walked_through() {
    let mut events = vec!["a", "b", "c", "d"];
    events.extend(of_each(&["a", "b", "c"]));
    events.push("e");
    let found = replayed(&["a", "b", "c", "d", "e"], &events);
    assert_eq!(count(&found, "matches"), 1);
}

#[test]
fn a_start_that_runs_out_walks_through_no_more_than_it_reports() {
    let mut events = vec!["a"];
    events.extend(of_each(&["b", "c", "d"]));
    let found = replayed(&["a", "b", "c", "d", "e"], &events);
    assert_eq!(count(&found, "timed_out"), 3);
    let of_each = OF_EACH as u64;
    let dropped = 1 + of_each + of_each.pow(2) + of_each.pow(3) - 3;
    assert_eq!(found["overflows"][0]["dropped"], dropped);
}

#[test]
fn a_time_that_no_window_can_have_is_told_and_harms_nothing() {
    for window in [
        json!({"type": "tumbling", "size": "10ms", "emit": "early"}),
        json!({"type": "tumbling", "size": "10ms"}),
        json!({"type": "sliding", "size": "10ms"}),
        json!({"type": "session", "gap": "10ms"}),
    ] {
        let mut window = window;
        window["aggregate"] = json!({"n": "count"});
        window["having"] = json!("n >= 1");
        let rule = json!({
            "kind": "rule", "name": "r", "topic": "t", "time": {"field": "at"},
            "match": {"window": window},
        });
        let rules = syntax::parse(&rule.to_string(), None).expect("a rule");
        let events = [i64::MIN, 1].map(|at| json!({ "at": at }).to_string());
        let found = replay(&rules, &events.join("\n"), None, 1 << 20);
        let found = found.expect("these are events").document();
        assert_eq!(count(&found, "matches"), 1, "{found}");
        assert_eq!(found["overflows"][0]["limit"], "windows", "{found}");
    }
}
