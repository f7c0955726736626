//! What needs no server: usage, configuration, definitions, and servers that are not there.

use crate::{folder, partita, run};

const GOOD: &str = "kind: workflow\nname: good\nsteps:\n  - {id: a, agent: echo}\n  - {id: b, agent: echo, depends_on: [a]}\n";
const BAD: &str = "kind: workflow\nname: bad\nsteps:\n  - id: a\n    agnet: echo\n";
/// A port that nothing listens on.
const NOWHERE: &str = "127.0.0.1:1";

#[test]
fn help_and_version_are_no_errors() {
    let help = run(&["--help"]).code(0);
    for verb in [
        "demo", "dev", "serve", "topics", "validate", "apply", "get", "delete", "run", "status",
        "list", "history",
    ] {
        assert!(
            help.stdout.contains(verb),
            "{verb} is missing from:\n{}",
            help.stdout
        );
    }
    for verb in [
        "pause",
        "resume",
        "cancel",
        "signal",
        "bench",
        "doctor",
        "completions",
        "version",
    ] {
        assert!(
            help.stdout.contains(verb),
            "{verb} is missing from:\n{}",
            help.stdout
        );
    }
    assert!(!help.stdout.contains("bench-bare-loop"));
    assert!(run(&["version", "--json"]).code(0).json()["version"].is_string());
    assert!(
        run(&["completions", "bash"])
            .code(0)
            .stdout
            .contains("_partita")
    );
}

#[test]
fn wrong_usage_is_2() {
    run(&[]).code(2);
    run(&["frobnicate"]).code(2);
    run(&["status"]).code(2);
    run(&["list", "--status", "asleep"]).code(2);
    run(&["run", "w", "--wait", "soon"]).code(2);
    run(&["dev", "--memory", "--data", "x"]).code(2);
    let ended = run(&["run", "w", "--input", "{not json"]).code(2);
    assert!(
        ended.stderr.contains("--input: not JSON"),
        "{}",
        ended.stderr
    );
    for verb in [&["run", "w"][..], &["list"]] {
        let twice = ["--tag", "k=1", "--tag", "k=2"];
        let ended = run(&[verb, &twice].concat()).code(2);
        assert!(
            ended.stderr.contains("the tag `k` is given twice"),
            "{}",
            ended.stderr
        );
    }
    let ended = run(&["list", "--tag", "a:b=c"]).code(2);
    assert!(
        ended.stderr.contains("`a:b` has a colon"),
        "{}",
        ended.stderr
    );
    let ended = run(&["--api", "nonsense", "list"]).code(2);
    assert!(ended.stderr.contains("flag --api"), "{}", ended.stderr);
}

#[test]
fn a_faulty_configuration_is_2_and_says_where() {
    let folder = folder(&[("p.yaml", "kafka:\n  broker: a:1\n")]);
    let file = folder.path().join("p.yaml");
    let ended = run(&["--config", file.to_str().unwrap(), "list"]).code(2);
    assert!(
        ended
            .stderr
            .contains("p.yaml:2:3: unknown key `kafka.broker`; did you mean `brokers`?"),
        "{}",
        ended.stderr
    );
    let ended = partita(&["list"])
        .env("PARTITA_RUNTIME__WORKERS", "0")
        .output()
        .map(crate::ended)
        .unwrap()
        .code(2);
    assert!(
        ended
            .stderr
            .contains("environment variable PARTITA_RUNTIME__WORKERS"),
        "{}",
        ended.stderr
    );
}

#[test]
fn validate_tells_good_from_bad() {
    let folder = folder(&[("good.yaml", GOOD)]);
    let path = folder.path().to_str().unwrap();
    let ended = run(&["validate", path]).code(0);
    assert!(
        ended.stdout.contains("workflow good@1 ok"),
        "{}",
        ended.stdout
    );

    std::fs::write(folder.path().join("bad.yaml"), BAD).unwrap();
    let ended = run(&["validate", path]).code(2);
    assert!(ended.stderr.contains("bad.yaml:5:5"), "{}", ended.stderr);
    assert!(ended.stderr.contains("agent"), "{}", ended.stderr);
    let told = run(&["validate", path, "-o", "json"]).code(2).json();
    assert_eq!(told["valid"], false);
    assert!(
        told["violations"]
            .as_array()
            .unwrap()
            .iter()
            .any(|one| one["line"] == 5 && one["column"] == 5)
    );
    assert_eq!(told["definitions"][0]["name"], "good");

    run(&["validate", "/no/such/file.yaml"]).code(2);
}

#[test]
fn a_server_that_is_not_there_is_3() {
    let url = format!("http://{NOWHERE}");
    for verb in [
        &["status", "x"][..],
        &["list"],
        &["run", "w"],
        &["pause", "x"],
        &["get", "workflow"],
        &["history", "x", "--follow"],
    ] {
        let mut arguments = vec!["--api", &url];
        arguments.extend(verb);
        let ended = run(&arguments).code(3);
        assert!(
            ended.stderr.contains("cannot reach the API"),
            "{verb:?}: {}",
            ended.stderr
        );
        assert!(ended.stdout.is_empty(), "{verb:?}: {}", ended.stdout);
    }
    let ended = partita(&["list"])
        .env("PARTITA_API", &url)
        .output()
        .map(crate::ended)
        .unwrap()
        .code(3);
    assert!(ended.stderr.contains(&url), "{}", ended.stderr);
}

#[test]
fn a_broker_that_is_not_there_is_3() {
    let ended = run(&["--kafka", NOWHERE, "topics", "list"]).code(3);
    assert!(
        ended.stderr.contains("cannot reach Kafka at 127.0.0.1:1"),
        "{}",
        ended.stderr
    );
    let rule = "kind: rule\nname: r\nmatch: {any: [{id: a, topic: t}]}\n";
    let folder = folder(&[("rule.yaml", rule)]);
    let rule = folder.path().join("rule.yaml").display().to_string();
    let backtest = ["--kafka", NOWHERE, "rules", "backtest", &rule, "--from"];
    let ended = run(&[&backtest[..], &["-1h"]].concat()).code(3);
    assert!(
        ended.stderr.contains("name the brokers with --kafka"),
        "{}",
        ended.stderr
    );
    let ended = run(&[&backtest[..], &["yesterday"]].concat()).code(2);
    assert!(
        ended.stderr.contains("`yesterday` is no time"),
        "{}",
        ended.stderr
    );
}

#[test]
fn doctor_names_every_fault_with_its_remedy() {
    let url = format!("http://{NOWHERE}");
    let ended = run(&["--kafka", NOWHERE, "--api", &url, "doctor", "--json"]).code(1);
    let told = ended.json();
    assert_eq!(told["ok"], false);
    let of = |what: &str| {
        told["checks"]
            .as_array()
            .unwrap()
            .iter()
            .find(|check| check["check"] == what)
            .cloned()
            .unwrap()
    };
    assert_eq!(of("configuration")["ok"], true);
    assert_eq!(of("data folder")["ok"], true);
    assert!(of("kafka")["remedy"].as_str().unwrap().contains("--kafka"));
    assert!(
        of("api")["remedy"]
            .as_str()
            .unwrap()
            .contains("partita serve")
    );
}

#[test]
fn a_file_that_is_no_text_hides_nothing_of_the_others() {
    let folder = folder(&[("bad.yaml", BAD)]);
    std::fs::write(
        folder.path().join("binary.yaml"),
        b"kind: workflow\nname: \xff\n",
    )
    .unwrap();
    let path = folder.path().to_str().unwrap();
    let ended = run(&["validate", path]).code(2);
    assert!(ended.stderr.contains("bad.yaml:5:5"), "{}", ended.stderr);
    assert!(
        ended.stderr.contains("binary.yaml:2:7: from here on"),
        "{}",
        ended.stderr
    );
    let told = run(&["validate", path, "--json"]).code(2).json();
    assert_eq!(told["violations"][2]["line"], 2, "{told}");
}

/// Standard output that takes nothing, as on a full disk.
fn full() -> std::process::Stdio {
    let file = std::fs::OpenOptions::new().write(true).open("/dev/full");
    file.expect("/dev/full").into()
}

#[test]
fn output_that_does_not_arrive_is_an_error() {
    for arguments in [&["version"][..], &["completions", "zsh"]] {
        let ended = partita(arguments)
            .stdout(full())
            .output()
            .map(crate::ended)
            .unwrap()
            .code(1);
        assert!(
            ended.stderr.contains("cannot write to stdout"),
            "{}",
            ended.stderr
        );
    }
}

#[test]
fn nobody_has_to_read_what_is_said() {
    let ended = partita(&["validate", "/no/such/file.yaml"])
        .stderr(full())
        .output()
        .map(crate::ended)
        .unwrap();
    ended.code(2);
}

#[test]
fn a_rule_is_tried_over_a_file_of_events() {
    let rule = "kind: rule\nname: pair\ntime: {field: t}\nmatch:\n  sequence:\n    within: 1s\n    steps:\n      - {id: a, topic: x, where: \"event.k == 'a'\"}\n      - {id: b, topic: x, where: \"event.k == 'b'\"}\nstart: {workflow: w, input: {k: \"${matches.b[0].k}\"}}\n";
    let events = "{\"k\":\"a\",\"t\":1000}\n\n{\"topic\":\"x\",\"ts\":1,\"payload\":\"{\\\"k\\\":\\\"b\\\",\\\"t\\\":1999}\"}\n{\"k\":\"a\",\"t\":5000}\n{\"k\":\"b\",\"t\":4000}\n";
    let folder = folder(&[("rule.yaml", rule), ("events.jsonl", events)]);
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (rule, events) = (path("rule.yaml"), path("events.jsonl"));
    let ended = run(&["rules", "test", &rule, "--events", &events, "--json"]).code(0);
    let expected = serde_json::json!({
        "matches": [{
            "rule": "pair", "key": {}, "at": "1970-01-01T00:00:01.999Z",
            "events": {"a": [1], "b": [3]}, "start": {"workflow": "w", "input": {"k": "b"}},
        }],
        "late": [5],
        "timed_out": [{"at": "1970-01-01T00:00:06.000Z", "events": {"a": [4]}}],
    });
    assert_eq!(ended.json(), expected);

    let until = ["--advance-to", "1970-01-01T00:00:05.999Z"];
    let arguments = ["rules", "test", &rule, "--events", &events, "--json"];
    let ended = run(&[&arguments[..], &until[..]].concat()).code(0);
    assert_eq!(ended.json()["timed_out"], serde_json::json!([]));

    std::fs::write(&events, "{\"k\":\"a\"\n").expect("the folder is ours");
    let ended = run(&arguments).code(2);
    assert!(
        ended.stderr.contains("line 1: this is no JSON"),
        "{}",
        ended.stderr
    );
}

/// What no condition asks for is neither late nor without a key, and moves time all the same; what would be a
/// dead letter is told of, and the rest goes on.
#[test]
fn a_line_is_read_as_the_intake_reads_a_record() {
    let rule = |name: &str, time: &str| {
        format!(
            "kind: rule\nname: {name}\ntopic: x\ncorrelate: [u]\n{time}match: {{any: [{{id: a, where: \"event.k == 'a'\"}}]}}\n"
        )
    };
    let rules = [rule("field", "time: {field: t}\n"), rule("record", "")].join("---\n");
    let record = |ts: u32, headers: &str, payload: &str| {
        format!("{{\"topic\":\"x\",\"ts\":{ts},\"headers\":{headers},\"payload\":{payload}}}")
    };
    let events = [
        record(10_000, "[]", r#"{"k":"a","u":1,"t":10000}"#),
        record(1, "[]", r#"{"k":"x","t":1}"#),
        record(20_000, "[]", r#"{"k":"x","t":20000}"#),
        record(15_000, "[]", r#"{"k":"a","u":1,"t":15000}"#),
        record(20_000, "[]", r#"{"k":"a","t":20000}"#),
        record(20_000, "[]", r#"{"k":"a","u":1}"#),
        record(20_000, "[]", r#"{"k":"x"}"#),
        record(20_000, "[]", r#""[1""#),
        record(20_000, "[]", "[1]"),
        record(20_000, "[]", "null"),
        record(
            20_001,
            r#"["ce_time","1970-01-01T00:00:30Z"]"#,
            r#"{"k":"a","u":1,"t":20001}"#,
        ),
        record(
            20_002,
            r#"["ce_type","t","ce_time","1970-01-01T00:00:30Z"]"#,
            r#"{"k":"a","u":1,"t":20002}"#,
        ),
    ]
    .join("\n");
    let folder = folder(&[("rules.yaml", &rules), ("events.jsonl", &events)]);
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (rules, events) = (path("rules.yaml"), path("events.jsonl"));
    let arguments = ["rules", "test", &rules, "--events", &events];
    let told = run(&[&arguments[..], &["--json"]].concat()).code(0).json();
    let matches: Vec<String> = told["matches"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|found| format!("{} {} {}", found["rule"], found["events"]["a"], found["at"]))
        .collect();
    assert_eq!(
        matches,
        [
            "\"field\" [1] \"1970-01-01T00:00:10.000Z\"",
            "\"field\" [11] \"1970-01-01T00:00:20.001Z\"",
            "\"field\" [12] \"1970-01-01T00:00:20.002Z\"",
            "\"record\" [1] \"1970-01-01T00:00:10.000Z\"",
            "\"record\" [6] \"1970-01-01T00:00:20.000Z\"",
            "\"record\" [11] \"1970-01-01T00:00:20.001Z\"",
            "\"record\" [12] \"1970-01-01T00:00:30.000Z\"",
        ]
    );
    assert_eq!(told["late"], serde_json::json!([4, 4]));
    assert_eq!(told["unkeyed"], serde_json::json!([5, 5]));
    let unreadable = serde_json::json!({"count": 3, "first": [
        {
            "record": 6,
            "class": "no_event_time",
            "message": "rule field@1: the field of event time is missing; it is a number of milliseconds since 1970 or a string in RFC 3339",
        },
        {
            "record": 8,
            "class": "malformed",
            "message": "the value is no JSON: EOF while parsing a list at line 1 column 2",
        },
        {"record": 9, "class": "malformed", "message": "an event is a JSON object, and this is a list"},
    ]});
    assert_eq!(told["unreadable"], unreadable);
    let told = run(&arguments).code(0).stderr;
    for line in [
        "2 events have no usable key",
        "3 lines are unreadable",
        "line 8: malformed: the value is no JSON",
    ] {
        assert!(told.contains(line), "{line}: {told}");
    }
}

#[test]
fn who_misses_a_match_is_told_what_was_in_its_way() {
    let rule = "kind: rule\nname: pair\ncorrelate: [u]\ntopic: x\ntime: {field: t}\nmatch:\n  sequence:\n    within: 1s\n    steps:\n      - {id: a, where: \"event.v > 0\"}\n      - {id: b, where: \"event.v < 0\"}\nlimits: {max_partials: 1}\n";
    let events = "{\"u\":1,\"v\":1,\"t\":1}\n{\"u\":2,\"v\":1,\"t\":2}\n{\"u\":2,\"t\":3}\n{\"v\":1,\"t\":4}\n";
    let folder = folder(&[("rule.yaml", rule), ("events.jsonl", events)]);
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (rule, events) = (path("rule.yaml"), path("events.jsonl"));
    let told = run(&["rules", "test", &rule, "--events", &events])
        .code(0)
        .stderr;
    for line in [
        "0 matches, 0 late events, 1 partial matches timed out",
        "1 events have no usable key",
        "2 conditions have no answer",
        "the limit max_partials is met: 1 given up",
    ] {
        assert!(told.contains(line), "{line}: {told}");
    }
}

/// As at run time: a rule does not get what it caused itself, in any version, and others do.
#[test]
fn a_rule_is_tried_without_the_events_that_it_caused() {
    let rule = |name: &str| {
        format!(
            "kind: rule\nname: {name}\nmatch: {{any: [{{id: a, topic: partita.events, where: \"event.n > 0\"}}]}}\n"
        )
    };
    let rules = [rule("one"), rule("two")].join("---\n");
    let event = |n: u32, author: &str| {
        let author = match author {
            "" => String::new(),
            author => format!("\"partitarule\":\"{author}\",\"partitadepth\":1,"),
        };
        format!(
            "{{\"specversion\":\"1.0\",\"type\":\"t\",\"time\":\"2026-01-31T12:00:00Z\",{author}\"data\":{{\"n\":{n}}}}}"
        )
    };
    let headers = "[\"ce_type\",\"t\",\"ce_partitarule\",\"one@2\"]";
    let events = [
        event(1, ""),
        event(2, "one@1"),
        event(3, "two@3"),
        format!(
            "{{\"topic\":\"partita.events\",\"ts\":1769860800000,\"headers\":{headers},\"payload\":{{\"n\":4}}}}"
        ),
        event(5, "one"),
    ]
    .join("\n");
    let folder = folder(&[("rules.yaml", &rules), ("events.jsonl", &events)]);
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (rules, events) = (path("rules.yaml"), path("events.jsonl"));
    let ended = run(&["rules", "test", &rules, "--events", &events, "--json"]).code(0);
    let found = ended.json();
    let of = |rule: &str| {
        let matches = found["matches"].as_array().expect("a list").iter();
        let of_rule = matches.filter(|found| found["rule"] == rule);
        let lines = of_rule.map(|found| found["events"]["a"][0].clone());
        serde_json::Value::Array(lines.collect())
    };
    assert_eq!(of("one"), serde_json::json!([1, 3, 5]));
    assert_eq!(of("two"), serde_json::json!([1, 2, 4, 5]));
    assert_eq!(found["own"], serde_json::json!([2, 4, 3]));
}

#[test]
fn two_versions_of_a_rule_are_compared_over_a_file() {
    let rule = |name: &str, condition: &str, most: u32| {
        format!(
            "kind: rule\nname: {name}\ncorrelate: {{by: [user]}}\ntime: {{field: t}}\nmatch: {{any: [{{id: {condition}, topic: x, where: \"event.n > {most}\"}}]}}\n"
        )
    };
    let window = |at_least: u32| {
        format!(
            "kind: rule\nname: busy\ntime: {{field: t}}\nmatch: {{window: {{id: w, topic: x, type: tumbling, size: 1s, aggregate: {{n: count}}, having: \"n >= {at_least}\"}}}}\n"
        )
    };
    let new = [
        rule("high", "new_name", 5),
        rule("more", "a", 100),
        window(2),
    ]
    .join("---\n");
    let old = [rule("high", "old_name", 7), rule("less", "a", 8), window(1)].join("---\n");
    let events: String = [(6, 1), (8, 2), (9, 3), (200, 1_500)]
        .iter()
        .map(|(n, t)| format!("{{\"user\":\"u\",\"n\":{n},\"t\":{t}}}\n"))
        .collect();
    let folder = folder(&[
        ("new.yaml", &new),
        ("old.yaml", &old),
        ("events.jsonl", &events),
    ]);
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (new, old, events) = (path("new.yaml"), path("old.yaml"), path("events.jsonl"));
    let arguments = [
        "rules",
        "test",
        &new,
        "--events",
        &events,
        "--against",
        &old,
    ];
    let found = run(&[&arguments[..], &["--json"]].concat()).code(0).json();
    let matches = |list: &serde_json::Value| -> Vec<String> {
        let list = list.as_array().expect("a list").iter();
        list.map(|found| format!("{} {}", found["rule"].as_str().unwrap(), found["events"]))
            .collect()
    };
    assert_eq!(
        matches(&found["matches"]),
        [
            "high {\"new_name\":[1]}",
            "high {\"new_name\":[2]}",
            "high {\"new_name\":[3]}",
            "high {\"new_name\":[4]}",
            "more {\"a\":[4]}",
            "busy {\"w\":[3]}",
        ]
    );
    assert_eq!(
        matches(&found["diff"]["added"]),
        ["high {\"new_name\":[1]}", "more {\"a\":[4]}"],
        "the name of a condition makes no difference"
    );
    assert_eq!(
        matches(&found["diff"]["removed"]),
        ["less {\"a\":[3]}", "less {\"a\":[4]}", "busy {\"w\":[4]}"]
    );
    assert_eq!(found["diff"]["unchanged"], 4, "{found}");

    let ended = run(&arguments).code(0);
    let lines: Vec<&str> = ended.stdout.lines().collect();
    assert!(
        lines[0].starts_with("CHANGE   RULE  KEY"),
        "{}",
        ended.stdout
    );
    assert!(
        lines[1].starts_with("added    high  {\"user\":\"u\"}"),
        "{}",
        ended.stdout
    );
    assert_eq!(lines.len(), 6, "{}", ended.stdout);
    assert!(
        ended
            .stderr
            .contains("2 matches added, 3 removed, 4 unchanged"),
        "{}",
        ended.stderr
    );
    let same = run(&[
        "rules",
        "test",
        &new,
        "--events",
        &events,
        "--against",
        &new,
        "--json",
    ]);
    let same = same.code(0).json();
    let none = serde_json::json!({"added": [], "removed": [], "unchanged": 6});
    assert_eq!(same["diff"], none);
}

#[test]
fn validate_reads_files_that_mix_kinds() {
    let folder = folder(&[]);
    let file = folder.path().join("mixed.yaml");
    let rule =
        "kind: rule\nname: storm\ntopic: t\nmatch: {any: [{id: a}]}\nstart: {workflow: good}\n";
    std::fs::write(&file, format!("{rule}---\n{GOOD}")).unwrap();
    let path = file.to_str().unwrap();
    let shown = run(&["validate", path]).code(0).stdout;
    assert!(
        shown.contains("rule storm@1") && shown.contains("workflow good@1"),
        "{shown}"
    );
    std::fs::write(
        &file,
        format!("{rule}---\n{}", rule.replace("match", "mtach")),
    )
    .unwrap();
    let ended = run(&["validate", path]).code(2);
    assert!(
        ended.stderr.contains("did you mean `match`?"),
        "{}",
        ended.stderr
    );
}

#[test]
fn agents_whose_topics_are_one_to_kafka_are_a_fault() {
    let text = "kind: workflow\nname: w\nsteps:\n  - {id: a, agent: mail.out}\n  - {id: b, agent: mail_out}\n";
    let folder = folder(&[("w.yaml", text)]);
    let path = folder.path().to_str().expect("a path");
    let told = run(&["validate", path]).code(2);
    let said = format!("{}{}", told.stdout, told.stderr);
    for words in [
        "w.yaml:5:",
        "`mail_out`",
        "`mail.out` on line 4",
        "another name",
    ] {
        assert!(said.contains(words), "{said}");
    }
}
