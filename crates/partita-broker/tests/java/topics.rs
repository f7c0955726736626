use crate::support::{Broker, Tool, assert_has, assert_refused, has_java};

#[test]
fn topics_live_from_creation_to_deletion() {
    if !has_java("kafka-topics") {
        return;
    }
    let broker = Broker::start();
    let said = broker.ask(
        Tool::Topics,
        &[
            "--create",
            "--topic",
            "t",
            "--partitions",
            "3",
            "--config",
            "retention.ms=100000",
        ],
    );
    assert_has(&said, &["Created topic t"]);
    let again = broker.run(Tool::Topics, &["--create", "--topic", "t"]);
    assert_refused(&again, &["already exists"]);
    let said = broker.ask(Tool::Topics, &["--describe", "--topic", "t"]);
    assert_has(
        &said,
        &[
            "PartitionCount: 3",
            "ReplicationFactor: 1",
            "retention.ms=100000",
            "Leader: 1",
        ],
    );
    broker.ask(
        Tool::Topics,
        &["--alter", "--topic", "t", "--partitions", "5"],
    );
    let fewer = broker.run(
        Tool::Topics,
        &["--alter", "--topic", "t", "--partitions", "2"],
    );
    assert_refused(&fewer, &["it can only have more"]);
    let said = broker.ask(Tool::Topics, &["--describe", "--topic", "t"]);
    assert_has(&said, &["PartitionCount: 5"]);
    // The tool asks for pages of partitions, which together are all of them.
    let paged = ["--describe", "--partition-size-limit-per-response", "2"];
    let said = broker.ask(Tool::Topics, &paged);
    assert_has(&said, &["PartitionCount: 5"]);
    for partition in 0..5 {
        assert_has(&said, &[&format!("Partition: {partition}\t")]);
    }
    broker.ask(Tool::Topics, &["--delete", "--topic", "t"]);
    assert_eq!(broker.ask(Tool::Topics, &["--list"]).trim(), "");
}

#[test]
fn settings_are_shown_with_their_origin_and_changed() {
    if !has_java("kafka-configs") {
        return;
    }
    let broker = Broker::start();
    broker.ask(Tool::Topics, &["--create", "--topic", "t"]);
    let topic = ["--entity-type", "topics", "--entity-name", "t"];
    let alter = |change: &[&str]| {
        let arguments = [&["--alter"], &topic[..], change].concat();
        broker.run(Tool::Configs, &arguments)
    };
    let describe = |more: &[&str]| {
        let arguments = [&["--describe"], &topic[..], more].concat();
        broker.ask(Tool::Configs, &arguments)
    };
    alter(&[
        "--add-config",
        "cleanup.policy=[compact,delete],segment.ms=1000",
    ])
    .expect_success();
    let said = describe(&[]);
    assert_has(
        &said,
        &[
            "cleanup.policy=compact,delete",
            "DYNAMIC_TOPIC_CONFIG:segment.ms=1000",
            "DEFAULT_CONFIG:segment.ms=604800000",
        ],
    );
    assert!(
        !said.contains("retention.bytes"),
        "defaults are not shown:\n{said}"
    );
    assert_has(
        &describe(&["--all"]),
        &["retention.bytes=-1", "max.message.bytes=1048588"],
    );
    alter(&["--delete-config", "segment.ms"]).expect_success();
    assert!(!describe(&[]).contains("segment.ms"));
    assert_refused(
        &alter(&["--add-config", "retention.ms=soon"]),
        &["whole number"],
    );
    assert_refused(&alter(&["--add-config", "no.such=1"]), &["no.such"]);
    let node = [
        "--describe",
        "--entity-type",
        "brokers",
        "--entity-name",
        "1",
        "--all",
    ];
    assert_has(
        &broker.ask(Tool::Configs, &node),
        &["message.max.bytes=1048588", "broker.id=1"],
    );
    let node = [
        "--alter",
        "--entity-type",
        "brokers",
        "--entity-name",
        "1",
        "--add-config",
        "num.partitions=3",
    ];
    assert_refused(&broker.run(Tool::Configs, &node), &["fixed when it starts"]);
}

#[test]
fn records_are_counted_and_deleted() {
    if !has_java("kafka-get-offsets, kafka-delete-records, kafka-log-dirs, kafka-cluster") {
        return;
    }
    let broker = Broker::start();
    broker.ask(Tool::Topics, &["--create", "--topic", "t"]);
    broker.produce("t", (0..10).map(|n| (n.to_string(), "value".to_owned())));
    let offsets = |time: &str| {
        let said = broker.ask(Tool::GetOffsets, &["--topic", "t", "--time", time]);
        said.trim().to_owned()
    };
    assert_eq!(
        (offsets("earliest"), offsets("latest")),
        ("t:0:0".into(), "t:0:10".into())
    );
    let file = broker.folder("delete.json");
    std::fs::write(
        &file,
        r#"{"partitions":[{"topic":"t","partition":0,"offset":4}],"version":1}"#,
    )
    .expect("the file is written");
    let said = broker.ask(
        Tool::DeleteRecords,
        &["--offset-json-file", &file.to_string_lossy()],
    );
    assert_has(&said, &["low_watermark: 4"]);
    assert_eq!(offsets("earliest"), "t:0:4");
    let said = broker.ask(Tool::LogDirs, &["--describe", "--topic-list", "t"]);
    assert_has(&said, &[r#""partition":"t-0""#, r#""error":null"#]);
    assert_has(
        &broker.ask(Tool::Cluster, &["cluster-id"]),
        &["Cluster ID: "],
    );
    let said = broker.ask(Tool::ApiVersions, &[]);
    assert_has(&said, &["Produce(0): 3 to ", "JoinGroup(11): 0 to 9"]);
}
