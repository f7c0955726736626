//! The patterns that other engines are measured on.

use std::sync::Arc;

use partita::pattern::{Rule, syntax};

fn step(id: &str, over: f64, next: &str) -> String {
    format!("{{id: {id}, topic: {id}, where: 'event.value > {over:?}', next: {next}}}")
}

/// The patterns by name, for a window of `w` milliseconds.
pub fn rule(name: &str, w: u64, keys: u64) -> Option<Arc<Rule>> {
    let one = keys == 1;
    let last = if one { 0.999 } else { 0.99 };
    let condition =
        |id: &str, over: f64| format!("{{id: {id}, topic: {id}, where: 'event.value > {over:?}'}}");
    let sequence = |next: &str| {
        let steps = [
            condition("A", 0.5),
            step("B", 0.5, next),
            step("C", last, next),
        ];
        format!("sequence: {{within: {w}ms, steps: [{}]}}", steps.join(", "))
    };
    let (shape, skip) = match name {
        "p1" => (format!("any: [{}]", condition("A", 0.9)), "no_skip"),
        "p2a" => (sequence("relaxed"), "skip_past_last"),
        "p2b" => (sequence("any"), "no_skip"),
        "p3" => {
            let conditions = [
                condition("A", 0.5),
                condition("B", 0.5),
                condition("C", last),
            ];
            let list = conditions.join(", ");
            (
                format!("all: {{within: {w}ms, conditions: [{list}]}}"),
                "skip_past_last",
            )
        }
        "p4" => {
            let over = if one { 1.0 - 62.0 / w as f64 } else { 0.0 };
            let (a, b) = (condition("A", 0.5), condition("B", over));
            (
                format!("absent: {{within: {w}ms, after: {a}, expect: {b}}}"),
                "no_skip",
            )
        }
        "p5" | "p5_p95" => {
            let deviation = 1.0 / (w as f64).sqrt();
            let (function, over) = match (name, one) {
                ("p5", true) => ("avg", 0.5 + 0.6 * deviation),
                ("p5", false) => ("avg", 0.9),
                (_, true) => ("percentile_95", 0.95 + 0.3 * deviation),
                (_, false) => ("percentile_95", 0.99),
            };
            let every = w / 10;
            let aggregate = format!("{{of: {function}(value)}}, having: 'of > {over:?}'");
            let span = format!("topic: all, type: sliding, size: {w}ms, every: {every}ms");
            (
                format!("window: {{{span}, aggregate: {aggregate}}}"),
                "no_skip",
            )
        }
        _ => return None,
    };
    let text = format!(
        "kind: rule\nname: {name}\ncorrelate: {{by: [key]}}\nmatch:\n  {shape}\nemit: {{after_match: {skip}}}\nlimits: {{max_results_per_event: 10000000}}\n"
    );
    let rules =
        syntax::parse(&text, Some(name)).unwrap_or_else(|violations| panic!("{violations}"));
    rules.into_iter().next()
}
