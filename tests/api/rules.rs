//! What rules have done: each instance knows its own part, each answers for all.

use std::collections::BTreeMap;

use partita::model::Timestamp;
use partita::runtime::patterns::stats::{RuleCounts, RuleLevel, RuleStats};
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::support::{Broker, Instance, until};

fn stats(rule: &str, version: u32, of: u64, watermark: Option<i64>, draining: bool) -> RuleStats {
    RuleStats {
        rule: rule.to_owned(),
        version,
        counts: RuleCounts {
            events: 100 * of,
            matches: 10 * of,
            acted: 5 * of,
            late: 4 * of,
            suppressed: 3 * of,
            condition_errors: 2 * of,
            overflows: BTreeMap::from([(format!("limit_{of}"), of), ("max_keys".to_owned(), 1)]),
            last_match_at: Some(Timestamp(1_000 * of as i64)),
        },
        level: Some(RuleLevel {
            keys: of,
            partials: 7 * of,
            buffered: 8 * of,
            watermark: watermark.map(Timestamp),
            is_draining: draining,
        }),
    }
}

fn rule(name: &str, version: u32, more: &str) -> String {
    format!(
        "kind: rule\nname: {name}\nversion: {version}\n{more}match: {{any: [{{id: a, topic: t}}]}}\n"
    )
}

fn set(instance: &Instance, rules: Vec<RuleStats>) {
    *instance.fake.rules.lock().unwrap() = rules;
}

#[tokio::test(flavor = "multi_thread")]
async fn figures_of_rules_are_summed_over_instances() {
    let broker = Broker::start().await;
    let one = Instance::owning(&broker, "one", vec![0, 1]).await;
    let two = Instance::owning(&broker, "two", vec![2, 3]).await;
    let definitions = [
        rule("asleep", 1, "enabled: false\n"),
        rule("changed", 1, ""),
        rule("changed", 2, "mode: shadow\n"),
        rule("part", 1, "canary: {percent: 12.5, by: key}\n"),
        rule("storm", 1, ""),
    ];
    let text = definitions.join("---\n");
    let applied = one.registry.apply(&text, None, false);
    applied.await.expect("valid rules");
    for instance in [&one, &two] {
        instance.registry.caught_up().await.unwrap();
    }
    until("both have heard of each other", async || {
        one.membership.others().len() == 1 && two.membership.others().len() == 1
    })
    .await;
    set(
        &one,
        vec![
            stats("changed", 1, 1, None, true),
            stats("gone", 1, 1, None, false),
            stats("storm", 1, 1, Some(5_000), false),
        ],
    );
    set(&two, vec![stats("storm", 1, 2, Some(4_000), false)]);

    for instance in [&one, &two] {
        let (status, found) = instance.get("/v1/rules/stats").await;
        assert_eq!((status, &found["unanswered"]), (StatusCode::OK, &json!([])));
        assert_eq!(
            found["instances"].as_array().map(Vec::len),
            Some(2),
            "{found}"
        );
        let rules = found["rules"].as_array().expect("a list");
        let shown: Vec<String> = rules
            .iter()
            .map(|rule| format!("{}@{} {}", rule["rule"], rule["version"], rule["state"]))
            .collect();
        let expected = [
            ("asleep", 1, "disabled"),
            ("changed", 2, "shadow"),
            ("changed", 1, "draining"),
            ("part", 1, "canary"),
            ("storm", 1, "live"),
        ];
        assert_eq!(
            shown,
            expected.map(|(rule, version, state)| format!("{rule:?}@{version} {state:?}"))
        );
        assert_eq!(rules[3]["canary_percent"], 12.5);
        assert_eq!(
            (&rules[0]["events"], &rules[0]["watermark"]),
            (&json!(0), &Value::Null)
        );
        let storm = &rules[4];
        let behind = storm["behind_ms"].as_i64().expect("a number");
        assert!(behind > 1_000_000_000_000, "{behind}");
        for (name, value) in [
            ("events", json!(300)),
            ("matches", json!(30)),
            ("acted", json!(15)),
            ("late", json!(12)),
            ("suppressed", json!(9)),
            ("condition_errors", json!(6)),
            (
                "overflows",
                json!({"limit_1": 1, "limit_2": 2, "max_keys": 2}),
            ),
            ("keys", json!(3)),
            ("partials", json!(21)),
            ("buffered", json!(24)),
            ("last_match_at", json!("1970-01-01T00:00:02.000Z")),
            ("watermark", json!("1970-01-01T00:00:04.000Z")),
        ] {
            assert_eq!(storm[name], value, "{name}");
        }
    }

    let (_, found) = two.get("/v1/rules/stats?rule=changed").await;
    assert_eq!(found["rules"].as_array().map(Vec::len), Some(2), "{found}");
    for (version, state) in [(2, "shadow"), (1, "draining")] {
        let path = format!("/v1/rules/stats?rule=changed@{version}");
        let (_, found) = two.get(&path).await;
        assert_eq!(found["rules"].as_array().map(Vec::len), Some(1), "{found}");
        assert_eq!(found["rules"][0]["state"], state, "{found}");
    }
    let (status, problem) = two.get("/v1/rules/stats?rule=storm@2").await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert_eq!(
        problem["detail"],
        "no rule `storm@2` is applied and in force, or drains"
    );
    let (status, _) = two.get("/v1/rules/stats?rule=storm@x").await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    let (status, problem) = two.get("/v1/rules/stats?rule=nobody").await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert_eq!(problem["detail"], "no rule `nobody` is applied");
    let (status, _) = two.get("/v1/rules/stats?name=storm").await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_that_does_not_answer_is_named() {
    let broker = Broker::start().await;
    let one = Instance::owning(&broker, "one", vec![0, 1]).await;
    let two = Instance::owning(&broker, "two", vec![2, 3]).await;
    let text = rule("storm", 1, "");
    let applied = one.registry.apply(&text, None, false);
    applied.await.expect("a valid rule");
    until("it has heard of the other", async || {
        one.membership.others().len() == 1
    })
    .await;
    set(&one, vec![stats("storm", 1, 1, None, false)]);
    // Its announcements go on: it is a member that cannot be reached.
    two.stop();
    until("the other does not answer", async || {
        let (_, found) = one.get("/v1/rules/stats").await;
        found["unanswered"][0]["instance"] == "two"
    })
    .await;
    let (status, found) = one.get("/v1/rules/stats").await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(found["rules"][0]["events"], 100, "{found}");
    let reason = found["unanswered"][0]["reason"].as_str();
    assert!(reason.is_some_and(|reason| !reason.is_empty()), "{found}");
}
