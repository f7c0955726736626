//! Payloads as any client of Kafka may send them: what no tree holds, line breaks.

use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use serde_json::value::RawValue;

use crate::dev::Dev;
use crate::folder;

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
