//! Dead letters of the stage: the records byte for byte, where they still lie in their topics.

use partita::log::memory::StoredRecord;

use super::*;

/// What the dead letters say, in the order of their records.
fn dead_letters(world: &World) -> Vec<StoredRecord> {
    let of = |partition| {
        let topic = TopicKey::DeadLetter;
        world.cluster.read_committed(&topic, partition, 0)
    };
    let mut letters: Vec<StoredRecord> = (0..PARTITIONS).flat_map(of).collect();
    letters.sort_by_key(|letter| header(letter, "offset").map(str::to_owned));
    letters
}

fn header<'l>(letter: &'l StoredRecord, name: &str) -> Option<&'l str> {
    let name = format!("partita-error-{name}");
    let found = letter.headers.iter().find(|(known, _)| *known == name);
    found.map(|(_, value)| std::str::from_utf8(value).expect("text"))
}

#[test]
fn a_match_that_gives_too_much_is_a_dead_letter_and_the_next_one_starts() {
    let rule = r#"{kind: rule, name: r, topic: t, match: {any: [{id: a}]},
        start: {workflow: w, input: {text: "${matches.a[0].text}"}}}"#;
    let rule = syntax::parse(rule, None).expect("a rule").remove(0);
    let mut world = World::new(&rule);
    let sizes = [BOUNDS.max_payload_bytes, 10];
    for (line, size) in (0..).zip(sizes) {
        let event = Json::from(json!({"text": "x".repeat(size)}));
        world.event("t", Timestamp(line + 1), &event, line);
    }
    finish(&mut world, 10);
    let started = world.started();
    assert_eq!(started.len(), 1);
    assert_eq!(started[0].1, json!({"text": "x".repeat(10)}).to_string());
    let dead = dead_letters(&world);
    assert_eq!(dead.len(), 1);
    assert_eq!(header(&dead[0], "class"), Some("payload_too_large"));
}

#[test]
fn what_came_too_late_is_a_dead_letter_byte_for_byte_with_key_and_headers() {
    let rule = "{kind: rule, name: r, topic: t, match: {any: [{id: a}]}}";
    let rule = syntax::parse(rule, None).expect("a rule").remove(0);
    let mut random = Some(Random::new(3));
    let mut world = World::new(&rule);
    let content = Json::from(json!({"n": 1}));
    for (line, at) in [(0, 1_000), (1, 10), (2, 20), (3, 1_000)] {
        world.event("t", Timestamp(at), &content, line);
        step(&mut world, &mut random);
    }
    let letters = dead_letters(&world);
    assert_eq!(letters.len(), 2);
    for (letter, line) in letters.iter().zip([1, 2]) {
        let record = as_written("t", line, content.as_str());
        assert_eq!((&letter.key, &letter.value), (&record.key, &record.value));
        assert_eq!(letter.headers.first(), record.headers.first());
        assert_eq!(header(letter, "class"), Some("late"));
        assert_eq!(header(letter, "stage"), Some("patterns"));
        assert_eq!(header(letter, "rule"), Some("r@1"));
        assert_eq!(header(letter, "topic"), Some("t"));
        assert_eq!(header(letter, "offset"), Some(&*line.to_string()));
        assert_eq!(header(letter, "decoded-value"), None);
    }
}

#[test]
fn where_the_record_is_gone_the_letter_is_the_event_and_says_so() {
    let rule = "{kind: rule, name: r, topic: t, match: {any: [{id: a}]}}";
    let rule = syntax::parse(rule, None).expect("a rule").remove(0);
    let mut world = World::new(&rule);
    let content = Json::from(json!({"n": 1}));
    for (line, at) in [(0, 1_000), (1, 10)] {
        world.event("t", Timestamp(at), &content, line);
        world.originals.clear();
        world.settle();
    }
    let letters = dead_letters(&world);
    assert_eq!(letters.len(), 1);
    let letter = &letters[0];
    assert_eq!(letter.key, None);
    assert_eq!(letter.value.as_deref(), Some(content.as_str().as_bytes()));
    let reason = "the record does not lie in its topic any more";
    assert_eq!(header(letter, "decoded-value"), Some(reason));
}

#[test]
fn a_signal_that_is_none_is_a_dead_letter_with_its_key() {
    let rule = "{kind: rule, name: r, topic: t, match: {any: [{id: a}]}}";
    let rule = syntax::parse(rule, None).expect("a rule").remove(0);
    let mut world = World::new(&rule);
    world.event("t", Timestamp(1_000), &Json::from(json!({})), 0);
    world.produce(0, Some(b"mine"), b"no signal");
    world.settle();
    let letters = dead_letters(&world);
    assert_eq!(letters.len(), 1);
    assert_eq!(letters[0].key.as_deref(), Some(b"mine".as_slice()));
    assert_eq!(letters[0].value.as_deref(), Some(b"no signal".as_slice()));
    assert_eq!(header(&letters[0], "topic"), Some("sim.signals"));
    assert_eq!(header(&letters[0], "rule"), None);
}
