//! The harness itself: a node starts, serves Kafka's own tools, and comes back with its data.

use kafka_harness::{Kafka, tool_with_input};

const TOPICS: &str = "org.apache.kafka.tools.TopicCommand";
const PRODUCE: &str = "org.apache.kafka.tools.ConsoleProducer";
const CONSUME: &str = "org.apache.kafka.tools.consumer.ConsoleConsumer";

#[test]
fn a_node_keeps_its_data_over_a_crash_and_a_restart() {
    let Some(mut kafka) = Kafka::start_or_skip("the Apache Kafka harness itself") else {
        return;
    };
    let bootstrap = kafka.bootstrap();
    let first_pid = kafka.pid().expect("a started node has a process");

    let create = [
        "--bootstrap-server",
        &bootstrap,
        "--create",
        "--topic",
        "kept",
    ];
    Kafka::tool(TOPICS, &create).expect_success();
    let produce = ["--bootstrap-server", &bootstrap, "--topic", "kept"];
    tool_with_input(PRODUCE, &produce, "one\ntwo\n").expect_success();

    kafka.kill9();
    assert_eq!(kafka.pid(), None);
    kafka.restart();
    assert_eq!(kafka.bootstrap(), bootstrap);
    assert_ne!(kafka.pid(), Some(first_pid));

    let list = ["--bootstrap-server", &bootstrap, "--list"];
    let listed = Kafka::tool(TOPICS, &list).expect_success();
    assert!(listed.lines().any(|topic| topic == "kept"), "{listed}");
    let mut consume = produce.to_vec();
    consume.extend([
        "--from-beginning",
        "--max-messages",
        "2",
        "--timeout-ms",
        "60000",
    ]);
    assert_eq!(
        Kafka::tool(CONSUME, &consume).expect_success(),
        "one\ntwo\n"
    );

    kafka.stop();
    assert_eq!(kafka.pid(), None);
}

#[cfg(target_os = "linux")]
#[test]
fn a_node_for_measurements_has_the_heap_that_kafka_ships_with() {
    let kafka = match Kafka::start_as_shipped() {
        Ok(kafka) => kafka,
        Err(why) => {
            kafka_harness::missing("the node for measurements", &why);
            return;
        }
    };
    let pid = kafka.pid().expect("a started node has a process");
    let arguments = std::fs::read(format!("/proc/{pid}/cmdline")).expect("the node runs");
    let arguments = String::from_utf8_lossy(&arguments);
    let heap: Vec<&str> = arguments
        .split('\0')
        .filter(|argument| argument.starts_with("-Xm"))
        .collect();
    assert_eq!(heap, ["-Xms1G", "-Xmx1G"]);
}

#[test]
fn a_tool_that_fails_says_so() {
    if let Err(why) = Kafka::jars() {
        kafka_harness::missing("how the harness reports a failing tool", &why);
        return;
    }
    let output = Kafka::tool(TOPICS, &["--no-such-option"]);
    assert!(!output.status.success());
    assert!(
        output.stderr.contains("no-such-option"),
        "{}",
        output.stderr
    );
}
