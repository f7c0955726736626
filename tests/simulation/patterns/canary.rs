//! A rule with a canary acts for the keys that their hash chooses, the same ones every time; what it finds for
//! the others is told, and starts nothing.

use std::collections::BTreeSet;

use super::*;

const KEYS: usize = 300;

/// The keys for which a rule with this canary starts something, of events that come twice for each key;
/// the worker dies in between.
fn acting_keys(percent: f64) -> BTreeSet<String> {
    let rule = json!({
        "kind": "rule",
        "name": "r",
        "topic": "t",
        "correlate": {"by": ["u"]},
        "match": {"any": [{"id": "a"}]},
        "canary": {"percent": percent, "by": "key"},
        "start": {"workflow": "w", "input": "${key.u}"},
    });
    let rules = syntax::parse(&rule.to_string(), None);
    let rule = rules.expect("a rule with a canary").remove(0);
    let mut world = World::new(&rule);
    let mut rounds = Vec::new();
    for round in 0..2 {
        for key in 0..KEYS {
            let line = round * KEYS + key;
            let event = Json::from(&json!({"u": format!("u{key}")}));
            world.event("t", Timestamp(line as i64 + 1), &event, line as i64);
        }
        world.settle();
        world.boot();
        rounds.push(started_keys(&world));
    }
    // Of the first round, and of both.
    let [first, both] = [&rounds[0], &rounds[1]];
    assert_eq!(both.len(), first.len() * 2, "the same keys act again");
    let acting: BTreeSet<String> = first.iter().cloned().collect();
    assert_eq!(acting, both.iter().cloned().collect());
    check_told(&world, &acting);
    acting
}

/// The key of each start.
fn started_keys(world: &World) -> Vec<String> {
    let inputs = world.started().into_iter().map(|(_, input)| input);
    let keys = inputs.map(|input| serde_json::from_str(&input).expect("the key is text"));
    keys.collect()
}

/// Every match is told, with what it started where its key acts, and as spared elsewhere.
fn check_told(world: &World, acting: &BTreeSet<String>) {
    let matches = matches_told(&world.cluster);
    assert_eq!(matches.len(), KEYS * 2);
    for data in matches {
        let key = data["key"]["u"].as_str().expect("the key");
        let is_acting = acting.contains(key);
        let mode = if is_acting { "live" } else { "spared" };
        assert_eq!(data["mode"], mode, "{data}");
        assert_eq!(data["run"].is_string(), is_acting, "{data}");
        let commands = data["commands"].as_array().map_or(0, Vec::len);
        assert_eq!(commands, usize::from(is_acting), "{data}");
    }
}

#[test]
fn a_canary_acts_for_its_part_of_the_keys_and_tells_of_the_others() {
    let quarter = acting_keys(25.0);
    let part = KEYS / 4;
    let is_near = |count: usize| count > part * 2 / 3 && count < part * 4 / 3;
    assert!(is_near(quarter.len()), "{} of {KEYS}", quarter.len());
    let half = acting_keys(50.0);
    assert!(
        quarter.is_subset(&half) && quarter.len() < half.len(),
        "a canary that grows keeps the keys it has"
    );
    assert_eq!(acting_keys(0.0).len(), 0);
    assert_eq!(acting_keys(100.0).len(), KEYS);
}
