//! Matches that wait for the topics that their rule joins.

use super::*;

/// What the pure engine starts where the records of joined topics come in the order of `lines`.
fn joined_inputs(rule: &Arc<Rule>, lines: &[String], end: i64) -> Vec<String> {
    let found = replay(
        from_ref(rule),
        &lines.join("\n"),
        Some(Timestamp(end)),
        1 << 20,
    );
    let found = found.expect("events").document();
    let matches = found["matches"].as_array().expect("a list").iter();
    let mut inputs: Vec<String> = matches
        .map(|found| found["start"]["input"].to_string())
        .collect();
    inputs.sort();
    inputs
}

#[test]
fn matches_wait_for_their_tables_over_crashes_and_act_once() {
    // Beyond the year 2100.
    let end = 1 << 42;
    let mut cases = 0;
    for (file, case) in tables::cases() {
        let definition = tables::rule_of(&case);
        let is_joined = definition.get("enrich").is_some() && definition.get("start").is_some();
        if !is_joined || case.get("refused").is_some() {
            continue;
        }
        cases += 1;
        let rule = syntax::parse(&definition.to_string(), None)
            .expect("a rule")
            .remove(0);
        let is_row = |event: &Value| {
            let topic = event["topic"].as_str();
            rule.enrich
                .iter()
                .any(|enrich| topic == Some(&*enrich.topic))
        };
        let line = |(place, event): (usize, &Value)| {
            let (topic, at, payload) = read_event(&rule, event, place);
            let payload = payload.as_str();
            let line = json!({"topic": topic, "key": event["key"], "ts": at.0, "payload": payload});
            (is_row(event), line.to_string())
        };
        let lines: Vec<(bool, String)> = events_of(&case).enumerate().map(line).collect();
        let in_order: Vec<String> = lines.iter().map(|(_, line)| line.clone()).collect();
        let of = |rows: bool| lines.iter().filter(move |line| line.0 == rows);
        let rows_first: Vec<String> = of(true)
            .chain(of(false))
            .map(|line| line.1.clone())
            .collect();
        for (is_read, seed) in [
            (true, None),
            (true, Some(1)),
            (false, None),
            (false, Some(2)),
        ] {
            let mut random = seed.map(Random::new);
            let mut world = World::new(&rule);
            world.joined.is_read.store(is_read, Ordering::Release);
            for (place, event) in events_of(&case).enumerate() {
                let (topic, recorded, payload) = read_event(&rule, event, place);
                match event["key"].as_str().filter(|_| is_row(event)) {
                    Some(key) => {
                        let place = (topic, key.to_owned());
                        world.joined.rows.lock().unwrap().insert(place, payload);
                    }
                    None => {
                        world.event(&topic, recorded, &payload, place as i64);
                        step(&mut world, &mut random);
                    }
                }
            }
            finish(&mut world, end);
            if !is_read {
                assert_eq!(
                    world.started(),
                    [],
                    "nothing acts before its tables are read"
                );
                world.joined.is_read.store(true, Ordering::Release);
                world.now = world.now + Millis(1_000);
                step(&mut world, &mut random);
                // One that has just begun looks at what waits a while later.
                for _ in 0..2 {
                    world.settle();
                    world.now = world.now + Millis(1_000);
                }
                world.settle();
            }
            let lines = if is_read { &in_order } else { &rows_first };
            let mut found: Vec<String> = world.started().into_iter().map(|run| run.1).collect();
            found.sort();
            let name = format!(
                "{}: {} (read {is_read}, {seed:?})",
                file.display(),
                case["name"]
            );
            assert_eq!(found, joined_inputs(&rule, lines, end), "{name}");
        }
    }
    assert!(cases > 1, "{cases} cases");
}
