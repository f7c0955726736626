//! Payloads as any client of Kafka may send them: what no tree holds, line breaks, what steers a terminal.

use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use serde_json::value::RawValue;

use crate::dev::Dev;
use crate::folder;
use crate::server::Server;

const WITHIN: Duration = Duration::from_secs(120);
const WORKFLOW: &str = "kind: workflow\nname: odd\nsteps:\n  - {id: a, agent: nobody}\n";
const OUTPUT: &str = "{\r\n\"a\":\r1e400,\n\n\"b\" : \"\\ud800\"}";

fn send(dev: &Dev, topic: &str, record: &str) {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &dev.kafka);
    let producer: BaseProducer = config.create().expect("a producer");
    let record = BaseRecord::to(topic).key("deep").payload(record);
    producer
        .send(record)
        .map_err(|(error, _)| error)
        .expect("it is taken");
    producer.flush(WITHIN).expect("it is delivered");
}

fn until_shown(dev: &Dev, words: &str) -> String {
    let deadline = Instant::now() + WITHIN;
    loop {
        let shown = dev.run(&["status", "deep"]);
        if shown.code == 0 && shown.stdout.contains(words) {
            return shown.stdout;
        }
        assert!(
            Instant::now() < deadline,
            "{}{}",
            shown.stdout,
            shown.stderr
        );
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[test]
fn payloads_that_no_tree_holds_are_in_nobodys_way() {
    let files = folder(&[("odd.yaml", WORKFLOW)]);
    let dev = Dev::start_with(&["--memory"], &[]);
    dev.run(&["apply", files.path().to_str().expect("a path")])
        .code(0);
    let input = format!("{}\n{}", "[".repeat(5_000), "]".repeat(5_000));
    let start = r#"{"type":"start","run_id":"deep","workflow":"odd","input":"#;
    send(&dev, "partita.commands", &format!("{start}{input}}}"));
    until_shown(&dev, "scheduled");
    let reply = r#"{"run_id":"deep","step_id":"a","status":"completed","output":"#;
    send(&dev, "partita.replies", &format!("{reply}{OUTPUT}}}"));
    let shown = until_shown(&dev, "status    completed");
    assert!(
        shown.contains(r#"{"a":"1e400","b":"\"\\ud800\""}"#),
        "{shown}"
    );

    let listed = dev.run(&["list"]).code(0).stdout;
    assert!(listed.contains("deep  odd@1     completed"), "{listed}");
    let shown = dev.run(&["history", "deep"]).code(0).stdout;
    assert!(shown.contains(r#"output {"a":"1e400""#), "{shown}");
    let output = r#""output":{"a":1e400,"b":"\ud800"}"#;
    for verb in [&["status", "deep"][..], &["list"], &["history", "deep"]] {
        let told = dev.run(&[verb, &["--json"]].concat()).code(0).stdout;
        assert!(told.contains(output), "{told}");
        assert_eq!(told.lines().count(), 1, "{told}");
        let refused = dev.run(&[verb, &["-o", "yaml"]].concat()).code(1);
        assert_eq!(refused.stdout, "");
        assert!(refused.stderr.contains("as YAML"), "{}", refused.stderr);
    }
    let followed = dev.run(&["history", "deep", "--follow", "--json"]).code(0);
    for line in followed.stdout.split_inclusive('\n') {
        let event = line.strip_suffix('\n').expect("a whole line");
        assert!(!event.contains('\r'), "{event}");
        serde_json::from_str::<&RawValue>(event).expect("an event a line");
    }
    assert!(followed.stdout.contains(output), "{}", followed.stdout);
    dev.run(&["history", "deep", "--follow", "-o", "yaml"])
        .code(1);
}

const FAILED: &str = r#"{"id":"f1","workflow":"w","version":1,"status":"failed","progress":0,"output":null,"error":{"class":"x\u001b[2J","message":"a\r\nb\u009b1m\u202e","step":"s"},"tags":{"t":"\u0007"},"created_at":"2026-11-21T06:00:00.000Z","waiting_for":[],"steps":[{"id":"s","status":"failed","agent":"a","attempt":1,"output":null,"error":{"class":"x\u001b[2J","message":"a\r\nb"}}]}"#;
const EVENTS: &str = r#"{"events":[{"type":"partita.step.failed","sequence":"0001","time":"t","data":{"error":{"class":"x\u001b[2J","message":"a\r\nb"}}}],"complete":true}"#;
const STREAM: &str = "id: f1/1\ndata: {\"type\":\"partita.run.failed\",\rdata: \"sequence\":\"1\",\"data\":{\"error\":{\"class\":\"x\\u001b[2J\",\"message\":\"\\n\"}}}\r\r";

#[test]
fn agents_do_not_write_to_the_terminal() {
    let server = Server::answering(&[
        ("POST /v1/runs", 201, FAILED),
        ("GET /v1/runs/f1", 200, FAILED),
        ("GET /v1/runs/f1/events", 200, EVENTS),
        ("GET /v1/runs/f2/events", 200, STREAM),
        (
            "GET /v1/runs?limit=50",
            200,
            r#"{"runs":[{"id":"a\u001b"}],"next_cursor":null}"#,
        ),
    ]);
    for (verb, code, words) in [
        (
            &["status", "f1"][..],
            0,
            r"error     x\u{1b}[2J: a\r\nb\u{9b}1m\u{202e} (step s)",
        ),
        (&["status", "f1"], 0, r"tags      t=\u{7}"),
        (
            &["run", "w", "--id", "f1", "--wait"],
            1,
            r"run f1 failed: x\u{1b}[2J: a\r\nb",
        ),
        (&["history", "f1"], 0, r"x\u{1b}[2J: a\r\nb"),
        (&["history", "f2", "--follow"], 0, r"x\u{1b}[2J: \n"),
        (&["list"], 0, r"a\u{1b}"),
    ] {
        let ended = server.run(verb).code(code);
        let all = ended.stdout + &ended.stderr;
        assert!(all.contains(words), "{all:?}");
        let odd = |character: char| character.is_control() && character != '\n';
        assert!(!all.contains(odd), "{all:?}");
    }
    let told = server.run(&["history", "f2", "--follow", "--json"]).code(0);
    assert_eq!(told.stdout.lines().count(), 1, "{}", told.stdout);
}
