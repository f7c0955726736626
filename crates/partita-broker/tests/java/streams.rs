use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;

use rdkafka::Message;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use crate::support::{Broker, Tool, has_java, wait_until};

const WORDS: usize = 20;
const PARTITIONS: i32 = 4;

/// The application as a process. Its kernel-bound life ends with the test's at the latest.
struct Application(Child);

impl Application {
    fn start(broker: &Broker, state: &Path) -> Application {
        let source =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/kafka/streams/CountWords.java");
        let log = File::options()
            .create(true)
            .append(true)
            .open(broker.folder("application.log"))
            .expect("the application's log can be written");
        let mut command = kafka_harness::java().expect("the jars are there");
        command
            .args(["-Xmx256m", "-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC"])
            .arg(source)
            .args([broker.address(), "count-words"])
            .arg(state)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a file handle can be cloned"))
            .stderr(log);
        Application(kafka_harness::spawn_bound(command).expect("java starts"))
    }

    /// As `kill -9` does.
    fn kill(&mut self) {
        self.0.kill().expect("it runs");
        self.0.wait().expect("it was ours");
    }

    /// Lets it finish its transaction and leave its group.
    fn stop(mut self) {
        kafka_harness::process::signal(&self.0, libc::SIGTERM);
        let mut ended = false;
        wait_until("the application stops", || {
            ended = ended || self.0.try_wait().expect("it was ours").is_some();
            ended
        });
    }
}

impl Drop for Application {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What the application has committed to its output, in order, by word.
struct Counts {
    consumer: BaseConsumer,
    by_word: BTreeMap<String, Vec<u64>>,
    records: usize,
}

impl Counts {
    fn of(broker: &Broker) -> Counts {
        let consumer: BaseConsumer = broker
            .client()
            .set("group.id", "unused")
            .set("isolation.level", "read_committed")
            .create()
            .expect("a consumer");
        let mut all = TopicPartitionList::new();
        for partition in 0..PARTITIONS {
            all.add_partition_offset("counts", partition, Offset::Beginning)
                .expect("an offset");
        }
        consumer.assign(&all).expect("assigned");
        Counts {
            consumer,
            by_word: BTreeMap::new(),
            records: 0,
        }
    }

    fn read(&mut self, wait: Duration) -> bool {
        let Some(record) = self.consumer.poll(wait) else {
            return false;
        };
        // The broker may be away for a moment: librdkafka comes back by itself.
        let Ok(record) = record else { return false };
        let text =
            |bytes: Option<&[u8]>| String::from_utf8(bytes.expect("bytes").to_vec()).expect("text");
        let count = text(record.payload()).parse().expect("a number");
        self.by_word
            .entry(text(record.key()))
            .or_default()
            .push(count);
        self.records += 1;
        true
    }

    #[track_caller]
    fn wait_for(&mut self, records: usize) {
        wait_until(&format!("{records} counts"), || {
            while self.read(Duration::from_millis(20)) {}
            self.records >= records
        });
    }
}

/// Words `from..to` of an endless text in which each word comes as often as any other.
fn text(range: std::ops::Range<usize>) -> impl Iterator<Item = (String, String)> {
    range.map(|n| (n.to_string(), format!("word{:02}", n * 7 % WORDS)))
}

#[test]
fn a_streams_application_counts_exactly_however_often_it_dies() {
    if !has_java("Kafka Streams under exactly_once_v2, with and without its state folder") {
        return;
    }
    let mut broker = Broker::start();
    for topic in ["words", "counts"] {
        let partitions = PARTITIONS.to_string();
        broker.ask(
            Tool::Topics,
            &["--create", "--topic", topic, "--partitions", &partitions],
        );
    }
    let state = broker.folder("state");
    let mut counts = Counts::of(&broker);

    broker.produce("words", text(0..1000));
    let mut application = Application::start(&broker, &state);
    counts.wait_for(500);
    broker.produce("words", text(1000..3000));
    counts.wait_for(1200);
    application.kill();

    // With its state folder, which it must not trust further than its last commit.
    broker.produce("words", text(3000..4000));
    application = Application::start(&broker, &state);
    counts.wait_for(3500);
    broker.produce("words", text(4000..6000));
    counts.wait_for(4200);
    application.kill();

    // Without: everything comes back from the changelog.
    fs::remove_dir_all(&state).expect("the state folder is there");
    broker.produce("words", text(6000..7000));
    application = Application::start(&broker, &state);
    counts.wait_for(6500);

    // The broker dies beneath it.
    broker.kill_and_restart();
    broker.produce("words", text(7000..8000));
    counts.wait_for(8000);
    application.stop();

    while counts.read(Duration::from_secs(1)) {}
    assert_eq!(counts.records, 8000, "one count for each word read");
    assert_eq!(counts.by_word.len(), WORDS);
    for (word, seen) in &counts.by_word {
        let expected: Vec<u64> = (1..=8000 / WORDS as u64).collect();
        assert_eq!(seen, &expected, "each count of {word} once and in order");
    }
    let topics = broker.ask(Tool::Topics, &["--list"]);
    for internal in [
        "count-words-by-word-repartition",
        "count-words-word-counts-changelog",
    ] {
        assert!(topics.contains(internal), "no {internal} in:\n{topics}");
    }
}
