//! What rules want of events.

use super::*;
use crate::pattern::syntax;

fn rule(text: &str) -> Arc<Rule> {
    let text = format!("kind: rule\n{text}");
    let rules = syntax::parse(&text, None).expect("a valid rule");
    rules.into_iter().next().expect("one rule")
}

/// `name: key at`, `name: unkeyed` or `name: timeless` of the rules that want the event.
fn selected(filter: &Filter, topic: &str, event: &str) -> Vec<String> {
    let payload = Json::from_text(event).unwrap();
    let mut found = Vec::new();
    let Some(filter) = filter.topic(topic) else {
        return found;
    };
    filter.select(&payload, Some(Timestamp(7)).into(), &mut |verdict| {
        found.push(match verdict {
            Verdict::Wanted { rule, key, at, .. } => format!("{}: {key} {}", rule.name, at.0),
            Verdict::Unkeyed { rule } => format!("{}: unkeyed", rule.name),
            Verdict::Timeless { rule, .. } => format!("{}: timeless", rule.name),
        });
    });
    found
}

fn filter() -> Filter {
    Filter::new(&[
        rule(
            "name: first\nmatch: {any: [{id: a, topic: t, where: \"event.kind == 'x' && event.n > 1\"}, {id: b, topic: u}]}",
        ),
        rule(
            "name: keyed\ncorrelate: {by: [user, n]}\nmatch: {any: [{id: a, topic: t, where: \"event.kind in ['x', 'y']\"}]}",
        ),
        rule(
            "name: timed\ntime: {field: at.begin}\nmatch: {any: [{id: a, topic: t, where: \"event.n == 1\"}]}",
        ),
        rule(
            "name: strict\nmatch: {sequence: {within: 1m, steps: [{id: a, topic: t, where: \"event.kind == 'x'\"}, {id: b, topic: t, next: strict, where: \"event.kind == 'q'\"}]}}",
        ),
        rule(
            "name: back\nmatch: {sequence: {within: 1m, steps: [{id: a, topic: t, where: \"event.kind == 'x'\"}, {id: b, topic: u, where: \"event.n == matches.a[0].n\"}]}}",
        ),
    ])
}

#[test]
fn rules_get_what_their_matchers_look_at() {
    let filter = filter();
    let check = |topic: &str, event: &str, expected: &[&str]| {
        assert_eq!(selected(&filter, topic, event), expected, "{topic} {event}");
    };
    check(
        "t",
        r#"{"kind":"x","n":2}"#,
        &[
            "first: [] 7",
            "keyed: unkeyed",
            "strict: [] 7",
            "back: [] 7",
        ],
    );
    check(
        "t",
        r#"{"kind":"x","n":0,"user":"u"}"#,
        &["keyed: [\"u\",0] 7", "strict: [] 7", "back: [] 7"],
    );
    check(
        "t",
        r#"{"kind":"y","n":2.0,"user":true}"#,
        &["keyed: [true,2] 7", "strict: [] 7"],
    );
    check(
        "t",
        r#"{"kind":"y","n":2.5,"user":"é\""}"#,
        &["keyed: [\"é\\\"\",2.5] 7", "strict: [] 7"],
    );
    check("t", r#"{"kind":"z"}"#, &["strict: [] 7"]);
    check("t", r#"{"kind":["x"]}"#, &["strict: [] 7"]);
    check("t", r#"{"n":1}"#, &["timed: timeless", "strict: [] 7"]);
    check(
        "t",
        r#"{"n":1.0,"at":{"begin":12}}"#,
        &["timed: [] 12", "strict: [] 7"],
    );
    check("u", "{}", &["first: [] 7", "back: [] 7"]);
    check("v", r#"{"kind":"x"}"#, &[]);
}

#[test]
fn clocks_are_told_apart_once_each() {
    let filter = filter();
    let clocks = filter.topic("t").expect("read").clocks();
    let names: Vec<&str> = clocks.iter().map(|clock| clock.name.as_str()).collect();
    assert_eq!(names, ["", "at.begin"]);
    let event = Json::from_text(r#"{"at":{"begin":"1970-01-01T00:00:01Z"}}"#).unwrap();
    let times: Vec<_> = clocks
        .iter()
        .map(|clock| clock.read(&event, Some(Timestamp(7)).into()))
        .collect();
    assert_eq!(times, [Some(Timestamp(7)), Some(Timestamp(1_000))]);
    let empty = Json::from_text("{}").unwrap();
    assert_eq!(clocks[1].read(&empty, None.into()), None);
}

/// A header is no field of the same name, neither for its event time nor for its watermark.
#[test]
fn a_header_is_a_clock_of_its_own() {
    let filter = Filter::new(&[
        rule("name: h\ntime: {header: sent}\nmatch: {any: [{id: a, topic: t}]}"),
        rule("name: f\ntime: {field: sent}\nmatch: {any: [{id: a, topic: t}]}"),
        rule("name: i\ntime: {header: sent}\nmatch: {any: [{id: a, topic: t}]}"),
    ]);
    let of_topic = filter.topic("t").expect("read");
    let event = Json::from_text(r#"{"sent":3}"#).unwrap();
    let said = |values: &[&[u8]]| {
        let headers: Vec<(String, Vec<u8>)> = values
            .iter()
            .map(|value| ("sent".to_owned(), value.to_vec()))
            .chain([("Sent".to_owned(), b"1".to_vec())])
            .collect();
        let recorded = Recorded {
            at: Some(Timestamp(7)),
            headers: &headers,
            ..Recorded::default()
        };
        let clocks = of_topic.clocks().iter();
        let times: Vec<_> = clocks
            .map(|clock| (&*clock.name, clock.read(&event, recorded).map(|at| at.0)))
            .collect();
        let mut verdicts = Vec::new();
        of_topic.select(&event, recorded, &mut |verdict| {
            verdicts.push(match verdict {
                Verdict::Wanted { at, .. } => Ok(at.0),
                Verdict::Timeless { why, .. } => Err(why.to_string()),
                Verdict::Unkeyed { .. } => panic!("it has no key"),
            });
        });
        assert_eq!(times[1], ("sent", Some(3)));
        assert_eq!(verdicts[1], Ok(3));
        assert_eq!(verdicts[0], verdicts[2]);
        assert_eq!((times.len(), times[0].0), (2, ".sent"));
        assert_eq!(times[0].1, verdicts[0].as_ref().ok().copied());
        verdicts.swap_remove(0)
    };
    assert_eq!(said(&[b"12"]), Ok(12));
    assert_eq!(said(&[b"12.9"]), Ok(12));
    assert_eq!(said(&[b"-1"]), Ok(-1));
    assert_eq!(said(&[b"1970-01-01T00:00:01Z"]), Ok(1_000));
    assert_eq!(said(&[b"12", b"13"]), Ok(13), "the last counts");
    for (values, found) in [
        (&[][..], "`sent` of event time is missing;"),
        (&[&b""[..]], "is \"\";"),
        (&[b"soon"], "is \"soon\";"),
        (&[b"true"], "is \"true\";"),
        (&[b"\"12\""], "is \"\\\"12\\\"\";"),
        (&[&[0xff]], "is not UTF-8;"),
    ] {
        let why = said(values).expect_err("no time");
        assert!(why.contains(found), "{why}");
    }
}

/// What is refused for one rule moves no watermark of it, and another may allow more.
#[test]
fn an_event_that_is_too_far_ahead_of_its_record_says_nothing_about_time() {
    let filter = Filter::new(&[
        rule("name: usual\ntime: {field: sent}\nmatch: {any: [{id: a, topic: t}]}"),
        rule("name: strict\ntime: {field: sent, max_ahead: 5s}\nmatch: {any: [{id: a, topic: t}]}"),
        rule("name: own\ntime: {max_ahead: 0s}\nmatch: {any: [{id: a, topic: t}]}"),
    ]);
    let of_topic = filter.topic("t").expect("read");
    let names: Vec<&str> = of_topic.clocks().iter().map(|it| &*it.name).collect();
    assert_eq!(names, ["sent", "sent +5000", " +0"]);
    let day = Time::MAX_AHEAD.0 as i64;
    let taken = |sent: i64, at: i64, written: Option<i64>| {
        let event = Json::from_text(&format!("{{\"sent\":{sent}}}")).unwrap();
        let recorded = Recorded {
            at: Some(Timestamp(at)),
            written: written.map(Timestamp),
            headers: &[],
        };
        let mut taken = Vec::new();
        of_topic.select(&event, recorded, &mut |verdict| {
            taken.push(match verdict {
                Verdict::Wanted { .. } => true,
                Verdict::Timeless { why, .. } => {
                    assert_eq!(why.class(), "event_time_ahead");
                    false
                }
                Verdict::Unkeyed { .. } => panic!("it has no key"),
            });
        });
        let clocks = of_topic.clocks().iter();
        let told: Vec<bool> = clocks
            .map(|it| it.read(&event, recorded).is_some())
            .collect();
        assert_eq!(told, taken);
        taken
    };
    assert_eq!(taken(1_000, 1_000, Some(1_000)), [true, true, true]);
    assert_eq!(taken(6_000, 1_000, Some(1_000)), [true, true, true]);
    assert_eq!(taken(6_001, 1_001, Some(1_000)), [true, false, false]);
    assert_eq!(taken(day, 0, Some(0)), [true, false, true]);
    assert_eq!(taken(day + 1, 0, Some(0)), [false, false, true]);
    assert_eq!(taken(i64::MAX, 0, Some(0)), [false, false, true]);
    assert_eq!(taken(i64::MIN, -day, Some(day)), [true, true, true]);
    assert_eq!(taken(i64::MAX, i64::MAX, None), [true, true, true]);
}

/// A thousand rules that ask for other values are never looked at.
#[test]
fn an_event_is_shown_to_those_alone_that_ask_for_its_value() {
    let rules: Vec<Arc<Rule>> = (0..1_000)
        .map(|number| {
            rule(&format!(
                "name: r{number}\nmatch: {{any: [{{id: a, topic: t, where: \"event.n > 0 && event.kind == 'k{number}'\"}}]}}"
            ))
        })
        .collect();
    let filter = Filter::new(&rules);
    let of_topic = filter.topic("t").expect("read");
    assert!(of_topic.always.is_empty());
    assert_eq!(of_topic.by_value.len(), 1);
    assert_eq!(of_topic.by_value[0].by_text.len(), 1_000);
    assert_eq!(
        selected(&filter, "t", r#"{"kind":"k77","n":1}"#),
        ["r77: [] 7"]
    );
    assert!(selected(&filter, "t", r#"{"kind":"k77","n":0}"#).is_empty());
}

/// Whoever is found by value is found by asking everybody, and the other way round.
#[test]
fn the_index_changes_nothing() {
    let conditions = [
        "event.a == 1",
        "event.a == 1.0 || event.b == 'x'",
        "1 == event.a && event.b != 'x'",
        "event.b in ['x', 'y'] && event.c",
        "event.b == 'x' && event.b == 'y'",
        "event.a == null",
        "has(event.c) && event.a == 2",
        "!(event.a == 1)",
        "event.b == event.a",
        "event.b.startsWith('x')",
    ];
    let rules: Vec<Arc<Rule>> = (0..)
        .zip(conditions)
        .map(|(number, condition)| {
            rule(&format!(
                "name: r{number}\nmatch: {{any: [{{id: a, topic: t, where: \"{condition}\"}}]}}"
            ))
        })
        .collect();
    let filter = Filter::new(&rules);
    let mut asking_everybody = Filter::new(&rules);
    let of_topic = asking_everybody.topics.get_mut("t").expect("read");
    of_topic.by_value.clear();
    of_topic.always = (0..).take(conditions.len()).collect();
    let values = [
        "1", "1.0", "2", "null", "\"x\"", "\"y\"", "true", "[1]", "{}",
    ];
    let members = |name: &str| {
        let mut members: Vec<String> = values
            .iter()
            .map(|value| format!("\"{name}\":{value},"))
            .collect();
        members.push(String::new());
        members
    };
    let mut wanted = 0;
    for (a, b, c) in members("a")
        .iter()
        .flat_map(|a| members("b").into_iter().map(move |b| (a.clone(), b)))
        .flat_map(|(a, b)| {
            members("c")
                .into_iter()
                .map(move |c| (a.clone(), b.clone(), c))
        })
    {
        let event = format!("{{{a}{b}{c}\"d\":0}}");
        let found = selected(&filter, "t", &event);
        assert_eq!(found, selected(&asking_everybody, "t", &event), "{event}");
        wanted += found.len();
    }
    assert!(wanted > 1_000, "{wanted}");
}
