use crate::support::{Broker, Tool, assert_has, has_java};

const CODECS: [&str; 5] = ["none", "gzip", "snappy", "lz4", "zstd"];

#[test]
fn the_console_tools_speak_every_codec() {
    if !has_java("the console producer and consumer with every codec") {
        return;
    }
    let broker = Broker::start();
    broker.ask(Tool::Topics, &["--create", "--topic", "t"]);
    for codec in CODECS {
        let input = format!("{codec}:with {codec}\n");
        let arguments = [
            "--topic",
            "t",
            "--compression-codec",
            codec,
            "--reader-property",
            "parse.key=true",
            "--reader-property",
            "key.separator=:",
        ];
        broker
            .run_with_input(Tool::ConsoleProducer, &arguments, &input)
            .expect_success();
    }
    let said = broker.ask(
        Tool::ConsoleConsumer,
        &[
            "--topic",
            "t",
            "--from-beginning",
            "--max-messages",
            "5",
            "--timeout-ms",
            "60000",
            "--formatter-property",
            "print.key=true",
        ],
    );
    let expected: Vec<_> = CODECS
        .iter()
        .map(|codec| format!("{codec}\twith {codec}"))
        .collect();
    assert_eq!(said.lines().collect::<Vec<_>>(), expected);
}

#[test]
fn the_performance_tools_speak_every_codec_and_transactions() {
    if !has_java("kafka-producer-perf-test and kafka-consumer-perf-test with every codec") {
        return;
    }
    let broker = Broker::start();
    broker.ask(
        Tool::Topics,
        &["--create", "--topic", "t", "--partitions", "2"],
    );
    let produce = |more: &[&str]| {
        let load = [
            "--topic",
            "t",
            "--num-records",
            "5000",
            "--record-size",
            "200",
            "--throughput",
            "-1",
        ];
        let said = broker.ask(Tool::ProducerPerformance, &[&load[..], more].concat());
        assert_has(&said, &["5000 records sent"]);
    };
    for codec in CODECS {
        produce(&["--command-property", &format!("compression.type={codec}")]);
    }
    produce(&[
        "--transactional-id",
        "load",
        "--transaction-duration-ms",
        "50",
    ]);
    let said = broker.ask(
        Tool::ConsumerPerformance,
        &[
            "--topic",
            "t",
            "--num-records",
            "30000",
            "--timeout",
            "60000",
            "--hide-header",
        ],
    );
    let figures: Vec<_> = said.trim().split(", ").collect();
    let records: u64 = figures[4]
        .parse()
        .unwrap_or_else(|_| panic!("no count in:\n{said}"));
    assert!(records >= 30_000, "{said}");
}
