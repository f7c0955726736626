//! The tables' cases where another version takes the place of the rule on the way: what the first has begun
//! goes on, over crashes, and of events that were handed to it before the change nothing is lost.

use partita::codec::pattern_state::PatternKey;
use partita::pattern::{Event, Outputs};

use super::*;

/// The same rule one version later, which starts nothing.
fn next_of(rule: &Rule) -> Arc<Rule> {
    let mut definition: Value = rule.source.parse().expect("an object");
    definition["version"] = json!(rule.version + 1);
    definition["mode"] = json!("shadow");
    let rules = syntax::parse(&definition.to_string(), None);
    rules.expect("it differs in little").remove(0)
}

/// How many matches the matcher finds where only the first `old` events may begin some.
fn count_of_matches(rule: &Arc<Rule>, case: &Value, old: usize, end: Timestamp) -> usize {
    let filter = Filter::new(std::slice::from_ref(rule));
    let mut matcher = Matcher::new(rule.clone(), false);
    let mut out = Outputs::default();
    let mut latest: Option<Timestamp> = None;
    for (place, event) in events_of(case).enumerate() {
        let (topic, written, payload) = read_event(rule, event, place);
        let (Some(of_topic), Some((payload, recorded))) =
            (filter.topic(&topic), decode(written, &payload))
        else {
            continue;
        };
        let place_of = rule.topics.iter().position(|name| **name == *topic);
        let of_rule = place_of.expect("it is read") as u16;
        let slots = rule.slots(of_rule, &payload);
        let headers = tables::headers_of(event);
        let recorded = Recorded {
            at: recorded,
            written: Some(written),
            headers: &headers,
        };
        of_topic.select(&payload, recorded, &mut |verdict| {
            let Verdict::Wanted { at, .. } = verdict else {
                return;
            };
            let event = Event {
                topic: of_rule,
                at,
                position: place as u64,
                slots: &slots,
                payload: &payload,
            };
            match place < old {
                true => matcher.offer(&event, &mut out),
                false => matcher.carry_on(&event, &mut out),
            }
        });
        if let Ok(at) = rule.event_time(&slots, recorded) {
            latest = latest.max(Some(at));
            matcher.observe(latest.unwrap_or(at), &mut out);
        }
    }
    matcher.observe(end, &mut out);
    out.matches.len()
}

/// Runs a case in which the last of the first `old` events is on its way when the next version is applied.
/// What was started, and what the changelog keeps of the rule's first version a day later.
fn run_replaced(
    rule: &Arc<Rule>,
    case: &Value,
    old: usize,
    end: i64,
    mut random: Option<Random>,
) -> (Vec<(String, String)>, usize) {
    let mut world = World::new(rule);
    world.has_read_rules = true;
    world.boot();
    world.settle();
    for (place, event) in events_of(case).enumerate() {
        let (topic, recorded, payload) = read_event(rule, event, place);
        world.event(&topic, recorded, &payload, place as i64);
        if place + 1 == old {
            let next = next_of(rule);
            world.filter = Filter::new(std::slice::from_ref(&next));
            world.filter.add_draining(rule);
            world.next.set(next).expect("it is applied once");
        }
        step(&mut world, &mut random);
    }
    finish(&mut world, end);
    let started = world.started();
    for _ in 0..3 {
        world.now = world.now + Millis(25 * 3_600_000);
        world.settle();
    }
    let mut left: BTreeMap<PatternKey, bool> = BTreeMap::new();
    for partition in 0..PARTITIONS {
        for record in world.cluster.read_committed(&TopicKey::State, partition, 0) {
            let key = PatternKey::parse(record.key.as_deref().expect("a key"));
            left.insert(key.expect("an entry"), record.value.is_some());
        }
    }
    let first = rule.id();
    let of_first =
        |(key, is_there): &(&PatternKey, &bool)| **is_there && key.rule() == Some(&first);
    (started, left.iter().filter(of_first).count())
}

#[test]
fn what_a_version_has_begun_goes_on_when_another_takes_its_place() {
    let (mut cases, mut starts, mut failures) = (0, 0, Vec::new());
    for (file, case) in tables::cases() {
        let Some((rule, whole, end)) = expected(&case) else {
            continue;
        };
        let events = events_of(&case).count();
        if events < 2 {
            continue;
        }
        cases += 1;
        let seed = cases as u64;
        let old = 1 + Random::new(seed).below(events - 1);
        let expected = count_of_matches(&rule, &case, old, sources_at(&rule, end));
        starts += expected;
        assert!(
            expected <= whole.len(),
            "it finds more than without a change"
        );
        let calm = run_replaced(&rule, &case, old, end, None);
        let faulty = run_replaced(&rule, &case, old, end, Some(Random::new(seed)));
        let inputs = |(started, _): &(Vec<(String, String)>, usize)| {
            let mut inputs: Vec<String> = started.iter().map(|run| run.1.clone()).collect();
            inputs.sort();
            inputs
        };
        let is_right = inputs(&calm).len() == expected && inputs(&calm) == inputs(&faulty);
        let left = calm.1 + faulty.1;
        if !is_right || (left > 0 && case.get("advance_to").is_none()) {
            let name = case["name"].as_str().unwrap_or("?");
            failures.push(format!(
                "{}: {name}, replaced after {old}: expected {expected}, left {left}\n{calm:?}\n{faulty:?}",
                file.display(),
            ));
        }
    }
    println!("{cases} cases, {starts} starts");
    assert!(cases > 150 && starts > 75, "{cases} cases, {starts} starts");
    let shown = &failures[..failures.len().min(8)];
    assert!(
        failures.is_empty(),
        "{} fail:\n{}",
        failures.len(),
        shown.join("\n")
    );
}
