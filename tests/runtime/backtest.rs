//! Rules over what lies in their topics: what a replay of the same events in the order of their times
//! finds, from topics of several partitions with aborted transactions, and by the range that is asked
//! for.

use std::slice::from_ref;
use std::sync::Arc;
use std::time::Duration;

use kafka_harness::Kafka;
use partita::codec::event::{AvroSchema, NoSchema, Schemas, WriterSchema};
use partita::log::kafka::ClientSettings;
use partita::log::kafka::range::Edge;
use partita::model::Timestamp;
use partita::pattern::{Rule, syntax};
use partita::runtime::backtest::{BacktestError, BacktestSettings, Backtested, backtest};
use partita::runtime::replay::replay;
use partita_broker::{Broker, Config};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use serde_json::{Value, json};

const RULES: &str = r#"
kind: rule
name: pair
correlate: {by: [user]}
match:
  sequence:
    within: 2s
    steps:
      - {id: order, topic: orders, where: "event.amount > 20"}
      - {id: click, topic: clicks}
enrich: [{topic: people, as: person, key: user}]
start: {workflow: w, input: {order: "${matches.order[0].n}", click: "${matches.click[0].n}", person: "${person}"}}
---
kind: rule
name: made
match: {any: [{id: a, topic: orders, where: "event.ce.type == 'order.made' && event.amount > 50"}]}
start: {workflow: w, input: {n: "${matches.a[0].n}"}}
"#;

/// The same with other thresholds.
const STRICTER: [(&str, &str); 2] = [
    ("amount > 20", "amount > 30"),
    ("amount > 50", "amount > 40"),
];

const BASE: i64 = 1_769_860_800_000;
const EVENTS: i64 = 1_200;
const STEP: i64 = 100;
const WITHIN: Duration = Duration::from_secs(120);

/// What one producer writes.
struct Sent {
    topic: &'static str,
    partition: i32,
    key: String,
    at: i64,
    value: String,
    is_made: bool,
    /// As if a run had sent it that the rule `made` started.
    is_own: bool,
    /// Of a transaction that is given up.
    is_aborted: bool,
}

/// Event `n`: a row of the table now and then, else an order or a click.
fn sent(n: i64) -> Sent {
    let user = format!("u{}", n % 7);
    let sent = |topic, partitions: i64, value: String| Sent {
        topic,
        partition: (n % partitions) as i32,
        key: user.clone(),
        at: BASE + n * STEP,
        value,
        is_made: false,
        is_own: false,
        is_aborted: n / 20 % 5 == 3,
    };
    match n % 10 {
        0 => sent("people", 2, format!(r#"{{"seen":{n}}}"#)),
        1 | 4 | 7 => sent("clicks", 2, format!(r#"{{"n":{n},"user":"{user}"}}"#)),
        5 => sent("orders", 3, "[no event".to_owned()),
        _ => Sent {
            is_made: n % 3 == 0,
            is_own: n % 18 == 0,
            ..sent(
                "orders",
                3,
                format!(r#"{{"n":{n},"user":"{user}","amount":{}}}"#, n * 37 % 100),
            )
        },
    }
}

fn produce(brokers: &str) {
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("transactional.id", "backtest")
        .create()
        .expect("a producer");
    producer.init_transactions(WITHIN).expect("a session");
    for begin in (0..EVENTS).step_by(20) {
        producer.begin_transaction().expect("a transaction");
        for sent in (begin..begin + 20).map(sent) {
            let headers = headers(&sent).iter();
            let headers = headers.fold(OwnedHeaders::new(), |headers, (key, value)| {
                headers.insert(Header {
                    key,
                    value: Some(*value),
                })
            });
            let record = BaseRecord::to(sent.topic)
                .partition(sent.partition)
                .key(&sent.key)
                .payload(&sent.value)
                .timestamp(sent.at)
                .headers(headers);
            assert!(producer.send(record).is_ok(), "the queue has room");
        }
        producer.flush(WITHIN).expect("deliveries");
        match sent(begin).is_aborted {
            true => producer.abort_transaction(WITHIN).expect("an end"),
            false => producer.commit_transaction(WITHIN).expect("an end"),
        }
    }
}

fn headers(sent: &Sent) -> &'static [(&'static str, &'static str)] {
    const ALL: [(&str, &str); 3] = [
        ("ce_specversion", "1.0"),
        ("ce_type", "order.made"),
        ("ce_partitarule", "made@7"),
    ];
    match (sent.is_made, sent.is_own) {
        (false, _) => &[],
        (true, false) => &ALL[..2],
        (true, true) => &ALL,
    }
}

async fn create_topics(brokers: &str) {
    let admin: AdminClient<DefaultClientContext> = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .create()
        .expect("an admin client");
    // The records say that they are old, and are to stay.
    let topics = [("orders", 3), ("clicks", 2), ("people", 2)].map(|(name, partitions)| {
        NewTopic::new(name, partitions, TopicReplication::Fixed(1)).set("retention.ms", "-1")
    });
    let created = admin.create_topics(&topics, &AdminOptions::new()).await;
    for topic in created.expect("an answer") {
        topic.expect("a topic");
    }
}

fn rules(text: &str) -> Vec<Arc<Rule>> {
    syntax::parse(text, None).expect("valid rules")
}

fn stricter() -> String {
    let words = STRICTER.iter();
    words.fold(RULES.to_owned(), |text, (one, other)| {
        text.replace(one, other)
    })
}

/// Nobody writes Avro here.
struct NoSchemas;

impl Schemas for NoSchemas {
    fn by_id(&self, id: u32) -> Result<WriterSchema, NoSchema> {
        Err(NoSchema::Refused(id.to_string()))
    }

    fn by_fingerprint(&self, _: [u8; 8]) -> Result<Arc<AvroSchema>, NoSchema> {
        Err(NoSchema::Refused("none".to_owned()))
    }
}

fn run(
    brokers: &str,
    sets: &[Vec<Arc<Rule>>],
    from: Edge,
    to: Edge,
    most: usize,
) -> Result<Backtested, BacktestError> {
    let settings = BacktestSettings {
        client: ClientSettings::plain(brokers),
        from,
        to,
        advance_to: None,
        max_payload_bytes: 1 << 16,
        now: Timestamp(BASE + EVENTS * STEP),
        most,
    };
    backtest(&settings, &NoSchemas, sets, &mut |_| {})
}

/// `rule at start` of every match, sorted.
fn matches(list: &Value) -> Vec<String> {
    let list = list.as_array().expect("a list").iter();
    let mut matches: Vec<String> = list
        .map(|found| format!("{} {} {}", found["rule"], found["at"], found["start"]))
        .collect();
    matches.sort();
    matches
}

/// What a replay finds in the events from `first` on, up to and without `end`; the table is known
/// from its beginning.
fn replayed(rules: &[Arc<Rule>], first: i64, end: i64) -> Vec<String> {
    let is_there = |n: &i64| {
        let sent = sent(*n);
        !sent.is_aborted && n % 10 != 5 && (*n >= first || sent.topic == "people")
    };
    let lines: Vec<String> = (0..end)
        .filter(is_there)
        .map(|n| {
            let sent = sent(n);
            let headers: Vec<&str> = headers(&sent).iter().flat_map(|(key, value)| [*key, *value]).collect();
            json!({"topic": sent.topic, "key": sent.key, "ts": sent.at, "payload": sent.value, "headers": headers})
                .to_string()
        })
        .collect();
    let replayed = replay(rules, &lines.join("\n"), None, 1 << 20).expect("events");
    matches(&replayed.document()["matches"])
}

async fn finds_what_a_replay_finds(brokers: &str) {
    create_topics(brokers).await;
    let brokers = brokers.to_owned();
    let work = move || {
        produce(&brokers);
        compare(&brokers);
    };
    tokio::task::spawn_blocking(work).await.expect("it holds");
}

fn compare(brokers: &str) {
    let (these, others) = (rules(RULES), rules(&stricter()));
    let all = replayed(&these, 0, EVENTS);
    assert!(all.len() > 100, "{}", all.len());
    let whole = run(
        brokers,
        &[these.clone(), others.clone()],
        Edge::Earliest,
        Edge::Latest,
        usize::MAX,
    )
    .expect("a result");
    let document = whole.findings[0].document();
    assert_eq!(matches(&document["matches"]), all);
    assert_eq!(
        matches(&whole.findings[1].document()["matches"]),
        replayed(&others, 0, EVENTS)
    );

    // Where records lie is said, and what cannot be read.
    let first = &document["matches"][0]["events"];
    let place = first["order"][0].as_str().or(first["a"][0].as_str());
    assert!(
        place.is_some_and(|place| place.starts_with("orders/")),
        "{first}"
    );
    let is_committed = |n: &i64| !sent(*n).is_aborted;
    let poison = (0..EVENTS)
        .filter(|n| n % 10 == 5)
        .filter(is_committed)
        .count();
    assert_eq!(whole.unreadable.count, poison as u64);
    assert_eq!(whole.unreadable.first[0].class, "malformed");
    let events = (0..EVENTS)
        .filter(|n| n % 10 != 0)
        .filter(is_committed)
        .count();
    assert_eq!(whole.records, events as u64);
    assert_eq!(whole.spans.len(), 5);

    // What a rule has caused itself it does not get, whatever others make of it.
    let own = |n: i64| {
        let sent = sent(n);
        let amount = n * 37 % 100;
        sent.is_own && !sent.is_aborted && amount > 50
    };
    let own: Vec<i64> = (0..EVENTS).filter(|n| own(*n)).collect();
    assert!(!own.is_empty());
    assert_eq!(document["own"].as_array().map(Vec::len), Some(own.len()));
    for n in own {
        let start = json!({"workflow": "w", "input": {"n": n}}).to_string();
        assert!(!all.iter().any(|found| found.ends_with(&start)), "{n}");
    }

    // The difference is that of the two lists.
    let diff = whole.findings[0].diff(&whole.findings[1]);
    let other = replayed(&others, 0, EVENTS);
    let missing_in = |list: &[String], of: &[String]| -> Vec<String> {
        of.iter()
            .filter(|found| !list.contains(found))
            .cloned()
            .collect()
    };
    assert_eq!(matches(&diff["added"]), missing_in(&other, &all));
    assert_eq!(matches(&diff["removed"]), missing_in(&all, &other));
    let unchanged = all.len() - missing_in(&other, &all).len();
    assert_eq!(diff["unchanged"], unchanged);

    // A range by time: the first and the last of it lie within transactions.
    let at = |n: i64| Edge::At(Timestamp(BASE + n * STEP));
    let part = run(brokers, from_ref(&these), at(205), at(811), usize::MAX).expect("a result");
    for span in &part.spans {
        let (topic, partition) = (&*span.at.topic, span.at.partition);
        let is_in = |n: &i64| {
            let sent = sent(*n);
            sent.topic == topic && sent.partition == partition && !sent.is_aborted
        };
        let records = (205..811).filter(is_in).count() as i64;
        assert!(span.end - span.from >= records && span.from > 0, "{span:?}");
    }
    let part = part.findings[0].document();
    assert_eq!(matches(&part["matches"]), replayed(&these, 205, 811));

    // What is beyond the limit is counted.
    let few = run(brokers, from_ref(&these), Edge::Earliest, Edge::Latest, 3);
    let few = few.expect("a result").findings.remove(0);
    assert_eq!(few.matches(), all.len());
    let shown = few.document();
    assert_eq!(shown["matches"].as_array().map(Vec::len), Some(3));
    assert_eq!(shown["left_off"]["matches"], all.len() - 3);

    // Behind the last record there is nothing.
    let none = run(brokers, &[these], at(EVENTS), Edge::Latest, 3).expect("a result");
    assert_eq!((none.records, none.findings[0].matches()), (0, 0));

    let text = "kind: rule\nname: lost\nmatch: {any: [{id: a, topic: nowhere}]}";
    let lost = run(brokers, &[rules(text)], Edge::Earliest, Edge::Latest, 3);
    let error = lost.expect_err("no such topic").to_string();
    assert_eq!(
        error,
        "there is no topic `nowhere`, which rule lost@1 reads"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backtest_finds_what_a_replay_finds_on_the_embedded_broker() {
    let broker = Broker::start(Config::memory()).await.expect("a broker");
    finds_what_a_replay_finds(&broker.bootstrap()).await;
}

/// As at run time: what is far ahead of its record, or of the clock, is told of and makes no other late.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backtest_refuses_what_is_far_ahead() {
    let broker = Broker::start(Config::memory()).await.expect("a broker");
    let brokers = broker.bootstrap();
    create_topics(&brokers).await;
    let text = "kind: rule\nname: field\ntime: {field: at}\nmatch: {any: [{id: a, topic: clicks}]}\n---\n\
                kind: rule\nname: own\nmatch: {any: [{id: a, topic: clicks}]}";
    let work = move || {
        let producer: BaseProducer = ClientConfig::new()
            .set("bootstrap.servers", &brokers)
            .create()
            .expect("a producer");
        for (written, at) in [
            (BASE, BASE),
            (BASE + 1_000, 253_402_300_799_000),
            (250_000_000_000_000, BASE + 2_000),
            (BASE + 3_000, BASE + 3_000),
        ] {
            let value = json!({ "at": at }).to_string();
            let record = BaseRecord::<str, str>::to("clicks").partition(0);
            let record = record.payload(&value).timestamp(written);
            assert!(producer.send(record).is_ok(), "the queue has room");
        }
        producer.flush(WITHIN).expect("deliveries");
        let found = run(
            &brokers,
            &[rules(text)],
            Edge::Earliest,
            Edge::Latest,
            usize::MAX,
        );
        found.expect("a result")
    };
    let found = tokio::task::spawn_blocking(work).await.expect("it holds");
    let document = found.findings[0].document();
    let taken = document["matches"].as_array().expect("a list").iter();
    let taken: Vec<String> = taken
        .map(|found| format!("{} {}", found["rule"], found["events"]["a"][0]))
        .collect();
    let of = |rule: &str, offset: u32| format!("\"{rule}\" \"clicks/0/{offset}\"");
    assert_eq!(
        taken,
        [
            of("field", 0),
            of("field", 2),
            of("field", 3),
            of("own", 0),
            of("own", 1),
            of("own", 3)
        ]
    );
    assert_eq!(document["late"], json!([]));
    let refused = found.unreadable.first.iter();
    let refused: Vec<String> = refused
        .map(|record| format!("{} {}", record.place, record.class))
        .collect();
    let refused_at = |offset: u32| format!("\"clicks/0/{offset}\" event_time_ahead");
    assert_eq!(refused, [refused_at(1), refused_at(2)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backtest_finds_what_a_replay_finds_on_apache_kafka() {
    let Some(kafka) = Kafka::start_or_skip("backtests against Apache Kafka") else {
        return;
    };
    finds_what_a_replay_finds(&kafka.bootstrap()).await;
}
