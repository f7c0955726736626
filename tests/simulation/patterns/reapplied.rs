//! A version that is deleted and applied again with other content: what was applied last is at work, and it
//! takes up nothing of what was known before, whether the worker lives on, dies, or had died by then.

use partita::codec::pattern_state::PatternKey;

use super::*;

/// Two of `k` within an hour, beginning with an event whose `n` is `first`.
fn rule_of(first: i64) -> Arc<Rule> {
    let text = format!(
        "kind: rule\nname: r\nversion: 1\ncorrelate: [k]\nmatch: {{sequence: {{within: 1h, steps: \
         [{{id: a, topic: t, where: 'event.n == {first}'}}, {{id: b, topic: t, where: 'event.n == 9'}}]}}}}\n\
         start: {{workflow: w, input: {{first: {first}}}}}"
    );
    syntax::parse(&text, None).expect("a rule").remove(0)
}

/// Keys of `pattern-state` that have a value.
fn keys(world: &World) -> Vec<PatternKey> {
    let mut entries: BTreeMap<Vec<u8>, bool> = BTreeMap::new();
    for partition in 0..PARTITIONS {
        for record in world.cluster.read_committed(&TopicKey::State, partition, 0) {
            let is_there = record.value.is_some();
            entries.insert(record.key.expect("a key"), is_there);
        }
    }
    let there = entries.iter().filter(|(_, is_there)| **is_there);
    there
        .filter_map(|(key, _)| PatternKey::parse(key))
        .collect()
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Dies {
    Never,
    /// Before it hears of the other definition.
    Before,
    /// At this step of the transaction that forgets.
    At(Point),
    After,
}

fn run(dies: Dies) -> (Vec<String>, Vec<PatternKey>) {
    let (old, new) = (rule_of(1), rule_of(2));
    let mut world = World::new(&old);
    world.has_read_rules = true;
    world.boot();
    world.settle();
    let mut line = 0;
    let mut event = |world: &mut World, k: &str, n: i64| {
        line += 1;
        world.event(
            "t",
            Timestamp(line),
            &Json::from(json!({"k": k, "n": n})),
            line,
        );
    };
    event(&mut world, "kept", 1);
    event(&mut world, "left", 1);
    world.settle();
    assert!(
        keys(&world)
            .iter()
            .any(|key| matches!(key, PatternKey::State { .. }))
    );
    if dies == Dies::Before {
        world.boot();
    }
    world.filter = Filter::new(std::slice::from_ref(&new));
    world.next.set(new).expect("it is applied once");
    if let Dies::At(point) = dies {
        world.plan.lock().unwrap().armed.push((point, Fault::Crash));
    }
    event(&mut world, "kept", 9);
    world.settle();
    if dies == Dies::After {
        world.boot();
    }
    let left = keys(&world);
    event(&mut world, "kept", 2);
    event(&mut world, "kept", 9);
    finish(&mut world, 10_000);
    let inputs = world.started().into_iter().map(|run| run.1);
    (inputs.collect(), left)
}

#[test]
fn a_version_that_is_applied_again_with_other_content_is_at_work_and_begins_empty() {
    let points = Point::ALL.map(Dies::At);
    for dies in [Dies::Never, Dies::Before, Dies::After]
        .into_iter()
        .chain(points)
    {
        let (inputs, left) = run(dies);
        assert_eq!(inputs, [json!({"first": 2}).to_string()], "{dies:?}");
        let is_state = |key: &&PatternKey| matches!(key, PatternKey::State { .. });
        assert_eq!(
            left.iter().filter(is_state).count(),
            0,
            "{dies:?}: {left:?}"
        );
    }
}
